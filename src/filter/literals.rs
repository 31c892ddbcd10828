//! The literals a pattern cannot match without: one search for all of them is the first test of a field, and most lines
//! end there.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Lower-case literals, at least one of which stands in the lower-cased text wherever the pattern matches. `None`: there
/// are none, the pattern must be tried on every text. The pattern is read as bytes without Unicode, as config compiles it.
pub(super) fn required(pattern: &str) -> Option<Vec<Vec<u8>>> {
    of(&parse(pattern)?).filter(|set| set.len() <= SET_MAX)
}

/// The words a pattern stands for that matches nothing but these, from end to end: `^(?:GET|HEAD)$`.
pub(super) fn words(pattern: &str) -> Option<Vec<Vec<u8>>> {
    let hir = parse(pattern)?;
    let (first, last) = (
        hir.properties().look_set_prefix(),
        hir.properties().look_set_suffix(),
    );
    let looks = hir.properties().look_set();
    let anchors = first.contains(Look::Start) && last.contains(Look::End) && looks.len() == 2;
    if !anchors {
        return None;
    }
    let seq = Extractor::new().extract(&hir);
    let literals = seq.literals().filter(|_| seq.is_exact())?;
    (literals.len() <= WORDS_MAX).then(|| literals.iter().map(|l| l.as_bytes().to_vec()).collect())
}

fn parse(pattern: &str) -> Option<Hir> {
    ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(pattern)
        .ok()
}

/// More words than this are faster found by an automaton.
const WORDS_MAX: usize = 8;

/// More alternatives than this are not worth a search of their own.
const SET_MAX: usize = 64;

fn of(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => folded(hir).map(|literal| vec![literal]),
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => of(&repetition.sub),
        HirKind::Repetition(_) | HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Concat(parts) => of_concat(parts),
        HirKind::Alternation(parts) => {
            let mut union = Vec::new();
            for part in parts {
                union.extend(of(part)?);
            }
            Some(union)
        }
    }
}

/// The best of: runs of neighbouring literals, and what each other part requires. Best is whose shortest literal is longest.
fn of_concat(parts: &[Hir]) -> Option<Vec<Vec<u8>>> {
    let mut best: Option<Vec<Vec<u8>>> = None;
    let mut run: Vec<u8> = Vec::new();
    let mut offer = |set: Vec<Vec<u8>>| {
        let worth = |set: &[Vec<u8>]| set.iter().map(Vec::len).min().unwrap_or(0);
        if !set.is_empty() && worth(&set) > best.as_deref().map_or(0, worth) {
            best = Some(set);
        }
    };
    for part in parts {
        if let Some(literal) = folded(part) {
            run.extend(literal);
        } else if !matches!(part.kind(), HirKind::Look(_) | HirKind::Empty) {
            offer(vec![std::mem::take(&mut run)]);
            if let Some(set) = of(part) {
                offer(set);
            }
        }
    }
    offer(vec![run]);
    best
}

/// A literal, or a class that is one letter in both cases; lower-cased.
fn folded(hir: &Hir) -> Option<Vec<u8>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(literal.0.to_ascii_lowercase()),
        HirKind::Class(class) => {
            let bytes: Vec<u8> = match class {
                Class::Bytes(class) => class
                    .iter()
                    .flat_map(|r| r.start()..=r.end())
                    .take(3)
                    .collect(),
                Class::Unicode(class) => {
                    let chars = class.iter().flat_map(|r| r.start()..=r.end()).take(3);
                    chars
                        .map(|c| u8::try_from(c).ok().filter(u8::is_ascii))
                        .collect::<Option<_>>()?
                }
            };
            let (first, rest) = bytes.split_first()?;
            let lower = first.to_ascii_lowercase();
            (rest.len() < 2 && rest.iter().all(|b| b.to_ascii_lowercase() == lower))
                .then(|| vec![lower])
        }
        HirKind::Empty
        | HirKind::Look(_)
        | HirKind::Repetition(_)
        | HirKind::Capture(_)
        | HirKind::Concat(_)
        | HirKind::Alternation(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(pattern: &str) -> Option<Vec<String>> {
        required(pattern).map(|set| {
            set.into_iter()
                .map(|l| String::from_utf8(l).unwrap())
                .collect()
        })
    }

    #[test]
    fn a_list_of_words_is_known_as_such() {
        let list = |pattern: &str| {
            words(pattern).map(|w| {
                w.into_iter()
                    .map(|w| String::from_utf8(w).unwrap())
                    .collect()
            })
        };
        assert_eq!(
            list("^(?:GET|HEAD|POST)$"),
            Some(vec!["GET".to_owned(), "HEAD".to_owned(), "POST".to_owned()])
        );
        assert_eq!(list("^-$"), Some(vec!["-".to_owned()]));
        for other in [
            "^GET",
            "GET$",
            "^a+$",
            "^a|b$",
            "GET",
            "(?m)^GET$",
            r"^\bGET$",
        ] {
            assert_eq!(list(other), None::<Vec<String>>, "{other}");
        }
    }

    #[test]
    fn the_longest_necessary_literals_are_found() {
        let want =
            |literals: &[&str]| Some(literals.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(sets(r"/\.env"), want(&["/.env"]));
        assert_eq!(sets(r"(?i)/\.Git/|\$\{jndi:"), want(&["/.git/", "${jndi:"]));
        assert_eq!(sets(r"^/a[0-9]+/etc/passwd$"), want(&["/etc/passwd"]));
        assert_eq!(sets(r"x(?:abc|de)+y?"), want(&["abc", "de"]));
        assert_eq!(sets(r"^-$"), want(&["-"]));
        assert_eq!(sets(r"a*"), None);
        assert_eq!(sets(r"abc|[0-9]"), None);
        assert_eq!(sets(r".*"), None);
    }
}
