//! `off` and `reload`: the panic button, and the way back.

use std::io::{ErrorKind, Write};

use serde_json::Value;

use super::super::{Done, Failure, OffArgs, Outcome, WhereArgs, ask};
use super::{failed, load, open, paths};
use crate::act::listed::empty;
use crate::act::lock::try_lock;
use crate::act::{firewall, keeper};
use crate::config::{self, Backend, Config};
use crate::control::wire::Request;
use crate::watch;

/// `f2b-pipe off`: writes the off file, which every running f2b-pipe sees within a second, and empties every set.
/// `--remove` takes away the chain and the sets, too.
///
/// # Errors
/// The file cannot be written, or the kernel cannot be asked. Whatever can be done is done all the same.
pub fn off(args: &OffArgs, out: &mut dyn Write) -> Done {
    // The panic button does not wait for anybody who is too busy: then it is done here.
    if !args.remove
        && let Ok(Some(done)) = ask::ask_if_allowed(&paths(&args.place), &Request::Off)
    {
        let bans = done.get("unbanned").and_then(Value::as_u64).unwrap_or(0);
        writeln!(out, "{bans} bans taken away")?;
        writeln!(out, "off: nobody is banned until `f2b-pipe reload`")?;
        return Ok(Outcome::Fine);
    }
    let config = load(&args.place);
    let file = paths(&args.place).off();
    let written = std::fs::create_dir_all(&args.place.runtime_dir)
        .and_then(|()| std::fs::write(&file, "f2b-pipe off\n"));
    if config.firewall.backend != Backend::DryRun {
        let mut kernel = open(&config)?;
        let bans = kernel
            .ours(&config.firewall.set_prefix)
            .and_then(|names| empty(&names, kernel.as_mut()))
            .map_err(|error| failed(&error))?;
        writeln!(out, "{bans} bans taken away")?;
        if args.remove {
            // A keeper that has not seen the file yet would put everything back.
            std::thread::sleep(crate::act::keeper::TICK.mul_f32(1.5));
            for problem in remove(&config) {
                writeln!(out, "left: {problem}")?;
            }
        }
    }
    watch::lifted(&config, &paths(&args.place), None, None)?;
    if let Err(error) = written {
        return Err(Failure::Usage(format!(
            "{}: {error}; so f2b-pipe goes on banning",
            file.display()
        )));
    }
    let alone = matches!(try_lock(&paths(&args.place).lock()), Ok(Some(_)));
    if args.remove && alone {
        // Nobody runs who would put it back; and who installs again wants his bans.
        std::fs::remove_file(&file)?;
        writeln!(out, "rules and sets are taken away")?;
    } else {
        writeln!(out, "off: nobody is banned until `f2b-pipe reload`")?;
    }
    Ok(Outcome::Fine)
}

/// Takes away rules and sets, of both kinds of firewall: another one may have been in use before. What could not be done is
/// returned.
fn remove(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    for backend in [Backend::Ipset, Backend::Nftables] {
        let which = config::Firewall {
            backend,
            ..config.firewall.clone()
        };
        // A kernel that does not have it has nothing of ours in it.
        let Ok(mut kernel) = firewall::open(&which) else {
            continue;
        };
        let used = kernel
            .ours(&which.set_prefix)
            .is_ok_and(|ours| !ours.is_empty());
        let used = used || config.firewall.backend != Backend::Nftables;
        if used && let Err(error) = kernel.remove(config) {
            problems.push(error.to_string());
        }
    }
    problems
}

/// `f2b-pipe reload`: all processes read the configuration anew, and bans are switched on again.
///
/// # Errors
/// The configuration is bad: the old one goes on. The off file cannot be taken away.
pub fn reload(args: &WhereArgs, out: &mut dyn Write) -> Done {
    let paths = paths(args);
    let was_off = keeper::is_off(&paths);
    let reload = Request::Reload { jail: None };
    if let Some(done) = ask::ask(&paths, &reload).map_err(old_goes_on)? {
        let jails = done.get("jails").and_then(Value::as_u64).unwrap_or(0);
        writeln!(
            out,
            "the configuration was read anew; {jails} jails. Counts and bans are as before"
        )?;
        if was_off {
            writeln!(out, "on: bans go on within a second")?;
        }
        return Ok(Outcome::Fine);
    }
    let file = paths.off();
    match std::fs::remove_file(&file) {
        Ok(()) => writeln!(out, "on: bans go on as soon as an f2b-pipe runs")?,
        Err(error) if error.kind() == ErrorKind::NotFound => writeln!(
            out,
            "it was not off, and no f2b-pipe runs; one that starts reads the configuration"
        )?,
        Err(error) => {
            return Err(Failure::Usage(format!(
                "{}: {error}; so it stays off",
                file.display()
            )));
        }
    }
    Ok(Outcome::Fine)
}

fn old_goes_on(failure: Failure) -> Failure {
    match failure {
        Failure::Usage(text) => Failure::Usage(format!("{text}\nthe old configuration goes on")),
        other @ Failure::Output(_) => other,
    }
}
