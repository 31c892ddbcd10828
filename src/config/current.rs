//! The configuration that holds now, for threads that look at it now and then.

use std::sync::{Arc, Mutex, PoisonError};

use super::Config;

/// The one that holds.
#[derive(Debug)]
pub struct Current(Mutex<Arc<Config>>);

impl Current {
    /// Begins with `config`.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self(Mutex::new(config))
    }

    /// The one that holds.
    #[must_use]
    pub fn get(&self) -> Arc<Config> {
        let now = self.0.lock();
        Arc::clone(&now.unwrap_or_else(PoisonError::into_inner))
    }

    /// Another one from now on.
    pub fn set(&self, config: Arc<Config>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }
}
