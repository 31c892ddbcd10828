//! Can a ban be carried out: the kernel's sets, the rules that look into them, and the right to change both.

use nix::unistd::geteuid;

use super::processes::{self, Process};
use super::report::{Area, Report};
use crate::act::firewall::{self, Firewall};
use crate::act::plan::{Family, Found, Plan};
use crate::act::{self, ActError, SetRef, tool};
use crate::config::{Backend, Config};

const AREA: Area = Area::Kernel;

/// All of it.
pub(super) fn look(config: &Config, processes: &[Process], report: &mut Report) {
    match config.firewall.backend {
        Backend::DryRun => {
            report.warn(
                AREA,
                "",
                "firewall.backend is \"dry-run\": bans are told, and nobody is banned",
                "in f2b-pipe.toml, [firewall]: backend = \"auto\"",
            );
            return;
        }
        Backend::Auto | Backend::Ipset | Backend::Nftables => {}
    }
    rights(processes, report);
    let opened = match processes::own().has_net_admin() {
        true => firewall::open(&config.firewall),
        // What is lacking was told.
        false => Err(ActError::NoRights),
    };
    match opened {
        Ok(mut open) => {
            if open.name() == "ipset" {
                tools(report);
            }
            let sets = sets(config, open.as_mut(), report);
            let running = processes::loggers(processes) > 0;
            rules(config, open.as_mut(), &sets, running, report);
        }
        Err(ActError::NoRights) => {
            if config.firewall.backend != Backend::Nftables {
                tools(report);
            }
        }
        Err(error) => report.fail(AREA, "", error.to_string(), ""),
    }
}

/// Of this process, and of httpd, whose child f2b-pipe will be.
fn rights(processes: &[Process], report: &mut Report) {
    if let Some(httpd) = processes::httpd(processes) {
        if httpd.has_net_admin() {
            report.ok(
                AREA,
                "",
                "httpd has the right to ban (CAP_NET_ADMIN), so its loggers have it, too",
            );
        } else {
            report.fail(
                AREA,
                format!("httpd (process {})", httpd.pid),
                "runs without CAP_NET_ADMIN, so f2b-pipe will not be allowed to ban",
                "start httpd as root; in a container add --cap-add NET_ADMIN; where its systemd unit has a \
                 CapabilityBoundingSet: systemctl edit it and add CAP_NET_ADMIN there",
            );
        }
    }
    if processes::own().has_net_admin() {
        return;
    }
    if geteuid().is_root() {
        report.fail(
            AREA,
            "",
            "root without CAP_NET_ADMIN, as in a container: nobody can be banned from here, and sets and rules were not looked at",
            "start the container with --cap-add NET_ADMIN",
        );
    } else {
        report.warn(
            AREA,
            "",
            "sets and rules were not looked at, which needs root",
            "sudo f2b-pipe check",
        );
    }
}

fn tools(report: &mut Report) {
    let mut variants = Vec::new();
    for family in Family::ALL {
        let name = family.tool();
        match tool::succeed(name, &["--version"], "") {
            Ok(version) => {
                let version = version.trim().to_owned();
                let variant = if version.contains("nf_tables") {
                    "nftables"
                } else {
                    "legacy"
                };
                report.ok(AREA, "", format!("{version}: writes to {variant}"));
                variants.push((name, variant));
            }
            Err(error) => report.fail(AREA, "", error.to_string(), ""),
        }
    }
    if let [(first, a), (second, b)] = variants.as_slice()
        && a != b
    {
        report.warn(
            AREA,
            "",
            format!("{first} writes to {a} and {second} to {b}"),
            "update-alternatives --config iptables; update-alternatives --config ip6tables",
        );
    }
    if let Err(error) = tool::succeed("ipset", &["--version"], "") {
        report.warn(
            AREA,
            "",
            format!("f2b-pipe does without the program ipset, you may want it to look at the bans ({error})"),
            "apt install ipset / dnf install ipset",
        );
    }
}

/// Sets of ours that are there.
fn sets(config: &Config, open: &mut dyn Firewall, report: &mut Report) -> Vec<SetRef> {
    let mut there = Vec::new();
    let mut foreign = false;
    for (_, jail) in act::jails(config) {
        for set in SetRef::of(&config.firewall.set_prefix, jail) {
            match open.look(&set) {
                Ok(true) => there.push(set),
                Ok(false) => {}
                Err(error) => {
                    foreign = true;
                    report.fail(AREA, &set.name, error.to_string(), "");
                }
            }
        }
    }
    if !foreign {
        report.ok(
            AREA,
            "",
            format!(
                "bans go into sets of {}; ours that are there: {}; to look into one: {}",
                open.name(),
                there.len(),
                open.shown_by(&format!("{}JAIL", config.firewall.set_prefix))
            ),
        );
    }
    there
}

/// The chains, for each family. They are made by the first f2b-pipe that runs; without one they may well be missing.
fn rules(
    config: &Config,
    open: &mut dyn Firewall,
    sets: &[SetRef],
    running: bool,
    report: &mut Report,
) {
    let plans = Plan::all(config, sets);
    let families = open.families();
    let each = |plan| families.iter().map(move |family| (plan, *family));
    for (plan, family) in plans.iter().flat_map(each) {
        let (place, chain) = match open.name() {
            "ipset" => (
                format!("{} {} {}", family.tool(), plan.place.table, plan.place.hook),
                plan.chain.clone(),
            ),
            _ => ("nftables".to_owned(), open.named(plan, family)),
        };
        let chain = chain.strip_prefix("chain ").unwrap_or(&chain);
        let found = match open.found(plan, family) {
            Ok(found) => found,
            Err(error) => {
                report.fail(
                    AREA,
                    place,
                    error.to_string(),
                    "without this table bans cannot be put in force; on RHEL 10: dnf install kernel-modules-extra",
                );
                continue;
            }
        };
        let wrong = match found {
            Found::InPlace => {
                report.ok(
                    AREA,
                    place,
                    format!("the chain {chain} comes before all other rules"),
                );
                continue;
            }
            Found::Missing if !running => {
                report.ok(
                    AREA,
                    place,
                    format!("the first f2b-pipe that runs makes the chain {chain}"),
                );
                continue;
            }
            Found::Missing => format!("nothing leads to the chain {chain}, so nobody is kept out"),
            Found::Overtaken => format!(
                "another rule comes before the chain {chain}; whom that one accepts no ban keeps out"
            ),
            Found::Doubled => format!("two rules lead to the chain {chain}"),
            Found::Incomplete => format!("the chain {chain} has no rule yet for a set that is new"),
            Found::Changed => {
                format!("the chain {chain} has other rules than the configuration wants")
            }
        };
        if running {
            report.fail(
                AREA,
                place,
                wrong,
                "f2b-pipe mends this within a second (a changed configuration: after apachectl graceful); if it stays, httpd's error \
                 log says why",
            );
        } else {
            report.warn(
                AREA,
                place,
                wrong,
                "the next f2b-pipe that httpd starts mends this",
            );
        }
    }
}
