//! What would show in nothing but silence is told: once in syslog, once in httpd's error log, in `status` with what to
//! do for as long as it lasts, and once when it is over. All on the real parts, each within a minute.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::actions::note;
use crate::bans::private_dev_log;
use crate::feed::{line, logger};
use crate::other_logs::{fail2ban_with, guessed};
use crate::support::{
    Connection, Host, Httpd, PROGRAM, Request, Setup, World, bytes_of, must, secs, signal, text_of,
    wait_until,
};

const ATTACKER: &str = "203.0.113.66";
const READER: &str = "198.51.100.7";
/// "Within a minute."
const MINUTE: std::time::Duration = secs(60);
/// Bans at the first missing page.
const MISSING: &str = "[jail.missing]\nstatus = [404]\nmaxretry = 1\nfindtime = \"1m\"\n";

/// Why he comes whose ban is in the set.
const CHAIN_GONE: [&str; 2] = [
    "bans of jail missing: 203.0.113.66 is banned and still comes",
    "chain f2b-pipe (table raw)",
];

/// Whoever listens to syslog, and looks at the rest.
struct Ears<'w> {
    world: &'w World,
    syslog: UnixDatagram,
    heard: Mutex<Vec<String>>,
}

impl<'w> Ears<'w> {
    /// To be there before httpd, which is to be started with [`private_dev_log`].
    fn open(world: &'w World) -> Self {
        let syslog = UnixDatagram::bind(world.path("devlog")).expect("a socket");
        syslog.set_nonblocking(true).expect("a socket");
        Self {
            world,
            syslog,
            heard: Mutex::new(Vec::new()),
        }
    }

    /// What syslog was told with each of `words`.
    fn heard(&self, words: &[&str]) -> usize {
        let mut heard = self.heard.lock().expect("lock");
        let mut buffer = [0; 4096];
        while let Ok(n) = self.syslog.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
        heard.iter().filter(|line| has(line, words)).count()
    }

    /// What the error log was told.
    fn said(&self, words: &[&str]) -> usize {
        let log = text_of(&self.world.path("error.log"));
        log.lines().filter(|line| has(line, words)).count()
    }

    /// The first lines of `status` for people.
    fn shown(&self) -> String {
        let output = self.world.ask(&["status"]).stdout;
        let text = String::from_utf8_lossy(&output).into_owned();
        let end = text.find("Status\n").unwrap_or(text.len());
        text[..end].to_owned()
    }

    /// It is told within a minute, in every place, once.
    #[track_caller]
    fn told(&self, words: &[&str]) {
        wait_until(&format!("{words:?} in the error log"), MINUTE, || {
            self.said(words) > 0
        });
        wait_until(&format!("{words:?} in syslog"), secs(5), || {
            self.heard(words) > 0
        });
        wait_until(&format!("{words:?} in status"), secs(5), || {
            let shown = self.shown();
            shown.starts_with("Not well:\n! ") && shown.lines().any(|line| has(line, words))
        });
        assert_eq!((self.said(words), self.heard(words)), (1, 1), "{words:?}");
    }

    /// It is told to be over, and `status` is silent about it.
    #[track_caller]
    fn over(&self, words: &[&str], trouble: &[&str]) {
        wait_until(&format!("{words:?} in the error log"), MINUTE, || {
            self.said(words) > 0
        });
        wait_until(&format!("{words:?} in syslog"), secs(5), || {
            self.heard(words) > 0
        });
        wait_until("status without it", secs(5), || {
            !self.shown().lines().any(|line| has(line, trouble))
        });
        assert_eq!(self.said(trouble), 1, "{trouble:?}");
    }
}

fn has(line: &str, words: &[&str]) -> bool {
    words.iter().all(|word| line.contains(word))
}

fn start<'w>(world: &'w World, conf: &str) -> Httpd<'w> {
    Setup::new(world)
        .before(&private_dev_log(world))
        .conf(conf)
        .start()
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_filter_that_fits_no_line_of_its_log() {
    let world = World::new();
    let log = world.write("app.log", "");
    world.config(&format!(
        "[jail.app]\nfilter = 'app'\nlogpath = ['{}']\nmaxretry = 100000\n",
        log.display()
    ));
    world.write(
        "filter.d/app.conf",
        "[Definition]\nfailregex = ^ login of \\S+ from <HOST> refused$\n",
    );
    let ears = Ears::open(&world);
    let httpd = start(&world, "");
    wait_until("the log to be read", secs(10), || {
        httpd.said().contains("watching logs")
    });
    let mut file = File::options().append(true).open(&log).expect("the log");
    let line = |text: &str| format!("{} {text}\n", chrono::Local::now().format("%F %T"));
    // What has no address (cron, say) proves nothing.
    let idle = line("a job was done at 08:00:00").repeat(6_000);
    file.write_all(idle.as_bytes()).expect("the log");
    let lines = line("Login refused: someone@192.0.2.7 (port 4711)").repeat(4_990);
    file.write_all(lines.as_bytes()).expect("the log");
    let tally = || {
        let status = world.status();
        status["processes"][0]["jails"]["app"]["lines"].as_u64()
    };
    wait_until("these lines to be judged", secs(30), || {
        tally() == Some(10_990)
    });
    assert!(ears.shown().starts_with("All is well."), "{}", ears.shown());
    file.write_all(&lines.as_bytes()[..lines.len() / 4990 * 20])
        .expect("the log");
    let words = [
        "jail app: its filter fits none of 50",
        &format!("f2b-pipe test {} app", log.display()),
    ];
    ears.told(&words);
    file.write_all(line("login of joe from 192.0.2.7 refused").as_bytes())
        .expect("the log");
    ears.over(&["jail app: well again"], &words);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_jail_of_ones_own_that_matches_none_of_a_hundred_thousand_lines() {
    let world = World::new();
    world.config(
        "[jail.wp]\npath = '^wp-login'\n[jail.bait]\npath = '^never$'\nrare = true\n[firewall]\nbackend = 'dry-run'\n",
    );
    fs::create_dir(world.path("run")).expect("mkdir");
    let mut piped = world.pipe(1 << 20, &["--format", "common", "--single-writer"]);
    let line =
        "198.51.100.7 - - [02/Mar/2026:08:00:00 +0000] \"GET /wp-login.php HTTP/1.1\" 200 5\n";
    piped.line(line.trim_end());
    // What was counted before the first look is of no use.
    wait_until("the first look", secs(10), || {
        let status = world.status();
        status["processes"][0]["lines"] == 1
    });
    std::thread::sleep(secs(6));
    let mut writer = piped.another_writer();
    writer
        .write_all(line.repeat(100_001).as_bytes())
        .expect("the pipe");
    let words = ["jail wp: it has matched none of 10000", "f2b-pipe explain"];
    let said = || {
        let said = piped.said();
        said.lines().filter(|line| has(line, &words)).count()
    };
    wait_until("a word about it", MINUTE, || said() > 0);
    assert_eq!(said(), 1);
    // Neither of the bait, which is meant to be rare, nor of the shipped jails.
    assert_eq!(piped.said().matches("it has matched none").count(), 1);
    wait_until("the same in status", secs(5), || {
        let status = world.status();
        let all = status["troubles"].as_array().expect("troubles").iter();
        all.filter_map(|trouble| trouble.as_str())
            .any(|trouble| has(trouble, &words))
    });
    drop(writer);
    piped.close(secs(5));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_format_that_fits_no_line() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let place = world.place().map(|word| format!("'{word}'")).join(" ");
    let logger = format!("CustomLog \"|'{PROGRAM}' run {place} --format combined\" f2b");
    let httpd = Setup::new(&world)
        .before(&private_dev_log(&world))
        .without_logger()
        .conf(&logger)
        .start();
    for n in 0..25 {
        world.curl(READER, &format!("/page?{n}"));
    }
    ears.told(&["--format: none of", "at column", "f2b-pipe check"]);
    // With what the line is, a graceful restart later all is well.
    let conf = world.path("httpd.conf");
    let right = text_of(&conf).replace("--format combined", "--format f2b");
    fs::write(&conf, right).expect("httpd.conf");
    httpd.control("graceful");
    wait_until("a logger that knows", secs(20), || {
        world.curl(READER, "/page");
        ears.shown().starts_with("All is well.")
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn httpd_s_lines_stop_though_there_was_one_each_second_for_nine_days() {
    let world = World::new();
    world.config(MISSING);
    // What an earlier life has learnt; and the ten minutes below which nothing is told are five seconds here.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    let (now, days) = (now.as_secs(), 9);
    let past = |longest: u64| {
        let first = now - days * 86_400;
        let gaps: Vec<[u64; 2]> = (1..=days)
            .map(|n| [now / 86_400 - days + n, longest])
            .collect();
        format!(
            r#"{{"first":{first},"last":{now},"looked":{now},"lines":700000,"days":{}}}"#,
            serde_json::to_string(&gaps).expect("json")
        )
    };
    let source = format!(
        "httpd's lines (--tee {})",
        world.path("access.log").display()
    );
    let pasts = format!(
        "{{{}:{}}}",
        serde_json::to_string(&source).expect("json"),
        past(1)
    );
    world.write("run/f2b-pipe.past", pasts);
    let ears = Ears::open(&world);
    let _httpd = Setup::new(&world)
        .before(&private_dev_log(&world))
        .env("F2B_PIPE_TEST_QUIET_SECS", "5")
        .start();
    assert_eq!(world.curl(READER, "/page"), Some(200));
    let words = [
        source.as_str(),
        "no line for",
        "the longest pause was",
        "curl -I",
    ];
    ears.told(&words);
    assert_eq!(world.curl(READER, "/page"), Some(200));
    ears.over(&[&source, "well again"], &words);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_log_goes_quiet_and_one_with_quiet_nights_does_not() {
    let world = World::new();
    let (busy, calm) = (world.write("busy.log", ""), world.write("calm.log", ""));
    world.write(
        "filter.d/app.conf",
        "[Definition]\nfailregex = ^ bad <HOST>$\n",
    );
    let jail = |name: &str, log: &std::path::Path| {
        format!(
            "[jail.{name}]\nfilter = 'app'\nlogpath = ['{}']\n",
            log.display()
        )
    };
    world.config(&(jail("busy", &busy) + &jail("calm", &calm)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    let now = now.as_secs();
    let past = |longest: u64| {
        let (first, today) = (now - 9 * 86_400, now / 86_400);
        format!(
            r#"{{"first":{first},"last":{now},"looked":{now},"lines":700000,"days":[[{},{longest}],[{today},2]]}}"#,
            today - 1
        )
    };
    let pasts = format!(
        r#"{{"jail busy":{},"jail calm":{}}}"#,
        past(1),
        past(7 * 3600)
    );
    world.write("run/f2b-pipe.past", pasts);
    let ears = Ears::open(&world);
    let httpd = Setup::new(&world)
        .before(&private_dev_log(&world))
        .env("F2B_PIPE_TEST_QUIET_SECS", "5")
        .start();
    wait_until("the logs to be read", secs(10), || {
        httpd.said().contains("watching logs")
    });
    let write = |log: &std::path::Path| {
        let line = format!("{} all is fine\n", chrono::Local::now().format("%F %T"));
        let mut file = File::options().append(true).open(log).expect("the log");
        file.write_all(line.as_bytes()).expect("the log");
    };
    write(&busy);
    write(&calm);
    let words = [
        "logs of jail busy: no line for",
        &*busy.display().to_string(),
    ];
    ears.told(&words);
    write(&busy);
    ears.over(&["logs of jail busy: well again"], &words);
    assert_eq!(ears.said(&["jail calm"]), 0);
}

/// `watch` is in charge, and httpd's lines come to another process.
#[test]
#[ignore = "needs root and network namespaces"]
fn watch_tells_of_httpd_s_lines_and_status_of_a_process_that_is_stopped() {
    let world = World::new();
    world.write("app.log", "");
    world.write(
        "filter.d/app.conf",
        "[Definition]\nfailregex = ^ bad <HOST>$\n",
    );
    let log = world.path("app.log").display().to_string();
    world.config(&format!(
        "[jail.app]\nfilter = 'app'\nlogpath = ['{log}']\n{MISSING}"
    ));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    let (now, tee) = (
        now.as_secs(),
        world.path("access.log").display().to_string(),
    );
    let (first, today) = (now - 9 * 86_400, now / 86_400);
    world.write(
        "run/f2b-pipe.past",
        format!(
            r#"{{"httpd's lines (--tee {tee})":{{"first":{first},"last":{now},"looked":{now},"lines":700000,"days":[[{today},1]]}}}}"#
        ),
    );
    let host = Host::new(&world);
    let watch = host.watch_with(&[("F2B_PIPE_TEST_QUIET_SECS", "5")]);
    let httpd = Setup::new(&world).start();
    assert_eq!(world.curl(READER, "/page"), Some(200));
    wait_until("a word about it", MINUTE, || {
        host.said("watch").contains("httpd's lines (--tee ")
    });
    assert!(!httpd.said().contains("no line for"), "{}", httpd.said());
    let shown = || host.ask(&["status"]);
    assert!(shown().contains("no line for"), "{}", shown());
    signal(httpd.logger(), Signal::SIGSTOP);
    let still = format!("process {}: is stopped", httpd.logger());
    wait_until("status to see it", secs(5), || shown().contains(&still));
    signal(httpd.logger(), Signal::SIGCONT);
    assert_eq!(world.curl(READER, "/page"), Some(200));
    wait_until("its end", MINUTE, || {
        host.said("watch").contains("well again") && shown().starts_with("All is well.")
    });
    host.end(watch, Signal::SIGTERM);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_tee_that_lags_behind_a_disk_that_hangs() {
    let world = World::new();
    world.config(MISSING);
    let (at, image) = (world.path("disk"), world.path("image"));
    fs::create_dir(&at).expect("mkdir");
    must(Command::new("truncate").args(["-s", "32M"]).arg(&image));
    must(Command::new("mkfs.ext4").arg("-q").arg(&image));
    let ears = Ears::open(&world);
    let mount = format!("mount -o loop {} {}", image.display(), at.display());
    let log = at.join("access.log");
    let httpd = Setup::new(&world)
        .before(&mount)
        .before(&private_dev_log(&world))
        .tee(&log)
        .start();
    assert_eq!(world.curl(READER, "/page"), Some(200));
    let (pid, folder) = (httpd.pid(), at.display().to_string());
    let inside = format!("/proc/{pid}/root{}", log.display());
    wait_until("the first line", secs(5), || {
        !bytes_of(inside.as_ref()).is_empty()
    });
    let fsfreeze = |what: &str| format!("nsenter -m -t {pid} fsfreeze {what} {folder}");
    world.at_end(format!("{} 2>/dev/null || true", fsfreeze("-u")));
    must(Command::new("sh").arg("-c").arg(fsfreeze("-f")));
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_eq!(world.curl(READER, "/page"), Some(200));
        ears.told(&[
            "tee",
            "access.log",
            "kB have waited",
            "for the disk",
            "dmesg",
        ]);
    }));
    must(Command::new("sh").arg("-c").arg(fsfreeze("-u")));
    if let Err(panic) = told {
        std::panic::resume_unwind(panic);
    }
    ears.over(
        &["tee", "access.log", "writes again; 0 lines were lost"],
        &["kB have waited"],
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn rules_that_another_program_takes_away() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let _httpd = start(&world, "");
    world.curl(READER, "/page");
    world.wait_chain();
    must(world.on_server("iptables").args(["-w", "-t", "raw", "-F"]));
    must(world.on_server("iptables").args(["-w", "-t", "raw", "-X"]));
    wait_until("a word about it", secs(10), || {
        ears.said(&["IPv4 chain f2b-pipe (table raw) was gone", "back in place"]) == 1
    });
    ears.told(&[
        "rules: another program took them away",
        "once",
        "journalctl",
    ]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_set_that_another_program_takes_away() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let _httpd = start(&world, "");
    world.curl(READER, "/page");
    world.wait_chain();
    let flush = "iptables -w -t raw -F && iptables -w -t raw -X && ipset destroy f2bp-missing";
    must(world.on_server("sh").args(["-c", flush]));
    wait_until("a word about it", secs(10), || {
        ears.said(&["sets were gone", "f2bp-missing", "made again"]) == 1
    });
    wait_until("the set", secs(10), || {
        world.sets().contains_key("f2bp-missing")
    });
    ears.told(&["rules: another program took them away"]);
}

/// Asks for missing pages until it is told, or the kernel turns him away.
fn goes_on(world: &World, how: &[&str], until: impl Fn() -> bool) {
    wait_until("a word about him", MINUTE, || {
        world.curl_with(ATTACKER, "/missing", how);
        until()
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn banned_and_comes_by_another_port() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let conf = world.path("httpd.conf").display().to_string();
    let _httpd = Setup::new(&world)
        .before(&private_dev_log(&world))
        .before(&format!("mount --bind {conf} /etc/apache2/apache2.conf"))
        .conf("Listen 0.0.0.0:8080")
        .start();
    let other = ["--connect-to", "::192.0.2.1:8080"];
    world.curl(READER, "/page");
    world.wait_chain();
    world.curl(ATTACKER, "/missing");
    world.wait_banned("missing", ATTACKER);
    let words = [
        "bans of jail missing: 203.0.113.66 is banned and still comes",
        "port 8080, which the jail does not close",
        "Write port = [\"http\", \"https\", 8080] in [jail.missing]",
    ];
    goes_on(&world, &other, || ears.said(&words) > 0);
    ears.told(&words);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn banned_and_comes_through_a_proxy_that_the_format_does_not_show() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let proxied = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 198.51.100.1\n";
    let _httpd = Setup::new(&world)
        .before(&private_dev_log(&world))
        .format("combined")
        .conf(proxied)
        .start();
    let mut proxy = Connection::open(&world, "198.51.100.1").expect("a connection");
    let request = Request::get("/missing").header("X-Forwarded-For", ATTACKER);
    let words = [
        "bans of jail missing: 203.0.113.66 is banned and still comes",
        "through a proxy (perhaps 198.51.100.1",
        "%{c}a",
    ];
    wait_until("a word about him", MINUTE, || {
        assert_eq!(proxy.ask(&request).expect("an answer"), 404);
        std::thread::sleep(std::time::Duration::from_millis(100));
        ears.said(&words) > 0
    });
    ears.told(&words);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn cannot_be_banned_as_the_format_shows_the_proxy() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let proxied = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 198.51.100.1\n";
    let _httpd = start(&world, proxied);
    let mut proxy = Connection::open(&world, "198.51.100.1").expect("a connection");
    for n in 0..30 {
        let from = format!("203.0.113.{n}");
        let request = Request::get("/missing").header("X-Forwarded-For", &from);
        assert_eq!(proxy.ask(&request).expect("an answer"), 404);
    }
    // One word, not thirty.
    ears.told(&[
        "bans of jail missing",
        "cannot be held here",
        "comes through 198.51.100.1",
    ]);
}

/// Another program that takes our rules away again and again, until it is dropped.
struct Fighter(Child);

impl Fighter {
    fn start(world: &World) -> Self {
        let fight = "while :; do iptables -w -t raw -D PREROUTING -j f2b-pipe 2>/dev/null; sleep 0.05; done";
        let fighter = world.on_server("sh").args(["-c", fight]).spawn();
        Self(fighter.expect("sh"))
    }
}

impl Drop for Fighter {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn banned_and_comes_since_another_program_fights_for_the_rules() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let _httpd = start(&world, "");
    world.curl(READER, "/page");
    world.wait_chain();
    let _fighter = Fighter::start(&world);
    world.curl(ATTACKER, "/missing");
    world.wait_banned("missing", ATTACKER);
    goes_on(&world, &[], || ears.said(&CHAIN_GONE) > 0);
    ears.told(&CHAIN_GONE);
    ears.told(&[
        "rules: another program took them away",
        "times in the last minutes",
    ]);
}

/// Rules that are taken away and put back: whoever looks why he comes finds everything in place, and looks again soon.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_look_that_found_nothing_does_not_make_the_next_one_late() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let _httpd = start(&world, "");
    world.curl(READER, "/page");
    world.wait_chain();
    world.curl(ATTACKER, "/missing");
    world.wait_banned("missing", ATTACKER);
    assert_eq!(world.curl(ATTACKER, "/missing"), None);
    // What comes before is not yet strange.
    std::thread::sleep(secs(1));
    let once = ["-w", "-t", "raw", "-D", "PREROUTING", "-j", "f2b-pipe"];
    must(world.on_server("iptables").args(once));
    for _ in 0..3 {
        world.curl(ATTACKER, "/missing");
    }
    // The look.
    std::thread::sleep(secs(4));
    assert_eq!(ears.said(&["still comes"]), 0);
    let _fighter = Fighter::start(&world);
    goes_on(&world, &[], || ears.said(&CHAIN_GONE) > 0);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_end_does_not_wait_for_a_look() {
    let world = World::new();
    world.config(MISSING);
    let mut logger = logger(&world);
    let missing = line(ATTACKER, "/missing", 404);
    logger.line(&missing);
    world.wait_banned("missing", ATTACKER);
    // What comes before is not yet strange.
    std::thread::sleep(secs(3));
    for _ in 0..4 {
        logger.line(&missing);
    }
    // The look has begun, and takes two seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let ended = logger.close(std::time::Duration::from_millis(700));
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn banned_and_comes_to_an_sshd_on_another_port() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[sshd]\nenabled = true\nmaxretry = 1\nbantime = 600\n",
    );
    let host = Host::new(&world);
    guessed(&host, "192.0.2.99");
    let watch = host.watch();
    guessed(&host, ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    // Lines that a syslog daemon was late with say nothing.
    for _ in 0..9 {
        guessed(&host, ATTACKER);
    }
    let words = [
        "bans of jail sshd: 203.0.113.66 is banned and still comes",
        "a port that the jail does not close (ss -ltnp)",
        "port = [\"ssh\"] in [sshd] of fail2ban's jail.local",
    ];
    let said = |words: &[&str]| {
        let said = host.said("watch");
        said.lines().filter(|line| has(line, words)).count()
    };
    std::thread::sleep(secs(3));
    assert_eq!(said(&["still comes"]), 0);
    wait_until("a word about him", MINUTE, || {
        guessed(&host, ATTACKER);
        std::thread::sleep(std::time::Duration::from_millis(500));
        said(&words) > 0
    });
    assert_eq!(said(&words), 1);
    wait_until("the same in status", secs(5), || {
        let shown = host.ask(&["status"]);
        shown.starts_with("Not well:\n! ") && shown.lines().any(|line| has(line, &words))
    });
    host.end(watch, Signal::SIGTERM);
}

/// A hundred requests at once are on their way when the ban comes; and he tries on for a while.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_ban_that_holds_is_no_trouble() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let httpd = start(&world, "");
    world.curl(READER, "/page");
    world.wait_chain();
    let many = "GET /missing HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let mut connection = Connection::open(&world, ATTACKER).expect("a connection");
    connection.send(many.as_bytes()).expect("sent");
    world.wait_banned("missing", ATTACKER);
    for _ in 0..4 {
        assert_eq!(world.curl(ATTACKER, "/missing"), None);
    }
    assert!(ears.shown().starts_with("All is well."), "{}", ears.shown());
    assert!(!httpd.said().contains(" warn: "), "{}", httpd.said());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn work_that_is_shed() {
    let world = World::new();
    world.config(MISSING);
    let ears = Ears::open(&world);
    let _httpd = Setup::new(&world)
        .before(&private_dev_log(&world))
        .env("F2B_PIPE_TEST_PANIC", "filter")
        .start();
    world.curl(READER, "/page");
    ears.told(&["judging:", "went to the log and were not judged", "README"]);
    // A minute after the last.
    wait_until("the end of it", secs(75), || {
        ears.said(&["judging: well again"]) == 1
    });
    assert!(!ears.shown().contains("judging"), "{}", ears.shown());
}

/// Expressions of a jail that reads httpd's lines are slower than the lines.
#[test]
#[ignore = "needs root and network namespaces"]
fn lines_that_come_faster_than_expressions_can_follow() {
    let world = World::new();
    let log = world.path("access.log").display().to_string();
    world.write(
        "filter.d/slow.conf",
        "[Definition]\nfailregex = ^<HOST> (?:(\\S+) ?)+\\1\\1!$\n",
    );
    world.config(&format!(
        "[jail.slow]\nfilter = 'slow'\nlogpath = ['{log}']\n[firewall]\nbackend = 'dry-run'\n"
    ));
    fs::create_dir(world.path("run")).expect("mkdir");
    let mut piped = world.pipe(
        1 << 20,
        &["--format", "common", "--single-writer", "--tee", &log],
    );
    let line = format!("198.51.100.7 {}!\n", "ab cd ".repeat(20));
    let many = line.repeat(16_000_000 / line.len());
    let mut writer = piped.another_writer();
    writer.write_all(many.as_bytes()).expect("the pipe");
    let words = [
        "judging:",
        "went to the log and were not judged",
        "failregex",
    ];
    wait_until("a word about it", MINUTE, || {
        piped.said().lines().any(|line| has(line, &words))
    });
    let status = world.ask(&["status"]).stdout;
    let status = String::from_utf8_lossy(&status).into_owned();
    assert!(status.lines().any(|line| has(line, &words)), "{status}");
    // Not one of them is missing there.
    wait_until("the log", secs(20), || {
        bytes_of(log.as_ref()).len() == many.len()
    });
    drop(writer);
    piped.close(secs(20));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn an_action_that_fails_is_in_status_until_it_succeeds() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[sshd]\nenabled = true\nmaxretry = 1\nbantime = 600\naction = %(action_)s\n  note\n",
    );
    note(&world);
    let script = world.path("note");
    let good = text_of(&script);
    fs::write(&script, "#!/bin/sh\n[ \"$1\" = start ]\n").expect("the script");
    let host = Host::new(&world);
    guessed(&host, "192.0.2.99");
    let watch = host.watch();
    guessed(&host, ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    let shown = || host.ask(&["status"]);
    wait_until("status to know", MINUTE, || {
        let shown = shown();
        shown.starts_with("Not well:")
            && shown.contains("jail 'sshd' action 'note': ")
            && shown.contains("orders failed, the last one too")
            && shown.contains("action.d/note")
    });
    fs::write(&script, good).expect("the script");
    guessed(&host, "203.0.113.67");
    wait_until("status to know that it is over", MINUTE, || {
        !shown().contains("action 'note'")
    });
    assert!(host.said("watch").contains("its commands succeed again"));
    host.end(watch, Signal::SIGTERM);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_log_that_is_piped_and_watched_counts_once() {
    let world = World::new();
    world.write(
        "filter.d/web.conf",
        "[Definition]\nfailregex = ^f2b:\\S+ <HOST> .*\"GET /missing\n",
    );
    world.config(&format!(
        "[jail.web]\nfilter = 'web'\nlogpath = ['{}']\nmaxretry = 1000\n",
        world.path("access.log").display()
    ));
    world.write("access.log", "");
    let host = Host::new(&world);
    let watch = host.watch();
    let httpd = Setup::new(&world).start();
    world.curl(READER, "/page");
    wait_until("a process that stands back", secs(10), || {
        httpd.said().contains("at work")
    });
    std::thread::sleep(secs(4));
    for n in 0..10 {
        assert_eq!(world.curl(READER, &format!("/missing/{n}")), Some(404));
    }
    let hits = || {
        world.status()["jails"].as_array().map(|jails| {
            let web = jails.iter().find(|jail| jail["name"] == "web");
            web.map(|jail| jail["hits"].clone())
        })
    };
    wait_until("the count", secs(10), || {
        hits()
            .flatten()
            .is_some_and(|hits| hits.as_u64() >= Some(10))
    });
    std::thread::sleep(secs(3));
    assert_eq!(hits().flatten(), Some(10.into()), "counted twice");
    host.end(watch, Signal::SIGTERM);
}
