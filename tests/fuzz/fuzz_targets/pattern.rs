//! Expressions as fail2ban's filters hold them, on any line: the first line of the input is the expression, the rest the text.
//!
//! Places are inside the text and between characters, a whole line's candidates hold every expression that is found, what
//! is found is found again, and nothing takes for ever.

#![no_main]

use f2b_pipe::pattern::{Found, Groups, Options, Pattern, Patterns};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (source, text) = input.split_once('\n').unwrap_or((input, ""));
    // A long text only takes longer.
    let text: String = text.chars().take(300).collect();
    for multiline in [false, true] {
        let options = Options {
            names: true,
            multiline,
        };
        if let Ok(pattern) = Pattern::new(source, options) {
            judge(pattern, &text);
        }
    }
});

fn judge(pattern: Pattern, text: &str) {
    let mut groups = Groups::default();
    let found = pattern.find(text, &mut groups);
    let spans = |groups: &Groups| {
        let all = groups.named().iter().flatten().cloned();
        all.chain([groups.whole()]).collect::<Vec<_>>()
    };
    let first = spans(&groups);
    if found == Found::Yes {
        for span in &first {
            assert!(text.get(span.clone()).is_some(), "{span:?} of {text:?}");
        }
        // The machine begins without memory, and anew with it: what it finds is the same.
        let mut again = Groups::default();
        if pattern.find_quickly(text, &mut again) == Found::Yes {
            assert_eq!(first, spans(&again));
        }
    }
    if found == Found::No {
        let reach = pattern.reach(text);
        assert!(text.is_char_boundary(reach.at), "{reach:?} of {text:?}");
        assert!(
            pattern.source().get(reach.piece.clone()).is_some(),
            "{reach:?}"
        );
    }
    let patterns = Patterns::new(vec![pattern]);
    let mut candidates = Vec::new();
    patterns.candidates(text, &mut candidates);
    assert!(
        found != Found::Yes || candidates == [0],
        "{text:?} is no candidate"
    );
}
