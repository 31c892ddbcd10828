//! The server of a [`World`] as a whole host, with real daemons: /run, /var/log and /dev/log are its own.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use nix::sys::signal::Signal;

use super::world::{alive, signal};
use super::{PROGRAM, SERVER, World, must, secs, text_of, wait_until};

/// What sshd asks about passwords: as Debian has it, without the two seconds that a wrong one costs.
const PAM: &str = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n";

/// A mount namespace on the server, and what runs in it.
pub(crate) struct Host<'w> {
    world: &'w World,
    holder: i32,
    children: Mutex<Vec<Child>>,
}

/// What became of an attempt to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// sshd answered, and the password was wrong.
    Denied,
    /// No connection, or one that was cut.
    NoAnswer,
}

impl<'w> Host<'w> {
    /// Puts it up: nothing runs, no log is there.
    pub(crate) fn new(world: &'w World) -> Self {
        let pam = world.write("pam.sshd", PAM);
        let dir = world.dir().display();
        let ready = world.path("host.ready");
        let script = format!(
            "set -e; mount --make-rprivate /
            mkdir {dir}/dev; mount -t tmpfs -o mode=755 tmpfs {dir}/dev
            for n in null zero full random urandom tty; do : > {dir}/dev/$n; mount --bind /dev/$n {dir}/dev/$n; done
            mkdir {dir}/dev/shm; mount -t tmpfs tmpfs {dir}/dev/shm
            ln -s /run/systemd/journal/dev-log {dir}/dev/log
            mount --rbind {dir}/dev /dev
            mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p -m 755 /run/sshd /run/systemd/journal
            mount -t tmpfs -o mode=755 tmpfs /var/log
            mount --bind {} /etc/pam.d/sshd
            : > {}; exec sleep infinity",
            pam.display(),
            ready.display()
        );
        // Not by `ip netns exec`, which takes away the cgroups that journald looks at.
        let net = format!("--net={}", world.server_namespace().display());
        let holder = Command::new("nsenter")
            .args([&net, "unshare", "--mount", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stderr(File::create(world.path("host.err")).expect("host.err"))
            .spawn()
            .expect("sh");
        let pid = i32::try_from(holder.id()).expect("pid");
        let host = Self {
            world,
            holder: pid,
            children: Mutex::new(vec![holder]),
        };
        wait_until("the host's mounts", secs(5), || {
            assert!(alive(pid), "{}", text_of(&world.path("host.err")));
            ready.exists()
        });
        host
    }

    /// A command on it. Its process id is the command's.
    pub(crate) fn on(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.holder.to_string();
        command.args(["-t", &pid, "--mount", "--net", program]);
        command
    }

    /// A file of it, as seen from outside.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root{path}", self.holder)).to_owned()
    }

    /// Starts a daemon that ends with this; its output is in the file `name`.out.
    pub(crate) fn start(&self, name: &str, command: &mut Command) -> i32 {
        let out = File::options()
            .create(true)
            .append(true)
            .open(self.world.path(&format!("{name}.out")))
            .expect("a file");
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("dup"))
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let pid = i32::try_from(child.id()).expect("pid");
        self.children.lock().expect("lock").push(child);
        pid
    }

    /// What a daemon said.
    pub(crate) fn said(&self, name: &str) -> String {
        text_of(&self.world.path(&format!("{name}.out")))
    }

    /// Starts sshd with a key of its own.
    pub(crate) fn sshd(&self) -> i32 {
        let (key, dir) = (self.world.path("hostkey"), self.world.dir().display());
        must(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key),
        );
        let conf = self.world.write(
            "sshd_config",
            format!(
                "Port 22\nListenAddress {SERVER}\nHostKey {}\nPidFile {dir}/sshd.pid\nUsePAM yes\n\
                PasswordAuthentication yes\nKbdInteractiveAuthentication no\nUseDNS no\nMaxStartups 100\n",
                key.display()
            ),
        );
        let pid = self.start(
            "sshd",
            self.on("/usr/sbin/sshd").arg("-D").arg("-f").arg(conf),
        );
        let ask = self.world.write("askpass", "#!/bin/sh\necho wrong\n");
        fs::set_permissions(ask, fs::Permissions::from_mode(0o755)).expect("chmod");
        let world = self.world;
        wait_until("sshd to listen", secs(10), || {
            assert!(alive(pid), "{}", self.said("sshd"));
            std::thread::scope(|scope| {
                let connect = || {
                    world.enter_client();
                    TcpStream::connect_timeout(&(SERVER, 22).into(), secs(1)).is_ok()
                };
                scope.spawn(connect).join().expect("a thread")
            })
        });
        pid
    }

    /// Starts rsyslogd, which writes what sshd says to /var/log/auth.log, in its format of this name: Debian 12 has the
    /// Traditional one, later ones have File.
    pub(crate) fn rsyslogd(&self, format: &str) -> i32 {
        let text = "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
            input(type=\"imuxsock\" Socket=\"/run/systemd/journal/dev-log\")\n\
            module(load=\"builtin:omfile\" Template=\"RSYSLOG_FORMATFormat\")\n\
            auth,authpriv.* /var/log/auth.log\n";
        let conf = self
            .world
            .write("rsyslog.conf", text.replace("FORMAT", format));
        let pid = self.start(
            "rsyslogd",
            self.on("rsyslogd")
                .args(["-n", "-i", "/run/rsyslogd.pid", "-f"])
                .arg(conf),
        );
        self.wait_dev_log();
        pid
    }

    /// Starts a journald. It learns which program speaks from /proc, so it comes before everybody else: on a busy machine
    /// sshd's short-lived processes are gone else before it looks (and their words are nobody's, to fail2ban as to us).
    pub(crate) fn journald(&self) -> i32 {
        let script =
            "j=/usr/lib/systemd/systemd-journald; chrt -f 10 true && exec chrt -f 10 $j; exec $j";
        let mut journald = self.on("sh");
        journald.args(["-c", script]);
        let pid = self.start("journald", &mut journald);
        self.wait_dev_log();
        let journals = self.file("/run/log/journal/*/*.journal");
        let pattern = journals.display().to_string();
        wait_until("a journal", secs(5), || {
            glob::glob(&pattern).expect("a pattern").next().is_some()
        });
        pid
    }

    fn wait_dev_log(&self) {
        let socket = self.file("/run/systemd/journal/dev-log");
        wait_until("/dev/log", secs(5), || socket.exists());
    }

    /// Starts `f2b-pipe watch` and waits until it reads logs.
    pub(crate) fn watch(&self) -> i32 {
        self.watch_with(&[])
    }

    /// The same with variables of the environment.
    pub(crate) fn watch_with(&self, variables: &[(&str, &str)]) -> i32 {
        let before = self.said("watch").matches("watching logs").count();
        let pid = self.start(
            "watch",
            self.on(PROGRAM)
                .arg("watch")
                .args(self.world.place())
                .envs(variables.iter().copied()),
        );
        wait_until("watch to be at work", secs(10), || {
            assert!(alive(pid), "{}", self.said("watch"));
            self.said("watch").matches("watching logs").count() > before
        });
        pid
    }

    /// Runs a command of the program under test to its end: all it said.
    pub(crate) fn ask(&self, args: &[&str]) -> String {
        let (command, rest) = args.split_first().expect("a command");
        let output = self
            .on(PROGRAM)
            .arg(command)
            .args(self.world.place())
            .args(rest)
            .output()
            .expect("the program under test");
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        said
    }

    /// Ends a process that [`start`](Self::start) started, and waits for its end.
    pub(crate) fn end(&self, pid: i32, how: Signal) {
        let mut children = self.children.lock().expect("lock");
        let at = children
            .iter()
            .position(|child| i32::try_from(child.id()) == Ok(pid))
            .expect("started here");
        signal(pid, how);
        children.remove(at).wait().expect("wait");
    }

    /// Tries a wrong password once.
    pub(crate) fn login(&self, from: &str, user: &str) -> Login {
        let output = self
            .world
            .on_client("ssh")
            .args(["-F", "none", "-b", from, "-l", user])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args([
                "-o",
                "PreferredAuthentications=password",
                "-o",
                "NumberOfPasswordPrompts=1",
            ])
            .args([
                "-o",
                "ConnectTimeout=1",
                "-o",
                "LogLevel=ERROR",
                &SERVER.to_string(),
                "true",
            ])
            .env("SSH_ASKPASS", self.world.path("askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::null())
            .output()
            .expect("ssh");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("Permission denied") {
            Login::Denied
        } else {
            Login::NoAnswer
        }
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["watch", "sshd", "rsyslogd", "journald", "fail2ban"] {
                let said = self.said(name);
                if !said.is_empty() {
                    eprintln!("--- {name}\n{said}");
                }
            }
        }
        for mut child in self.children.lock().expect("lock").drain(..).rev() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
