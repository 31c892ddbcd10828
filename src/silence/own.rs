//! What a process can know of itself: a format that fits no line, a log that lags, work that is shed. Pure.

use std::time::Duration;

use super::{Says, spoken};
use crate::notify::state::State;

/// After so many lines none of which fit something is wrong with the format, not with the lines: one bot that speaks
/// garbage does not send the first twenty of a server.
const NONE_FIT: u64 = 20;
/// A disk that syncs or a file system that cleans up makes a write wait for a second or three. What waits longer lags.
const LAG: Duration = Duration::from_secs(5);
/// What was shed is told for so long after it was shed for the last time: an attack that comes in waves is one.
const SHED: Duration = Duration::from_secs(60);
/// The same where the remedy is another configuration, and each busy minute would tell of it anew.
const AGAIN: Duration = Duration::from_secs(3600);

/// What was seen at earlier looks. `now` is the time since any one moment.
#[derive(Debug, Default)]
pub struct Own {
    lags_since: Option<Duration>,
    not_judged: Growing,
    doubtful: Growing,
    evicted: Growing,
    late: Growing,
}

impl Own {
    /// Looks at the counters.
    pub fn look(&mut self, state: &State, now: Duration) -> Vec<Says> {
        let mut says = vec![format(state), names(state)];
        says.extend(self.lag(state, now));
        let n = self.not_judged.look(state.shed, now, SHED);
        says.push(Says {
            about: "judging".into(),
            wrong: n.map(|n| {
                format!(
                    "{n} lines went to the log and were not judged: more came than the expressions of jails can follow, or an \
                     internal error was said above. f2b-pipe status shows which jails read httpd's lines by failregex: conditions \
                     (status, path, agent) in their place are a hundred times as fast (README, \"Your own jail\")"
                )
            }),
        });
        let n = self.doubtful.look(state.doubtful, now, AGAIN);
        says.push(Says {
            about: "httpd's pipe".into(),
            wrong: n.filter(|_| !state.sealed && !state.names).map(|n| {
                format!(
                    "it was nearly full, so lines may be torn, and a client can choose where: {n} lines were not judged. The format \
                     f2b has no such gap (README, \"The format\")"
                )
            }),
        });
        let n = self.evicted.look(state.evicted, now, AGAIN);
        says.push(Says {
            about: "counters".into(),
            wrong: n.map(|n| {
                format!(
                    "{n} clients were forgotten before their findtime was over, as more are at work than the table holds: shorten \
                     findtime, or let IPv6 be counted by a shorter ipv6_prefix (README, \"Limits\")"
                )
            }),
        });
        let n = self.late.look(state.act.dropped, now, SHED);
        says.push(Says {
            about: "news of bans".into(),
            wrong: n.map(|n| {
                format!(
                    "{n} got lost as more than 4096 waited; the bans hold, but when they end is told late. Does iptables hang \
                     (iptables -w 5 -S)?"
                )
            }),
        });
        says
    }

    fn lag(&mut self, state: &State, now: Duration) -> Option<Says> {
        // What the disk said, and that it takes lines again, the tee tells by itself.
        let path = state.tee.as_ref().filter(|_| !state.tee_refused)?;
        let since = match state.tee_waiting {
            0 => None,
            _ => Some(self.lags_since.unwrap_or(now)),
        };
        self.lags_since = since;
        let lags = since.map(|since| now.saturating_sub(since));
        Some(Says {
            about: format!("tee {}", path.display()),
            wrong: match lags {
                Some(lags) if lags < LAG => return None,
                Some(lags) => Some(format!(
                    "{} kB have waited {} for the disk, which is slow or hangs (dmesg; iostat -x 1; a network file system?). Up to \
                     16 MiB wait in memory, bans go on; more is dropped",
                    state.tee_waiting.div_ceil(1024),
                    spoken(lags.as_secs())
                )),
                None => None,
            },
        })
    }
}

fn format(state: &State) -> Says {
    let none = state.lines >= NONE_FIT && state.unparsed == state.lines && !state.names;
    let misfit = state.misfit.as_deref().unwrap_or("its beginning");
    Says {
        about: "--format".into(),
        wrong: none.then(|| {
            format!(
                "none of {} lines fits --format: {misfit} (f2b-pipe explain shows more; f2b-pipe check compares with httpd.conf)",
                state.lines
            )
        }),
    }
}

fn names(state: &State) -> Says {
    Says {
        about: "HostnameLookups".into(),
        wrong: state.names.then(|| {
            "they are on, so %h is the name that a client's own DNS gives him, and that can be anybody's address. Nobody is \
             banned by these lines: write %a instead of %h in the LogFormat (and in --format), or HostnameLookups Off, and reload \
             httpd"
                .to_owned()
        }),
    }
}

/// A counter that should stand still.
#[derive(Debug, Default)]
struct Growing {
    last: u64,
    /// Before it began to grow.
    from: u64,
    grew: Option<Duration>,
}

impl Growing {
    /// By how much it has grown since it began to, if it last did less than `hold` ago.
    fn look(&mut self, count: u64, now: Duration, hold: Duration) -> Option<u64> {
        if count < self.last {
            // Begun anew.
            *self = Self::default();
        }
        if count > self.last {
            if self.grew.is_none() {
                self.from = self.last;
            }
            self.grew = Some(now);
            self.last = count;
        }
        if self
            .grew
            .is_some_and(|grew| now.saturating_sub(grew) >= hold)
        {
            self.grew = None;
        }
        self.grew.map(|_| count - self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(says: &[Says]) -> Vec<&str> {
        let wrong = says.iter().filter(|says| says.wrong.is_some());
        wrong.map(|says| says.about.as_str()).collect()
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_format_is_wrong_when_twenty_lines_and_no_other_do_not_fit() {
        let mut own = Own::default();
        let mut at = |lines, unparsed| {
            let state = State {
                lines,
                unparsed,
                misfit: Some("at column 3 there should be a blank: x".into()),
                ..State::default()
            };
            let says = own.look(&state, secs(lines));
            says.into_iter()
                .find_map(|says| says.wrong)
                .unwrap_or_default()
        };
        assert_eq!(at(19, 19), "");
        assert!(at(20, 20).contains("none of 20 lines fits --format: at column 3"));
        assert_eq!(at(21, 20), "");
    }

    #[test]
    fn a_write_that_takes_long_is_no_lag_yet() {
        let mut own = Own::default();
        let mut at = |now, waiting| {
            let state = State {
                tee: Some("/log".into()),
                tee_waiting: waiting,
                ..State::default()
            };
            wrong(&own.look(&state, secs(now))).len()
        };
        assert_eq!([at(0, 9), at(4, 9), at(5, 9), at(60, 9)], [0, 0, 1, 1]);
        assert_eq!([at(61, 0), at(62, 9), at(66, 9), at(67, 9)], [0, 0, 0, 1]);
    }

    #[test]
    fn what_was_shed_is_told_for_a_minute_after_the_last() {
        let mut own = Own::default();
        let mut at = |now, shed| {
            let state = State {
                shed,
                ..State::default()
            };
            let says = own.look(&state, secs(now));
            says.into_iter()
                .find_map(|says| says.wrong)
                .map(|text| text.split(' ').next().unwrap_or_default().to_owned())
        };
        assert_eq!(at(0, 0), None);
        assert_eq!(at(10, 5).as_deref(), Some("5"));
        assert_eq!(at(50, 7).as_deref(), Some("7"));
        assert_eq!(at(109, 7).as_deref(), Some("7"));
        assert_eq!(at(110, 7), None);
        assert_eq!(at(900, 8).as_deref(), Some("1"));
    }
}
