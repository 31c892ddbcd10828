//! Lines of one connection, joined by its id (rules 42 to 46): what was learned from earlier lines of it, users and the
//! address above all.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use super::groups::{Kept, MLFFORGET, MLFGAINED, MLFID, NOFAIL, USER, Values};

/// Connections remembered by a filter.
const SESSIONS_MAX: usize = 100;
/// How long a connection is remembered, from its first line on.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Lines, and users, kept of one connection: one that never ends must not grow for ever. (fail2ban keeps all.)
pub(super) const KEPT_MAX: usize = 1000;

/// What is known of a failure, or of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Fail {
    pub(super) groups: Values,
    /// Users that the connection tried, in order.
    pub(super) users: Vec<Kept>,
    /// Lines of the failure.
    pub(super) matches: Vec<String>,
    /// Lines that were no failure by themselves.
    pub(super) nofail_matches: Vec<String>,
    /// A failure that waits for its address.
    pub(super) pending: bool,
}

impl Fail {
    /// Is it no failure by itself?
    pub(super) fn is_nofail(&self) -> bool {
        self.groups.has(NOFAIL)
    }

    /// What a line knows before it is joined with its connection: nothing but groups, which are read next.
    pub(super) fn forget(&mut self) {
        self.users.clear();
        self.matches.clear();
        self.nofail_matches.clear();
        self.pending = false;
    }
}

fn add_user(users: &mut Vec<Kept>, groups: &Values) {
    if let Some(user) = groups.get(USER).filter(|user| !user.is_empty())
        && users.len() < KEPT_MAX
        && let Err(at) = users.binary_search_by(|known| known.value().cmp(&user))
    {
        users.insert(at, Kept::from(user));
    }
}

/// A connection.
#[derive(Debug)]
struct Session {
    since: Instant,
    kept: Box<(String, Fail)>,
}

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// In the order of their first lines.
    known: VecDeque<Session>,
    /// Of their ids: tells them apart without a look at them.
    hashes: VecDeque<u64>,
    hasher: foldhash::fast::RandomState,
}

/// The place of a connection, until the next one is joined.
#[derive(Debug)]
pub(super) struct Place(usize);

impl Sessions {
    /// Joins `fail` with what is known of its connection, if it belongs to one, and says where to
    /// [`keep`](Self::keep) it. `lines` adds those that the expression covers.
    pub(super) fn merge(
        &mut self,
        fail: &mut Fail,
        lines: &dyn Fn(&mut Vec<String>),
        moment: Instant,
    ) -> Option<Place> {
        let mut gained = fail.groups.has(MLFGAINED);
        if gained && !fail.groups.has(NOFAIL) {
            fail.groups.alias(NOFAIL, MLFGAINED);
        }
        let mut nofail = fail.groups.has(NOFAIL);
        let forget = fail.groups.remove(MLFFORGET);
        let place = self.find(fail.groups.text(MLFID).unwrap_or_default(), moment);
        let known = place.and_then(|place| self.known.get_mut(place));
        let mut keep = None;
        if let Some(Session { kept, .. }) = known {
            let known = &mut kept.1;
            add_user(&mut known.users, &fail.groups);
            // Only what this line says of these two counts.
            let was_nofail = known.groups.remove(NOFAIL);
            let was_gained = known.groups.remove(MLFGAINED);
            if gained {
                known.pending = false;
            }
            // Lines of a failure that was reported are not told again.
            if !was_nofail && !was_gained && !known.pending {
                known.matches.clear();
            }
            fail.groups.inherit(&known.groups);
            fail.pending = known.pending;
            std::mem::swap(&mut fail.users, &mut known.users);
            std::mem::swap(&mut fail.matches, &mut known.matches);
            std::mem::swap(&mut fail.nofail_matches, &mut known.nofail_matches);
            match forget {
                true => drop(place.and_then(|place| self.remove(place))),
                false => keep = place.map(Place),
            }
        } else if !forget {
            add_user(&mut fail.users, &fail.groups);
            keep = Some(self.begin(fail.groups.text(MLFID).unwrap_or_default(), moment));
        }
        if std::mem::take(&mut fail.pending) || fail.users.len() > 1 {
            fail.groups.remove(NOFAIL);
            fail.groups.remove(MLFGAINED);
            (nofail, gained) = (false, false);
        }
        if !nofail {
            let mut all = std::mem::take(&mut fail.nofail_matches);
            all.append(&mut fail.matches);
            if !gained {
                lines(&mut all);
            }
            fail.matches = all;
        } else if !forget {
            lines(&mut fail.nofail_matches);
        }
        for kept in [&mut fail.matches, &mut fail.nofail_matches] {
            let many = kept.len().saturating_sub(KEPT_MAX);
            kept.drain(..many);
        }
        keep
    }

    /// Remembers the connection for its next line. What `fail` holds then is of no use.
    pub(super) fn keep(&mut self, Place(at): Place, fail: &mut Fail) {
        if let Some(Session { kept, .. }) = self.known.get_mut(at) {
            std::mem::swap(&mut kept.1, fail);
        }
    }

    /// A connection that is not too old.
    fn find(&mut self, id: &str, moment: Instant) -> Option<usize> {
        let hash = self.hasher.hash_one(id);
        let mut alike = self.hashes.iter().zip(&self.known);
        let at = alike.position(|(known, session)| *known == hash && session.kept.0 == id)?;
        let since = self.known.get(at)?.since;
        if moment.duration_since(since) < REMEMBERED {
            return Some(at);
        }
        self.remove(at);
        None
    }

    fn remove(&mut self, at: usize) -> Option<Session> {
        self.hashes.remove(at);
        self.known.remove(at)
    }

    /// The oldest makes room, and what is too old with it.
    fn begin(&mut self, id: &str, moment: Instant) -> Place {
        let mut kept = Box::default();
        if self.known.len() >= SESSIONS_MAX {
            if let Some(oldest) = self.remove(0) {
                kept = oldest.kept;
            }
            let old = |known: &Session| moment.duration_since(known.since) >= REMEMBERED;
            while self.known.front().is_some_and(old) {
                self.remove(0);
            }
        }
        kept.0.clear();
        kept.0.push_str(id);
        self.hashes.push_back(self.hasher.hash_one(id));
        self.known.push_back(Session {
            since: moment,
            kept,
        });
        Place(self.known.len() - 1)
    }
}
