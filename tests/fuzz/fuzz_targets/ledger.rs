//! A ledger with anything in its rows, or in its bytes: it is opened, or set aside and begun anew, and what it remembers
//! can be restored. Whoever is banned by that stands in a row.
//!
//! The first byte: even, the rest is rows; odd, pairs of a place (three bytes) and what stands there from now on. A row is a
//! byte for the table and its values; a value is a byte for its kind and what it is.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use f2b_pipe::bans::{
    Bounds, Failure, History, HistoryBounds, Increment, IncrementOptions, Terms, Warden,
};
use f2b_pipe::count::keyed::{Rule, Way};
use f2b_pipe::ledger::{Ledger, Limits, Past};
use libfuzzer_sys::fuzz_target;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

/// 2026-11-25 12:00 UTC.
const NOW: f64 = 1_795_608_000.0;
const TABLES: [(&str, usize); 4] = [("bans", 10), ("bad", 5), ("positions", 3), ("cursors", 3)];
const ROWS_MAX: usize = 20;
const PATIENCE: Duration = Duration::from_secs(20);

struct Place {
    file: PathBuf,
    /// An empty ledger.
    empty: Vec<u8>,
}

thread_local! {
    static PLACE: Place = {
        let folder = Path::new("/dev/shm").join(format!("f2b-fuzz-ledger-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        let file = folder.join("f2b-pipe.sqlite");
        opened(&file);
        let empty = fs::read(&file).expect("a ledger was begun");
        Place { file, empty }
    };
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    PLACE.with(|Place { file, empty }| {
        let mut bytes = empty.clone();
        if kind % 2 == 1 {
            for patch in rest.chunks_exact(4) {
                let at = usize::from(patch[0]) << 16
                    | usize::from(patch[1]) << 8
                    | usize::from(patch[2]);
                let length = bytes.len();
                bytes[at % length] = patch[3];
            }
        }
        fs::write(file, bytes).expect("the file can be written");
        let mut rows = 0;
        if kind % 2 == 0 {
            rows = put(file, rest);
        }
        let past = opened(file);
        assert!(past.bans.len() <= rows || kind % 2 == 1);
        restore(past);
        for entry in fs::read_dir(file.parent().expect("a folder"))
            .expect("it can be read")
            .flatten()
        {
            fs::remove_file(entry.path()).ok();
        }
    });
});

/// What the ledger remembers; it is closed again.
fn opened(file: &Path) -> Past {
    let (ledger, past) = Ledger::open(file, Limits::default(), NOW).expect("a thread");
    assert!(ledger.close(PATIENCE));
    past
}

/// Rows that SQLite takes; how many.
fn put(file: &Path, mut bytes: &[u8]) -> usize {
    let open = Connection::open(file).expect("the empty ledger");
    let mut rows = 0;
    while let (Some((table, rest)), true) = (bytes.split_first(), rows < ROWS_MAX) {
        bytes = rest;
        let (table, columns) = TABLES[usize::from(*table) % TABLES.len()];
        let values: Vec<Value> = (0..columns).map(|_| value(&mut bytes)).collect();
        let places = vec!["?"; columns].join(", ");
        let row = open.execute(
            &format!("INSERT INTO {table} VALUES ({places})"),
            params_from_iter(values),
        );
        rows += usize::from(row.is_ok());
    }
    rows
}

fn value(bytes: &mut &[u8]) -> Value {
    let mut take = |most: usize| {
        let (taken, rest) = bytes.split_at(most.min(bytes.len()));
        *bytes = rest;
        taken.to_vec()
    };
    let kind = take(1).first().copied().unwrap_or_default();
    let eight = |bytes: Vec<u8>| {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(&bytes);
        eight
    };
    match kind % 8 {
        0 => Value::Null,
        1 => Value::Integer(i64::from_le_bytes(eight(take(8)))),
        2 => Value::Real(f64::from_le_bytes(eight(take(8)))),
        3 => Value::Text(String::from_utf8_lossy(&take(usize::from(kind / 8))).into_owned()),
        4 => Value::Blob(take(usize::from(kind / 8))),
        5 => Value::Text("sshd".to_owned()),
        6 => Value::Text(format!("192.0.2.{kind}")),
        // Around the clock, so that bans stand.
        _ => Value::Real(NOW - 1000.0 + f64::from(kind) * 100.0),
    }
}

/// What was remembered, as the desk takes it up.
fn restore(past: Past) {
    let mut history = History::new(HistoryBounds::default());
    for (_, key, bad) in &past.bad {
        history.put(key, 0, *bad);
    }
    let growing = Increment::new("sshd", &IncrementOptions::default()).expect("the defaults");
    for increment in [None, Some(growing)] {
        let rule = Rule {
            way: Way::Estimate,
            findtime: 600.0,
            maxretry: 3,
            maxmatches: 2,
        };
        let terms = Terms {
            rule,
            bantime: Some(600.0),
            increment,
        };
        let mut warden = Warden::new(0, terms, Bounds::default());
        for (_, remembered) in past.bans.clone() {
            let key = remembered.key.clone();
            let stands = warden.restore(remembered, NOW, &mut |_| {});
            assert!(
                !stands
                    || warden
                        .banned(&key)
                        .is_some_and(|s| s.end().is_none_or(|end| end > NOW))
            );
        }
        for (_, remembered) in &past.bans {
            let failure = Failure {
                key: &remembered.key,
                at: NOW,
                line: None,
            };
            warden.attempt(&failure, 5, NOW, &mut history, &mut |_| {});
        }
        warden.advance(NOW + 1e6, &mut |_| {});
        for key in past.bans.iter().map(|(_, remembered)| &remembered.key) {
            assert!(
                warden
                    .banned(key)
                    .is_none_or(|s| s.end().is_none_or(|end| end > NOW + 1e6))
            );
        }
    }
}
