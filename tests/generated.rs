//! Man pages and completions: all that the parser knows is in them, and those who read them understand them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;

/// What `f2b-pipe generate` wrote; gone when dropped.
struct Share(PathBuf);

impl Share {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-share-{}-{name}", std::process::id()));
        let out = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
            .arg("generate")
            .arg(&dir)
            .env("SOURCE_DATE_EPOCH", "1772409600")
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        for file in String::from_utf8(out.stdout).unwrap().lines() {
            assert!(dir.join(file).is_file(), "{file}");
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn pages(&self) -> Vec<PathBuf> {
        let dir = fs::read_dir(self.0.join("man/man1")).unwrap();
        let mut pages: Vec<PathBuf> = dir.map(|entry| entry.unwrap().path()).collect();
        pages.sort();
        pages
    }

    /// A page as it is read.
    fn man(&self, command: &str) -> String {
        let name = match command {
            "" => "f2b-pipe".to_owned(),
            command => format!("f2b-pipe-{command}"),
        };
        let out = Command::new("man")
            .args(["-l", &self.path(&format!("man/man1/{name}.1"))])
            // Wide enough that nothing is hyphenated.
            .env("MANWIDTH", "2000")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Every command that people see, "" for none, with its flags as they are typed.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut table = f2b_pipe::cli::Cli::command();
    table.build();
    let flags = |command: &clap::Command| -> Vec<String> {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        shown
            .flat_map(|arg| {
                let long = arg.get_long().map(|long| format!("--{long}"));
                let short = arg.get_short().map(|short| format!("-{short}"));
                long.into_iter().chain(short)
            })
            .collect()
    };
    let shown = table
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help");
    let mut commands: Vec<_> = shown
        .map(|command| (command.get_name().to_owned(), flags(command)))
        .collect();
    commands.push((String::new(), flags(&table)));
    assert!(
        commands.len() > 14
            && commands
                .iter()
                .all(|(_, flags)| flags.contains(&"--help".into()))
    );
    commands
}

/// What a shell offers: its flags begin with `--`.
fn assert_offers(shell: &str, command: &str, offered: &str, wanted: &[String]) {
    let words: Vec<&str> = offered.split_whitespace().collect();
    for flag in wanted {
        assert!(
            words.contains(&&flag[..]),
            "{shell} does not offer {flag} after f2b-pipe {command}:\n{offered}"
        );
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{program}: {said}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
#[ignore = "needs man"]
fn every_command_and_flag_has_its_place_in_the_manual() {
    let share = Share::new("manual");
    let commands = commands();
    assert_eq!(share.pages().len(), commands.len());
    let first = share.man("");
    for (command, flags) in commands {
        let page = share.man(&command);
        for flag in flags {
            let is_told = |line: &str| {
                let mut words = line.split([' ', ',']);
                line.starts_with("       -") && words.any(|word| word == flag)
            };
            assert!(page.lines().any(is_told), "{flag} of {command}\n{page}");
        }
        assert!(
            command.is_empty() || first.contains(&format!("f2b-pipe-{command}(1)")),
            "{command}"
        );
    }
}

#[test]
#[ignore = "needs man, groff and mandoc"]
fn the_manual_is_rendered_without_a_word_of_warning() {
    let share = Share::new("lint");
    for page in share.pages() {
        let page = page.to_str().unwrap();
        run("man", &["--warnings", "-l", page]);
        for device in ["utf8", "ascii"] {
            run("groff", &["-man", "-ww", "-z", "-T", device, page]);
        }
        let said = run("mandoc", &["-T", "lint", "-W", "warning", page]);
        assert!(said.is_empty(), "{said}");
    }
}

#[test]
fn what_is_hidden_is_in_none_of_them() {
    let share = Share::new("hidden");
    let mut files = share.pages();
    files.extend(
        [
            "bash-completion/completions/f2b-pipe",
            "zsh/site-functions/_f2b-pipe",
            "zsh/vendor-completions/_f2b-pipe",
            "fish/vendor_completions.d/f2b-pipe.fish",
        ]
        .map(|file| share.0.join(file)),
    );
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for hidden in ["demo-stage", "demo\\-stage", "runtime-dir", "runtime\\-dir"] {
            assert!(!text.contains(hidden), "{hidden} in {}", file.display());
        }
    }
}

#[test]
fn bash_completes_every_command_and_flag() {
    let share = Share::new("bash");
    let script = r#"
        set -eu
        . "$1"; shift
        rule=$(complete -p f2b-pipe)
        [[ $rule =~ -F\ ([^ ]+) ]]
        COMP_WORDS=(f2b-pipe "$@"); COMP_CWORD=$(($# > 0 ? $# : 1))
        "${BASH_REMATCH[1]}" f2b-pipe "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        echo "${COMPREPLY[@]}""#;
    let file = share.path("bash-completion/completions/f2b-pipe");
    let offered = |words: &[&str]| run("bash", &[&["-c", script, "bash", &file], words].concat());
    let commands = commands();
    for (command, flags) in &commands {
        let words: Vec<&str> = command.split_whitespace().chain(["-"]).collect();
        assert_offers("bash", command, &offered(&words), flags);
    }
    let names: Vec<String> = commands.into_iter().map(|(name, _)| name).collect();
    let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_offers("bash", "", &offered(&[""]), &names);
}

#[test]
#[ignore = "needs fish"]
fn fish_completes_every_command_and_flag() {
    let share = Share::new("fish");
    let file = share.path("fish/vendor_completions.d/f2b-pipe.fish");
    let home = share.path("home");
    let offered = |line: &str| {
        let script = "source $argv[1]; complete -C $argv[2]";
        let script = format!("set -x HOME {home}; {script}");
        run("fish", &["--no-config", "-c", &script, &file, line])
    };
    let mut names = Vec::new();
    for (command, flags) in commands() {
        let line = format!("f2b-pipe {command} ").replace("  ", " ");
        let all = [offered(&format!("{line}-")), offered(&format!("{line}--"))].concat();
        assert_offers("fish", &command, &all, &flags);
        names.extend((!command.is_empty()).then_some(command));
    }
    assert_offers("fish", "", &offered("f2b-pipe "), &names);
}

/// zsh completes in a terminal only, which zpty is.
#[test]
#[ignore = "needs zsh"]
fn zsh_completes_every_command_and_flag() {
    let share = Share::new("zsh");
    let script = r#"
        emulate -L zsh
        zmodload zsh/zpty
        zpty it zsh -f
        say() { zpty -w it "$1" }
        say "PROMPT= RPROMPT=; stty -echo 2>/dev/null; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste"
        say "COLUMNS=300 LINES=500; LISTMAX=0; zstyle ':completion:*' list-prompt ''; zstyle ':completion:*' verbose no"
        say "bindkey '^I' list-choices; print rea''dy"
        zpty -r -m it seen '*ready*' || exit 1
        shift
        for line in "$@"; do
            zpty -w -n it "$line"$'\t'
            # zsh shows no list while there is something to read: the next line is typed when it has begun.
            [[ $line == *- ]] && one=--help || one=status
            zpty -r -m it list "*$one*" || exit 1
            # The list is over when another line can be read.
            zpty -w -n it $'\C-u'"print do''ne"$'\n'
            zpty -r -m it rest '*done*' || exit 1
            print -r -- "== $line"
            print -r -- "$list$rest"
        done
        zpty -d it"#;
    let commands = commands();
    let lines: Vec<String> = commands
        .iter()
        .map(|(command, _)| format!("f2b-pipe {command} -").replace("  ", " "))
        .chain(["f2b-pipe ".to_owned()])
        .collect();
    let functions = share.path("zsh/site-functions");
    let mut words = vec!["-f", "-c", script, "zsh", &functions];
    words.extend(lines.iter().map(String::as_str));
    // Colours and cursor movements stand between the words.
    let escapes = regex::Regex::new("\x1b\\[[0-9;?]*[A-Za-z]").unwrap();
    let said = run("zsh", &words);
    let said = escapes.replace_all(&said, " ");
    let offered = |line: &str| {
        let from = said
            .find(&format!("== {line}\n"))
            .unwrap_or_else(|| panic!("{line}\n{said}"));
        let rest = &said[from + 3..];
        rest[..rest.find("\n== ").unwrap_or(rest.len())].to_owned()
    };
    let mut names = Vec::new();
    for ((command, flags), line) in commands.into_iter().zip(&lines) {
        assert_offers("zsh", &command, &offered(line), &flags);
        names.extend((!command.is_empty()).then_some(command));
    }
    assert_offers("zsh", "", &offered("f2b-pipe "), &names);
}

/// The parts of the manual that are written by hand belong to commands that are there.
#[test]
fn every_written_part_has_its_command() {
    let names: Vec<String> = commands().into_iter().map(|(name, _)| name).collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/man");
    for entry in fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".roff").expect(&file);
        assert!(
            name == "f2b-pipe" || names.iter().any(|n| n == name),
            "{file}"
        );
    }
}
