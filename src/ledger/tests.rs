use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A state directory that goes when the test does.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-ledger-{}-{name}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        Self(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("f2b-pipe.sqlite3")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn open(&self, now: f64) -> (Ledger, Past) {
        Ledger::open(&self.file(), Limits::default(), now).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn ban(key: &str, start: f64, bantime: Option<f64>, bans: u32) -> Decision {
    Decision {
        key: Key::parse(key),
        what: What::Ban(Ban {
            standing: Standing { start, bantime },
            bans,
            count: 5,
            failures: 5,
            lines: vec!["one".into(), "two".into()],
            noted: true,
            restored: false,
        }),
    }
}

fn remembered(key: &str, start: f64, bantime: Option<f64>, bans: u32) -> (String, Remembered) {
    let remembered = Remembered {
        key: Key::parse(key),
        standing: Standing { start, bantime },
        bans,
    };
    ("sshd".into(), remembered)
}

#[test]
fn what_was_noted_is_there_after_a_restart() {
    let dir = Dir::new("restart");
    let (ledger, past) = dir.open(1000.0);
    assert_eq!(past, Past::default());
    for decision in [
        ban("192.0.2.1", 1000.125, Some(600.0), 1),
        ban("2001:db8::/64", 1000.0, None, 3),
        ban("root", 1000.0, Some(60.0), 1),
        ban("192.0.2.4", 1000.0, Some(600.0), 1),
        Decision {
            key: Key::parse("192.0.2.4"),
            what: What::Unban { at: 1010.0 },
        },
        Decision {
            key: Key::parse("192.0.2.1"),
            what: What::Prolong {
                standing: Standing {
                    start: 1000.125,
                    bantime: Some(700.1),
                },
                count: 5,
            },
        },
    ] {
        ledger.decided("sshd", &decision, 1000.0);
    }
    ledger.forget("sshd", &Key::parse("192.0.2.4"), 1010.0);
    ledger.position("/var/log/auth.log", "{\"offset\":7}".into(), 1000.0);
    ledger.position("/var/log/auth.log", "{\"offset\":9}".into(), 1000.0);
    ledger.cursor("_SYSTEMD_UNIT=ssh", "\"s=1\"".into(), 1000.0);
    assert_eq!(ledger.lost(), 0);
    assert!(ledger.close(PATIENCE));

    let (ledger, past) = dir.open(1200.0);
    assert_eq!(
        past.bans,
        [
            remembered("2001:db8::/64", 1000.0, None, 3),
            remembered("192.0.2.1", 1000.125, Some(700.1), 1),
        ],
        "root's ended meanwhile, 192.0.2.4's before"
    );
    let bad: Vec<_> = past
        .bad
        .iter()
        .map(|(jail, key, bad)| {
            format!("{jail} {key} {} {:?} {}", bad.last, bad.bantime, bad.count)
        })
        .collect();
    assert_eq!(
        bad,
        [
            "sshd 192.0.2.1 1000 Some(600.0) 1",
            "sshd 2001:db8::/64 1000 None 3",
            "sshd root 1000 Some(60.0) 1"
        ]
    );
    let places = |name: &str, place: &str| vec![(name.to_owned(), place.to_owned())];
    assert_eq!(
        past.positions,
        places("/var/log/auth.log", "{\"offset\":9}")
    );
    assert_eq!(past.cursors, places("_SYSTEMD_UNIT=ssh", "\"s=1\""));
    assert!(ledger.close(PATIENCE));
}

#[test]
fn what_is_old_is_purged() {
    let dir = Dir::new("purge");
    let (ledger, _) = dir.open(1000.0);
    ledger.decided("sshd", &ban("192.0.2.1", 1000.0, Some(600.0), 1), 1000.0);
    ledger.decided("sshd", &ban("192.0.2.2", 1000.0, None, 1), 1000.0);
    ledger.position("/var/log/auth.log", "{}".into(), 1000.0);
    assert!(ledger.close(PATIENCE));
    let end = 1000.0 + 3.0 * 600.0 + 86_400.0;
    let (ledger, past) = dir.open(end);
    assert_eq!(past.bad.len(), 2);
    // An hour later in the middle of its work.
    ledger.position("/var/log/auth.log", "{}".into(), end + 3601.0);
    assert!(ledger.close(PATIENCE));
    let open = Connection::open(dir.file()).unwrap();
    let keys: String = open
        .query_row("SELECT group_concat(key) FROM bad", [], |row| row.get(0))
        .unwrap();
    assert_eq!(keys, "192.0.2.2");
    let bans: String = open
        .query_row("SELECT group_concat(key) FROM bans", [], |row| row.get(0))
        .unwrap();
    assert_eq!(bans, "192.0.2.2");
}

#[test]
fn a_broken_file_is_set_aside_and_a_new_one_begun() {
    let dir = Dir::new("broken");
    let breaks: [fn(&Path); 4] = [
        |file| {
            fs::write(
                file,
                "not a database, and longer than a header would be. ".repeat(99),
            )
            .unwrap()
        },
        |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        },
        |file| {
            let mut bytes = fs::read(file).unwrap();
            for byte in bytes.iter_mut().skip(4096) {
                *byte ^= 0x5a;
            }
            fs::write(file, bytes).unwrap();
        },
        |file| {
            let open = Connection::open(file).unwrap();
            open.pragma_update(None, "user_version", VERSION + 1)
                .unwrap();
        },
    ];
    for (n, broken) in (1..).zip(breaks) {
        let now = f64::from(n) * 10_000.0;
        let (ledger, _) = dir.open(now);
        for host in 0..200 {
            ledger.decided("sshd", &ban(&format!("192.0.2.{host}"), now, None, 1), now);
        }
        assert!(ledger.close(PATIENCE));
        broken(&dir.file());
        let (ledger, past) = dir.open(now + 5.0);
        assert_eq!(past, Past::default(), "break {n}");
        assert!(ledger.close(PATIENCE));
        assert!(
            dir.names()
                .contains(&format!("f2b-pipe.sqlite3.broken-{}", now + 5.0))
        );
    }
    let aside = dir
        .names()
        .iter()
        .filter(|name| name.contains("broken"))
        .count();
    assert_eq!(aside, SET_ASIDE_MAX);
}

#[test]
fn a_file_that_breaks_while_it_is_open_is_set_aside_too() {
    let dir = Dir::new("breaks");
    let (ledger, _) = dir.open(1000.0);
    ledger.decided("sshd", &ban("192.0.2.1", 1000.0, None, 1), 1000.0);
    std::thread::sleep(BATCH_PAUSE * 4);
    Connection::open(dir.file())
        .unwrap()
        .execute_batch("DROP TABLE bans")
        .unwrap();
    ledger.decided("sshd", &ban("192.0.2.2", 1001.0, None, 1), 1001.0);
    assert!(ledger.close(PATIENCE));
    let (ledger, past) = dir.open(1002.0);
    assert_eq!(past.bans, [remembered("192.0.2.2", 1001.0, None, 1)]);
    assert!(ledger.close(PATIENCE));
}

#[test]
fn where_nothing_can_be_written_nothing_is_remembered_and_nobody_waits() {
    let dir = Dir::new("nowhere");
    fs::write(&dir.0, "a file where the directory belongs").unwrap();
    let (ledger, past) = dir.open(1000.0);
    assert_eq!(past, Past::default());
    let begun = Instant::now();
    for _ in 0..3 * QUEUE {
        ledger.decided("sshd", &ban("192.0.2.1", 1000.0, None, 1), 1000.0);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    let lost = Arc::clone(&ledger.lost);
    assert!(ledger.close(PATIENCE));
    assert_eq!(lost.load(Ordering::Relaxed), 3 * QUEUE as u64);
    fs::remove_file(&dir.0).unwrap();
}

#[test]
fn a_full_file_loses_its_oldest_bans() {
    let dir = Dir::new("full");
    let lost = Arc::new(AtomicU64::new(0));
    let mut store = Store {
        path: dir.file(),
        limits: Limits {
            bytes: 1 << 20,
            ..Limits::default()
        },
        open: None,
        tried: None,
        next_purge: f64::MAX,
        lost: Arc::clone(&lost),
    };
    let note = |n: u32| {
        let at = 1000.0 + f64::from(n / 2);
        let key = Key::parse(&format!("10.0.{}.{}", n >> 9, n >> 1 & 255));
        let what = match ban("", at, Some(600.0), 1).what {
            What::Ban(ban) if n.is_multiple_of(2) => Noted::Ban {
                jail: "sshd".into(),
                key,
                ban,
            },
            What::Ban(_) | What::Prolong { .. } | What::Unban { .. } => Noted::Unban {
                jail: "sshd".into(),
                key,
                at: at + 1.0,
            },
        };
        Note { now: at, what }
    };
    for n in 0..60 {
        store.write(&(n * 500..(n + 1) * 500).map(note).collect::<Vec<_>>());
    }
    assert_eq!(lost.load(Ordering::Relaxed), 0);
    let (bans, keys, last): (u32, u32, f64) = store
        .open
        .as_ref()
        .unwrap()
        .query_row(
            "SELECT count(*), (SELECT count(*) FROM bad), max(start) FROM bans",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(last, 15_999.0, "what is new is there");
    assert!(bans < 8_000 && keys < 15_000, "{bans} bans, {keys} keys");
    drop(store);
    assert!(fs::metadata(dir.file()).unwrap().len() <= 1 << 20);
}

/// What a killed process leaves is what the files hold at that moment.
#[test]
fn what_was_written_is_whole_when_the_process_is_killed() {
    let (dir, after) = (Dir::new("killed"), Dir::new("after"));
    let (ledger, _) = dir.open(1000.0);
    ledger.decided("sshd", &ban("192.0.2.1", 1000.0, None, 1), 1000.0);
    std::thread::sleep(BATCH_PAUSE * 5);
    fs::create_dir(&after.0).unwrap();
    for name in dir.names() {
        fs::copy(dir.0.join(&name), after.0.join(&name)).unwrap();
    }
    let (killed, past) = after.open(1001.0);
    assert_eq!(past.bans, [remembered("192.0.2.1", 1000.0, None, 1)]);
    assert_eq!(
        after
            .names()
            .iter()
            .filter(|name| name.contains("broken"))
            .count(),
        0
    );
    assert!(killed.close(PATIENCE) && ledger.close(PATIENCE));
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_costs_history_and_nobody_waits() {
    use nix::mount::{MsFlags, mount, umount};
    let dir = Dir::new("disk");
    fs::create_dir(&dir.0).unwrap();
    mount(
        Some("tmpfs"),
        &dir.0,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=400k"),
    )
    .unwrap();
    let (ledger, _) = dir.open(1000.0);
    let mut longest = Duration::ZERO;
    for n in 0..5_000u32 {
        let begun = Instant::now();
        let key = format!("10.0.{}.{}", n >> 8, n & 255);
        ledger.decided("sshd", &ban(&key, 1000.0, None, 1), 1000.0);
        longest = longest.max(begun.elapsed());
        if n.is_multiple_of(1000) {
            std::thread::sleep(BATCH_PAUSE * 2);
        }
    }
    let lost = Arc::clone(&ledger.lost);
    assert!(ledger.close(PATIENCE));
    assert!(lost.load(Ordering::Relaxed) > 0);
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let (ledger, past) = dir.open(1001.0);
    let closed = ledger.close(PATIENCE);
    umount(&dir.0).unwrap();
    assert!(closed);
    assert!(!past.bans.is_empty(), "what was written before is whole");
}
