use super::*;
use crate::count::keyed::Way;
use proptest::prelude::*;

fn terms() -> Terms {
    Terms {
        rule: Rule {
            way: Way::Estimate,
            findtime: 600.0,
            maxretry: 3,
            maxmatches: 2,
        },
        bantime: Some(600.0),
        increment: None,
    }
}

fn increment(options: &IncrementOptions<'_>) -> Option<Increment> {
    Some(Increment::new("sshd", options).unwrap())
}

/// A jail and a log of what it decided: `ban a 0..600`, with the clock ahead.
struct Trial {
    warden: Warden,
    history: History,
    log: Vec<String>,
}

impl Trial {
    fn new(terms: Terms) -> Self {
        Self {
            warden: Warden::new(0, terms, Bounds::default()),
            history: History::new(HistoryBounds::default()),
            log: Vec::new(),
        }
    }

    fn fail(&mut self, who: &str, at: f64, now: f64, times: usize) {
        let key = Key::parse(who);
        let failure = Failure {
            key: &key,
            at,
            line: Some("a line"),
        };
        for _ in 0..times {
            let log = &mut self.log;
            self.warden
                .failure(&failure, now, &mut self.history, &mut |d| {
                    log.push(shown(now, &d))
                });
        }
    }

    fn advance(&mut self, now: f64) {
        let log = &mut self.log;
        self.warden.advance(now, &mut |d| log.push(shown(now, &d)));
    }
}

fn shown(now: f64, Decision { key, what }: &Decision) -> String {
    let end = |end: &Option<f64>| end.map_or("ever".to_owned(), |end| end.to_string());
    match what {
        What::Ban(ban) => format!(
            "{now} ban {key} {}..{} #{} of {}",
            ban.standing.start,
            end(&ban.until()),
            ban.bans,
            ban.count
        ),
        What::Prolong { standing, .. } => {
            format!("{now} prolong {key} {}", end(&standing.end()))
        }
        What::Unban { at } => format!("{now} unban {key} {at}"),
    }
}

#[test]
fn a_ban_goes_from_the_last_failure_on_and_is_told_off_after_its_end() {
    let mut trial = Trial::new(terms());
    trial.fail("a", 100.0, 110.0, 2);
    trial.fail("a", 105.0, 110.0, 1);
    trial.advance(705.0);
    trial.advance(706.0);
    assert_eq!(trial.log, ["110 ban a 105..705 #1 of 3", "706 unban a 705"]);
}

#[test]
fn a_ban_that_would_be_over_is_not_made() {
    let mut trial = Trial::new(Terms {
        bantime: Some(10.0),
        ..terms()
    });
    trial.fail("a", 100.0, 111.0, 3);
    trial.fail("b", 101.0, 111.0, 3);
    assert_eq!(trial.log, ["111 ban b 101..111 #1 of 3"]);
}

#[test]
fn who_goes_on_is_prolonged_at_each_maxretry() {
    let mut trial = Trial::new(terms());
    trial.fail("a", 100.0, 100.0, 3);
    trial.fail("a", 200.0, 200.0, 2);
    trial.fail("a", 700.0, 700.0, 1);
    trial.fail("a", 690.0, 1300.0, 3);
    assert_eq!(
        trial.log,
        ["100 ban a 100..700 #1 of 3", "700 prolong a 1300"]
    );
}

#[test]
fn ends_are_told_in_their_order_before_the_failure_that_shows_the_time() {
    let mut trial = Trial::new(terms());
    trial.fail("a", 3.0, 3.0, 3);
    trial.fail("b", 2.0, 3.0, 3);
    trial.fail("c", 2.0, 3.0, 3);
    trial.fail("a", 1000.0, 1000.0, 3);
    assert_eq!(
        trial.log[3..],
        [
            "1000 unban b 602",
            "1000 unban c 602",
            "1000 unban a 603",
            "1000 ban a 1000..1600 #1 of 3"
        ]
    );
}

#[test]
fn a_failure_in_the_future_is_counted_at_the_clock() {
    let mut trial = Trial::new(terms());
    trial.fail("a", 9999.0, 100.0, 2);
    trial.fail("a", f64::NAN, 100.0, 1);
    assert_eq!(trial.log, ["100 ban a 100..700 #1 of 3"]);
}

#[test]
fn permanent_bans_never_end() {
    let mut trial = Trial::new(Terms {
        bantime: None,
        ..terms()
    });
    trial.fail("a", 100.0, 100.0, 6);
    trial.advance(1e12);
    assert_eq!(trial.log, ["100 ban a 100..ever #1 of 3"]);
    assert_eq!(trial.warden.next_end(), None);
}

#[test]
fn a_known_bad_key_is_banned_sooner_and_longer_each_time() {
    let mut trial = Trial::new(Terms {
        increment: increment(&IncrementOptions::default()),
        rule: Rule {
            maxretry: 5,
            ..terms().rule
        },
        ..terms()
    });
    trial.fail("a", 0.0, 0.0, 5);
    trial.fail("a", 1000.0, 1000.0, 3);
    trial.fail("a", 3000.0, 3000.0, 2);
    trial.fail("a", 9000.0, 9000.0, 1);
    assert_eq!(
        trial.log,
        [
            "0 ban a 0..600 #1 of 5",
            "1000 unban a 600",
            "1000 ban a 1000..2200 #2 of 5",
            "3000 unban a 2200",
            "3000 ban a 3000..5400 #3 of 6",
            "9000 unban a 5400",
            "9000 ban a 9000..13800 #4 of 5",
        ]
    );
}

#[test]
fn a_ban_by_hand_begins_at_once_and_an_unban_by_hand_forgets() {
    let mut trial = Trial::new(Terms {
        increment: increment(&IncrementOptions::default()),
        ..terms()
    });
    let key = Key::parse("192.0.2.7");
    let Trial {
        warden,
        history,
        log,
    } = &mut trial;
    warden.ban(&key, 10.0, history, &mut |d| log.push(shown(10.0, &d)));
    assert!(warden.unban(&key, 20.0, history, &mut |d| log.push(shown(20.0, &d))));
    assert!(!warden.unban(&key, 20.0, history, &mut |d| log.push(shown(20.0, &d))));
    warden.ban(&key, 30.0, history, &mut |d| log.push(shown(30.0, &d)));
    assert_eq!(
        trial.log,
        [
            "10 ban 192.0.2.7 10..610 #1 of 0",
            "20 unban 192.0.2.7 20",
            "30 ban 192.0.2.7 30..630 #1 of 0"
        ]
    );
}

#[test]
fn bans_are_restored_as_the_present_terms_allow() {
    let restored = |terms: Terms, start: f64, bantime: Option<f64>| {
        let mut trial = Trial::new(terms);
        let log = &mut trial.log;
        let remembered = Remembered {
            key: Key::parse("a"),
            standing: Standing { start, bantime },
            bans: 4,
        };
        let stands = trial.warden.restore(remembered, 1000.0, &mut |d| {
            log.push(shown(1000.0, &d));
        });
        assert_eq!(stands, log.len() == 1);
        log.pop()
    };
    let ban = |from_to: &str| Some(format!("1000 ban a {from_to} #4 of 0"));
    assert_eq!(restored(terms(), 900.0, Some(600.0)), ban("900..1500"));
    assert_eq!(restored(terms(), 900.0, None), ban("900..1500"));
    assert_eq!(restored(terms(), 900.0, Some(100.0)), None);
    assert_eq!(restored(terms(), 400.0, Some(5000.0)), None);
    let growing = Terms {
        increment: increment(&IncrementOptions {
            maxtime: Some(2000.0),
            ..IncrementOptions::default()
        }),
        ..terms()
    };
    assert_eq!(
        restored(growing.clone(), 400.0, Some(5000.0)),
        ban("400..2400")
    );
    assert_eq!(restored(growing, 400.0, None), ban("400..2400"));
    let forever = Terms {
        bantime: None,
        ..terms()
    };
    assert_eq!(restored(forever.clone(), 400.0, None), ban("400..ever"));
    assert_eq!(restored(forever, 400.0, Some(700.0)), ban("400..1100"));
}

proptest! {
    /// `count = "window"`, against lists of all that happened.
    #[test]
    fn a_window_bans_as_the_simplest_thing_that_can_be_right(
        failures in prop::collection::vec((0u32..60, 0u32..120, 0u32..3), 1..300),
        maxretry in 1u32..6,
    ) {
        let mut trial = Trial::new(Terms {
            rule: Rule { way: Way::Window, findtime: 100.0, maxretry, maxmatches: 0 },
            bantime: Some(150.0),
            increment: None,
        });
        let (mut naive, mut now) = (Vec::new(), 1000.0);
        let mut hits: Vec<Vec<f64>> = vec![Vec::new(); 3];
        let mut ends: Vec<Option<f64>> = vec![None; 3];
        for (pause, late, who) in failures {
            now += f64::from(pause);
            let at = now - f64::from(late);
            trial.fail(&who.to_string(), at, now, 1);
            let mut over: Vec<_> = (0..3).filter(|n| ends[*n].is_some_and(|end| end < now)).collect();
            over.sort_by(|a, b| ends[*a].unwrap().total_cmp(&ends[*b].unwrap()));
            for n in over {
                naive.push(format!("unban {n} {}", ends[n].take().unwrap()));
            }
            let who = who as usize;
            hits[who].push(at);
            hits[who].retain(|at| *at >= now - 100.0);
            if hits[who].len() >= maxretry as usize {
                let end = hits[who].drain(..).fold(0.0, f64::max) + 150.0;
                match ends[who] {
                    None => naive.push(format!("ban {who} {end}")),
                    Some(old) if end > old => naive.push(format!("prolong {who} {end}")),
                    Some(_) => continue,
                }
                ends[who] = Some(end);
            }
        }
        let words = |line: &String| {
            let words: Vec<_> = line.split([' ', '.']).collect();
            let end = if words[1] == "ban" { words[5] } else { words[3] };
            format!("{} {} {end}", words[1], words[2])
        };
        let told: Vec<_> = trial.log.iter().map(words).collect();
        // Ends at the same moment are told in the order in which the bans were made.
        let sorted = |lines: &[String]| {
            let mut lines = lines.to_vec();
            lines.sort();
            lines
        };
        prop_assert_eq!(sorted(&told), sorted(&naive));
        let bans = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| !line.starts_with("unban")).cloned().collect()
        };
        prop_assert_eq!(bans(&told), bans(&naive));
    }
}

#[test]
fn however_many_are_banned_the_tables_are_bounded() {
    let mut warden = Warden::new(
        0,
        Terms {
            rule: Rule {
                maxretry: 1,
                ..terms().rule
            },
            ..terms()
        },
        Bounds {
            bans: 1000,
            ..Bounds::default()
        },
    );
    let mut history = History::new(HistoryBounds {
        keys: 1000,
        ..HistoryBounds::default()
    });
    let (mut bans, mut unbans) = (0, 0);
    for n in 0..100_000u32 {
        let key = Key::Client(crate::client::Client::new(
            std::net::Ipv4Addr::from(n).into(),
        ));
        let failure = Failure {
            key: &key,
            at: f64::from(n) / 1_000.0,
            line: Some("a line"),
        };
        warden.failure(&failure, failure.at, &mut history, &mut |d| match d.what {
            What::Ban(_) => bans += 1,
            What::Unban { .. } => unbans += 1,
            What::Prolong { .. } => panic!(),
        });
        assert!(warden.bans() <= 1000 && history.len() <= 1000 && warden.counted() <= 1);
    }
    assert_eq!((bans, unbans), (100_000, 99_000));
}

#[test]
fn at_the_bound_of_bans_those_that_end_go_before_permanent_ones() {
    let mut trial = Trial::new(terms());
    trial.warden.bounds.bans = 2;
    trial.fail("a", 0.0, 0.0, 3);
    let forever = Terms {
        bantime: None,
        ..terms()
    };
    trial.warden.set_terms(forever);
    for who in ["b", "c", "d"] {
        trial.fail(who, 1.0, 1.0, 3);
    }
    let unbans: Vec<_> = trial
        .log
        .iter()
        .filter(|line| line.contains("unban"))
        .collect();
    assert_eq!(unbans, ["1 unban a 1", "1 unban b 1"]);
}

#[test]
fn attempts_by_hand_count_at_once() {
    let mut trial = Trial::new(terms());
    let key = Key::parse("a");
    let failure = Failure {
        key: &key,
        at: 0.0,
        line: None,
    };
    let Trial {
        warden,
        history,
        log,
    } = &mut trial;
    warden.attempt(&failure, 2, 10.0, history, &mut |d| {
        log.push(shown(10.0, &d))
    });
    warden.attempt(&failure, 7, 10.0, history, &mut |d| {
        log.push(shown(10.0, &d))
    });
    assert_eq!(trial.log, ["10 ban a 10..610 #1 of 9"]);
}

#[test]
fn a_formula_that_fails_costs_the_growth_and_not_the_ban() {
    let options = IncrementOptions {
        formula: Some("ban.Time / (3 - ban.Count)"),
        ..IncrementOptions::default()
    };
    let mut trial = Trial::new(Terms {
        increment: increment(&options),
        ..terms()
    });
    for n in 0..4 {
        let at = f64::from(n) * 10_000.0;
        trial.fail("a", at, at, 3);
        trial.advance(at + 9_000.0);
    }
    let bans: Vec<_> = trial
        .log
        .iter()
        .filter(|line| line.contains(" ban "))
        .collect();
    assert_eq!(bans[3], "30000 ban a 30000..30600 #4 of 3");
}

#[test]
fn messages_name_the_jail_the_key_and_what_can_be_written() {
    let said =
        |options: &IncrementOptions<'_>| Increment::new("sshd", options).unwrap_err().to_string();
    let formula = |text: &str| {
        said(&IncrementOptions {
            formula: Some(text),
            ..IncrementOptions::default()
        })
    };
    let said_of_import = formula("import os");
    let begins = "jail sshd: bantime.formula: \"import os\": \"import\" has no place here; write numbers, ban.Time,";
    assert!(said_of_import.starts_with(begins), "{said_of_import}");
    assert!(formula("ban.Time +").contains("ends too early"));
    assert!(formula("math.exp()").contains("math.exp() has other arguments"));
    assert!(formula("1.5 << 2").contains("<< and >> take whole numbers"));
    assert!(formula(&"(".repeat(400)).contains("too deep"));
    assert!(formula(&"1+".repeat(4000)).contains("too long"));
    assert!(
        said(&IncrementOptions {
            multipliers: Some("1 2 x"),
            ..IncrementOptions::default()
        })
        .ends_with("write whole numbers with blanks between them, as in 1 2 4 8 16")
    );
    assert!(
        said(&IncrementOptions {
            factor: Some("ban.Time"),
            ..IncrementOptions::default()
        })
        .contains("known in bantime.formula only")
    );
}
