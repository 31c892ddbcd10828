//! Which folders are in use: landlock closes the others, and nothing is executed.
//!
//! A rule holds for what is below a folder, whatever is renamed, made or mounted there later, so a log that logrotate
//! exchanges is written and read as before. It holds for the folder itself, not for its name: one that is taken away and made
//! anew is closed to a process that runs already.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use super::{Setting, Step, bans};

/// What is read whoever runs: libraries and zones, names and accounts, processes, logs, who is logged in, the resolver.
/// Not: home directories, what web sites and databases have, /boot, /root, /tmp.
const READ: [&str; 8] = [
    "/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/run", "/var/log",
];
/// Read, too, and holds devices: the only one that is written is opened by its name.
const DEVICES: &str = "/dev";
const NULL: &str = "/dev/null";
/// Most folders of logs, beyond which their common parent stands for them.
const LOGS_MAX: usize = 1000;

/// By what is done below them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folders {
    read: BTreeSet<PathBuf>,
    /// Logs are appended to, and made.
    append: BTreeSet<PathBuf>,
    /// Lock, state, sockets, ledger: files come and go.
    own: BTreeSet<PathBuf>,
}

impl Folders {
    /// Those that this configuration needs. Own ones that are missing are made, as they would be a moment later.
    pub(super) fn of(setting: &Setting<'_>) -> Self {
        let Setting {
            config,
            config_path,
            paths,
            tee,
        } = setting;
        let mut folders = Self::default();
        folders.read.extend(READ.map(PathBuf::from));
        folders.read.insert(DEVICES.into());
        let parent = |path: &Path| path.parent().map(Path::to_owned);
        let files = [
            parent(config_path),
            config.fail2ban.clone(),
            config.fail2ban_log.as_deref().and_then(parent),
        ];
        folders.read.extend(files.into_iter().flatten());
        folders.read.extend(config.privileges.read.iter().cloned());
        let logs = config.jails.iter().filter_map(|jail| jail.raw.as_ref());
        for log in logs.flat_map(|raw| &raw.logs) {
            folders.log(&log.glob);
        }
        folders.append.insert(NULL.into());
        for log in [*tee, config.fail2ban_log.as_deref()].into_iter().flatten() {
            folders.appended(log);
        }
        let state = [paths.lock(), paths.ledger()];
        let socket = paths.fail2ban_socket(config);
        for dir in state.iter().chain(&socket).filter_map(|file| file.parent()) {
            if bans(config) {
                // What cannot be made is told by whoever wants to write there.
                fs::create_dir_all(dir).ok();
            }
            folders.own.insert(dir.to_owned());
        }
        folders
            .append
            .extend(config.privileges.write.iter().cloned());
        folders
    }

    /// A log is read that may be there under any name that fits, or come to be there.
    fn log(&mut self, glob: &str) {
        let mut fixed = PathBuf::new();
        for part in Path::new(glob).components() {
            let text = part.as_os_str().to_string_lossy();
            if text.contains(['*', '?', '[']) {
                break;
            }
            fixed.push(part);
        }
        if fixed.as_os_str().len() == glob.len() {
            fixed.pop();
        }
        let below = existing(&fixed);
        // What is a link leads elsewhere.
        let links = glob::glob(glob).ok().into_iter().flatten().flatten();
        for target in links.filter_map(|path| fs::canonicalize(path).ok()) {
            if let Some(parent) = target.parent()
                && !self.reads(parent)
                && !parent.starts_with(&below)
                && self.read.len() < LOGS_MAX
            {
                self.read.insert(parent.to_owned());
            }
        }
        if !self.reads(&below) {
            self.read.insert(below);
        }
    }

    fn reads(&self, path: &Path) -> bool {
        self.read.iter().any(|read| path.starts_with(read))
    }

    /// A log is appended to, and made where it is not there. What is no file (a terminal, a FIFO) is opened itself. A folder
    /// that is missing is waited for: lines of httpd must not be lost when it comes, so what is there of its path stays open.
    fn appended(&mut self, log: &Path) {
        let target = fs::canonicalize(log).unwrap_or_else(|_| log.to_owned());
        if fs::metadata(&target).is_ok_and(|there| !there.is_file()) {
            self.append.insert(target);
            return;
        }
        for path in [log, &target] {
            if let Some(parent) = path.parent() {
                self.append.insert(existing(parent));
            }
        }
    }

    /// Those of `wanted` that are not below ours.
    pub(super) fn lacks(&self, wanted: &Self) -> Vec<PathBuf> {
        let below = |path: &PathBuf, of: &[&BTreeSet<PathBuf>]| {
            let mut roots = of.iter().copied().flatten();
            !path.exists() || roots.any(|root| path.starts_with(root))
        };
        let all = [&self.read, &self.append, &self.own];
        let lacking = |set: &BTreeSet<PathBuf>, of: &[&BTreeSet<PathBuf>]| {
            let each = set.iter().filter(|path| !below(path, of));
            each.cloned().collect::<Vec<_>>()
        };
        let mut lacks = lacking(&wanted.read, &all);
        lacks.extend(lacking(&wanted.append, &all[1..]));
        lacks.extend(lacking(&wanted.own, &all[2..]));
        lacks.sort_unstable();
        lacks.dedup();
        lacks
    }

    /// Closes everything else to this thread and those it starts.
    pub(super) fn enforce(&self) -> Step {
        match self.restrict() {
            Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Step::On,
            Ok(RulesetStatus::NotEnforced) => Step::Absent(
                "Linux 5.13 and later have it, if `lsm=` at boot does not leave it out".to_owned(),
            ),
            Err(error) => Step::Failed(error.to_string()),
        }
    }

    fn restrict(&self) -> Result<RulesetStatus, landlock::RulesetError> {
        // What a kernel does not know yet it cannot keep from us, and what it does it does: "best effort" for each right.
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V5))?
            // Neither signals to other processes nor their abstract sockets.
            .scope(Scope::from_all(ABI::V6))?
            .create()?;
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        let appending = reading | AccessFs::WriteFile | AccessFs::MakeReg;
        let owning = appending
            | AccessFs::MakeSock
            | AccessFs::MakeDir
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::Truncate;
        let all = [
            (&self.read, reading),
            (&self.append, appending),
            (&self.own, owning),
        ];
        for (paths, access) in all {
            for path in paths {
                // One that cannot be opened stays closed; whoever needs it says so.
                if let Ok(fd) = PathFd::new(path) {
                    rules = rules.add_rule(PathBeneath::new(fd, fitting(path, access)))?;
                }
            }
        }
        Ok(rules.restrict_self()?.ruleset)
    }
}

/// A file can be given rights of files only.
fn fitting(path: &Path, access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    match fs::metadata(path).is_ok_and(|there| there.is_dir()) {
        true => access,
        false => access & AccessFs::from_file(ABI::V5),
    }
}

/// The path, or what there is of it.
fn existing(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|path| path.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_logs_opens_the_folder_above_it_and_where_links_lead() {
        let root = std::env::temp_dir().join(format!("f2b-pipe-folders-{}", std::process::id()));
        let (sites, other) = (root.join("sites"), root.join("other"));
        for dir in ["sites/a/logs", "other"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(other.join("access.log"), "").unwrap();
        std::os::unix::fs::symlink(other.join("access.log"), sites.join("a/logs/x.log")).unwrap();
        let mut folders = Folders::default();
        folders.log(&format!("{}/*/logs/*.log", sites.display()));
        let found: Vec<&PathBuf> = folders.read.iter().collect();
        assert_eq!(found, [&other, &sites]);
        folders.log(&format!("{}/missing/auth.log", sites.display()));
        assert_eq!(folders.read.len(), 2, "below what is open already");
        folders.appended(&root.join("missing/access.log"));
        assert!(folders.append.contains(&root));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_a_new_configuration_needs_beyond_the_old_one_is_named() {
        let set = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        let ours = Folders {
            read: set(&["/usr"]),
            append: set(&["/etc"]),
            own: set(&["/run"]),
        };
        let wanted = Folders {
            read: set(&["/usr/lib", "/run", "/etc", "/proc"]),
            append: set(&["/etc/ssl", "/usr", "/nonexistent"]),
            own: set(&["/etc"]),
        };
        let lacks = ["/etc", "/proc", "/usr"].map(PathBuf::from);
        assert_eq!(ours.lacks(&wanted), lacks);
    }
}
