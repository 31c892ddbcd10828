//! One command to one answer, in the order in which fail2ban looks at its words: what is wrong with two of them is told of
//! the same one.

use super::pickle::{Exception, Value};
use super::python::{Answer, Words, error, float, quoted};
use super::server::Server;
use super::{get, set, status};

/// fail2ban's version, as clients are told: the one whose commands these are.
const VERSION: &str = "1.0.2";
/// Longest `sleep`, seconds.
const SLEEP_MAX: f64 = 10.0;

/// Carries a command out. The answer is what goes over the socket: `(0, value)` or `(1, exception)`.
pub fn answer(command: &Value, server: &mut dyn Server) -> Value {
    let words = Words(command.items().unwrap_or_default());
    match carry_out(words, server) {
        Ok(value) => Value::pair(Value::Int(0), value),
        Err(exception) => Value::pair(Value::Int(1), Value::Exception(exception)),
    }
}

fn carry_out(words: Words<'_>, server: &mut dyn Server) -> Answer {
    let rest = words.from(1);
    match words.text(0)?.as_str() {
        "ping" => Ok(Value::text("pong")),
        "version" => Ok(Value::text(VERSION)),
        "echo" => Ok(Value::List(rest.0.to_vec())),
        "server-status" => Ok(Value::text("Server ready")),
        "status" => status::status(rest, server),
        "banned" => status::banned(rest, server),
        "get" => get::get(rest, server),
        "set" => set::set(rest, server),
        "multi-set" => set::several(rest, server),
        "unban" if !rest.is_empty() => unban(rest, server),
        "reload" => reload(rest, server),
        "flushlogs" => {
            server.flush_logs()?;
            Ok(Value::text("rolled over"))
        }
        "start" => {
            server.switch(&rest.text(0)?, true)?;
            Ok(Value::None)
        }
        "stop" => stop(rest, server),
        "add" => Err(add(&rest.text(0)?, server)?),
        "sleep" => {
            let pause = float(rest.at(0)?)?.clamp(0.0, SLEEP_MAX);
            std::thread::sleep(std::time::Duration::from_secs_f64(pause));
            Ok(Value::None)
        }
        "config-error" => {
            log::error!("fail2ban-client: {}", rest.text(0)?);
            Ok(Value::None)
        }
        "server-stream" => {
            rest.at(0)?;
            Err(error(
                "f2b-pipe reads its configuration by itself; write `reload`",
            ))
        }
        _ => Err(error("Invalid command")),
    }
}

fn unban(who: Words<'_>, server: &mut dyn Server) -> Answer {
    let who = who.texts();
    if who == ["--all"] {
        return Ok(Value::count(server.unban_all(None)?));
    }
    let mut lifted = 0;
    for jail in server.jails()? {
        for who in &who {
            lifted += set::lift(&jail, who, server)?;
        }
    }
    Ok(Value::count(lifted))
}

/// `reload JAIL|--all OPTIONS STREAM`. The stream is what the client has read of fail2ban's folder; it is read here again,
/// as it is at every start, and with our own file.
fn reload(words: Words<'_>, server: &mut dyn Server) -> Answer {
    let jail = words.text(0)?;
    let options = Words(words.at(1)?.items().unwrap_or_default()).texts();
    let asks = |option: &str| options.iter().any(|given| given == option);
    let only = (jail != "--all").then_some(jail.as_str());
    if let Some(name) = only {
        let known = server.jail(name);
        if !asks("--if-exists") {
            known?;
        }
    }
    if asks("--unban") {
        server.unban_all(only)?;
    }
    // What `--restart` loses, counts and bans, nobody wants to lose.
    server.reload(only)?;
    Ok(Value::text("OK"))
}

/// The server is not stopped from here: a `restart` is a `stop` that is waited for and then the start of another program,
/// and until somebody noticed nobody would be banned.
fn stop(words: Words<'_>, server: &mut dyn Server) -> Answer {
    if words.is_empty() {
        return Err(error(
            "this is f2b-pipe, which is not stopped from here; write `systemctl stop f2b-pipe`, or `f2b-pipe off` to lift every ban",
        ));
    }
    match words.text(0)?.as_str() {
        "--all" => {
            for jail in server.jails()? {
                server.switch(&jail, false)?;
            }
        }
        jail => server.switch(jail, false)?,
    }
    Ok(Value::None)
}

/// A jail of nothing, to be filled by further commands, is for fail2ban's own start.
fn add(jail: &str, server: &mut dyn Server) -> Result<Exception, Exception> {
    if jail == "--all" {
        return Ok(error(format!("Reserved name {}", quoted(jail))));
    }
    if server.jails()?.iter().any(|known| known == jail) {
        return Ok(Exception {
            module: "fail2ban.exceptions",
            class: "DuplicateJailException",
            args: vec![Value::text(jail)],
        });
    }
    Ok(error(format!(
        "jail {jail} is not in the configuration; write [{jail}] into jail.local, and `reload`"
    )))
}

#[cfg(test)]
mod tests;
