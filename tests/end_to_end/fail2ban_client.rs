//! Debian's real fail2ban-client against a real fail2ban-server and then against us, on the same folder: every command must
//! print the same on both, to the byte, and end with the same exit code.
//!
//! What cannot be the same stands in [`DIFFERENT`], each with its reason. Times and process ids in front of what the client
//! logs are taken away, and what fail2ban keeps in a Python set, which has no order, is sorted.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use f2b_pipe::pattern::{Options, Pattern};
use regex::Regex;

use crate::support::{Host, PROGRAM, World, alive, must, secs, wait_until};

/// The folder: `@` is the world's.
const FAIL2BAN_CONF: &str = "[Definition]\nloglevel = INFO\nlogtarget = @/fail2ban.log\nsyslogsocket = auto\n\
    socket = @/f.sock\npidfile = @/f.pid\nallowipv6 = auto\n\
    dbfile = @/run/f2b-pipe.sqlite3\ndbpurgeage = 1d\ndbmaxmatches = 10\n";

const JAIL_CONF: &str = r"[DEFAULT]
backend = polling
maxretry = 5
findtime = 10m
bantime = 10m
ignoreself = false
action = note[name=%(__name__)s]

[door]
enabled = true
filter = door
logpath = @/door.log
ignoreip = 198.51.100.0/24 203.0.113.5

[gate]
enabled = true
filter = gate
logpath = @/gate*.log
maxretry = 2
findtime = 1h
bantime = 1d
usedns = no
bantime.increment = true
bantime.multipliers = 1 2 4
bantime.maxtime = 4w
maxmatches = 7
datepattern = ^%%Y-%%m-%%d %%H:%%M:%%S
";

const DOOR: &str = r"[Definition]
failregex = ^\s*door: refused <HOST>$
            ^\s*door: wrong key <F-USER>\S+</F-USER> from <ADDR>$
ignoreregex = ^\s*door: refused 192\.0\.2\.99$
";

const GATE: &str = "[Definition]\nfailregex = ^\\s*gate: no entry for <ADDR>$\n";

const NOTE: &str = "[Definition]\nactionstart = touch @/<name>.started\nactionstop = rm -f @/<name>.started\nactioncheck =\n\
    actionban = echo ban <ip> >> @/<name>.note\nactionunban = echo unban <ip> >> @/<name>.note\n\
    [Init]\nname = default\ninit = 123\n";

/// A command a line, as a shell would take it apart; what begins with `!` is done by the test.
const COMMANDS: &str = r#"
ping
ping 3
version
echo a b
status
status door
status gate
status door basic
status door short
status door cymru
status door wrong
status door basic more
status nojail
banned
get door maxretry
get gate maxretry
get gate findtime
get door findtime
get gate bantime
get gate bantime.increment
get gate bantime.multipliers
get gate bantime.maxtime
get gate bantime.factor
get door bantime.formula
get door bantime.increment
get gate bantime.nothing
get door ignoreself
get door ignoreip
get gate ignoreip
get door ignorecommand
get door ignorecache
get door logpath
get gate logpath
get door logencoding
get door journalmatch
get door prefregex
get door failregex
get gate failregex
get door ignoreregex
get gate ignoreregex
get door usedns
get gate usedns
get gate datepattern
get door datepattern
get door logtimezone
get door maxmatches
get gate maxmatches
get door maxlines
get door actions
get door action note actionban
get door action note actionstart
get door action note actioncheck
get door action note name
get door action note init
get door action note timeout
get door action note actname
get door action note nope
get door action nope actionban
get door actionproperties note
get door actionmethods note
get door actionproperties nope
get loglevel
get logtarget
get syslogsocket
get dbfile
get dbpurgeage
get dbmaxmatches
get door banip
get door banned
get nojail maxretry
!say door: refused 192.0.2.31
!say door: refused 192.0.2.31
status door
set door banip 192.0.2.3 192.0.2.2
set door banip 192.0.2.3
set door banip
set door banip 2001:db8::0001
set door banip 192.0.2.64/28
status door
banned
banned 192.0.2.3
banned 192.0.2.3 192.0.2.9
get door banned
get door banned 192.0.2.3
get door banned 192.0.2.3 192.0.2.9
set gate banip 198.51.100.1
get gate banip
get gate banip --with-time
get gate banip ,
set door unbanip 192.0.2.3 192.0.2.9
set door unbanip --report-absent 192.0.2.9
set door unbanip --report-absent 192.0.2.9 192.0.2.2
set door unbanip 192.0.2.0/24
set door unbanip
set nojail banip 192.0.2.3
set nojail unbanip 192.0.2.3
set door attempt 192.0.2.11
set door attempt 192.0.2.11 line1 line2
set door attempt
set nojail attempt 192.0.2.11
status door
set door attempt 192.0.2.11 a b
sleep 3
status door
set door addignoreip 192.0.2.48/29 2001:db8:1::/48
set door addignoreip 192.0.2.50
set door addignoreip 192.0.2.50
set door addignoreip localhost
set door delignoreip 192.0.2.48/29
set door delignoreip 192.0.2.3
set door delignoreip
set door delignoreip localhost
set door maxretry 3
get door maxretry
set door maxretry abc
set door maxretry 1.5
set door maxretry
!say door: refused 192.0.2.41
!say door: refused 192.0.2.41
!say door: refused 192.0.2.41
sleep 3
status door
set door findtime 5m
set door findtime abc
set door findtime "10 minuts"
set door findtime ""
set door bantime 1h
set door bantime 1.5h
set door bantime 1y
set door bantime abc
set door bantime 600
set door bantime
set door maxmatches 9
set door maxlines 2
set door maxlines 0
set door maxlines 1
set door usedns yes
set door usedns YES
set door usedns maybe
set door usedns warn
set door datepattern "%Y-%m-%d"
get door datepattern
set door datepattern "{^LN-BEG}EPOCH"
set door datepattern EPOCH
set door datepattern "%Y-%m-%d %H:%M:%S"
set door logencoding latin1
set door logencoding auto
set door logencoding nope
set door ignoreself true
set door ignoreself off
set door ignorecache 'key="<ip>",max-count=7'
get door ignorecache
set door ignorecache ""
set door prefregex "^door<F-CONTENT>.+</F-CONTENT>$"
set door prefregex ""
set door addfailregex "^\s*door: knocked by <ADDR>$"
!say door: knocked by 192.0.2.42
!say door: knocked by 192.0.2.42
status door
set door addfailregex "^no host$"
set door addfailregex ""
set door delfailregex 2
set door delfailregex 9
set door delfailregex x
set door logtimezone UTC+0200
get door logtimezone
set door logtimezone Mars
set door addignoreregex "^door: fine"
set door delignoreregex 1
set door delignoreregex -1
get door ignoreregex
set door addlogpath @/gate1.log
set door addlogpath @/none.log
set door addlogpath @/gate1.log tail more
set door addlogpath @/gate1.log middle
set door dellogpath @/gate1.log
set door dellogpath @/nope.log
set door addjournalmatch _SYSTEMD_UNIT=x.service
set door deljournalmatch _SYSTEMD_UNIT=x.service
set door idle on
set door idle off
set door idle maybe
set door bantime.increment true
set door bantime.factor 2
set door bantime.formula "ban.Time * 2"
set door bantime.multipliers "1 2 3"
set door bantime.multipliers a
set door bantime.maxtime 1w
set door bantime.rndtime 10
set door bantime.factor ""
set door bantime.increment ""
get door bantime.increment
set door wrong 1
set door
set
get
get door
get door wrong
get wrong
set wrong 1
set loglevel DEBUG
get loglevel
set loglevel wrong
set loglevel INFO
set logtarget @/fail2ban.log
set syslogsocket auto
set dbfile @/x.sqlite3
set dbpurgeage 1d
set dbmaxmatches 10
set dbmaxmatches x
flushlogs
set door action nope actionban "echo"
set door action note
set door action note actionban
set door addaction note
set door delaction second
unban 192.0.2.2
unban 192.0.2.77
unban --all
unban
banned
add
add --all
start
start nojail
stop nojail
wrongcommand
sleep 0.1
sleep x
server-status
config-error foo
reload door
get door maxretry
get door findtime
get door failregex
get door action note actionban
reload nojail
reload --if-exists nojail
set door banip 192.0.2.21
reload --unban door
banned
set gate banip 192.0.2.22
reload
banned
reload --all
reload --unban
banned
reload a b
set door banip 192.0.2.23
restart door
get door banned
stop gate
status
"#;

/// Commands whose answers differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "set door banip 203.0.113.5",
        "who is never banned is not banned by hand either, but by f2b-pipe ban --force",
    ),
    (
        "set door addfailregex \"^door ( <HOST>$\"",
        "what is wrong with an expression is told in our words, which say where in what was written",
    ),
    (
        "set logtarget @/other.log",
        "where the log goes is said in f2b-pipe.toml; refused as fail2ban refuses a target that cannot be had",
    ),
    (
        "set dbpurgeage 2d",
        "how long bans are remembered is not changed while f2b-pipe runs, which is said",
    ),
    (
        "set door ignorecommand '/bin/false <ip>'",
        "what is executed stands in the configuration alone, where an unprivileged process cannot change it",
    ),
    (
        "set door action note actionban 'echo other <ip>'",
        "the same",
    ),
    ("set door addaction second", "the same"),
    ("set door delaction note", "the same"),
    (
        "set door action note ban {}",
        "methods of actions are Python's, and there is none here to call",
    ),
    (
        "add newjail polling",
        "a jail without a configuration is never made",
    ),
    (
        "add door",
        "fail2ban 1.0.2 stumbles over its own mistake here (a NameError); ours is the error that it meant",
    ),
    (
        "set door bantime.wrong 1",
        "fail2ban keeps any word behind `bantime.`, though nothing ever looks at it",
    ),
    (
        "set door findtime 1y",
        "seconds are shown without a point where they are whole",
    ),
    (
        "set door maxretry -1",
        "a jail that bans before anything has happened is refused",
    ),
    (
        "stop",
        "a restart by fail2ban-client would end us and start another program; it is told how f2b-pipe is stopped",
    ),
];

/// A world with the folder in it, in which one of the two servers runs at a time.
struct Stage<'w> {
    world: &'w World,
    host: Host<'w>,
}

impl<'w> Stage<'w> {
    fn new(world: &'w World) -> Self {
        let dir = world.dir().display().to_string();
        for (name, text) in [
            ("fail2ban/fail2ban.conf", FAIL2BAN_CONF),
            ("fail2ban/jail.conf", JAIL_CONF),
            ("fail2ban/filter.d/door.conf", DOOR),
            ("fail2ban/filter.d/gate.conf", GATE),
            ("fail2ban/action.d/note.conf", NOTE),
        ] {
            world.write(name, text.replace('@', &dir));
        }
        world.config(&format!(
            "[defaults]\nipv6_prefix = 128\n[fail2ban]\nconfig = '{dir}/fail2ban'\nsocket = '{dir}/f.sock'\nlogfile = '{dir}/fail2ban.log'\n{}",
            no_jails_of_ours()
        ));
        let stage = Self {
            world,
            host: Host::new(world),
        };
        stage.clean();
        stage
    }

    /// As on the first day.
    fn clean(&self) {
        for log in ["door.log", "gate1.log", "gate2.log"] {
            self.world.write(log, "");
        }
        fs::create_dir_all(self.world.path("run")).expect("mkdir");
        fs::remove_file(self.world.path("run/f2b-pipe.sqlite3")).ok();
        fs::remove_file(self.world.path("fail2ban.log")).ok();
    }

    fn fail2ban_server(&self) -> i32 {
        let dir = self.world.path("fail2ban");
        let pid = self.host.start(
            "fail2ban",
            self.host
                .on("fail2ban-server")
                .arg("-c")
                .arg(dir)
                .args(["-f", "start"]),
        );
        wait_until("fail2ban-server", secs(30), || {
            assert!(alive(pid), "{}", self.host.said("fail2ban"));
            self.host.said("fail2ban").contains("Server ready")
        });
        pid
    }

    /// Us, once the socket answers.
    fn watch(&self) -> i32 {
        let pid = self.host.watch();
        wait_until("our socket", secs(20), || {
            assert!(alive(pid), "{}", self.host.said("watch"));
            self.client("ping").status.success()
        });
        pid
    }

    fn client(&self, words: &str) -> Output {
        let dir = self.world.dir().display().to_string();
        let line = format!(
            "exec fail2ban-client -c {dir}/fail2ban {}",
            words.replace('@', &dir)
        );
        self.host.on("sh").args(["-c", &line]).output().expect("sh")
    }

    /// Writes a line to door's log, and waits until it has counted.
    fn say(&self, text: &str) {
        let count = || self.shown("status door", "").said;
        let before = count();
        let line = format!(
            "{} {text}\n",
            chrono::Local::now().format("%Y-%m-%d %H:%M:%S")
        );
        let mut file = fs::File::options()
            .append(true)
            .open(self.world.path("door.log"))
            .expect("door.log");
        std::io::Write::write_all(&mut file, line.as_bytes()).expect("door.log");
        wait_until(text, secs(20), || count() != before);
    }

    /// What the client says to a command, without what cannot be compared.
    fn shown(&self, words: &str, host_tag: &str) -> Shown {
        let output = self.client(words);
        let dir = self.world.dir().display().to_string();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&dir, "@");
        let mut said = text(&output.stdout);
        for (names, tag) in [(true, "<HOST>"), (false, "<ADDR>")] {
            let expanded = match host_tag {
                "" => Pattern::new(
                    tag,
                    Options {
                        names,
                        ..Options::default()
                    },
                )
                .expect("a tag")
                .expanded(),
                theirs => theirs
                    .lines()
                    .nth(usize::from(!names))
                    .expect("two lines")
                    .to_owned(),
            };
            said = said.replace(&expanded, tag);
        }
        let time = Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").expect("a regex");
        let head = Regex::new(r"(?m)^TIME,\d+ (\S+ +)\[\d+\]").expect("a regex");
        let complained = time.replace_all(&text(&output.stderr), "TIME").into_owned();
        Shown {
            said: sorted(&time.replace_all(&said, "TIME")),
            complained: head.replace_all(&complained, "$1[PID]").into_owned(),
            code: output.status.code(),
        }
    }

    /// All of the script, one after another.
    fn all(&self, commands: &[&str], host_tag: &str) -> Vec<Shown> {
        let mut all = Vec::new();
        for command in commands {
            match command.strip_prefix("!say ") {
                Some(text) => self.say(text),
                None => all.push(self.shown(command, host_tag)),
            }
        }
        all
    }
}

/// What the client printed, and how it ended.
#[derive(Debug, PartialEq)]
struct Shown {
    said: String,
    complained: String,
    code: Option<i32>,
}

/// fail2ban keeps single addresses that it ignores in a set.
fn sorted(said: &str) -> String {
    let Some(list) = said.strip_prefix("These IP addresses/networks are ignored:\n") else {
        return said.to_owned();
    };
    let item = |line: &str| line.get(3..).unwrap_or_default().to_owned();
    let mut items: Vec<String> = list.lines().map(item).collect();
    items.sort();
    format!("ignored: {}\n", items.join(" "))
}

/// Only what stands in the folder runs, as beside a fail2ban-server.
fn no_jails_of_ours() -> String {
    let shipped = f2b_pipe::config::Config::default();
    let off = shipped
        .native()
        .iter()
        .map(|jail| format!("[jail.{}]\nenabled = false\n", jail.name));
    off.collect()
}

fn commands() -> Vec<&'static str> {
    COMMANDS.lines().filter(|line| !line.is_empty()).collect()
}

/// How fail2ban itself writes out `<HOST>` and `<ADDR>`: we do in other words that mean the same (tests/python_regex.rs).
fn their_tags() -> String {
    let script = "import sys; sys.path.insert(0, '/usr/lib/python3/dist-packages')\n\
        from fail2ban.server.failregex import Regex\n\
        for tag in '<HOST>', '<ADDR>': print(Regex._resolveHostTag(tag))";
    let output = must(Command::new("/usr/bin/python3").args(["-c", script]));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
#[ignore = "needs root, network namespaces and Debian's fail2ban package"]
fn fail2ban_client_cannot_tell_us_from_its_own_server() {
    let commands = commands();
    let asked = commands
        .iter()
        .filter(|line| !line.starts_with('!'))
        .count();
    assert!(asked >= 60, "{asked} commands");
    let last: Vec<&str> = DIFFERENT.iter().map(|(command, _)| *command).collect();
    let world = World::new();
    let stage = Stage::new(&world);
    let tags = their_tags();

    let server = stage.fail2ban_server();
    let theirs = stage.all(&commands, &tags);
    let their_last = stage.all(&last, &tags);
    // The last of them was `stop`.
    wait_until("fail2ban-server to end", secs(20), || {
        !world.path("f.sock").exists()
    });
    stage.host.end(server, Signal::SIGKILL);
    stage.clean();

    let watch = stage.watch();
    let ours = stage.all(&commands, "");
    let our_last = stage.all(&last, "");
    let mut wrong = String::new();
    let asked = commands.iter().filter(|line| !line.starts_with('!'));
    for ((command, theirs), ours) in asked.zip(&theirs).zip(&ours) {
        if theirs != ours {
            wrong.push_str(&format!(
                "{command}\n  theirs: {theirs:?}\n  ours:   {ours:?}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    for (((command, reason), theirs), ours) in DIFFERENT.iter().zip(&their_last).zip(&our_last) {
        assert_ne!(
            theirs, ours,
            "{command} is no exception any more ({reason})"
        );
    }
    assert!(alive(watch));
}

/// As the Prometheus exporter in Go speaks: pickles of protocol 2, answers indexed by position and by type.
const EXPORTER: &str = r#"
import pickle, socket, sys
END = b"<F2B_END_COMMAND>"
class Strict(pickle.Unpickler):
    def find_class(self, module, name): raise Exception("an answer that is not data")
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1])
def ask(*words):
    s.sendall(pickle.dumps(list(words), 2) + END)
    got = b""
    while not got.endswith(END): got += s.recv(7) or sys.exit("closed")
    import io
    code, value = Strict(io.BytesIO(got)).load()
    assert code == 0, words
    return value
assert ask("ping") == "pong"
status = ask("status")
assert type(status) is list and all(type(pair) is tuple for pair in status)
assert status[0][1] == 2 and status[1][1].split(", ") == ["door", "gate"], status
for jail in status[1][1].split(", "):
    of = ask("status", jail)
    assert type(of) is list and type(of[0]) is tuple and type(of[0][1]) is list and type(of[0][1][0]) is tuple
    numbers = [of[group][1][at][1] for group in (0, 1) for at in (0, 1)]
    assert all(type(n) is int for n in numbers)
    assert of[0][0] == "Filter" and of[1][0] == "Actions" and of[1][1][2][0] == "Banned IP list"
    print(jail, numbers, of[1][1][2][1], ask("get", jail, "bantime"), ask("get", jail, "findtime"), ask("get", jail, "maxretry"))
"#;

#[test]
#[ignore = "needs root, network namespaces and Debian's fail2ban package"]
fn an_exporter_that_indexes_answers_by_position_reads_them() {
    let world = World::new();
    let stage = Stage::new(&world);
    stage.watch();
    stage.say("door: refused 192.0.2.31");
    assert!(stage.client("set door banip 192.0.2.7").status.success());
    let output = must(
        stage
            .host
            .on("/usr/bin/python3")
            .args(["-c", EXPORTER])
            .arg(world.path("f.sock")),
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "door [1, 1, 1, 1] ['192.0.2.7'] 600 600 5\ngate [0, 0, 0, 0] [] 86400 3600 2\n"
    );
}

#[test]
#[ignore = "needs root, network namespaces and Debian's fail2ban package"]
fn the_socket_is_fail2bans_while_its_server_runs_and_ours_after_it() {
    let world = World::new();
    let stage = Stage::new(&world);
    let path = world.path("f.sock");
    let server = stage.fail2ban_server();
    let theirs = fs::metadata(&path).expect("a socket").ino();
    stage.host.start(
        "watch",
        stage.host.on(PROGRAM).arg("watch").args(world.place()),
    );
    wait_until("watch to stand back", secs(20), || {
        stage.host.said("watch").contains("stand back")
    });
    assert_eq!(fs::metadata(&path).expect("a socket").ino(), theirs);
    // It leaves its file behind.
    stage.host.end(server, Signal::SIGKILL);
    wait_until("our socket", secs(20), || {
        stage.client("ping").status.success()
    });
    let ours = fs::metadata(&path).expect("a socket");
    assert_ne!(ours.ino(), theirs);
    assert_eq!(ours.mode() & 0o777, 0o600);
    // Nobody else may ask, even who can reach the file.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    let ask = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{}'); print(len(s.recv(1)))",
        path.display()
    );
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let nobody = [
        "--reuid=65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        &ask,
    ];
    let output = must(stage.host.on("setpriv").args(nobody));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "0\n",
        "closed at once"
    );
}

#[test]
#[ignore = "needs root, network namespaces and Debian's fail2ban package"]
fn jails_of_httpds_lines_are_there_too_and_silent_clients_hold_nobody_up() {
    let world = World::new();
    let stage = Stage::new(&world);
    let dir = world.dir().display();
    world.config(&format!(
        "[fail2ban]\nconfig = '{dir}/fail2ban'\nsocket = '{dir}/f.sock'\n"
    ));
    stage.watch();
    let says = |words: &str| {
        let output = stage.client(words);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let silent = |name: &str| {
        let path = world.path(name);
        wait_until(name, secs(10), || path.exists());
        (0..200)
            .map(|_| UnixStream::connect(&path).unwrap_or_else(|e| panic!("{name}: {e}")))
            .collect::<Vec<_>>()
    };
    let _silent = [silent("f.sock"), silent("run/f2b-pipe.sock")];
    let status = says("status");
    assert!(
        status.contains("apache-auth, ") && status.contains("door"),
        "{status}"
    );
    assert_eq!(
        says("get apache-auth failregex"),
        "No regular expression is defined\n"
    );
    assert_eq!(
        says("get apache-auth logpath"),
        "No file is currently monitored\n"
    );
    assert_eq!(says("set apache-auth maxretry 7"), "7\n");
    assert_eq!(says("get apache-auth maxretry"), "7\n");
    assert_eq!(says("set apache-auth banip 198.51.100.66"), "1\n");
    assert_eq!(world.banned("apache-auth"), ["198.51.100.66"]);
    assert!(says("status apache-auth").contains("Banned IP list:\t198.51.100.66\n"));
    assert_eq!(says("set apache-auth unbanip 198.51.100.66"), "1\n");
    assert_eq!(world.banned("apache-auth"), [""; 0]);
    assert_eq!(says("reload"), "OK\n");
    assert_eq!(says("get apache-auth maxretry"), "10\n");
    for _ in 0..5 {
        stage.say("door: refused 192.0.2.77");
    }
    wait_until("the ban", secs(10), || {
        says("banned 192.0.2.77") == "[['door']]\n"
    });
    // A configuration that is bad is refused, and the old one goes on.
    world.config(&format!(
        "[fail2ban]\nconfig = '{dir}/fail2ban'\nsocket = '{dir}/f.sock'\n[jail.apache-auth]\nmaxretry = 'many'\n"
    ));
    let refused = stage.client("reload");
    assert_eq!(refused.status.code(), Some(255));
    let said = String::from_utf8_lossy(&refused.stdout);
    assert!(said.contains("jail.apache-auth.maxretry"), "{said}");
    assert_eq!(says("get apache-auth maxretry"), "10\n");
    assert_eq!(says("banned 192.0.2.77"), "[['door']]\n");
}
