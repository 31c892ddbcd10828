//! A process at work, `watch` or `run`: its rooms go on with another configuration, and whoever asks is answered.
//!
//! ```text
//! Course ─> Config ─> helper, exempt, keeper, silence, watch ─> Orders: what judges httpd's lines, between two batches
//! Host  <─ control socket, fail2ban's socket (in charge only)
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use super::socket::Control;
use super::{Host, Parts};
use crate::act::{Act, keeper};
use crate::changes::course::Course;
use crate::changes::orders::{Order, Orders, Renewed};
use crate::config::{Config, RuntimePaths};
use crate::exempt::Exempt;
use crate::filter::Filter;
use crate::privilege;
use crate::silence;
use crate::watch::Watch;

/// Whoever goes on with another configuration.
pub(crate) struct Rooms {
    pub(crate) course: Arc<Course>,
    pub(crate) paths: RuntimePaths,
    pub(crate) tee: Option<PathBuf>,
    pub(crate) keeper: keeper::Hand,
    pub(crate) silence: Option<silence::Hand>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) exempt: Exempt,
    /// For the thread that judges httpd's hits, if there is one.
    pub(crate) orders: Arc<Orders>,
    /// It reads lines, too.
    pub(crate) sifts: bool,
}

/// Dropping it ends all that.
#[derive(Debug)]
pub(crate) struct Running {
    course: Arc<Course>,
    control: Option<Control>,
}

impl Rooms {
    /// From now on what is changed is followed, and whoever asks is answered while this process is in charge.
    pub(crate) fn open(self) -> Running {
        let course = Arc::clone(&self.course);
        let host = Host::new(Parts {
            course: Arc::clone(&course),
            paths: self.paths.clone(),
            watch: Arc::clone(&self.watch),
            keeper: self.keeper.clone(),
            exempt: self.exempt.clone(),
            orders: Arc::clone(&self.orders),
        });
        let hers = host.clone();
        course.follow(Box::new(move |config| self.go_on(&hers, config)));
        let control = Control::start(host)
            .inspect_err(|error| {
                log::error!("cannot start a thread: {error}; commands find nobody");
            })
            .ok();
        Running { course, control }
    }

    fn go_on(&self, host: &Host, config: &Arc<Config>) {
        // Whatever runs commands knows those of the new one before anybody asks for them.
        privilege::reloaded(&privilege::Setting {
            config,
            config_path: self.course.path(),
            paths: &self.paths,
            tee: self.tee.as_deref(),
        });
        let exempt = self.exempt.renewed(config);
        host.renew(&exempt);
        self.keeper.renew(config);
        if let Some(silence) = &self.silence {
            silence.renew(config);
        }
        if !self.watch.renew(config, &exempt) {
            log::error!(
                "the thread that reads logs is busy; it goes on with the old configuration"
            );
        }
        let filter = match self.sifts.then(|| Filter::compile(config.native())) {
            None => None,
            Some(Ok(filter)) => Some(filter),
            Some(Err(error)) => {
                log::error!(
                    "the patterns of all jails together: {error}; httpd's lines are judged by the old ones"
                );
                return;
            }
        };
        self.orders.put(Order::Renew(Box::new(Renewed {
            config: Arc::clone(config),
            exempt,
            act: Act::new(config),
            filter,
        })));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.course.end();
        self.control = None;
    }
}
