use super::*;

fn pattern(source: &str) -> Pattern {
    Pattern::new(source, Options::default()).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn spans(source: &str, text: &str) -> Option<(Range<usize>, Vec<Option<Range<usize>>>)> {
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
