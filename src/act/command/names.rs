//! Names of hosts: `<ip-host>`, `<fq-hostname>`, `<sh-hostname>`.
//!
//! Whom the resolver asks, and how long that takes, is the network's choice; so it is asked by a child that can be killed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::child;
use super::tags::Script;
use super::ticket::cut;

/// The longest a name may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest name, bytes (RFC 1035, 2.3.4, and a dot).
const NAME_MAX: usize = 255;

/// What runs commands: where programs are, and whether to go on.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) path: String,
    /// Kills what runs.
    pub(super) abort: AtomicBool,
    own: OnceLock<String>,
}

impl Runner {
    pub(super) fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            abort: AtomicBool::new(false),
            own: OnceLock::new(),
        }
    }

    /// Whether nothing new is to be started.
    pub(super) fn ending(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// The host's name without its domain's being looked for.
    pub(super) fn short(&self) -> String {
        nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// The host's name with its domain, if it has one. Asked once.
    pub(super) fn full(&self) -> String {
        let find = || {
            let short = self.short();
            let dotted = |text: String| {
                let names = text.split_ascii_whitespace().skip(1);
                let mut names = names
                    .filter(|name| name.contains('.') && name.parse::<std::net::IpAddr>().is_err());
                names.next().map(str::to_owned)
            };
            self.getent("ahosts", &short)
                .and_then(|text| dotted(text.lines().next().unwrap_or_default().to_owned()))
                .or_else(|| self.getent("hosts", &short).and_then(dotted))
                .unwrap_or(short)
        };
        self.own.get_or_init(find).clone()
    }

    /// What an address is called, as whoever owns it says.
    pub(super) fn host(&self, ip: &str) -> Option<String> {
        ip.parse::<std::net::IpAddr>().ok()?;
        let text = self.getent("hosts", ip)?;
        let mut name = text.split_ascii_whitespace().nth(1)?.to_owned();
        cut(&mut name, NAME_MAX);
        Some(name)
    }

    fn getent(&self, database: &str, name: &str) -> Option<String> {
        let script = Script {
            text: "exec getent \"$1\" \"$2\"".into(),
            values: vec![database.into(), name.into()],
        };
        let ended = child::run(&script, &self.path, PATIENCE, &self.abort).ok()?;
        (ended.code() == Some(0)).then_some(ended.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_a_name_and_nonsense_has_none() {
        let runner = Runner::new("/usr/bin:/bin");
        assert_eq!(runner.host("127.0.0.1").as_deref(), Some("localhost"));
        assert_eq!(runner.host("--help"), None); // not an address: nobody is asked
        assert!(runner.full().starts_with(&runner.short()));
    }
}
