//! httpd's own logs, judged by jails of fail2ban as administrators have written them for years.

use serde_json::Value;

use crate::actions::note;
use crate::bans::walk;
use crate::other_logs::fail2ban_with;
use crate::support::{Host, PROGRAM, Setup, World, secs, text_of, wait_until};

const ATTACKER: &str = "198.51.100.66";
const READER: &str = "198.51.100.7";

/// A log format that begins with a date of its own.
const FORMAT: &str = r#"%{%Y/%m/%d:%H:%M:%S}t %h \"%r\" %>s %B"#;

const FILTER: &str = "[Definition]\nfailregex = ^[\\d:/]* <HOST>\nignoreregex =\n";

const JAIL: &str = "[apache-dos]\nenabled = true\nport = http,https\nfilter = apache-dos\n\
    datepattern = ^%%Y/%%m/%%d:%%H:%%M:%%S\nlogpath = %(apache_access_log)s tail\nbackend = pyinotify\nusedns = no\n\
    maxretry = 30\nfindtime = 10\nbantime = 60\n[sshd]\nenabled = false\n";

fn tutorial(world: &World) -> Host<'_> {
    fail2ban_with(world, JAIL);
    world.write("fail2ban/filter.d/apache-dos.conf", FILTER);
    let host = Host::new(world);
    std::fs::create_dir(host.file("/var/log/apache2")).expect("mkdir");
    host
}

/// The program under test as httpd.conf has it.
fn program(world: &World, options: &str) -> String {
    format!("|{PROGRAM} {options} {}", world.place().join(" "))
}

fn of_jail<'s>(status: &'s Value, name: &str) -> &'s Value {
    let jails = status["jails"].as_array().expect("jails");
    jails
        .iter()
        .find(|jail| jail["name"] == name)
        .unwrap_or(&Value::Null)
}

/// Twenty pages are fine, forty are not.
fn the_flood_is_banned(world: &World, host: &Host<'_>) {
    let pages = |from: &str, n: usize| walk(world, from, (0..n).map(|i| format!("/page?{i}")));
    wait_until("the jail at work", secs(5), || {
        text_of(&world.path("error.log")).contains("watching logs")
    });
    assert_eq!(pages(READER, 20), 20);
    let counted = || of_jail(&world.status(), "apache-dos")["hits"].as_u64();
    wait_until("twenty hits", secs(5), || counted() == Some(20));
    assert_eq!(world.banned_anywhere(), [""; 0]);
    pages(ATTACKER, 40);
    world.wait_banned("apache-dos", ATTACKER);
    assert_eq!(world.banned_anywhere().len(), 1);
    assert_eq!(world.curl(ATTACKER, "/page"), None);
    assert_eq!(world.curl(READER, "/page"), Some(200));
    let check = host.ask(&[
        "check",
        "--httpd-conf",
        &world.path("httpd.conf").display().to_string(),
    ]);
    assert!(check.contains("apache-dos"), "{check}");
    assert!(check.contains("It works"), "{check}");
    let status = world.status();
    assert_eq!(
        of_jail(&status, "apache-dos")["ips"][0],
        ATTACKER,
        "{status}"
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_jail_of_the_access_log_is_fed_by_httpds_pipe() {
    let world = World::new();
    let host = tutorial(&world);
    let program = program(
        &world,
        &format!("--tee /var/log/apache2/access.log --format '{FORMAT}'"),
    );
    let conf = format!("CustomLog \"{program}\" \"{FORMAT}\"");
    let _httpd = Setup::new(&world)
        .on(&host)
        .without_logger()
        .conf(&conf)
        .start();
    the_flood_is_banned(&world, &host);
    assert!(!text_of(&host.file("/var/log/apache2/access.log")).is_empty());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_jail_of_a_plain_access_log_tails_it_beside_a_pipe() {
    let world = World::new();
    let host = tutorial(&world);
    let conf = format!(
        "CustomLog /var/log/apache2/access.log \"{FORMAT}\"\nGlobalLog \"{}\" f2b",
        program(&world, "--format f2b")
    );
    let _httpd = Setup::new(&world)
        .on(&host)
        .without_logger()
        .conf(&conf)
        .start();
    the_flood_is_banned(&world, &host);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn stock_apache_auth_is_fed_by_a_piped_error_log() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[apache-auth]\nenabled = true\nmaxretry = 4\n[sshd]\nenabled = false\n",
    );
    let host = Host::new(&world);
    std::fs::create_dir(host.file("/var/log/apache2")).expect("mkdir");
    let program = program(&world, "run --error-log --tee /var/log/apache2/error.log");
    let conf = format!("ErrorLog \"{program}\"");
    let _httpd = Setup::new(&world)
        .on(&host)
        .without_logger()
        .conf(&conf)
        .start();
    for i in 0..3 {
        for from in [READER, ATTACKER] {
            let user = format!("reader:guess{i}");
            assert_eq!(
                world.curl_with(from, "/private/page", &["-u", &user]),
                Some(401)
            );
        }
    }
    wait_until("six hits", secs(5), || {
        of_jail(&world.status(), "apache-auth")["hits"] == 6
    });
    assert_eq!(world.banned_anywhere(), [""; 0]);
    world.curl_with(ATTACKER, "/private/page", &["-u", "stranger:guess"]);
    world.wait_banned("apache-auth", ATTACKER);
    assert_eq!(world.curl(ATTACKER, "/page"), None);
    assert_eq!(world.curl(READER, "/page"), Some(200));
    assert!(text_of(&host.file("/var/log/apache2/error.log")).contains("Password Mismatch"));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn beside_watch_a_piped_error_log_bans_once_and_its_actions_run_once() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[DEFAULT]\nmaxretry = 2\nbantime = 60\n[apache-auth]\nenabled = true\naction = %(action_)s\n  note\n\
        [sshd]\nenabled = false\n[recidive]\nenabled = true\n",
    );
    let notes = note(&world);
    let host = Host::new(&world);
    std::fs::create_dir(host.file("/var/log/apache2")).expect("mkdir");
    host.watch();
    let program = program(&world, "run --error-log --tee /var/log/apache2/error.log");
    let conf = format!("ErrorLog \"{program}\"");
    let _httpd = Setup::new(&world)
        .on(&host)
        .without_logger()
        .conf(&conf)
        .start();
    for _ in 0..2 {
        world.curl_with(ATTACKER, "/private/page", &["-u", "reader:guess"]);
    }
    world.wait_banned("apache-auth", ATTACKER);
    let banned = || text_of(&notes).matches("ban|apache-auth|").count();
    wait_until("the action", secs(5), || banned() == 1);
    // Two processes have read these lines. One ban is not two, for recidive neither.
    std::thread::sleep(secs(1));
    assert_eq!(banned(), 1, "{}", text_of(&notes));
    assert_eq!(world.banned("recidive"), [""; 0]);
    assert_eq!(world.banned_anywhere().len(), 1);
}
