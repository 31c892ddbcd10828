//! f2b-pipe.toml to `Config`.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use regex::bytes::Regex;

use crate::decide::BanFor;

/// Everything the rooms need to know, checked. Made by [`load`] only (and by `Config::default()`: the shipped file).
#[derive(Clone, Debug)]
pub struct Config {
    /// The file this came from; `None`: none there, the shipped defaults run.
    pub path: Option<PathBuf>,
    /// How and where bans are put.
    pub firewall: Firewall,
    /// Networks of proxies: a peer among these is never banned, and its client cannot be held by a packet filter.
    pub proxies: Vec<IpNet>,
    /// Jails that run (`enabled = false` and broken ones are not here), in the order of the file; at most 65,535.
    pub jails: Vec<Jail>,
}

/// `[firewall]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// Who carries out bans.
    pub backend: Backend,
    /// What the names of our sets begin with: `f2bp-`.
    pub set_prefix: String,
    /// What happens to a packet from a banned address.
    pub blocktype: Blocktype,
    /// Reset the banned client's open connections to the jail's ports (SOCK_DESTROY).
    pub kill_connections: bool,
}

/// `firewall.backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's ipset through netlink, rules by iptables.
    Ipset,
    /// Decisions are told, nobody is banned.
    DryRun,
}

/// `firewall.blocktype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocktype {
    /// Raw PREROUTING, DROP.
    Drop,
    /// Filter INPUT, REJECT with a reset.
    Reject,
}

/// A jail's name: 1 to 20 bytes of `[A-Za-z0-9_.-]`, beginning with a letter or digit, so that every set name made of
/// it (`f2bp-` name `-n6`) fits the kernel's 31 bytes; checked where the line of the configuration is known.
pub type JailName = String;

/// One `[jail.NAME]`.
#[derive(Clone, Debug)]
pub struct Jail {
    /// Its name.
    pub name: JailName,
    /// Where it is written, for people: `conf/f2b-pipe.toml:31`, or `shipped`.
    pub written: String,
    /// What a line must be to count.
    pub rule: Rule,
    /// Ban, or only count and report.
    pub mode: Mode,
    /// Sum of weights within `findtime` that is a ban, 1 to 100,000.
    pub maxretry: u32,
    /// The window, 1 ms to 28 days (stamps are 32 bits of milliseconds).
    pub findtime: Duration,
    /// How long a ban lasts.
    pub bantime: BanFor,
    /// Networks that are never banned.
    pub ignoreip: Vec<IpNet>,
    /// Host names of ignoreip, resolved off the hot path.
    pub ignoreip_names: Vec<String>,
    /// Never ban own addresses, nor those administrators are logged in from.
    pub ignoreself: bool,
    /// TCP ports that are closed to the banned.
    pub ports: Ports,
    /// Bits by which IPv6 clients are counted and banned, 32 to 128.
    pub ipv6_prefix: u8,
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ban who reaches maxretry.
    Ban,
    /// Count and report; ban nobody.
    Observe,
}

/// `port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// `port = "all"`.
    All,
    /// As written (`"http"`, `"8080"`), and the number each stands for; 1 to 15 of them (iptables' multiport).
    These(Vec<(String, u16)>),
}

/// The conditions of a native jail: all of `all` must hold, one of `any` if there are any, and no single one of `not`.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Each condition must hold.
    pub all: Conditions,
    /// One of these must hold, if there are any (`any = { path = [...], referer = [...] }`).
    pub any: Conditions,
    /// Any one that holds is an exception.
    pub not: Conditions,
    /// How many hits a line counts for, 1 to 1000.
    pub weight: Weight,
    /// Count different values of this field, not lines.
    pub distinct: Option<Field>,
}

/// `weight`, 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(pub u32);

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

/// Conditions as written. An empty list: the key was not given.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Final status within one of these inclusive ranges (`401`, `"4xx"`, `"500-599"`).
    pub status: Vec<(u16, u16)>,
    /// Bytes sent within one of these inclusive ranges (`0`, `">=1000000"`, `"100-200"`).
    pub bytes: Vec<(u64, u64)>,
    /// Microseconds the request took, within one of these inclusive ranges (`">5s"`, `"<10ms"`).
    pub duration: Vec<(u64, u64)>,
    /// `static = true`: a picture, style sheet, script, font by its ending and method, or a 304.
    pub is_static: Option<bool>,
    /// Regular expressions, at least one of which is found in the decoded field.
    pub text: Vec<(Field, Vec<Regex>)>,
}

/// A text field of a line, decoded: httpd's escapes undone (`\"`, `\xhh`), path and query percent-decoded once as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// `GET`.
    Method,
    /// What is asked for, up to `?`, percent-decoded.
    Path,
    /// Behind the `?`, percent-decoded.
    Query,
    /// The whole request line, not percent-decoded.
    Request,
    /// User-Agent.
    Agent,
    /// Referer.
    Referer,
    /// The name a client gave; `-` if none.
    User,
    /// The server name (`%v`).
    Vhost,
    /// Of a line of httpd's error log: the text behind the client, from the AH code on.
    Message,
}

impl Field {
    /// The key of a condition on it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Path => "path",
            Self::Query => "query",
            Self::Request => "request",
            Self::Agent => "agent",
            Self::Referer => "referer",
            Self::User => "user",
            Self::Vhost => "vhost",
            Self::Message => "message",
        }
    }

    /// The same with the directive of LogFormat that writes it.
    #[must_use]
    pub fn directive(self) -> &'static str {
        match self {
            Self::Method => "method (%r or %m)",
            Self::Path => "path (%r or %U)",
            Self::Query => "query (%r or %q)",
            Self::Request => "request (%r)",
            Self::Agent => "agent (%{User-Agent}i)",
            Self::Referer => "referer (%{Referer}i)",
            Self::User => "user (%u)",
            Self::Vhost => "vhost (%v)",
            Self::Message => "message (ErrorLog)",
        }
    }
}

/// Files in the runtime directory. They carry the configuration's name, so that two configurations on one host do not mix.
#[derive(Clone, Debug)]
pub struct RuntimePaths {
    /// `/run/f2b-pipe/f2b-pipe`, to which endings are added.
    stem: PathBuf,
}

impl RuntimePaths {
    /// `config` is the file's path, whether it exists or not.
    #[must_use]
    pub fn new(dir: &std::path::Path, config: &std::path::Path) -> Self {
        Self {
            stem: dir.join(config.file_stem().unwrap_or("f2b-pipe".as_ref())),
        }
    }

    /// Held (flock) by the process that looks after the chain.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.stem.with_extension("lock")
    }

    /// While this file exists nobody is banned.
    #[must_use]
    pub fn off(&self) -> PathBuf {
        self.stem.with_extension("off")
    }

    /// What the `run` with this process id has counted, as JSON, every few seconds.
    #[must_use]
    pub fn state(&self, pid: u32) -> PathBuf {
        self.stem.with_extension(format!("{pid}.json"))
    }
}
