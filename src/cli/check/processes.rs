//! Who runs on this host, from /proc: httpd, fail2ban, and ourselves.

use std::fs;
use std::path::Path;

use super::super::RUNTIME_DIR;

/// CAP_NET_ADMIN, bit 12 (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) parent: u32,
    pub(super) uid: u32,
    /// CapEff.
    capabilities: u64,
}

impl Process {
    /// Is it an f2b-pipe that judges lines (`run`, `watch`) and has this runtime directory?
    pub(in crate::cli) fn judges_in(&self, folder: &Path) -> bool {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|&b| b == 0).skip(1).collect();
        let command = words.first().copied().unwrap_or_default();
        let judges = [&b"run"[..], b"watch", b""].contains(&command) || command.starts_with(b"-");
        let given = words.windows(2).find_map(|pair| match pair {
            [b"--runtime-dir", given] => Some(*given),
            [word, _] => word.strip_prefix(b"--runtime-dir="),
            _ => None,
        });
        let own = given.unwrap_or(RUNTIME_DIR.as_bytes());
        self.name == "f2b-pipe" && judges && own == folder.as_os_str().as_encoded_bytes()
    }

    /// Its number.
    pub(in crate::cli) fn pid(&self) -> u32 {
        self.pid
    }

    /// May it change the kernel's sets?
    pub(super) fn has_net_admin(&self) -> bool {
        self.capabilities & NET_ADMIN != 0
    }
}

/// All that can be seen and share this network: what runs in a container has sets and rules of its own. One that ends
/// meanwhile is left out.
pub(in crate::cli) fn all() -> Vec<Process> {
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = network("self");
    let is_here = |pid: &u32| network(&pid.to_string()).is_none_or(|theirs| Some(theirs) == own);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_here)
        .filter_map(|pid: u32| parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
        .collect()
}

/// This one.
pub(super) fn own() -> Process {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| parse(&status))
        .unwrap_or_default()
}

fn parse(status: &str) -> Option<Process> {
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next())
    };
    Some(Process {
        pid: field("Pid")?.parse().ok()?,
        name: field("Name")?.to_owned(),
        parent: field("PPid")?.parse().ok()?,
        uid: field("Uid")?.parse().ok()?,
        capabilities: u64::from_str_radix(field("CapEff")?, 16).ok()?,
    })
}

/// httpd's first process: the one whose parent is not httpd.
pub(in crate::cli) fn httpd(all: &[Process]) -> Option<&Process> {
    let is_httpd = |process: &&Process| matches!(process.name.as_str(), "apache2" | "httpd");
    all.iter().filter(is_httpd).find(|process| {
        !all.iter()
            .filter(is_httpd)
            .any(|other| other.pid == process.parent)
    })
}

/// The copies of f2b-pipe that httpd started.
pub(super) fn loggers(all: &[Process]) -> usize {
    let parent = httpd(all).map(|httpd| httpd.pid);
    all.iter()
        .filter(|process| process.name == "f2b-pipe" && Some(process.parent) == parent)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read() {
        let text = "Name:\tapache2\nUmask:\t0022\nPid:\t12\nPPid:\t1\nUid:\t0\t0\t0\t0\nCapEff:\t0000000000001000\n";
        let process = parse(text).unwrap();
        assert!(process.has_net_admin());
        assert_eq!(
            (process.pid, process.parent, process.name.as_str()),
            (12, 1, "apache2")
        );
        assert!(parse("Name:\tx\n").is_none());
        let child = Process {
            pid: 13,
            parent: 12,
            ..process.clone()
        };
        assert_eq!(httpd(&[child, process.clone()]), Some(&process));
        assert_eq!(own().pid, std::process::id());
    }
}
