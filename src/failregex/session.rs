//! Lines of one connection, joined by its id (rules 42 to 46): what was learned from earlier lines of it, users and the
//! address above all.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::{Groups, Value};

/// Connections remembered by a filter.
const SESSIONS_MAX: usize = 100;
/// How long a connection is remembered, from its first line on.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Lines, and users, kept of one connection: one that never ends must not grow for ever. (fail2ban keeps all.)
pub(super) const KEPT_MAX: usize = 1000;

/// What is known of a failure, or of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Fail {
    /// Groups; `None`: a group that took no part, which hides one of the same name in prefregex.
    pub(super) groups: Groups,
    /// Users that the connection tried, if its expressions have a user.
    pub(super) users: Option<BTreeSet<Value>>,
    /// Lines of the failure.
    pub(super) matches: Vec<String>,
    /// Lines that were no failure by themselves.
    pub(super) nofail_matches: Vec<String>,
    /// A failure that waits for its address.
    pub(super) pending: bool,
}

impl Fail {
    fn has(&self, name: &str) -> bool {
        matches!(self.groups.get(name), Some(Some(value)) if !value.is_empty())
    }

    /// Is it no failure by itself?
    pub(super) fn is_nofail(&self) -> bool {
        self.has("nofail")
    }

    fn add_user(&mut self, user: Option<Value>) {
        if let Some(user) = user.filter(|user| !user.is_empty()) {
            let users = self.users.get_or_insert_default();
            if users.len() < KEPT_MAX {
                users.insert(user);
            }
        }
    }
}

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// In the order of their first lines.
    known: VecDeque<(String, Instant, Fail)>,
}

/// A line's failure joined with its connection, to be given back to [`Sessions::keep`].
pub(super) struct Merged {
    pub(super) fail: Fail,
    /// The connection's id, if it is to be remembered.
    keep: Option<(String, Instant)>,
}

impl Sessions {
    /// Joins `fail` with what is known of its connection `id`. `lines`: those that the expression covers.
    pub(super) fn merge(
        &mut self,
        id: &str,
        mut fail: Fail,
        lines: &mut dyn FnMut() -> Vec<String>,
        moment: Instant,
    ) -> Merged {
        let gained = fail.has("mlfgained");
        if gained && !fail.has("nofail") {
            let value = fail.groups.get("mlfgained").cloned().flatten();
            fail.groups.insert("nofail".into(), value);
        }
        let mut nofail = gained || fail.has("nofail");
        let mut gained = gained;
        let forget = fail
            .groups
            .remove("mlfforget")
            .flatten()
            .is_some_and(|v| !v.is_empty());
        let user = fail.groups.get("user").cloned().flatten();
        let mut keep = None;
        if let Some((since, mut known)) = self.take(id, moment) {
            known.add_user(user);
            // Only what this line says of these two counts.
            let was_nofail = known
                .groups
                .remove("nofail")
                .flatten()
                .is_some_and(|v| !v.is_empty());
            let was_gained = known
                .groups
                .remove("mlfgained")
                .flatten()
                .is_some_and(|v| !v.is_empty());
            if gained {
                known.pending = false;
            }
            // Lines of a failure that was reported are not told again.
            if !was_nofail && !was_gained && !known.pending {
                known.matches.clear();
            }
            known
                .groups
                .extend(fail.groups.into_iter().filter(|(_, value)| value.is_some()));
            fail = known;
            if !forget {
                keep = Some((id.to_owned(), since));
            }
        } else if !forget {
            fail.add_user(user);
            keep = Some((id.to_owned(), moment));
        }
        let several = fail.users.as_ref().is_some_and(|users| users.len() > 1);
        if std::mem::take(&mut fail.pending) || several {
            fail.groups.remove("nofail");
            fail.groups.remove("mlfgained");
            (nofail, gained) = (false, false);
        }
        if !nofail {
            let mut all = std::mem::take(&mut fail.nofail_matches);
            all.append(&mut fail.matches);
            if !gained {
                all.extend(lines());
            }
            fail.matches = all;
        } else if !forget {
            fail.nofail_matches.extend(lines());
        }
        for kept in [&mut fail.matches, &mut fail.nofail_matches] {
            let many = kept.len().saturating_sub(KEPT_MAX);
            kept.drain(..many);
        }
        Merged { fail, keep }
    }

    /// Remembers the connection for its next line.
    pub(super) fn keep(&mut self, merged: &mut Merged, moment: Instant) {
        let Some((id, since)) = merged.keep.take() else {
            return;
        };
        if self.known.len() >= SESSIONS_MAX {
            // The oldest makes room, and what is too old with it.
            self.known.pop_front();
            while self
                .known
                .front()
                .is_some_and(|(_, since, _)| moment.duration_since(*since) >= REMEMBERED)
            {
                self.known.pop_front();
            }
        }
        let at = self.known.partition_point(|(_, other, _)| *other <= since);
        self.known.insert(at, (id, since, merged.fail.clone()));
    }

    fn take(&mut self, id: &str, moment: Instant) -> Option<(Instant, Fail)> {
        let at = self.known.iter().position(|(known, _, _)| known == id)?;
        let (_, since, fail) = self.known.remove(at)?;
        (moment.duration_since(since) < REMEMBERED).then_some((since, fail))
    }
}
