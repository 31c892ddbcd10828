//! Who is told of a decision: syslog, the error log, fail2ban's log, who keeps the chain, who counts bans.

use crate::act::Banned;
use crate::act::keeper::{BanEvent, Hand};
use crate::exempt::Target;
use crate::judge::{Decision, Outcome};
use crate::key::Key;
use crate::notify;
use crate::silence;
use crate::watch::Teller;

/// All who are there to be told. None of them is ever waited for.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Who keeps the chain.
    pub(crate) keeper: Option<Hand>,
    /// Who counts bans for recidive.
    pub(crate) watch: Option<Teller>,
    /// Who asks why a ban does not hold.
    pub(crate) silence: Option<silence::Hand>,
    /// Nobody is banned in truth.
    pub(crate) dry: bool,
}

impl Told {
    /// Tells everybody who should know.
    pub(crate) fn tell(&self, decision: &Decision<'_>) {
        let Decision {
            jail,
            id,
            who,
            hits,
            outcome,
        } = decision;
        let shown = who.shown(jail.ipv6_prefix);
        let name = &jail.name;
        match outcome {
            Outcome::Banned { ban_for, new_set } => {
                if self.dry {
                    log::info!(
                        "would ban client={shown} jail={name} hits={hits} for={ban_for} (dry run)"
                    );
                    return;
                }
                notify::ban(name, &shown);
                if let (Some(watch), Target::Client(client)) = (&self.watch, who) {
                    watch.banned(*id, Key::Client(*client));
                }
                log::info!("ban client={shown} jail={name} hits={hits} for={ban_for}");
                if let Some(keeper) = &self.keeper {
                    let banned = if *new_set {
                        Banned::NewSet
                    } else {
                        Banned::New
                    };
                    keeper.banned(BanEvent {
                        jail: *id,
                        who: *who,
                        ban_for: *ban_for,
                        banned,
                    });
                }
            }
            // Connections that are still open end, and the end of the ban is known.
            Outcome::Prolonged(ban_for) => {
                if let Some(keeper) = &self.keeper {
                    keeper.banned(BanEvent {
                        jail: *id,
                        who: *who,
                        ban_for: *ban_for,
                        banned: Banned::Already,
                    });
                }
            }
            Outcome::Observed => {
                notify::observed(name, &shown);
                log::info!("would ban client={shown} jail={name} hits={hits} (mode observe)");
            }
            Outcome::Spared(spared) => log::info!("spared client={shown} jail={name}: {spared}"),
            Outcome::Proxied(peer) => {
                log::info!(
                    "not banned client={shown} jail={name} hits={hits}: comes through {peer}"
                );
                if let Some(silence) = &self.silence {
                    silence.proxied(*id, shown.to_string(), *peer);
                }
            }
            Outcome::Off => log::info!(
                "not banned client={shown} jail={name}: switched off (f2b-pipe reload switches on)"
            ),
            Outcome::Failed(error) => {
                if let Some(keeper) = &self.keeper {
                    keeper.failed(error);
                }
            }
        }
    }
}
