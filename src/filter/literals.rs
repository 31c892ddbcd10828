//! The literals a pattern cannot match without: one search for all of them is the first test of a field, and most lines
//! end there.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Lower-case literals, at least one of which stands in the lower-cased text wherever the pattern matches. `None`: there
/// are none, the pattern must be tried on every text. The pattern is read as bytes without Unicode, as config compiles it.
pub(super) fn required(pattern: &str) -> Option<Vec<Vec<u8>>> {
    let lower = |literal: Vec<Letter>| {
        let lower = literal.iter().map(|[_, byte]| byte.to_ascii_lowercase());
        lower.collect()
    };
    let set = of(&parse(pattern)?, shortest).filter(|set| set.len() <= SET_MAX)?;
    Some(set.into_iter().map(lower).collect())
}

/// The same for a text in which letters stand as they were written: of literals in any case a few bytes, in all their
/// cases. `None` also where a single byte is all that is required.
pub(super) fn fragments(pattern: &str) -> Option<Vec<Vec<u8>>> {
    fn few(set: &[Vec<Letter>]) -> usize {
        let variants: usize = set
            .iter()
            .map(|literal| 1 << cases(fragment(literal)))
            .sum();
        if shortest(set) < 2 {
            return 0;
        }
        // Few ones, and long ones rather than short ones.
        (SET_MAX * (1 << FRAGMENT_BYTES)).saturating_sub(variants) * 256 + shortest(set).min(255)
    }
    let set = of(&parse(pattern)?, few).filter(|set| few(set) > 0)?;
    let mut all = Vec::new();
    for literal in &set {
        let mut variants = vec![Vec::new()];
        for [upper, lower] in fragment(literal) {
            let others = if upper == lower { 0 } else { variants.len() };
            variants.extend_from_within(..others);
            for (n, variant) in variants.iter_mut().enumerate() {
                variant.push(if n < others { *upper } else { *lower });
            }
        }
        all.append(&mut variants);
    }
    Some(all)
}

/// What is looked for of a literal: all from where a pair of bytes begins that ordinary lines have seldom; if it stands in
/// any case, only a few bytes, those with the fewest cases.
fn fragment(literal: &[Letter]) -> &[Letter] {
    let window = FRAGMENT_BYTES.min(literal.len());
    let seldom = |piece: &&[Letter]| match piece {
        [a, b, ..] => {
            let pairs = a.iter().flat_map(|a| b.iter().map(move |b| [*a, *b]));
            let mut pairs: Vec<_> = pairs.collect();
            pairs.sort_unstable();
            pairs.dedup();
            pairs.iter().filter_map(|pair| PAIRS.get(pair)).sum()
        }
        _ => usize::MAX,
    };
    let any_case = cases(literal) > 0;
    let pieces = (0..=literal.len() - window).filter_map(|from| {
        let piece = literal.get(from..)?;
        if any_case {
            piece.get(..window)
        } else {
            Some(piece)
        }
    });
    pieces
        .min_by_key(|piece| (cases(piece), seldom(piece)))
        .unwrap_or(literal)
}

/// Without those in which another one stands (where `/.env` is `/.` is found, too), the shortest first.
pub(super) fn few(mut all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    all.sort_by_key(Vec::len);
    let mut few: Vec<Vec<u8>> = Vec::new();
    for literal in all {
        let stands_in = |short: &Vec<u8>| memchr::memmem::find(&literal, short).is_some();
        if !few.iter().any(stands_in) {
            few.push(literal);
        }
    }
    few
}

/// How often ordinary lines have each pair of bytes.
pub(super) static PAIRS: LazyLock<HashMap<[u8; 2], usize>> = LazyLock::new(|| {
    let mut pairs = HashMap::new();
    for pair in ORDINARY.as_bytes().windows(2) {
        if let [a, b] = pair {
            *pairs.entry([*a, *b]).or_default() += 1;
        }
    }
    pairs
});

/// Letters that may stand in two cases.
fn cases(literal: &[Letter]) -> usize {
    literal
        .iter()
        .filter(|[upper, lower]| upper != lower)
        .count()
}

fn shortest(set: &[Vec<Letter>]) -> usize {
    set.iter().map(Vec::len).min().unwrap_or(0)
}

/// A byte of a literal: in upper and in lower case if both will do, else twice the same.
type Letter = [u8; 2];

/// The words a pattern stands for that matches nothing but these, from end to end: `^(?:GET|HEAD)$`.
pub(super) fn words(pattern: &str) -> Option<Vec<Vec<u8>>> {
    // Most are not, which is seen without reading all of it.
    if !(pattern.starts_with('^') && pattern.ends_with('$')) {
        return None;
    }
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

/// What is looked for of a literal in any case: sixteen variants at most.
const FRAGMENT_BYTES: usize = 4;

/// What most lines look like.
const ORDINARY: &str = r#"
GET / HTTP/1.1" 200 5120 "https://www.google.com/" "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
GET /wp-content/uploads/2026/05/header-image-1024x768.jpg HTTP/2.0" 200 81236 "http://example.org/index.php?id=17&page=2" "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1"
POST /wp-admin/admin-ajax.php HTTP/1.1" 200 47 "https://example.org/shop/item/20431-a-title-in-the-address.html" "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GET /2024/05/16/thumbs/img-1625-1600x900.webp HTTP/2.0" 200 16954 "https://www.example.com/2024/" "Mozilla/5.0 (Linux; Android 16; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.6954.69 Mobile Safari/537.36"
GET /api/v1/items?limit=25&offset=50&sort=price HTTP/1.1" 200 1854 "-" "okhttp/4.12.0"
GET /assets/js/jquery.min.js?ver=3.7.1 HTTP/1.1" 304 - "https://www.example.org/2026/11/22/news/" "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
"#;

/// More words than this are faster found by an automaton.
const WORDS_MAX: usize = 8;

/// More alternatives than this are not worth a search of their own.
const SET_MAX: usize = 64;

/// `worth`: which of several sets is the best; 0: none at all.
fn of(hir: &Hir, worth: fn(&[Vec<Letter>]) -> usize) -> Option<Vec<Vec<Letter>>> {
    match hir.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => folded(hir).map(|literal| vec![literal]),
        HirKind::Capture(capture) => of(&capture.sub, worth),
        HirKind::Repetition(repetition) if repetition.min > 0 => of(&repetition.sub, worth),
        HirKind::Repetition(_) | HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Concat(parts) => of_concat(parts, worth),
        HirKind::Alternation(parts) => {
            let mut union = Vec::new();
            for part in parts {
                union.extend(of(part, worth)?);
            }
            Some(union)
        }
    }
}

/// The best of: runs of neighbouring literals, and what each other part requires.
fn of_concat(parts: &[Hir], worth: fn(&[Vec<Letter>]) -> usize) -> Option<Vec<Vec<Letter>>> {
    let mut best: Option<Vec<Vec<Letter>>> = None;
    let mut run: Vec<Letter> = Vec::new();
    let mut offer = |set: Vec<Vec<Letter>>| {
        if !set.is_empty() && worth(&set) > best.as_deref().map_or(0, worth) {
            best = Some(set);
        }
    };
    for part in parts {
        if let Some(literal) = folded(part) {
            run.extend(literal);
        } else if !matches!(part.kind(), HirKind::Look(_) | HirKind::Empty) {
            offer(vec![std::mem::take(&mut run)]);
            if let Some(set) = of(part, worth) {
                offer(set);
            }
        }
    }
    offer(vec![run]);
    best
}

/// A literal, or a class that is one letter in both cases.
fn folded(hir: &Hir) -> Option<Vec<Letter>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(literal.0.iter().map(|b| [*b, *b]).collect()),
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
            let last = rest.last().unwrap_or(first);
            (rest.len() < 2 && first.eq_ignore_ascii_case(last)).then(|| vec![[*first, *last]])
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
    fn fragments_stand_in_a_text_as_it_was_written() {
        let list = |pattern: &str| {
            let mut list: Vec<String> = fragments(pattern)?
                .into_iter()
                .map(|l| String::from_utf8(l).unwrap())
                .collect();
            list.sort();
            Some(list.join(" "))
        };
        assert_eq!(list(r"/Wp-config\.").as_deref(), Some("/Wp-config."));
        assert_eq!(
            list("(?i)badbot-7x").as_deref(),
            Some("T-7X T-7x t-7X t-7x")
        );
        assert_eq!(list("(?i)%2e").as_deref(), Some("%2E %2e"));
        assert_eq!(list("a|bc"), None);
        assert_eq!(list("[0-9]+"), None);
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
