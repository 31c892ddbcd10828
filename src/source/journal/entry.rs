//! One journal entry as journalctl prints it, and the line that a filter's expressions are written for.

use serde::Deserialize;

use crate::frame::LINE_MAX_BYTES;
use crate::source::tail::Encoding;

/// What journalctl is asked for; it adds `__CURSOR` and the journal's own times.
pub(super) const FIELDS: &str = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_COMM,_HOSTNAME,\
                                 _SOURCE_REALTIME_TIMESTAMP,_SOURCE_MONOTONIC_TIMESTAMP";

/// An entry.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
pub(super) struct Entry {
    #[serde(rename = "__CURSOR")]
    pub(super) cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    received: Field,
    #[serde(rename = "_SOURCE_REALTIME_TIMESTAMP")]
    sent: Field,
    #[serde(rename = "__MONOTONIC_TIMESTAMP")]
    received_uptime: Field,
    #[serde(rename = "_SOURCE_MONOTONIC_TIMESTAMP")]
    sent_uptime: Field,
    message: Field,
    syslog_identifier: Field,
    syslog_pid: Field,
    #[serde(rename = "_PID")]
    pid: Field,
    #[serde(rename = "_COMM")]
    command: Field,
    #[serde(rename = "_HOSTNAME")]
    host: Field,
}

/// A field's value, as `journalctl -o json` writes it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Field {
    Text(String),
    /// Not UTF-8, or with control characters.
    Bytes(Vec<u8>),
    /// The field was there more than once.
    Many(Vec<Field>),
    /// Too long to be shown, or not there.
    Null(()),
}

impl Default for Field {
    fn default() -> Self {
        Self::Null(())
    }
}

impl Field {
    fn push_to(&self, text: &mut String, encoding: Encoding) {
        match self {
            Self::Text(value) => text.push_str(value),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(value) => text.push_str(value),
                Err(_) => text.push_str(encoding.decode(bytes, &mut String::new())),
            },
            Self::Many(values) => {
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        text.push(' ');
                    }
                    value.push_to(text, encoding);
                }
            }
            Self::Null(()) => {}
        }
    }

    /// One value; the last of several, since that is the one a dictionary keeps.
    fn text(&self, encoding: Encoding) -> String {
        let mut text = String::new();
        match self {
            Self::Many(values) => {
                if let Some(last) = values.last() {
                    last.push_to(&mut text, encoding);
                }
            }
            Self::Text(_) | Self::Bytes(_) | Self::Null(()) => self.push_to(&mut text, encoding),
        }
        text
    }

    /// A number of microseconds as seconds.
    fn seconds(&self) -> Option<f64> {
        let micros: u64 = self.text(Encoding::UTF_8).parse().ok()?;
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        // Both fit: a time is below 2^53, a fraction below 10^6.
        let seconds = u32::try_from(seconds).ok()?;
        let rest = u32::try_from(rest).ok()?;
        Some(f64::from(seconds) + f64::from(rest) / 1e6)
    }
}

impl Entry {
    /// When it was sent, else when it was received; epoch seconds.
    pub(super) fn time(&self) -> Option<f64> {
        self.sent.seconds().or_else(|| self.received.seconds())
    }

    /// `HOST IDENT[PID]: MESSAGE`, of the kernel `HOST kernel: [SECONDS] MESSAGE`; newlines are shown as `\n`.
    pub(super) fn text(&self, encoding: Encoding) -> String {
        let mut line = self.host.text(encoding);
        let mut add = |element: &str| {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(element);
        };
        let ident = [&self.syslog_identifier, &self.command]
            .into_iter()
            .map(|field| field.text(encoding))
            .find(|ident| !ident.is_empty());
        if let Some(mut ident) = ident {
            let pid = [&self.syslog_pid, &self.pid]
                .into_iter()
                .find_map(|field| pid(&field.text(encoding)));
            if let Some(pid) = &pid {
                ident = format!("{ident}[{pid}]");
            }
            let of_kernel = pid.is_none() && ident == "kernel";
            add(&format!("{ident}:"));
            let uptime = self.sent_uptime.seconds();
            if of_kernel && let Some(uptime) = uptime.or_else(|| self.received_uptime.seconds()) {
                add(&format!("[{uptime:12.6}]"));
            }
        }
        let mut message = String::new();
        self.message.push_to(&mut message, encoding);
        add(&message);
        if line.contains('\n') {
            line = line.replace('\n', "\\n");
        }
        // As of a line that is too long in a log, its head would be what its writer wanted it to be.
        if line.len() > LINE_MAX_BYTES {
            line.clear();
        }
        line
    }
}

/// A number in decimal where it is one; nothing for 0 and for no text.
fn pid(text: &str) -> Option<String> {
    let trimmed = text.trim();
    let number = if let Some(hex) = trimmed
        .strip_prefix("0x")
        .or_else(|| trimmed.strip_prefix("0X"))
    {
        return Some(u64::from_str_radix(hex, 16).map_or(text.to_owned(), |pid| pid.to_string()));
    } else {
        trimmed.parse::<i64>()
    };
    match number {
        Ok(0) => None,
        Ok(pid) => Some(pid.to_string()),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        let entry: Entry = serde_json::from_str(json).unwrap();
        entry.text(Encoding::named("latin-1").unwrap())
    }

    #[test]
    fn an_entry_reads_like_a_line_of_syslog() {
        for (json, want) in [
            (
                r#"{"_HOSTNAME":"web1","SYSLOG_IDENTIFIER":"sshd","_PID":"77","MESSAGE":"hello"}"#,
                "web1 sshd[77]: hello",
            ),
            (
                r#"{"_HOSTNAME":"web1","_COMM":"app","SYSLOG_PID":"5","_PID":"77","MESSAGE":"a\nb"}"#,
                "web1 app[5]: a\\nb",
            ),
            (
                r#"{"_HOSTNAME":"web1","SYSLOG_IDENTIFIER":"kernel","__MONOTONIC_TIMESTAMP":"12345678","MESSAGE":"x"}"#,
                "web1 kernel: [   12.345678] x",
            ),
            (
                r#"{"SYSLOG_IDENTIFIER":"app","SYSLOG_PID":"main","MESSAGE":[104,233,27]}"#,
                "app[main]: hé\u{1b}",
            ),
            (
                r#"{"SYSLOG_IDENTIFIER":"app","MESSAGE":["one",[116,119,111]]}"#,
                "app: one two",
            ),
            (r#"{"_HOSTNAME":"web1","MESSAGE":null}"#, "web1 "),
        ] {
            assert_eq!(text(json), want);
        }
    }

    #[test]
    fn its_time_is_the_senders_where_there_is_one() {
        let time = |json| serde_json::from_str::<Entry>(json).unwrap().time();
        let received = r#"{"__REALTIME_TIMESTAMP":"1700000000500000"}"#;
        assert_eq!(time(received), Some(1_700_000_000.5));
        let sent = r#"{"__REALTIME_TIMESTAMP":"1700000000500000","_SOURCE_REALTIME_TIMESTAMP":"1700000000250000"}"#;
        assert_eq!(time(sent), Some(1_700_000_000.25));
    }
}
