//! What the thread that counts httpd's hits is to do between two batches: go on with another configuration, count what
//! somebody tells of. Nothing waits here: the thread looks at a flag, and takes what is ready made.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::act::Act;
use crate::client::Client;
use crate::config::Config;
use crate::exempt::Exempt;
use crate::filter::Filter;

/// Orders that may wait; beyond it failures by hand are refused.
const WAITING: usize = 1000;

/// One order.
pub(crate) enum Order {
    /// Another configuration from now on.
    Renew(Box<Renewed>),
    /// `times` hits by hand.
    Attempt {
        jail: String,
        who: Client,
        times: u32,
    },
}

/// Made by a thread that nobody waits for: expressions are compiled.
pub(crate) struct Renewed {
    pub(crate) config: Arc<Config>,
    pub(crate) exempt: Exempt,
    pub(crate) act: Act,
    /// For who reads lines, too.
    pub(crate) filter: Option<Filter>,
}

/// Those that wait.
#[derive(Default)]
pub(crate) struct Orders {
    some: AtomicBool,
    waiting: Mutex<Vec<Order>>,
    /// A byte here makes the thread look.
    wake: OnceLock<UnixStream>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Orders")
    }
}

impl Orders {
    /// A byte to `wake`, which must not block, makes the thread look. The first one is used.
    pub(crate) fn wake_by(&self, wake: UnixStream) {
        self.wake.set(wake).ok();
    }

    /// Leaves one; false: too many wait.
    pub(crate) fn put(&self, order: Order) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Order::Renew(_) = order {
            // One that was not even begun is not needed any more.
            waiting.retain(|order| !matches!(order, Order::Renew(_)));
        } else if waiting.len() >= WAITING {
            return false;
        }
        waiting.push(order);
        self.some.store(true, Ordering::Release);
        drop(waiting);
        if let Some(mut wake) = self.wake.get() {
            // A pipe that is full wakes it all the same.
            wake.write_all(&[0]).ok();
        }
        true
    }

    /// What there is to do; nothing, if somebody is just leaving an order: then next time.
    #[inline]
    pub(crate) fn take(&self) -> Vec<Order> {
        if !self.some.load(Ordering::Acquire) {
            return Vec::new();
        }
        match self.waiting.try_lock() {
            Ok(mut waiting) => {
                self.some.store(false, Ordering::Release);
                std::mem::take(&mut *waiting)
            }
            Err(_) => Vec::new(),
        }
    }
}
