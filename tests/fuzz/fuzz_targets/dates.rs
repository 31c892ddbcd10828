//! Dates in any line, by the default list or by any datepattern: the first line of the input is the pattern, or empty.
//!
//! What is cut out is a part of the line, and a time is a number.

#![no_main]

use f2b_pipe::date::{Detector, Find};
use libfuzzer_sys::fuzz_target;

/// 2026-11-25 12:00 UTC.
const NOW: f64 = 1_795_608_000.0;

thread_local! {
    static DEFAULTS: std::cell::RefCell<Detector> =
        std::cell::RefCell::new(Detector::new(&[], Some("UTC")).expect("the default list"));
}

fuzz_target!(|input: &str| {
    let (pattern, lines) = input.split_once('\n').unwrap_or(("", input));
    if pattern.is_empty() {
        DEFAULTS.with(|detector| judge(&mut detector.borrow_mut(), lines));
    } else if let Ok(mut detector) = Detector::new(&[pattern.to_owned()], Some("UTC")) {
        judge(&mut detector, lines);
    }
});

fn judge(detector: &mut Detector, lines: &str) {
    for (line, passed) in lines.lines().take(8).zip(0i32..) {
        let now = NOW + f64::from(passed);
        match detector.find_at(line, now, now) {
            Find::At { cut, time } => {
                assert!(line.get(cut.clone()).is_some(), "{cut:?} of {line:?}");
                assert!(time.is_finite(), "{time} in {line:?}");
            }
            Find::Impossible { cut } => {
                assert!(line.get(cut.clone()).is_some(), "{cut:?} of {line:?}");
            }
            Find::None | Find::Stumble | Find::NoDate => {}
        }
    }
}
