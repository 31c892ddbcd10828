//! `generate`: man pages and completions, from the same table as the parser; for installers and packagers.
//!
//! What the table cannot know (the shapes of `--json`, files, examples) is written by hand, in `conf/man/NAME.roff`: what
//! stands there before the first `.SH` goes on with DESCRIPTION, the rest follows the options.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Done, Failure, GenerateArgs, Outcome};

/// Under which heading `man` shows the pages.
const MANUAL: &str = "f2b-pipe";

/// The parts written by hand, by command; "" is the page of the program itself.
const WRITTEN: [(&str, &str); 21] = [
    ("", include_str!("../../conf/man/f2b-pipe.roff")),
    ("run", include_str!("../../conf/man/run.roff")),
    ("watch", include_str!("../../conf/man/watch.roff")),
    ("check", include_str!("../../conf/man/check.roff")),
    ("status", include_str!("../../conf/man/status.roff")),
    ("banned", include_str!("../../conf/man/banned.roff")),
    ("ban", include_str!("../../conf/man/ban.roff")),
    ("unban", include_str!("../../conf/man/unban.roff")),
    ("jail", include_str!("../../conf/man/jail.roff")),
    ("ignore", include_str!("../../conf/man/ignore.roff")),
    ("subscribe", include_str!("../../conf/man/subscribe.roff")),
    ("log-level", include_str!("../../conf/man/log-level.roff")),
    ("off", include_str!("../../conf/man/off.roff")),
    ("reload", include_str!("../../conf/man/reload.roff")),
    ("import", include_str!("../../conf/man/import.roff")),
    ("metrics", include_str!("../../conf/man/metrics.roff")),
    ("explain", include_str!("../../conf/man/explain.roff")),
    ("replay", include_str!("../../conf/man/replay.roff")),
    ("tune", include_str!("../../conf/man/tune.roff")),
    ("test", include_str!("../../conf/man/test.roff")),
    ("demo", include_str!("../../conf/man/demo.roff")),
];

/// `f2b-pipe generate DIR`: writes below DIR (/usr/share) what belongs there, and prints each file's name below it.
///
/// # Errors
/// A file cannot be written.
pub fn generate(args: &GenerateArgs, out: &mut dyn Write) -> Done {
    for (name, text) in files()? {
        let path = args.dir.join(&name);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text));
        written.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        writeln!(out, "{}", name.display())?;
    }
    Ok(Outcome::Fine)
}

/// Every file: its place below /usr/share, and what is in it.
fn files() -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    let table = table();
    files.push((place(""), page(&table, "")?));
    for command in table.get_subcommands() {
        let name = command.get_name();
        files.push((place(name), page(command, name)?));
    }
    // zsh's is wanted in one folder by Debian, and in another by everybody else.
    for (shell, places) in [
        (Shell::Bash, &["bash-completion/completions/f2b-pipe"][..]),
        (
            Shell::Zsh,
            &[
                "zsh/site-functions/_f2b-pipe",
                "zsh/vendor-completions/_f2b-pipe",
            ],
        ),
        (Shell::Fish, &["fish/vendor_completions.d/f2b-pipe.fish"]),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut table.clone(), "f2b-pipe", &mut text);
        if shell == Shell::Bash {
            // clap_complete 4.6 has two names for the commands of a program with a hyphen, and finds none of them.
            let script = String::from_utf8_lossy(&text);
            text = script
                .replace("f2b__subcmd__pipe", "f2b__pipe")
                .into_bytes();
        }
        files.extend(places.iter().map(|place| (place.into(), text.clone())));
    }
    Ok(files)
}

fn place(command: &str) -> PathBuf {
    PathBuf::from(format!("man/man1/{}.1", title(command)))
}

fn title(command: &str) -> String {
    match command {
        "" => "f2b-pipe".to_owned(),
        command => format!("f2b-pipe-{command}"),
    }
}

/// The parser's table as people see it: what is hidden in it is for tests and for ourselves, but clap_complete offers all.
fn table() -> clap::Command {
    let mut table = visible(&Cli::command());
    table.build();
    table
}

fn visible(command: &clap::Command) -> clap::Command {
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let commands = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut visible = clap::Command::new(command.get_name().to_owned())
        .disable_help_subcommand(true)
        .subcommand_value_name("COMMAND")
        .subcommand_help_heading("COMMANDS")
        .args(args.cloned())
        .subcommands(commands.map(self::visible));
    if let Some(about) = command.get_about() {
        visible = visible.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        visible = visible.version(version.to_owned());
    }
    visible
}

/// One man page.
fn page(command: &clap::Command, name: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone().display_name(title(name)))
        .title(title(name).to_uppercase())
        .date(date())
        .source(format!("f2b-pipe {}", env!("CARGO_PKG_VERSION")))
        .manual(MANUAL);
    let written = WRITTEN.iter().find(|(of, _)| *of == name);
    let written = written.map_or("", |(_, text)| *text);
    let sections = if written.starts_with(".SH") {
        0
    } else {
        written.find("\n.SH").map_or(written.len(), |at| at + 1)
    };
    let (more, sections) = written.split_at(sections);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    page.extend_from_slice(more.as_bytes());
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    // Before a list of values clap_mangen leaves a line empty, which mandoc calls a mistake.
    let options = String::from_utf8_lossy(&options).replace("\n.br\n\n.br\n", "\n.br\n");
    page.extend_from_slice(options.as_bytes());
    if name.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend_from_slice(sections.as_bytes());
    if !name.is_empty() {
        page.extend_from_slice(b".SH \"SEE ALSO\"\n.BR f2b\\-pipe (1)\n");
    }
    Ok(page)
}

/// The day on which this is generated; that of the package's sources, if its builder says so (reproducible-builds.org).
fn date() -> String {
    let epoch = env::var("SOURCE_DATE_EPOCH").ok();
    let epoch = epoch.and_then(|text| DateTime::from_timestamp(text.parse().ok()?, 0));
    epoch
        .unwrap_or_else(Utc::now)
        .format("%Y-%m-%d")
        .to_string()
}
