//! Silence is told: what keeps lines from being read, judged and held against somebody, and would show in nothing but
//! the absence of bans.
//!
//! In: counters of all rooms, a moment, and now and then a client who is banned and still comes. Out: troubles, each said
//! once (syslog, the error log), shown by `status` for as long as it lasts, and said to be over once.
//!
//! | what | judged by |
//! |---|---|
//! | a jail that has seen many lines and matched none | [`host`] |
//! | a format that fits no line | [`own`] |
//! | a source gone quiet, by its own past | [`host`], [`quiet`] |
//! | a tee that lags | the tee itself, and [`own`] |
//! | a rule or a set gone | the keeper, and [`host`] |
//! | banned, and still comes | [`still`] notices, [`why`] asks the kernel for the reason |
//! | shed work | [`own`] |
//!
//! Rules are pure: counters and the clock are arguments. The thread that asks them is in [`watcher`]; what one process
//! can know of itself each tells by itself, what takes the whole host into view the process in charge does.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub mod host; // jails, sources and rules, over all processes
pub mod own; // one process
pub mod quiet; // has a source gone quiet?
pub mod still; // who is banned and still comes
pub mod watcher; // the thread
pub mod why; // and by which way

pub use watcher::{Hand, Setting, Silence};

/// What is wrong, each by the thing it is about.
#[derive(Clone, Debug, Default)]
pub struct Troubles(BTreeMap<String, String>);

impl Troubles {
    /// Says what is new: a trouble that was not there or was another one, or that one has ended.
    pub fn set<T, E: Display>(&mut self, about: &str, result: &Result<T, E>) {
        match result {
            Ok(_) => self.over(about, "well again"),
            Err(error) => {
                let error = error.to_string();
                if self.0.get(about) != Some(&error) {
                    log::warn!("{about}: {error}");
                    self.0.insert(about.to_owned(), error);
                }
            }
        }
    }

    /// The same for a trouble whose words hold numbers that grow: it is said when it is new, and then only shown.
    pub fn tell(&mut self, about: &str, text: String) {
        if self.0.insert(about.to_owned(), text.clone()).is_none() {
            log::warn!("{about}: {text}");
        }
    }

    /// It has ended, if it was there; `words` say how.
    pub fn over(&mut self, about: &str, words: &str) {
        if self.0.remove(about).is_some() {
            log::warn!("{about}: {words}");
        }
    }

    /// It is shown; said it was elsewhere, or cannot be.
    pub fn show(&mut self, about: &str, text: String) {
        self.0.insert(about.to_owned(), text);
    }

    /// It is shown no more, and nothing is said of that: it is for another process to tell, say.
    pub fn forget(&mut self, about: &str) {
        self.0.remove(about);
    }

    /// Is there one?
    #[must_use]
    pub fn has(&self, about: &str) -> bool {
        self.0.contains_key(about)
    }

    /// All, for `status`.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        let each = self.0.iter();
        each.map(|(about, text)| format!("{about}: {text}"))
            .collect()
    }
}

/// The troubles of this process, of which there is one board, as there is one voice.
pub fn board() -> &'static Board {
    static BOARD: OnceLock<Board> = OnceLock::new();
    BOARD.get_or_init(Board::default)
}

/// Troubles, for all threads.
#[derive(Debug, Default)]
pub struct Board(Mutex<Troubles>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Troubles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Troubles::set`].
    pub fn set<T, E: Display>(&self, about: &str, result: &Result<T, E>) {
        self.lock().set(about, result);
    }

    /// See [`Troubles::tell`].
    pub fn tell(&self, about: &str, text: String) {
        self.lock().tell(about, text);
    }

    /// See [`Troubles::over`].
    pub fn over(&self, about: &str, words: &str) {
        self.lock().over(about, words);
    }

    /// See [`Troubles::show`].
    pub fn show(&self, about: &str, text: String) {
        self.lock().show(about, text);
    }

    /// See [`Troubles::forget`].
    pub fn forget(&self, about: &str) {
        self.lock().forget(about);
    }

    /// See [`Troubles::has`].
    #[must_use]
    pub fn has(&self, about: &str) -> bool {
        self.lock().has(about)
    }

    /// See [`Troubles::shown`].
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        self.lock().shown()
    }

    /// Does what a rule says.
    pub fn obey(&self, says: Vec<Says>) {
        let mut troubles = self.lock();
        for Says { about, wrong } in says {
            match wrong {
                Some(text) => troubles.tell(&about, text),
                None => troubles.over(&about, "well again"),
            }
        }
    }
}

/// What a rule says of a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Says {
    /// The thing: a jail, a log.
    pub about: String,
    /// What is wrong with it and what to do; `None`: nothing.
    pub wrong: Option<String>,
}

/// `3 h 20 min`, as people say how long; at most two units.
pub(crate) fn spoken(secs: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = secs;
    let mut words = Vec::new();
    for (unit, name) in UNITS {
        if rest >= unit {
            words.push(format!("{} {name}", rest / unit));
            rest %= unit;
        } else if !words.is_empty() {
            break;
        }
        if words.len() == 2 {
            break;
        }
    }
    match words.is_empty() {
        true => "0 s".to_owned(),
        false => words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_shown_with_its_latest_numbers_until_it_is_over() {
        let board = Board::default();
        board.tell("tee /x", "1 kB waits".into());
        board.tell("tee /x", "2 kB wait".into());
        board.set("sets", &Err::<(), _>("no"));
        assert_eq!(board.shown(), ["sets: no", "tee /x: 2 kB wait"]);
        let about = "tee /x".to_owned();
        board.obey(vec![Says { about, wrong: None }]);
        board.set("sets", &Ok::<_, String>(()));
        assert_eq!(board.shown(), [""; 0]);
    }

    #[test]
    fn times_are_told_as_people_do() {
        let told = [0, 59, 60, 3_661, 7_200, 90_061].map(spoken);
        assert_eq!(
            told,
            ["0 s", "59 s", "1 min", "1 h 1 min", "2 h", "1 d 1 h"]
        );
    }
}
