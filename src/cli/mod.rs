//! The commands: flags as a table (clap's derive), one file for each command that does more than a screen of work.
//!
//! A command gets its flags and a place to write to, and returns whether the thing asked about is so.

use std::fmt;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Problem, Severity};
use crate::fail2ban::database;
use crate::frame::{Framed, Framer, Lines, Trust};
use crate::say;

mod ask; // the process in charge, asked
pub mod bans;
pub mod check;
pub mod demo;
pub mod explain;
pub mod generate;
pub mod import;
pub mod live;
mod logs; // which logs a jail reads here
pub mod metrics;
pub mod replay;
pub mod test;
pub mod tune;

/// Where the configuration is unless `--config` says otherwise.
pub const CONFIG: &str = "/etc/f2b-pipe/f2b-pipe.toml";
/// Where locks, state files and the off switch are unless `--runtime-dir` says otherwise.
pub const RUNTIME_DIR: &str = "/run/f2b-pipe";

/// What stands under `f2b-pipe --help`. No line is longer than a narrow terminal, where a wrapped LogFormat would be a
/// wrong one; httpd joins lines at a backslash.
const EXAMPLES: &str = r#"In httpd.conf, outside any <VirtualHost>, beside your unchanged CustomLog lines
(httpd-snippets/install does it):

LogFormat "f2b:%{usec}t:%{hextid}P %a %{c}a %v %>s %B %D \"%u\" \"%r\" \
\"%{Referer}i\" \"%{User-Agent}i\" f2b:%{usec}t:%{hextid}P" f2b
GlobalLog "|/usr/bin/f2b-pipe --format f2b" f2b

Examples:
  f2b-pipe check             what would not work here, and what to write
  f2b-pipe banned            who is banned; the kernel's own word for it:
                             ipset -L f2bp-apache-dos
  f2b-pipe unban 192.0.2.7   let somebody in again
  f2b-pipe replay access.log whom the jails would have banned in an old log
  f2b-pipe tune access.log   which maxretry fits, by an old log
  f2b-pipe test auth.log sshd
                             which lines a filter or jail finds
  f2b-pipe off               let all in, ban nobody until f2b-pipe reload

Jails: /etc/f2b-pipe/f2b-pipe.toml and conf.d/*.toml beside it, and those
that are enabled in /etc/fail2ban. After a change: f2b-pipe check, then
f2b-pipe reload.
Exit codes: 0 fine, 1 what was asked about is not so, 2 usage, configuration."#;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "f2b-pipe",
    version,
    about,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// What to do; without one: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`, which may stand without the word.
    #[command(flatten)]
    pub run: RunArgs,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What httpd starts: access lines on stdin, to the log (--tee) and to bans
    Run(RunArgs),
    /// Watch other logs (sshd's, mail servers', the journal), as jails with a filter and fail2ban's own say; for systemd
    Watch(WatchArgs),
    /// Name everything that would not work on this host, and what to write
    Check(CheckArgs),
    /// Jails, what they saw, and whom they ban
    Status(StatusArgs),
    /// Who is banned, by which jail, how long still, and why
    Banned(ListArgs),
    /// Ban addresses or networks by hand
    Ban(BanArgs),
    /// Take bans away
    #[command(
        override_usage = "f2b-pipe unban [OPTIONS] <IP>...\n       f2b-pipe unban [OPTIONS] --all"
    )]
    Unban(UnbanArgs),
    /// Show a jail of the running f2b-pipe, or change it until the next reload: on, off, observe, maxretry=5, bantime=1h
    Jail(JailArgs),
    /// Who is never banned: show it, or change it until the next reload
    Ignore(IgnoreArgs),
    /// Hits and bans as they happen
    Subscribe(SubscribeArgs),
    /// How much the running f2b-pipe tells: show it, or change it until the next reload
    LogLevel(LogLevelArgs),
    /// Panic button: empty every set; nothing is banned until `reload`
    Off(OffArgs),
    /// Read the configuration anew, in all running processes; a bad one is refused. Ban again after `off`
    Reload(WhereArgs),
    /// Take over the bans and the history of a fail2ban-server, from its database; only read, and safe to repeat
    Import(ImportArgs),
    /// Numbers of all running processes and the kernel's sets, as Prometheus reads them
    Metrics(MetricsArgs),
    /// Show each room's view of one line: what was read, what it would count for, where it stops and why
    Explain(ExplainArgs),
    /// The decisions on old logs, by their own times
    Replay(ReplayArgs),
    /// Which numbers fit: how many hits per findtime ordinary and bad clients make in old logs
    Tune(TuneArgs),
    /// Which lines of a log does a filter of fail2ban's kind find, and where does it stop in the others?
    Test(TestArgs),
    /// Watch attackers land in the kernel's sets, in a private network namespace (about 15 s, no root needed)
    Demo(DemoArgs),
    /// What `demo` starts inside its namespaces
    #[command(hide = true)]
    DemoStage(DemoArgs),
    /// Write man pages and completions of bash, zsh and fish below a folder (/usr/share); for installers and packages
    #[command(hide = true)]
    Generate(GenerateArgs),
}

/// Which configuration is meant.
#[derive(Args, Clone, Debug)]
pub struct WhereArgs {
    /// Configuration file; its conf.d/*.toml beside it are read, too
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// Locks, state files, off switch
    #[arg(long, value_name = "DIR", default_value = RUNTIME_DIR, hide = true)]
    pub runtime_dir: PathBuf,
}

/// `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// LogFormat of the lines: f2b, combined, common, vhost_combined, vhost_common, or the very string from httpd.conf
    #[arg(long, value_name = "FORMAT", default_value = "combined")]
    pub format: String,
    /// Append every byte to this file (the normal access log)
    #[arg(long, value_name = "FILE")]
    pub tee: Option<PathBuf>,
    /// The lines are httpd's error log (ErrorLog "|...")
    #[arg(long)]
    pub error_log: bool,
    /// Only one program writes to this pipe, line by line (cat, a FIFO), so that no line can be torn
    #[arg(long)]
    pub single_writer: bool,
    /// Decide and tell, but ban nobody
    #[arg(long)]
    pub dry_run: bool,
}

impl Default for RunArgs {
    fn default() -> Self {
        Self {
            place: WhereArgs {
                config: CONFIG.into(),
                runtime_dir: RUNTIME_DIR.into(),
            },
            format: "combined".into(),
            tee: None,
            error_log: false,
            single_writer: false,
            dry_run: false,
        }
    }
}

/// `watch`.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// Decide and tell, but ban nobody
    #[arg(long)]
    pub dry_run: bool,
}

/// `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// httpd's main configuration file; found by itself if not given
    #[arg(long, value_name = "FILE")]
    pub httpd_conf: Option<PathBuf>,
    /// fail2ban's configuration, whose jails are looked at; as [fail2ban] config says if not given
    #[arg(long, short = 'c', value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `banned`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Only this jail
    pub jail: Option<String>,
    /// Which configuration, and how to print.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `ban`.
#[derive(Args, Clone, Debug)]
pub struct BanArgs {
    /// Addresses, or networks such as 192.0.2.0/24
    #[arg(required = true, value_name = "IP")]
    pub ips: Vec<String>,
    /// The jail whose set and ports are used; "manual" closes the ports of [defaults]
    #[arg(long, default_value = "manual")]
    pub jail: String,
    /// How long: 10m, 1h 30m, 3600, -1 for ever; the jail's bantime if not given
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub time: Option<String>,
    /// Even an address that ignoreip, ignoreself or loopback protects
    #[arg(long)]
    pub force: bool,
    /// Which configuration.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `unban`.
#[derive(Args, Clone, Debug)]
pub struct UnbanArgs {
    /// Addresses or networks
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "IP"
    )]
    pub ips: Vec<String>,
    /// Everybody
    #[arg(long)]
    pub all: bool,
    /// Only from this jail
    #[arg(long)]
    pub jail: Option<String>,
    /// Which configuration.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `jail`.
#[derive(Args, Clone, Debug)]
pub struct JailArgs {
    /// Its name
    #[arg(value_name = "JAIL")]
    pub jail: String,
    /// on, off, observe, or KEY=VALUE: maxretry, findtime, bantime, usedns, ignoreself, idle
    #[arg(value_name = "CHANGE")]
    pub changes: Vec<String>,
    /// Which configuration, and how to print.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `ignore`.
#[derive(Args, Clone, Debug)]
pub struct IgnoreArgs {
    /// What to do
    #[arg(value_enum)]
    pub what: live::Ignore,
    /// Addresses, networks such as 192.0.2.0/24, or host names
    #[arg(value_name = "IP")]
    pub ips: Vec<String>,
    /// Only this jail; all of them, and bans by hand, if not given
    #[arg(long)]
    pub jail: Option<String>,
    /// Which configuration, and how to print.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `log-level`.
#[derive(Args, Clone, Debug)]
pub struct LogLevelArgs {
    /// error, warning, info (the normal one), debug or trace
    #[arg(value_name = "LEVEL")]
    pub level: Option<String>,
    /// Which configuration, and how to print.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `subscribe`.
#[derive(Args, Clone, Debug)]
pub struct SubscribeArgs {
    /// Which configuration, and how to print.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `off`.
#[derive(Args, Clone, Debug)]
pub struct OffArgs {
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// Take away the rules and the sets themselves, too: for uninstalling
    #[arg(long, hide = true)]
    pub remove: bool,
}

/// `import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// fail2ban's database
    #[arg(value_name = "FILE", default_value = database::FILE)]
    pub file: PathBuf,
    /// Which configuration, and how to print.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `metrics`.
#[derive(Args, Clone, Debug)]
pub struct MetricsArgs {
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// Write this file, as node_exporter's textfile collector wants it, and print nothing
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,
}

/// `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The line, as it stands in the log; - reads lines from stdin
    pub line: String,
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// LogFormat of the line, as in `run`
    #[arg(long, value_name = "FORMAT", default_value = "combined")]
    pub format: String,
    /// The line is from httpd's error log
    #[arg(long)]
    pub error_log: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Old logs, oldest first; - is stdin. Each is judged by the jails whose logpath it is or was; by all, if none is any's
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// LogFormat of access lines, as in `run`; other lines are for jails with a filter only
    #[arg(long, value_name = "FORMAT", default_value = "combined")]
    pub format: String,
    /// fail2ban's configuration, whose jails take part; as [fail2ban] config says if not given
    #[arg(long, short = 'c', value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// What is the present, seconds since the epoch: decides the year of dates that have none
    #[arg(long, value_name = "EPOCH")]
    pub now: Option<f64>,
    /// Each line begins with its time, seconds since the epoch, and a tab; no date is looked for in its text
    #[arg(long)]
    pub stamped: bool,
    /// One JSON object a decision
    #[arg(long)]
    pub json: bool,
}

/// `tune`.
#[derive(Args, Clone, Debug)]
pub struct TuneArgs {
    /// Old access logs, oldest first, also packed by gzip; - is stdin
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// LogFormat of the lines, as in `run`
    #[arg(long, value_name = "FORMAT", default_value = "combined")]
    pub format: String,
    /// Only this jail; may be given several times
    #[arg(long, value_name = "JAIL")]
    pub jail: Vec<String>,
    /// Also write a page with the plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `test`.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// A log file, - for stdin, systemd-journal, or one line as it stands in a log
    pub log: String,
    /// A filter (sshd, sshd[mode=aggressive], a file), a jail, or a regular expression with <HOST> in it
    #[arg(value_name = "FILTER|REGEX")]
    pub filter: String,
    /// What is no failure after all: a regular expression
    #[arg(value_name = "IGNOREREGEX")]
    pub ignoreregex: Option<String>,
    /// Which configuration.
    #[command(flatten)]
    pub place: WhereArgs,
    /// fail2ban's configuration, in which filters and jails are looked for; as [fail2ban] config says if not given
    #[arg(long, short = 'c', value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Where the date stands, instead of what the filter says
    #[arg(long, short = 'd', value_name = "PATTERN")]
    pub datepattern: Option<String>,
    /// The zone of dates that name none: UTC, UTC+0200, CET
    #[arg(long, value_name = "ZONE", visible_alias = "TZ")]
    pub timezone: Option<String>,
    /// Encoding of the log
    #[arg(long, short = 'e', value_name = "ENCODING", default_value = "auto")]
    pub encoding: String,
    /// Host names: raw (counted as they are), no (not found), yes and warn (looked up)
    #[arg(long, value_name = "HOW")]
    pub usedns: Option<String>,
    /// The same as --usedns raw
    #[arg(long, short = 'r')]
    pub raw: bool,
    /// Lines that an expression may span
    #[arg(long, short = 'L', value_name = "N")]
    pub maxlines: Option<usize>,
    /// What of the journal is read, instead of what the filter says
    #[arg(long, short = 'm', value_name = "MATCH")]
    pub journalmatch: Option<String>,
    /// The clock, seconds since the epoch: decides the year of dates that have none
    #[arg(long, value_name = "EPOCH")]
    pub now: Option<f64>,
    /// Each line begins with its time, seconds since the epoch, and a tab; no date is looked for in its text
    #[arg(long)]
    pub stamped: bool,
    /// Only this of each failure: id, ip, host, msg, row, user or another group, or a text with <ip> <time> <F-USER>
    #[arg(long, short = 'o', value_name = "WHAT")]
    pub out: Option<String>,
    /// All expressions, and whom each found
    #[arg(long, short = 'v')]
    pub verbose: bool,
    /// Do not print lines that were missed
    #[arg(long)]
    pub print_no_missed: bool,
    /// Do not print lines that were ignored
    #[arg(long)]
    pub print_no_ignored: bool,
    /// Print all lines that were missed, however many
    #[arg(long)]
    pub print_all_missed: bool,
    /// Print all lines that were ignored, however many
    #[arg(long)]
    pub print_all_ignored: bool,
    /// Print the lines that matched, too
    #[arg(long)]
    pub print_all_matched: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// No pauses and no live view: for scripts and tests
    #[arg(long)]
    pub quick: bool,
}

/// `generate`.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// The folder; it is made if it is not there
    pub dir: PathBuf,
}

/// How a command ended that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1: the thing asked about is not so (a check that fails, an address that was not banned).
    NotSo,
}

/// Why a command could not do what it was asked. Exit code 2, but for [`Failure::Output`].
#[derive(Debug)]
pub enum Failure {
    /// Words or configuration that cannot be used: complete lines for people, each with what to write.
    Usage(String),
    /// The output could not be written. A reader that went away (`| head`) is not an error.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

/// What a command returns.
pub type Done = Result<Outcome, Failure>;

/// Every command but `run`, which has no words to print and no end of its own.
///
/// # Errors
/// See [`Failure`].
pub fn command(command: &Command, out: &mut dyn Write) -> Done {
    match command {
        Command::Run(_) | Command::Watch(_) => Ok(Outcome::Fine),
        Command::Check(args) => check::check(args, out),
        Command::Status(args) => bans::status::status(args, out),
        Command::Banned(args) => bans::banned(args, out),
        Command::Ban(args) => bans::ban(args, out),
        Command::Unban(args) => bans::unban(args, out),
        Command::Jail(args) => live::jail(args, out),
        Command::Ignore(args) => live::ignore(args, out),
        Command::Subscribe(args) => live::subscribe(args, out),
        Command::LogLevel(args) => live::log_level(args, out),
        Command::Off(args) => bans::switch::off(args, out),
        Command::Reload(args) => bans::switch::reload(args, out),
        Command::Import(args) => import::import(args, out),
        Command::Metrics(args) => metrics::metrics(args, out),
        Command::Explain(args) => explain::explain(args, out),
        Command::Replay(args) => replay::replay(args, out),
        Command::Tune(args) => tune::tune(args, out),
        Command::Test(args) => test::test(args, out),
        Command::Demo(args) => demo::demo(args, out),
        Command::DemoStage(args) => demo::stage(args, out),
        Command::Generate(args) => generate::generate(args, out),
    }
}

/// May output be coloured? Only what goes to a terminal that can, and not against its owner's wish (no-color.org).
fn colour() -> bool {
    let is_set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal()
        && is_set("NO_COLOR").is_none()
        && is_set("TERM").is_some_and(|term| term != "dumb")
}

/// The configuration, for commands whose answer would be wrong if a part of it were left out.
fn usable(place: &WhereArgs) -> Result<Config, Failure> {
    usable_with(place, None)
}

/// The same with another folder of fail2ban's. What is wrong in such a folder leaves out one of its jails, as it does for
/// fail2ban; the others run.
fn usable_with(place: &WhereArgs, fail2ban: Option<&Path>) -> Result<Config, Failure> {
    if let Some(dir) = fail2ban.filter(|dir| !dir.is_dir()) {
        let text = format!("--config-dir {}: there is no such folder", dir.display());
        return Err(Failure::Usage(text));
    }
    let loaded = config::load_with(&place.config, fail2ban);
    if loaded.errors().next().is_some() {
        let lines: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        return Err(Failure::Usage(lines.join("\n")));
    }
    if loaded.config.path.is_none() && place.config != Path::new(CONFIG) {
        let text = format!("--config {}: there is no such file", place.config.display());
        return Err(Failure::Usage(text));
    }
    let config::Loaded { config, problems } = loaded;
    say::direct();
    // Of fail2ban's folder only what does not run: the rest is for `check` to say.
    let is_told = |problem: &&Problem| match problem.severity {
        Severity::Error => true,
        Severity::Warning => !config.is_fail2bans(problem),
        Severity::Note => false,
    };
    for problem in problems.iter().filter(is_told) {
        log::warn!("{problem}");
    }
    Ok(config)
}

/// Hands every line of `input` to `take`, a last one without a newline too, until that fails.
fn each_line(
    mut input: impl BufRead,
    mut take: impl FnMut(Framed<'_>) -> Result<(), Failure>,
    unreadable: impl Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let mut framer = Framer::default();
    let mut done = Ok(());
    let mut each = |mut lines: Lines<'_>, done: &mut Result<(), Failure>| {
        if done.is_ok() {
            *done = lines.try_for_each(&mut take);
        }
    };
    while done.is_ok() {
        let chunk = input.fill_buf().map_err(&unreadable)?;
        if chunk.is_empty() {
            framer.finish(|lines, _| each(lines, &mut done));
            break;
        }
        framer.feed(chunk, Trust::Whole, |lines, _| each(lines, &mut done));
        let used = chunk.len();
        input.consume(used);
    }
    done
}

/// What `main` returns for a command's end.
#[must_use]
pub fn exit_code(done: &Done) -> ExitCode {
    match done {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::NotSo) => ExitCode::from(1),
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::from(2),
    }
}
