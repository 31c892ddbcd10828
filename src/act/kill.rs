//! Resetting the open connections of the banned (SOCK_DESTROY).
//!
//! A dropped packet does not end a connection: httpd's worker would wait for the rest of a request until its timeout. One
//! dump of the host's sockets serves all bans of some milliseconds, on a thread of its own, since a dump takes as long as
//! there are sockets. Layouts: linux/inet_diag.h, linux/sock_diag.h.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{DUMP, Refusal, Socket, WireError};
use super::{Kind, jail, place_of};
use crate::client::Client;
use crate::config::{Config, Current, Ports};
use crate::exempt::Target;
use crate::hit::JailId;
use crate::silence::board;

/// How long bans are gathered before the sockets are looked at.
const GATHER: Duration = Duration::from_millis(50);
/// Looking at all sockets takes the kernel some milliseconds (an empty table of half a million places: 5), in which a small
/// machine has no processor for a ban: at most one part in this many of the time.
const REST: u32 = 200;
/// Bans waiting; more are left to the packet filter alone.
const WAITING_MAX: usize = 4_096;

/// TCPDIAG_GETSOCK.
const KIND_TCP: u16 = 18;
/// SOCK_DIAG_BY_FAMILY.
const KIND_BY_FAMILY: u16 = 20;
/// SOCK_DESTROY.
const KIND_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// All states from TCP_ESTABLISHED (1) to TCP_CLOSING (11), but TIME_WAIT, which has nothing to reset, and LISTEN (10).
const STATES: u32 = 0b1111_1111_1110 & !TIME_WAIT & !(1 << 10);
/// TCP_TIME_WAIT.
const TIME_WAIT: u32 = 1 << 6;
/// inet_diag_sockid within inet_diag_msg: ports 4, source 16, destination 16, interface 4, cookie 8.
const SOCKID_AT: usize = 4;
const SOCKID_BYTES: usize = 48;

/// Starts the thread. It ends when the sender is dropped, or when the kernel turns out not to be able to do this.
///
/// # Errors
/// No thread could be started.
pub fn start(config: Arc<Current>) -> std::io::Result<SyncSender<(JailId, Target)>> {
    let (to, from) = sync_channel(WAITING_MAX);
    std::thread::Builder::new()
        .name("kill".into())
        .spawn(move || {
            crate::sys::stand_back();
            run(&config, &from);
        })?;
    Ok(to)
}

fn run(current: &Current, from: &Receiver<(JailId, Target)>) {
    /// What it is about.
    const ABOUT: &str = "open connections of the banned";
    let mut socket = None;
    let mut rest = Duration::ZERO;
    while let Ok(first) = from.recv() {
        let mut victims = Victims::default();
        // Asleep, so that nobody who bans has to wake us.
        std::thread::sleep(GATHER.max(rest));
        let config = current.get();
        let all = std::iter::once(first).chain(from.try_iter());
        all.for_each(|one| victims.add(&config, one));
        let begun = Instant::now();
        match kill(&mut socket, &victims) {
            Ok(_) => board().over(ABOUT, "are reset again"),
            Err(WireError::Refused(Refusal::Os(Errno::EOPNOTSUPP))) => {
                let text = "this kernel cannot reset them (no CONFIG_INET_DIAG_DESTROY), so they last until they time out; \
                            firewall.kill_connections = false says that this is known";
                board().set(ABOUT, &Err::<(), _>(text));
                return;
            }
            Err(error) => {
                socket = None;
                let text = format!("last until they time out: SOCK_DESTROY: {error}");
                board().tell(ABOUT, text);
            }
        }
        rest = begun.elapsed().saturating_mul(REST);
    }
}

/// Whose connections, to which local ports.
#[derive(Debug, Default)]
pub struct Victims {
    /// Clients, with the length of the prefix that they stand for.
    clients: HashMap<(Client, u8), Vec<Ports>>,
    nets: Vec<(IpNet, Ports)>,
    /// The prefix lengths among `clients`.
    prefixes: BTreeSet<u8>,
    /// An IPv4 one is among them: its connections may be mapped ones on IPv6 sockets.
    any_v4: bool,
}

impl Victims {
    /// One more.
    pub fn add(&mut self, config: &Config, (id, who): (JailId, Target)) {
        // Only TCP has connections that can be reset.
        let Some(jail) = jail(config, id).filter(|jail| jail.closes_tcp()) else {
            return;
        };
        let (kind, who) = place_of(who, jail.ipv6_prefix);
        self.any_v4 |= matches!(kind, Kind::Ip4 | Kind::Net4);
        match who {
            Target::Client(client) => {
                self.prefixes.insert(jail.ipv6_prefix);
                let ports = self.clients.entry((client, jail.ipv6_prefix)).or_default();
                if !ports.contains(&jail.ports) {
                    ports.push(jail.ports.clone());
                }
            }
            Target::Net(net) => self.nets.push((net, jail.ports.clone())),
        }
    }

    /// Whether a connection from `peer` to `port` is to be reset.
    fn has(&self, peer: IpAddr, port: u16) -> bool {
        let peer = Client::new(peer);
        let closed = |ports: &Ports| ports.closes(port);
        self.prefixes.iter().any(|prefix| {
            self.clients
                .get(&(peer.counted(*prefix), *prefix))
                .is_some_and(|ports| ports.iter().any(closed))
        }) || self
            .nets
            .iter()
            .any(|(net, ports)| net.contains(&peer.addr()) && closed(ports))
    }
}

/// Resets the victims' connections; how many.
///
/// # Errors
/// The sockets could not be looked at, or the kernel cannot reset (EOPNOTSUPP).
pub fn kill(socket: &mut Option<Socket>, victims: &Victims) -> Result<usize, WireError> {
    let socket = match socket {
        Some(socket) => socket,
        None => socket.insert(Socket::open(SockProtocol::NetlinkSockDiag, 0)?),
    };
    let mut found: Vec<(u8, [u8; SOCKID_BYTES])> = Vec::new();
    let mut take = |message: &[u8]| {
        if let Some((peer, port, id)) = connection(message)
            && let Some(family) = message.first()
            && victims.has(peer, port)
        {
            found.push((*family, id));
        }
    };
    if victims.any_v4 {
        dump_both(socket, STATES, &mut take)?;
    } else {
        let one = request(AF_INET6, STATES, &[0; SOCKID_BYTES]);
        socket.exchange(KIND_BY_FAMILY, DUMP, &one, |_| {}, |_, m| take(m))?;
    }
    let mut reset = 0;
    for (family, id) in found {
        match socket.exchange(
            KIND_DESTROY,
            0,
            &request(family, STATES, &id),
            |_| {},
            |_, _| {},
        ) {
            Ok(()) => reset += 1,
            // It has ended by itself meanwhile.
            Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reset)
}

/// Tells of every TCP connection of this host, those that ended within the last minute too: the peer, the local port.
///
/// # Errors
/// The sockets could not be looked at.
pub fn connections(mut each: impl FnMut(Client, u16)) -> Result<(), WireError> {
    let mut socket = Socket::open(SockProtocol::NetlinkSockDiag, 0)?;
    dump_both(&mut socket, STATES | TIME_WAIT, &mut |message: &[u8]| {
        if let Some((peer, port, _)) = connection(message) {
            each(Client::new(peer), port);
        }
    })
}

/// Dumps the sockets of both families. The kernel walks its whole table for every question, and the older one is about
/// both at once.
fn dump_both(
    socket: &mut Socket,
    states: u32,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), WireError> {
    let both = request_of_both(states);
    match socket.exchange(KIND_TCP, DUMP, &both, |_| {}, |_, m| take(m)) {
        Err(WireError::Refused(_)) => {
            for family in [AF_INET, AF_INET6] {
                let one = request(family, states, &[0; SOCKID_BYTES]);
                socket.exchange(KIND_BY_FAMILY, DUMP, &one, |_| {}, |_, m| take(m))?;
            }
            Ok(())
        }
        answered => answered,
    }
}

/// inet_diag_req_v2.
fn request(family: u8, states: u32, id: &[u8; SOCKID_BYTES]) -> [u8; 8 + SOCKID_BYTES] {
    let mut request = [0; 8 + SOCKID_BYTES];
    let states = states.to_ne_bytes();
    let head = [family, IPPROTO_TCP, 0, 0];
    let fields = head.iter().chain(&states).chain(id);
    for (to, from) in request.iter_mut().zip(fields) {
        *to = *from;
    }
    request
}

/// inet_diag_req, which has the states behind an empty inet_diag_sockid. Its family does not matter (inet_diag_dump_compat,
/// net/ipv4/inet_diag.c).
fn request_of_both(states: u32) -> [u8; 4 + SOCKID_BYTES + 8] {
    let mut request = [0; 4 + SOCKID_BYTES + 8];
    let places = request.iter_mut().skip(4 + SOCKID_BYTES);
    for (to, from) in places.zip(states.to_ne_bytes()) {
        *to = from;
    }
    request
}

/// Peer, local port and identity of a dumped socket (inet_diag_msg).
fn connection(message: &[u8]) -> Option<(IpAddr, u16, [u8; SOCKID_BYTES])> {
    let id: [u8; SOCKID_BYTES] = *message.get(SOCKID_AT..)?.first_chunk()?;
    let port = u16::from_be_bytes(*id.first_chunk()?);
    let peer = id.get(20..36)?;
    let peer = match *message.first()? {
        AF_INET => IpAddr::V4(Ipv4Addr::from(*peer.first_chunk::<4>()?)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(*peer.first_chunk::<16>()?)),
        _ => return None,
    };
    Some((peer, port, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortRange;

    #[test]
    fn a_dumped_socket_is_read_where_the_kernel_puts_it() {
        let mut message = vec![0; 72];
        message[0] = AF_INET;
        message[4..8].copy_from_slice(&[0x01, 0xbb, 0xc0, 0x00]);
        message[24..28].copy_from_slice(&[192, 0, 2, 7]);
        let (peer, port, id) = connection(&message).unwrap();
        assert_eq!((peer, port), ("192.0.2.7".parse().unwrap(), 443));
        let request = request(AF_INET, STATES, &id);
        assert_eq!(request[..4], [2, 6, 0, 0]);
        assert_eq!(
            u32::from_ne_bytes(*request[4..].first_chunk().unwrap()),
            0xbbe
        );
        assert_eq!(request[8..12], [0x01, 0xbb, 0xc0, 0x00]);
        assert!(connection(&message[..40]).is_none());
    }

    #[test]
    fn only_the_jails_ports_and_the_clients_prefix() {
        let web = Ports::These(vec![PortRange::one("http", 80)]);
        let mut victims = Victims::default();
        let client = |text: &str| Client::new(text.parse().unwrap());
        victims.prefixes.insert(64);
        for who in ["192.0.2.7", "2001:db8::"] {
            victims.clients.insert((client(who), 64), vec![web.clone()]);
        }
        victims
            .nets
            .push(("198.51.100.0/24".parse().unwrap(), Ports::All));
        let has = |peer: &str, port| victims.has(peer.parse().unwrap(), port);
        assert!(has("192.0.2.7", 80));
        assert!(has("::ffff:192.0.2.7", 80));
        assert!(!has("192.0.2.7", 22));
        assert!(!has("192.0.2.8", 80));
        assert!(has("2001:db8::abcd", 80));
        assert!(!has("2001:db8:0:1::abcd", 80));
        assert!(has("198.51.100.9", 22));
    }
}
