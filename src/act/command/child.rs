//! One command: `sh -c`, apart from us, heard, and killed when it takes too long.
//!
//! Its output goes through pipes of which only the end is kept, so a command that writes for ever costs nothing but its
//! time. A daemon that it leaves behind may hold the pipes: they are read until the command itself has ended, no longer.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::tags::Script;

/// What is kept of each output, bytes: its end.
const HEARD: usize = 4 * 1024;
/// After this much output a command is read slowly, bytes.
const CHATTER: usize = 1024 * 1024;
/// Between SIGTERM and SIGKILL; fail2ban's.
const GRACE: Duration = Duration::from_millis(200);
/// How long a killed command may take to be gone (it may hang in the kernel).
const GONE: Duration = Duration::from_secs(1);
/// Longest between two looks whether it has ended or must end.
const LOOK: u16 = 20;

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: it could not even be killed.
    pub status: Option<ExitStatus>,
    /// It was killed, having taken this long.
    pub timed_out: Option<Duration>,
    /// The end of its stdout.
    pub out: String,
    /// The end of its stderr.
    pub err: String,
}

impl Ended {
    /// Its exit code, if it ended by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self.timed_out {
            None => self.status.and_then(|status| status.code()),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.timed_out, self.status) {
            (Some(after), _) => write!(
                f,
                "had not ended after {} s and was killed",
                after.as_secs()
            )?,
            (None, None) => write!(f, "could not be killed")?,
            (None, Some(status)) => match (status.code(), status.signal()) {
                (Some(127), _) => write!(f, "returned 127 (a command of it was not found)")?,
                (Some(code), _) => write!(f, "returned {code}")?,
                (None, Some(signal)) => write!(f, "was killed with signal {signal}")?,
                (None, None) => write!(f, "{status}")?,
            },
        }
        for (name, said) in [("stderr", &self.err), ("stdout", &self.out)] {
            let said = last_lines(said);
            if !said.is_empty() {
                write!(f, "; {name}: {said:?}")?;
                break;
            }
        }
        Ok(())
    }
}

/// The end of an output in one line.
fn last_lines(said: &str) -> String {
    let mut lines: Vec<&str> = said
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(3)
        .collect();
    lines.reverse();
    let mut text = lines.join(" / ");
    let end = text.len().saturating_sub(400)..=text.len();
    let from = end.into_iter().find(|&from| text.is_char_boundary(from));
    text.drain(..from.unwrap_or(0));
    text
}

/// Runs a script and waits for its end, at most for `timeout` or until `abort` is set, and then a second more.
///
/// # Errors
/// It could not be started.
pub fn run(
    script: &Script,
    path: &str,
    timeout: Duration,
    abort: &AtomicBool,
) -> io::Result<Ended> {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(&script.text)
        .arg("/bin/sh")
        .args(&script.values)
        .env_clear()
        .env("PATH", path)
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    crate::sys::apart(&mut command);
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut ears = Ears::of(&mut child)?;
    let (status, timed_out) = loop {
        if let Some(status) = child.try_wait()? {
            break (Some(status), None);
        }
        if started.elapsed() >= timeout || abort.load(Ordering::Relaxed) {
            let took = started.elapsed();
            break (kill(&mut child, &mut ears)?, Some(took));
        }
        // What runs for a moment is looked at after a moment.
        let age = started.elapsed().as_millis() / 4 + 1;
        ears.listen(u16::try_from(age).unwrap_or(LOOK).min(LOOK));
    };
    ears.listen(0);
    let [out, err] = ears.heard();
    Ok(Ended {
        status,
        timed_out,
        out,
        err,
    })
}

/// Ends a command and all that it started and that did not leave its group.
fn kill(child: &mut Child, ears: &mut Ears) -> io::Result<Option<ExitStatus>> {
    let group = i32::try_from(child.id()).map_err(io::Error::other)?;
    // Not waited for in between: as long as it is a zombie, the number of the group is no other's.
    killpg(Pid::from_raw(group), Signal::SIGTERM).ok();
    let until = Instant::now() + GRACE;
    while Instant::now() < until {
        ears.listen(LOOK);
    }
    killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    let until = Instant::now() + GONE;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() >= until => return Ok(None),
            None => ears.listen(1),
        }
    }
}

/// Stdout and stderr of a child.
struct Ears([Option<Ear>; 2]);

struct Ear {
    pipe: File,
    tail: Vec<u8>,
    heard: usize,
    open: bool,
}

impl Ears {
    fn of(child: &mut Child) -> io::Result<Self> {
        let out = child.stdout.take().map(OwnedFd::from);
        let err = child.stderr.take().map(OwnedFd::from);
        let ear = |pipe: Option<OwnedFd>| -> io::Result<Option<Ear>> {
            let Some(pipe) = pipe else { return Ok(None) };
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Some(Ear {
                pipe: File::from(pipe),
                tail: Vec::new(),
                heard: 0,
                open: true,
            }))
        };
        Ok(Self([ear(out)?, ear(err)?]))
    }

    /// Waits at most so many milliseconds for output, and reads what is there.
    fn listen(&mut self, milliseconds: u16) {
        let open: Vec<&mut Ear> = self.0.iter_mut().flatten().filter(|ear| ear.open).collect();
        if open.is_empty() {
            std::thread::sleep(Duration::from_millis(milliseconds.into()));
            return;
        }
        let mut polled: Vec<PollFd<'_>> = open
            .iter()
            .map(|ear| PollFd::new(ear.pipe.as_fd(), PollFlags::POLLIN))
            .collect();
        if poll(&mut polled, PollTimeout::from(milliseconds)).is_ok_and(|ready| ready > 0) {
            for ear in open {
                ear.read();
            }
        }
    }

    fn heard(self) -> [String; 2] {
        self.0.map(|ear| {
            ear.map_or_else(String::new, |ear| {
                String::from_utf8_lossy(&ear.tail).into_owned()
            })
        })
    }
}

impl Ear {
    /// Reads once what is there, at most a pipe full.
    fn read(&mut self) {
        let mut buffer = [0; 64 * 1024];
        match self.pipe.read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(read) => {
                self.heard = self.heard.saturating_add(read);
                self.tail
                    .extend_from_slice(buffer.get(..read).unwrap_or_default());
                let spare = self.tail.len().saturating_sub(HEARD);
                self.tail.drain(..spare);
                if self.heard > CHATTER {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Err(error) => {
                if !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) {
                    self.open = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/usr/bin:/bin";

    fn sh(text: &str, timeout: Duration) -> Ended {
        let script = Script {
            text: text.into(),
            values: vec!["-one $(id)".into()],
        };
        run(&script, PATH, timeout, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn a_command_is_heard_and_its_exit_code_told() {
        let ended = sh(
            "read x; echo \"<$1>$x\"; echo no >&2; exit 3",
            Duration::from_secs(5),
        );
        assert_eq!(ended.code(), Some(3));
        assert_eq!(ended.out, "<-one $(id)>\n");
        assert_eq!(ended.to_string(), "returned 3; stderr: \"no\"");
    }

    #[test]
    fn what_hangs_is_killed_with_its_children() {
        let begun = Instant::now();
        let ended = sh(
            "trap '' TERM; sleep 4711 & echo $!; wait; wait",
            Duration::from_millis(300),
        );
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(ended.timed_out.is_some() && ended.code().is_none());
        let grandchild = format!("/proc/{}/cmdline", ended.out.trim());
        let until = Instant::now() + Duration::from_secs(1);
        let alive = || std::fs::read(&grandchild).is_ok_and(|line| !line.is_empty());
        while alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!alive(), "{grandchild}");
    }

    #[test]
    fn a_daemon_left_behind_is_not_waited_for() {
        let begun = Instant::now();
        let ended = sh("sleep 3 & exit 0", Duration::from_secs(10));
        assert_eq!(ended.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn megabytes_of_output_are_heard_to_their_end() {
        let ended = sh(
            "head -c 8000000 /dev/zero | tr '\\0' x; echo end; exit 1",
            Duration::from_secs(20),
        );
        assert_eq!(ended.code(), Some(1));
        assert!(ended.out.ends_with("xend\n") && ended.out.len() <= HEARD);
    }

    #[test]
    fn a_command_shares_no_session_and_no_file_with_us() {
        let kept = File::open("/etc/passwd").unwrap();
        fcntl(&kept, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let ended = sh(
            "ls /proc/self/fd | wc -l; umask; cut -d' ' -f6 /proc/$$/stat; echo $$",
            Duration::from_secs(5),
        );
        let said: Vec<&str> = ended.out.lines().collect();
        // 0, 1, 2 and the directory itself.
        assert_eq!(said[0].trim(), "4", "{said:?}");
        assert_eq!(said[1], "0077");
        assert_eq!(said[2], said[3]);
    }
}
