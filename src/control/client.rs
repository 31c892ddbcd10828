//! The commands' side of the control socket.

use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::wire::{Reply, Request};
use crate::config::RuntimePaths;

/// How long an answer is waited for: a reload compiles the expressions of all jails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the process in charge.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects; `Ok(None)`: no f2b-pipe is in charge here.
    ///
    /// # Errors
    /// One is, and may not be asked (no rights).
    pub fn connect(paths: &RuntimePaths) -> io::Result<Option<Self>> {
        match UnixStream::connect(paths.control()) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                let stream = BufReader::new(stream);
                Ok(Some(Self { stream }))
            }
            Err(error)
                if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]
                    .contains(&error.kind()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// There is none.
    pub fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        match self.stream.get_mut().write_all(&request.line()) {
            // Whoever is refused is told before he has asked, and why can be read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// From now on events may be waited for without an end.
    ///
    /// # Errors
    /// The system says no.
    pub fn wait_forever(&self) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(None)
    }

    /// The next line; `None`: the other side has ended.
    ///
    /// # Errors
    /// It does not come.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let n = self.stream.read_line(&mut line)?;
        Ok((n > 0).then_some(line))
    }
}
