//! Configurations: whatever stands in the file, there is one that runs, or a problem that says where.

#![no_main]

use std::path::Path;

use f2b_pipe::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let loaded = config::from_text(Path::new("f2b-pipe.toml"), text);
    for problem in &loaded.problems {
        assert!(!problem.text.is_empty(), "{problem:?}");
        assert!(!problem.to_string().contains('\0'), "{problem}");
    }
    assert!(loaded.config.jails.len() < usize::from(u16::MAX));
});
