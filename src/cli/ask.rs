//! Asking the process in charge, for the commands.

use std::io;

use nix::unistd::geteuid;
use serde_json::Value;

use super::Failure;
use crate::config::RuntimePaths;
use crate::control::client::Client;
use crate::control::wire::{Reply, Request};

/// What it answers; `None`: no f2b-pipe is in charge here.
///
/// # Errors
/// It refuses, with all that is wrong; or it does not answer.
pub(super) fn ask(paths: &RuntimePaths, request: &Request) -> Result<Option<Value>, Failure> {
    answer(paths, Client::connect(paths), request)
}

fn answer(
    paths: &RuntimePaths,
    connected: io::Result<Option<Client>>,
    request: &Request,
) -> Result<Option<Value>, Failure> {
    let told = |error: io::Error| trouble(paths, &error);
    let Some(mut client) = connected.map_err(told)? else {
        return Ok(None);
    };
    let reply = client.ask(request).map_err(told)?;
    result(reply).map(Some)
}

/// The same for what can be done without it, too: who may not ask is told there what he lacks.
///
/// # Errors
/// As [`ask`].
pub(super) fn ask_if_allowed(
    paths: &RuntimePaths,
    request: &Request,
) -> Result<Option<Value>, Failure> {
    match Client::connect(paths) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        connected => answer(paths, connected, request),
    }
}

/// The same for what only a running f2b-pipe can do.
///
/// # Errors
/// None runs, too.
pub(super) fn must(paths: &RuntimePaths, request: &Request) -> Result<Value, Failure> {
    ask(paths, request)?.ok_or_else(|| nobody(paths))
}

/// Connects, for more than one answer.
///
/// # Errors
/// Nobody is there, or he does not answer.
pub(super) fn connect(paths: &RuntimePaths) -> Result<Client, Failure> {
    let client = Client::connect(paths).map_err(|error| trouble(paths, &error))?;
    client.ok_or_else(|| nobody(paths))
}

/// What was answered.
///
/// # Errors
/// It was refused.
pub(super) fn result(reply: Reply) -> Result<Value, Failure> {
    match (reply.ok, reply.error) {
        (true, _) => Ok(reply.result),
        (false, error) => {
            Err(Failure::Usage(error.unwrap_or_else(|| {
                "refused, and no reason was given".to_owned()
            })))
        }
    }
}

fn nobody(paths: &RuntimePaths) -> Failure {
    Failure::Usage(format!(
        "no f2b-pipe runs here ({} is not answered); systemctl start f2b-pipe, or start httpd with a logger",
        paths.control().display()
    ))
}

/// Why nobody could be asked: mostly, that this is not root.
pub(super) fn trouble(paths: &RuntimePaths, error: &io::Error) -> Failure {
    let socket = paths.control();
    let socket = socket.display();
    let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
    Failure::Usage(
        if is(&[io::ErrorKind::PermissionDenied]) && !geteuid().is_root() {
            format!(
                "asking the running f2b-pipe takes root, or to be in the group that [control] group names: sudo f2b-pipe ... ({socket})"
            )
        } else if is(&[io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut]) {
            format!("{socket}: f2b-pipe runs, and does not answer in time; try again")
        } else if is(&[io::ErrorKind::UnexpectedEof]) {
            format!("{socket}: f2b-pipe has ended before it answered; try again")
        } else {
            format!("{socket}: {error}")
        },
    )
}
