//! What a process gives up once it runs: strangers' text is its daily work, so it should not be able to do more than ban.
//!
//! In: the configuration and what this process writes. Out: fewer rights, for good, and a [`Report`] of them for `status`.
//!
//! | step | what is left |
//! |---|---|
//! | capabilities | CAP_NET_ADMIN and CAP_DAC_READ_SEARCH: root's own files, others' for reading, the packet filter |
//! | no_new_privs | no program that is executed could give more |
//! | landlock | folders in use; nothing is executed |
//! | seccomp | the system calls in use |
//!
//! All of them come before the first thread (capabilities and landlock hold for the thread that asks and those it starts),
//! so before the thread that writes the log, too, and after httpd's first copy of us has gone ([`crate::run`]). What runs
//! programs or writes as others want it is done by one that was forked before and keeps its rights ([`helper`]).
//!
//! A step that the kernel does not have is left out, and shown as that. One that the kernel has and refuses is *closed*: this
//! process does not judge strangers' text then ([`Entered::Closed`]); httpd's lines still go on to the log.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::{Backend, Config, RuntimePaths};

mod calls; // seccomp
mod capabilities;
mod folders; // landlock
mod helper; // what keeps its rights
mod probe; // a test asks from inside
mod selinux;

pub use helper::{Actions, Hand, Ignore, Life, helper};
pub use selinux::{Enforced, enforced};

/// What of this process decides what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// What it runs.
    pub config: &'a Config,
    /// The file of it, whether it is there or not.
    pub config_path: &'a Path,
    /// Lock, state, ledger.
    pub paths: &'a RuntimePaths,
    /// `--tee`.
    pub tee: Option<&'a Path>,
}

/// How it went.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// All that was asked for and that there is.
    Confined,
    /// A step failed, which was told: strangers' text is not to be judged here.
    Closed,
}

/// What became of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// In force.
    On,
    /// The configuration says so, or it was not taken yet.
    #[default]
    Off,
    /// This kernel has it not; why.
    Absent(String),
    /// It has it and refused; why.
    Failed(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("on"),
            Self::Off => f.write_str("off"),
            Self::Absent(why) => write!(f, "not here ({why})"),
            Self::Failed(why) => write!(f, "failed ({why})"),
        }
    }
}

/// What a process gave up, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Of capabilities only those in `kept` are left.
    pub capabilities: Step,
    /// As the kernel writes them: `cap_net_admin`.
    pub kept: Vec<String>,
    /// Nothing that is executed gets more rights.
    pub no_new_privs: Step,
    /// Only folders in use, nothing is executed.
    pub landlock: Step,
    /// Only system calls in use.
    pub seccomp: Step,
    /// The process that keeps its rights, and runs what must be run.
    pub helper: Option<u32>,
    /// SELinux enforces, and this process runs in that domain.
    pub selinux: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, step)) in self.steps().into_iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{name} {step}")?;
            if name == "capabilities" && *step == Step::On {
                write!(f, " ({})", self.kept.join(" "))?;
            }
        }
        if let Some(pid) = self.helper {
            write!(f, "; helper process {pid}")?;
        }
        if let Some(domain) = &self.selinux {
            write!(f, "; SELinux {domain}")?;
        }
        Ok(())
    }
}

impl Report {
    /// The steps by the names of their keys.
    #[must_use]
    pub fn steps(&self) -> [(&'static str, &Step); 4] {
        [
            ("capabilities", &self.capabilities),
            ("no_new_privs", &self.no_new_privs),
            ("landlock", &self.landlock),
            ("seccomp", &self.seccomp),
        ]
    }
}

static REPORT: Mutex<Option<Report>> = Mutex::new(None);
/// What is wrong.
static LACKS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// The folders that landlock left us.
static FOLDERS: OnceLock<folders::Folders> = OnceLock::new();

/// What this process gave up.
#[must_use]
pub fn report() -> Report {
    let report = REPORT.lock().unwrap_or_else(PoisonError::into_inner);
    Report {
        helper: helper().map(Hand::pid),
        ..report.clone().unwrap_or_default()
    }
}

/// What is wrong with that, for `status`.
#[must_use]
pub fn troubles() -> Vec<String> {
    let lacks = LACKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut troubles = lacks.clone();
    troubles.extend(helper().map(Hand::troubles).unwrap_or_default());
    troubles
}

/// Gives up what is not needed. Before the first thread; what was opened before stays open.
pub fn enter(setting: &Setting<'_>) -> Entered {
    let wanted = &setting.config.privileges;
    let mut report = Report {
        selinux: selinux::enforced().map(|enforced| enforced.domain),
        ..Report::default()
    };
    let folders = folders::Folders::of(setting);
    let mut failed = Vec::new();
    if let Err(error) = helper::fork(setting) {
        failed.push(format!(
            "no helper process can be had ({error}): what it should run does not run"
        ));
    }
    // landlock and seccomp ask for no_new_privs; capabilities go before seccomp, which leaves no call to give them up.
    if wanted.no_new_privs {
        report.no_new_privs = match nix::sys::prctl::set_no_new_privs() {
            Ok(()) => Step::On,
            Err(error) => Step::Failed(error.to_string()),
        };
    }
    if wanted.landlock {
        report.landlock = folders.enforce();
        FOLDERS.set(folders).ok();
    }
    if wanted.capabilities {
        (report.capabilities, report.kept) = capabilities::keep_needed(setting.config);
    }
    if wanted.seccomp {
        report.seccomp = calls::filter();
    }
    let mut entered = Entered::Confined;
    for (name, step) in report.steps() {
        if let Step::Failed(why) = step {
            entered = Entered::Closed;
            failed.push(format!(
                "[privileges] {name}: {why}. With more rights than was asked for no stranger's text is judged, so nobody is banned \
                 here, and httpd's lines only go on to --tee; {name} = false does without this step"
            ));
        }
    }
    *LACKS.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    *REPORT.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    entered
}

/// Says what went wrong, and begins to speak with the helper: there may be threads now.
pub fn begin() {
    for trouble in troubles() {
        log::error!("{trouble}");
    }
    helper::begin();
    probe::begin();
}

/// The process ends, and its helper with it.
pub fn end() {
    if let Some(hand) = helper() {
        hand.end();
    }
}

/// The configuration was read anew. What it needs and this process gave up is told: only a restart brings it.
pub fn reloaded(setting: &Setting<'_>) {
    let mut lacks: Vec<String> = Vec::new();
    if let Some(hand) = helper() {
        if let Err(error) = hand.reload() {
            log::warn!("the helper process goes on with the old configuration: {error}");
        }
    } else {
        lacks.extend(helper::missing(setting));
    }
    let kept = FOLDERS.get().filter(|_| report().landlock == Step::On);
    if let Some(kept) = kept {
        let folders = folders::Folders::of(setting);
        lacks.extend(kept.lacks(&folders).iter().map(|folder| {
            format!(
                "{} was not in use when this process began, and is closed to it (landlock) until it is started anew",
                folder.display()
            )
        }));
    }
    for trouble in &lacks {
        log::warn!("{trouble}");
    }
    *LACKS.lock().unwrap_or_else(PoisonError::into_inner) = lacks;
}

/// Does this configuration change the packet filter?
fn bans(config: &Config) -> bool {
    config.firewall.backend != Backend::DryRun
}
