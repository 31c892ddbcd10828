//! The literals a pattern cannot match without.

use super::ast::{Kind, Node, Set};

/// More alternatives than this are not worth the search.
const SET_MAX: usize = 32;

/// In small letters; at least one of them stands, in letters of either case, wherever the pattern matches. `None`: there are
/// none, the pattern must be tried on every text.
pub(super) fn required(node: &Node) -> Option<Vec<Vec<u8>>> {
    of(node).filter(|set| set.len() <= SET_MAX && worth(set) >= 2)
}

fn worth(set: &[Vec<u8>]) -> usize {
    set.iter().map(Vec::len).min().unwrap_or(0)
}

fn of(node: &Node) -> Option<Vec<Vec<u8>>> {
    match &node.kind {
        Kind::Char(_) | Kind::Set(_) => {
            let mut literal = Vec::new();
            letter(node, &mut literal).then(|| vec![literal])
        }
        Kind::Concat(nodes) => of_concat(nodes),
        Kind::Either(nodes) => {
            let mut union = Vec::new();
            for node in nodes {
                union.extend(of(node)?);
                if union.len() > SET_MAX {
                    return None;
                }
            }
            Some(union)
        }
        Kind::If { yes, no, .. } => {
            let mut union = of(yes)?;
            union.extend(of(no)?);
            Some(union)
        }
        Kind::Repeat { body, min, .. } if *min > 0 => of(body),
        Kind::Group(_, body) | Kind::Atomic(body) => of(body),
        Kind::Empty | Kind::At(_) | Kind::Look { .. } | Kind::Repeat { .. } | Kind::Back { .. } => {
            None
        }
    }
}

/// The best of: runs of neighbouring letters, and what each other part requires. Best is whose shortest literal is longest.
fn of_concat(nodes: &[Node]) -> Option<Vec<Vec<u8>>> {
    let mut best: Option<Vec<Vec<u8>>> = None;
    let mut offer = |set: Vec<Vec<u8>>| {
        if worth(&set) > best.as_deref().map_or(0, worth) {
            best = Some(set);
        }
    };
    let mut run = Vec::new();
    for node in nodes {
        if !letter(node, &mut run) {
            offer(vec![std::mem::take(&mut run)]);
            if let Some(set) = of(node) {
                offer(set);
            }
        }
    }
    offer(vec![run]);
    best
}

/// Adds a character, or a letter in either case. Places between characters do not end a run.
fn letter(node: &Node, run: &mut Vec<u8>) -> bool {
    match &node.kind {
        Kind::Char(c) => {
            let mut buffer = [0; 4];
            run.extend(c.to_ascii_lowercase().encode_utf8(&mut buffer).as_bytes());
            true
        }
        Kind::Set(set) => match either_case(set) {
            Some(letter) => {
                run.push(letter);
                true
            }
            None => false,
        },
        Kind::Empty | Kind::At(_) | Kind::Look { .. } => true,
        _ => false,
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
