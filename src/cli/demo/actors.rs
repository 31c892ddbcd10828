//! Those who come to the web server: an ordinary visitor and four attackers, as plain HTTP clients.
//!
//! Each runs in a thread of its own, with its own source address. All they know is what any client knows: whether an
//! answer comes. Nobody tells them that they are banned.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::board::{Board, Cut, Mood, lock};

/// How long an answer, or a connection, is waited for. Here an answer takes a millisecond.
const PATIENCE: Duration = Duration::from_millis(800);
/// The same of a visitor: on a busy machine the network takes a moment to be there, and the first packet of a connection is
/// sent again after a second (RFC 6298).
const VISITOR_PATIENCE: Duration = Duration::from_secs(3);
/// How often somebody who was cut off tries whether he is served again.
const COMES_BACK_EVERY: Duration = Duration::from_millis(250);

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
const SCRIPT: &str = "python-requests/2.32.3";
/// CVE-2014-6271: bash ran what stands behind a function in an environment variable, as CGI sets it from a header.
const SHELLSHOCK: &str = "() { :; }; /bin/sh -c 'echo vulnerable'";

/// What somebody does, and how.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// Reads pages with their pictures and style sheets, all the time.
    Visitor,
    /// One request with a shellshock agent; comes back later as an ordinary visitor.
    Shellshock,
    /// Tries passwords on one connection.
    Guesser,
    /// Looks for programs that are not there, on a new connection each.
    Scanner,
    /// Asks for pages as fast as they come.
    Flood,
    /// Lives in the same /64 as the flood; comes when that is cut off.
    Neighbour,
}

/// One actor's part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Its row on the board.
    pub(super) row: usize,
    /// What it does.
    pub(super) role: Role,
    /// Its address.
    pub(super) from: IpAddr,
    /// The server.
    pub(super) to: SocketAddr,
    /// When it begins.
    pub(super) start: Duration,
}

/// What all actors share.
pub(super) struct Play<'a> {
    /// Where they are seen.
    pub(super) board: &'a Mutex<Board>,
    /// The end.
    pub(super) stop: &'a AtomicBool,
    /// Bans are only told, so an attacker who is banned has to stop by himself.
    pub(super) dry: bool,
}

/// What is asked for.
struct Request {
    path: String,
    agent: &'static str,
    authorization: Option<&'static str>,
}

impl Role {
    /// The n-th request, from 0; `None`: that was all.
    fn request(self, n: usize) -> Option<Request> {
        let plain = |path: String, agent| {
            Some(Request {
                path,
                agent,
                authorization: None,
            })
        };
        match self {
            Self::Visitor => match n % 3 {
                0 => plain(format!("/article?number={}", n / 3), BROWSER),
                1 => plain("/style.css".to_owned(), BROWSER),
                _ => plain("/picture.png".to_owned(), BROWSER),
            },
            Self::Shellshock => (n < 3).then(|| plain("/".to_owned(), SHELLSHOCK))?,
            Self::Guesser => Some(Request {
                path: "/private/".to_owned(),
                agent: SCRIPT,
                authorization: Some(PASSWORDS.get(n)?),
            }),
            Self::Scanner => plain((*MISSING.get(n)?).to_owned(), SCRIPT),
            Self::Flood => (n < 400).then(|| plain("/article".to_owned(), SCRIPT))?,
            Self::Neighbour => (n < 1).then(|| plain("/article".to_owned(), SCRIPT))?,
        }
    }

    /// The pause between two requests.
    fn pace(self) -> Duration {
        Duration::from_millis(match self {
            Self::Visitor => 60,
            Self::Shellshock | Self::Neighbour => 200,
            Self::Guesser => 180,
            Self::Scanner => 130,
            Self::Flood => 5,
        })
    }

    fn patience(self) -> Duration {
        match self {
            Self::Visitor => VISITOR_PATIENCE,
            Self::Shellshock | Self::Guesser | Self::Scanner | Self::Flood | Self::Neighbour => {
                PATIENCE
            }
        }
    }

    /// Whether requests share a connection.
    fn keeps_connection(self) -> bool {
        !matches!(self, Self::Scanner | Self::Neighbour)
    }

    /// What the story says when it begins.
    fn entrance(self) -> &'static str {
        match self {
            Self::Visitor => "reads a page with a picture, again and again",
            Self::Shellshock => "sends one request with a command in its User-Agent",
            Self::Guesser => "tries one password after the other on /private/",
            Self::Scanner => "looks for programs that are not there",
            Self::Flood => "asks for pages as fast as it can",
            Self::Neighbour => "comes from another address of the flood's /64",
        }
    }
}

/// Plays a part to its end: no more requests, cut off (and served again, where that is waited for), or the play is over.
pub(super) fn play(part: Part, play: &Play<'_>) {
    if wait_for_turn(part, play) {
        lock(play.board).tell_of(part.row, Mood::Plain, part.role.entrance());
        requests(part, play);
        if part.role.keeps_connection() && !play.dry {
            knock(part, play);
        }
        if matches!(part.role, Role::Shellshock) && lock(play.board).is_cut(part.row) {
            come_back(part, play);
        }
    }
    if let Some(row) = lock(play.board).rows.get_mut(part.row) {
        row.done = true;
    }
}

/// `false`: the play ended before.
fn wait_for_turn(part: Part, play: &Play<'_>) -> bool {
    loop {
        if play.stop.load(Ordering::Relaxed) {
            return false;
        }
        let board = lock(play.board);
        let time_left = part.start.saturating_sub(board.began.elapsed());
        let flooded = board.rows.get(part.row.saturating_sub(1));
        let turn = match part.role {
            // It stands behind the flood in the cast.
            Role::Neighbour => flooded.is_some_and(|flood| flood.done),
            Role::Visitor | Role::Shellshock | Role::Guesser | Role::Scanner | Role::Flood => true,
        };
        drop(board);
        if time_left.is_zero() && turn {
            return true;
        }
        let nap = if turn { time_left } else { COMES_BACK_EVERY };
        std::thread::sleep(nap.min(COMES_BACK_EVERY));
    }
}

/// One request after the other, until one fails.
fn requests(part: Part, play: &Play<'_>) {
    let mut connection = None;
    let mut n = 0;
    while let Some(request) = part.role.request(n) {
        if play.stop.load(Ordering::Relaxed) || (play.dry && lock(play.board).is_banned(part.row)) {
            return;
        }
        if lock(play.board).sent(part.row).is_none() {
            return;
        }
        match ask(&mut connection, part, &request) {
            Ok(()) => lock(play.board).answered(part.row),
            // Nobody promises a visitor that a connection lasts.
            Err(Cut::Closed) if matches!(part.role, Role::Visitor) => {
                lock(play.board).unsent(part.row);
                connection = None;
                std::thread::sleep(part.role.pace());
                continue;
            }
            Err(failed) => {
                lock(play.board).cut(part.row, failed);
                if !matches!(part.role, Role::Visitor) {
                    return;
                }
                connection = None;
            }
        }
        n += 1;
        if !part.role.keeps_connection() {
            connection = None;
        }
        let paused = match part.role {
            // A time to read is rounded up to the kernel's ticks, which are longer than this.
            Role::Flood => {
                std::thread::sleep(part.role.pace());
                Ok(())
            }
            Role::Visitor | Role::Shellshock | Role::Guesser | Role::Scanner | Role::Neighbour => {
                pause(&mut connection, part.role)
            }
        };
        if let Err(failed) = paused {
            connection = None;
            if matches!(part.role, Role::Visitor) && failed == Cut::Closed {
                continue;
            }
            lock(play.board).cut(part.row, failed);
            if !matches!(part.role, Role::Visitor) {
                return;
            }
        }
    }
}

/// After an open connection was cut: does a new one help?
fn knock(part: Part, play: &Play<'_>) {
    let (Some(request), false) = (part.role.request(0), play.stop.load(Ordering::Relaxed)) else {
        return;
    };
    if lock(play.board)
        .rows
        .get(part.row)
        .is_some_and(|row| row.cut.is_some())
    {
        let (mood, what) = match ask(&mut None, part, &request) {
            Ok(()) => (Mood::Wrong, "is served on a new connection all the same"),
            Err(_) => (Mood::Cut, "gets no answer on a new connection either"),
        };
        lock(play.board).tell_of(part.row, mood, what);
    }
}

/// Tries with an ordinary request until it is served again.
fn come_back(part: Part, play: &Play<'_>) {
    let Some(request) = Role::Visitor.request(0) else {
        return;
    };
    while !play.stop.load(Ordering::Relaxed) {
        std::thread::sleep(COMES_BACK_EVERY);
        if ask(&mut None, part, &request).is_ok() {
            lock(play.board).back(part.row);
            return;
        }
    }
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
            || error.raw_os_error() == Some(nix::libc::EINPROGRESS)
        {
            Self::Silence
        } else if kind == io::ErrorKind::ConnectionReset || kind == io::ErrorKind::BrokenPipe {
            Self::Reset
        } else if kind == io::ErrorKind::UnexpectedEof {
            Self::Closed
        } else {
            Self::Otherwise
        }
    }
}

/// Sends a request and reads its whole answer.
fn ask(
    connection: &mut Option<BufReader<TcpStream>>,
    part: Part,
    request: &Request,
) -> Result<(), Cut> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(BufReader::new(connect_from(part)?)),
    };
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: demo.example\r\nUser-Agent: {}\r\n",
        request.path, request.agent
    );
    if let Some(word) = request.authorization {
        text.push_str(&format!("Authorization: Basic {word}\r\n"));
    }
    text.push_str("\r\n");
    stream.get_mut().write_all(text.as_bytes())?;
    read_answer(stream)
}

/// Reads headers up to the empty line, then as much as they announce.
fn read_answer(stream: &mut impl BufRead) -> Result<(), Cut> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(Cut::Closed);
        }
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(|_| Cut::Otherwise)?;
        }
    }
    let read = io::copy(&mut stream.take(length), &mut io::sink())?;
    if read == length {
        Ok(())
    } else {
        Err(Cut::Closed)
    }
}

/// Waits with an eye on the connection, so that a reset is noticed when it comes.
fn pause(connection: &mut Option<BufReader<TcpStream>>, role: Role) -> Result<(), Cut> {
    let pace = role.pace();
    let Some(stream) = connection else {
        std::thread::sleep(pace);
        return Ok(());
    };
    let stream = stream.get_ref();
    let until = Instant::now() + pace;
    stream.set_read_timeout(Some(pace))?;
    let seen = stream.peek(&mut [0]).map_err(Cut::from);
    stream.set_read_timeout(Some(role.patience()))?;
    match seen {
        Ok(0) => Err(Cut::Closed),
        Err(Cut::Silence) => Ok(()),
        Err(failed) => Err(failed),
        Ok(_) => {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            Ok(())
        }
    }
}

/// A connection from one of our own addresses; `TcpStream::connect` lets the kernel choose.
fn connect_from(part: Part) -> io::Result<TcpStream> {
    let Part { from, to, .. } = part;
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The time to send is also the time to connect (socket(7)).
    let patience = part.role.patience();
    let millis = i64::try_from(patience.as_millis()).unwrap_or(1000);
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::milliseconds(millis))?;
    bind(
        fd.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(from, 0)),
    )?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Board {
    fn tell_of(&mut self, row: usize, mood: Mood, what: &str) {
        if let Some(who) = self.rows.get(row).map(|row| row.who) {
            self.tell(mood, format!("{who}: {what}"));
        }
    }

    fn is_banned(&self, row: usize) -> bool {
        self.rows.get(row).is_some_and(|row| row.ban.is_some())
    }

    fn is_cut(&self, row: usize) -> bool {
        self.rows.get(row).is_some_and(|row| row.cut.is_some())
    }

    fn sent(&mut self, row: usize) -> Option<()> {
        let row = self.rows.get_mut(row)?;
        row.requests.push((Instant::now(), None));
        Some(())
    }

    fn unsent(&mut self, row: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            row.requests.pop();
        }
    }

    fn answered(&mut self, row: usize) {
        let request = self.rows.get_mut(row).and_then(|r| r.requests.last_mut());
        if let Some((_, answer)) = request {
            *answer = Some(Instant::now());
        }
    }

    fn cut(&mut self, row: usize, how: Cut) {
        let Some(actor) = self.rows.get_mut(row) else {
            return;
        };
        if actor.cut.is_none() {
            actor.cut = Some((Instant::now(), how));
            let mood = if actor.friend { Mood::Wrong } else { Mood::Cut };
            self.tell_of(row, mood, how.text());
        }
    }

    fn back(&mut self, row: usize) {
        if let Some(actor) = self.rows.get_mut(row) {
            actor.back = Some(Instant::now());
            self.tell_of(row, Mood::Good, "the ban is over, served again");
        }
    }
}

/// `admin:` with what everybody tries first (123456, password, admin, 12345678, ...), as Basic authentication sends it.
const PASSWORDS: [&str; 12] = [
    "YWRtaW46MTIzNDU2",
    "YWRtaW46cGFzc3dvcmQ=",
    "YWRtaW46YWRtaW4=",
    "YWRtaW46MTIzNDU2Nzg=",
    "YWRtaW46cXdlcnR5",
    "YWRtaW46bGV0bWVpbg==",
    "YWRtaW46d2VsY29tZQ==",
    "YWRtaW46MTExMTEx",
    "YWRtaW46YWJjMTIz",
    "YWRtaW46aWxvdmV5b3U=",
    "YWRtaW46bW9ua2V5",
    "YWRtaW46ZHJhZ29u",
];

/// What scanners look for and this server has not.
const MISSING: [&str; 20] = [
    "/wp-login.php",
    "/wp-admin/setup-config.php",
    "/xmlrpc.php",
    "/phpmyadmin/",
    "/pma/",
    "/admin.php",
    "/administrator/",
    "/user/login",
    "/joomla/",
    "/typo3/",
    "/drupal/",
    "/old/",
    "/test.php",
    "/backup.zip",
    "/shell.php",
    "/cgi-bin/luci",
    "/solr/admin",
    "/manager/html",
    "/actuator/health",
    "/setup.php",
];
