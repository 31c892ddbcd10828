//! Bans, their ends and their growth against fail2ban's own classes (`tests/oracle/decisions.py`): the same failures, and
//! the decisions must be the same, in the same order, to the last digit. `DECISIONS_SEED=100` makes other failures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use f2b_pipe::bans::{
    Bounds, Decision, Failure, Formula, History, HistoryBounds, Increment, IncrementOptions, Terms,
    Warden, What,
};
use f2b_pipe::count::keyed::{Rule, Way};
use f2b_pipe::key::Key;
use serde_json::{Value, json};

/// Numbers for both sides.
#[derive(Clone)]
struct Chance(Arc<Mutex<u64>>);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// From 0 to 1, as `Chance` in the script.
    fn draw(&self) -> f64 {
        let mut state = self.0.lock().unwrap();
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from((*state >> 32) as u32) / 4_294_967_296.0
    }

    fn below(&self, n: u32) -> u32 {
        (self.draw() * f64::from(n)) as u32
    }

    fn of<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len() as u32) as usize]
    }
}

/// A jail, as both sides are told of it.
#[derive(Clone, Copy)]
struct Jail {
    maxretry: u32,
    findtime: f64,
    /// -1: for ever.
    bantime: f64,
    /// `None`: without increment.
    increment: Option<IncrementOptions<'static>>,
}

const PLAIN: Jail = Jail {
    maxretry: 5,
    findtime: 600.0,
    bantime: 600.0,
    increment: None,
};

const DOUBLING: IncrementOptions<'static> = IncrementOptions {
    factor: None,
    formula: None,
    multipliers: None,
    maxtime: None,
    rndtime: None,
    overalljails: false,
};

struct Run {
    seed: u64,
    jails: Vec<Jail>,
    failures: usize,
    keys: u32,
    /// Times with fractions, as epoch formats give them.
    fractions: bool,
    /// Have fail2ban clean up all counters before each failure, which takes long.
    everything: bool,
    /// Somebody bans, unbans and counts by hand, too.
    by_hand: bool,
    purgeage: f64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            seed: 1,
            jails: vec![PLAIN],
            failures: 50_000,
            keys: 3_000,
            fractions: false,
            everything: false,
            by_hand: false,
            purgeage: 86_400.0,
        }
    }
}

struct Event {
    now: f64,
    at: f64,
    jail: usize,
    key: String,
    what: Happening,
}

#[derive(Clone, Copy)]
enum Happening {
    Failure,
    Ban,
    Unban,
    Attempts(u32),
}

impl Run {
    /// Each key fails in its own manner: around the edges of findtime and bantime, in bursts, seldom.
    fn events(&self) -> Vec<Event> {
        let more = std::env::var("DECISIONS_SEED").map_or(0, |seed| seed.parse().unwrap());
        let chance = Chance::new(self.seed + more);
        let start = 1_700_000_000.0;
        let mut events = Vec::with_capacity(self.failures);
        for n in 0.. {
            if events.len() >= self.failures {
                break;
            }
            let who = n % self.keys;
            let key = match who % 10 {
                8 => format!("2001:db8::{who:x}"),
                9 => format!("user-{who}"),
                _ => format!("192.{}.{}.{}", who >> 16, who >> 8 & 255, who & 255),
            };
            let jail = chance.below(self.jails.len() as u32) as usize;
            let Jail {
                maxretry,
                findtime,
                bantime,
                ..
            } = self.jails[jail];
            let even = findtime / f64::from(maxretry.max(2) - 1);
            let ban = bantime.max(60.0);
            let mut now = start + f64::from(chance.below(200_000));
            let manner = chance.below(6);
            for _ in 0..1 + chance.below(3 * maxretry + 8) {
                let pause = match manner {
                    0 => f64::from(chance.below(3)),
                    1 => even * (0.8 + chance.draw() * 0.5),
                    2 => chance.of(&[even, even + 1.0, even - 1.0, findtime, findtime - 1.0]),
                    3 => chance.of(&[ban, ban + 1.0, ban - 1.0, 0.0, 0.0, 0.0, 1.0]),
                    4 => chance.of(&[findtime, findtime + 1.0, 1.0, 0.0, 2.0 * ban, ban / 2.0]),
                    _ => findtime * chance.draw() * 0.5,
                };
                now += if self.fractions {
                    (pause * 1000.0).round() / 1000.0
                } else {
                    pause.round()
                };
                let late = match chance.below(20) {
                    0..=13 => 0.0,
                    14..=16 => f64::from(chance.below(60)),
                    17 => chance.of(&[findtime, findtime - 1.0, ban, ban - 1.0, ban + 1.0]),
                    _ => -f64::from(chance.below(100)),
                };
                let what = match if self.by_hand { chance.below(60) } else { 60 } {
                    0 => Happening::Ban,
                    1..=3 => Happening::Unban,
                    4 => Happening::Attempts(1 + chance.below(4)),
                    _ => Happening::Failure,
                };
                events.push(Event {
                    now,
                    at: now - late,
                    jail,
                    key: key.clone(),
                    what,
                });
            }
        }
        events.truncate(self.failures);
        events.sort_by(|a, b| a.now.total_cmp(&b.now));
        events
    }

    fn fail2ban(&self, events: &[Event]) -> Vec<String> {
        let jails: Vec<Value> = (0..)
            .zip(&self.jails)
            .map(|(n, jail): (u32, _)| {
                let mut extra = serde_json::Map::new();
                if let Some(options) = &jail.increment {
                    extra.insert("increment".into(), json!("true"));
                    let texts = [
                        ("factor", options.factor),
                        ("formula", options.formula),
                        ("multipliers", options.multipliers),
                    ];
                    for (key, text) in texts {
                        extra.extend(text.map(|text| (key.to_owned(), json!(text))));
                    }
                    for (key, number) in
                        [("maxtime", options.maxtime), ("rndtime", options.rndtime)]
                    {
                        extra.extend(number.map(|number| (key.to_owned(), json!(number))));
                    }
                    extra.insert("overalljails".into(), json!(options.overalljails));
                }
                json!({
                    "name": format!("jail{n}"),
                    "maxretry": jail.maxretry,
                    "findtime": jail.findtime,
                    "bantime": jail.bantime,
                    "everything": self.everything,
                    "shortens": jail.increment.is_some_and(|options| options.factor == Some("0.5")),
                    "extra": extra,
                })
            })
            .collect();
        let mut input = json!({"jails": jails, "purgeage": self.purgeage}).to_string();
        input.push('\n');
        for Event {
            now,
            at,
            jail,
            key,
            what,
        } in events
        {
            let what = match what {
                Happening::Failure => "failure".to_owned(),
                Happening::Ban => "ban".to_owned(),
                Happening::Unban => "unban".to_owned(),
                Happening::Attempts(times) => times.to_string(),
            };
            writeln!(input, "{now} {at} {jail} {key} {what}").unwrap();
        }
        python(&[], &input)
            .lines()
            .map(|line| {
                let told: Value = serde_json::from_str(line).unwrap();
                let what = told["what"].as_str().unwrap();
                let time = |key: &str| told[key].as_str().map(|time| time.parse::<f64>().unwrap());
                let end = time("end");
                let mut line = format!("{what} {} {} {end:?}", told["jail"], told["key"]);
                if what == "ban" {
                    let (start, bans) = (time("start").unwrap(), &told["bans"]);
                    write!(line, " {start:?} #{bans} {}", told["noted"]).unwrap();
                }
                if what != "unban" {
                    write!(line, " of {}", told["count"]).unwrap();
                }
                line
            })
            .collect()
    }

    fn ours(&self, events: &[Event]) -> Vec<String> {
        let chance = Chance::new(1);
        let mut history = History::new(HistoryBounds {
            age: self.purgeage,
            ..HistoryBounds::default()
        });
        let mut wardens: Vec<Warden> = (0..)
            .zip(&self.jails)
            .map(|(n, jail)| {
                let terms = Terms {
                    rule: Rule {
                        way: Way::Estimate,
                        findtime: jail.findtime,
                        maxretry: jail.maxretry,
                        maxmatches: 0,
                    },
                    bantime: (jail.bantime != -1.0).then_some(jail.bantime),
                    increment: jail
                        .increment
                        .map(|options| Increment::new("jail", &options).unwrap()),
                };
                let mut warden = Warden::new(n, terms, Bounds::default());
                let chance = chance.clone();
                warden.set_random(Box::new(move || chance.draw()));
                warden
            })
            .collect();
        let mut told = Vec::new();
        for event in events {
            let key = Key::parse(&event.key);
            let failure = Failure {
                key: &key,
                at: event.at,
                line: None,
            };
            let jail = event.jail;
            let (warden, now, history) = (&mut wardens[jail], event.now, &mut history);
            let sink = &mut |decision: Decision| told.push(line(jail, &decision));
            match event.what {
                Happening::Failure => {
                    warden.failure(&failure, now, history, sink);
                }
                Happening::Ban => warden.ban(&key, now, history, sink),
                Happening::Unban => {
                    warden.unban(&key, now, history, sink);
                }
                Happening::Attempts(times) => warden.attempt(&failure, times, now, history, sink),
            }
        }
        told
    }

    fn is_the_same(&self) {
        let events = self.events();
        let (ours, fail2ban) = (self.ours(&events), self.fail2ban(&events));
        let first = ours.iter().zip(&fail2ban).position(|(a, b)| a != b);
        if let Some(first) = first {
            panic!(
                "decision {first} of {}: ours {}, fail2ban's {}",
                fail2ban.len(),
                ours[first],
                fail2ban[first]
            );
        }
        assert_eq!(ours.len(), fail2ban.len());
        let number = |what| ours.iter().filter(|line| line.starts_with(what)).count();
        let (bans, prolonged, unbans) = (number("ban"), number("prolong"), number("unban"));
        eprintln!(
            "{} failures: {bans} bans, {prolonged} prolonged, {unbans} unbans",
            events.len()
        );
        assert!(bans > events.len() / 200);
    }
}

fn line(jail: usize, Decision { key, what }: &Decision) -> String {
    let whose = format!("\"jail{jail}\" \"{key}\"");
    match what {
        What::Ban(ban) => format!(
            "ban {whose} {:?} {:?} #{} {} of {}",
            ban.until(),
            ban.standing.start,
            ban.bans,
            ban.noted,
            ban.count
        ),
        What::Prolong { standing, count } => {
            format!("prolong {whose} {:?} of {count}", standing.end())
        }
        What::Unban { at } => format!("unban {whose} {:?}", Some(*at)),
    }
}

fn python(arguments: &[&str], input: &str) -> String {
    // The system's own: that one has the package.
    let mut child = Command::new("/usr/bin/python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/oracle/decisions.py"
        ))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn plain_bans_are_fail2bans() {
    Run::default().is_the_same();
    Run {
        seed: 2,
        jails: vec![Jail {
            maxretry: 3,
            findtime: 3600.0,
            bantime: 60.0,
            ..PLAIN
        }],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn fractions_of_seconds_round_as_fail2bans() {
    Run {
        seed: 3,
        fractions: true,
        jails: vec![
            Jail {
                maxretry: 4,
                findtime: 333.3,
                ..PLAIN
            },
            Jail {
                bantime: 60.0,
                increment: Some(IncrementOptions {
                    rndtime: Some(17.0),
                    ..DOUBLING
                }),
                ..PLAIN
            },
        ],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn a_clean_up_of_all_counters_is_the_same_as_of_the_one_in_hand() {
    Run {
        seed: 4,
        failures: 10_000,
        keys: 500,
        everything: true,
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn permanent_and_very_short_bans_are_fail2bans() {
    Run {
        seed: 5,
        failures: 20_000,
        jails: vec![
            Jail {
                bantime: -1.0,
                ..PLAIN
            },
            Jail {
                maxretry: 1,
                findtime: 60.0,
                bantime: 1.0,
                ..PLAIN
            },
            Jail {
                maxretry: 2,
                bantime: 0.0,
                ..PLAIN
            },
        ],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn doubling_bans_are_fail2bans() {
    Run {
        seed: 6,
        keys: 2_000,
        jails: vec![Jail {
            bantime: 300.0,
            increment: Some(DOUBLING),
            ..PLAIN
        }],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn factor_maxtime_and_multipliers_are_fail2bans() {
    let jail = |options| Jail {
        maxretry: 4,
        bantime: 60.0,
        increment: Some(options),
        ..PLAIN
    };
    Run {
        seed: 7,
        jails: vec![
            jail(IncrementOptions {
                factor: Some("1.33"),
                maxtime: Some(3600.0),
                ..DOUBLING
            }),
            jail(IncrementOptions {
                multipliers: Some("1 5 30 60 300"),
                maxtime: Some(7200.0),
                rndtime: Some(300.0),
                ..DOUBLING
            }),
            jail(IncrementOptions {
                formula: Some(
                    "ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)",
                ),
                factor: Some("2.0 / 3"),
                ..DOUBLING
            }),
        ],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn bans_that_increment_makes_shorter_end_sooner() {
    Run {
        seed: 8,
        failures: 15_000,
        keys: 1_000,
        jails: vec![Jail {
            increment: Some(IncrementOptions {
                factor: Some("0.5"),
                multipliers: Some("1 1 0 3 1"),
                ..DOUBLING
            }),
            ..PLAIN
        }],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn bans_of_all_jails_count_as_fail2bans() {
    let overall = Some(IncrementOptions {
        overalljails: true,
        maxtime: Some(86_400.0),
        ..DOUBLING
    });
    Run {
        seed: 9,
        keys: 1_500,
        jails: vec![
            Jail {
                increment: overall,
                ..PLAIN
            },
            Jail {
                maxretry: 3,
                bantime: 120.0,
                increment: overall,
                ..PLAIN
            },
            Jail {
                maxretry: 4,
                bantime: 120.0,
                ..PLAIN
            },
        ],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn what_is_done_by_hand_is_as_in_fail2ban() {
    Run {
        seed: 12,
        keys: 1_000,
        failures: 20_000,
        by_hand: true,
        jails: vec![
            PLAIN,
            Jail {
                increment: Some(DOUBLING),
                ..PLAIN
            },
        ],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn what_is_purged_is_forgotten_as_in_fail2ban() {
    Run {
        seed: 10,
        keys: 1_000,
        failures: 20_000,
        purgeage: 20_000.0,
        jails: vec![Jail {
            increment: Some(DOUBLING),
            ..PLAIN
        }],
        ..Run::default()
    }
    .is_the_same();
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn keys_are_written_as_fail2ban_writes_them() {
    let written = [
        "192.0.2.7",
        "192.0.2.07",
        "192.0.2.999",
        "::ffff:192.0.2.7",
        "::FFFF:C000:207",
        "[2001:DB8:0:0:0:0:0:1]",
        "2001:db8:0:0:1:0:0:1",
        "2001:db8::/32",
        "2001:db8:1:2:3:4:5:6/64",
        "192.0.2.77/24",
        "192.0.2.77/255.255.255.0",
        "192.0.2.77/32",
        "fe80::1%eth0",
        "::",
        "1:2:3:4:5:6:7:8:9",
        "[]",
        "[x",
        "[name]",
        "www.example.com",
        "root",
        "Ünïcode",
        "a b",
    ];
    let told = python(&["keys"], &(written.join("\n") + "\n"));
    for (text, told) in written.iter().zip(told.lines()) {
        assert_eq!(Key::parse(text).to_string(), told, "{text}");
    }
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn formulas_have_pythons_values() {
    let chance = Chance::new(11);
    let mut written: Vec<(f64, u32, f64, String)> = [
        "ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor",
        "-2 ** 2 + 2 ** -1",
        "2 ** 3 ** 2",
        "7 // -2 * 100 + 7 % -2 + -7 // 2 + -7 % 2",
        "7.5 // -2 + -7.5 % 2",
        "round(2.5) + round(3.5) + round(-0.5)",
        "round(2.675, 2) + round(0.125, 2) + round(1234.5, 0)",
        "round(123456, -2) + round(15, -1) + round(25, -1)",
        "1 < 2 < 3 and not 3 < 2 or 5",
        "ban.Count and 7",
        "0 or ban.Time",
        "min(3, 1.0, 2) + max(1, 2.5)",
        "int(-3.9) + int(3.9) + abs(-3)",
        "math.log(8, 2) + math.log(10) + math.log2(9) + math.log10(7)",
        "math.floor(-2.5) + math.ceil(2.1) + math.trunc(-2.9)",
        "math.sqrt(-1)",
        "math.exp(1000)",
        "1 / 0",
        "1 % 0.0",
        "0 ** -1",
        "(-8) ** 0.5",
        "1 << -1",
        "1.5 << 1",
        "1 << 100 >> 98",
        "1 << 200",
        "10 ** 30 // 7",
        "random.random() * 100 + random.random()",
        "1e3 + .5 + 5. + 1E-2",
        "True + True",
        "int(1e300 * 1e300)",
        "math.pi * math.e",
        "5 if ban.Count > 3 else 6 if banFactor else 7",
        "math.pow(2, 0.5) + pow(2, 10) + math.fmod(-7, 3) + math.hypot(3, 4)",
    ]
    .iter()
    .map(|text| (600.0, 3, 1.5, (*text).to_owned()))
    .collect();
    fn random(chance: &Chance, depth: u32) -> String {
        let part = || random(chance, depth - 1);
        if depth == 0 || chance.below(6) == 0 {
            return match chance.below(6) {
                0 => "ban.Time".into(),
                1 => "ban.Count".into(),
                2 => "banFactor".into(),
                3 => format!("{}", chance.below(30)),
                4 => format!("{:?}", f64::from(chance.below(1000)) / 64.0),
                _ => "2".into(),
            };
        }
        match chance.below(10) {
            0..=5 => {
                let op = chance.of(&["+", "-", "*", "/", "//", "%", "<", ">=", "==", "and", "or"]);
                format!("{} {op} {}", part(), part())
            }
            6 => format!("({}) ** {}", part(), chance.below(4)),
            7 => format!("-({})", part()),
            8 => format!("({} if {} else {})", part(), part(), part()),
            _ => {
                let f = chance.of(&[
                    "int",
                    "round",
                    "float",
                    "abs",
                    "math.sqrt",
                    "math.log",
                    "math.floor",
                    "math.exp",
                ]);
                format!("{f}({})", part())
            }
        }
    }
    for _ in 0..20_000 {
        let time = f64::from(chance.below(5000));
        let factor = f64::from(chance.below(40)) / 8.0;
        written.push((time, chance.below(25), factor, random(&chance, 4)));
    }
    let input: String = written
        .iter()
        .map(|(time, count, factor, text)| {
            // As `Display` writes them, whole numbers are whole for Python too.
            format!("[{time}, {count}, {factor}]\t{text}\n")
        })
        .collect();
    let told = python(&["formulas"], &input);
    let chance = Chance::new(1);
    let mut numbers = 0;
    for ((time, count, factor, text), told) in written.iter().zip(told.lines()) {
        let ours = Formula::new(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .eval(*time, *count, *factor, &mut || chance.draw());
        match (ours, told.parse::<f64>()) {
            (Ok(ours), Ok(python)) => {
                numbers += 1;
                assert!(
                    ours == python || (ours.is_nan() && python.is_nan()),
                    "{text} with {time}, {count}, {factor}: ours {ours}, Python's {python}"
                );
            }
            (Err(_), Err(_)) => {}
            (ours, _) => {
                panic!("{text} with {time}, {count}, {factor}: ours {ours:?}, Python's {told}")
            }
        }
    }
    assert!(numbers > 10_000, "{numbers}");
}
