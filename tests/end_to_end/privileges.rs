//! What a process cannot do any more once it runs, asked from inside, and what runs programs in its place.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};

use crate::other_logs::fail2ban_with;
use crate::support::{
    Host, Httpd, Login, Setup, World, alive, comes_true, must, secs, shim, signal, text_of,
    wait_until,
};

/// Bans at the first missing page.
const CONFIG: &str = "[jail.missing]\nstatus = [404]\nmaxretry = 1\nfindtime = \"1m\"\n";
const SCANNER: &str = "203.0.113.66";
/// CAP_DAC_READ_SEARCH, CAP_NET_ADMIN and CAP_NET_RAW: linux/capability.h.
const ALLOWED: u64 = 1 << 2 | 1 << 12 | 1 << 13;

/// What the kernel says of a thread.
fn status_of(task: &Path) -> BTreeMap<String, String> {
    let text = text_of(&task.join("status"));
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn tasks(pid: i32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let tasks = tasks.map(|task| task.expect("a thread").path());
    let found: Vec<_> = tasks
        .map(|task| status_of(&task))
        .filter(|status| !status.is_empty())
        .collect();
    assert!(found.len() > 3, "{found:?}");
    found
}

/// No thread of it has more than it may.
#[track_caller]
fn assert_confined(pid: i32) {
    for task in tasks(pid) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let has = u64::from_str_radix(&task[set], 16).expect("hexadecimal");
            assert_eq!(has & !ALLOWED, 0, "{set} of {}", task["Name"]);
        }
        assert_eq!(task["NoNewPrivs"], "1", "{}", task["Name"]);
        assert_eq!(task["Seccomp"], "2", "{}", task["Name"]);
        assert!(task["Uid"].starts_with("0\t"), "{}", task["Uid"]);
    }
}

pub(crate) fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let tasks = tasks.flatten().flatten();
    tasks
        .flat_map(|task| {
            let children = text_of(&task.path().join("children"));
            let pids = children.split_whitespace();
            pids.map(|pid| pid.parse().expect("a number"))
                .collect::<Vec<i32>>()
        })
        .collect()
}

/// Its helper, of which there is one.
#[track_caller]
fn helper_of(pid: i32) -> i32 {
    let children = children(pid);
    let [helper] = children[..] else {
        panic!("not one child: {children:?}");
    };
    let name = text_of(Path::new(&format!("/proc/{helper}/comm")));
    assert_eq!(name.trim(), "f2b-helper");
    helper
}

/// It holds nothing of its parent's: neither httpd's pipe nor a log. What it opens for its parent it gives away.
#[track_caller]
fn assert_holds_nothing(helper: i32) {
    let mut held = Vec::new();
    let nothing = comes_true(secs(5), || {
        let open = fs::read_dir(format!("/proc/{helper}/fd")).expect("a process");
        let open = open.flatten().filter(|fd| fd.file_name() != "2");
        let targets = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        held = targets
            .map(|target| target.display().to_string())
            .filter(|target| target != "/dev/null")
            .filter(|target| !target.starts_with("socket:") && !target.starts_with("anon_inode:"))
            .collect();
        held.is_empty()
    });
    assert!(nothing, "{held:?}");
}

/// The answers to F2B_PIPE_TEST_REACH.
fn reached(said: &str) -> BTreeMap<String, String> {
    let lines = said.lines().filter_map(|line| {
        let (_, told) = line.split_once("reach ")?;
        let (what, answer) = told.split_once(": ")?;
        Some((what.to_owned(), answer.to_owned()))
    });
    lines.collect()
}

/// The world's own folder holds the log and the configuration, and is open; this one is not.
fn outside_folder(world: &World) -> String {
    let folder = world.dir().display().to_string();
    let folder = folder.replacen("/tmp/", "/var/tmp/outside-", 1);
    fs::create_dir_all(&folder).expect("a folder");
    world.at_end(format!("rm -rf {folder}"));
    folder
}

/// What must fail, each with a file that is there if it needs one, and what must go well.
fn attempts(world: &World, fine: &[String]) -> (String, Vec<String>) {
    let folder = outside_folder(world);
    let outside = format!("{folder}/secret");
    fs::write(&outside, "not yours").expect("a file");
    let bad: Vec<String> = [
        format!("write {outside}"),
        format!("write {folder}/new"),
        format!("remove {outside}"),
        format!("read {outside}"),
        "write /etc/f2b-pipe-was-here".to_owned(),
        "write /etc/passwd".to_owned(),
        "write /run/f2b-pipe-was-here".to_owned(),
        "write /usr/bin/f2b-pipe-was-here".to_owned(),
        "write /root/f2b-pipe-was-here".to_owned(),
        "exec /bin/true".to_owned(),
        format!("exec {}", env!("CARGO_BIN_EXE_f2b-pipe")),
        "setuid".to_owned(),
        "mount".to_owned(),
        "unshare".to_owned(),
        "chroot".to_owned(),
        "signal 1".to_owned(),
    ]
    .to_vec();
    let mut all = bad.clone();
    all.extend(fine.iter().cloned());
    (all.join(","), bad)
}

#[track_caller]
fn assert_reached(said: &str, bad: &[String], fine: &[String]) {
    let answers = reached(said);
    for attempt in bad {
        let answer = answers.get(attempt);
        let refused = answer.is_some_and(|answer| {
            // EPERM, EACCES, and ENOSYS of a call that is not left.
            ["(os error 1)", "(os error 13)", "(os error 38)"]
                .iter()
                .any(|error| answer.ends_with(error))
        });
        assert!(refused, "{attempt}: {answer:?}");
    }
    for attempt in fine {
        assert_eq!(
            answers.get(attempt).map(String::as_str),
            Some("done"),
            "{attempt}"
        );
    }
}

/// He is banned by what `run` counts, and the chain that a helper placed turns him away.
#[track_caller]
fn he_is_banned(world: &World) {
    world.curl(SCANNER, "/missing");
    world.wait_banned("missing", SCANNER);
    world.wait_chain();
    assert_eq!(world.curl(SCANNER, "/page"), None);
    assert_eq!(world.curl("198.51.100.1", "/page"), Some(200));
}

/// What `status` shows of the process.
fn privileges(world: &World, pid: i32) -> serde_json::Value {
    let mut shown = serde_json::Value::Null;
    wait_until("the process in status", secs(5), || {
        let status = world.status();
        let processes = status["processes"].as_array().expect("processes").clone();
        let own = processes.into_iter().find(|own| own["pid"] == pid);
        shown = own.map_or(serde_json::Value::Null, |own| own["privileges"].clone());
        !shown.is_null()
    });
    shown
}

#[test]
#[ignore = "needs root and network namespaces"]
fn run_can_neither_write_outside_its_folders_nor_execute_anything() {
    let world = World::new();
    world.config(CONFIG);
    let fine = [
        format!("write {}", world.path("beside-access.log").display()),
        "read /etc/hosts".to_owned(),
        "read /proc/1/status".to_owned(),
    ];
    let (asked, bad) = attempts(&world, &fine);
    let httpd = Setup::new(&world)
        .env("F2B_PIPE_TEST_REACH", &asked)
        .start();
    he_is_banned(&world);
    let logger = httpd.logger();
    assert_confined(logger);
    let helper = helper_of(logger);
    assert_holds_nothing(helper);
    wait_until("the answers", secs(5), || {
        reached(&httpd.said()).len() == bad.len() + fine.len()
    });
    assert_reached(&httpd.said(), &bad, &fine);
    assert!(!Path::new("/etc/f2b-pipe-was-here").exists());
    let shown = privileges(&world, logger);
    for step in ["capabilities", "no_new_privs", "landlock", "seccomp"] {
        assert_eq!(shown[step], "on", "{shown}");
    }
    assert_eq!(shown["helper"], helper);
    assert_eq!(
        shown["kept"],
        serde_json::json!(["cap_dac_read_search", "cap_net_admin"])
    );
    let text = String::from_utf8(world.ask(&["status"]).stdout).expect("text");
    assert!(
        text.contains("rights: capabilities on (cap_dac_read_search cap_net_admin)"),
        "{text}"
    );
    httpd.assert_tee_is_complete();
    // Nothing stays behind, whether it ends or is killed.
    httpd.stop();
    wait_until("the end of all", secs(5), || {
        !alive(logger) && !alive(helper)
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_killed_process_takes_its_helper_along() {
    let world = World::new();
    world.config(CONFIG);
    let httpd = Setup::new(&world).start();
    he_is_banned(&world);
    let logger = httpd.logger();
    let helper = helper_of(logger);
    signal(logger, Signal::SIGKILL);
    wait_until("its helper's end", secs(5), || !alive(helper));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_helper_that_dies_is_told_of_and_bans_go_on() {
    let world = World::new();
    world.config(CONFIG);
    let httpd = Setup::new(&world).start();
    he_is_banned(&world);
    let logger = httpd.logger();
    signal(helper_of(logger), Signal::SIGKILL);
    wait_until("the news of it", secs(5), || {
        httpd
            .said()
            .contains("the helper process has ended (SIGKILL)")
    });
    world.curl("203.0.113.67", "/missing");
    world.wait_banned("missing", "203.0.113.67");
    assert_eq!(world.curl("203.0.113.67", "/page"), None);
    assert_eq!(httpd.logger(), logger);
    wait_until("status to show it", secs(5), || {
        let text = String::from_utf8(world.ask(&["status"]).stdout).expect("text");
        text.contains("Not well:") && text.contains("the helper process has ended")
    });
    httpd.assert_tee_is_complete();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_helper_that_stands_still_holds_up_no_line_and_no_ban() {
    let world = World::new();
    world.config(CONFIG);
    let httpd = Setup::new(&world).start();
    he_is_banned(&world);
    let helper = helper_of(httpd.logger());
    signal(helper, Signal::SIGSTOP);
    for n in 70..80 {
        let who = format!("203.0.113.{n}");
        world.curl(&who, "/missing");
        world.wait_banned("missing", &who);
    }
    httpd.assert_tee_is_complete();
    signal(helper, Signal::SIGCONT);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn watch_is_confined_too_and_reads_the_journal_through_its_helper() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[DEFAULT]\nbantime = 60\nfindtime = 60\nmaxretry = 1\n[sshd]\nenabled = true\n",
    );
    let host = Host::new(&world);
    host.journald();
    host.sshd();
    let fine = ["read /var/log".to_owned()];
    let (asked, bad) = attempts(&world, &fine);
    let watch = host.watch_with(&[("F2B_PIPE_TEST_REACH", &asked)]);
    assert_confined(watch);
    let helper = helper_of(watch);
    assert_holds_nothing(helper);
    wait_until("the answers", secs(5), || {
        reached(&host.said("watch")).len() == bad.len() + fine.len()
    });
    assert_reached(&host.said("watch"), &bad, &fine);
    // journalctl is the helper's child.
    wait_until("journalctl", secs(5), || {
        children(helper)
            .iter()
            .any(|pid| text_of(Path::new(&format!("/proc/{pid}/comm"))).trim() == "journalctl")
    });
    let journalctl = children(helper)[0];
    assert_eq!(host.login("198.51.100.66", "root"), Login::Denied);
    world.wait_banned("sshd", "198.51.100.66");
    // It is started again when it dies, with what happened meanwhile.
    signal(journalctl, Signal::SIGKILL);
    host.login("198.51.100.67", "root");
    world.wait_banned("sshd", "198.51.100.67");
    assert!(
        host.said("watch")
            .contains("journalctl ended (signal: 9 (SIGKILL))"),
        "{}",
        host.said("watch")
    );
    host.end(watch, Signal::SIGTERM);
    wait_until("the end of all", secs(5), || !alive(helper));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn with_nftables_and_no_journal_there_is_no_helper() {
    let world = World::new();
    world.config(&format!("[firewall]\nbackend = 'nftables'\n{CONFIG}"));
    let httpd = Setup::new(&world).start();
    world.curl(SCANNER, "/missing");
    wait_until("the ban", secs(5), || {
        world.curl(SCANNER, "/page").is_none()
    });
    let logger = httpd.logger();
    assert_confined(logger);
    assert_eq!(children(logger), [0; 0]);
    assert!(privileges(&world, logger)["helper"].is_null());
    httpd.assert_tee_is_complete();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn each_step_can_be_left_out() {
    for (key, step) in [
        ("capabilities", "capabilities"),
        ("landlock", "landlock"),
        ("seccomp", "seccomp"),
    ] {
        let world = World::new();
        world.config(&format!("[privileges]\n{key} = false\n{CONFIG}"));
        let httpd = Setup::new(&world).start();
        he_is_banned(&world);
        let logger = httpd.logger();
        let shown = privileges(&world, logger);
        for one in ["capabilities", "landlock", "seccomp"] {
            let wanted = if one == step { "off" } else { "on" };
            assert_eq!(shown[one], wanted, "{key}: {shown}");
        }
        let task = &tasks(logger)[0];
        let has = u64::from_str_radix(&task["CapEff"], 16).expect("hexadecimal");
        assert_eq!(has & !ALLOWED == 0, key != "capabilities");
        assert_eq!(task["Seccomp"], if key == "seccomp" { "0" } else { "2" });
    }
    let world = World::new();
    let none = "[privileges]\ncapabilities = false\nno_new_privs = false\nlandlock = false\nseccomp = false\n";
    world.config(&format!("{none}{CONFIG}"));
    let httpd = Setup::new(&world).start();
    he_is_banned(&world);
    // It runs iptables by itself.
    assert!(privileges(&world, httpd.logger())["helper"].is_null());
    assert_eq!(tasks(httpd.logger())[0]["NoNewPrivs"], "0");
}

/// Makes landlock's calls (444 to 446) answer: what a kernel without it says, or that the last of them is not allowed.
const LANDLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
long syscall(long n, ...) {
    static long (*real)(long, ...);
    va_list list;
    va_start(list, n);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (FAILS) { errno = ERROR; return -1; }
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real(n, a, b, c, d, e, f);
}
"#;

fn with_landlock<'w>(world: &'w World, fails: &str, error: &str) -> Httpd<'w> {
    world.config(CONFIG);
    let source = LANDLOCK.replace("FAILS", fails).replace("ERROR", error);
    let library = shim(world, "landlock", &source);
    Setup::new(world)
        .env("LD_PRELOAD", &library.display().to_string())
        .start()
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_kernel_without_landlock_does_without_and_status_says_so() {
    let world = World::new();
    let httpd = with_landlock(&world, "n >= 444 && n <= 446", "ENOSYS");
    he_is_banned(&world);
    let shown = privileges(&world, httpd.logger());
    assert!(shown["landlock"]["absent"].is_string(), "{shown}");
    assert_eq!(shown["seccomp"], "on");
    httpd.assert_tee_is_complete();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_step_that_fails_ends_judging_and_not_the_log() {
    let world = World::new();
    let httpd = with_landlock(&world, "n == 446", "EPERM");
    assert_eq!(world.curl(SCANNER, "/missing"), Some(404));
    assert_eq!(world.curl(SCANNER, "/page"), Some(200));
    wait_until("the news of it", secs(5), || {
        let said = httpd.said();
        said.contains("[privileges] landlock: ") && said.contains("landlock = false")
    });
    httpd.assert_tee_is_complete();
    assert_eq!(world.banned_anywhere(), [""; 0]);
}

/// The folder and the log are somebody else's, as in a customer's home; logrotate makes the next log his, too.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_log_in_a_folder_that_is_not_roots_is_written_and_rotated() {
    const OWNER: u32 = 33; // www-data
    let world = World::new();
    world.config(CONFIG);
    let folder = world.path("customer");
    fs::create_dir(&folder).expect("a folder");
    chown(&folder, Some(OWNER), Some(OWNER)).expect("chown");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("chmod");
    let log = folder.join("access.log");
    let httpd = Setup::new(&world).tee(&log).start();
    he_is_banned(&world);
    let logger = httpd.logger();
    assert_confined(logger);
    wait_until("the log", secs(5), || !text_of(&log).is_empty());
    assert_eq!(fs::metadata(&log).expect("the log").uid(), 0, "as before");
    let conf = world.write(
        "logrotate.conf",
        format!(
            "{} {{\n rotate 1\n su www-data www-data\n create 600 www-data www-data\n}}\n",
            log.display()
        ),
    );
    must(
        std::process::Command::new("logrotate")
            .arg("--force")
            .arg("--state")
            .arg(world.path("logrotate.state"))
            .arg(&conf),
    );
    assert_eq!(fs::metadata(&log).expect("the new log").uid(), OWNER);
    let (uid, gid) = (Uid::from_raw(OWNER), Gid::from_raw(OWNER));
    assert_ne!((uid, gid), (Uid::current(), Gid::current()));
    wait_until("lines in the new log", secs(10), || {
        world.curl("198.51.100.1", "/page");
        !text_of(&log).is_empty()
    });
    httpd.stop();
    let mut all = fs::read(folder.join("access.log.1")).expect("the old log");
    all.extend(fs::read(&log).expect("the new log"));
    crate::support::assert_same_lines(&all, &httpd.oracle());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_reload_that_needs_another_folder_says_that_only_a_restart_brings_it() {
    let world = World::new();
    let before = "[fail2ban]\nconfig = ''\n[jail.app]\nfailregex = '^bad <HOST>$'\nlogpath = '/var/log/app.log'\nmaxretry = 1\n";
    world.config(before);
    let host = Host::new(&world);
    fs::write(host.file("/var/log/app.log"), "").expect("a log");
    let watch = host.watch();
    let elsewhere = format!("{}/app.log", outside_folder(&world));
    fs::write(&elsewhere, "").expect("a log");
    world.config(&before.replace("/var/log/app.log", &elsewhere));
    signal(watch, Signal::SIGHUP);
    wait_until("the news of it", secs(10), || {
        host.said("watch").contains("is closed to it (landlock)")
    });
    assert!(alive(watch));
}

/// A user's action and ignorecommand run with all rights, though whoever judges has none of them.
#[test]
#[ignore = "needs root and network namespaces"]
fn actions_and_ignorecommand_run_in_the_helper() {
    let world = World::new();
    let note = world.path("note");
    let action = format!(
        "[Definition]\nactionstart = echo start >> {0}\nactionban = echo ban <ip> $(id -u) $(grep ^CapEff /proc/self/status) >> {0}\n\
         actionunban = echo unban <ip> >> {0}\nactionstop = echo stop >> {0}\n",
        note.display()
    );
    fail2ban_with(
        &world,
        "[app]\nenabled = true\nfilter =\nfailregex = ^bad <HOST>$\nlogpath = /var/log/app.log\nbackend = polling\nmaxretry = 1\n\
         findtime = 60\nbantime = 60\ndatepattern = {NONE}\nusedns = no\naction = note\nignorecommand = test <ip> = 198.51.100.9\n",
    );
    world.write("fail2ban/action.d/note.conf", action);
    let host = Host::new(&world);
    fs::write(host.file("/var/log/app.log"), "").expect("a log");
    let watch = host.watch();
    let add = |line: &str| {
        use std::io::Write;
        let log = fs::File::options()
            .append(true)
            .open(host.file("/var/log/app.log"));
        writeln!(log.expect("the log"), "{line}").expect("a line");
    };
    add("bad 198.51.100.9");
    add("bad 198.51.100.66");
    assert!(
        comes_true(secs(10), || text_of(&note).contains("ban 198.51.100.66 0 ")),
        "{}\n{}",
        text_of(&note),
        host.said("watch")
    );
    assert_confined(watch);
    let text = text_of(&note);
    assert!(!text.contains("198.51.100.9"), "{text}");
    let bits = text.split("CapEff:").nth(1).expect("rights").trim();
    let bits = bits.split_whitespace().next().expect("a number");
    let has = u64::from_str_radix(bits, 16).expect("hexadecimal");
    assert_ne!(has & !ALLOWED, 0, "{text}");
    host.end(watch, Signal::SIGTERM);
    let text = text_of(&note);
    assert!(
        text.starts_with("start\n") && text.contains("unban 198.51.100.66"),
        "{text}"
    );
    assert!(text.ends_with("stop\n"), "{text}");
}

/// Landlock knows folders, not names: a process that runs cannot use the one that is made anew. It goes on with what it has.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_runtime_directory_that_is_removed_costs_no_line_no_ban_and_no_rule() {
    let world = World::new();
    world.config(&format!("[firewall]\nbackend = 'ipset'\n{CONFIG}"));
    let httpd = Setup::new(&world).start();
    he_is_banned(&world);
    let logger = httpd.logger();
    fs::remove_dir_all(world.path("run")).expect("the runtime directory");
    wait_until("the news of it", secs(5), || {
        httpd
            .said()
            .contains("f2b-pipe.lock (needed to place the rules)")
    });
    must(
        world
            .on_server("iptables")
            .args(["-t", "raw", "-D", "PREROUTING", "-j", "f2b-pipe"]),
    );
    world.wait_chain();
    world.curl("203.0.113.67", "/missing");
    world.wait_banned("missing", "203.0.113.67");
    wait_until("the rule", secs(5), || {
        world.curl("203.0.113.67", "/page").is_none()
    });
    assert_eq!(httpd.logger(), logger);
    httpd.assert_tee_is_complete();
}
