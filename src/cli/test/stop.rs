//! How far the best expression got in a line that was missed.

use std::fmt;

use serde::Serialize;

use crate::failregex::Matcher;
use crate::pattern::{Pattern, Reach};

/// Characters shown before the place and in all, so that the caret stands under it on any terminal.
const BEFORE_CHARS: usize = 50;
const SHOWN_CHARS: usize = 76;

/// Where it stopped. Shown as a sentence, the text around the place, and a caret under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Stop {
    /// `failregex 3`, `prefregex`.
    pub(in crate::cli) expression: String,
    /// In `text`, characters counted from 1.
    pub(in crate::cli) column: usize,
    /// The piece of the expression that is not there; `None`: it is not at the place where it may begin or end.
    pub(in crate::cli) wants: Option<String>,
    /// What the expression looked at: of the line without its date what prefregex leaves.
    pub(in crate::cli) text: String,
}

impl Stop {
    /// In the line that `matcher` judged last, and missed. `None`: it has no expressions.
    pub(in crate::cli) fn of(matcher: &Matcher) -> Option<Self> {
        if let Some(pre) = matcher.prefregex()
            && !matcher.passes()
        {
            let reach = pre.reach(matcher.text());
            return Some(Self::new(
                "prefregex".to_owned(),
                pre,
                &reach,
                matcher.text(),
            ));
        }
        let searched = matcher.searched();
        let reached = matcher
            .failregexes()
            .iter()
            .map(|pattern| (pattern, pattern.reach(&searched)));
        let (n, (pattern, reach)) = reached
            .enumerate()
            .max_by_key(|(n, (_, reach))| (reach.at, std::cmp::Reverse(*n)))?;
        let which = format!("failregex {}", n + 1);
        Some(Self::new(which, pattern, &reach, &searched))
    }

    fn new(expression: String, pattern: &Pattern, reach: &Reach, text: &str) -> Self {
        let text = text.trim_end_matches('\n');
        let piece = pattern.source().get(reach.piece.clone());
        Self {
            expression,
            column: text.get(..reach.at).map_or(0, |head| head.chars().count()) + 1,
            wants: piece
                .filter(|piece| !piece.is_empty())
                .map(|piece| piece.trim_end().to_owned()),
            text: text.to_owned(),
        }
    }

    /// The sentence.
    pub(in crate::cli) fn why(&self) -> String {
        let wants = match &self.wants {
            // The commonest mistake of all.
            Some(piece) if self.column == 1 && self.text.starts_with(' ') => format!(
                "wants {}; a blank is left where the date was cut out: begin with ^\\s*",
                shown(piece)
            ),
            Some(piece) => format!("wants {}", shown(piece)),
            None => "is not at the place where it may begin or end".to_owned(),
        };
        format!(
            "{} gets to column {} and there {wants}",
            self.expression, self.column
        )
    }

    /// The text around the place, and the caret: two lines.
    pub(in crate::cli) fn cited(&self) -> String {
        let before = self.column - 1;
        let from = before.saturating_sub(BEFORE_CHARS);
        let part: String = self.text.chars().skip(from).take(SHOWN_CHARS).collect();
        let (head, tail) = match part.char_indices().nth(before - from) {
            Some((at, _)) => part.split_at(at),
            None => (part.as_str(), ""),
        };
        let head = shown(head);
        let under = " ".repeat(head.chars().count());
        format!("{head}{}\n{under}^", shown(tail))
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.why(), self.cited())
    }
}

/// What strangers wrote, safe for a terminal.
pub(in crate::cli) fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let safe = !c.is_control();
            let escaped = (!safe).then(|| c.escape_default()).into_iter().flatten();
            safe.then_some(c).into_iter().chain(escaped)
        })
        .collect()
}
