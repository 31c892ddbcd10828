//! Can a ban be carried out: the kernel's sets, the rules that look into them, and the right to change both.

use nix::unistd::geteuid;

use super::processes::{self, Process};
use super::report::{Area, Report};
use crate::act::chain::{self, Family, Found, Plan};
use crate::act::ipset::Ipset;
use crate::act::{self, SetRef, tool};
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
                "in f2b-pipe.toml, [firewall]: backend = \"ipset\"",
            );
            return;
        }
        Backend::Ipset => {}
    }
    rights(processes, report);
    tools(report);
    if processes::own().has_net_admin()
        && let Some(sets) = sets(config, report)
    {
        rules(config, &sets, processes::loggers(processes) > 0, report);
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

/// Sets of ours that are there; `None`: the kernel has none at all.
fn sets(config: &Config, report: &mut Report) -> Option<Vec<SetRef>> {
    let mut ipset = match Ipset::open() {
        Ok(ipset) => ipset,
        Err(error) => {
            report.fail(AREA, "", error.to_string(), "");
            return None;
        }
    };
    let mut there = Vec::new();
    let mut foreign = false;
    for (_, jail) in act::jails(config) {
        for set in SetRef::of(&config.firewall.set_prefix, jail) {
            match ipset.look(&set) {
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
            format!("the kernel has ip_set; sets of ours in it: {}", there.len()),
        );
    }
    Some(there)
}

/// The chains, for each family. They are made by the first f2b-pipe that runs; without one they may well be missing.
fn rules(config: &Config, sets: &[SetRef], running: bool, report: &mut Report) {
    let plans = Plan::all(config, sets);
    let each = |plan| Family::ALL.map(|family| (plan, family));
    for (plan, family) in plans.iter().flat_map(each) {
        let place = format!("{} {} {}", family.tool(), plan.place.table, plan.place.hook);
        let found = match chain::look(plan, family) {
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
        let chain = &plan.chain;
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
