//! What the reader promises beyond what fail2ban does: mistakes are told, and one of them does not stop the rest.

use std::fs;

use super::*;

/// A folder of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let dir =
            std::env::temp_dir().join(format!("f2b-pipe-fail2ban-{}-{name}", std::process::id()));
        for (file, text) in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(dir)
    }

    fn read(&self) -> Folder {
        Folder::read(&self.0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A filter, a packet filter's action, and a jail.conf with defaults; `jails` comes behind it.
fn small(name: &str, jails: &str) -> Dir {
    let conf = "[DEFAULT]\nenabled = false\nmaxretry = 5\nbanaction = iptables-multiport\nport = 1\n\
                action = %(banaction)s[port=\"%(port)s\"]\nlogpath = /x\nfilter = %(__name__)s\n[sshd]\nport = ssh\n";
    let action = "[Definition]\nactionban = add <ip> <blocktype>\ntype = multiport\n\
                  [Init]\nblocktype = REJECT --with x\nprotocol = tcp\nchain = INPUT\n";
    Dir::new(
        name,
        &[
            ("jail.conf", conf),
            ("jail.local", jails),
            (
                "filter.d/sshd.conf",
                "[Definition]\nfailregex = ^<mode> <HOST>\n[Init]\nmode = a\n",
            ),
            (
                "filter.d/apache.conf",
                "[Definition]\nfailregex = ^<HOST>\n",
            ),
            ("action.d/iptables-multiport.conf", action),
            (
                "action.d/iptables-allports.conf",
                &action.replace("multiport", "allports"),
            ),
            (
                "action.d/ufw.conf",
                "[Definition]\nactionban = ufw <ip>\n[Init]\napplication =\nblocktype = drop\n",
            ),
        ],
    )
}

/// `line: key: text` of every problem, those of broken jails behind the others.
fn told(folder: &Folder) -> Vec<String> {
    let broken = folder.broken.iter().map(|broken| &broken.problem);
    let all = folder.problems.iter().chain(broken);
    all.map(|p| format!("{}: {}: {}", p.line.unwrap_or(0), p.key, p.text))
        .collect()
}

#[test]
fn keys_without_effect_are_told_with_what_was_meant() {
    let jails = "[DEFAULT]\nignore-ip = 10.0.0.1\nfor_later = x\nhelper = y\n\
                 [sshd]\nenable = true\nmax_retry = 3\nban_time = 1h\n\
                 [apache]\nenabled = true\nports = 80\nmode = x\nmine = %(helper)s\nlogpaht = /y\n";
    let folder = small("keys", jails).read();
    let told = told(&folder);
    let expected = [
        ("2: DEFAULT.ignore-ip", "did you mean ignoreip?"),
        ("6: sshd.enable", "did you mean enabled?"),
        ("7: sshd.max_retry", "did you mean maxretry?"),
        ("8: sshd.ban_time", "did you mean bantime?"),
        ("11: apache.ports", "did you mean port?"),
        ("13: apache.mine", "nothing uses it"),
        ("14: apache.logpaht", "did you mean logpath?"),
    ];
    for (place, text) in expected {
        assert!(
            told.iter()
                .any(|t| t.starts_with(place) && t.contains(text)),
            "{place}: {told:#?}"
        );
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    assert_eq!(folder.jails.len(), 1);
}

#[test]
fn a_value_that_cannot_be_read_breaks_its_jail_only() {
    let jails = "[a]\nenabled = true\nfilter = sshd\nmaxretry = five\n\
                 [b]\nenabled = true\nfilter = sshd\nfindtime = 10 minuts\n\
                 [c]\nenabled = true\nfilter = sshd\nbackend = sytemd\n\
                 [d]\nenabled = true\nfilter = apahce\n\
                 [e]\nenabled = true\nfilter = sshd\naction = iptables-multipot\n\
                 [f]\nenabled = true\nfilter = sshd\nlogpath = /a /b\n\
                 [g]\nenabled = true\nfilter = sshd[mode=\"%(moed)s\"]\nmode = x\n\
                 [h]\nenabled = ture\nfilter = sshd\n\
                 [sshd]\nenabled = true\nmaxretry = 6 # six\n";
    let folder = small("values", jails).read();
    let told = told(&folder);
    for (place, text) in [
        ("4: a.maxretry", "write digits only"),
        ("8: b.findtime", "write 10m"),
        ("12: c.backend", "write auto or systemd"),
        ("15: d.filter", "did you mean apache?"),
        ("19: e.action", "did you mean iptables-multiport?"),
        ("23: f.logpath", "each path in a line of its own"),
        ("26: g.filter", "did you mean mode?"),
        ("29: h.enabled", "write true or false"),
        ("33: sshd.maxretry", "write 6,"),
    ] {
        assert!(
            told.iter()
                .any(|t| t.starts_with(place) && t.contains(text)),
            "{place}: {told:#?}"
        );
    }
    let broken: Vec<_> = folder
        .broken
        .iter()
        .map(|broken| broken.jail.as_str())
        .collect();
    assert_eq!(broken, ["a", "b", "c", "d", "e", "f", "g"]);
    let [jail] = folder.jails.as_slice() else {
        panic!("{told:#?}")
    };
    assert_eq!((jail.name.as_str(), jail.maxretry), ("sshd", 6));
}

#[test]
fn a_line_that_cannot_be_read_breaks_what_it_stands_in() {
    let jails = "[sshd]\nenabled = true\nnonsense\n[apache]\nenabled = true\n";
    let dir = small("lines", jails);
    let folder = dir.read();
    assert_eq!(folder.broken[0].jail, "sshd");
    assert_eq!(folder.broken[0].problem.line, Some(3));
    assert_eq!(folder.jails[0].name, "apache");
    assert_eq!(folder.problems, []);
    // The same in a filter.
    fs::write(
        dir.0.join("filter.d/apache.local"),
        "[Definition]\nmaxlines = 1\nmaxlines = 2\n",
    )
    .unwrap();
    let folder = dir.read();
    assert!(folder.jails.is_empty());
    assert!(
        folder.broken[1].problem.text.contains("twice"),
        "{:?}",
        folder.broken
    );
}

#[test]
fn sections_that_are_no_jails_and_includes_that_are_not_there_are_told() {
    let jails = "[INCLUDES]\nbefore = nowhere.conf\nafter = fine.local\n[default]\nmaxretry = 3\n[Defaults]\n";
    let told = told(&small("sections", jails).read());
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told.iter()
            .any(|t| t.starts_with("2: before:") && t.contains("nowhere.conf")),
        "{told:#?}"
    );
    assert!(
        told.iter().any(|t| t.contains("did you mean [DEFAULT]?")),
        "{told:#?}"
    );
}

#[test]
fn what_only_fills_a_packet_filter_is_known() {
    let jails = "[DEFAULT]\nenabled = true\nfilter = sshd\n[sshd]\n\
                 [all]\naction = iptables-allports[protocol=udp, chain=FORWARD, blocktype=DROP]\n\
                 [wide]\nport = 0:65535\n[two]\nport = http, https 8080\nprotocol = tcp,udp\naction = %(banaction)s[port=\"%(port)s\", protocol=\"%(protocol)s\"]\n\
                 [ufw]\naction = ufw\n\
                 [pass]\naction = %(banaction)s[blocktype=RETURN]\n\
                 [own]\naction = %(banaction)s[actionban=\"mine <ip>\"]\n\
                 [app]\naction = ufw[application=OpenSSH]\n";
    let dir = small("blocks", jails);
    let folder = dir.read();
    let block = |name: &str| {
        folder
            .jails
            .iter()
            .find(|jail| jail.name == name)
            .unwrap()
            .actions[0]
            .block
            .clone()
    };
    let these = |ports: Option<&[&str]>, protocols: &[&str], chain: &str, reject| {
        Some(Block {
            ports: ports.map(|p| p.iter().map(|p| (*p).to_owned()).collect()),
            protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            chain: chain.to_owned(),
            reject,
        })
    };
    assert_eq!(
        block("sshd"),
        these(Some(&["ssh"]), &["tcp"], "INPUT", true)
    );
    assert_eq!(block("all"), these(None, &["udp"], "FORWARD", false));
    assert_eq!(block("wide"), these(None, &["tcp"], "INPUT", true));
    assert_eq!(
        block("two"),
        these(
            Some(&["http", "https", "8080"]),
            &["tcp", "udp"],
            "INPUT",
            true
        )
    );
    assert_eq!(block("ufw"), these(None, &["all"], "INPUT", false));
    for run in ["pass", "own", "app"] {
        assert_eq!(block(run), None, "{run}");
    }
    // An administrator's values are understood, his commands are run.
    let local = dir.0.join("action.d/iptables-multiport.local");
    fs::write(&local, "[Init]\nblocktype = DROP\n").unwrap();
    assert!(
        !dir.read().jails[0].actions[0]
            .block
            .as_ref()
            .unwrap()
            .reject
    );
    fs::write(&local, "[Definition]\nactionban = mine <ip>\n").unwrap();
    assert_eq!(dir.read().jails[0].actions[0].block, None);
}

#[test]
fn commands_differ_by_address_family() {
    let dir = small(
        "families",
        "[sshd]\nenabled = true\naction = x[a=\"<c>\", timeout=2m]\n",
    );
    let action = "[Definition]\nactionban = do <a> <b> <ip> <matches>\n[Init]\nb = 4\nc = <d>\nd = e\n[Init?family=inet6]\nb = 6<d>\n";
    fs::write(dir.0.join("action.d/x.conf"), action).unwrap();
    let folder = dir.read();
    let action = &folder.jails[0].actions[0];
    let command = |family| action.command("actionban", family).unwrap().unwrap();
    assert_eq!(command(Some(Family::Inet4)), "do e 4 <ip> <matches>");
    assert_eq!(command(Some(Family::Inet6)), "do e 6e <ip> <matches>");
    assert_eq!(action.command("actionstart", None), Ok(None));
    assert!(action.by_family());
    assert_eq!(action.timeout(), 120.0);
}

#[test]
fn one_filter_is_read_by_name_by_path_and_by_jail() {
    let dir = small("filter", "[mine]\nfilter = sshd[mode=j]\n");
    let own = Dir::new(
        "own",
        &[
            (
                "filter.d/sshd.conf",
                "[INCLUDES]\nbefore = apache.conf\n[Definition]\nignoreregex = own\n",
            ),
            ("other.txt", "[Definition]\nfailregex = x <HOST>\n"),
        ],
    );
    let read = |folders: &[&Path], spec: &str| read_filter(folders, spec, "auto");
    let first = |spec: &str| read(&[&dir.0], spec).unwrap().failregex[0].clone();
    assert_eq!(first("sshd"), "^a <HOST>");
    assert_eq!(first("sshd[mode=aggressive]"), "^aggressive <HOST>");
    assert_eq!(first("sshd.conf[mode=b]"), "^b <HOST>");
    assert_eq!(first("mine"), "^j <HOST>");
    assert_eq!(first(own.0.join("other.txt").to_str().unwrap()), "x <HOST>");
    assert_eq!(
        first(dir.0.join("filter.d/sshd.conf").to_str().unwrap()),
        "^a <HOST>"
    );
    // Ours come first, and may include fail2ban's.
    let rules = read(&[&own.0, &dir.0], "sshd").unwrap();
    assert_eq!(
        (rules.failregex, rules.ignoreregex),
        (vec!["^<HOST>".to_owned()], vec!["own".to_owned()])
    );
    let problem = read(&[&dir.0], "sshdd").unwrap_err();
    assert!(problem.text.contains("did you mean sshd?"), "{problem}");
}

#[test]
fn a_folder_that_is_not_there_has_no_jails_and_no_problems() {
    let folder = Folder::read(Path::new("/nonexistent/fail2ban"));
    assert!(
        folder.jails.is_empty()
            && folder.broken.is_empty()
            && folder.problems.is_empty()
            && folder.files.is_empty()
    );
}

#[test]
fn values_that_grow_without_end_are_an_error_and_not_a_hang() {
    let many = |name: &str| format!("%({name})s").repeat(100);
    let names = format!(
        "[DEFAULT]\na = x\nb = {}\nc = {}\nd = {}\ne = {}\n",
        many("a"),
        many("b"),
        many("c"),
        many("d")
    );
    let jails = format!(
        "{names}[sshd]\nenabled = true\nignoreip = %(e)s\n[apache]\nenabled = true\nfilter = sshd[mode=\"<p>\", p=\"<q><q>\", q=\"<p>\"]\n"
    );
    let folder = small("growth", &jails).read();
    assert_eq!(folder.broken.len(), 2, "{:?}", folder.jails);
}

#[test]
fn a_mistake_of_all_jails_is_told_once_and_all_of_a_broken_jails_are_told() {
    let dir = small(
        "once",
        "enabled = true\n[DEFAULT]\nmaxretry = 6 # text\nmaxmatches = %(maxretry)s\n\
        [other]\nenabled = true\nfilter = sshd\n\
        [late]\nenabled = true\nfilter = sshd\nbantime = 10 minuts\nfindtime = abc\n\
        [where]\nenabled = true\nfilter = sshd\nbanaction = nosuch\n\
        [snake]\nenabled = true\nfilter = sshd\naction = nosuch.py\n",
    );
    let folder = dir.read();
    let told = told(&folder);
    let texts = || folder.problems.iter().map(ToString::to_string);
    let remarks = texts().filter(|text| text.contains("begins no remark"));
    assert_eq!(remarks.count(), 1, "{told:?}");
    assert!(texts().any(|text| text.contains("DEFAULT.maxretry")));
    assert!(texts().any(|text| text.contains("late.findtime") && text.contains("abc")));
    let broken: Vec<String> = folder
        .broken
        .iter()
        .map(|broken| broken.problem.to_string())
        .collect();
    for (text, broken) in ["late.bantime", "where.banaction", "action.d/nosuch.py"]
        .iter()
        .zip(&broken)
    {
        assert!(broken.contains(text), "{text}: {broken}");
    }
    assert_eq!(broken.len(), 3, "{broken:?}");
}
