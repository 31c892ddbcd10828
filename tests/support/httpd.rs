//! A real httpd, started as an administrator starts it, with a folder and a configuration of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::world::{alive, signal};
use super::{Host, PROGRAM, World, comes_true, must, secs, text_of, wait_until};

/// The format that cannot be forged, as an administrator writes it in httpd.conf.
const FORMAT_F2B: &str = r#"f2b:%{usec}t:%{hextid}P %a %{c}a %v %>s %B %D \"%u\" \"%r\" \"%{Referer}i\" \"%{User-Agent}i\" f2b:%{usec}t:%{hextid}P"#;

/// Where Debian keeps httpd's modules.
const MODULES: &str = "/usr/lib/apache2/modules";

/// Which processing model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mpm {
    /// Threads; the default.
    Event,
    /// One process a connection.
    Prefork,
}

/// How httpd is to be set up and started.
pub(crate) struct Setup<'w> {
    world: &'w World,
    host: Option<&'w Host<'w>>,
    logger: bool,
    mpm: Mpm,
    format: &'static str,
    options: Vec<String>,
    conf: String,
    before: String,
    words: Vec<String>,
    env: Vec<(String, String)>,
}

impl<'w> Setup<'w> {
    /// The event model, the f2b format, a tee to `access.log`, beside it the plain `oracle.log`.
    pub(crate) fn new(world: &'w World) -> Self {
        Self {
            world,
            host: None,
            logger: true,
            mpm: Mpm::Event,
            format: "f2b",
            options: vec![
                "--tee".into(),
                world.path("access.log").display().to_string(),
            ],
            conf: String::new(),
            before: String::new(),
            words: Vec::new(),
            env: Vec::new(),
        }
    }

    /// With the folders of `host`.
    pub(crate) fn on(mut self, host: &'w Host<'w>) -> Self {
        self.host = Some(host);
        self
    }

    /// Without the logger; `conf` says who logs what.
    pub(crate) fn without_logger(mut self) -> Self {
        self.logger = false;
        self
    }

    /// Another processing model.
    pub(crate) fn mpm(mut self, mpm: Mpm) -> Self {
        self.mpm = mpm;
        self
    }

    /// `combined` instead of `f2b`.
    pub(crate) fn format(mut self, nickname: &'static str) -> Self {
        self.format = nickname;
        self
    }

    /// Another file for the tee.
    pub(crate) fn tee(mut self, path: &Path) -> Self {
        self.options = vec!["--tee".into(), path.display().to_string()];
        self
    }

    /// Another option of `run`.
    pub(crate) fn option(mut self, word: &str) -> Self {
        self.options.push(word.into());
        self
    }

    /// More lines of httpd.conf.
    pub(crate) fn conf(mut self, lines: &str) -> Self {
        self.conf.push_str(lines);
        self.conf.push('\n');
        self
    }

    /// Shell commands that run before httpd in a mount namespace that it and its loggers share with nobody.
    pub(crate) fn before(mut self, script: &str) -> Self {
        self.before.push_str(script);
        self.before.push('\n');
        self
    }

    /// Words before httpd's command, `setpriv ...`.
    pub(crate) fn through(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|&w| w.to_owned()));
        self
    }

    /// An environment variable of httpd and its loggers.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it and waits until it accepts connections.
    #[track_caller]
    pub(crate) fn start(self) -> Httpd<'w> {
        let host = self.host;
        self.start_in(host)
    }

    /// The same with the folders of `host`, which may end before this.
    #[track_caller]
    pub(crate) fn start_on(self, host: &Host<'_>) -> Httpd<'w> {
        self.start_in(Some(host))
    }

    #[track_caller]
    fn start_in(self, host: Option<&Host<'_>>) -> Httpd<'w> {
        let world = self.world;
        pages(world);
        let conf = world.write("httpd.conf", self.httpd_conf());
        let output = fs::File::create(world.path("start.out")).expect("start.out");
        let script = format!(
            "set -e\nmount --make-rprivate /\n{}\nexec \"$@\"",
            self.before
        );
        let mut start = match host {
            Some(host) => host.on("sh"),
            None => world.on_server("sh"),
        };
        start
            .args(["-c", &script, "httpd"])
            .args(&self.words)
            .args(apache2(world.dir(), &conf, "start"))
            .envs(self.env.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output);
        let status = start.status().expect("sh");
        assert!(
            status.success(),
            "httpd does not start: {}{}",
            text_of(&world.path("start.out")),
            text_of(&world.path("error.log"))
        );
        let pid_file = world.path("httpd.pid");
        wait_until("httpd's pid file", secs(5), || {
            !text_of(&pid_file).is_empty()
        });
        let httpd = Httpd {
            world,
            conf,
            pid: text_of(&pid_file).trim().parse().expect("a process id"),
        };
        // A connection without a request leaves no line in the log.
        wait_until("httpd to listen", secs(10), || {
            super::Connection::open(world, "192.0.2.2").is_ok()
        });
        httpd
    }

    fn httpd_conf(&self) -> String {
        let dir = self.world.dir().display();
        let model = match self.mpm {
            Mpm::Event => format!(
                "LoadModule mpm_event_module {MODULES}/mod_mpm_event.so
                StartServers 1\nThreadsPerChild 64\nMaxRequestWorkers 192\nServerLimit 8"
            ),
            Mpm::Prefork => format!(
                "LoadModule mpm_prefork_module {MODULES}/mod_mpm_prefork.so
                StartServers 8\nMinSpareServers 4\nMaxRequestWorkers 32"
            ),
        };
        let modules: String = [
            "authz_core",
            "authz_host",
            "authz_user",
            "authn_core",
            "authn_file",
            "auth_basic",
            "alias",
            "mime",
            "dir",
            "remoteip",
            "reqtimeout",
            "status",
            "setenvif",
            "http2",
        ]
        .iter()
        .filter(|&&m| m != "http2" || self.mpm == Mpm::Event)
        .map(|m| format!("LoadModule {m}_module {MODULES}/mod_{m}.so\n"))
        .collect();
        let mut logger = vec![PROGRAM.to_owned(), "run".into()];
        logger.extend(self.world.place());
        logger.extend(["--format".into(), self.format.into()]);
        logger.extend(self.options.iter().cloned());
        let logger: Vec<String> = logger.iter().map(|word| format!("'{word}'")).collect();
        let logger = logger.join(" ");
        let format = self.format;
        let logger = match self.logger {
            true => format!("CustomLog \"|{logger}\" {format}"),
            false => String::new(),
        };
        format!(
            r#"ServerRoot {dir}
DefaultRuntimeDir {dir}
PidFile {dir}/httpd.pid
Mutex pthread
ServerName www.example.org
Listen 0.0.0.0:80
Listen [::]:80
AcceptFilter http none
{model}
{modules}
User www-data
Group www-data
TypesConfig /etc/mime.types
DocumentRoot {dir}/pages
<Directory {dir}/pages>
    Require all granted
</Directory>
<Directory {dir}/pages/private>
    AuthType Basic
    AuthName private
    AuthUserFile {dir}/passwords
    Require valid-user
</Directory>
<Location /server-status>
    SetHandler server-status
</Location>
Timeout 20
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 30
LogLevel info
ErrorLog {dir}/error.log
LogFormat "%h %l %u %t \"%r\" %>s %O \"%{{Referer}}i\" \"%{{User-Agent}}i\"" combined
LogFormat "{FORMAT_F2B}" f2b
CustomLog {dir}/oracle.log {format}
{logger}
{}
"#,
            self.conf
        )
    }
}

/// What httpd serves: a page, one behind a password (reader, secret), a style sheet, a thousand pictures that are one.
fn pages(world: &World) {
    world.write("pages/page", "A page that costs something.\n");
    world.write("pages/private/page", "For readers.\n");
    world.write("pages/style.css", "body { color: black }\n");
    world.write("pages/picture.png", b"\x89PNG\r\n\x1a\n");
    world.write("passwords", "reader:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
}

fn apache2(root: &Path, conf: &Path, command: &str) -> Vec<String> {
    ["apache2", "-d"]
        .iter()
        .map(|&w| w.to_owned())
        .chain([
            root.display().to_string(),
            "-f".into(),
            conf.display().to_string(),
            "-k".into(),
            command.to_owned(),
        ])
        .collect()
}

/// A running httpd, stopped when dropped.
pub(crate) struct Httpd<'w> {
    world: &'w World,
    conf: PathBuf,
    pid: i32,
}

impl Httpd<'_> {
    /// The parent process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The words of `apache2 -k COMMAND`, to be run on the server.
    pub(crate) fn words(&self, command: &str) -> Vec<String> {
        apache2(self.world.dir(), &self.conf, command)
    }

    /// `apache2 -k graceful`, `restart`, `stop`.
    pub(crate) fn control(&self, command: &str) {
        let words = self.words(command);
        must(self.world.on_server(&words[0]).args(&words[1..]));
    }

    /// The loggers that are alive, oldest first.
    pub(crate) fn loggers(&self) -> Vec<i32> {
        let mut found: Vec<i32> = children(self.pid)
            .into_iter()
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(PROGRAM))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// The one logger.
    #[track_caller]
    pub(crate) fn logger(&self) -> i32 {
        let mut found = Vec::new();
        let one = comes_true(secs(5), || {
            found = self.loggers();
            found.len() == 1
        });
        assert!(one, "not one logger: {found:?}");
        found[0]
    }

    /// What the loggers, and httpd itself, said.
    pub(crate) fn error_log(&self) -> String {
        text_of(&self.world.path("error.log"))
    }

    /// Only what the program under test said.
    pub(crate) fn said(&self) -> String {
        self.error_log()
            .lines()
            .filter(|line| line.starts_with("f2b-pipe: "))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// The plain log of httpd itself.
    pub(crate) fn oracle(&self) -> Vec<u8> {
        super::bytes_of(&self.world.path("oracle.log"))
    }

    /// The tee.
    pub(crate) fn tee(&self) -> Vec<u8> {
        super::bytes_of(&self.world.path("access.log"))
    }

    /// Waits until the tee is as long as the oracle, and compares the two. The order may differ, where several threads
    /// log at a time.
    #[track_caller]
    pub(crate) fn assert_tee_is_complete(&self) {
        // The last lines are written after their answers.
        let mut lengths = (0, 0);
        comes_true(secs(10), || {
            std::thread::sleep(Duration::from_millis(100));
            let before = lengths;
            lengths = (self.tee().len(), self.oracle().len());
            lengths == before && lengths.0 == lengths.1
        });
        super::assert_same_lines(&self.tee(), &self.oracle());
    }

    /// Stops it as an administrator does, and waits for its end.
    pub(crate) fn stop(&self) {
        self.control("stop");
        wait_until("httpd's end", secs(20), || !alive(self.pid));
    }
}

impl Drop for Httpd<'_> {
    fn drop(&mut self) {
        // A logger that is held up would hold up its workers.
        for pid in self.loggers() {
            signal(pid, Signal::SIGCONT);
        }
        signal(self.pid, Signal::SIGTERM);
        if !comes_true(secs(5), || !alive(self.pid)) {
            signal(self.pid, Signal::SIGKILL);
        }
    }
}

/// The children of a process.
fn children(parent: i32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    fs::read_to_string(path)
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Compiles a small C library and returns its path: for what only the system below the program can be made to do.
pub(crate) fn shim(world: &World, name: &str, source: &str) -> PathBuf {
    let c = world.write(&format!("{name}.c"), source);
    let so = world.path(&format!("{name}.so"));
    must(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&so)
            .arg(&c)
            .arg("-ldl"),
    );
    so
}
