//! What httpd's own configuration says about logs: for `check`, which advises. The running program never reads it.
//!
//! In: the main configuration file. Out: [`Httpd`], with a [`Place`] for everything an administrator may have to change.

mod command;
mod sample;
mod syntax;
mod tree;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use command::{Command, Ours};
pub use sample::{CLIENT, sample};
use tree::{Directive, Walk};

/// Where distributions keep the main file.
const MAIN_FILES: [&str; 4] = [
    "/etc/apache2/apache2.conf",          // Debian
    "/etc/httpd/conf/httpd.conf",         // Red Hat, Arch
    "/etc/apache2/httpd.conf",            // SUSE, Alpine
    "/usr/local/apache2/conf/httpd.conf", // built from source, Docker's image
];

/// mod_log_config's DEFAULT_LOG_FORMAT.
const DEFAULT_FORMAT: &str = r#"%h %l %u %t "%r" %>s %b"#;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What could not be looked into.
#[derive(Debug)]
pub enum Unread {
    /// An Include that leads to a file which cannot be read.
    File(Place, PathBuf, io::Error),
    /// `Use NAME`: a macro's lines are unknown here.
    Macro(Place, String),
}

/// The main server or a `<VirtualHost>`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it begins.
    pub place: Place,
    /// Its ServerName, else the address it is written with.
    pub name: String,
}

/// Which directive writes a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CustomLog, and TransferLog: of one server, or inherited by those that have none of their own.
    Custom,
    /// GlobalLog: the lines of all servers.
    Global,
    /// ErrorLog.
    Error,
}

/// Where a log goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// A file.
    File(PathBuf),
    /// A program.
    Piped(Command),
    /// `syslog:...` or another provider.
    Other(String),
}

/// One log directive.
#[derive(Clone, Debug)]
pub struct Log {
    /// Where it stands.
    pub place: Place,
    /// Which one.
    pub kind: Kind,
    /// Index into [`Httpd::servers`].
    pub server: usize,
    /// Where it goes.
    pub target: Target,
    /// The format's text, a nickname resolved; empty for an error log.
    pub format: String,
    /// `env=...` or `expr=...`: only some lines.
    pub only_if: Option<String>,
}

/// What is on or off for the whole server, and where that is said.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// `BufferedLogs On`: lines come late.
    pub buffered_logs: Option<Place>,
    /// `HostnameLookups On` or `Double`: names instead of addresses in `%h`.
    pub hostname_lookups: Option<Place>,
    /// `IdentityCheck On`: the client's own identd writes `%l`.
    pub identity_check: Option<Place>,
    /// `RemoteIPHeader`: `%a` and `%h` are what a proxy says.
    pub remoteip: Option<Place>,
    /// `UseCanonicalName On` or `DNS`: otherwise clients choose `%V`.
    pub canonical_name: Option<Place>,
    /// `LimitRequestFieldSize` or `LimitRequestLine`, the larger one: bytes of one header.
    pub longest_field: Option<(Place, u32)>,
}

impl Log {
    /// Is it piped to f2b-pipe, be it with flags that make sense or not?
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(&self.target, Target::Piped(command) if command.ours().is_some())
    }
}

impl Switches {
    /// What is on for any one server is on here: a log may get that server's lines.
    fn take(&mut self, name: &str, value: &str, place: Place) {
        let on = !value.eq_ignore_ascii_case("off");
        match name {
            "limitrequestfieldsize" | "limitrequestline" => {
                let bytes = value.parse().unwrap_or(0);
                if self
                    .longest_field
                    .as_ref()
                    .is_none_or(|(_, longest)| *longest < bytes)
                {
                    self.longest_field = Some((place, bytes));
                }
            }
            "bufferedlogs" if on => self.buffered_logs = Some(place),
            "hostnamelookups" if on => self.hostname_lookups = Some(place),
            "identitycheck" if on => self.identity_check = Some(place),
            "usecanonicalname" if on => self.canonical_name = Some(place),
            "remoteipheader" => self.remoteip = Some(place),
            _ => {}
        }
    }
}

/// httpd's configuration, as far as logs are concerned.
#[derive(Debug)]
pub struct Httpd {
    /// The main file.
    pub main: PathBuf,
    /// The main server, then each `<VirtualHost>`.
    pub servers: Vec<Server>,
    /// Every log directive, in httpd's order.
    pub logs: Vec<Log>,
    /// Ports httpd listens on.
    pub listen: Vec<(Place, u16)>,
    /// See [`Switches`].
    pub switches: Switches,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

/// The main file of the installed httpd.
#[must_use]
pub fn find() -> Option<PathBuf> {
    MAIN_FILES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// Reads httpd's configuration from its main file.
///
/// # Errors
/// The main file cannot be read. What it includes and cannot be read is in [`Httpd::unread`].
pub fn read(main: &Path) -> io::Result<Httpd> {
    let main = std::path::absolute(main)?;
    let parent = main.parent().unwrap_or(Path::new("/"));
    let conf_dir = parent.file_name().is_some_and(|name| name == "conf");
    let root = if conf_dir { parent.parent() } else { None }.unwrap_or(parent);
    let mut walk = Walk::new(
        root.to_owned(),
        Server {
            place: Place {
                file: main.clone(),
                line: 1,
            },
            name: "the main server".into(),
        },
    );
    // What its start script sets: Debian's beside the main file, Red Hat's in sysconfig.
    let mut environment = vec![parent.join("envvars")];
    if main.starts_with("/etc/httpd") {
        environment.push("/etc/sysconfig/httpd".into());
    }
    for file in environment {
        if let Ok(text) = fs::read_to_string(file) {
            walk.variables.add_shell_file(&text);
        }
    }
    walk.file(&main, 0)?;
    Ok(Httpd::new(main, walk))
}

impl Httpd {
    fn new(main: PathBuf, walk: Walk) -> Self {
        let Walk {
            root,
            servers,
            directives,
            unread,
            ..
        } = walk;
        let formats = Formats::new(&directives);
        let mut httpd = Self {
            main,
            servers,
            logs: Vec::new(),
            listen: Vec::new(),
            switches: Switches::default(),
            unread,
        };
        for directive in directives {
            httpd.take(directive, &formats, &root);
        }
        httpd
    }

    fn take(&mut self, directive: Directive, formats: &Formats, root: &Path) {
        let Directive {
            place,
            server,
            name,
            args,
        } = directive;
        let arg = |n: usize| args.get(n).map_or("", String::as_str);
        let (kind, format) = match name.as_str() {
            "customlog" => (Kind::Custom, formats.named(server, arg(1))),
            "globallog" => (Kind::Global, formats.named(0, arg(1))),
            "transferlog" => (Kind::Custom, formats.default(server)),
            "errorlog" => (Kind::Error, String::new()),
            "listen" => {
                let port = arg(0).rsplit(':').next().and_then(|port| port.parse().ok());
                self.listen.extend(port.map(|port| (place, port)));
                return;
            }
            _ => return self.switches.take(&name, arg(0), place),
        };
        let target = match arg(0).strip_prefix('|') {
            Some(command) => Target::Piped(Command::new(command)),
            None if kind == Kind::Error && arg(0).contains(':') => Target::Other(arg(0).to_owned()),
            None => Target::File(root.join(arg(0))),
        };
        let only_if = args.get(2).cloned();
        self.logs.push(Log {
            place,
            kind,
            server,
            target,
            format,
            only_if,
        });
    }

    /// The access logs that get this server's lines: every GlobalLog, and its own, or the main server's if it has none.
    #[must_use]
    pub fn access_logs(&self, server: usize) -> Vec<&Log> {
        let custom = |of: usize| {
            self.logs
                .iter()
                .filter(move |l| l.kind == Kind::Custom && l.server == of)
        };
        let own = if custom(server).next().is_some() {
            server
        } else {
            0
        };
        let global = self.logs.iter().filter(|log| log.kind == Kind::Global);
        global.chain(custom(own)).collect()
    }
}

/// LogFormat lines.
#[derive(Debug)]
struct Formats {
    /// (server, nickname); the nickname "" is the format of TransferLog.
    known: HashMap<(usize, String), String>,
}

impl Formats {
    fn new(directives: &[Directive]) -> Self {
        let known = directives
            .iter()
            .filter(|d| d.name == "logformat")
            .filter_map(|d| {
                let nickname = d.args.get(1).cloned().unwrap_or_default();
                Some(((d.server, nickname), d.args.first()?.clone()))
            })
            .collect();
        Self { known }
    }

    fn find(&self, server: usize, nickname: &str) -> Option<&String> {
        let of = |server| self.known.get(&(server, nickname.to_owned()));
        of(server).or_else(|| of(0))
    }

    /// A nickname's text; what is no nickname is the format itself.
    fn named(&self, server: usize, name: &str) -> String {
        self.find(server, name)
            .cloned()
            .unwrap_or_else(|| name.to_owned())
    }

    fn default(&self, server: usize) -> String {
        self.find(server, "").map_or_else(
            || DEFAULT_FORMAT.to_owned(),
            |name| self.named(server, name),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of its own; removed when dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("f2b-pipe-httpd-{}-{name}", std::process::id()));
            for (file, text) in files {
                let path = root.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn read(&self, main: &str) -> Httpd {
            read(&self.0.join(main)).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn text(log: &Log) -> String {
        match &log.target {
            Target::File(path) => path.display().to_string(),
            Target::Piped(command) => format!("|{}", command.words.join(" ")),
            Target::Other(other) => other.clone(),
        }
    }

    #[test]
    fn debians_tree_is_read_to_the_end() {
        let tree = Tree::new(
            "debian",
            &[
                ("envvars", "export APACHE_LOG_DIR=/var/log/apache2$SUFFIX\n"),
                (
                    "apache2.conf",
                    "IncludeOptional mods-enabled/*.load\nInclude ports.conf\nErrorLog ${APACHE_LOG_DIR}/error.log\n\
                     LogFormat \"%h \\\"%r\\\" %>s\" combined\nIncludeOptional conf-enabled/*.conf\n\
                     IncludeOptional sites-enabled/*.conf\nInclude gone.conf\n",
                ),
                (
                    "mods-enabled/ssl.load",
                    "LoadModule ssl_module x/mod_ssl.so\n",
                ),
                (
                    "ports.conf",
                    "Listen 80\n<IfModule ssl_module>\nListen [::]:443 https\n</IfModule>\n<IfModule mod_gnutls.c>\nListen 444\n</IfModule>\n",
                ),
                (
                    "conf-enabled/a.conf",
                    "GlobalLog \"|/usr/bin/f2b-pipe --format f2b\" combined env=!dontlog\n",
                ),
                ("conf-enabled/a.conf.bak", "HostnameLookups On\n"),
                (
                    "sites-enabled/000.conf",
                    "<VirtualHost *:80>\n ServerName a.example\n CustomLog ${APACHE_LOG_DIR}/a.log combined\n</VirtualHost>\n\
                     <VirtualHost *:80>\n</VirtualHost>\nCustomLog logs/main.log \"%a\"\n",
                ),
            ],
        );
        let httpd = tree.read("apache2.conf");
        let ports: Vec<u16> = httpd.listen.iter().map(|(_, port)| *port).collect();
        assert_eq!(ports, [80, 443]);
        assert_eq!(httpd.servers.len(), 3);
        assert_eq!(httpd.servers[1].name, "a.example");
        assert!(httpd.switches.hostname_lookups.is_none());
        let of = |server| {
            httpd
                .access_logs(server)
                .into_iter()
                .map(text)
                .collect::<Vec<_>>()
        };
        let global = "|/usr/bin/f2b-pipe --format f2b".to_owned();
        assert_eq!(of(1), [global.clone(), "/var/log/apache2/a.log".to_owned()]);
        assert_eq!(
            of(2),
            [global, tree.0.join("logs/main.log").display().to_string()]
        );
        let log = httpd.access_logs(1)[0];
        assert_eq!(log.format, "%h \"%r\" %>s");
        assert_eq!(log.only_if.as_deref(), Some("env=!dontlog"));
        assert_eq!(
            log.place.to_string(),
            format!("{}:1", tree.0.join("conf-enabled/a.conf").display())
        );
        assert!(matches!(&httpd.unread[..], [Unread::File(place, _, _)] if place.line == 7));
    }

    #[test]
    fn red_hats_root_is_above_conf() {
        let tree = Tree::new(
            "redhat",
            &[
                (
                    "conf/httpd.conf",
                    "LogFormat \"%a\" mine\nLogFormat mine\nTransferLog logs/t\nIncludeOptional conf.d/*.conf\nDefine DIR /x\nUse Vhost a\n",
                ),
                (
                    "conf.d/b.conf",
                    "<VirtualHost *:80>\nLogFormat \"%h\" mine\nCustomLog ${DIR}/b mine\nErrorLog syslog:local7\n</VirtualHost>\nBufferedLogs on\n",
                ),
            ],
        );
        let httpd = tree.read("conf/httpd.conf");
        assert_eq!(
            text(&httpd.logs[0]),
            tree.0.join("logs/t").display().to_string()
        );
        assert_eq!(httpd.logs[0].format, "%a");
        assert_eq!(httpd.logs[1].format, "%h");
        assert!(text(&httpd.logs[1]).ends_with("/${DIR}/b"), "defined later");
        assert_eq!(text(&httpd.logs[2]), "syslog:local7");
        assert!(httpd.switches.buffered_logs.is_some());
        assert!(matches!(&httpd.unread[..], [Unread::Macro(..)]));
    }
}
