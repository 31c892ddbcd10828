//! What this host says about itself: its own addresses, and from where somebody is logged in.
//!
//! Logins are sessions that the system opened for somebody it knows (utmp, systemd-logind), not mere connections.

use std::fs;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

/// Records of who is logged in. `struct utmp` and `struct utmpx` are the same on Linux (utmp(5)).
const UTMP: &str = "/run/utmp";
/// One file for each session (systemd-logind; sd-login(3) reads the same).
const SESSIONS: &str = "/run/systemd/sessions";

/// Addresses of this host's interfaces.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let addr = |interface: nix::ifaddrs::InterfaceAddress| {
        let addr = interface.address?;
        let v4 = addr.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| addr.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    interfaces.filter_map(addr).collect()
}

/// From where somebody is logged in.
pub(super) fn logins() -> Vec<IpAddr> {
    let mut addrs = fs::read(UTMP).map(|bytes| utmp(&bytes)).unwrap_or_default();
    let sessions = fs::read_dir(SESSIONS).into_iter().flatten().flatten();
    let texts = sessions.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    addrs.extend(texts.filter_map(|text| session(&text)));
    addrs.retain(|addr| !addr.is_unspecified());
    addrs
}

/// The addresses in utmp's records of live sessions.
fn utmp(bytes: &[u8]) -> Vec<IpAddr> {
    bytes
        .chunks_exact(size_of::<libc::utmpx>())
        .filter_map(utmp_record)
        .collect()
}

fn utmp_record(record: &[u8]) -> Option<IpAddr> {
    let kind = record
        .get(offset_of!(libc::utmpx, ut_type)..)?
        .first_chunk()?;
    if i16::from_ne_bytes(*kind) != libc::USER_PROCESS {
        return None;
    }
    // An IPv4 address is in the first word alone; in network order, as it came from the socket.
    let addr: &[u8; 16] = record
        .get(offset_of!(libc::utmpx, ut_addr_v6)..)?
        .first_chunk()?;
    if let Some((v4, rest)) = addr.split_first_chunk::<4>()
        && rest.iter().all(|b| *b == 0)
        && *v4 != [0; 4]
    {
        return Some(IpAddr::V4(Ipv4Addr::from(*v4)));
    }
    if *addr != [0; 16] {
        return Some(IpAddr::V6(Ipv6Addr::from(*addr)).to_canonical());
    }
    let host: &[u8; 256] = record
        .get(offset_of!(libc::utmpx, ut_host)..)?
        .first_chunk()?;
    remote(std::str::from_utf8(host.split(|b| *b == 0).next()?).ok()?)
}

/// The address in a session's file, unless the session is at its end.
fn session(text: &str) -> Option<IpAddr> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    if value("STATE=") == Some("closing") {
        return None;
    }
    remote(value("REMOTE_HOST=")?)
}

/// An address, with or without a zone. A host name is nothing: what it means is for its owner to say.
fn remote(host: &str) -> Option<IpAddr> {
    let addr = host.split('%').next()?.parse::<IpAddr>().ok()?;
    Some(addr.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, addr: &[u8], host: &str) -> Vec<u8> {
        let mut record = vec![0; size_of::<libc::utmpx>()];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset_of!(libc::utmpx, ut_type), &kind.to_ne_bytes());
        put(offset_of!(libc::utmpx, ut_addr_v6), addr);
        put(offset_of!(libc::utmpx, ut_host), host.as_bytes());
        record
    }

    #[test]
    fn utmp_tells_the_addresses_of_live_sessions() {
        let v6: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mapped: Ipv6Addr = "::ffff:192.0.2.9".parse().unwrap();
        let bytes = [
            record(libc::USER_PROCESS, &[192, 0, 2, 7], "host.example.org"),
            record(libc::DEAD_PROCESS, &[192, 0, 2, 8], ""),
            record(libc::USER_PROCESS, &v6.octets(), ""),
            record(libc::USER_PROCESS, &mapped.octets(), ""),
            record(libc::USER_PROCESS, &[], "192.0.2.10"),
            record(libc::USER_PROCESS, &[], "tmux(1234).%0"),
            record(libc::BOOT_TIME, &[], "6.18.0"),
            vec![1; 100],
        ]
        .concat();
        let found: Vec<String> = utmp(&bytes).iter().map(IpAddr::to_string).collect();
        assert_eq!(
            found,
            ["192.0.2.7", "2001:db8::7", "192.0.2.9", "192.0.2.10"]
        );
    }

    #[test]
    fn logind_tells_the_address_of_a_remote_session_that_is_not_closing() {
        let text = |state: &str, host: &str| {
            format!(
                "# This is private data. Do not parse.\nUID=0\nACTIVE=1\nSTATE={state}\nREMOTE=1\n{host}TTY=pts/0\n"
            )
        };
        let at = |state, host| session(&text(state, host)).map(|addr| addr.to_string());
        assert_eq!(
            at("active", "REMOTE_HOST=192.0.2.7\n").as_deref(),
            Some("192.0.2.7")
        );
        assert_eq!(
            at("online", "REMOTE_HOST=fe80::1%eth0\n").as_deref(),
            Some("fe80::1")
        );
        assert_eq!(at("closing", "REMOTE_HOST=192.0.2.7\n"), None);
        assert_eq!(at("active", "REMOTE_HOST=host.example.org\n"), None);
        assert_eq!(at("active", ""), None);
    }
}
