//! `<tag>` in a value: replaced where its value is known when the configuration is read.

use std::collections::{BTreeMap, BTreeSet};

/// Replacements of one tag in one value, as many as fail2ban follows.
const MAX_REPLACEMENTS: usize = 25;

/// Bytes of a value, everything replaced.
const VALUE_MAX_BYTES: usize = 1 << 20;

/// Values by name.
pub(super) type Tags = BTreeMap<String, String>;

/// Why tags cannot be replaced.
#[derive(Debug)]
pub(super) enum Fault<E> {
    /// The value of this name: what is wrong with it.
    Value(String, String),
    /// From `elsewhere`.
    Elsewhere(E),
}

/// Replaces every `<name>` in every value of `tags`, repeatedly and inside out, and neither touches nor uses those in
/// `kept`. A name that is not among them is asked of `elsewhere`; one that nobody knows stays as it is. `condition`
/// (`?family=inet6`, or empty): `name?family=inet6` is used rather than `name`.
///
/// # Errors
/// A value that needs itself, or grows without end.
pub(super) fn replace<E>(
    tags: &mut Tags,
    kept: &BTreeSet<String>,
    condition: &str,
    mut elsewhere: impl FnMut(&str) -> Result<Option<String>, E>,
) -> Result<(), Fault<E>> {
    let names: Vec<String> = tags
        .iter()
        .filter(|(name, value)| value.contains('<') && !kept.contains(*name))
        .map(|(name, _)| name.clone())
        .collect();
    let mut counts: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    loop {
        let mut again = false;
        for name in &names {
            let Some(mut value) = tags.get(name).cloned() else {
                continue;
            };
            let counts = counts.entry(name).or_default();
            let mut from = 0;
            let mut changed = false;
            while let Some((start, end)) = find(&value, from) {
                let tag = value.get(start + 1..end - 1).unwrap_or_default().to_owned();
                if kept.contains(&tag) {
                    from = end;
                    continue;
                }
                let count = counts.entry(tag.clone()).or_default();
                if tag == *name || *count >= MAX_REPLACEMENTS || value.len() > VALUE_MAX_BYTES {
                    let text = format!("<{tag}> needs itself, or grows without end");
                    return Err(Fault::Value(name.clone(), text));
                }
                let conditional = || tags.get(&format!("{tag}{condition}"));
                let known = if condition.is_empty() {
                    None
                } else {
                    conditional()
                };
                let with = match known.or_else(|| tags.get(&tag)) {
                    Some(with) => Some(with.clone()),
                    None => elsewhere(&tag).map_err(Fault::Elsewhere)?,
                };
                let Some(with) = with else {
                    from = end;
                    continue;
                };
                value = value.replace(&format!("<{tag}>"), &with);
                *count += 1;
                changed = true;
                from = start;
            }
            if changed {
                again |= find(&value, 0).is_some();
                tags.insert(name.clone(), value);
            }
        }
        if !again {
            return Ok(());
        }
    }
}

/// The next `<name>` at or behind `from`, brackets included. A name has no blank and no bracket in it.
fn find(value: &str, from: usize) -> Option<(usize, usize)> {
    let mut open = None;
    for (at, byte) in value.bytes().enumerate().skip(from) {
        match byte {
            b'<' => open = Some(at),
            b' ' => open = None,
            b'>' => match open.take() {
                Some(open) if at > open + 1 => return Some((open, at + 1)),
                _ => {}
            },
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(pairs: &[(&str, &str)]) -> Result<Tags, Fault<()>> {
        let mut tags = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        replace(&mut tags, &BTreeSet::new(), "", |_| Ok(None)).map(|()| tags)
    }

    #[test]
    fn tags_are_replaced_inside_out() {
        let tags = replaced(&[
            ("a", "x<b-<c>>y<HOST><"),
            ("b-1", "<d>"),
            ("c", "1"),
            ("d", "2"),
        ])
        .unwrap();
        assert_eq!(tags["a"], "x2y<HOST><");
    }

    #[test]
    fn a_tag_that_needs_itself_is_an_error() {
        assert!(replaced(&[("a", "<a>")]).is_err());
        assert!(replaced(&[("a", "<b>"), ("b", "<a>x")]).is_err());
        assert!(replaced(&[("a", "<b>"), ("b", "<c><c>"), ("c", "<b>")]).is_err());
    }
}
