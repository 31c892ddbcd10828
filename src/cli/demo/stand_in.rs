//! Where no httpd is installed: a small server that answers like one and writes the same access lines into f2b-pipe's
//! stdin, one write() a line.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::ChildStdin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What each connection needs.
#[derive(Clone)]
struct Server {
    /// f2b-pipe's stdin.
    log: Arc<Mutex<ChildStdin>>,
    /// Peers on loopback, and whom they play.
    names: Arc<[(IpAddr, IpAddr)]>,
}

/// Serves for as long as the process lives.
pub(super) fn serve(
    at: SocketAddr,
    log: Arc<Mutex<ChildStdin>>,
    names: Arc<[(IpAddr, IpAddr)]>,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(at)?;
    let address = listener.local_addr()?;
    let server = Server { log, names };
    std::thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            let server = server.clone();
            // A client that goes away ends its connection only.
            std::thread::spawn(move || server.connection(stream, peer.ip()));
        }
    });
    Ok(address)
}

impl Server {
    fn connection(&self, stream: TcpStream, peer: IpAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream)? {
            let (status, body) = answer(&request);
            write!(
                stream.get_mut(),
                "HTTP/1.1 {status} -\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            self.write_line(peer, &request, status, body.len())?;
        }
        Ok(())
    }

    fn write_line(
        &self,
        peer: IpAddr,
        request: &Request,
        status: u16,
        sent: usize,
    ) -> io::Result<()> {
        let named = self.names.iter().find(|(from, _)| *from == peer);
        let address = named.map_or(peer, |(_, to)| *to);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let token = format!("f2b:{}:7f2b", since_1970.unwrap_or_default().as_micros());
        let Request { line, agent, user } = request;
        let line = format!(
            "{token} {address} {address} demo.example {status} {sent} 200 \"{user}\" \"{line}\" \"-\" \"{agent}\" {token}\n"
        );
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.write_all(line.as_bytes())
    }
}

struct Request {
    line: String,
    agent: String,
    /// The actors try one name only.
    user: &'static str,
}

fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut request = Request {
        line: String::new(),
        agent: "-".to_owned(),
        user: "-",
    };
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        if request.line.is_empty() {
            text.clone_into(&mut request.line);
        } else if text.is_empty() {
            return Ok(Some(request));
        } else if let Some(agent) = text.strip_prefix("User-Agent: ") {
            // As httpd escapes it.
            request.agent = agent.replace('\\', "\\\\").replace('"', "\\\"");
        } else if text.starts_with("Authorization:") {
            request.user = "admin";
        }
    }
}

fn answer(request: &Request) -> (u16, &'static str) {
    let path = request.line.split(' ').nth(1).unwrap_or("/");
    match path.split('?').next().unwrap_or(path) {
        "/" | "/article" | "/style.css" | "/picture.png" => (200, "An article.\n"),
        "/private/" => (401, "Unauthorized.\n"),
        _ => (404, "Not found.\n"),
    }
}
