//! The private world of the demo: a file system of its own on /run, a server and a client network namespace, httpd.
//!
//! All of it belongs to the process (and its process namespace), so it ends with it, however it ends.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::watcher::Bans;
use super::{CAST, stand_in};

/// Where the demo's files are: in memory, on a /run that nobody else sees.
pub(super) const DIR: &str = "/run/f2b-pipe-demo";
/// Documentation addresses (RFC 5737, RFC 3849); real ones, since nobody is banned for what comes from loopback.
const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80));
const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80));
/// The recommended LogFormat.
const F2B_FORMAT: &str = r#"f2b:%{usec}t:%{hextid}P %a %{c}a %v %>s %B %D "%u" "%r" "%{Referer}i" "%{User-Agent}i" f2b:%{usec}t:%{hextid}P"#;
/// The port of the jails' `http`.
const PORT: u16 = 80;
/// How long httpd may take to start.
const PATIENCE: Duration = Duration::from_secs(5);

/// Covers /run, where iptables keeps a lock that an ordinary user cannot open, and the syslog socket: the bans of a demo
/// do not belong in the host's log.
pub(super) fn private_files() -> Result<(), String> {
    let none = None::<&str>;
    mount(
        Some("demo"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .map_err(|e| format!("cannot mount a tmpfs on /run: {e}"))?;
    if fs::symlink_metadata("/dev/log").is_ok_and(|log| !log.is_symlink()) {
        mount(Some("/dev/null"), "/dev/log", none, MsFlags::MS_BIND, none)
            .map_err(|e| format!("cannot cover /dev/log: {e}"))?;
    }
    fs::create_dir(DIR).map_err(|e| format!("cannot create {DIR}: {e}"))
}

/// Gives the calling thread (and the threads it will start) a network namespace of its own, and tells its thread id.
pub(super) fn own_network(network: &Sender<i32>) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|e| format!("cannot make a second network namespace: {e}"))?;
    network
        .send(nix::unistd::gettid().as_raw())
        .map_err(|e| e.to_string())
}

/// The client's end of the wire.
pub(super) fn client_side(addresses: &[IpAddr]) -> Result<(), String> {
    ip("link set lo up")?;
    ip("link set wan up")?;
    for address in addresses {
        match address {
            IpAddr::V4(v4) => ip(&format!("addr add {v4}/32 dev wan"))?,
            IpAddr::V6(v6) => ip(&format!("-6 addr add {v6}/128 dev wan nodad"))?,
        }
    }
    ip("route add 192.0.2.0/24 dev wan")?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        ip("-6 route add 2001:db8:80::/64 dev wan")?;
    }
    Ok(())
}

/// The wire to the thread `client`, and the server's end of it. `true`: with IPv6.
fn server_side(client: i32) -> Result<bool, String> {
    ip("link set lo up")?;
    ip(&format!(
        "link add web type veth peer name wan netns {client}"
    ))?;
    ip("link set web up")?;
    ip(&format!("addr add {SERVER_V4}/24 dev web"))?;
    ip("route add 198.51.100.0/24 dev web")?;
    ip("route add 203.0.113.0/24 dev web")?;
    // A host may have been started without IPv6; the demo is none the worse for it.
    Ok(ip(&format!("-6 addr add {SERVER_V6}/64 dev web nodad"))
        .and_then(|()| ip("-6 route add 2001:db8:bad::/64 dev web"))
        .is_ok())
}

/// The address on loopback that plays `shown` in a dry run.
pub(super) fn loopback_for(shown: IpAddr) -> IpAddr {
    let last = match shown {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => v6
            .to_bits()
            .to_be_bytes()
            .last_chunk()
            .copied()
            .unwrap_or_default(),
    };
    let [_, _, c, d] = last;
    IpAddr::V4(Ipv4Addr::new(127, 1, c, d))
}

/// Where the demo is, and how.
pub(super) struct Stage {
    /// All files.
    pub(super) dir: PathBuf,
    /// No namespaces: bans are only told.
    pub(super) dry: bool,
    /// No pauses.
    pub(super) quick: bool,
}

/// A web server that serves.
pub(super) struct House {
    /// For people.
    pub(super) title: String,
    /// How f2b-pipe is started.
    pub(super) directive: String,
    /// Where it listens.
    pub(super) v4: SocketAddr,
    /// Where it listens; `None`: no IPv6 here.
    pub(super) v6: Option<SocketAddr>,
    /// httpd, or f2b-pipe itself where a stand-in serves.
    child: Child,
}

impl House {
    /// Where bans are seen.
    pub(super) fn bans(&mut self) -> Bans {
        self.child.stderr.take().map_or(Bans::Kernel, Bans::Told)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // It may have ended by itself; in the namespaces everything ends with us anyway.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Stage {
    pub(super) fn new(dir: PathBuf, dry: bool, quick: bool) -> Self {
        Self { dir, dry, quick }
    }

    /// The web site and f2b-pipe's configuration: the shipped jails, but one ban is so short that its end is seen.
    pub(super) fn write_files(&self) -> io::Result<()> {
        let file = |name: &str| self.dir.join(name);
        let bantime = if self.quick { 2 } else { 6 };
        symlink(std::env::current_exe()?, file("f2b-pipe"))?;
        fs::create_dir_all(file("www/private"))?;
        fs::write(
            file("f2b-pipe.toml"),
            format!(
                "[fail2ban]\nconfig = \"\"\n[jail.apache-exploit-agent]\nbantime = \"{bantime}s\"\n"
            ),
        )?;
        // A digest of nothing in particular: no password fits.
        fs::write(
            file("passwords"),
            "admin:{SHA}AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        )?;
        fs::write(file("www/article"), "<h1>An article</h1>\n".repeat(50))?;
        fs::write(file("www/style.css"), "h1 { color: teal }\n")?;
        fs::write(file("www/picture.png"), [0x89; 2000])?;
        fs::write(file("www/private/index.html"), "secret\n")
    }

    /// Joins the networks and starts the server. `client` tells the thread in whose network the actors are.
    pub(super) fn open(&self, client: Receiver<i32>) -> Result<House, String> {
        if self.dry {
            return self.stand_in(SocketAddr::from(([127, 0, 0, 1], 0)), None);
        }
        let client = client
            .recv()
            .map_err(|_| "there is no second network namespace")?;
        let v6 = server_side(client)?.then(|| SocketAddr::new(SERVER_V6, PORT));
        let v4 = SocketAddr::new(SERVER_V4, PORT);
        let Some(httpd) = Httpd::find(&std::env::var("PATH").unwrap_or_default()) else {
            return self.stand_in(v4, v6);
        };
        let child = self.start_httpd(&httpd, v6.is_some())?;
        Ok(House {
            title: format!(
                "f2b-pipe behind a real {}, in a private network",
                httpd.version
            ),
            directive: format!("CustomLog \"|{}\" f2b", self.logger().join(" ")),
            v4,
            v6,
            child,
        })
    }

    /// The words that stand in httpd.conf behind the `|`.
    fn logger(&self) -> [String; 7] {
        let file = |name: &str| self.dir.join(name).display().to_string();
        [
            file("f2b-pipe"),
            "run".to_owned(),
            "--format=f2b".to_owned(),
            "--config".to_owned(),
            file("f2b-pipe.toml"),
            "--runtime-dir".to_owned(),
            file("state"),
        ]
    }

    /// f2b-pipe with our own small server before it.
    fn stand_in(&self, v4: SocketAddr, v6: Option<SocketAddr>) -> Result<House, String> {
        let [program, words @ ..] = self.logger();
        let mut command = Command::new(program);
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0); // Ctrl-C is for us
        if self.dry {
            command.arg("--dry-run").stderr(Stdio::piped());
        } else {
            let log = fs::File::create(self.dir.join("error.log")).map_err(|e| e.to_string())?;
            command.stderr(log);
        }
        let mut child = command
            .spawn()
            .map_err(|e| format!("cannot start f2b-pipe: {e}"))?;
        let log = child.stdin.take().ok_or("f2b-pipe has no stdin")?;
        let log = Arc::new(Mutex::new(log));
        let names = CAST.map(|(_, shown, ..)| (loopback_for(shown), shown));
        let names = Arc::<[_]>::from(names.as_slice());
        let listen = |at| {
            stand_in::serve(at, Arc::clone(&log), Arc::clone(&names))
                .map_err(|e| format!("cannot listen on {at}: {e}"))
        };
        let v4 = listen(v4)?;
        let v6 = v6.map(listen).transpose()?;
        let title = if self.dry {
            "f2b-pipe, dry run: a stand-in for httpd, on loopback"
        } else {
            "f2b-pipe behind a stand-in (httpd is not installed), in a private network"
        };
        Ok(House {
            title: title.to_owned(),
            directive: format!("a pipe into {}", self.logger().join(" ")),
            v4,
            v6,
            child,
        })
    }

    /// Starts httpd, and waits until it listens.
    fn start_httpd(&self, httpd: &Httpd, v6: bool) -> Result<Child, String> {
        let (conf, start_log) = (self.dir.join("httpd.conf"), self.dir.join("start.log"));
        let cannot = |what: &Path, e: io::Error| format!("cannot write {}: {e}", what.display());
        fs::write(&conf, httpd.conf(&self.dir, &self.logger(), v6))
            .map_err(|e| cannot(&conf, e))?;
        let start_log = fs::File::create(&start_log).map_err(|e| cannot(&start_log, e))?;
        let mut child = Command::new(&httpd.program)
            .args(["-D", "FOREGROUND", "-d"])
            .arg(&self.dir)
            .arg("-f")
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(start_log)
            .process_group(0) // Ctrl-C is for us
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", httpd.program.display()))?;
        let began = Instant::now();
        while TcpStream::connect(SocketAddr::new(SERVER_V4, PORT)).is_err() {
            let ended = child.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                return Err(format!(
                    "{} does not start:\n{}{}",
                    httpd.program.display(),
                    self.last_lines("start.log"),
                    self.last_lines("error.log")
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(child)
    }

    /// The end of one of the logs, for people.
    pub(super) fn last_lines(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or(&[]);
        last.iter().map(|line| format!("    {line}\n")).collect()
    }
}

fn ip(words: &str) -> Result<(), String> {
    let done = Command::new("ip")
        .args(words.split(' '))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("ip {words}: {e}"))?;
    if done.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&done.stderr);
        Err(format!("ip {words}: {}", said.trim()))
    }
}

/// An installed httpd.
struct Httpd {
    program: PathBuf,
    modules: Option<PathBuf>,
    /// `Apache/2.4.66 (Debian)`.
    version: String,
}

/// The first of `names` in `path`.
pub(super) fn find_program(names: &[&str], path: &str) -> Option<PathBuf> {
    path.split(':')
        .flat_map(|dir| names.iter().map(move |name| Path::new(dir).join(name)))
        .find(|file| {
            nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
        })
}

impl Httpd {
    /// Looks where distributions put it.
    fn find(path: &str) -> Option<Self> {
        let names = [
            "apache2",
            "httpd",
            "httpd2",
            "httpd-prefork",
            "httpd2-prefork",
        ];
        let program = find_program(&names, path)?;
        let said = Command::new(&program)
            .arg("-v")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said
            .lines()
            .find_map(|line| line.strip_prefix("Server version:"))?
            .trim()
            .to_owned();
        let modules = [
            "/usr/lib/apache2/modules",   // Debian
            "/usr/lib64/httpd/modules",   // Fedora, RHEL
            "/usr/lib/httpd/modules",     // Arch
            "/usr/lib/apache2",           // Alpine
            "/usr/lib64/apache2",         // SUSE
            "/usr/lib64/apache2-prefork", // SUSE
            "/usr/local/apache2/modules", // from source
        ];
        let modules = modules
            .iter()
            .map(PathBuf::from)
            .find(|dir| dir.join("mod_authn_file.so").is_file());
        Some(Self {
            program,
            modules,
            version,
        })
    }

    /// What an administrator would write, but for the paths.
    fn conf(&self, dir: &Path, logger: &[String], v6: bool) -> String {
        let dir = dir.display();
        let mut conf = format!(
            "ServerRoot {dir}\nPidFile {dir}/httpd.pid\nMutex pthread\nServerName demo.example\n\
             Listen {SERVER_V4}:{PORT}\n"
        );
        if v6 {
            conf.push_str(&format!("Listen [{SERVER_V6}]:{PORT}\n"));
        }
        // What is not there as a file is built in.
        let module = |name: &str| {
            let file = self.modules.as_ref()?.join(format!("mod_{name}.so"));
            file.is_file()
                .then(|| format!("LoadModule {name}_module {}\n", file.display()))
        };
        let mpm = ["mpm_event", "mpm_worker", "mpm_prefork"];
        conf.extend(mpm.iter().find_map(|name| module(name)));
        for name in [
            "unixd",
            "log_config",
            "authn_core",
            "authn_file",
            "authz_core",
            "authz_user",
            "auth_basic",
        ] {
            conf.extend(module(name));
        }
        let format = F2B_FORMAT.replace('"', "\\\"");
        let logger = logger.join(" ");
        conf.push_str(&format!(
            "DocumentRoot {dir}/www\n\
             <Directory {dir}/www>\n  Require all granted\n</Directory>\n\
             <Location /private>\n  AuthType Basic\n  AuthName private\n  AuthUserFile {dir}/passwords\n  \
             Require valid-user\n</Location>\n\
             MaxKeepAliveRequests 0\nErrorLog {dir}/error.log\n\
             LogFormat \"{format}\" f2b\nCustomLog \"|{logger}\" f2b\n"
        ));
        conf
    }
}
