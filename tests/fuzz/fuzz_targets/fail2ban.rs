//! A folder such as /etc/fail2ban with anything in its files: it is read, and what is wrong is told with its place.
//!
//! Parts of the input, separated by a line `%%`: jail.local, a filter, an action, a further jail file.

#![no_main]

use std::fs;
use std::path::PathBuf;

use f2b_pipe::fail2ban::Folder;
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 4] = [
    "jail.local",
    "filter.d/one.conf",
    "action.d/one.conf",
    "jail.d/more.conf",
];

thread_local! {
    static FOLDER: PathBuf = {
        let folder = std::env::temp_dir().join(format!("f2b-fuzz-{}", std::process::id()));
        for part in ["filter.d", "action.d", "jail.d"] {
            fs::create_dir_all(folder.join(part)).expect("a folder can be made");
        }
        folder
    };
}

fuzz_target!(|input: &str| {
    FOLDER.with(|folder| {
        let mut parts = input.split("\n%%\n");
        for file in FILES {
            fs::write(folder.join(file), parts.next().unwrap_or_default())
                .expect("a file can be written");
        }
        let read = Folder::read(folder);
        for problem in read
            .problems
            .iter()
            .chain(read.broken.iter().map(|broken| &broken.problem))
        {
            assert!(!problem.to_string().is_empty());
        }
        for jail in &read.jails {
            assert!(!jail.name.is_empty());
        }
    });
});
