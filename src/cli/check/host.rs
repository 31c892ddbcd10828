//! The rest of the host: neighbours that would collide, the clock, places to write to, limits.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Command, Stdio};

use chrono::{Datelike, Utc};
use nix::unistd::{AccessFlags, access};

use super::jails;
use super::processes::{self, Process};
use super::report::{Area, Report};
use crate::config::Config;
use crate::privilege;
use crate::watch;

const AREA: Area = Area::Host;

/// Smaller pipes are full after a handful of long lines (measured: 64 KiB after 8 requests with a long User-Agent).
const PIPE_WANTED_BYTES: u64 = 1 << 20;
/// A clock before this stands at its factory setting; this program did not exist then.
const FIRST_YEAR: i32 = 2024;

/// All of it.
pub(super) fn look(
    config: &Config,
    processes: &[Process],
    piped: bool,
    runtime_dir: &Path,
    report: &mut Report,
) {
    running(processes, piped, report);
    fail2ban(config, report);
    clock(report);
    runtime(runtime_dir, report);
    syslog(report);
    selinux(report);
    pipes(report);
}

/// A configuration is only in force once httpd has read it.
fn running(processes: &[Process], piped: bool, report: &mut Report) {
    if processes::httpd(processes).is_none() {
        report.warn(
            AREA,
            "",
            "httpd does not run",
            "systemctl start apache2 (Red Hat: httpd)",
        );
        return;
    }
    let loggers = processes::loggers(processes);
    match (piped, loggers) {
        (true, 0) => report.warn(
            AREA,
            "",
            "httpd runs without the f2b-pipe that its configuration names",
            "apachectl graceful (Debian: apache2ctl graceful)",
        ),
        (true, _) => report.ok(
            AREA,
            "",
            format!("httpd runs, and has started f2b-pipe ({loggers})"),
        ),
        (false, 0) => {}
        (false, _) => report.warn(
            AREA,
            "",
            "httpd still runs an f2b-pipe that its configuration does not name any more",
            "apachectl graceful (Debian: apache2ctl graceful)",
        ),
    }
}

fn fail2ban(config: &Config, report: &mut Report) {
    if !watch::fail2ban_runs() {
        return;
    }
    if config.jails.iter().any(jails::is_fail2bans) {
        let dir = config.fail2ban.as_deref().unwrap_or(Path::new(""));
        report.warn(
            AREA,
            "fail2ban-server",
            format!(
                "runs, so the jails of {} stand back here until it is stopped",
                dir.display()
            ),
            "systemctl disable --now fail2ban",
        );
    } else {
        report.warn(
            AREA,
            "fail2ban-server",
            "runs beside this: what both of them count is banned twice, in two sets, and an unban in one does not end the other",
            "switch off its jails for httpd (in /etc/fail2ban/jail.local, [apache-...]: enabled = false), then: fail2ban-client reload",
        );
    }
}

fn clock(report: &mut Report) {
    let now = Utc::now();
    if now.year() < FIRST_YEAR {
        report.fail(
            AREA,
            "clock",
            format!(
                "it says {}: bans end at wrong times as soon as it is set",
                now.format("%Y-%m-%d")
            ),
            "timedatectl set-ntp true",
        );
    } else if synchronised() == Some(false) {
        report.warn(
            AREA,
            "clock",
            "not synchronised: counting does not mind (it goes by arrival), the times told in logs may be wrong",
            "timedatectl set-ntp true",
        );
    }
}

/// What systemd says; `None` where there is none.
fn synchronised() -> Option<bool> {
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    match asked.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

fn runtime(dir: &Path, report: &mut Report) {
    if dir.is_dir() {
        if access(dir, AccessFlags::W_OK).is_err() {
            report.warn(
                AREA,
                dir.display(),
                "cannot be written to by this user: what depends on it was not looked at",
                "run check as root, as httpd starts f2b-pipe",
            );
        }
    } else if dir.exists() {
        report.fail(
            AREA,
            dir.display(),
            "is no directory; locks and state files need it",
            format!("rm {}", dir.display()),
        );
    } else {
        report.ok(
            AREA,
            dir.display(),
            "is made by the first f2b-pipe that runs",
        );
    }
}

fn syslog(report: &mut Report) {
    let there = fs::metadata("/dev/log").is_ok_and(|found| found.file_type().is_socket());
    if !there {
        report.warn(
            AREA,
            "/dev/log",
            "nobody listens: bans are told in httpd's error log and by f2b-pipe watch itself, not in syslog",
            "start rsyslog or systemd-journald",
        );
    }
}

fn selinux(report: &mut Report) {
    if privilege::enforced().is_some() {
        report.warn(
            AREA,
            "SELinux",
            "is enforcing, and what httpd starts runs as httpd_t, which may not change the kernel's sets unless a policy \
             allows it; f2b-pipe watch, which systemd starts, may (f2b-pipe status shows the domain of each)",
            "let it ban once, then make a policy of what was refused:\n\
             semodule -DB; ausearch -m avc -c f2b-pipe -c f2b-helper -c iptables --raw | audit2allow -M f2b-pipe && semodule -i f2b-pipe.pp; semodule -B",
        );
    }
}

fn pipes(report: &mut Report) {
    let file = "/proc/sys/fs/pipe-max-size";
    let bytes = fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(bytes) = bytes.filter(|bytes| *bytes < PIPE_WANTED_BYTES) {
        report.warn(
            AREA,
            file,
            format!("{bytes}: httpd's pipe cannot be made 1 MiB, so it is full (and lines can tear) sooner"),
            "sysctl -w fs.pipe-max-size=1048576",
        );
    }
}
