//! What each command prints for people and, with `--json`, for programs: transcripts in `tests/snapshots/COMMAND.txt`.
//!
//! A transcript has a line `$ ...` for each thing typed, and under it what was printed and the exit code, if that is not 0.
//! JSON is written over many lines, so that a change can be seen. What differs from run to run is replaced: for all by
//! [`EVERYWHERE`], for one transcript by lines at its beginning, `~ REGEX => WHAT STANDS THERE INSTEAD`.
//!
//! Each transcript is typed into `sh` in a network of its own, in a folder with what is in `tests/snapshots/files`.
//!
//! A new command needs a transcript: write its `$` lines into a file of its name, then
//! `F2B_PIPE_SNAPSHOTS=write cargo test --test snapshots -- --include-ignored` (as root), and read what was written before
//! it is committed. The same renews all of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::let_underscore_must_use,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on should stop"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use clap::CommandFactory as _;
use regex::Regex;
use serde_json::Value;

#[allow(
    dead_code,
    unused_imports,
    reason = "most of it is for the end-to-end tests"
)]
#[path = "support/mod.rs"]
mod support;

use support::{PROGRAM, World};

/// Replaced in all that is printed.
const EVERYWHERE: [(&str, &str); 6] = [
    // A time of the day on which the test runs. Logs here are of 2020.
    (
        r"20(2[1-9]|[3-9]\d)-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d+)?",
        "NOW",
    ),
    (r"\b([Pp]rocess|pid) \d+", "$1 PID"),
    (r#""pid": \d+"#, r#""pid": 4711"#),
    (r#""helper": \d+"#, r#""helper": 4712"#),
    (r#"pid="\d+""#, r#"pid="4711""#),
    (r"\b0\.1\.0\b", "VERSION"),
];

/// A transcript.
struct Transcript {
    path: PathBuf,
    /// Its own replacements: lines, without their `~ `.
    own: Vec<String>,
    steps: Vec<Step>,
}

struct Step {
    typed: String,
    printed: String,
}

impl Transcript {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let (mut own, mut steps) = (Vec::new(), Vec::<Step>::new());
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("$ ") {
                steps.push(Step {
                    typed: typed.to_owned(),
                    printed: String::new(),
                });
            } else if let Some(step) = steps.last_mut() {
                step.printed += line;
                step.printed += "\n";
            } else {
                own.extend(line.strip_prefix("~ ").map(str::to_owned));
            }
        }
        Self {
            path: path.to_owned(),
            own,
            steps,
        }
    }

    fn all() -> Vec<Self> {
        let mut all: Vec<PathBuf> = fs::read_dir(dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "txt"))
            .collect();
        all.sort();
        all.iter().map(|path| Self::read(path)).collect()
    }

    fn command(&self) -> &str {
        self.path.file_stem().unwrap().to_str().unwrap()
    }

    fn text(&self) -> String {
        let own = self.own.iter().map(|line| format!("~ {line}\n"));
        let steps = self
            .steps
            .iter()
            .map(|step| format!("$ {}\n{}", step.typed, step.printed));
        own.chain(steps).collect()
    }

    /// Types it all anew.
    fn played(&self) -> Self {
        let world = world();
        let here = world.dir().display().to_string();
        let mut replaced: Vec<(Regex, String)> = EVERYWHERE
            .iter()
            .map(|(regex, with)| (Regex::new(regex).unwrap(), (*with).to_owned()))
            .collect();
        for line in &self.own {
            let (regex, with) = line.split_once(" => ").expect("REGEX => TEXT");
            let regex = Regex::new(&format!("(?m){regex}")).expect(line);
            replaced.push((regex, with.replace("\\n", "\n")));
        }
        let play = |step: &Step| {
            let out = world
                .on_server("sh")
                .args(["-c", &format!("exec 2>&1; {}", step.typed)])
                .current_dir(world.dir())
                .env(
                    "PATH",
                    format!("{here}/bin:{}", std::env::var("PATH").unwrap()),
                )
                .env("TZ", "UTC")
                .env("LC_ALL", "C.UTF-8")
                .output()
                .unwrap();
            let said = String::from_utf8(out.stdout).unwrap();
            let mut printed: String = said
                .lines()
                .map(|line| pretty(line) + "\n")
                .collect::<String>()
                .replace(&here, "/DIR");
            for (regex, with) in &replaced {
                printed = regex.replace_all(&printed, with).into_owned();
            }
            if !out.status.success() {
                printed += &format!("(exit code {})\n", out.status.code().unwrap());
            }
            Step {
                typed: step.typed.clone(),
                printed,
            }
        };
        Self {
            path: self.path.clone(),
            own: self.own.clone(),
            steps: self.steps.iter().map(play).collect(),
        }
    }
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")
}

/// A network with nothing in it but the files, and `f2b-pipe` that takes its configuration from there.
fn world() -> World {
    let world = World::new();
    let here = world.dir().display().to_string();
    for entry in fs::read_dir(dir().join("files")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("/DIR", &here);
        world.write(name, text);
    }
    // As the installer leaves a host.
    fs::create_dir(world.path("run")).unwrap();
    let [config, toml, runtime, run] = world.place();
    let program = format!(
        "#!/bin/sh\nc=$1; shift\ncase $c in demo | generate) exec {PROGRAM} $c \"$@\" ;; esac\n\
         exec {PROGRAM} $c {config} {toml} {runtime} {run} \"$@\"\n"
    );
    // `piped LOG`: an f2b-pipe under an httpd that has written these lines, and writes no more.
    let piped = "#!/bin/sh\nmkfifo pipe; sleep 1000 >pipe 2>/dev/null & exec 3<pipe\n\
        f2b-pipe run --single-writer --format combined <pipe >/dev/null 2>errors &\n\
        cat \"$1\" >pipe\n\
        until f2b-pipe status --json | grep -q \"\\\"lines\\\":$(wc -l <\"$1\"),\"; do sleep 0.05; done\n";
    for (name, text) in [("f2b-pipe", program.as_str()), ("piped", piped)] {
        let file = world.write(&format!("bin/{name}"), text);
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    world
}

/// An object over many lines; other lines as they are.
fn pretty(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(value @ Value::Object(_)) => serde_json::to_string_pretty(&value).unwrap(),
        _ => line.to_owned(),
    }
}

/// What has changed, as `diff -u` shows it.
fn difference(before: &Path, now: &str) -> String {
    let file = std::env::temp_dir().join(format!("f2b-snapshot-{}", std::process::id()));
    fs::write(&file, now).unwrap();
    let out = Command::new("diff")
        .arg("-u")
        .args([before, &file])
        .output()
        .unwrap();
    fs::remove_file(&file).unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
#[ignore = "needs root and network namespaces"]
fn every_command_prints_what_its_transcript_says() {
    let writes = std::env::var("F2B_PIPE_SNAPSHOTS").is_ok_and(|what| what == "write");
    let left = Mutex::new(Transcript::all());
    let wrong = Mutex::new(Vec::new());
    let work = || {
        while let Some(transcript) = { left.lock().unwrap().pop() } {
            let played = transcript.played();
            if played.text() == transcript.text() {
                continue;
            }
            if writes {
                fs::write(&played.path, played.text()).unwrap();
            } else {
                wrong.lock().unwrap().push(played);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let wrong: String = wrong
        .into_inner()
        .unwrap()
        .iter()
        .map(|played| difference(&played.path, &played.text()))
        .collect();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_command_is_without_a_transcript_and_none_with_json_without_that() {
    let table = f2b_pipe::cli::Cli::command();
    let transcripts = Transcript::all();
    for command in table.get_subcommands() {
        if command.is_hide_set() {
            continue;
        }
        let name = command.get_name();
        let transcript = transcripts.iter().find(|t| t.command() == name);
        let transcript = transcript.unwrap_or_else(|| {
            panic!(
                "{name} has no transcript; how to make one stands at the head of tests/snapshots.rs"
            )
        });
        let typed = |json: bool| {
            let is_so = |step: &&Step| {
                let mut words = step.typed.split_whitespace();
                let is_it = words.any(|word| word == "f2b-pipe") && words.next() == Some(name);
                is_it && step.typed.contains(" --json") == json
            };
            let printed = transcript.steps.iter().filter(is_so);
            printed.filter(|step| !step.printed.is_empty()).count()
        };
        assert!(typed(false) > 0, "{name}: nothing for people");
        let has_json = command.get_arguments().any(|arg| arg.get_id() == "json");
        assert_eq!(typed(true) > 0, has_json, "{name}: --json");
    }
    for transcript in &transcripts {
        let name = transcript.command();
        assert!(
            table.find_subcommand(name).is_some(),
            "{name}.txt: no such command"
        );
    }
}

/// `script` gives a command a terminal.
#[test]
fn colours_are_for_terminals_whose_owner_has_nothing_against_them() {
    let check = |variables: &str| {
        let conf = dir().join("files/f2b-pipe.toml");
        let typed = format!("{variables} {PROGRAM} check --config {}", conf.display());
        let out = Command::new("script")
            .args(["-qec", &typed, "/dev/null"])
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains("Kernel and rights"), "{text}");
        text.contains('\x1b')
    };
    assert!(check(""));
    assert!(check("NO_COLOR="));
    assert!(!check("NO_COLOR=1"));
    assert!(!check("TERM=dumb"));
    for transcript in Transcript::all() {
        assert!(
            !transcript.text().contains('\x1b'),
            "{}",
            transcript.command()
        );
    }
}

/// Objects whose keys are no shape but what was found: groups of expressions, the state of a process.
const OPEN: [&str; 2] = ["groups", "processes"];

/// All keys in what a command printed as JSON.
fn keys(transcript: &Transcript) -> BTreeSet<String> {
    fn collect(value: &Value, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    keys.insert(key.clone());
                    if !OPEN.contains(&&key[..]) {
                        collect(value, keys);
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, keys)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut keys = BTreeSet::new();
    for step in &transcript.steps {
        if step.typed.contains(" --json") {
            let objects = serde_json::Deserializer::from_str(&step.printed).into_iter::<Value>();
            objects
                .map_while(Result::ok)
                .for_each(|value| collect(&value, &mut keys));
        }
    }
    keys
}

#[test]
fn the_manual_knows_every_key_of_json() {
    let word = |text: &str, key: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.match_indices(key).any(|(at, _)| {
            !text[..at].ends_with(is_part) && !text[at + key.len()..].starts_with(is_part)
        })
    };
    for transcript in Transcript::all() {
        let keys = keys(&transcript);
        if keys.is_empty() {
            continue;
        }
        let name = transcript.command();
        let page = dir().join(format!("../../conf/man/{name}.roff"));
        let page = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        let missing: Vec<&String> = keys.iter().filter(|key| !word(&page, key)).collect();
        assert!(
            missing.is_empty(),
            "conf/man/{name}.roff says nothing of {missing:?}"
        );
    }
}
