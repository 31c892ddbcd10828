//! What the administrator's commands ask of the thread that watches logs, and have it do.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Room, Watch};
use crate::bans::Standing;
use crate::config::Config;
use crate::date::now;
use crate::decide::BanFor;
use crate::exempt::Exempt;
use crate::judge::JailTally;
use crate::key::Key;
use crate::source::tail::expand;

/// A jail that judges other logs, as it is now.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name.
    pub name: String,
    /// What it counted since the process began.
    pub tally: JailTally,
    /// Addresses that have failed within findtime.
    pub failing: usize,
    /// Bans that stand.
    pub bans: usize,
    /// Files that are followed, in the order of its configuration.
    pub files: Vec<PathBuf>,
    /// What is read of the journal.
    pub journal: Vec<String>,
}

impl Watch {
    /// Has the thread another configuration from now on: jails that stay keep counts, bans and places in logs. False: it
    /// did not answer in time, or has ended.
    pub fn renew(&self, config: &Arc<Config>, exempt: &Exempt) -> bool {
        let (config, exempt) = (Arc::clone(config), exempt.clone());
        self.ask(move |room| room.renew(&config, exempt, now()))
            .is_some()
    }

    /// All jails that judge other logs; `None`: no answer in time.
    #[must_use]
    pub fn views(&self) -> Option<Vec<View>> {
        self.ask(|room| {
            let each = room.jails.iter().enumerate();
            each.map(|(at, jail)| {
                let (files, journal) = room.sources.read_by(at);
                let files = in_order(jail, files);
                View {
                    name: jail.name().to_owned(),
                    tally: jail.tally,
                    failing: jail.warden.counted(),
                    bans: jail.warden.bans(),
                    files,
                    journal,
                }
            })
            .collect()
        })
    }

    /// The bans of a jail that stand; `None`: there is no such jail, or no answer in time.
    #[must_use]
    pub fn bans(&self, jail: &str) -> Option<Vec<(Key, Standing)>> {
        let name = jail.to_owned();
        self.ask(move |room| {
            let bans = room.named(&name)?.warden.all_banned();
            Some(bans.map(|(key, ban)| (key.clone(), ban)).collect())
        })?
    }

    /// Bans by hand, as long as the jail does or as `ban_for` says; how many were not banned before. `None`: there is no
    /// such jail, or no answer in time.
    pub fn ban(&self, jail: &str, who: Vec<Key>, ban_for: Option<BanFor>) -> Option<usize> {
        let name = jail.to_owned();
        self.ask(move |room| {
            let at = room.place(&name)?;
            let Room { jails, desk, .. } = room;
            let mut new = 0;
            for key in who {
                new += usize::from(desk.ban_by_hand(jails, at, key, ban_for, now()));
            }
            Some(new)
        })?
    }

    /// Lifts bans: in `jail` or in all of these, of `who` or of all; how many there were. `None`: no answer in time.
    pub fn unban(&self, jail: Option<&str>, who: Option<Key>) -> Option<usize> {
        let name = jail.map(str::to_owned);
        self.ask(move |room| {
            let Room { jails, desk, .. } = room;
            desk.lift(jails, name.as_deref(), who.as_ref(), now())
        })
    }

    /// Counts failures by hand. False: there is no such jail, or no answer in time.
    pub fn attempt(&self, jail: &str, who: Key, lines: Vec<String>) -> bool {
        let name = jail.to_owned();
        let done = self.ask(move |room| {
            let at = room.place(&name)?;
            let Room { jails, desk, .. } = room;
            desk.attempt(jails, at, &who, &lines, now());
            Some(())
        });
        done.flatten().is_some()
    }
}

/// In the order of the configuration. Files that are not looked for yet are there, too.
fn in_order(jail: &super::jail::Jail, files: Option<Vec<PathBuf>>) -> Vec<PathBuf> {
    let Some(raw) = jail.raw() else {
        return Vec::new();
    };
    let there = || raw.logs.iter().flat_map(|log| expand(&log.glob)).collect();
    let mut files = files.unwrap_or_else(there);
    files.sort_by_cached_key(|file| (raw.place_of(file), file.clone()));
    files.dedup();
    files
}

impl Room {
    fn place(&self, name: &str) -> Option<usize> {
        self.jails.iter().position(|jail| jail.name() == name)
    }

    fn named(&self, name: &str) -> Option<&super::jail::Jail> {
        self.jails.get(self.place(name)?)
    }
}
