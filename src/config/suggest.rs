//! What somebody meant who wrote a key that does not exist.

/// What people write who come from other programs, or from plain language.
const MISTAKES: &[(&str, &str)] = &[
    ("address", "ignoreip"),
    ("allow", "ignoreip"),
    ("allowlist", "ignoreip"),
    ("code", "status"),
    ("default", "defaults"),
    ("domain", "vhost"),
    ("except", "not"),
    ("exclude", "not"),
    ("host", "vhost"),
    ("interval", "findtime"),
    ("jails", "jail"),
    ("limit", "maxretry"),
    ("referrer", "referer"),
    ("size", "bytes"),
    ("threshold", "maxretry"),
    ("time", "duration"),
    ("ua", "agent"),
    ("unique", "distinct"),
    ("uri", "path"),
    ("url", "path"),
    ("useragent", "agent"),
    ("username", "user"),
    ("verb", "method"),
    ("whitelist", "ignoreip"),
    ("window", "findtime"),
];

/// The one of `known` that `written` was meant to be.
pub(crate) fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let bare = bare(written);
    let meant = MISTAKES
        .iter()
        .find(|(mistake, _)| *mistake == bare)
        .and_then(|(_, meant)| known.iter().find(|k| *k == meant));
    // A short word is near to everything: one letter in four may be wrong.
    meant.copied().or_else(|| {
        known
            .iter()
            .map(|k| (distance(&bare, &self::bare(k)), *k))
            .min()
            .filter(|(d, _)| *d <= bare.len().div_ceil(4).min(3))
            .map(|(_, k)| k)
    })
}

/// `Ignore-IP`, `ignore_ip` and `ignoreip` are one word.
fn bare(word: &str) -> String {
    word.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Letters to change, insert, leave out or swap with the next, to get from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, j) + usize::from(x != y))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_found_and_another_word_is_not() {
        let known = [
            "maxretry", "findtime", "bantime", "ignoreip", "port", "enabled", "not",
        ];
        for (written, meant) in [
            ("max_retry", Some("maxretry")),
            ("ban_time", Some("bantime")),
            ("batnime", Some("bantime")),
            ("ignore-ip", Some("ignoreip")),
            ("ports", Some("port")),
            ("enable", Some("enabled")),
            ("whitelist", Some("ignoreip")),
            ("Findtime", Some("findtime")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
    }
}
