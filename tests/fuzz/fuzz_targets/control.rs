//! What clients of the control socket send: any line is a request or refused in words, in bounded memory
//! (`-malloc_limit_mb`); a request is the same when it is written and read again, and the changes it makes end as a
//! configuration or as told problems.

#![no_main]

use std::sync::LazyLock;

use f2b_pipe::changes::{self, Change, Setting};
use f2b_pipe::config::{self, Config};
use f2b_pipe::control::wire::{REQUEST_MAX, Request};
use libfuzzer_sys::fuzz_target;

/// With a jail of each kind.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = "[jail.a]\nstatus = [404]\n\
                [jail.b]\nfailregex = ['^x <HOST>$']\nlogpath = ['/nonexistent']\n";
    config::from_text("f2b-pipe.toml".as_ref(), text).config
});

/// Compiling is another target's, and slow.
fn compiles(change: &Change) -> bool {
    let Change::Set { to, .. } = change else {
        return false;
    };
    matches!(
        to,
        Setting::PrefRegex(_)
            | Setting::FailRegex(_)
            | Setting::IgnoreRegex(_)
            | Setting::DatePattern(_)
            | Setting::LogTimeZone(_)
            | Setting::MaxLines(_)
            | Setting::UseDns(_)
    )
}

fuzz_target!(|line: &[u8]| {
    let request = match Request::read(line) {
        Ok(request) => request,
        Err(error) => {
            // The line itself comes back in it, at most once, and escaped.
            assert!(error.len() <= 6 * line.len() + 4096);
            return;
        }
    };
    assert!(line.len() <= REQUEST_MAX);
    let again = request.line();
    if again.len() <= REQUEST_MAX {
        let again = Request::read(again.trim_ascii_end()).expect("what was written");
        // A number that JSON has no word for is none.
        assert_eq!(again.line(), request.line());
    }
    if let Request::Change { changes } = request {
        let mut kept = Vec::new();
        let known = changes.len();
        let added = changes::add(&mut kept, &changes);
        assert!(added.is_err() || kept.len() <= known);
        let some: Vec<Change> = changes.into_iter().filter(|change| !compiles(change)).take(100).collect();
        let mut config = CONFIG.clone();
        let problems = changes::apply(&mut config, &some);
        assert!(problems.len() <= some.len());
        for problem in problems {
            assert!(!problem.to_string().is_empty());
        }
    }
});
