use super::*;

fn pattern(source: &str) -> Pattern {
    Pattern::new(source, Options::default()).unwrap_or_else(|error| panic!("{source}: {error}"))
}

type Spans = (Range<usize>, Vec<Option<Range<usize>>>);

fn spans(source: &str, text: &str) -> Option<Spans> {
    let mut at = Groups::default();
    match pattern(source).find(text, &mut at) {
        Found::Yes => Some((at.whole(), at.named().to_vec())),
        Found::No => None,
        Found::TooHard => panic!("{source} is too hard"),
    }
}

#[test]
fn a_dollar_stands_before_the_last_newline() {
    assert_eq!(spans("b$", "ab\n").unwrap().0, 1..2);
    assert_eq!(spans("b$", "ab").unwrap().0, 1..2);
    assert!(spans("a$", "a\nb\n").is_none());
    assert!(spans(r"b\Z", "ab\n").is_none());
}

#[test]
fn a_host_is_an_address_or_else_a_name() {
    let (_, groups) = spans("from <HOST> port", "from 192.0.2.7 port\n").unwrap();
    assert_eq!(groups, [Some(5..14), None, None]);
    let (_, groups) = spans("from <HOST> port", "from 2001:db8::7 port\n").unwrap();
    assert_eq!(groups, [None, Some(5..16), None]);
    let (_, groups) = spans("from <HOST> port", "from www.example.org port\n").unwrap();
    assert_eq!(groups, [None, None, Some(5..20)]);
}

#[test]
fn tags_and_closing_tags_that_are_none_stay_text() {
    let expanded = |source| pattern(source).expanded();
    assert_eq!(expanded("<F-USER>x</F-USER>"), "(?P<user>x)");
    assert_eq!(
        expanded("<F-ID>x</F-ID> <F-PORT/>"),
        r"(?P<fid>x) (?P<fport>\w+)"
    );
    assert_eq!(expanded("x</F-USER> <W> <f-x>"), "x</F-USER> <W> <f-x>");
    assert_eq!(
        expanded("a<SKIPLINES>b<SKIPLINES>"),
        r"a\n(?P<skiplines0>(?:.*\n)*?)b\n(?P<skiplines1>(?:.*\n)*?)"
    );
    assert_eq!(expanded("((?i)x|(?:(?i)y))z"), "(?i:x|(?i:y))z");
    assert_eq!(expanded(r"\((?i:x)"), r"\((?i:x)");
}

#[test]
fn usedns_no_takes_addresses_only() {
    let options = Options {
        names: false,
        ..Options::default()
    };
    let pattern = Pattern::new("from <HOST> port", options).unwrap();
    let mut at = Groups::default();
    assert_eq!(
        pattern.find("from www.example.org port\n", &mut at),
        Found::No
    );
    assert_eq!(pattern.find("from [192.0.2.7] port\n", &mut at), Found::Yes);
    assert_eq!(pattern.groups().len(), 2);
}

#[test]
fn a_mistake_is_placed_in_what_was_written() {
    for (source, at, mistake) in [
        ("<HOST> (x", 7, Mistake::Unclosed),
        ("<HOST> x)", 8, Mistake::Unopened),
        ("<HOST> [x", 7, Mistake::UnclosedClass),
        ("<HOST> *+?", 9, Mistake::RepeatedTwice),
        ("<HOST> x{3,2}", 8, Mistake::MinAboveMax),
        (r"<HOST> \y", 7, Mistake::BadEscape("y".into())),
        ("<HOST> (?P=user)", 7, Mistake::NoSuchGroup("user".into())),
        ("<HOST> (?<=a|bc)", 7, Mistake::BehindVaries),
        ("<HOST> x(?i)", 8, Mistake::LateFlags),
        ("<HOST><HOST>", 6, Mistake::NameTwice("ip4".into())),
        ("<F-A-B>x</F-A-B>", 0, Mistake::BadName("a-b".into())),
        (" \t", 0, Mistake::Empty),
    ] {
        let error = Pattern::new(source, Options::default()).unwrap_err();
        assert_eq!(error, PatternError { at, mistake }, "{source}");
    }
}

#[test]
fn what_names_nobody_does_not_load() {
    let id = pattern("<F-MLFID>x</F-MLFID>");
    assert!(id.identifies(None).is_ok());
    assert!(pattern("x").identifies(Some(&id)).is_ok());
    assert_eq!(
        pattern("x").identifies(None).unwrap_err().mistake,
        Mistake::NoId
    );
}

#[test]
fn length_depth_and_size_are_bounded() {
    let refused = |source: &str| {
        Pattern::new(source, Options::default())
            .unwrap_err()
            .mistake
    };
    assert!(matches!(
        refused(&"x".repeat(70_000)),
        Mistake::TooLong { .. }
    ));
    assert!(matches!(
        refused(&"(".repeat(60_000)),
        Mistake::TooDeep { .. }
    ));
    assert!(matches!(
        refused(&"(?(1)".repeat(10_000)),
        Mistake::NoSuchGroup(_) | Mistake::TooDeep { .. }
    ));
    assert_eq!(refused("(?:(?:(?:ab){99}c){99}d){99}"), Mistake::TooLarge);
    assert!(matches!(refused("x{99999999999}"), Mistake::Count { .. }));
}

#[test]
fn patterns_that_double_their_time_elsewhere_are_judged() {
    let line = format!("{}!", "a".repeat(3000));
    for source in [
        "^(a+)+$",
        "(a|a)*b",
        "(?:a*)*b",
        "^(?:a?){50}a{50}b",
        "(.*)(.*)(.*)(.*)[b]",
        "(?:(?!b).)*b",
        "(a*)*?b",
    ] {
        assert_eq!(spans(source, &line), None, "{source}");
    }
}

#[test]
fn a_search_that_cannot_be_bounded_is_given_up() {
    let mut at = Groups::default();
    let line: String = (0..3000)
        .map(|n| format!("{n} "))
        .chain(["!".into()])
        .collect();
    let source = r"^(.+)(.+)(.+)\3\3\2\2\1\1!";
    assert_eq!(pattern(source).find(&line, &mut at), Found::TooHard);
    assert_eq!(pattern("!").find(&line, &mut at), Found::Yes);
}

#[test]
fn candidates_leave_out_only_what_cannot_match() {
    let patterns = Patterns::new(
        [
            "^Failed .* for",
            "(?i)invalid user",
            "^x?y*",
            "(?:gone|away) <HOST>",
        ]
        .map(pattern)
        .into(),
    );
    let mut candidates = Vec::new();
    let mut of = |text: &str| {
        patterns.candidates(text, &mut candidates);
        candidates.clone()
    };
    assert_eq!(of("Failed nothing for\n"), [0, 2]);
    assert_eq!(of("INVALID \u{17f}omething\n"), [1, 2]);
    assert_eq!(of("far away 192.0.2.7\n"), [2, 3]);
    assert_eq!(of(""), [2]);
}

#[test]
fn reach_tells_how_far_a_line_came() {
    let pattern = pattern(r"^Failed \S+ for <F-USER>\S+</F-USER> from <HOST> port \d+$");
    let piece = |text: &str| {
        let reach = pattern.reach(text);
        (reach.at, pattern.source()[reach.piece].to_owned())
    };
    assert_eq!(
        piece("Failed password for root from 192.0.2.7 prt 5\n"),
        (41, " port ".into())
    );
    assert_eq!(
        piece("Failed password for root from !\n"),
        (30, "<HOST>".into())
    );
    assert_eq!(piece("Filed\n"), (1, "Failed ".into()));
}

#[test]
fn characters_beyond_ascii_are_whole() {
    assert_eq!(spans(r"^.(.)$", "é€\n").unwrap().0, 0..5);
    assert_eq!(spans(r"\w+", "«naïve»").unwrap().0, 2..8);
    assert_eq!(spans(r"(?i)É+", "xéÉ").unwrap().0, 1..5);
    assert_eq!(spans(r"(?<=é.)x", "éyx").unwrap().0, 3..4);
    assert!(spans(r"^\s$", "\u{1f}").is_some());
    assert!(spans(r"(?a)\w", "é").is_none());
}

#[test]
fn a_way_that_a_condition_has_closed_is_left_at_once() {
    // With a name in front it needs the colon; without it takes whatever comes.
    let source =
        r"^for (?P<user>(?P<named>\S+)|\S+ of .*?) from (?P<ip4>\S+)(?: \S+){0,9}(?(named): |$)";
    let user = |text| spans(source, text).map(|(_, groups)| groups[0].clone());
    assert_eq!(user("for root from a port 1: x\n"), Some(Some(4..8)));
    assert_eq!(user("for root from a port 1\n"), None);
    assert_eq!(user("for two of us from a b c d\n"), Some(Some(4..13)));
    // A colon before the way begins is none.
    assert_eq!(user("for : of us from a b c d\n"), Some(Some(4..11)));
    assert_eq!(pattern(source).program().unwrap().needles.len(), 1);
    // What a way needs without any condition is met on the way.
    assert!(
        pattern("^(?:a: x|b: y)")
            .program()
            .unwrap()
            .needles
            .is_empty()
    );
}

#[test]
fn literals_are_found_wherever_in_a_line_they_stand() {
    let sources = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "cde", "de", "x{3}"];
    let patterns = Patterns::new(sources.map(pattern).into());
    let mut out = Vec::new();
    for at in 0..120 {
        for (n, found) in [sources[0], "cde", "de", "xxx"].into_iter().enumerate() {
            let text = format!("{}{found}{}\n", "-".repeat(at), ".".repeat(130 - at));
            patterns.candidates(&text, &mut out);
            assert!(out.contains(&n), "{found} at {at}: {out:?}");
        }
    }
    patterns.candidates(&"-".repeat(200), &mut out);
    assert!(!out.contains(&1));
}
