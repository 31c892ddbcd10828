//! Lines to /dev/log without ever waiting for it.
//!
//! The `syslog` crate's own socket blocks for ever after some ten lines that nobody reads, does not come back when the
//! daemon was restarted, and stamps lines in UTC. So the socket and the format are ours, the crate only carries.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use chrono::Local;
use log::Level;
use syslog::{LogFormat, Logger, LoggerBackend, Severity};

const PATH: &str = "/dev/log";
/// Lines that may wait for a busy daemon (its socket holds about ten).
const WAITING: usize = 1000;
const RECONNECT: Duration = Duration::from_secs(1);
/// While lines wait, the socket is tried this often.
const AGAIN: Duration = Duration::from_millis(20);
/// Longest text, bytes; some daemons cut at 1 KiB.
const TEXT_MAX: usize = 900;
/// Facility daemon, as fail2ban's (RFC 3164, 4.1.1).
const FACILITY: u32 = 3 << 3;

/// The connection, and what waits for it.
pub(crate) struct Syslog {
    logger: Option<Logger<LoggerBackend, Format>>,
    tried: Option<Instant>,
    waiting: VecDeque<(Level, String)>,
    lost: u64,
}

impl Syslog {
    pub(crate) fn new() -> Self {
        Self {
            logger: None,
            tried: None,
            waiting: VecDeque::new(),
            lost: 0,
        }
    }

    /// Lines given up so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// How long nothing needs to be done.
    pub(crate) fn patience(&self) -> Duration {
        if self.waiting.is_empty() {
            Duration::from_secs(3600)
        } else {
            AGAIN
        }
    }

    pub(crate) fn send(&mut self, level: Level, text: String) {
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back((level, text));
        self.flush();
    }

    /// Sends what the daemon takes.
    pub(crate) fn flush(&mut self) {
        while !self.waiting.is_empty() {
            self.connect();
            let (Some(logger), Some((level, text))) = (&mut self.logger, self.waiting.front())
            else {
                return;
            };
            let severity = match level {
                Level::Error => Severity::LOG_ERR,
                Level::Warn => Severity::LOG_WARNING,
                Level::Info | Level::Debug | Level::Trace => Severity::LOG_NOTICE,
            };
            match logger.formatter.format(&mut logger.backend, severity, text) {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(syslog::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return;
                }
                // The daemon went away (ENOTCONN, ECONNREFUSED): what waits is for the next one.
                Err(_) => self.logger = None,
            }
        }
    }

    fn connect(&mut self) {
        if self.logger.is_none() && self.tried.is_none_or(|tried| tried.elapsed() >= RECONNECT) {
            self.tried = Some(Instant::now());
            let socket = UnixDatagram::unbound().and_then(|socket| {
                socket.set_nonblocking(true)?;
                socket.connect(PATH)?;
                Ok(socket)
            });
            self.logger = socket
                .ok()
                .map(|socket| Logger::new(LoggerBackend::Unix(socket), Format));
        }
    }
}

/// RFC 3164 with local time and a space-padded day, one line, no control bytes.
#[derive(Clone, Debug)]
struct Format;

impl LogFormat<&String> for Format {
    fn format<W: io::Write>(
        &self,
        w: &mut W,
        severity: Severity,
        text: &String,
    ) -> syslog::Result<()> {
        let line = format!(
            "<{}>{} f2b-pipe[{}]: {}",
            FACILITY | severity as u32,
            Local::now().format("%b %e %H:%M:%S"),
            std::process::id(),
            text.chars()
                .filter(|c| !c.is_control())
                .take(TEXT_MAX)
                .collect::<String>()
        );
        w.write_all(line.as_bytes()).map_err(syslog::Error::Io)
    }
}
