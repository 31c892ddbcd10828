//! When which command of an action runs: fail2ban's rules, one action of one jail.
//!
//! A family is started with its jail or before its first ban. A command that fails is followed by actioncheck; if that
//! fails too, by actionrepair (or actionstop and actionstart) and actioncheck again; then it is tried once more.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::child;
use super::names::Runner;
use super::tags::{Commands, Script, fill, replace};
use super::{Family, Op, Spec, SpecError, Ticket};
use crate::date::now;

/// Loads a class and calls a method of it.
const PYTHON: &str = include_str!("python.py");

/// What did not succeed; told already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Done, or not.
pub type Done = Result<(), Failed>;

/// How a family of an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Started,
    /// Started, and somebody was banned since it was last empty.
    Holding,
}

/// An action at work.
#[derive(Debug)]
pub struct Action {
    spec: Spec,
    commands: Commands,
    ipv6: bool,
    /// In the order in which they were first seen.
    states: Vec<(Family, State)>,
    /// Commands of start and stop that have been run and not undone, by family: families whose commands are the same share
    /// one run.
    ran: Vec<(Op, Family, String)>,
    /// How often it was repaired; bans older than the last time may be gone.
    epoch: u64,
}

impl Action {
    /// An action, not started.
    ///
    /// # Errors
    /// Its tags cannot be resolved.
    pub fn new(spec: Spec, ipv6: bool) -> Result<Self, SpecError> {
        Ok(Self {
            commands: Commands::new(&spec)?,
            spec,
            ipv6,
            states: Vec::new(),
            ran: Vec::new(),
            epoch: 0,
        })
    }

    /// What it was made of.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// How often its environment was found broken. Whoever was banned before must be banned again when seen again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn on_demand(&self) -> bool {
        self.spec.start_on_demand.unwrap_or(self.commands.by_family)
    }

    fn families(&self) -> Vec<Family> {
        match &self.commands.families {
            Some(families) => families.clone(),
            None if self.commands.by_family && self.ipv6 => vec![Family::Inet4, Family::Inet6],
            None if self.commands.by_family => vec![Family::Inet4],
            None => vec![Family::Any],
        }
    }

    fn state(&self, family: Family) -> State {
        let known = self.states.iter().find(|(known, _)| *known == family);
        known.map_or(State::Stopped, |(_, state)| *state)
    }

    fn set(&mut self, family: Family, state: State) {
        match self.states.iter_mut().find(|(known, _)| *known == family) {
            Some((_, known)) => *known = state,
            None => self.states.push((family, state)),
        }
    }

    fn in_state(&self, is: impl Fn(State) -> bool) -> Vec<Family> {
        let those = self.states.iter().filter(|(_, state)| is(*state));
        those.map(|(family, _)| *family).collect()
    }

    /// The jail starts.
    ///
    /// # Errors
    /// A command failed.
    pub(super) fn start(&mut self, runner: &Runner) -> Done {
        if self.spec.is_python() {
            return self.python("start", None, runner);
        }
        if self.on_demand() {
            return Ok(());
        }
        self.start_families(&self.families(), runner)
    }

    fn start_families(&mut self, families: &[Family], runner: &Runner) -> Done {
        self.operation(Op::Start, families, runner, |action, family| {
            action.forget(Op::Stop, family);
            action.set(family, State::Started);
        })
    }

    /// Bans, having started what was not started.
    ///
    /// # Errors
    /// Nobody was banned by this action.
    pub(super) fn ban(&mut self, ticket: &Ticket, runner: &Runner) -> Done {
        if self.spec.is_python() {
            return self.python("ban", Some(ticket), runner);
        }
        if ticket.restored && self.spec.norestored {
            return Ok(());
        }
        self.ban_with(Op::Ban, ticket, runner)
    }

    /// Bans again, after a repair.
    ///
    /// # Errors
    /// As [`Action::ban`].
    pub(super) fn reban(&mut self, ticket: &Ticket, runner: &Runner) -> Done {
        if self.spec.is_python() {
            return self.python("reban", Some(ticket), runner);
        }
        let op = if self.spec.property(Op::Reban.option()).is_empty() {
            Op::Ban
        } else {
            Op::Reban
        };
        self.ban_with(op, ticket, runner)
    }

    fn ban_with(&mut self, op: Op, ticket: &Ticket, runner: &Runner) -> Done {
        let family = ticket.family();
        if self.on_demand() && self.state(family) == State::Stopped {
            self.start_families(&[family], runner)?;
        }
        self.process(op, ticket, runner)?;
        self.set(family, State::Holding);
        Ok(())
    }

    /// A ban lasts longer than was said.
    ///
    /// # Errors
    /// The command failed.
    pub(super) fn prolong(&mut self, ticket: &Ticket, runner: &Runner) -> Done {
        if self.spec.is_python() {
            return self.python("prolong", Some(ticket), runner);
        }
        let none = self.spec.property(Op::Prolong.option()).trim().is_empty();
        if none || ticket.restored && self.spec.norestored {
            return Ok(());
        }
        self.process(Op::Prolong, ticket, runner)
    }

    /// A ban ends. Nothing runs for a family that holds no bans.
    ///
    /// # Errors
    /// The command failed.
    pub(super) fn unban(&mut self, ticket: &Ticket, runner: &Runner) -> Done {
        if self.spec.is_python() {
            return self.python("unban", Some(ticket), runner);
        }
        if self.state(ticket.family()) != State::Holding {
            return Ok(());
        }
        self.process(Op::Unban, ticket, runner)
    }

    /// All bans end at once, if the action has a command for that; otherwise one by one.
    ///
    /// # Errors
    /// Some command failed.
    pub(super) fn flush(&mut self, held: &[Ticket], stopping: bool, runner: &Runner) -> Done {
        let at_once = if self.spec.is_python() {
            // Not having that method is no failure.
            let asked = child::run(
                &self.python_script("flush", None, runner),
                &runner.path,
                self.spec.timeout,
                &runner.abort,
            );
            if asked.is_ok_and(|ended| ended.code() == Some(0)) {
                return Ok(());
            }
            false
        } else {
            !self.spec.property(Op::Flush.option()).is_empty()
        };
        if !at_once {
            let mut done = Ok(());
            for ticket in held {
                done = self.unban(ticket, runner).and(done);
            }
            return done;
        }
        let families = self.in_state(|state| state == State::Holding);
        let flushed = self.operation(Op::Flush, &families, runner, |action, family| {
            action.set(family, State::Started);
        });
        self.ran.retain(|(op, _, _)| *op != Op::Flush);
        if flushed.is_err() {
            self.check_all(!stopping || self.spec.repair_on_unban, runner)
                .ok();
        }
        flushed
    }

    /// The jail stops. Its bans have been flushed.
    ///
    /// # Errors
    /// A command failed.
    pub(super) fn stop(&mut self, runner: &Runner) -> Done {
        if self.spec.is_python() {
            return self.python("stop", None, runner);
        }
        let families = self.in_state(|state| state != State::Stopped);
        self.states.clear();
        self.stop_families(&families, runner)
    }

    fn stop_families(&mut self, families: &[Family], runner: &Runner) -> Done {
        self.operation(Op::Stop, families, runner, |action, family| {
            action.forget(Op::Start, family);
        })
    }

    /// The configuration was read again; `spec` is what it says now.
    ///
    /// # Errors
    /// Its tags cannot be resolved (told, and the old one stays), or actionreload failed.
    pub(super) fn reload(&mut self, spec: Spec, runner: &Runner) -> Done {
        match Commands::new(&spec) {
            Ok(commands) => {
                self.commands = commands;
                self.spec = spec;
                self.ran.clear();
                if self.spec.is_python() {
                    return Ok(());
                }
            }
            Err(error) => {
                log::error!("{error}; the old values stay");
                return Err(Failed);
            }
        }
        let families = self.in_state(|state| state != State::Stopped);
        let done = self.operation(Op::Reload, &families, runner, |_, _| ());
        self.ran.retain(|(op, _, _)| *op != Op::Reload);
        done
    }

    /// Somebody got through long after being banned: is the action still in place?
    ///
    /// # Errors
    /// It is not, and cannot be repaired.
    pub(super) fn check_all(&mut self, repair: bool, runner: &Runner) -> Done {
        let mut done = Ok(());
        if self.spec.property(Op::Check.option()).is_empty() {
            return done;
        }
        for family in self.in_state(|state| state != State::Stopped) {
            if !self.sane(family, repair, true, runner) {
                self.set(family, State::Stopped);
                self.forget(Op::Start, family);
                done = Err(Failed);
            }
        }
        done
    }

    /// Runs start, stop, flush or reload for families, the same command once. `after` each that succeeded.
    fn operation(
        &mut self,
        op: Op,
        families: &[Family],
        runner: &Runner,
        after: impl Fn(&mut Self, Family),
    ) -> Done {
        let mut done = Ok(());
        for &family in families {
            let command = self.command(op, family, runner);
            let known = |(ran, of, text): &(Op, Family, String)| {
                *ran == op && *of != family && *text == command
            };
            let mut result = Ok(());
            if !command.is_empty() && !self.ran.iter().any(known) {
                let nobody = Ticket {
                    time: now(),
                    ..Ticket::default()
                };
                let script = self.dynamic(&command, &nobody, Some(family), runner);
                result = self.execute(op.option(), "", &script, runner);
            }
            if result.is_ok() {
                after(self, family);
            }
            self.forget_own(op, family, result.is_err() || command.is_empty());
            if result.is_ok() && !command.is_empty() {
                self.ran.push((op, family, command));
            }
            done = result.and(done);
        }
        done
    }

    /// A command of this family was undone: it, and the same one for another family, may run again.
    fn forget(&mut self, op: Op, family: Family) {
        self.forget_own(op, family, true);
    }

    fn forget_own(&mut self, op: Op, family: Family, twins: bool) {
        let at = |(ran, of, _): &(Op, Family, String)| *ran == op && *of == family;
        let Some(position) = self.ran.iter().position(at) else {
            return;
        };
        let (_, _, text) = self.ran.remove(position);
        if twins {
            self.ran
                .retain(|(ran, _, other)| *ran != op || *other != text);
        }
    }

    /// Ban, unban and prolong: check, repair and a second try if the first fails.
    fn process(&mut self, op: Op, ticket: &Ticket, runner: &Runner) -> Done {
        let family = ticket.family();
        let script = self.dynamic(self.commands.text(op, family), ticket, None, runner);
        if self
            .execute(op.option(), &ticket.ip, &script, runner)
            .is_ok()
        {
            return Ok(());
        }
        if !self.spec.property(Op::Check.option()).is_empty() {
            let unban = op == Op::Unban;
            let repair = !unban || self.spec.repair_on_unban;
            if !self.sane(family, repair, !unban, runner) {
                return Err(Failed);
            }
        }
        self.execute(op.option(), &ticket.ip, &script, runner)
    }

    /// Whether actioncheck is content, perhaps after a repair.
    fn sane(&mut self, family: Family, repair: bool, force: bool, runner: &Runner) -> bool {
        if !force && !self.states.iter().any(|(known, _)| *known == family) {
            return true;
        }
        let (jail, action) = (self.spec.jail.clone(), self.spec.action.clone());
        let check = plain(self.command(Op::Check, family, runner));
        if check.text.is_empty() || self.execute(Op::Check.option(), "", &check, runner).is_ok() {
            return true;
        }
        if !repair {
            log::error!(
                "jail '{jail}' action '{action}': actioncheck failed; nobody can be unbanned"
            );
            return false;
        }
        log::error!("jail '{jail}' action '{action}': actioncheck failed; trying to repair");
        self.epoch += 1;
        let command = plain(self.command(Op::Repair, family, runner));
        if command.text.is_empty() {
            if self.states.iter().any(|(known, _)| *known == family) {
                self.set(family, State::Stopped);
                // It may be gone altogether; what counts is whether it starts.
                self.stop_families(&[family], runner).ok();
            }
            if (force || !self.on_demand()) && self.start_families(&[family], runner).is_err() {
                return false;
            }
        } else if self
            .execute(Op::Repair.option(), "", &command, runner)
            .is_ok()
        {
            self.set(family, State::Started);
        } else {
            self.set(family, State::Stopped);
            log::error!("jail '{jail}' action '{action}': actionrepair failed");
            return false;
        }
        if self.state(family) != State::Stopped
            && self
                .execute(Op::Check.option(), "", &check, runner)
                .is_err()
        {
            log::error!(
                "jail '{jail}' action '{action}': actioncheck still fails after the repair"
            );
            return false;
        }
        true
    }

    /// A command without a ban, its family and the host's names put in.
    fn command(&self, op: Op, family: Family, runner: &Runner) -> String {
        let text = self.commands.text(op, family);
        if !text.contains('<') {
            return text.to_owned();
        }
        // In all texts alike, since the families' are compared.
        let text = replace(text, |tag| host_name(tag, runner));
        if family == Family::Any {
            return text;
        }
        let value = |tag: &str| (tag == "family").then_some(Cow::Borrowed(family.as_str()));
        // The name of a family holds nothing special, so there are no values beside it.
        fill(&text, value, |_| None).text
    }

    fn dynamic(
        &self,
        command: &str,
        ticket: &Ticket,
        family: Option<Family>,
        runner: &Runner,
    ) -> Script {
        let host = OnceCell::new();
        let value = |tag: &str| match (tag, family) {
            ("family", Some(family)) => Some(Cow::Borrowed(family.as_str())),
            ("jail.name", _) => Some(Cow::Owned(self.spec.jail.clone())),
            ("ip-host", _) => {
                let find = || runner.host(&ticket.ip).unwrap_or_else(|| "None".to_owned());
                Some(Cow::Owned(host.get_or_init(find).clone()))
            }
            _ => ticket.value(tag).or_else(|| host_name(tag, runner)),
        };
        if !command.contains('<') {
            return plain(command.to_owned());
        }
        fill(command, value, |name| ticket.capture(name))
    }

    /// Calls a method of an action that is a python class; once, whatever comes of it.
    fn python(&self, method: &str, ticket: Option<&Ticket>, runner: &Runner) -> Done {
        let whom = ticket.map_or("", |ticket| &ticket.ip);
        let script = self.python_script(method, ticket, runner);
        self.execute(method, whom, &script, runner)
    }

    fn python_script(&self, method: &str, ticket: Option<&Ticket>, runner: &Runner) -> Script {
        let options: serde_json::Map<String, serde_json::Value> = self
            .spec
            .properties
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "name" | "actname"))
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        let mut values = vec![
            PYTHON.to_owned(),
            self.spec.file.clone(),
            self.spec.jail.clone(),
            self.spec.action.clone(),
            serde_json::Value::Object(options).to_string(),
            method.to_owned(),
        ];
        if let Some(ticket) = ticket {
            let mut give = |tag: &str, value: &str| {
                values.push(tag.to_owned());
                values.push(value.replace('\0', "\u{fffd}"));
            };
            for tag in Ticket::TAGS {
                give(tag, &ticket.value(tag).unwrap_or_default());
            }
            for (name, value) in &ticket.captures {
                give(&format!("F-{}", name.to_uppercase()), value);
            }
            give("fq-hostname", &runner.full());
        }
        Script {
            text: "exec python3 -I -c \"$@\"".to_owned(),
            values,
        }
    }

    /// Runs one command and tells if it failed.
    fn execute(&self, what: &str, whom: &str, script: &Script, runner: &Runner) -> Done {
        if script.text.is_empty() {
            return Ok(());
        }
        if runner.ending() {
            // The end was told, with the number of orders left.
            return Err(Failed);
        }
        let (jail, action) = (&self.spec.jail, &self.spec.action);
        let about = if whom.is_empty() { "" } else { " " };
        match child::run(script, &runner.path, self.spec.timeout, &runner.abort) {
            Ok(ended) if ended.code() == Some(0) => Ok(()),
            Ok(ended) => {
                log::error!("jail '{jail}' action '{action}': {what}{about}{whom} {ended}");
                Err(Failed)
            }
            Err(error) => {
                log::error!(
                    "jail '{jail}' action '{action}': {what}{about}{whom} could not be started: {error}"
                );
                Err(Failed)
            }
        }
    }
}

fn plain(text: String) -> Script {
    Script {
        text,
        values: Vec::new(),
    }
}

fn host_name<'a>(tag: &str, runner: &Runner) -> Option<Cow<'a, str>> {
    match tag {
        "fq-hostname" => Some(Cow::Owned(runner.full())),
        "sh-hostname" => Some(Cow::Owned(runner.short())),
        _ => None,
    }
}
