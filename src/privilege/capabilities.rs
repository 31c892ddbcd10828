//! Which capabilities are kept.

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Group, getgroups, setgroups};

use super::Step;
use crate::config::Config;

/// The packet filter and open connections (netlink) take CAP_NET_ADMIN. CAP_DAC_READ_SEARCH reads logs whoever owns them.
/// CAP_NET_RAW is iptables' (legacy), which another process runs. uid 0 without CAP_DAC_OVERRIDE still writes what root owns.
fn needed(config: &Config) -> CapsHashSet {
    let mut kept = CapsHashSet::from([Capability::CAP_DAC_READ_SEARCH]);
    if super::bans(config) {
        kept.insert(Capability::CAP_NET_ADMIN);
    }
    kept
}

/// Gives up all others, in every set of this thread; returns those that it still has.
pub(super) fn keep_needed(config: &Config) -> (Step, Vec<String>) {
    let kept = &needed(config);
    if let Some(group) = &config.control_group {
        join(group);
    }
    let done = give_up(kept);
    let has = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let mut names: Vec<String> = has
        .iter()
        .map(|one| one.to_string().to_lowercase())
        .collect();
    names.sort_unstable();
    let step = match done {
        Ok(()) if has.is_subset(kept) => Step::On,
        Ok(()) => Step::Failed("some capabilities are still there".to_owned()),
        Err(error) => Step::Failed(error),
    };
    (step, names)
}

/// Who may not give a file away (CAP_CHOWN) may give it to a group that he is in: the control socket's. A group that is not
/// there, or not to be had, is told of by whoever makes the socket.
fn join(name: &str) {
    let group = Group::from_name(name).ok().flatten();
    if let (Some(group), Ok(mut groups)) = (group, getgroups()) {
        groups.push(group.gid);
        setgroups(&groups).ok();
    }
}

fn give_up(kept: &CapsHashSet) -> Result<(), String> {
    let told = |error: caps::errors::CapsError| error.to_string();
    let had = caps::read(None, CapSet::Permitted).map_err(told)?;
    let effective = caps::read(None, CapSet::Effective).map_err(told)?;
    if effective.contains(&Capability::CAP_SETPCAP) {
        // What a later kernel adds is not in the list, and does not matter: nothing is executed.
        for one in caps::runtime::thread_all_supported() {
            if !kept.contains(&one) {
                caps::drop(None, CapSet::Bounding, one).map_err(told)?;
            }
        }
    }
    // An old kernel (or a container) has no ambient set, and so none to give up.
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient).map_err(told)?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(told)?;
    let left: CapsHashSet = had.intersection(kept).copied().collect();
    caps::set(None, CapSet::Effective, &left).map_err(told)?;
    caps::set(None, CapSet::Permitted, &left).map_err(told)
}
