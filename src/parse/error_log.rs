//! One line of httpd's error log (`ErrorLog "|..."`, the default ErrorLogFormat):
//! `[date] [module:level] [pid 1:tid 2] (13)Permission denied: [client 192.0.2.7:4711] AH00035: message`.
//!
//! Only a line that names its client in that place belongs to anybody. What stands between the process and the client is
//! httpd's own (a source file, a system error); a `[client ...]` further behind may be a client's text.

use super::{Access, Misfit, Wants};
use crate::client::Client;

/// Longest text of a system error or source file before the client, bytes.
const PREFIX_MAX_BYTES: usize = 200;

/// Reads one line, without its newline.
///
/// # Errors
/// The line is not of the default ErrorLogFormat, or names no client.
pub fn read<'a>(line: &'a [u8], access: &mut Access<'a>) -> Result<(), Misfit> {
    let misfit = |rest: &[u8], wants| Misfit {
        at: line.len() - rest.len(),
        wants: Wants::Words(wants),
    };
    let (date, rest) = bracket(line).ok_or(misfit(line, "[a date]"))?;
    if date.len() < 24 || !date.is_ascii() || !date.last().is_some_and(u8::is_ascii_digit) {
        return Err(misfit(line, "[a date]"));
    }
    let (module, rest) = blank(rest)
        .and_then(bracket)
        .ok_or(misfit(rest, "[module:level]"))?;
    if !module.contains(&b':') || module.contains(&b' ') {
        return Err(misfit(rest, "[module:level]"));
    }
    let (pid, mut rest) = blank(rest)
        .and_then(bracket)
        .ok_or(misfit(rest, "[pid ...]"))?;
    if !pid.starts_with(b"pid ") {
        return Err(misfit(rest, "[pid ...]"));
    }
    rest = blank(rest).ok_or(misfit(rest, "a blank"))?;
    // `(13)Permission denied: ` or `mod_x.c(123): `; neither holds a bracket.
    if !rest.starts_with(b"[client ") {
        let at = memchr::memchr(b'[', rest).filter(|at| *at <= PREFIX_MAX_BYTES);
        let (prefix, after) = at
            .and_then(|at| rest.split_at_checked(at))
            .ok_or(misfit(rest, "[client address:port]"))?;
        if !prefix.ends_with(b": ") || !prefix.contains(&b'(') {
            return Err(misfit(rest, "[client address:port]"));
        }
        rest = after;
    }
    let (client, after) = bracket(rest).ok_or(misfit(rest, "[client address:port]"))?;
    let client = client
        .strip_prefix(b"client ")
        .and_then(|peer| {
            let colon = memchr::memrchr(b':', peer)?;
            let (address, port) = peer.split_at_checked(colon)?;
            let port = port.get(1..)?;
            (!port.is_empty() && port.iter().all(u8::is_ascii_digit)).then_some(address)
        })
        .map(|address| {
            address
                .strip_prefix(b"[")
                .and_then(|a| a.strip_suffix(b"]"))
                .unwrap_or(address)
        })
        .and_then(Client::parse)
        .ok_or(misfit(rest, "[client address:port]"))?;
    let message = blank(after).unwrap_or_default();
    (access.client, access.message, access.is_error) = (Some(client), message, true);
    Ok(())
}

fn bracket(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"[")?;
    // The client's own may be an IPv6 address: `[client [2001:db8::1]:80]` or `[client 2001:db8::1:80]`.
    let end = memchr::memmem::find(text, b"] ")
        .or_else(|| text.ends_with(b"]").then(|| text.len() - 1))?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

fn blank(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[u8]) -> Result<Access<'_>, Misfit> {
        let mut access = Access::default();
        super::read(line, &mut access).map(|()| access)
    }

    #[test]
    fn the_client_is_read_where_httpd_puts_it() {
        for (middle, client) in [
            ("[client 192.0.2.7:4711] ", "192.0.2.7"),
            (
                "(13)Permission denied: [client 192.0.2.7:4711] ",
                "192.0.2.7",
            ),
            ("mod_x.c(12): [client 192.0.2.7:4711] ", "192.0.2.7"),
            ("[client 2001:db8::1:4711] ", "2001:db8::1"),
            ("[client [2001:db8::1]:4711] ", "2001:db8::1"),
        ] {
            let line = format!(
                "[Sun Nov 22 20:02:28.123456 2026] [auth_basic:error] [pid 12:tid 34] {middle}AH01617: user a: no [client 6.6.6.6:1] x"
            );
            let read = read(line.as_bytes()).unwrap();
            assert_eq!(
                read.client.map(|c| c.to_string()).as_deref(),
                Some(client),
                "{line}"
            );
            assert!(read.message.starts_with(b"AH01617: user a"));
        }
    }

    #[test]
    fn a_line_without_a_client_belongs_to_nobody() {
        for rest in [
            "AH00163: Apache/2.4.71 configured -- resuming normal operations",
            "AH00094: Command line: 'x [client 6.6.6.6:1] y'",
            "script said: [client 6.6.6.6:1] x",
            "[client 6.6.6.6] no port",
            "[remote 192.0.2.7:1] x",
        ] {
            let line =
                format!("[Sun Nov 22 20:02:28.123456 2026] [core:notice] [pid 12:tid 34] {rest}");
            assert!(read(line.as_bytes()).is_err(), "{line}");
        }
        assert!(read(b"6.6.6.6 [client 6.6.6.6:1]").is_err());
        assert!(read(b"").is_err());
    }
}
