//! A private network of a server and a host full of clients, and a folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::{PROGRAM, comes_true, must, secs, text_of, wait_until};

/// Where httpd is.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where httpd is, too.
pub(crate) const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// Networks all of whose addresses the clients' host answers for: documentation and benchmark networks, and one whose
/// addresses stay addresses when their first digit is lost or another comes before it.
const CLIENT_NETS: [&str; 4] = [
    "198.51.100.0/24",
    "203.0.113.0/24",
    "198.18.0.0/15",
    "11.22.0.0/16",
];
/// The same for IPv6.
const CLIENT_NET6: &str = "2001:db8:1000::/36";

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// Two network namespaces and a folder, gone when dropped.
pub(crate) struct World {
    server: String,
    client: String,
    dir: PathBuf,
    /// The runtime directory is the usual one, not in the folder.
    usual: AtomicBool,
    /// Shell commands for the end, last first.
    at_end: Mutex<Vec<String>>,
}

impl World {
    /// Puts it up. Needs root.
    pub(crate) fn new() -> Self {
        let id = format!(
            "f2bt-{}-{}",
            std::process::id(),
            WORLDS.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir_all(&dir).expect("a folder for the test");
        // httpd's children read the pages as www-data, and logrotate wants a folder that only root can write to.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
        let world = Self {
            server: format!("{id}-s"),
            client: format!("{id}-c"),
            dir,
            usual: AtomicBool::new(false),
            at_end: Mutex::default(),
        };
        let (s, c) = (&world.server, &world.client);
        // Without duplicate address detection, which takes a second or two and holds back all that comes before its end.
        let mut script = format!(
            "set -e
            ip netns add {s}; ip netns add {c}
            for ns in {s} {c}; do
                ip netns exec $ns sh -c 'cd /proc/sys/net/ipv6; echo 0 > conf/all/accept_dad
                    echo 0 > conf/default/accept_dad; echo 1 > ip_nonlocal_bind'
            done
            ip -n {s} link set lo up; ip -n {c} link set lo up
            ip -n {s} link add eth0 type veth peer name eth0 netns {c}
            ip -n {s} addr add {SERVER}/24 dev eth0; ip -n {c} addr add 192.0.2.2/24 dev eth0
            ip -n {s} addr add {SERVER6}/64 dev eth0 nodad; ip -n {c} addr add 2001:db8:0:1::2/64 dev eth0 nodad
            ip -n {s} link set eth0 up; ip -n {c} link set eth0 up
            ip -n {s} -6 route add {CLIENT_NET6} via 2001:db8:0:1::2
            ip -n {c} -6 route add local {CLIENT_NET6} dev lo\n"
        );
        for net in CLIENT_NETS {
            script.push_str(&format!(
                "ip -n {s} route add {net} via 192.0.2.2; ip -n {c} route add local {net} dev lo\n"
            ));
        }
        must(Command::new("sh").arg("-c").arg(script));
        world
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file in the folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("mkdir");
        fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Writes the configuration of the program under test. This host's fail2ban is none of a test's business unless it
    /// says so.
    pub(crate) fn config(&self, toml: &str) -> &Self {
        let mut toml = toml.to_owned();
        if !toml.contains("[fail2ban]") {
            toml.push_str("\n[fail2ban]\nconfig = \"\"\n");
        }
        self.write("f2b-pipe.toml", toml);
        self
    }

    /// Uses the configuration that is installed, but for this host's fail2ban.
    pub(crate) fn shipped(&self) -> &Self {
        let toml = text_of(&super::shipped_config());
        let without = toml.replacen("config = \"/etc/fail2ban\"", "config = \"\"", 1);
        assert_ne!(toml, without, "the shipped file names fail2ban's folder");
        self.config(&without)
    }

    /// The program under test has its usual folders, which are to be this world's own (a [`Host`](super::Host) with a
    /// /var/lib of its own).
    pub(crate) fn in_the_usual_place(&self) {
        self.usual.store(true, Ordering::Relaxed);
    }

    /// Options that every command of the program under test needs here.
    pub(crate) fn place(&self) -> [String; 4] {
        [
            "--config".into(),
            self.path("f2b-pipe.toml").display().to_string(),
            "--runtime-dir".into(),
            match self.usual.load(Ordering::Relaxed) {
                true => "/run/f2b-pipe".into(),
                false => self.path("run").display().to_string(),
            },
        ]
    }

    /// Starts `f2b-pipe watch` in the server; what it says is appended to the file `out`.
    pub(crate) fn watch(&self, out: &str) -> Child {
        let out = File::options()
            .create(true)
            .append(true)
            .open(self.path(out))
            .expect("a file");
        self.on_server(PROGRAM)
            .arg("watch")
            .args(self.place())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .expect("watch")
    }

    /// A command inside the server.
    pub(crate) fn on_server(&self, program: &str) -> Command {
        in_namespace(&self.server, program)
    }

    /// A command inside the clients' host.
    pub(crate) fn on_client(&self, program: &str) -> Command {
        in_namespace(&self.client, program)
    }

    /// Moves the calling thread, and what it starts, into the clients' host.
    pub(crate) fn enter_client(&self) {
        enter(&self.client);
    }

    /// Moves the calling thread into the server's network.
    pub(crate) fn enter_server(&self) {
        enter(&self.server);
    }

    /// The name of the clients' namespace, for threads that outlive a borrow.
    pub(crate) fn client_namespace(&self) -> String {
        self.client.clone()
    }

    /// The server's namespace as a file.
    pub(crate) fn server_namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.server)
    }

    /// Something the end must undo, as a shell command.
    pub(crate) fn at_end(&self, command: String) {
        self.at_end.lock().expect("lock").push(command);
    }

    /// curl from `from`: the status, or none when it got no answer within two seconds.
    pub(crate) fn curl(&self, from: &str, path: &str) -> Option<u16> {
        self.curl_with(from, path, &[])
    }

    /// curl with options.
    pub(crate) fn curl_with(&self, from: &str, path: &str, options: &[&str]) -> Option<u16> {
        let server = match from.parse::<IpAddr>().expect("an address") {
            IpAddr::V4(_) => SERVER.to_string(),
            IpAddr::V6(_) => format!("[{SERVER6}]"),
        };
        let output = self
            .on_client("curl")
            .args([
                "-s",
                "-g",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--max-time",
                "2",
            ])
            .args(["--interface", from])
            .args(options)
            .arg(format!("http://{server}{path}"))
            .output()
            .expect("curl");
        let status = String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .ok()?;
        (output.status.success() && status != 0).then_some(status)
    }

    /// What the kernel's sets hold: set to entries, each as `ipset -L` writes it. Sets of other programs too.
    pub(crate) fn sets(&self) -> BTreeMap<String, Vec<String>> {
        let output = must(self.on_server("ipset").arg("-L"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let (mut name, mut in_members) = (String::new(), false);
        for line in text.lines() {
            if let Some(found) = line.strip_prefix("Name: ") {
                name = found.to_owned();
                in_members = false;
                sets.entry(name.clone()).or_default();
            } else if line == "Members:" {
                in_members = true;
            } else if in_members && !line.is_empty() {
                sets.entry(name.clone()).or_default().push(line.to_owned());
            }
        }
        sets
    }

    /// Who is in the sets of `jail`, sorted; networks with their length, as `ipset` writes them.
    pub(crate) fn banned(&self, jail: &str) -> Vec<String> {
        let ours = format!("f2bp-{jail}");
        let mut all: Vec<String> = self
            .sets()
            .into_iter()
            .filter(|(name, _)| {
                name.strip_prefix(&ours)
                    .is_some_and(|rest| ["", "6", "-n", "-n6"].contains(&rest))
            })
            .flat_map(|(_, entries)| entries)
            .map(|entry| entry.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        all.sort();
        all
    }

    /// Who is in any set of ours.
    pub(crate) fn banned_anywhere(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .sets()
            .into_iter()
            .filter(|(name, _)| name.starts_with("f2bp-"))
            .flat_map(|(set, entries)| {
                entries
                    .into_iter()
                    .map(move |e| format!("{} ({set})", e.split(' ').next().unwrap_or_default()))
            })
            .collect();
        all.sort();
        all
    }

    /// Waits until the kernel holds `who` in `jail`'s sets, and looks into them: just after a start the first ban may come
    /// before the chain.
    #[track_caller]
    pub(crate) fn wait_banned(&self, jail: &str, who: &str) {
        wait_until(&format!("{who} in the set of {jail}"), secs(5), || {
            self.banned(jail).iter().any(|b| b == who)
        });
        wait_until(&format!("a rule for the set of {jail}"), secs(5), || {
            ["iptables", "ip6tables"].iter().all(|tool| {
                let rules = must(self.on_server(&format!("{tool}-save")).arg("-c"));
                let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
                rules.contains(&format!("--match-set f2bp-{jail}"))
            })
        });
    }

    /// Waits until rules look into the sets: before that, some tenths of a second after the start on a busy machine, the
    /// banned still get through.
    #[track_caller]
    pub(crate) fn wait_chain(&self) {
        wait_until("the chain", secs(10), || {
            let rules = must(self.on_server("iptables").args(["-w", "-t", "raw", "-S"]));
            String::from_utf8_lossy(&rules.stdout).contains("--match-set f2bp-")
        });
    }

    /// Runs the program under test to its end, inside the server.
    pub(crate) fn ask(&self, args: &[&str]) -> std::process::Output {
        let (command, rest) = args.split_first().expect("a command");
        self.on_server(PROGRAM)
            .arg(command)
            .args(self.place())
            .args(rest)
            .output()
            .expect("the program under test")
    }

    /// `status --json`.
    pub(crate) fn status(&self) -> serde_json::Value {
        let output = self.ask(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// Starts `run` on a pipe of `capacity` bytes that the test itself writes to.
    pub(crate) fn pipe(&self, capacity: usize, args: &[&str]) -> Piped {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let capacity = i32::try_from(capacity).expect("small");
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(capacity)).expect("F_SETPIPE_SZ");
        let mut piped = Piped {
            child: None,
            reader,
            writer: Some(File::from(writer)),
            stderr: self.path("stderr"),
        };
        piped.start(self, args);
        piped
    }

    /// Every process inside the server and the clients' host.
    pub(crate) fn processes(&self) -> Vec<i32> {
        [&self.server, &self.client]
            .iter()
            .filter_map(|ns| Command::new("ip").args(["netns", "pids", ns]).output().ok())
            .flat_map(|o| {
                String::from_utf8_lossy(&o.stdout)
                    .lines()
                    .filter_map(|l| l.trim().parse().ok())
                    .collect::<Vec<i32>>()
            })
            .filter(|&pid| u32::try_from(pid) != Ok(std::process::id()))
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["error.log", "stderr"] {
                let text = text_of(&self.path(name));
                let lines: Vec<&str> = text
                    .lines()
                    .filter(|line| !line.contains("info: ban client="))
                    .collect();
                let last = &lines[lines.len().saturating_sub(40)..];
                eprintln!(
                    "--- {name} ({} lines without bans)\n{}",
                    lines.len(),
                    last.join("\n")
                );
            }
        }
        for command in self.at_end.lock().expect("lock").drain(..).rev() {
            match Command::new("sh").arg("-c").arg(&command).output() {
                Ok(output) if output.status.success() => {}
                failed => eprintln!("{command}: {failed:?}"),
            }
        }
        // Only what was started inside these two namespaces can be in there.
        let gone = comes_true(secs(5), || {
            let all = self.processes();
            for &pid in &all {
                signal(pid, Signal::SIGCONT);
                signal(pid, Signal::SIGKILL);
            }
            all.iter().all(|&pid| !alive(pid))
        });
        if !gone {
            eprintln!(
                "processes are left in {}: {:?}",
                self.server,
                self.processes()
            );
        }
        for ns in [&self.server, &self.client] {
            if let Err(e) = Command::new("ip").args(["netns", "del", ns]).status() {
                eprintln!("ip netns del {ns}: {e}");
            }
        }
        if std::env::var_os("F2B_PIPE_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.dir.display());
        } else if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {e}", self.dir.display());
        }
    }
}

/// The program under test on a pipe of the test's own. The test keeps both ends, as httpd's parent does, so that a
/// new process finds what the old one left.
pub(crate) struct Piped {
    child: Option<Child>,
    reader: OwnedFd,
    writer: Option<File>,
    /// Where its words go.
    pub(crate) stderr: PathBuf,
}

impl Piped {
    /// Starts it (again) on the same pipe.
    pub(crate) fn start(&mut self, world: &World, args: &[&str]) {
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&self.stderr)
            .expect("stderr");
        let child = world
            .on_server(PROGRAM)
            .arg("run")
            .args(world.place())
            .args(args)
            .stdin(Stdio::from(self.reader.try_clone().expect("dup")))
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the program under test");
        // `ip netns exec` becomes the program: until then signals would hit ip.
        let pid = child.id();
        wait_until("the program to be executed", secs(5), || {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(PROGRAM))
                || proc_state(i32::try_from(pid).expect("pid")).is_none_or(|s| s == 'Z')
        });
        self.child = Some(child);
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().expect("running").id()).expect("pid")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, which: Signal) {
        kill(Pid::from_raw(self.pid()), which).expect("kill");
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// The end that is written to.
    pub(crate) fn writer(&self) -> &File {
        self.writer.as_ref().expect("open")
    }

    /// Another copy of the end that is written to.
    pub(crate) fn another_writer(&self) -> File {
        self.writer().try_clone().expect("dup")
    }

    /// Writes one line, as httpd does: one write.
    pub(crate) fn line(&self, line: &str) {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        self.writer().write_all(&bytes).expect("the pipe");
    }

    /// End of file, and how it ended; none if it did not within `limit`.
    pub(crate) fn close(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.writer = None;
        let child = self.child.as_mut().expect("running");
        let mut status = None;
        comes_true(limit, || {
            status = child.try_wait().expect("wait");
            status.is_some()
        });
        status
    }

    /// What it said.
    pub(crate) fn said(&self) -> String {
        text_of(&self.stderr)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(i32::try_from(child.id()).expect("pid"), Signal::SIGCONT);
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// A command inside a namespace. `ip netns exec` becomes the command, so its process id is the command's.
fn in_namespace(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

/// Moves the calling thread into a namespace.
pub(super) fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
}

/// Sends a signal to one process; one that is gone already is fine.
pub(crate) fn signal(pid: i32, which: Signal) {
    if let Err(e) = kill(Pid::from_raw(pid), which) {
        assert_eq!(e, nix::errno::Errno::ESRCH, "kill {pid}");
    }
}

/// The letter the kernel shows for a process; none if it is gone.
pub(crate) fn proc_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process runs (one that is dead and only not yet waited for does not).
pub(crate) fn alive(pid: i32) -> bool {
    proc_state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}
