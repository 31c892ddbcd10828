//! The program behind a `|`: how httpd starts it, and whether it is us.

use std::ffi::OsStr;
use std::path::Path;

use clap::Parser;

use super::syntax;
use crate::cli::{self, Cli, RunArgs};

/// A piped program.
#[derive(Clone, Debug)]
pub struct Command {
    /// `|$...`: started by /bin/sh, which then stands between httpd and the program.
    pub shell: bool,
    /// Program and arguments, as the program gets them.
    pub words: Vec<String>,
}

/// A piped f2b-pipe.
#[derive(Debug)]
pub enum Ours {
    /// It would run with these flags.
    Run(Box<RunArgs>),
    /// It would not understand its flags (and go on as a plain reader): its own words about that.
    Unusable(String),
}

impl Command {
    /// `text` is what stands behind the first `|`.
    #[must_use]
    pub(super) fn new(text: &str) -> Self {
        let (shell, text) = match text.strip_prefix('$') {
            Some(text) => (true, text),
            None => (false, text.strip_prefix('|').unwrap_or(text)),
        };
        Self {
            shell,
            words: syntax::argv(text),
        }
    }

    /// The program's path; empty if there is none.
    #[must_use]
    pub fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The flags, if this is f2b-pipe, directly or behind `nice` and the like.
    #[must_use]
    pub fn ours(&self) -> Option<Ours> {
        let is_us = |word: &String| Path::new(word).file_name() == Some(OsStr::new("f2b-pipe"));
        let at = self.words.iter().position(is_us)?;
        let words = self.words.iter().skip(at);
        Some(match Cli::try_parse_from(words) {
            Ok(Cli { command: None, run })
            | Ok(Cli {
                command: Some(cli::Command::Run(run)),
                ..
            }) => Ours::Run(Box::new(run)),
            Ok(_) => Ours::Unusable("only `run` reads httpd's lines".into()),
            Err(error) => Ours::Unusable(error.to_string().trim().to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_recognised_with_its_flags() {
        let run = |text| match Command::new(text).ours() {
            Some(Ours::Run(args)) => *args,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(run("/usr/bin/f2b-pipe").format, "combined");
        assert_eq!(
            run("| /usr/bin/f2b-pipe run --format 'a \\'b'").format,
            "a 'b"
        );
        assert_eq!(
            run("/usr/bin/nice -n 5 /usr/bin/f2b-pipe --tee /x")
                .tee
                .unwrap(),
            Path::new("/x")
        );
        assert!(
            Command::new("/usr/bin/rotatelogs /x 86400")
                .ours()
                .is_none()
        );
        assert!(matches!(
            Command::new("/usr/bin/f2b-pipe --nonsense").ours(),
            Some(Ours::Unusable(_))
        ));
        assert!(matches!(
            Command::new("/usr/bin/f2b-pipe check").ours(),
            Some(Ours::Unusable(_))
        ));
        let shell = Command::new("$/usr/bin/f2b-pipe");
        assert!(shell.shell && shell.program() == "/usr/bin/f2b-pipe");
    }
}
