//! Clients: keep-alive connections from addresses of their own, and many of them at a time.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::world::{SERVER, SERVER6, World, enter};

/// How long a client waits for a byte of an answer, in seconds.
const PATIENCE_SECS: i64 = 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    host: &'static str,
    headers: String,
}

impl Request {
    /// A GET without headers of the client's own.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            host: "www.example.org",
            headers: String::new(),
        }
    }

    /// Another method.
    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Another vhost.
    pub(crate) fn host(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    /// A header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        write!(self.headers, "{name}: {value}\r\n").expect("a string");
        self
    }

    /// A browser's name.
    pub(crate) fn agent(self, agent: &str) -> Self {
        self.header("User-Agent", agent)
    }

    /// Basic authentication.
    pub(crate) fn login(self, user: &str, password: &str) -> Self {
        let word = base64(format!("{user}:{password}").as_bytes());
        self.header("Authorization", &format!("Basic {word}"))
    }
}

/// A connection that stays open.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// From `from`, an address of the clients' host.
    pub(crate) fn open(world: &World, from: &str) -> io::Result<Self> {
        let from: IpAddr = from.parse().expect("an address");
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    world.enter_client();
                    Self::from_here(from, secs_val(5))
                })
                .join()
                .expect("the thread")
        })
    }

    /// In a thread that is in the clients' host already.
    fn from_here(from: IpAddr, patience: TimeVal) -> io::Result<Self> {
        let (family, server): (_, IpAddr) = match from {
            IpAddr::V4(_) => (AddressFamily::Inet, SERVER.into()),
            IpAddr::V6(_) => (AddressFamily::Inet6, SERVER6.into()),
        };
        let fd: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::SendTimeout, &patience)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &secs_val(PATIENCE_SECS))?;
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
        bind(
            fd.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(from, 0)),
        )?;
        connect(
            fd.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(server, 80)),
        )?;
        Ok(Self {
            stream: BufReader::new(TcpStream::from(fd)),
        })
    }

    /// How long to wait for an answer.
    pub(crate) fn patience(&self, limit: Duration) {
        self.stream
            .get_ref()
            .set_read_timeout(Some(limit))
            .expect("a time");
    }

    /// Sends bytes that need not be a request.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a request and reads the whole answer; its status.
    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<u16> {
        let Request {
            method,
            path,
            host,
            headers,
        } = request;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        self.send(head.as_bytes())?;
        self.answer(*method == "HEAD")
    }

    /// Reads one answer; its status.
    pub(crate) fn answer(&mut self, without_body: bool) -> io::Result<u16> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| bad(&line))?;
        let mut length = 0u64;
        loop {
            let mut header = String::new();
            if self.stream.read_line(&mut header)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().map_err(|_| bad(&header))?;
            }
            if header.starts_with("transfer-encoding:") {
                return Err(bad("a chunked answer, which this client cannot read"));
            }
        }
        if !without_body && status != 304 {
            let mut body = self.stream.by_ref().take(length);
            io::copy(&mut body, &mut io::sink())?;
        }
        Ok(status)
    }
}

/// Asks for `paths` on one HTTP/2 connection, a hundred at a time as browsers do; how many answers had status 200.
///
/// Only what httpd needs to hear (RFC 9113 and 7541): the preface, HEADERS without compression, and acknowledgements.
pub(crate) fn http2(world: &World, from: &str, paths: &[String]) -> io::Result<usize> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const END_STREAM: u8 = 1;
    const ACK: u8 = 1;
    const AT_A_TIME: usize = 100;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    // Literals without indexing; names by their number in the static table.
    let literal = |name: u8, value: &str| -> Vec<u8> {
        let mut field = if name < 15 {
            vec![name]
        } else {
            vec![15, name - 15]
        };
        let length = u8::try_from(value.len()).expect("short");
        assert!(length < 127, "{value} is too long for this client");
        field.push(length);
        field.extend_from_slice(value.as_bytes());
        field
    };
    let mut connection = Connection::open(world, from)?;
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    connection.send(&frame(SETTINGS, 0, 0, &[]))?;
    let (mut asked, mut under_way, mut good) = (0, 0, 0);
    while asked < paths.len() || under_way > 0 {
        while under_way < AT_A_TIME && asked < paths.len() {
            let stream = 1 + 2 * u32::try_from(asked).expect("few");
            // GET and http, both whole in the static table; then :authority, :path, user-agent.
            let block = [
                vec![0x82, 0x86],
                literal(1, "www.example.org"),
                literal(4, &paths[asked]),
                literal(
                    58,
                    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0",
                ),
            ]
            .concat();
            connection.send(&frame(HEADERS, 4 | END_STREAM, stream, &block))?;
            asked += 1;
            under_way += 1;
        }
        let mut head = [0; 9];
        connection.stream.read_exact(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        connection.stream.read_exact(&mut payload)?;
        match (head[3], head[4]) {
            (SETTINGS, flags) if flags & ACK == 0 => {
                connection.send(&frame(SETTINGS, ACK, 0, &[]))?;
            }
            (HEADERS, flags) => {
                // A change of the table's size may come first; then `:status 200`, whole in the static table.
                let status = payload.iter().find(|&&b| b & 0xe0 != 0x20);
                good += usize::from(status == Some(&0x88));
                under_way -= usize::from(flags & END_STREAM);
            }
            (DATA, flags) => under_way -= usize::from(flags & END_STREAM),
            (RST_STREAM | GOAWAY, _) => {
                return Err(io::Error::other(format!("refused after {good} answers")));
            }
            _ => {}
        }
    }
    Ok(good)
}

/// What a load came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Answers with a status below 400.
    pub(crate) served: usize,
    /// Answers with another status.
    pub(crate) refused: usize,
    /// Connections that were refused, cut or silent.
    pub(crate) failed: usize,
}

/// Clients at work.
pub(crate) struct Load {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    served: AtomicUsize,
    refused: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    /// `threads` clients, each with one connection from `from(client)`, asking for `what(client, n)` `each` times (or
    /// until it is stopped), with `pause` between two requests. A connection that ends is opened again.
    pub(crate) fn start(
        world: &World,
        threads: usize,
        each: usize,
        pause: Duration,
        from: impl Fn(usize) -> String,
        what: impl Fn(usize, usize) -> Request + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let what = Arc::new(what);
        let threads = (0..threads)
            .map(|client| {
                let from: IpAddr = from(client).parse().expect("an address");
                let namespace = world.client_namespace();
                let (shared, what) = (Arc::clone(&shared), Arc::clone(&what));
                thread::spawn(move || {
                    enter(&namespace);
                    let mut connection = None;
                    for n in 0..each {
                        if shared.stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let request = what(client, n);
                        let counter = match ask_on(&mut connection, from, &request) {
                            Ok(status) if status < 400 => &shared.served,
                            Ok(_) => &shared.refused,
                            Err(_) => {
                                connection = None;
                                &shared.failed
                            }
                        };
                        counter.fetch_add(1, Ordering::Relaxed);
                        if !pause.is_zero() {
                            thread::sleep(pause);
                        }
                    }
                })
            })
            .collect();
        Self { threads, shared }
    }

    /// Answers with a status below 400 so far.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            served: self.shared.served.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    /// Whether every client is through.
    pub(crate) fn over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every client is through.
    pub(crate) fn wait(mut self) -> Tally {
        for thread in self.threads.drain(..) {
            thread.join().expect("a client");
        }
        self.tally()
    }

    /// Ends it after the requests that are under way.
    pub(crate) fn stop(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wait()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Asks on the open connection, or opens one.
fn ask_on(connection: &mut Option<Connection>, from: IpAddr, request: &Request) -> io::Result<u16> {
    // A server short of workers closes connections between two requests (event: "will close 13 connections in
    // keep-alive state"); then a browser asks once more on a new one (RFC 9112, 9.3.1).
    if let Some(open) = connection {
        match open.ask(request) {
            Err(error) if was_closed(&error) => {}
            answer => return answer,
        }
    }
    let open = Connection::from_here(from, secs_val(PATIENCE_SECS))?;
    connection.insert(open).ask(request)
}

/// Closed, not silent: that is a failure.
fn was_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    [
        BrokenPipe,
        ConnectionAborted,
        ConnectionReset,
        UnexpectedEof,
    ]
    .contains(&error.kind())
}

fn secs_val(n: i64) -> TimeVal {
    TimeVal::seconds(n)
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for i in 0..3 {
            bits = bits << 8 | u32::from(group.get(i).copied().unwrap_or(0));
        }
        for i in 0..4 {
            if i <= group.len() {
                let six = (bits >> (18 - 6 * i)) & 63;
                text.push(char::from(LETTERS[six as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}
