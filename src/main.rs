//! One screen: arguments, command, exit code.

use std::io::Write;
use std::process::ExitCode;

use f2b_pipe::cli::{self, Cli, Command, Failure};
use f2b_pipe::{run, say, watch};

fn main() -> ExitCode {
    run::hold();
    let cli = match <Cli as clap::Parser>::try_parse() {
        Ok(cli) => cli,
        Err(error) => return run::despite(&error),
    };
    let command = match cli.command {
        None => return run::run(&cli.run),
        Some(Command::Run(args)) => return run::run(&args),
        Some(Command::Watch(args)) => {
            run::release();
            return watch::run(&args);
        }
        Some(command) => command,
    };
    run::release();
    let mut out = std::io::stdout().lock();
    let mut done = cli::command(&command, &mut out);
    if let (Ok(_), Err(error)) = (&done, out.flush()) {
        done = Err(Failure::Output(error));
    }
    if let Err(failure) = &done {
        say::failure(failure);
    }
    cli::exit_code(&done)
}
