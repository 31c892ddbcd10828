//! The reader of /etc/fail2ban beside fail2ban's own: the same folders, the same jails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on should stop"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use f2b_pipe::fail2ban::{BanTime, FilterRules, Folder, Jail, UseDns, read_filter};
use serde_json::{Value, json};

/// A directory that goes when the test does.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-reader-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// The installed configuration, to be changed.
    fn stock(name: &str) -> Self {
        let dir = Self::new(name);
        let copied = Command::new("cp")
            .args(["-r", "/etc/fail2ban/."])
            .arg(&dir.0)
            .status();
        assert!(copied.unwrap().success());
        dir
    }

    fn with(self, files: &[(&str, &str)]) -> Self {
        for (file, text) in files {
            let path = self.0.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn oracle(args: &[&Path]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/fail2ban_reader.py");
    let out = Command::new("/usr/bin/python3")
        .arg(script)
        .args(args)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).unwrap()
}

fn dns(usedns: UseDns) -> &'static str {
    match usedns {
        UseDns::Yes => "yes",
        UseDns::Warn => "warn",
        UseDns::No => "no",
        UseDns::Raw => "raw",
    }
}

/// What a filter says, as the script shows it.
fn rules(rules: &FilterRules) -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("failregex", json!(rules.failregex)),
        ("ignoreregex", json!(rules.ignoreregex)),
        ("journalmatch", json!(rules.journalmatch)),
        ("datepattern", json!(rules.datepattern)),
        ("prefregex", json!(rules.prefregex.as_deref().unwrap_or(""))),
        ("maxlines", json!(rules.maxlines)),
        ("usedns", json!(dns(rules.usedns))),
    ])
}

/// A jail, as the script shows it.
fn shown(jail: &Jail) -> BTreeMap<&'static str, Value> {
    let paths = jail
        .logpath
        .iter()
        .map(|log| json!([log.glob, if log.tail { "tail" } else { "head" }]));
    let actions = jail.actions.iter().map(|action| {
        let mut told = action.commands.clone();
        told.extend(action.params.clone());
        let mut shown = json!({"name": action.name, "told": told});
        if let Some(file) = &action.python {
            shown["python"] = json!(file);
        }
        shown
    });
    let seconds = |time: Option<f64>| time.map_or(json!(""), |time| json!(time));
    let mut all = rules(&jail.rules);
    all.extend([
        ("backend", json!([jail.backend.name, jail.backend.options])),
        ("logpath", paths.collect()),
        ("logencoding", json!(jail.logencoding)),
        (
            "logtimezone",
            json!(jail.logtimezone.as_deref().unwrap_or("")),
        ),
        ("maxretry", json!(jail.maxretry)),
        ("findtime", json!(jail.findtime)),
        (
            "bantime",
            match jail.bantime {
                BanTime::Seconds(seconds) => json!(seconds),
                BanTime::Forever => json!(-1.0),
            },
        ),
        ("maxmatches", json!(jail.maxmatches)),
        ("ignoreip", json!(jail.ignoreip)),
        ("ignoreself", json!(jail.ignoreself)),
        (
            "ignorecommand",
            json!(jail.ignorecommand.as_deref().unwrap_or("")),
        ),
        (
            "ignorecache",
            jail.ignorecache.as_ref().map_or(json!(""), |cache| {
                json!([cache.key, cache.max_count, cache.max_time])
            }),
        ),
        ("bantime.increment", json!(jail.increment.on)),
        ("bantime.factor", json!(jail.increment.factor)),
        (
            "bantime.formula",
            json!(jail.increment.formula.as_deref().unwrap_or("")),
        ),
        ("bantime.multipliers", json!(jail.increment.multipliers)),
        ("bantime.maxtime", seconds(jail.increment.maxtime)),
        ("bantime.rndtime", seconds(jail.increment.rndtime)),
        ("bantime.overalljails", json!(jail.increment.overalljails)),
        ("actions", actions.collect()),
    ]);
    all
}

/// How many values of how many jails were compared, and all differences.
#[derive(Default)]
struct Compared {
    jails: usize,
    values: usize,
    differences: Vec<String>,
}

impl Compared {
    fn all(&mut self, what: &str, ours: &BTreeMap<&'static str, Value>, theirs: &Value) {
        self.jails += 1;
        for (key, ours) in ours {
            self.values += 1;
            if *ours != theirs[*key] {
                self.differences.push(format!(
                    "{what} {key}:\n  ours   {ours}\n  theirs {}",
                    theirs[*key]
                ));
            }
        }
    }

    fn folder(&mut self, name: &str, dir: &Dir, theirs: &Value) -> Folder {
        let folder = Folder::read(&dir.0);
        assert!(
            theirs.get("error").is_none(),
            "{name}: fail2ban refuses it: {theirs}"
        );
        let names: Vec<_> = folder.jails.iter().map(|jail| jail.name.as_str()).collect();
        let their_names: Vec<_> = theirs["jails"]
            .as_array()
            .unwrap()
            .iter()
            .map(|jail| jail[0].as_str().unwrap())
            .collect();
        assert_eq!(names, their_names, "{name}: {:?}", folder.broken);
        let broken: Vec<_> = folder
            .broken
            .iter()
            .map(|broken| broken.jail.as_str())
            .collect();
        let their_broken: Vec<_> = theirs["broken"]
            .as_array()
            .unwrap()
            .iter()
            .map(|jail| jail.as_str().unwrap())
            .collect();
        assert_eq!(broken, their_broken, "{name}");
        for (jail, theirs) in folder.jails.iter().zip(theirs["jails"].as_array().unwrap()) {
            self.all(&format!("{name}, {}", jail.name), &shown(jail), &theirs[1]);
        }
        folder
    }

    fn end(self) -> (usize, usize) {
        assert!(
            self.differences.is_empty(),
            "{} differences\n{}",
            self.differences.len(),
            self.differences.join("\n")
        );
        (self.jails, self.values)
    }
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn stock_jails_are_read_as_fail2ban_reads_them() {
    let local = |text: &str| format!("[DEFAULT]\nenabled = true\n{text}");
    let conf = std::fs::read_to_string("/etc/fail2ban/jail.conf").unwrap();
    let variants = [
        ("as-installed", local("")),
        // What many do who are to change nothing in jail.conf.
        (
            "copied",
            conf.replace("\nenabled = false\n", "\nenabled = true\n"),
        ),
        (
            "aggressive",
            local(
                "mode = aggressive\nbanaction = nftables\nbanaction_allports = nftables[type=allports]\n",
            ),
        ),
        (
            "journal",
            local("backend = systemd[journalflags=1]\naction = %(action_mwl)s\n"),
        ),
        (
            "mails",
            local("mode = extra\naction = %(action_xarf)s\n %(action_mw)s\nmta = mail\n"),
        ),
        (
            "reports",
            local(
                "action = %(action_blocklist_de)s\n %(action_abuseipdb)s\n %(action_cf_mwl)s\nblocklist_de_apikey = x\ncfemail = y\ncfapikey = z\n",
            ),
        ),
    ];
    let dirs: Vec<_> = variants
        .iter()
        .map(|(name, local)| Dir::stock(name).with(&[("jail.local", local)]))
        .collect();
    let theirs = oracle(&dirs.iter().map(|dir| dir.0.as_path()).collect::<Vec<_>>());
    let mut compared = Compared::default();
    for ((i, (name, _)), dir) in variants.iter().enumerate().zip(&dirs) {
        let folder = compared.folder(name, dir, &theirs[i]);
        assert_eq!(
            folder.problems,
            [],
            "{name}: stock configurations have nothing to complain about"
        );
    }
    // Every ban of these is one that our own sets make, but for the jail that lets people in.
    for jail in Folder::read(&dirs[0].0).jails {
        let block = jail.actions[0].block.as_ref();
        assert_eq!(
            block.is_some(),
            jail.name != "pass2allow-ftp",
            "{}",
            jail.name
        );
        if let Some(block) = block {
            assert!(block.reject && block.chain == "INPUT", "{block:?}");
            // One has two actions, each with ports of its own.
            let same = jail.name == "counter-strike" || block.ports == Some(jail.ports);
            assert!(block.ports.is_none() || same, "{block:?}");
        }
    }
    let (jails, values) = compared.end();
    println!("{jails} jails, {values} values equal");
    assert!(jails > 500);
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn every_filter_alone_is_read_as_fail2ban_reads_it() {
    let stock = Path::new("/etc/fail2ban");
    let theirs = oracle(&["--filters".as_ref(), stock]);
    let mut compared = Compared::default();
    for (what, theirs) in theirs.as_object().unwrap() {
        let (name, backend) = what.split_once(' ').unwrap();
        match read_filter(&[stock], name, backend) {
            Ok(ours) => compared.all(what, &rules(&ours), theirs),
            Err(problem) => assert!(theirs.get("error").is_some(), "{what}: {problem}"),
        }
    }
    let (filters, values) = compared.end();
    println!("{filters} filters, {values} values equal");
    assert!(filters > 150);
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn every_action_is_read_as_fail2ban_reads_it() {
    let files = std::fs::read_dir("/etc/fail2ban/action.d")
        .unwrap()
        .flatten();
    let mut names: Vec<_> = files
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    names.sort();
    let names = names
        .iter()
        .map(|name| name.strip_suffix(".conf").unwrap_or(name));
    let jails = names.map(|name| {
        let call = format!("{name}[port=\"ssh,22\", chain=\"%(chain)s\", blocktype=\"DROP <ip>\"][name={name}, bantime=<x>]");
        format!("[j-{name}]\nfilter = sshd\nlogpath = /x\nenabled = true\naction = {call}\n {name}[name=2]\n")
    });
    let local: String = jails.collect();
    let dir = Dir::stock("actions").with(&[("jail.local", &local)]);
    let mut compared = Compared::default();
    compared.folder("actions", &dir, &oracle(&[&dir.0])[0]);
    let (jails, _) = compared.end();
    assert!(jails > 60);
}

/// Configurations of our own, each with what is hard about it.
const TRICKY: &[(&str, &[(&str, &str)])] = &[
    (
        "files over files",
        &[
            (
                "jail.d/10-a.conf",
                "[DEFAULT]\nmaxretry = 7\n[one]\nenabled = true\nfindtime = 1h 30m\nport = 1\n",
            ),
            (
                "jail.d/20-b.conf",
                "[one]\nfindtime = 1d12h\nbantime = %(known/findtime)s\nmaxmatches = 9\n",
            ),
            (
                "jail.local",
                "[DEFAULT]\nusedns = no\nlogencoding = latin1\n[one]\nfilter = f\nlogpath = /a/*.log tail\n  # no\n /b/%(__name__)s.log\n\n\n  /c head\n",
            ),
            (
                "jail.d/30-c.local",
                "[one]\nfindtime = %(known/findtime)s 5s\nignoreip = 1.2.3.4, ::1\n 10.0.0.0/8 h.example\nbantime.multipliers = 1 5 30\nbantime.increment = yes\nbantime.factor = 2.0 / 4\nbantime.maxtime = 5w\nbantime.rndtime = 8m\nbantime.overalljails = on\nbantime.formula = ban.Time * 2\n",
            ),
            (
                "filter.d/f.conf",
                "[INCLUDES]\nbefore = f-common.conf\nafter = f-after.conf\n[Definition]\nfailregex = ^%(__pre)s<HOST> a$\n ^b <HOST>\n",
            ),
            (
                "filter.d/f-common.conf",
                "[DEFAULT]\n__pre = common\\s\n[Definition]\nignoreregex = x\ndatepattern = ^%%Y-%%m\n",
            ),
            ("filter.d/f-common.local", "[DEFAULT]\n__pre = local\\s\n"),
            (
                "filter.d/f-after.conf",
                "[Definition]\nignoreregex = %(known/ignoreregex)s\n y\nmaxlines = 3\n",
            ),
            (
                "filter.d/f.d/x.conf",
                "[Definition]\njournalmatch = _A=1 + _B='2 3'\n _C=4\n",
            ),
            (
                "filter.d/f.local",
                "[Definition]\nprefregex = ^p <F-CONTENT>.+</F-CONTENT>$\n",
            ),
        ],
    ),
    (
        "filters and their arguments",
        &[
            (
                "filter.d/g.conf",
                "[Definition]\nfailregex = <mode-<mode>/rx> <known/word> %(x)s <word> <<nothing>> <HOST>\n <by-<mode>>\nby-a = A<HOST>\nby-b = B<HOST><sp>\nx = %(y)s\ny = 1\nignoreregex =\n[mode-a]\nrx = ra\n[mode-b]\nrx = rb %(other)s\nother = o\n[Init]\nmode = a\nword = init\nmaxlines = 4\n",
            ),
            (
                "jail.local",
                "[DEFAULT]\nenabled = true\nlogpath = /x\nusedns = raw\n[plain]\nfilter = g\n[given]\nfilter = g[mode=b, word=\"w, [x]\", y='2']\n[twice]\nfilter = g[mode=b][word='<known/word>-more'\n ]\n[replaced]\nfilter = g[failregex=\"^only <HOST>\"]\n[own]\nfilter = g\nfailregex = ^own <HOST>\nignoreregex = no\nprefregex = ^p\nmaxlines = 7\ndatepattern = {^LN-BEG}\n Epoch\n[more]\nfilter = g[mode=b]\nfailregex = %(known/failregex)s\n            ^and <HOST>\n[none]\nfilter =\nfailregex = ^x <HOST>\n y <HOST>\nlogtimezone = UTC+0200\nignorecommand = /bin/x <ip>\nignorecache = key=\"<F-USER>@<ip-host>\", max-time=5m\nignoreself = false\nbantime = -1\n[usual]\nfilter = sshd[mode=%(mode)s]\nmode = ddos\n[journal]\nfilter = sshd[mode=aggressive, publickey=any]\nbackend = systemd[journalflags=1, namespace=\"x\"]\n",
            ),
        ],
    ),
    (
        "actions",
        &[
            (
                "action.d/a.conf",
                "[INCLUDES]\nbefore = helpers-common.conf\n[Definition]\nactionstart = echo <x> <y> %(z)s <maxretry> <bantime> <timeout>\nactionban = <cmd> <ip> <F-USER> <matches> <family> <sec/opt>\n  more \\\n   ; not this\n  # nor this\n  end\nnorestored = 1\ncmd = run <x>\nz = <y>\n[sec]\nopt = %(sub)s\nsub = s\n[Init]\nx = 1\ny = 2\ntimeout = 5\n[Init?family=inet6]\nx = 6\n",
            ),
            (
                "action.d/a.local",
                "[Definition]\nactionunban = gone <ip>\n[Init]\ny = local\n",
            ),
            (
                "jail.local",
                "[DEFAULT]\nenabled = true\nlogpath = /x\nfilter = sshd\nmaxretry = 4\n[one]\naction = a\n[two]\naction = a[y=\"q w\", name=%(__name__)s-b]\n         a[actname=other, x='1 [2]',\n           timeout=7] smtp.py[dest=\"a@b\", matches='%(logpath)s']\n %(action_)s[blocktype=DROP]\n   iptables-allports[protocol=all]\nport = http,https\n[three]\naction = a[actionban=\"mine <ip>\", cmd=c]\nbanaction = ufw\n[four]\naction =\n",
            ),
        ],
    ),
    (
        "names in names",
        &[
            (
                "jail.conf",
                "[INCLUDES]\nbefore = p.conf\n[DEFAULT]\na = %(b)s\nb = %(other/b)s\nport = 5\naction = iptables[port=\"%(port)s\", chain=\"%(fail2ban_version)s\"]\n[x]\nenabled = 1\nfilter = h[q=\"%(a)s\"]\nlogpath = %(default/c)s\n  %(fail2ban_confpath)s/log\n  %(other/c)s\nMaxRetry : 3\nfindtime=10 ; not ten\nbantime = 1y-6mo\n[other]\nb = [%(__name__)s]\n",
            ),
            (
                "p.conf",
                "[INCLUDES]\nbefore = p.conf\n  q.conf\n[DEFAULT]\nc = /from/p\n",
            ),
            (
                "q.conf",
                "[INCLUDES]\nbefore = p.conf\n[DEFAULT]\nc = /from/q\n",
            ),
            (
                "filter.d/h.local",
                "[Definition]\nfailregex = %(q)s <q> <HOST> <port> <logtype> <maxretry> <filter>\nignoreregex = <lt_<logtype>/x>\n[lt_file]\nx = is file\n[lt_journal]\nx = is journal\n",
            ),
            ("action.d/iptables-common.conf", "[Init]\n"),
        ],
    ),
    (
        "durations",
        &[(
            "jail.conf",
            "[DEFAULT]\nenabled = 1\nlogpath = /x\nfailregex = <HOST>\n\
             [a]\nbantime = 1d 12h\n[b]\nbantime = 1d12h30m\n[c]\nbantime = 1 week + 1 day - 2 hours\n[d]\nbantime = 3600 # an hour\n\
             [e]\nbantime = -1\n[f]\nbantime = 1.5 H\n[g]\nbantime = 2*7d\n[h]\nbantime = (1h 30min)/2\n[i]\nbantime = 1y 6mo 1mon\n\
             [j]\nbantime = 10 \n  5m\n[k]\nbantime = 7 // 2 + 1SEC\n[l]\nbantime = 1hou1mi1se\n[m]\nbantime = -(-5)\n[n]\nbantime = 3 - 2 - 1\n[o]\nbantime = 8/2/2*3\n",
        )],
    ),
    (
        "one bad jail does not stop the others",
        &[(
            "jail.local",
            "[no-filter]\nenabled = true\nfilter = nowhere\nlogpath = /x\n[good]\nenabled = true\nfilter = sshd\nlogpath = /x\n[no-action]\nenabled = true\nfilter = sshd\nlogpath = /x\naction = nothing\n[no-syntax]\nenabled = true\nfilter = sshd[mode=\"a\" b=c]\nlogpath = /x\n",
        )],
    ),
];

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn tricky_configurations_are_read_as_fail2ban_reads_them() {
    let dirs: Vec<_> = TRICKY
        .iter()
        .map(|(name, files)| Dir::stock(&name.replace(' ', "-")).with(files))
        .collect();
    let theirs = oracle(&dirs.iter().map(|dir| dir.0.as_path()).collect::<Vec<_>>());
    let mut compared = Compared::default();
    for ((i, (name, _)), dir) in TRICKY.iter().enumerate().zip(&dirs) {
        compared.folder(name, dir, &theirs[i]);
    }
    compared.end();
}

/// Numbers without order, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.roll(all.len() as u64)).unwrap()]
    }

    /// A value of some pieces. What `name` may bring in has later letters, so that little of it goes in circles.
    fn value(&mut self, name: &str) -> String {
        let plain = [
            "x",
            "y z",
            "<HOST>",
            "[1]",
            "\n  more",
            "\n  # no\n  yes",
            " ; remark",
            "%(__name__)s",
            "<maxretry>",
            "<backend>",
            "<b c>",
        ];
        let deep = [
            "<c>",
            "%(d/e)s",
            "<d/e>",
            "<d/<x>>",
            "%(default/c)s",
            "<mode>",
            "<e-<mode>>",
            "%(d/x)s",
        ];
        let deeper = ["<b>", "%(b)s", "%(c)s", "<known/b>"];
        let all = [plain.as_slice(), &deep, &deeper].concat();
        let pieces = match name {
            "c" | "e" | "x" | "e-x" => plain.as_slice(),
            "b" => &all[..plain.len() + deep.len()],
            _ => &all,
        };
        let own = (self.roll(16) == 0).then(|| format!("%(known/{name})s"));
        (0..1 + self.roll(3))
            .map(|_| self.of(pieces))
            .chain(own.as_deref())
            .collect()
    }

    fn options(&mut self, names: &[&str]) -> String {
        let mut text = String::new();
        for name in names {
            if self.roll(3) > 0 {
                let value = self.value(name);
                text += &format!("{name} = {value}\n");
            }
        }
        text
    }

    /// Options whose text is kept as it is, each with lines behind it of which some go on with the value.
    fn lines(&mut self) -> String {
        let starts = [
            "=",
            " = a",
            ": a;b",
            "\t=\ta ; b",
            " == a",
            "=a # b",
            " = ; a",
            " : = ;",
            "=[a]",
        ];
        let more = [
            "",
            "  ",
            "  a",
            "\ta b ",
            " # a",
            "# a",
            ";a",
            "  ;a",
            "  a ; b ;c",
            "  a;b",
            "    a = b",
            "  [b]",
            "\u{a0}a",
            "\u{b}",
            " \x1c",
            "\r",
            "  a\r",
        ];
        let mut text = String::new();
        for name in [
            "logtimezone",
            "LogEncoding",
            "bantime.formula",
            " ignorecommand",
            "prefregex",
        ] {
            let start = self.of(&starts);
            text += &format!("{name}{start}\n");
            for _ in 0..self.roll(4) {
                text += self.of(&more);
                text += "\n";
            }
        }
        text
    }

    fn definition(&mut self, names: &[&str]) -> String {
        let mut text = String::from("[Definition]\n");
        text += &self.options(names);
        text += &self.options(&["a", "b", "e-x"]);
        if self.roll(3) > 0 {
            text += &format!("[Init]\nmode = x\n{}", self.options(&["a", "c"]));
        }
        if self.roll(3) == 0 {
            text += &format!("[Init?family=inet6]\n{}", self.options(&["a"]));
        }
        text += &format!(
            "[d]\n{}[DEFAULT]\na = 1\nb = 2\ne = 3\nc = 4\n{}",
            self.options(&["e", "x"]),
            self.options(&["x"])
        );
        text
    }

    fn call(&mut self, name: &str) -> String {
        let value =
            |dice: &mut Self| dice.of(&["\"<known/a>\"", "'%(b)s'", "1", "\"%(known/a)s\"", "x y"]);
        match self.roll(4) {
            0 => name.to_owned(),
            1 => format!("{name}[a={}]", value(self)),
            2 => format!("{name}[mode=y, b={}]", value(self)),
            _ => format!("{name}[a={}][c={}, d=5]", value(self), value(self)),
        }
    }

    fn jail(&mut self, name: &str) -> String {
        let mut text = format!(
            "[{name}]\nfilter = {}\naction = {}\n  {}\n",
            self.call("f"),
            self.call("act"),
            self.call("act[name=z]")
        );
        text += &self.options(&["a", "b", "c", "logtimezone", "ignoreip"]);
        if self.roll(4) == 0 {
            text += "failregex = %(known/failregex)s\n  <HOST>\n";
        }
        text
    }
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn made_up_configurations_are_read_as_fail2ban_reads_them() {
    let used = ["failregex", "ignoreregex", "datepattern"];
    let commands = ["actionstart", "actionban", "actionunban"];
    let mut dice = Dice(3);
    let dirs: Vec<_> = (0..200)
        .map(|i| {
            let jails = format!("[DEFAULT]\nenabled = true\nmaxretry = 5\nlogpath = /x\na = 1\nx = 4\nb = 2\ne = 3\nfailregex = f\nlogtimezone = z\nignoreip = i\n{}", dice.options(&["c"]));
            let conf = jails + &dice.jail("one") + "[d]\nenabled = no\ne = 1\n" + &dice.jail("two");
            let local = dice.jail("one");
            let include = dice.definition(&used);
            let filter = format!("[INCLUDES]\nbefore = g.conf\n{}", dice.definition(&used));
            let filter_local = dice.definition(&used);
            let action = dice.definition(&commands);
            let files = [
                ("jail.conf", conf.as_str()),
                ("jail.local", &local),
                ("filter.d/g.conf", &include),
                ("filter.d/f.conf", &filter),
                ("filter.d/f.local", &filter_local),
                ("action.d/act.conf", &action),
            ];
            Dir::new(&format!("made-up-{i}")).with(&files)
        })
        .collect();
    let theirs = oracle(&dirs.iter().map(|dir| dir.0.as_path()).collect::<Vec<_>>());
    let mut compared = Compared::default();
    for (i, dir) in dirs.iter().enumerate() {
        // One mistake stops all of fail2ban; what then runs here has nothing to be compared with.
        if theirs[i].get("error").is_none() {
            compared.folder(&format!("made-up-{i}"), dir, &theirs[i]);
        }
    }
    let (jails, _) = compared.end();
    println!("{jails} made-up jails equal");
    assert!(jails > 100);
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn lines_go_on_where_they_do_for_fail2ban() {
    let mut dice = Dice(1);
    let dirs: Vec<_> = (0..300)
        .map(|i| {
            let conf = format!(
                "[j]\nenabled = true\nlogpath = /x\nfilter =\nfailregex = x <HOST>\n{}",
                dice.lines()
            );
            Dir::new(&format!("lines-{i}")).with(&[("jail.conf", &conf)])
        })
        .collect();
    let theirs = oracle(&dirs.iter().map(|dir| dir.0.as_path()).collect::<Vec<_>>());
    let mut compared = Compared::default();
    for (i, dir) in dirs.iter().enumerate() {
        let refused = theirs[i].get("error").is_some();
        if refused {
            assert!(
                !Folder::read(&dir.0).broken.is_empty(),
                "lines-{i}: {}",
                theirs[i]
            );
        } else {
            compared.folder(&format!("lines-{i}"), dir, &theirs[i]);
        }
    }
    let (jails, _) = compared.end();
    println!("{jails} jails of odd lines equal");
    assert!(jails > 50);
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn all_stock_jails_are_read_soon() {
    let dir = Dir::stock("soon").with(&[("jail.local", "[DEFAULT]\nenabled = true\n")]);
    let begun = Instant::now();
    let folder = Folder::read(&dir.0);
    let took = begun.elapsed();
    println!(
        "{} jails of {} files in {took:?}",
        folder.jails.len(),
        folder.files.len()
    );
    let mut files = folder.files.clone();
    files.sort();
    files.dedup();
    assert_eq!(files.len(), folder.files.len(), "each file is read once");
}
