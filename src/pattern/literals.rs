//! The literals a pattern cannot match without.

use super::ast::{Kind, Node, Set};

/// More alternatives than this are not worth the search.
const SET_MAX: usize = 32;

/// In small letters; at least one of them stands, in letters of either case, wherever the pattern matches. `None`: there are
/// none, the pattern must be tried on every text.
pub(super) fn required(node: &Node) -> Option<Vec<Vec<u8>>> {
    of(node, Case::Small).filter(|set| set.len() <= SET_MAX && worth(set) >= 2)
}

/// One literal that stands, as it is, wherever the pattern matches.
pub(super) fn needle(node: &Node) -> Option<Vec<u8>> {
    let mut set = of(node, Case::Exact)?;
    set.pop()
        .filter(|literal| set.is_empty() && literal.len() >= 2)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Small,
    Exact,
}

fn worth(set: &[Vec<u8>]) -> usize {
    set.iter().map(Vec::len).min().unwrap_or(0)
}

fn of(node: &Node, case: Case) -> Option<Vec<Vec<u8>>> {
    match &node.kind {
        Kind::Char(_) | Kind::Set(_) => {
            let mut literal = Vec::new();
            letter(node, case, &mut literal).then(|| vec![literal])
        }
        Kind::Concat(nodes) => of_concat(nodes, case),
        Kind::Either(nodes) => {
            let mut union = Vec::new();
            for node in nodes {
                union.extend(of(node, case)?);
                if union.len() > SET_MAX {
                    return None;
                }
            }
            union.sort();
            union.dedup();
            Some(union)
        }
        Kind::If { yes, no, .. } => {
            let mut union = of(yes, case)?;
            union.extend(of(no, case)?);
            Some(union)
        }
        Kind::Repeat { body, min, .. } if *min > 0 => of(body, case),
        Kind::Group(_, body) | Kind::Atomic(body) => of(body, case),
        Kind::Empty | Kind::At(_) | Kind::Look { .. } | Kind::Repeat { .. } | Kind::Back { .. } => {
            None
        }
    }
}

/// The best of: runs of neighbouring letters, and what each other part requires. Best is whose shortest literal is longest.
fn of_concat(nodes: &[Node], case: Case) -> Option<Vec<Vec<u8>>> {
    let mut best: Option<Vec<Vec<u8>>> = None;
    let mut offer = |set: Vec<Vec<u8>>| {
        if worth(&set) > best.as_deref().map_or(0, worth) {
            best = Some(set);
        }
    };
    let mut run = Vec::new();
    for node in nodes {
        if !letter(node, case, &mut run) {
            offer(vec![std::mem::take(&mut run)]);
            if let Some(set) = of(node, case) {
                offer(set);
            }
        }
    }
    offer(vec![run]);
    best
}

/// Adds a character, or a letter in either case. Places between characters do not end a run.
fn letter(node: &Node, case: Case, run: &mut Vec<u8>) -> bool {
    match &node.kind {
        // A newline is put behind the part of a line that a prefregex cuts out. Without it, what a pattern requires of that
        // part it requires of the line.
        Kind::Char('\n') => false,
        Kind::Char(c) => {
            let mut buffer = [0; 4];
            let c = match case {
                Case::Small => c.to_ascii_lowercase(),
                Case::Exact => *c,
            };
            run.extend(c.encode_utf8(&mut buffer).as_bytes());
            true
        }
        Kind::Set(set) => match either_case(set) {
            Some(letter) if case == Case::Small => {
                run.push(letter);
                true
            }
            _ => false,
        },
        Kind::Empty | Kind::At(_) | Kind::Look { .. } => true,
        Kind::Concat(_) | Kind::Either(_) | Kind::Repeat { .. } => false,
        Kind::Group(..) | Kind::Atomic(_) | Kind::Back { .. } | Kind::If { .. } => false,
    }
}

/// `i`, `k` and `s` have a third form outside of ASCII; they are none.
fn either_case(set: &Set) -> Option<u8> {
    if set.any_wide() || set.ascii().count_ones() != 2 {
        return None;
    }
    let upper = u8::try_from(set.ascii().trailing_zeros()).ok()?;
    let lower = upper.to_ascii_lowercase();
    (lower != upper && set.has(char::from(lower))).then_some(lower)
}
