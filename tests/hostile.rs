//! Hostile lines through whole filters, dates and prefregexes included, beside fail2ban's own classes.
//!
//! How long a line takes at most is measured by `cargo bench -- hostile`: a test that times itself fails on a busy machine.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot go on should stop"
)]

use f2b_pipe::failregex::{Clock, Matcher, Phase, Stamp};

#[path = "support/hostile.rs"]
mod hostile;

/// Of each filter in each mode.
const LINES: usize = 20;
/// Seconds that fail2ban has for a line.
const LIMIT: &str = "0.5";

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn hostile_lines_are_judged_as_by_fail2ban() {
    let (mut same, mut matched, mut slow) = (0, 0, 0);
    let mut differences = Vec::new();
    let filters = hostile::filters(LINES, LIMIT);
    for filter in &filters {
        let mut matcher = Matcher::new(&filter.rules).unwrap();
        for (line, theirs) in &filter.lines {
            let mut failures = Vec::new();
            let clock = Clock {
                now: hostile::NOW,
                today: hostile::NOW,
            };
            let _ = matcher.line(line, Stamp::InText, Phase::Timeless, clock, &mut failures);
            failures.retain(|failure| !failure.is_nofail());
            let ours: Vec<&str> = failures.iter().map(|failure| &*failure.id).collect();
            match theirs {
                None => slow += 1,
                Some(theirs) if *theirs == ours => {
                    same += 1;
                    matched += usize::from(!theirs.is_empty());
                }
                Some(theirs) => {
                    let start: String = line.chars().take(200).collect();
                    let hard = matcher.take_too_hard();
                    differences.push(format!(
                        "{}: {theirs:?}, we {ours:?} (given up: {hard:?}), {} bytes: {start}",
                        filter.name,
                        line.len()
                    ));
                }
            }
        }
    }
    eprintln!(
        "{} filters and modes: {same} lines judged the same ({matched} matched), {} not, {slow} not by fail2ban in {LIMIT} s",
        filters.len(),
        differences.len()
    );
    differences.iter().for_each(|text| eprintln!("{text}"));
    assert!(filters.len() > 90 && matched > 300);
    assert!(same >= 98 * (same + differences.len()) / 100);
}
