//! Running iptables: a child with a bounded life that shares nothing with us.
//!
//! Our own stdin is httpd's pipe: a child that read one byte of it would lose a log line. So input, output and messages of
//! a child are files in memory (memfd), which no full pipe can stall either.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{AccessFlags, access};

/// Where the tools are: fixed, since httpd's environment is not ours to trust.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// The longest a tool may take: `-w 5` waits five seconds for another iptables.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended; iptables takes 2 to 10 ms.
const LOOK: Duration = Duration::from_millis(1);

/// The program called `name`, if it is there.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| access(path, AccessFlags::X_OK).is_ok())
}

/// Whether an iptables keeps its rules in nf_tables: `iptables-nft`, which its alternative names say, however it is called.
pub(super) fn is_nft(iptables: &Path) -> bool {
    let name = std::fs::canonicalize(iptables).ok();
    let name = name.as_deref().and_then(Path::file_name);
    name.is_some_and(|name| name.to_string_lossy().contains("nft"))
}

/// What a tool did.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

/// Why a tool did not do its work.
#[derive(Debug)]
pub enum ToolError {
    /// It is not there.
    Missing {
        /// Its name.
        tool: &'static str,
    },
    /// It could not be started.
    Start {
        /// Its name.
        tool: &'static str,
        /// Why.
        error: io::Error,
    },
    /// It took too long and was killed.
    Slow {
        /// Its name.
        tool: &'static str,
    },
    /// What became of it in the helper process.
    Told(String),
    /// It said no.
    Failed {
        /// Its name.
        tool: &'static str,
        /// The first line it wrote to stderr.
        message: String,
    },
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { tool } => write!(
                f,
                "{tool} is not installed (apt install iptables / dnf install iptables-nft), so no rule looks into the sets; \
                 counting goes on, nobody is kept out until then"
            ),
            Self::Start { tool, error } => write!(f, "{tool} cannot be started: {error}"),
            Self::Slow { tool } => write!(
                f,
                "{tool} did not end within {} s; is another program holding the xtables lock?",
                PATIENCE.as_secs()
            ),
            Self::Told(text) => f.write_str(text),
            Self::Failed { tool, message } => write!(f, "{tool}: {message}"),
        }
    }
}

impl std::error::Error for ToolError {}

/// Runs `tool` with `input` on its stdin, and waits for its end.
///
/// # Errors
/// It could not be run to its end. An exit status other than 0 is in [`Ran`].
pub fn run(tool: &'static str, args: &[&str], input: &str) -> Result<Ran, ToolError> {
    let started = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            ToolError::Missing { tool }
        } else {
            ToolError::Start { tool, error }
        }
    };
    let mut stdin = memory_file().map_err(started)?;
    stdin.write_all(input.as_bytes()).map_err(started)?;
    stdin.seek(SeekFrom::Start(0)).map_err(started)?;
    let mut out = memory_file().map_err(started)?;
    let mut err = memory_file().map_err(started)?;
    // By its path, as std looks for a name after a fork, which copies all of this process's page tables.
    let program = find(tool).ok_or(ToolError::Missing { tool })?;
    let mut child = Command::new(program)
        .arg0(tool)
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(out.try_clone().map_err(started)?))
        .stderr(Stdio::from(err.try_clone().map_err(started)?))
        .spawn()
        .map_err(started)?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(started)? {
            break status;
        }
        if Instant::now() >= deadline {
            // Both can only fail if it has just ended by itself.
            if child.kill().is_ok() {
                child.wait().map_err(started)?;
            }
            return Err(ToolError::Slow { tool });
        }
        std::thread::sleep(LOOK);
    };
    Ok(Ran {
        status,
        out: text(&mut out).map_err(started)?,
        err: text(&mut err).map_err(started)?,
    })
}

/// [`run`], where any exit status but 0 is an error.
///
/// # Errors
/// It did not do its work.
pub fn succeed(tool: &'static str, args: &[&str], input: &str) -> Result<String, ToolError> {
    let ran = run(tool, args, input)?;
    if ran.status.success() {
        Ok(ran.out)
    } else {
        Err(ToolError::Failed {
            tool,
            message: complaint(&ran),
        })
    }
}

/// What a tool that failed said about it, in one line.
fn complaint(ran: &Ran) -> String {
    let said = ran
        .err
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    said.map_or_else(|| ran.status.to_string(), str::to_owned)
}

fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create(
        c"f2b-pipe",
        MFdFlags::MFD_CLOEXEC,
    )?))
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_reads_its_own_input_and_is_heard() {
        let ran = run("cat", &["-", "/nonexistent"], "hello\n").unwrap();
        assert_eq!(ran.out, "hello\n");
        assert!(ran.err.contains("/nonexistent"), "{}", ran.err);
        assert!(!ran.status.success());
        assert!(matches!(
            succeed("cat", &["/nonexistent"], ""),
            Err(ToolError::Failed { message, .. }) if message.contains("nonexistent")
        ));
    }

    #[test]
    fn a_missing_tool_names_the_package() {
        let error = run("f2b-pipe-no-such-tool", &[], "").unwrap_err();
        assert!(error.to_string().contains("apt install iptables"));
    }
}
