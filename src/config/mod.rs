//! f2b-pipe.toml to `Config`.
//!
//! In: the file, the `conf.d/*.toml` beside it, and under them the shipped file, which is part of the program. Out: a
//! configuration that runs, whatever those files say, and every problem at once. A jail with a mistake is left out, as
//! half of its conditions may fit everybody; a mistake elsewhere leaves the shipped value.
//!
//! The layers are laid over each other key by key (`jail.apache-dos.maxretry`), so a file need say only what is to be
//! different, a copy of the shipped file means the same as no file, and a shipped jail ends with `enabled = false`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::decide::BanFor;
use crate::fail2ban::Broken;
use ipnet::IpNet;

mod check; // entries to Config
mod current; // the one that holds
pub(crate) mod place; // addresses, ports, protocols
mod problem; // where, which key, what is wrong, what to write
mod raw; // jails that judge by expressions
pub(crate) mod suggest; // the key that was meant
mod text; // text to entries with their lines
mod value; // durations, statuses, expressions

pub use current::Current;
use problem::Problems;
pub use problem::{Place, Problem, Severity};
pub(crate) use raw::MATCHES_MAX;
pub use raw::{Backend as LineSource, Origin, Raw};
pub(crate) use value::FINDTIME_MAX;

/// The shipped file, as installed.
pub const SHIPPED: &str = include_str!("../../conf/f2b-pipe.toml");

/// Its name in [`Jail::written`].
const SHIPPED_NAME: &str = "shipped";

/// Sections are merged (`jail`, in it `apache-dos`), and what a key holds is not: `not = { ... }` replaces the whole.
const LAYERS_MERGE_DEPTH: u8 = 2;

/// What [`load`] found.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What runs.
    pub config: Config,
    /// What is wrong, file by file and line by line.
    pub problems: Vec<Problem>,
}

impl Loaded {
    /// What a process says at its start: all that may be wrong.
    pub fn told(&self) -> impl Iterator<Item = &Problem> {
        let problems = self.problems.iter();
        problems.filter(|problem| problem.severity != Severity::Note)
    }

    /// Mistakes in our own files that leave something out. Those of fail2ban's folder leave out no more than the jail they
    /// stand in, and nothing that judges httpd's lines.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        let own = |problem: &&Problem| !self.config.is_fail2bans(problem);
        let errors = self
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error);
        errors.filter(own)
    }
}

/// Which jails of fail2ban's folder run, too.
#[derive(Clone, Copy, Debug)]
enum Import<'a> {
    /// None: what is read does not speak of this host.
    No,
    /// Those of the folder that `[fail2ban]` names.
    Named,
    /// Those of this one.
    From(&'a Path),
}

/// Reads the configuration at `path` and the `conf.d/*.toml` beside it, over the shipped defaults, and the jails of the
/// fail2ban folder it names. A file that is not there is no problem; one that cannot be read or understood is, and the
/// shipped defaults stand in its place.
#[must_use]
pub fn load(path: &Path) -> Loaded {
    load_all(path, Import::Named)
}

/// The same with another fail2ban folder than the configuration names.
#[must_use]
pub fn load_with(path: &Path, fail2ban: Option<&Path>) -> Loaded {
    load_all(path, fail2ban.map_or(Import::Named, Import::From))
}

/// A number of what our own files say at the moment, the same in all processes: whoever has read them can see whether he
/// has read what another one did, or a file that was just being written. Never 0.
pub(crate) fn fingerprint(path: &Path) -> u64 {
    // FNV-1a, as what the standard library has may change from one version to the next.
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let files = drop_ins(path, &mut Problems::default());
    let mut hash = BASIS;
    for file in [path.to_path_buf()].into_iter().chain(files) {
        let text = std::fs::read(&file).unwrap_or_default();
        let length = text.len().to_le_bytes();
        for byte in text.iter().chain(&length) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
    hash.max(1)
}

fn load_all(path: &Path, import: Import<'_>) -> Loaded {
    let mut problems = Problems::default();
    let mut layers = Layers::shipped(&mut problems);
    let found = layers.add(path, &mut problems);
    if !found && problems.errors() == 0 && path != Path::new(crate::cli::CONFIG) {
        problems.file(
            Severity::Warning,
            path,
            "there is no such file, so the shipped jails run; write the path of yours".to_owned(),
        );
    }
    for file in drop_ins(path, &mut problems) {
        layers.add(&file, &mut problems);
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut config = layers.check(dir, import, &mut problems);
    config.path = found.then(|| path.to_path_buf());
    Loaded {
        config,
        problems: problems.in_order(),
    }
}

/// The same for the text of one file named `path`, wherever it came from: what `load` does after reading. No jails of
/// fail2ban's folder are added.
#[must_use]
pub fn from_text(path: &Path, text: &str) -> Loaded {
    let mut problems = Problems::default();
    let mut layers = Layers::shipped(&mut problems);
    layers.add_text(path, text.as_bytes(), &mut problems);
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut config = layers.check(dir, Import::No, &mut problems);
    config.path = Some(path.to_path_buf());
    Loaded {
        config,
        problems: problems.in_order(),
    }
}

/// Is that one of the jails that the program brings along?
#[must_use]
pub fn is_shipped(name: &str) -> bool {
    static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let shipped = text::read(
            Path::new(SHIPPED_NAME),
            SHIPPED.as_bytes(),
            &mut Problems::default(),
        );
        let jails = shipped.tree.get("jail").map(|node| &node.value);
        match jails {
            Some(text::Value::Table(jails)) => {
                jails.0.iter().map(|(name, _)| name.clone()).collect()
            }
            _ => Vec::new(),
        }
    });
    names.iter().any(|shipped| shipped == name)
}

/// Reads a duration as the keys are read: `10m`, `1h 30m`, `600`.
///
/// # Errors
/// What is wrong; what to write.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    value::duration_of(text)
}

/// Reads `ban --time` as the key `bantime` is read.
///
/// # Errors
/// What is wrong; what to write.
pub(crate) fn bantime(text: &str) -> Result<crate::decide::BanFor, String> {
    use crate::decide::BanFor;
    if text.trim() == "-1" {
        return Ok(BanFor::Forever);
    }
    BanFor::timed(value::duration_of(text)?)
        .ok_or_else(|| format!("\"{text}\" is no ban; write \"10m\", or -1 for ever"))
}

impl Default for Config {
    /// The shipped file, without the jails of fail2ban's folder: the same on every host. That it has no problem is a test's
    /// business.
    fn default() -> Self {
        let mut problems = Problems::default();
        Layers::shipped(&mut problems).check(Path::new("/"), Import::No, &mut problems)
    }
}

/// Files laid over each other.
struct Layers {
    tree: text::Table,
    /// The lowest of them.
    shipped: text::Table,
    doubtful: Vec<String>,
}

impl Layers {
    fn shipped(problems: &mut Problems) -> Self {
        let read = text::read(Path::new(SHIPPED_NAME), SHIPPED.as_bytes(), problems);
        Self {
            shipped: read.tree.clone(),
            tree: read.tree,
            doubtful: read.doubtful,
        }
    }

    /// Adds one file on top; false: there is none.
    fn add(&mut self, path: &Path, problems: &mut Problems) -> bool {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                problems.file(
                    Severity::Error,
                    path,
                    format!("cannot be read: {error}; nothing of it is used"),
                );
                return true;
            }
        };
        self.add_text(path, &bytes, problems);
        true
    }

    fn add_text(&mut self, path: &Path, bytes: &[u8], problems: &mut Problems) {
        let read = text::read(path, bytes, problems);
        self.doubtful.extend(read.doubtful);
        self.tree
            .lay_over(read.tree, LAYERS_MERGE_DEPTH, "", problems);
    }

    fn check(&self, dir: &Path, import: Import<'_>, problems: &mut Problems) -> Config {
        check::check(
            &self.tree,
            &self.shipped,
            &self.doubtful,
            dir,
            import,
            problems,
        )
    }
}

/// `conf.d/*.toml` beside the file, sorted by name.
fn drop_ins(path: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    let dir = path.with_file_name("conf.d");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => {
            let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
            if !absent.contains(&error.kind()) {
                problems.file(
                    Severity::Error,
                    &dir,
                    format!("cannot be read: {error}; nothing of it is used"),
                );
            }
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| file.extension() == Some(OsStr::new("toml")))
        .collect();
    files.sort();
    files
}

/// Everything the rooms need to know, checked. Made by [`load`] only (and by `Config::default()`: the shipped file).
#[derive(Clone, Debug)]
pub struct Config {
    /// The file this came from; `None`: none there, the shipped defaults run.
    pub path: Option<PathBuf>,
    /// How and where bans are put.
    pub firewall: Firewall,
    /// Networks of proxies: a peer among these is never banned, and its client cannot be held by a packet filter.
    pub proxies: Vec<IpNet>,
    /// What bans by hand stand on, named `manual`: ports, bantime, ignoreip of `[defaults]`. Its rule is not for lines.
    pub manual: Jail,
    /// Jails that run (`enabled = false` and broken ones are not here): first those that judge httpd's lines, in the order
    /// of the file, then those that judge by expressions; at most 65,535.
    pub jails: Vec<Jail>,
    /// The folder of fail2ban's configuration whose jails run, too.
    pub fail2ban: Option<PathBuf>,
    /// Files of it that were read, in their order.
    pub fail2ban_files: Vec<PathBuf>,
    /// Where fail2ban's log is written; `None`: nowhere.
    pub fail2ban_log: Option<PathBuf>,
    /// Where fail2ban's clients are answered, unless [`RuntimePaths::fail2ban_socket`] says no; `None`: nowhere.
    pub fail2ban_socket: Option<PathBuf>,
    /// Jails of it that are enabled and cannot run.
    pub broken: Vec<Broken>,
    /// `[control] group`: its members may use the control socket, too; `None`: root only.
    pub control_group: Option<String>,
    /// Jails that are switched off while the program runs (`f2b-pipe jail NAME off`).
    pub switched_off: Vec<String>,
    /// What is told: everything up to this (`f2b-pipe log-level`).
    pub log_level: log::LevelFilter,
    /// What processes give up once they run.
    pub privileges: Privileges,
}

impl Config {
    /// Whether a problem is one of the fail2ban folder's files.
    #[must_use]
    pub fn is_fail2bans(&self, problem: &Problem) -> bool {
        let dir = self.fail2ban.as_deref();
        dir.is_some_and(|dir| problem.file.starts_with(dir))
            || self.fail2ban_files.contains(&problem.file)
    }

    /// The jails that judge httpd's lines; their numbers begin at 0.
    #[must_use]
    pub fn native(&self) -> &[Jail] {
        let many = self.jails.partition_point(|jail| jail.raw.is_none());
        self.jails.get(..many).unwrap_or_default()
    }
}

/// `[firewall]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// Who carries out bans.
    pub backend: Backend,
    /// What the names of our sets begin with: `f2bp-`.
    pub set_prefix: String,
    /// What happens to a packet from a banned address, where the jail does not say.
    pub blocktype: Blocktype,
    /// Reset the banned client's open connections to the jail's ports (SOCK_DESTROY).
    pub kill_connections: bool,
}

/// `[privileges]`: which rights `run` and `watch` give up, and what they may reach beside what is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// All capabilities that a ban does not need.
    pub capabilities: bool,
    /// More rights by executing something; `landlock` and `seccomp` need it.
    pub no_new_privs: bool,
    /// Folders that are not in use, and executing anything.
    pub landlock: bool,
    /// System calls that are not in use.
    pub seccomp: bool,
    /// More folders to be read, absolute: of logs that are added later.
    pub read: Vec<PathBuf>,
    /// More folders to be written into, absolute.
    pub write: Vec<PathBuf>,
}

/// `firewall.backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Ipset where the host has all that it takes, else nftables; what is in use stays in use.
    Auto,
    /// The kernel's ipset through netlink, rules by iptables.
    Ipset,
    /// A table of our own in nf_tables, sets and rules through netlink.
    Nftables,
    /// Decisions are told, nobody is banned.
    DryRun,
}

/// `blocktype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocktype {
    /// Raw PREROUTING, DROP.
    Drop,
    /// Filter INPUT, REJECT with a reset.
    Reject,
}

/// A jail's name. In our own file it is one that sets can be named after: 1 to 20 bytes of `[A-Za-z0-9_.-]`, beginning
/// with a letter or digit; fail2ban's may be any text, and their sets are named by [`sets_of`].
pub type JailName = String;

/// One `[jail.NAME]`.
#[derive(Clone, Debug)]
pub struct Jail {
    /// Its name.
    pub name: JailName,
    /// What its sets are named after: [`sets_of`] its name.
    pub sets: String,
    /// Its sets begin with few buckets: a configuration may hold a hundred such jails, of which most ban a few.
    pub small_sets: bool,
    /// Where it is written, for people: `conf/f2b-pipe.toml:31`, or `shipped`.
    pub written: String,
    /// What a line must be to count.
    pub rule: Rule,
    /// Ban, or only count and report.
    pub mode: Mode,
    /// It only observes in this process, whose format has not what it leaves clients out by. Its sets and rules are
    /// there all the same: another process may read a format that has.
    pub blind: bool,
    /// It counts nothing at the moment (fail2ban-client's `set JAIL idle on`).
    pub idle: bool,
    /// It matches next to never, so that it has matched nothing is no news.
    pub rare: bool,
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
    /// Ports that are closed to the banned.
    pub ports: Ports,
    /// Of these protocols. None: of TCP, and with [`Ports::All`] everything is closed.
    pub protocols: Vec<Protocol>,
    /// What happens to a packet from a banned address.
    pub blocktype: Blocktype,
    /// Bits by which IPv6 clients are counted and banned, 32 to 128.
    pub ipv6_prefix: u8,
    /// Of a jail that judges lines of any log by expressions; its `rule` has no conditions.
    pub raw: Option<Box<Raw>>,
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// 1 to 256 of them.
    These(Vec<PortRange>),
}

/// Ports that stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// As written: `http`, `8080`, `6000:6010`.
    pub written: String,
    /// The first.
    pub first: u16,
    /// The last, which may be the first; never below it.
    pub last: u16,
}

impl PortRange {
    /// A single port.
    #[must_use]
    pub fn one(written: &str, port: u16) -> Self {
        Self {
            written: written.to_owned(),
            first: port,
            last: port,
        }
    }
}

impl Ports {
    /// Whether `port` is among them.
    #[must_use]
    pub fn closes(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::These(ports) => ports.iter().any(|p| (p.first..=p.last).contains(&port)),
        }
    }

    /// As written; `all` for all of them.
    #[must_use]
    pub fn written(&self) -> Vec<&str> {
        match self {
            Self::All => vec!["all"],
            Self::These(ports) => ports.iter().map(|p| p.written.as_str()).collect(),
        }
    }
}

/// `protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// DCCP.
    Dccp,
    /// UDP-Lite.
    Udplite,
    /// ICMP, of IPv6 that one's. It has no ports: all of it.
    Icmp,
    /// Everything; beside ports, every protocol that has ports.
    All,
}

impl Protocol {
    /// Each of them.
    pub const EACH: [Self; 7] = [
        Self::Tcp,
        Self::Udp,
        Self::Sctp,
        Self::Dccp,
        Self::Udplite,
        Self::Icmp,
        Self::All,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Dccp => "dccp",
            Self::Udplite => "udplite",
            Self::Icmp => "icmp",
            Self::All => "all",
        }
    }
}

impl Jail {
    /// Whether the banned are kept from TCP.
    #[must_use]
    pub fn closes_tcp(&self) -> bool {
        let tcp = |protocol: &Protocol| [Protocol::Tcp, Protocol::All].contains(protocol);
        self.protocols.is_empty() || self.protocols.iter().any(tcp)
    }

    /// Whether a set of this jail would have the name of one of the other's: `web6` is the IPv6 set of `web`, and `web-n`
    /// its set of networks.
    #[must_use]
    pub fn shares_sets(&self, other: &Self) -> bool {
        let endings = ["", "6", "-n", "-n6"];
        let is = |long: &str, short: &str| {
            long.strip_prefix(short)
                .is_some_and(|rest| endings.contains(&rest))
        };
        // `x-n` and `x` share `x-n6` and `x-n`; `x6` and `x-n` share nothing.
        is(&self.sets, &other.sets) || is(&other.sets, &self.sets)
    }
}

/// Longest name that the sets of a jail can have as it is, bytes: with the prefix (8) and the longest ending (`-n6`) the
/// kernel's 31.
const SETS_MAX_BYTES: usize = 20;

/// Whether sets can be named so: 1 to 20 bytes of `[A-Za-z0-9_.-]`, a letter or digit first.
fn names_sets(name: &str) -> bool {
    (1..=SETS_MAX_BYTES).contains(&name.len())
        && name.bytes().all(name_byte)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_.-".contains(&b)
}

/// What the sets of the jail `name` are named after: the name if that can be; else what can stand of its beginning, and
/// a hash of the whole, which is the same in every process and version.
#[must_use]
pub fn sets_of(name: &str) -> String {
    if names_sets(name) {
        return name.to_owned();
    }
    // FNV-1a, 32 bits.
    let number = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let fit = name.bytes().filter(|b| name_byte(*b)).map(char::from);
    let head: String = fit
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(SETS_MAX_BYTES - "-12345678".len())
        .collect();
    let head = if head.is_empty() { "jail" } else { &head };
    format!("{head}-{number:08x}")
}

/// The conditions of a native jail: all of `all` must hold, one of `any` if there is an `any`, and no single one of `not`.
/// A rule with no condition at all fits every line.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Each condition must hold.
    pub all: Conditions,
    /// Not empty: at least one of these must hold (`any = { path = [...], query = [...] }`).
    pub any: Conditions,
    /// Any one that holds is an exception.
    pub not: Conditions,
    /// How many hits a line counts for, 1 to 1000.
    pub weight: Weight,
    /// Count different values of this, not lines.
    pub distinct: Option<Distinct>,
}

impl Rule {
    /// The one field whose different values are counted.
    #[must_use]
    pub fn distinct_field(&self) -> Option<Field> {
        match self.distinct {
            Some(Distinct::Field(field)) => Some(field),
            Some(Distinct::Any) | None => None,
        }
    }
}

/// `distinct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinct {
    /// The value of this field.
    Field(Field),
    /// `"any"`: the first field of [`Rule::any`], in the order of [`Conditions::text`], in which an expression is found,
    /// together with that field's value; so two paths are two, a path and a query are two, and one Referer sent with
    /// many requests is one. Nothing but the field's kind where a condition that is no text made `any` hold.
    Any,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Final status within one of these inclusive ranges (`401`, `"4xx"`, `"500-599"`).
    pub status: Vec<(u16, u16)>,
    /// Bytes sent within one of these inclusive ranges (`0`, `">=1000000"`, `"100-200"`).
    pub bytes: Vec<(u64, u64)>,
    /// Microseconds the request took, within one of these inclusive ranges (`">5s"`, `"<10ms"`).
    pub duration: Vec<(u64, u64)>,
    /// `static = true`: a picture, style sheet, script, font by its ending and method, or a 304.
    pub is_static: Option<bool>,
    /// Regular expressions for bytes without Unicode, each known to compile, at least one of which is found in the decoded
    /// field; fields in the order of the file. Only their text: all of a field are compiled as one.
    pub text: Vec<(Field, Vec<String>)>,
}

impl Conditions {
    /// No condition was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.status.is_empty()
            && self.bytes.is_empty()
            && self.duration.is_empty()
            && self.is_static.is_none()
            && self.text.is_empty()
    }
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

/// Where fail2ban's clients look for its server.
pub const FAIL2BAN_SOCKET: &str = "/run/fail2ban/fail2ban.sock";

/// Where the ledger is, unless the runtime directory is another one, too.
const STATE_DIR: &str = "/var/lib/f2b-pipe";

/// Files in the runtime directory. They carry the configuration's name, so that two configurations on one host do not mix.
#[derive(Clone, Debug)]
pub struct RuntimePaths {
    /// `/run/f2b-pipe/f2b-pipe`, to which endings are added.
    stem: PathBuf,
    /// The same in a folder that outlives a reboot.
    lasting: PathBuf,
}

impl RuntimePaths {
    /// `config` is the file's path, whether it exists or not.
    #[must_use]
    pub fn new(dir: &std::path::Path, config: &std::path::Path) -> Self {
        let name = config.file_stem().unwrap_or("f2b-pipe".as_ref());
        // Whoever works in a folder of his own finds everything there.
        let lasting = if dir == Path::new(crate::cli::RUNTIME_DIR) {
            Path::new(STATE_DIR)
        } else {
            dir
        };
        Self {
            stem: dir.join(name),
            lasting: lasting.join(name),
        }
    }

    /// What is remembered over a reboot: history of bans, places in logs.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.lasting.with_extension("sqlite3")
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

    /// Where fail2ban's clients are answered; `None`: nowhere. Its usual place is the host's, which whoever works in a
    /// folder of his own leaves to the others.
    #[must_use]
    pub fn fail2ban_socket(&self, config: &Config) -> Option<PathBuf> {
        let usual = self.lasting.starts_with(STATE_DIR);
        let socket = config.fail2ban_socket.clone();
        socket.filter(|path| usual || path != Path::new(FAIL2BAN_SOCKET))
    }

    /// The socket of the process that counts bans.
    #[must_use]
    pub fn bans(&self) -> PathBuf {
        self.stem.with_extension("bans")
    }

    /// What was changed while the program ran, as JSON.
    #[must_use]
    pub fn changes(&self) -> PathBuf {
        self.stem.with_extension("changes")
    }

    /// The control socket of the process in charge.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.stem.with_extension("sock")
    }

    /// The socket on which `watch` takes hits of httpd's loggers.
    #[must_use]
    pub fn feed(&self) -> PathBuf {
        self.stem.with_extension("feed")
    }

    /// The key of distinct values.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.stem.with_extension("key")
    }

    /// What is known of sources of lines: how quiet they have been, as JSON.
    #[must_use]
    pub fn pasts(&self) -> PathBuf {
        self.lasting.with_extension("past")
    }

    /// The same as [`state`](Self::state), for while the runtime directory cannot be written to.
    #[must_use]
    pub fn state_else(&self, pid: u32) -> PathBuf {
        self.lasting.with_extension(format!("{pid}.json"))
    }

    /// What the `run` with this process id has counted, as JSON, every few seconds.
    #[must_use]
    pub fn state(&self, pid: u32) -> PathBuf {
        self.stem.with_extension(format!("{pid}.json"))
    }
}

#[cfg(test)]
mod tests;
