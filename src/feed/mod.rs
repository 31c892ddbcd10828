//! Hits on their way from a `run` to `watch`, so that the CustomLogs of all vhosts share their counts, and these outlive
//! every restart of httpd.
//!
//! ```text
//! run:   source ─> tee ─> frame ─> sift ─> Hit ─> Feeder ══ socket ══> Counting ─> judge ─> told   :watch
//!                                            └──> judge ─> told   (as long as no watch answers)
//! ```
//!
//! A `run` never waits for `watch`: it writes what the socket takes, and keeps every frame until `watch` says that it is
//! counted, decided and banned. What is not counted after [`PATIENCE`] the `run` counts by itself, and `watch` leaves alone
//! whatever is older than that. So a `watch` that is stopped, killed or restarted costs nobody's ban: at the worst a hit is
//! counted in both, in two tables that are never added up.

use std::time::Duration;

mod counting; // watch's side
mod feeder; // run's side
mod key; // one for the host
pub mod wire; // the words between them

pub use counting::{Counting, Fed, Feeds, Setting};
pub use feeder::{Feeder, is_taken};
pub use key::key;

/// After so long without an answer a `run` does the work itself.
pub const PATIENCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Instant;

    use super::wire::Named;
    use super::*;
    use crate::act::Act;
    use crate::changes::orders::{Order, Orders, Renewed};
    use crate::client::Client;
    use crate::config::{Backend, Config, from_text};
    use crate::exempt::Exempt;
    use crate::hit::{Arrival, Batch, Hit, Party};
    use crate::notify::told::Told;
    use crate::run::monotonic_us;

    fn config(names: &[&str]) -> Arc<Config> {
        let jails = names.iter().map(|name| {
            format!("[jail.{name}]\nstatus = [404]\nmaxretry = 5\nfindtime = \"1m\"\n")
        });
        let text: String = jails.collect();
        let loaded = from_text(Path::new("my.toml"), &text);
        let mut config = loaded.config;
        config.jails.retain(|jail| names.contains(&&*jail.name));
        config.firewall.backend = Backend::DryRun;
        Arc::new(config)
    }

    fn until(mut so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !so() {
            assert!(begun.elapsed() < Duration::from_secs(10), "in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn named(names: &[&str]) -> Vec<Named> {
        let named = |name: &&str| Named {
            name: (*name).to_owned(),
            observes: false,
        };
        names.iter().map(named).collect()
    }

    fn put(feeder: &mut Feeder, jail: u16, at_us: u64) {
        let mut batch = Batch::default();
        batch.hits.push(Hit {
            jail,
            weight: 1,
            distinct: None,
        });
        batch.parties.push(Party {
            client: Client::parse(b"198.51.100.7").unwrap(),
            hits: 1,
            proxy: None,
            evidence: b"GET /",
            status: 404,
        });
        feeder.put(&mut batch, at_us);
        feeder.flush();
    }

    #[test]
    fn what_a_logger_says_is_counted_by_the_names_of_jails_also_after_a_reload() {
        let dir = std::env::temp_dir().join(format!("f2b-feed-{}", std::process::id()));
        let path = dir.join("f2b-pipe.feed");
        let before = config(&["one", "other"]);
        let mut feeder = Feeder::new(path.clone(), &named(&["other", "unknown", "one"]));
        feeder.tend(monotonic_us());
        assert!(!feeder.is_hopeful(), "nobody is there");
        let orders = Arc::new(Orders::default());
        let counting = Counting::start(Setting {
            exempt: Exempt::of_config_only(&before),
            config: before,
            path,
            off: Arc::default(),
            told: Told {
                dry: true,
                ..Told::default()
            },
            orders: Arc::clone(&orders),
        })
        .unwrap();
        until(|| {
            feeder.tend(monotonic_us());
            feeder.is_fed()
        });
        for jail in [0, 0, 1, 2, 2, 2] {
            put(&mut feeder, jail, monotonic_us());
        }
        until(|| {
            feeder.tend(monotonic_us());
            !feeder.is_pending()
        });
        let hits = |jail: &str| counting.fed().jails.get(jail).map(|tally| tally.hits);
        until(|| hits("one") == Some(3));
        assert_eq!(hits("other"), Some(2));
        assert_eq!(counting.fed().feed.unknown.get("unknown"), Some(&1));
        // Other numbers, one more jail: the logger goes on as before.
        let after = config(&["unknown", "other", "one"]);
        assert!(orders.put(Order::Renew(Box::new(Renewed {
            exempt: Exempt::of_config_only(&after),
            act: Act::new(&after),
            config: after,
            filter: None,
        }))));
        until(|| hits("unknown") == Some(0));
        for jail in [0, 1, 2, 2] {
            put(&mut feeder, jail, monotonic_us());
        }
        until(|| hits("one") == Some(5));
        assert_eq!([hits("other"), hits("unknown")], [Some(3), Some(1)]);
        let bans = |jail: &str| counting.fed().jails.get(jail).map(|tally| tally.bans);
        assert_eq!([bans("one"), bans("other")], [Some(1), Some(0)]);

        // What comes too late is the logger's.
        feeder.tend(monotonic_us());
        let old = monotonic_us() - 1_000_000;
        put(&mut feeder, 0, old);
        until(|| {
            feeder.tend(monotonic_us());
            !feeder.is_fed()
        });
        let mut back = Vec::new();
        feeder.take_back(|batch, at, _| back.push((batch.hits.len(), at)));
        assert_eq!(back, [(1, Arrival(old / 1000))]);
        assert!(!feeder.is_pending());
        until(|| counting.fed().feed.late == 1);
        assert_eq!(hits("other"), Some(3));
        drop(counting);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
