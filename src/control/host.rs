//! The process in charge, for whoever asks.

use std::collections::HashMap;
use std::fs;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use super::{BannedView, ControlError, Event, Fate, JailView, Lifted, Lines, events};
use crate::act::keeper::{self, BanEvent};
use crate::act::listed::{Row, empty, rows};
use crate::act::{Act, ActError, Ban, Banned, SetRef, firewall, place_of};
use crate::changes::course::Course;
use crate::changes::orders::{Order, Orders};
use crate::changes::{Change, Mode, unknown_jail};
use crate::cli::metrics;
use crate::config::{self, Backend, Config, Jail, LineSource, RuntimePaths};
use crate::date::now;
use crate::decide::BanFor;
use crate::exempt::{Bannable, Exempt, Target};
use crate::hit::JailId;
use crate::judge::JailTally;
use crate::key::Key;
use crate::notify::{self, logfile, state};
use crate::watch::Watch;

/// A hold on the process in charge, for as many threads as want one. Every call is for a thread that nobody waits for: it
/// takes up to [`PATIENCE`](super::PATIENCE), or as long as the kernel takes to list its sets.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

/// What it holds.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) course: Arc<Course>,
    pub(crate) paths: RuntimePaths,
    /// Judges other logs.
    pub(crate) watch: Arc<Watch>,
    pub(crate) keeper: keeper::Hand,
    pub(crate) exempt: Exempt,
    /// For the thread that counts httpd's hits.
    pub(crate) orders: Arc<Orders>,
}

#[derive(Debug)]
struct Inner {
    course: Arc<Course>,
    paths: RuntimePaths,
    watch: Arc<Watch>,
    keeper: keeper::Hand,
    exempt: Mutex<Exempt>,
    orders: Arc<Orders>,
}

impl Host {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            course,
            paths,
            watch,
            keeper,
            exempt,
            orders,
        } = parts;
        Self(Arc::new(Inner {
            course,
            paths,
            watch,
            keeper,
            exempt: Mutex::new(exempt),
            orders,
        }))
    }

    /// Another list of who is never banned.
    pub(crate) fn renew(&self, exempt: &Exempt) {
        let list = self.0.exempt.lock();
        *list.unwrap_or_else(PoisonError::into_inner) = exempt.clone();
    }

    /// Is this the process in charge?
    pub(crate) fn in_charge(&self) -> bool {
        self.0.keeper.health().owner
    }

    /// The configuration that runs: what was read, and changed since. What is the same for all jails stands here
    /// (`log_level`, `fail2ban_log`); `jails` are those that run.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.course.config()
    }

    /// Where files are: the ledger (`get dbfile`), the sockets.
    #[must_use]
    pub fn paths(&self) -> &RuntimePaths {
        &self.0.paths
    }

    /// All jails in the order of the configuration, those that are switched off last: `status`, `get J OPTION` for every
    /// option.
    ///
    /// # Errors
    /// No answer.
    pub fn jails(&self) -> Result<Vec<JailView>, ControlError> {
        let config = self.config();
        let views = self.0.watch.views().ok_or(ControlError::NoAnswer)?;
        let mut views: HashMap<String, crate::watch::View> = views
            .into_iter()
            .map(|view| (view.name.clone(), view))
            .collect();
        let httpd = self.httpds();
        let mut bans: HashMap<String, usize> = HashMap::new();
        for row in self.rows(&config).unwrap_or_default() {
            *bans.entry(row.jail).or_default() += 1;
        }
        let mut jails = Vec::new();
        for jail in &config.jails {
            let mode = match jail.mode {
                config::Mode::Ban => Mode::On,
                config::Mode::Observe => Mode::Observe,
            };
            let in_kernel = bans.get(&jail.name).copied().unwrap_or(0);
            let mut shown = JailView {
                mode,
                lines: lines(jail, Vec::new()),
                failed: 0,
                tally: httpd.get(&jail.name).copied().unwrap_or_default(),
                bans: in_kernel,
                config: Arc::new(jail.clone()),
            };
            if let Some(view) = views.remove(&jail.name) {
                let files = view.files.iter().map(|file| file.display().to_string());
                shown.lines = lines(jail, files.collect());
                shown.failed = view.failing;
                shown.tally = view.tally;
                if !jail.raw.as_ref().is_some_and(|raw| raw.in_kernel) {
                    shown.bans = view.bans;
                }
            }
            jails.push(shown);
        }
        for jail in self.0.course.switched_off() {
            jails.push(JailView {
                mode: Mode::Off,
                lines: lines(&jail, Vec::new()),
                failed: 0,
                tally: JailTally::default(),
                bans: 0,
                config: Arc::new(jail),
            });
        }
        Ok(jails)
    }

    /// One of them: `status J`, `get J ...`.
    ///
    /// # Errors
    /// There is none of this name; no answer.
    pub fn jail(&self, name: &str) -> Result<JailView, ControlError> {
        let mut jails = self.jails()?;
        match jails.iter().position(|jail| jail.config.name == name) {
            Some(at) => Ok(jails.swap_remove(at)),
            None => Err(unknown(
                name,
                jails.iter().map(|jail| jail.config.name.as_str()),
            )),
        }
    }

    /// What the jails of httpd's lines counted, in all processes: at most a few seconds ago.
    fn httpds(&self) -> HashMap<String, JailTally> {
        let mut all: HashMap<String, JailTally> = HashMap::new();
        for state in state::others(&self.0.paths, 0) {
            for (name, tally) in state.jails {
                let sum = all.entry(name).or_default();
                sum.hits += tally.hits;
                sum.bans += tally.bans;
                sum.not_banned += tally.not_banned;
            }
        }
        all
    }

    fn rows(&self, config: &Config) -> Result<Vec<Row>, ControlError> {
        match config.firewall.backend {
            Backend::DryRun => Ok(Vec::new()),
            Backend::Auto | Backend::Ipset | Backend::Nftables => firewall::open(&config.firewall)
                .and_then(|mut kernel| rows(config, kernel.as_mut()))
                .map_err(|error| failed(&error)),
        }
    }

    /// The jail of this name, with its number; `manual` too.
    fn named(&self, config: &Config, name: &str) -> Result<(JailId, Jail), ControlError> {
        let mut all = (0..).zip(config.jails.iter().chain([&config.manual]));
        match all.find(|(_, jail)| jail.name == name) {
            Some((id, jail)) => Ok((id, jail.clone())),
            None if config.switched_off.iter().any(|off| off == name) => Err(ControlError::NotNow(
                format!("jail {name} is switched off; f2b-pipe jail {name} on"),
            )),
            None => {
                let all = config.jails.iter().chain([&config.manual]);
                Err(unknown(name, all.map(|jail| jail.name.as_str())))
            }
        }
    }

    /// Bans that stand, in one jail or all: `banned`, `get J banip`, `get J banned`. Of a jail that acts by commands only,
    /// what it knows; else what the kernel says.
    ///
    /// # Errors
    /// There is no such jail; the kernel cannot be asked.
    pub fn banned(&self, jail: Option<&str>) -> Result<Vec<BannedView>, ControlError> {
        let config = self.config();
        if let Some(name) = jail {
            match self.named(&config, name) {
                Ok(_) | Err(ControlError::NotNow(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let now = now();
        let mut known: HashMap<(String, String), (f64, Option<f64>)> = HashMap::new();
        let mut all = Vec::new();
        for conf in &config.jails {
            let Some(raw) = &conf.raw else { continue };
            if jail.is_some_and(|name| name != conf.name) {
                continue;
            }
            let bans = self
                .0
                .watch
                .bans(&conf.name)
                .ok_or(ControlError::NoAnswer)?;
            for (key, standing) in bans {
                let shown = match key.target() {
                    Some(who) => who.shown(conf.ipv6_prefix).to_string(),
                    None => key.to_string(),
                };
                if raw.in_kernel && key.target().is_some() {
                    let times = (standing.start, standing.end());
                    known.insert((conf.name.clone(), shown), times);
                } else {
                    all.push(BannedView {
                        jail: conf.name.clone(),
                        key: shown,
                        since: standing.start,
                        until: standing.end(),
                        packets: 0,
                        bytes: 0,
                        reason: String::new(),
                    });
                }
            }
        }
        for row in self.rows(&config)? {
            if jail.is_some_and(|name| name != row.jail) {
                continue;
            }
            #[allow(clippy::cast_precision_loss, reason = "seconds to the end of a ban")]
            let until = row.left.map(|left| now + left as f64);
            let bantime = config.jails.iter().find(|conf| conf.name == row.jail);
            let bantime = match bantime.unwrap_or(&config.manual).bantime {
                BanFor::Timed(secs) => f64::from(secs.get()),
                BanFor::Forever => 0.0,
            };
            let guess = until.map_or(now, |until| (until - bantime).min(now));
            let (since, until) = match known.remove(&(row.jail.clone(), row.ip.clone())) {
                Some(times) => times,
                None => (guess, until),
            };
            all.push(BannedView {
                jail: row.jail,
                key: row.ip,
                since,
                until,
                packets: row.packets,
                bytes: row.bytes,
                reason: row.reason,
            });
        }
        Ok(all)
    }

    /// Bans by hand: `set J banip`, `ban`. `ban_for`: the jail's bantime if not given; `force`: even who is never banned.
    /// One fate for each key, in their order.
    ///
    /// # Errors
    /// There is no such jail, or it does not ban now; no answer.
    pub fn ban(
        &self,
        jail: &str,
        keys: &[Key],
        ban_for: Option<BanFor>,
        force: bool,
    ) -> Result<Vec<Fate>, ControlError> {
        let config = self.config();
        let (id, conf) = self.named(&config, jail)?;
        if config.firewall.backend == Backend::DryRun {
            return Err(ControlError::NotNow(
                "this is a dry run, in which nobody is banned; start f2b-pipe without --dry-run"
                    .to_owned(),
            ));
        }
        if conf.mode == config::Mode::Observe {
            return Err(ControlError::NotNow(format!(
                "jail {jail} only observes, so it bans nobody; f2b-pipe jail {jail} on"
            )));
        }
        if keeper::is_off(&self.0.paths) {
            return Err(ControlError::NotNow(
                "bans are switched off; `f2b-pipe reload` switches them on".to_owned(),
            ));
        }
        let exempt = self.0.exempt.lock();
        let exempt = exempt.unwrap_or_else(PoisonError::into_inner).clone();
        let by = Some(id).filter(|id| usize::from(*id) < config.jails.len());
        let mut act = Act::new(&config);
        let mut fates = Vec::new();
        for key in keys {
            let key = key.clone().counted(conf.ipv6_prefix);
            let who = key.target().map(|who| place_of(who, conf.ipv6_prefix).1);
            let bannable = match who {
                Some(who) if force => Some(Bannable::forced(who)),
                Some(who) => match exempt.check(who, by) {
                    Ok(bannable) => Some(bannable),
                    Err(spared) => {
                        fates.push(Fate::Spared(spared.to_string()));
                        continue;
                    }
                },
                None => None,
            };
            let by_expressions = conf.raw.is_some();
            fates.push(match bannable {
                _ if by_expressions && !force => {
                    match self
                        .0
                        .watch
                        .ban(jail, vec![key], ban_for)
                        .ok_or(ControlError::NoAnswer)?
                    {
                        0 => Fate::Prolonged,
                        _ => Fate::Banned,
                    }
                }
                Some(bannable) => {
                    let ban_for = ban_for.unwrap_or(conf.bantime);
                    self.put(&mut act, (id, &conf), bannable, ban_for)
                }
                None => {
                    Fate::Failed("no address, and the jail's bans are in the kernel".to_owned())
                }
            });
        }
        Ok(fates)
    }

    /// Into the kernel.
    fn put(
        &self,
        act: &mut Act,
        (id, jail): (JailId, &Jail),
        who: Bannable,
        ban_for: BanFor,
    ) -> Fate {
        let ban = Ban {
            jail: id,
            who,
            ban_for,
            reason: "by hand",
        };
        let banned = match act.ban(&ban, 0) {
            Ok(Banned::Already) => act.prolong(&ban, 0).map(|()| Banned::Already),
            other => other,
        };
        let banned = match banned {
            Ok(banned) => banned,
            Err(error) => return Fate::Failed(error.to_string()),
        };
        let who = who.target();
        self.0.keeper.banned(BanEvent {
            jail: id,
            who,
            ban_for,
            banned,
        });
        match banned {
            Banned::New | Banned::NewSet => {
                notify::ban(&jail.name, &who.shown(jail.ipv6_prefix));
                if let (Target::Client(client), Some(teller)) = (who, self.0.watch.teller()) {
                    teller.banned(id, Key::Client(client));
                }
                Fate::Banned
            }
            Banned::Already => Fate::Prolonged,
        }
    }

    /// Lifts bans of `keys` (`None`: of all) in one jail or all, and forgets them: `unban`, `set J unbanip`.
    ///
    /// # Errors
    /// There is no such jail; the kernel cannot be asked.
    pub fn unban(&self, jail: Option<&str>, keys: Option<&[Key]>) -> Result<Lifted, ControlError> {
        let config = self.config();
        if let Some(name) = jail {
            self.named(&config, name)?;
        }
        let mut lifted = Lifted::default();
        let mut kernel = match config.firewall.backend {
            Backend::DryRun => None,
            Backend::Auto | Backend::Ipset | Backend::Nftables => {
                Some(firewall::open(&config.firewall).map_err(|error| failed(&error))?)
            }
        };
        let prefix = &config.firewall.set_prefix;
        let those = config.jails.iter().chain([&config.manual]);
        let those = those.filter(|conf| jail.is_none_or(|name| name == conf.name));
        let those: Vec<&Jail> = those.collect();
        let watch = |key: Option<Key>| self.0.watch.unban(jail, key).ok_or(ControlError::NoAnswer);
        match keys {
            None => {
                // First the rooms, or they would put back what is taken away.
                lifted.bans = watch(None)?;
                if let Some(kernel) = &mut kernel {
                    let ours = kernel.ours(prefix).map_err(|error| failed(&error))?;
                    let names: Vec<String> = match jail {
                        None => ours,
                        Some(_) => those
                            .iter()
                            .flat_map(|conf| SetRef::of(prefix, conf))
                            .map(|set| set.name)
                            .filter(|name| ours.contains(name))
                            .collect(),
                    };
                    lifted.bans +=
                        empty(&names, kernel.as_mut()).map_err(|error| failed(&error))?;
                }
            }
            Some(keys) => {
                for key in keys {
                    let mut found = watch(Some(key.clone()))?;
                    if let (Some(kernel), Some(who)) = (&mut kernel, key.target()) {
                        for conf in &those {
                            let (kind, who) = place_of(who, conf.ipv6_prefix);
                            let set = SetRef::one(prefix, conf, kind);
                            let gone = kernel
                                .look(&set)
                                .and_then(|there| Ok(there && kernel.del(&set, who)?))
                                .map_err(|error| failed(&error))?;
                            found += usize::from(gone);
                        }
                    }
                    match found {
                        0 => lifted.not_banned.push(key.clone()),
                        some => lifted.bans += some,
                    }
                }
            }
        }
        // Bans of httpd's lines and by hand: the keeper notices for the ledger which of them are gone.
        self.0.keeper.lifted();
        Ok(lifted)
    }

    /// Counts a failure by hand for each line, or one if there is none: `set J attempt`. How many were counted.
    ///
    /// # Errors
    /// There is no such jail; no answer.
    pub fn attempt(&self, jail: &str, key: &Key, lines: &[String]) -> Result<u32, ControlError> {
        let config = self.config();
        let (_, conf) = self.named(&config, jail)?;
        let times = u32::try_from(lines.len().max(1)).unwrap_or(u32::MAX);
        if conf.raw.is_some() {
            let counted = self.0.watch.attempt(jail, key.clone(), lines.to_vec());
            return match counted {
                true => Ok(times),
                false => Err(ControlError::NoAnswer),
            };
        }
        let Some(who) = key.client() else {
            return Err(ControlError::NotNow(format!(
                "jail {jail} counts single addresses; write 192.0.2.7"
            )));
        };
        let order = Order::Attempt {
            jail: jail.to_owned(),
            who,
            times,
        };
        match self.0.orders.put(order) {
            true => Ok(times),
            false => Err(ControlError::NoAnswer),
        }
    }

    /// Changes something until the next reload, in all processes: `set J OPTION`, `start J`, `stop J`, `jail J observe`.
    /// When it returns, this process goes on with it; the others do within a second.
    ///
    /// # Errors
    /// [`ControlError::Refused`]: then none of the changes are made.
    pub fn change(&self, changes: &[Change]) -> Result<(), ControlError> {
        let before = self.config();
        self.0
            .course
            .change(changes)
            .map_err(ControlError::Refused)?;
        for change in changes {
            let Change::Mode {
                jail,
                mode: Mode::Off | Mode::Observe,
            } = change
            else {
                continue;
            };
            // Whom it has banned gets in again, also once it is back.
            if self.0.watch.unban(Some(jail), None).is_none() {
                return Err(ControlError::NoAnswer);
            }
            let prefix = &before.firewall.set_prefix;
            let conf = before.jails.iter().find(|conf| conf.name == *jail);
            let sets = conf.into_iter().flat_map(|conf| SetRef::of(prefix, conf));
            let mut kernel = match before.firewall.backend {
                Backend::DryRun => continue,
                Backend::Auto | Backend::Ipset | Backend::Nftables => {
                    firewall::open(&before.firewall).map_err(|error| failed(&error))?
                }
            };
            let ours = kernel.ours(prefix).map_err(|error| failed(&error))?;
            let names = sets.map(|set| set.name).filter(|name| ours.contains(name));
            empty(&names.collect::<Vec<_>>(), kernel.as_mut()).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Reads the configuration anew, in all processes, and forgets changes: all, or those of one jail. Switches bans on
    /// again after `off`. Nothing that was counted, banned or read is lost.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with all that is wrong: then the old one goes on, and changes are kept.
    pub fn reload(&self, jail: Option<&str>) -> Result<(), ControlError> {
        self.0.course.reload(jail).map_err(ControlError::Refused)?;
        self.off(false).map(drop)
    }

    /// The panic button: every set is emptied, nobody is banned until it is taken back. How many bans were taken away.
    ///
    /// # Errors
    /// The file that says so cannot be written, or the kernel cannot be asked.
    pub fn off(&self, off: bool) -> Result<usize, ControlError> {
        let file = self.0.paths.off();
        let told =
            |error: std::io::Error| ControlError::Failed(format!("{}: {error}", file.display()));
        if !off {
            return match fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(told(error)),
                Ok(()) | Err(_) => Ok(0),
            };
        }
        fs::write(&file, "f2b-pipe off\n").map_err(told)?;
        Ok(self.unban(None, None)?.bans)
    }

    /// Opens fail2ban's log anew: `flushlogs`.
    pub fn flush_logs(&self) {
        logfile::flush();
    }

    /// As `f2b-pipe metrics` prints them.
    #[must_use]
    pub fn metrics(&self) -> String {
        metrics::text(self.0.course.path(), &self.0.paths)
    }

    /// Hits and bans from now on. A listener that is too slow loses events, and hears how many ([`Event::Lost`]).
    #[must_use]
    pub fn subscribe(&self) -> Receiver<Event> {
        events::subscribe()
    }
}

fn failed(error: &ActError) -> ControlError {
    ControlError::Failed(error.to_string())
}

fn unknown<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> ControlError {
    let text = unknown_jail(name, known);
    let advice = text
        .split_once("; ")
        .map_or(String::new(), |(_, advice)| advice.to_owned());
    ControlError::UnknownJail {
        name: name.to_owned(),
        advice,
    }
}

/// Where a jail's lines come from; `files` are followed.
fn lines(jail: &Jail, files: Vec<String>) -> Lines {
    match &jail.raw {
        None => Lines::Httpd,
        Some(raw) if raw.counts_bans => Lines::Bans,
        Some(raw) if raw.backend == LineSource::Journal => Lines::Journal(raw.journalmatch.clone()),
        Some(_) => Lines::Files(files),
    }
}
