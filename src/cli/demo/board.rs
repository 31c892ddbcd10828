//! What was seen so far: one row for each actor, and the story in the order in which it happened.
//! Actors and the watcher write, the view reads; each note is short, so one lock serves all.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::client::Client;

/// Bits by which the shipped jails count and ban IPv6.
const IPV6_PREFIX: u8 = 64;

/// All rows and the story.
#[derive(Debug)]
pub(super) struct Board {
    /// When the play began.
    pub(super) began: Instant,
    /// In the order of the cast.
    pub(super) rows: Vec<Row>,
    /// In the order of time.
    pub(super) story: Vec<Event>,
}

/// One actor.
#[derive(Debug)]
pub(super) struct Row {
    /// `password guesser`.
    pub(super) who: &'static str,
    /// The address httpd sees.
    pub(super) address: IpAddr,
    /// Whether this one must be served to the end.
    pub(super) friend: bool,
    /// When each request was sent, and answered.
    pub(super) requests: Vec<(Instant, Option<Instant>)>,
    /// The first entry in the kernel's sets.
    pub(super) ban: Option<Ban>,
    /// When the first connection or request failed, and how.
    pub(super) cut: Option<(Instant, Cut)>,
    /// When it was served again after the ban had ended.
    pub(super) back: Option<Instant>,
    /// Nothing more comes from this one.
    pub(super) done: bool,
}

/// How a request failed, as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The connection was ended in the usual way.
    Closed,
    /// It was reset.
    Reset,
    /// Nothing came.
    Silence,
    /// Something else.
    Otherwise,
}

impl Cut {
    /// For people.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Closed => "connection closed",
            Self::Reset => "open connection reset",
            Self::Silence => "no answer any more",
            Self::Otherwise => "cannot connect",
        }
    }
}

/// An address found in a set.
#[derive(Clone, Debug)]
pub(super) struct Ban {
    /// Which jail's set.
    pub(super) jail: String,
    /// When it was seen there.
    pub(super) at: Instant,
}

/// One line of the story.
#[derive(Debug)]
pub(super) struct Event {
    /// Since the play began.
    pub(super) at: Duration,
    /// Its colour.
    pub(super) mood: Mood,
    /// What happened.
    pub(super) text: String,
}

/// How a line of the story is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Somebody begins.
    Plain,
    /// A ban.
    Ban,
    /// Somebody is cut off.
    Cut,
    /// Somebody is served (again).
    Good,
    /// What should not happen.
    Wrong,
}

impl Row {
    /// A row before the first request.
    pub(super) fn new(who: &'static str, address: IpAddr, friend: bool) -> Self {
        Self {
            who,
            address,
            friend,
            requests: Vec::new(),
            ban: None,
            cut: None,
            back: None,
            done: false,
        }
    }

    /// How many requests got their answer.
    pub(super) fn answered(&self) -> usize {
        self.requests.iter().filter(|(_, a)| a.is_some()).count()
    }

    /// The longest wait for an answer.
    pub(super) fn longest(&self) -> Duration {
        let waits = self.requests.iter().filter_map(|(sent, answered)| {
            answered.map(|answered| answered.saturating_duration_since(*sent))
        });
        waits.max().unwrap_or_default()
    }

    /// Which request was the last one sent before the ban, counted from 1, and how much later than its answer the entry
    /// was seen. The line is written while the answer goes out, so this can be nothing.
    pub(super) fn deciding(&self) -> Option<(usize, Duration)> {
        let ban = self.ban.as_ref()?;
        let number = self.requests.iter().take_while(|r| r.0 < ban.at).count();
        let (sent, answered) = self.requests.get(number.checked_sub(1)?)?;
        let line = answered.unwrap_or(*sent);
        Some((number, ban.at.saturating_duration_since(line)))
    }
}

impl Board {
    /// Nobody has done anything yet.
    pub(super) fn new(rows: Vec<Row>) -> Self {
        Self {
            began: Instant::now(),
            rows,
            story: Vec::new(),
        }
    }

    /// Adds to the story.
    pub(super) fn tell(&mut self, mood: Mood, text: String) {
        let at = self.began.elapsed();
        self.story.push(Event { at, mood, text });
    }

    /// An address (or an IPv6 network's first one) stands in a jail's set since `at`, or a moment before.
    pub(super) fn banned(&mut self, jail: &str, address: IpAddr, at: Instant, dry: bool) {
        let client = Client::new(address).counted(IPV6_PREFIX);
        let mut news = Vec::new();
        for row in &mut self.rows {
            if row.ban.is_some() || Client::new(row.address).counted(IPV6_PREFIX) != client {
                continue;
            }
            row.ban = Some(Ban {
                jail: jail.to_owned(),
                at,
            });
            if let Some((number, after)) = row.deciding() {
                let (who, after) = (row.who, millis(after));
                let where_to = if dry {
                    format!("would be banned by {jail}")
                } else {
                    format!("{address} is in the kernel's set of {jail}")
                };
                news.push(format!("{who}: {where_to}, {after} after answer {number}"));
            }
        }
        for text in news {
            self.tell(Mood::Ban, text);
        }
    }
}

/// `0.4 ms`.
pub(super) fn millis(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1000.0)
}

/// The board, also after a thread that held it panicked: what it shows is still what was seen.
pub(super) fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
