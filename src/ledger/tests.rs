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
            before: None,
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

/// Random numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % sides
    }
}

/// Whatever stands in the file, a ledger opens, nothing waits, and what is noted from then on is there at the next start.
#[test]
fn a_file_with_random_bytes_in_it_costs_history_and_nothing_else() {
    let whole = Dir::new("whole");
    let (ledger, _) = whole.open(1000.0);
    for n in 0..300 {
        let key = format!("10.0.{}.{}", n / 250, n % 250);
        ledger.decided("sshd", &ban(&key, 1000.0, Some(86_400.0), 1), 1000.0);
    }
    ledger.position("/var/log/auth.log", "{\"offset\":7}".into(), 1000.0);
    assert!(ledger.close(PATIENCE));
    let bytes = fs::read(whole.file()).unwrap();
    let (mut set_aside, mut kept) = (0, 0);
    for seed in 0..150 {
        let dir = Dir::new("random");
        fs::create_dir(&dir.0).unwrap();
        let mut dice = Dice(seed);
        let mut spoilt = bytes.clone();
        let (place, n) = (dice.roll(spoilt.len()), 1 + dice.roll(2000));
        match seed % 3 {
            // Here and there, in one place, or cut off.
            0 => (0..n).for_each(|_| {
                let at = dice.roll(spoilt.len());
                spoilt[at] = dice.roll(256) as u8;
            }),
            1 => spoilt
                .iter_mut()
                .skip(place)
                .take(n)
                .for_each(|byte| *byte = dice.roll(256) as u8),
            _ => spoilt.truncate(place),
        }
        fs::write(dir.file(), &spoilt).unwrap();
        let (ledger, past) = dir.open(1001.0);
        ledger.decided("sshd", &ban("192.0.2.7", 1001.0, None, 1), 1001.0);
        assert!(ledger.close(PATIENCE), "seed {seed}");
        let (ledger, after) = dir.open(1002.0);
        assert!(
            after
                .bans
                .contains(&remembered("192.0.2.7", 1001.0, None, 1)),
            "seed {seed}: {:?}",
            dir.names()
        );
        assert!(ledger.close(PATIENCE), "seed {seed}");
        match dir.names().iter().any(|name| name.contains("broken")) {
            true => set_aside += 1,
            false => kept += past.bans.len(),
        }
    }
    assert!(
        set_aside > 50 && kept > 0,
        "{set_aside} set aside, {kept} bans read"
    );
}

/// The same of what was not yet written into the file itself when the process was killed.
#[test]
fn a_journal_with_random_bytes_in_it_costs_history_and_nothing_else() {
    let whole = Dir::new("journal");
    let (ledger, _) = whole.open(1000.0);
    for n in 0..100 {
        ledger.decided(
            "sshd",
            &ban(&format!("10.0.0.{n}"), 1000.0, None, 1),
            1000.0,
        );
    }
    std::thread::sleep(BATCH_PAUSE * 5);
    let files: Vec<(String, Vec<u8>)> = whole
        .names()
        .into_iter()
        .filter(|name| !name.ends_with("-shm"))
        .map(|name| (name.clone(), fs::read(whole.0.join(&name)).unwrap()))
        .collect();
    assert!(
        files
            .iter()
            .any(|(name, bytes)| name.ends_with("-wal") && !bytes.is_empty())
    );
    assert!(ledger.close(PATIENCE));
    for seed in 0..40 {
        let dir = Dir::new("wal");
        fs::create_dir(&dir.0).unwrap();
        let mut dice = Dice(seed);
        for (name, bytes) in &files {
            let mut bytes = bytes.clone();
            if name.ends_with("-wal") {
                for _ in 0..1 + dice.roll(500) {
                    let at = dice.roll(bytes.len());
                    bytes[at] = dice.roll(256) as u8;
                }
            }
            fs::write(dir.0.join(name), bytes).unwrap();
        }
        let (ledger, _) = dir.open(1001.0);
        ledger.decided("sshd", &ban("192.0.2.7", 1001.0, None, 1), 1001.0);
        assert!(ledger.close(PATIENCE), "seed {seed}");
        let (ledger, after) = dir.open(1002.0);
        assert!(
            after
                .bans
                .contains(&remembered("192.0.2.7", 1001.0, None, 1)),
            "seed {seed}"
        );
        assert!(ledger.close(PATIENCE));
    }
}

/// A ledger with three bans, one of them over, one for ever.
fn three_bans(file: &Path) {
    let now = 1_760_000_000.0;
    let (ledger, _) = Ledger::open(file, Limits::default(), now).unwrap();
    for decision in [
        ban("2001:db8::/64", now, None, 3),
        ban("192.0.2.1", now + 0.5, Some(600.0), 1),
        ban("root", now, Some(60.0), 1),
    ] {
        ledger.decided("sshd", &decision, now);
    }
    ledger.position("/var/log/auth.log", "[]".into(), now);
    ledger.cursor("_SYSTEMD_UNIT=ssh", "\"s=1\"".into(), now);
    assert!(ledger.close(PATIENCE));
}

/// In tests/ledgers is one of each schema that was ever released, made by the version that had it; none is changed later.
#[test]
fn ledgers_of_every_released_schema_load() {
    let fresh = Dir::new("fresh");
    three_bans(&fresh.file());
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledgers");
    let released = (1..=VERSION).map(|version| tree.join(format!("version-{version}.sqlite3")));
    for file in released.chain([fresh.file()]) {
        if !file.exists() {
            // The first run with a new schema makes its file, to be committed.
            fs::copy(fresh.file(), &file).unwrap();
            panic!("{} was missing, and is made: commit it", file.display());
        }
        let dir = Dir::new("released");
        fs::create_dir(&dir.0).unwrap();
        fs::copy(&file, dir.file()).unwrap();
        let (ledger, past) = dir.open(1_760_000_300.0);
        assert_eq!(
            past.bans,
            [
                remembered("2001:db8::/64", 1_760_000_000.0, None, 3),
                remembered("192.0.2.1", 1_760_000_000.5, Some(600.0), 1),
            ]
        );
        assert_eq!(past.bad.len(), 3);
        assert_eq!(
            past.positions,
            [("/var/log/auth.log".to_owned(), "[]".to_owned())]
        );
        assert_eq!(past.cursors.len(), 1);
        let later = ban("192.0.2.9", 1_760_000_300.0, None, 1);
        ledger.decided("sshd", &later, 1_760_000_300.0);
        assert!(ledger.close(PATIENCE));
        let (ledger, past) = dir.open(1_760_000_301.0);
        assert_eq!(past.bans.len(), 3);
        assert!(ledger.close(PATIENCE));
        assert!(!dir.names().iter().any(|name| name.contains("broken")));
    }
}

fn foreign(key: &str, start: f64, bantime: Option<f64>, number: u32) -> beside::Foreign {
    beside::Foreign {
        jail: "sshd".to_owned(),
        key: Key::parse(key),
        standing: Standing { start, bantime },
        number,
        failures: 5,
        lines: vec!["one".into()],
    }
}

#[test]
fn what_another_program_remembered_is_put_in_beside_the_owner_and_only_once() {
    use beside::{Beside, Put};
    let dir = Dir::new("beside");
    let now = 200_000.0;
    let (ledger, _) = dir.open(now);
    // Banned here since, and let out again; banned here and standing.
    ledger.decided("sshd", &ban("192.0.2.3", now, Some(60.0), 1), now);
    assert!(ledger.look(PATIENCE).is_some());
    let last = [
        foreign("192.0.2.1", now - 100.0, Some(600.0), 4),
        foreign("192.0.2.2", now - 700.0, Some(600.0), 2),
        foreign("192.0.2.3", now - 50.0, Some(600.0), 7),
        foreign("192.0.2.4", now - 190_000.0, Some(600.0), 1),
        foreign("192.0.2.5", now - 190_000.0, None, 1),
    ];
    let past = [
        foreign("192.0.2.1", now - 100.0, Some(600.0), 4),
        foreign("192.0.2.1", now - 5_000.0, Some(600.0), 3),
        foreign("192.0.2.1", now - 190_000.0, Some(600.0), 1),
    ];
    let mut open = Beside::open(&dir.file(), Limits::default(), now).unwrap();
    assert_eq!(
        open.last(&last, now).unwrap(),
        [Put::Stands, Put::Over, Put::Known, Put::Old, Put::Stands]
    );
    assert_eq!(
        open.past(&past, now).unwrap(),
        [Put::Known, Put::Over, Put::Old]
    );
    let look = ledger.look(PATIENCE).unwrap();
    assert_eq!(
        look.bans,
        [
            remembered("192.0.2.5", now - 190_000.0, None, 1),
            remembered("192.0.2.1", now - 100.0, Some(600.0), 4),
            remembered("192.0.2.3", now, Some(60.0), 1),
        ]
    );
    let count = |past: &Past, key: &str| {
        let of = past.bad.iter().find(|(_, of, _)| *of == Key::parse(key));
        of.map(|(_, _, bad)| (bad.count, bad.bantime))
    };
    assert_eq!(count(&look, "192.0.2.2"), Some((2, Some(600.0))));
    // His latest ban is ours, and the number of his bans theirs.
    assert_eq!(count(&look, "192.0.2.3"), Some((7, Some(60.0))));
    assert_eq!(count(&look, "192.0.2.4"), None);
    // He is let out by hand, and not put back.
    let (key, what) = (Key::parse("192.0.2.1"), What::Unban { at: now + 1.0 });
    ledger.forget("sshd", &key, now + 1.0);
    ledger.decided("sshd", &Decision { key, what }, now + 1.0);
    assert!(ledger.look(PATIENCE).is_some());
    assert_eq!(
        open.last(&last, now + 2.0).unwrap(),
        [Put::Known, Put::Known, Put::Known, Put::Old, Put::Known]
    );
    let look = ledger.look(PATIENCE).unwrap();
    assert_eq!(count(&look, "192.0.2.1"), None);
    assert_eq!(look.bans.len(), 2);
    drop(open);
    assert!(ledger.close(PATIENCE));
}
