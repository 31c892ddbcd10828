use super::*;

const NOW: f64 = 1_795_590_000.0; // 2026-11-25 07:00 UTC

fn rules(failregex: &[&str]) -> Rules {
    Rules {
        failregex: failregex.iter().map(|&text| text.to_owned()).collect(),
        maxlines: 1,
        logtimezone: Some("UTC".to_owned()),
        ..Rules::default()
    }
}

/// What a line comes to: `id at regex`, or how it was seen.
fn judge(matcher: &mut Matcher, line: &str, stamp: Stamp, phase: Phase, now: f64) -> String {
    let mut failures = Vec::new();
    let clock = Clock { now, today: now };
    let seen = matcher.line(line, stamp, phase, clock, &mut failures);
    let told = |failure: &Failure| {
        let at = failure
            .time
            .map_or("?".to_owned(), |at| (at - NOW).to_string());
        format!("{} at {at} by {}", failure.id, failure.regex)
    };
    if failures.is_empty() {
        format!("{seen:?}")
    } else {
        failures.iter().map(told).collect::<Vec<_>>().join(", ")
    }
}

fn timeless(matcher: &mut Matcher, line: &str) -> String {
    judge(matcher, line, Stamp::InText, Phase::Timeless, NOW)
}

#[test]
fn the_date_is_cut_out_before_expressions_look() {
    let mut matcher = Matcher::new(&rules(&[r"^ \[\] <HOST> no$"])).unwrap();
    assert_eq!(
        timeless(&mut matcher, "2026-11-25 07:00:05 [] 192.0.2.7 no"),
        "192.0.2.7 at 5 by 0"
    );
    assert_eq!(
        timeless(&mut matcher, "2026-11-25 07:00:05 192.0.2.7 no"),
        "Missed"
    );
}

#[test]
fn a_log_that_is_followed_counts_odd_times_at_the_clock() {
    let mut matcher = Matcher::new(&rules(&["no <HOST>"])).unwrap();
    let mut at = |line: &str, phase| judge(&mut matcher, line, Stamp::InText, phase, NOW);
    let (near, far) = (
        "2026-11-25 06:59:05 no 192.0.2.7",
        "2026-11-25 05:00:00 no 192.0.2.7",
    );
    assert_eq!(at(near, Phase::Following), "192.0.2.7 at -55 by 0");
    assert_eq!(at(far, Phase::Following), "192.0.2.7 at 0 by 0");
    assert_eq!(at(far, Phase::Reading(600.0)), "Dropped");
    assert_eq!(
        at("2026-11-25 06:50:00 no 192.0.2.7", Phase::Reading(600.0)),
        "192.0.2.7 at -600 by 0"
    );
}

#[test]
fn a_line_without_a_date_has_the_last_one_for_a_minute() {
    let mut matcher = Matcher::new(&rules(&["no <HOST>"])).unwrap();
    let mut at = |line: &str, phase, now| judge(&mut matcher, line, Stamp::InText, phase, now);
    // Nothing is known yet: only a log that is followed says when.
    assert_eq!(
        at("no 192.0.2.7", Phase::Timeless, NOW),
        "192.0.2.7 at ? by 0"
    );
    assert_eq!(at("no 192.0.2.7", Phase::Reading(600.0), NOW), "Missed");
    assert_eq!(
        at("no 192.0.2.7", Phase::Following, NOW),
        "192.0.2.7 at 0 by 0"
    );
    assert_eq!(at("2026-11-25 06:59:50 x", Phase::Timeless, NOW), "Missed");
    assert_eq!(
        at("no 192.0.2.7", Phase::Timeless, NOW),
        "192.0.2.7 at -10 by 0"
    );
    assert_eq!(
        at("no 192.0.2.7", Phase::Timeless, NOW + 60.0),
        "192.0.2.7 at ? by 0"
    );
    // 30 February is no time.
    assert_eq!(
        at("2026-02-30 06:59:50 no 192.0.2.7", Phase::Timeless, NOW),
        "192.0.2.7 at -10 by 0"
    );
}

#[test]
fn the_first_failregex_decides_and_an_ignoreregex_ends_the_line() {
    let mut rules = rules(&["a <HOST>", "b <HOST>"]);
    rules.ignoreregex = vec!["spare".to_owned()];
    let mut matcher = Matcher::new(&rules).unwrap();
    assert_eq!(
        timeless(&mut matcher, "b 192.0.2.8 a 192.0.2.7"),
        "192.0.2.7 at ? by 0"
    );
    assert_eq!(timeless(&mut matcher, "b 192.0.2.8"), "192.0.2.8 at ? by 1");
    assert_eq!(timeless(&mut matcher, "a 192.0.2.7 spare"), "Ignored(0)");
}

#[test]
fn prefregex_gives_the_part_that_failregexes_see() {
    let mut rules = rules(&["^no$", "^from <F-ID>.+</F-ID>$"]);
    rules.prefregex = Some("^app: <ADDR>: <F-CONTENT>.+</F-CONTENT>$".to_owned());
    let mut matcher = Matcher::new(&rules).unwrap();
    assert_eq!(
        timeless(&mut matcher, "app: 192.0.2.7: no"),
        "192.0.2.7 at ? by 0"
    );
    assert_eq!(
        timeless(&mut matcher, "app: 192.0.2.7: from desk 3"),
        "desk 3 at ? by 1"
    );
    assert_eq!(timeless(&mut matcher, "other: 192.0.2.7: no"), "Missed");
}

#[test]
fn lines_of_a_connection_belong_together() {
    let mut matcher = Matcher::new(&rules(&[
        r"^<F-MLFID>\w+</F-MLFID> <F-NOFAIL>from</F-NOFAIL> <HOST>$",
        r"^<F-MLFID>\w+</F-MLFID> no <F-USER>\w+</F-USER>$",
        r"^<F-MLFID>\w+</F-MLFID> <F-MLFFORGET><F-MLFGAINED>in</F-MLFGAINED></F-MLFFORGET> <F-USER>\w+</F-USER>$",
    ]))
    .unwrap();
    let mut at = |line: &str| timeless(&mut matcher, line);
    // An address first, a failure later.
    assert_eq!(at("c1 from 192.0.2.7"), "Noted(0)");
    assert_eq!(at("c1 no root"), "192.0.2.7 at ? by 1");
    // A failure first: it waits for its address.
    assert_eq!(at("c2 no root"), "Noted(1)");
    assert_eq!(at("c2 from 192.0.2.8"), "192.0.2.8 at ? by 0");
    // Who gets in after a mistake has not failed.
    assert_eq!(at("c3 no me"), "Noted(1)");
    assert_eq!(at("c3 in me"), "Noted(2)");
    assert_eq!(at("c3 from 192.0.2.9"), "Noted(0)");
    // But not by a second name.
    assert_eq!(at("c4 from 192.0.2.10"), "Noted(0)");
    assert_eq!(at("c4 no root"), "192.0.2.10 at ? by 1");
    assert_eq!(at("c4 in me"), "192.0.2.10 at ? by 2");
}

#[test]
fn expressions_may_span_lines_and_leave_the_others() {
    let mut rules = rules(&[r"^conn <F-MLF>\d+</F-MLF> <HOST>$<SKIPLINES>^fail (?P=mlf)$"]);
    rules.maxlines = 4;
    let mut matcher = Matcher::new(&rules).unwrap();
    let mut at = |line: &str| timeless(&mut matcher, line);
    assert_eq!(at("conn 1 192.0.2.7"), "Missed");
    assert_eq!(at("conn 2 192.0.2.8"), "Missed");
    assert_eq!(at("fail 1"), "192.0.2.7 at ? by 0");
    // Connection 2 was skipped, not used up.
    assert_eq!(at("fail 2"), "192.0.2.8 at ? by 0");
    assert_eq!(at("fail 2"), "Missed");
}

#[test]
fn lines_between_those_that_one_expression_covers_are_kept() {
    let mut rules = rules(&[r"^conn <F-MLF>\d+</F-MLF> <HOST>$<SKIPLINES>^fail (?P=mlf)$"]);
    rules.maxlines = 5;
    let mut matcher = Matcher::new(&rules).unwrap();
    let mut at = |line: &str| timeless(&mut matcher, line);
    for (between, found) in [(0, true), (3, true), (4, false)] {
        assert_eq!(at("conn 1 192.0.2.7"), "Missed");
        for _ in 0..between {
            assert_eq!(at("noise"), "Missed");
        }
        assert_eq!(at("fail 1") == "192.0.2.7 at ? by 0", found, "{between}");
        for _ in 0..5 {
            assert_eq!(at("noise"), "Missed");
        }
    }
}

#[test]
fn names_are_looked_up_counted_or_not_found() {
    for (usedns, expected) in [
        (UseDns::Warn, "host.example at ? by 0 unresolved"),
        (UseDns::Raw, "host.example at ? by 0"),
        (UseDns::No, "Missed"),
    ] {
        let mut matcher = Matcher::new(&Rules {
            usedns,
            ..rules(&["^no <HOST>$"])
        })
        .unwrap();
        let mut failures = Vec::new();
        let clock = Clock {
            now: NOW,
            today: NOW,
        };
        let seen = matcher.line(
            "no host.example",
            Stamp::InText,
            Phase::Timeless,
            clock,
            &mut failures,
        );
        let found = failures.first().map(|failure| {
            let unresolved = if failure.unresolved {
                " unresolved"
            } else {
                ""
            };
            format!("{} at ? by 0{unresolved}", failure.id)
        });
        assert_eq!(found.unwrap_or_else(|| format!("{seen:?}")), expected);
    }
}

#[test]
fn a_filter_that_finds_nobody_is_refused() {
    let refused = |rules: &Rules| Matcher::new(rules).unwrap_err().to_string();
    assert!(refused(&rules(&[])).starts_with("failregex: there is none"));
    assert!(refused(&rules(&["no <HOST>", "nobody"])).starts_with("failregex 2: it finds nobody"));
    assert!(refused(&rules(&["(<HOST>"])).starts_with("failregex 1: "));
}

#[test]
fn an_expression_that_names_nobody_uses_up_its_lines_and_the_next_sees_what_is_left() {
    let mut rules = rules(&["^end", "^(?:<F-ID>never</F-ID>)?end", "^$", "."]);
    rules.prefregex = Some(r"^(?:from <HOST>: )?<F-CONTENT>.+</F-CONTENT>$".to_owned());
    let mut matcher = Matcher::new(&rules).unwrap();
    // Of a single line nothing is left, which the empty expression finds, and it names nobody either.
    assert_eq!(timeless(&mut matcher, "end"), "Missed");
    assert_eq!(
        timeless(&mut matcher, "from 192.0.2.7: end"),
        "192.0.2.7 at ? by 0"
    );
    rules.maxlines = 2;
    let mut matcher = Matcher::new(&rules).unwrap();
    assert_eq!(timeless(&mut matcher, "end"), "Missed");
    // Were "end" still there, the prefregex would begin with it.
    assert_eq!(
        timeless(&mut matcher, "from 192.0.2.8: end"),
        "192.0.2.8 at ? by 0"
    );
}

#[test]
fn users_may_be_tuples() {
    let mut matcher = Matcher::new(&rules(&[
        r"^c<F-MLFID>\d</F-MLFID> <F-USER>\w+</F-USER> <F-TUPLE_USER>\w+</F-TUPLE_USER> <HOST>",
    ]))
    .unwrap();
    let mut failures = Vec::new();
    let clock = Clock {
        now: NOW,
        today: NOW,
    };
    let line = "c1 a b 192.0.2.7";
    matcher.line(line, Stamp::InText, Phase::Timeless, clock, &mut failures);
    let parts = vec![Some("a".to_owned()), Some("b".to_owned())];
    assert_eq!(failures[0].users, [Kept::Tuple(parts)]);
}

#[test]
fn a_group_named_ip_is_hidden_where_something_else_than_the_address_is_counted() {
    let mut matcher = Matcher::new(&rules(&[
        r"^id <F-ID>\S+</F-ID> <HOST> <F-IP>\S+</F-IP>$",
        r"^<HOST> <F-IP>\S+</F-IP>$",
    ]))
    .unwrap();
    let clock = Clock {
        now: NOW,
        today: NOW,
    };
    let mut failures = Vec::new();
    for line in [
        "id one 192.0.2.7 x",
        "id 192.0.2.7 192.0.2.7 x",
        "192.0.2.7 x",
    ] {
        matcher.line(line, Stamp::InText, Phase::Timeless, clock, &mut failures);
    }
    let shown: Vec<bool> = failures
        .iter()
        .map(|failure| failure.groups.iter().any(|(name, _)| name == "ip"))
        .collect();
    assert_eq!(shown, [false, true, true]);
}
