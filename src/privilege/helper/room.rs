//! The helper's own side: what it is asked for it looks up in the configuration, and runs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;
use serde::Serialize;

use super::wire::{Wire, readable};
use super::{Chain, ChainWork, Event, Request, Told};
use crate::act::chain;
use crate::act::command::{self, IgnoreCommand, Pool, Spec};
use crate::act::plan::{Family, Place, Plan};
use crate::act::{SetRef, jails};
use crate::config::{self, Backend, Blocktype, Config};
use crate::privilege::Setting;
use crate::run::{guarded, say_panics};
use crate::silence::board;
use crate::source::journal;

/// What it is called, for ps.
const NAME: &std::ffi::CStr = c"f2b-helper";
/// How often what is wrong with actions is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Things done at a time; more is refused. `watch` asks for each chain and each jail's command one after the other.
const AT_ONCE: usize = 256;
/// Where the end of a child cannot be waited for, it is looked for so often.
const OLD_LOOK: Duration = Duration::from_millis(100);

/// The helper's life. It ends with its parent.
pub(super) fn live(parent: Pid, wire: Wire, setting: &Setting<'_>) -> ! {
    let parted = crate::sys::part_from(parent, NAME, wire.into());
    let Ok(wire) = parted.map(Wire::from) else {
        crate::sys::leave(1);
    };
    crate::say::start();
    say_panics();
    let lived = guarded(|| Room::new(wire, setting).stay());
    crate::say::flush();
    crate::sys::leave(u8::from(lived.is_none()))
}

struct Room {
    wire: Arc<Wire>,
    config: Arc<Config>,
    path: PathBuf,
    tee: Option<PathBuf>,
    pool: Option<Pool>,
    jails: HashMap<String, command::Jail>,
    ignores: HashMap<String, Arc<IgnoreCommand>>,
}

impl Room {
    fn new(wire: Wire, setting: &Setting<'_>) -> Self {
        let mut room = Self {
            wire: Arc::new(wire),
            config: Arc::new(setting.config.clone()),
            path: setting.config_path.to_owned(),
            tee: setting.tee.map(Path::to_owned),
            pool: None,
            jails: HashMap::new(),
            ignores: HashMap::new(),
        };
        room.take_commands();
        room
    }

    fn take_commands(&mut self) {
        let jails = self.config.jails.iter();
        let commands = jails.filter_map(|jail| {
            let command = IgnoreCommand::of(&jail.name, jail.raw.as_deref()?)?;
            Some((jail.name.clone(), Arc::new(command)))
        });
        self.ignores = commands.collect();
    }

    fn stay(mut self) {
        let wire = Arc::clone(&self.wire);
        let telling = thread::Builder::new()
            .name("tell".into())
            .spawn(move || tell(&wire));
        if let Err(error) = telling {
            log::error!("cannot start a thread: {error}; status does not show which actions fail");
        }
        while let Ok(Some((request, files))) = self.wire.receive::<Request>() {
            let answer = files.into_iter().next().map(Wire::from);
            self.serve(request, answer);
        }
    }

    fn serve(&mut self, request: Request, answer: Option<Wire>) {
        match request {
            Request::Event { jail, event } => self.event(&jail, event),
            Request::Reload => {
                let dry = self.config.firewall.backend == Backend::DryRun;
                let mut config = config::load(&self.path).config;
                if dry {
                    config.firewall.backend = Backend::DryRun;
                }
                self.config = Arc::new(config);
                self.take_commands();
                give(answer.as_ref(), &(), &[]);
            }
            Request::Finish { millis } => {
                self.jails.clear();
                let pool = self.pool.take();
                aside(answer, move |answer| {
                    let left = pool.map_or(0, |pool| pool.finish(Duration::from_millis(millis)));
                    give(answer, &left, &[]);
                });
            }
            Request::Ignore { jail, ticket } => {
                let Some(command) = self.ignores.get(&jail).map(Arc::clone) else {
                    return give(answer.as_ref(), &false, &[]);
                };
                aside(answer, move |answer| {
                    give(answer, &command.ask(&ticket), &[]);
                });
            }
            Request::Chain(asked) => {
                let config = Arc::clone(&self.config);
                aside(answer, move |answer| chain(&config, &asked, answer));
            }
            Request::Tee => {
                let Some(tee) = self.tee.clone() else {
                    return give(answer.as_ref(), &Err::<(), i32>(nix::libc::ENOENT), &[]);
                };
                aside(answer, move |answer| match crate::tee::open(&tee) {
                    Ok(file) => give(answer, &Ok::<(), i32>(()), &[file.as_fd()]),
                    Err(error) => {
                        let code = error.raw_os_error().unwrap_or(nix::libc::EIO);
                        give(answer, &Err::<(), i32>(code), &[]);
                    }
                });
            }
            Request::Journal(wanted) => {
                let places = self.config.jails.iter();
                let mut places = places.filter_map(|jail| jail.raw.as_deref());
                if !places.any(|raw| raw.journal == *wanted.place()) {
                    let no = (0, "that journal is not one of the configuration".to_owned());
                    return give(answer.as_ref(), &Err::<u32, _>(no), &[]);
                }
                aside(answer, move |answer| follow(&wanted, answer));
            }
        }
    }

    fn event(&mut self, name: &str, event: Event) {
        let specs = || {
            let mut jails = self.config.jails.iter();
            let raw = jails.find(|jail| jail.name == name)?.raw.as_deref()?;
            Some(
                raw.run()
                    .map(|action| Spec::of(name, action))
                    .collect::<Vec<_>>(),
            )
        };
        let jail = self.jails.get(name);
        match (event, jail) {
            (Event::Ban(ticket), Some(jail)) => jail.ban(ticket),
            (Event::Prolong(ticket), Some(jail)) => jail.prolong(ticket),
            (Event::Unban(ticket), Some(jail)) => jail.unban(ticket),
            (Event::Stop(held), Some(_)) => {
                if let Some(jail) = self.jails.remove(name) {
                    jail.stop(held);
                }
            }
            (Event::Reload(held), Some(_)) => {
                let specs = specs().unwrap_or_default();
                if let Some(jail) = self.jails.get_mut(name) {
                    say(&jail.reload(specs, held));
                }
            }
            (Event::Start, None) => {
                let specs = specs().unwrap_or_default();
                self.start(name, specs);
            }
            // One that has no actions, or had its start already.
            (_, _) => {}
        }
    }

    fn start(&mut self, name: &str, specs: Vec<Spec>) {
        if self.pool.is_none() {
            self.pool = Pool::new(&command::Settings::default())
                .inspect_err(|error| {
                    log::error!(
                        "cannot start threads for the actions of jails: {error}; none of them run"
                    );
                })
                .ok();
        }
        let Some(pool) = &self.pool else { return };
        let (jail, errors) = pool.jail(name, specs);
        say(&errors);
        jail.start();
        self.jails.insert(name.to_owned(), jail);
    }
}

fn say(errors: &[command::SpecError]) {
    for error in errors {
        log::error!("{error}");
    }
}

/// Keeps the parent told of what is wrong.
fn tell(wire: &Wire) {
    let mut told = Vec::new();
    loop {
        let troubles = board().shown();
        if troubles != told {
            told.clone_from(&troubles);
            if wire.send(&Told { troubles }, &[]).is_err() {
                return;
            }
        }
        thread::sleep(LOOK);
    }
}

/// Whoever asked may have gone.
fn give(answer: Option<&Wire>, what: &impl Serialize, files: &[BorrowedFd<'_>]) {
    if let Some(answer) = answer {
        answer.send(what, files).ok();
    }
}

/// On a thread of its own, so that nothing waits for a program that hangs. Whoever is refused finds the answer's end closed.
fn aside(answer: Option<Wire>, work: impl FnOnce(Option<&Wire>) + Send + 'static) {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    if RUNNING.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let started = thread::Builder::new().name("aside".into()).spawn(move || {
        crate::sys::stand_back();
        guarded(|| work(answer.as_ref()));
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = started {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        log::error!("cannot start a thread: {error}");
    }
}

fn chain(config: &Config, asked: &Chain, answer: Option<&Wire>) {
    let family = match asked.v6 {
        false => Family::Inet,
        true => Family::Inet6,
    };
    let prefix = &config.firewall.set_prefix;
    let known = jails(config).flat_map(|(_, jail)| SetRef::of(prefix, jail));
    let sets: Vec<SetRef> = known.filter(|set| asked.sets.contains(&set.name)).collect();
    let plans = Plan::all(config, &sets);
    let plan = |reject| {
        let place = Place::of(match reject {
            true => Blocktype::Reject,
            false => Blocktype::Drop,
        });
        let mut plans = plans.iter();
        plans
            .find(|plan| plan.place == place)
            .ok_or_else(|| "no jail of the configuration has a chain there".to_owned())
    };
    let words = |error: crate::act::tool::ToolError| error.to_string();
    match asked.what {
        ChainWork::Look { reject } => {
            let found = plan(reject).and_then(|plan| chain::look(plan, family).map_err(words));
            give(answer, &found, &[]);
        }
        ChainWork::Place { reject } => {
            let placed = plan(reject).and_then(|plan| chain::place(plan, family).map_err(words));
            give(answer, &placed, &[]);
        }
        ChainWork::RemoveOthers => {
            let done = chain::remove_others(config, &plans, family).map_err(words);
            give(answer, &done, &[]);
        }
    }
}

/// A journalctl, until it ends or whoever asked lets go of it.
fn follow(wanted: &journal::Wanted, answer: Option<&Wire>) {
    let refuse = |error: &io::Error| {
        let no = (error.raw_os_error().unwrap_or(0), error.to_string());
        give(answer, &Err::<u32, _>(no), &[]);
    };
    let started = wanted
        .command()
        .map_err(io::Error::other)
        .and_then(|mut command| command.spawn());
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return refuse(&error),
    };
    let pipes = (child.stdout.take(), child.stderr.take(), Wire::pair());
    if let (Some(out), Some(err), Ok((ours, theirs))) = pipes {
        let files = [out.as_fd(), err.as_fd(), theirs.as_fd()];
        give(answer, &Ok::<u32, (i32, String)>(child.id()), &files);
        // Theirs alone: when it goes, journalctl goes.
        drop((out, err, theirs));
        match wait(&mut child, &ours) {
            Ok(status) => give(Some(&ours), &status, &[]),
            Err(error) => log::warn!("journalctl: {error}"),
        }
    } else {
        child.kill().ok();
        child.wait().ok();
        refuse(&io::ErrorKind::OutOfMemory.into());
    }
}

/// Its status when it has ended; it is killed when `life` is closed.
fn wait(child: &mut Child, life: &Wire) -> io::Result<i32> {
    let end: Option<OwnedFd> = crate::sys::end_of(child.id()).ok();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.into_raw());
        }
        let mut fds = vec![life.as_fd()];
        fds.extend(end.iter().map(OwnedFd::as_fd));
        readable(&fds, end.is_none().then_some(OLD_LOOK))?;
        // Nothing is ever sent on it: readable means closed.
        if readable(&[life.as_fd()], Some(Duration::ZERO))? {
            child.kill()?;
            return Ok(child.wait()?.into_raw());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::command::Ticket;
    use crate::source::journal::Wanted;

    /// A room, and the answer to one request.
    fn asked<T: serde::de::DeserializeOwned>(config: &str, request: Request) -> Option<T> {
        let path = Path::new("/nonexistent/f2b-pipe.toml");
        let loaded = config::from_text(path, config);
        assert_eq!(loaded.errors().count(), 0, "{:?}", loaded.problems);
        let setting = Setting {
            config: &loaded.config,
            config_path: path,
            paths: &config::RuntimePaths::new(Path::new("/nonexistent"), path),
            tee: None,
        };
        let (wire, _far) = Wire::pair().unwrap();
        let mut room = Room::new(wire, &setting);
        let (ours, theirs) = Wire::pair().unwrap();
        room.serve(request, Some(theirs));
        ours.receive_within(Duration::from_secs(10))
            .unwrap()
            .map(|(answer, _)| answer)
    }

    #[test]
    fn what_the_helper_is_asked_for_is_in_the_configuration() {
        let marker = std::env::temp_dir().join(format!("f2b-pipe-asked-{}", std::process::id()));
        let command = format!("touch {}", marker.display());
        // A jail that is not there, though its name is a command.
        let ignore = Request::Ignore {
            jail: command.clone(),
            ticket: Ticket::of(&format!("$({command})")),
        };
        assert_eq!(asked::<bool>("", ignore), Some(false));
        // No tee is configured.
        let tee = asked::<Result<(), i32>>("", Request::Tee).unwrap();
        assert_eq!(tee, Err(nix::libc::ENOENT));
        // A journal that no jail reads, and words that are none of a match.
        let journal = |json: &str| {
            let wanted: Wanted = serde_json::from_str(json).unwrap();
            asked::<Result<u32, (i32, String)>>(
                "[jail.sshd]\nfilter = 'sshd'\nfailregex = '<HOST>'\nlogpath = 'journal'\n",
                Request::Journal(wanted),
            )
            .unwrap()
            .unwrap_err()
            .1
        };
        let place =
            r#""place": {"folder": null, "files": [], "namespace": null, "of_users": false}"#;
        let other =
            r#""place": {"folder": "/tmp", "files": [], "namespace": null, "of_users": false}"#;
        let text = journal(&format!(
            r#"{{"alternatives": [], {other}, "after": null, "since": 0.0}}"#
        ));
        assert!(text.contains("not one of the configuration"), "{text}");
        let text = journal(&format!(
            r#"{{"alternatives": [["--vacuum-size=1"]], {place}, "after": null, "since": 0.0}}"#
        ));
        assert!(text.contains("is no match"), "{text}");
        assert!(!marker.exists());
    }
}
