//! What goes over the control socket: one JSON object a line, each way.
//!
//! A request names the version and what to do:
//!
//! ```text
//! {"v":1,"do":"status"}                                            jails as they are
//! {"v":1,"do":"banned","jail":"sshd"}                              bans; without "jail" of all
//! {"v":1,"do":"ban","jail":"manual","ips":["192.0.2.7"],"time":600,"force":false}   -1: for ever; null: the jail's bantime
//! {"v":1,"do":"unban","jail":null,"ips":["192.0.2.7"]}             null: everybody
//! {"v":1,"do":"ignored","jail":null}                               who is never banned, by jail
//! {"v":1,"do":"change","changes":[...]}                            until the next reload
//! {"v":1,"do":"reload"}                                            the configuration anew; bans on again after off
//! {"v":1,"do":"off"}                                               nobody is banned until reload
//! {"v":1,"do":"metrics"}                                           Prometheus' text
//! {"v":1,"do":"subscribe"}                                         events follow, until whoever asked goes
//! ```
//!
//! Changes: `{"mode":{"jail":"sshd","mode":"on"}}` (`observe`, `off`), `{"ignore":{"jail":null,"who":["192.0.2.7"]}}`,
//! `{"unignore":{...}}`, `{"log_level":"debug"}` (`error`, `warning`, `info`, `trace`),
//! `{"set":{"jail":"sshd","to":{"max_retry":3}}}`, see [`Setting`](crate::changes::Setting).
//!
//! The answer is `{"v":1,"ok":true,"result":...}` or `{"v":1,"ok":false,"error":"...","problems":["..."]}`. Shapes are only
//! ever extended.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::changes::Change;

/// The version of this protocol.
pub const VERSION: u32 = 1;
/// Longest request, bytes, with its newline.
pub const REQUEST_MAX: usize = 256 * 1024;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Jails as they are; or one.
    Status {
        /// Only this.
        #[serde(default)]
        jail: Option<String>,
    },
    /// Bans that stand.
    Banned {
        /// Only of this jail.
        #[serde(default)]
        jail: Option<String>,
    },
    /// Bans by hand.
    Ban {
        /// In this jail.
        jail: String,
        /// Whom.
        ips: Vec<String>,
        /// Seconds; below 0: for ever; nothing: as long as the jail does.
        #[serde(default)]
        time: Option<i64>,
        /// Even who is never banned. For root only.
        #[serde(default)]
        force: bool,
    },
    /// Lifts bans.
    Unban {
        /// Only in this jail.
        #[serde(default)]
        jail: Option<String>,
        /// Whose; nothing: all.
        #[serde(default)]
        ips: Option<Vec<String>>,
    },
    /// Who is never banned.
    Ignored {
        /// Only by this jail.
        #[serde(default)]
        jail: Option<String>,
    },
    /// Changes something until the next reload.
    Change {
        /// All of them, or none.
        changes: Vec<Change>,
    },
    /// The configuration anew.
    Reload {
        /// Only this jail's changes are forgotten.
        #[serde(default)]
        jail: Option<String>,
    },
    /// Nobody is banned.
    Off,
    /// As `f2b-pipe metrics` prints them.
    Metrics,
    /// Hits and bans from now on.
    Subscribe,
}

/// A request with its version.
#[derive(Debug, Serialize)]
struct Versioned<'r> {
    v: u32,
    #[serde(flatten)]
    request: &'r Request,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The version.
    pub v: u32,
    /// Was it done?
    pub ok: bool,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    /// Why it was not; what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// All that is wrong, where several things are: `file:line: key: what is wrong; what to write`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl Reply {
    pub(super) fn of(result: Value) -> Self {
        Self {
            v: VERSION,
            ok: true,
            result,
            error: None,
            problems: Vec::new(),
        }
    }

    pub(super) fn error(error: String, problems: Vec<String>) -> Self {
        Self {
            v: VERSION,
            ok: false,
            result: Value::Null,
            error: Some(error),
            problems,
        }
    }
}

impl Request {
    /// As a line.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let versioned = Versioned {
            v: VERSION,
            request: self,
        };
        line(&versioned)
    }

    /// Reads a line. JSON is read by serde_json, which bounds how deep it nests, and makes no more of it than there is.
    ///
    /// # Errors
    /// What is wrong; what to write.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        if line.len() > REQUEST_MAX {
            return Err(format!(
                "a request of {} bytes, at most {REQUEST_MAX} are read",
                line.len()
            ));
        }
        let mut all: serde_json::Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| {
                format!(
                    "no JSON object ({error}); write {{\"v\":1,\"do\":\"status\"}} and a newline"
                )
            })?;
        match all.remove("v") {
            Some(Value::Number(v)) if v.as_u64() == Some(u64::from(VERSION)) => {}
            Some(other) => {
                return Err(format!(
                    "version {other} of the control socket, and this f2b-pipe speaks {VERSION}"
                ));
            }
            None => return Err(format!("no version; write \"v\":{VERSION}")),
        }
        serde_json::from_value(Value::Object(all)).map_err(|error| error.to_string())
    }
}

/// One line of JSON.
pub(super) fn line(what: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(what).unwrap_or_else(|_| b"{}".to_vec());
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::{Level, Mode, Setting};

    #[test]
    fn requests_are_read_as_they_were_written() {
        let all = [
            Request::Status { jail: None },
            Request::Ban {
                jail: "manual".into(),
                ips: vec!["192.0.2.7".into()],
                time: Some(-1),
                force: true,
            },
            Request::Unban {
                jail: None,
                ips: None,
            },
            Request::Change {
                changes: vec![
                    Change::Mode {
                        jail: "sshd".into(),
                        mode: Mode::Observe,
                    },
                    Change::LogLevel(Level::Debug),
                    Change::Set {
                        jail: "sshd".into(),
                        to: Setting::BanTime(None),
                    },
                ],
            },
            Request::Off,
            Request::Subscribe,
        ];
        for request in all {
            let line = request.line();
            assert_eq!(Request::read(line.trim_ascii_end()), Ok(request));
        }
        let written =
            br#"{"do":"change","v":1,"changes":[{"set":{"jail":"a","to":{"max_retry":3}}}]}"#;
        assert!(Request::read(written).is_ok());
    }

    #[test]
    fn what_is_no_request_is_said() {
        for (line, about) in [
            (&b"status"[..], "no JSON object"),
            (b"[1]", "no JSON object"),
            (br#"{"do":"status"}"#, "no version"),
            (br#"{"v":2,"do":"status"}"#, "speaks 1"),
            (br#"{"v":1,"do":"statos"}"#, "statos"),
            (br#"{"v":1,"do":"status","jial":"x"}"#, "jial"),
            (br#"{"v":1,"do":"ban","jail":"x","ips":7}"#, "sequence"),
        ] {
            let error = Request::read(line).unwrap_err();
            assert!(error.contains(about), "{error}");
        }
        let deep = [b"{\"v\":1,\"do\":".to_vec(), vec![b'['; 100_000]].concat();
        assert!(Request::read(&deep).is_err());
        assert!(Request::read(&vec![b' '; REQUEST_MAX + 1]).is_err());
    }
}
