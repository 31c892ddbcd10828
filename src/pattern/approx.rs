//! A linear first test: what the `regex` crate can say of a pattern without look-arounds, back-references and conditions.
//! It matches wherever the pattern does, and perhaps elsewhere.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, Look, Repetition,
};

use super::ast::{At, Kind, Node, Set};
use super::program::size;

/// Steps that a repetition may be written out to; beyond it is taken for endless.
const WRITTEN_OUT_MAX: u64 = 500;
/// Bytes of a compiled test, and of what it learns while it searches. Without a test the machine judges alone.
const COMPILED_MAX: usize = 4 << 20;
const LEARNT_MAX: usize = 1 << 20;

/// Texts it will be asked about: those of bytes below 128 have smaller tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    Ascii,
    All,
}

/// `None`: too large.
pub(super) fn compile(root: &Node, texts: Texts) -> Option<Regex> {
    RegexBuilder::new(&hir(root, texts).to_string())
        .size_limit(COMPILED_MAX)
        .dfa_size_limit(LEARNT_MAX)
        .build()
        .ok()
}

fn hir(node: &Node, texts: Texts) -> Hir {
    match &node.kind {
        Kind::Empty | Kind::Look { .. } => Hir::empty(),
        Kind::Char(c) => match texts {
            Texts::Ascii if !c.is_ascii() => Hir::fail(),
            Texts::Ascii | Texts::All => Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()),
        },
        Kind::Set(set) => class(set, texts),
        Kind::At(At::Start) => Hir::look(Look::Start),
        Kind::At(At::LineStart) => Hir::look(Look::StartLF),
        Kind::At(At::End) => Hir::look(Look::End),
        Kind::At(At::LineEnd | At::LastLineEnd) => Hir::look(Look::EndLF),
        Kind::At(At::Bound { not, .. }) => match (texts, not) {
            (Texts::All, _) => Hir::empty(),
            (Texts::Ascii, false) => Hir::look(Look::WordAscii),
            (Texts::Ascii, true) => Hir::look(Look::WordAsciiNegate),
        },
        Kind::Concat(nodes) => Hir::concat(nodes.iter().map(|node| hir(node, texts)).collect()),
        Kind::Either(nodes) => {
            Hir::alternation(nodes.iter().map(|node| hir(node, texts)).collect())
        }
        Kind::Repeat { body, min, max, .. } => {
            let large = |times: u32| u64::from(times).saturating_mul(size(body)) > WRITTEN_OUT_MAX;
            let min = if large(*min) { 1 } else { *min };
            repeat(hir(body, texts), min, max.filter(|&max| !large(max)))
        }
        Kind::Group(_, body) | Kind::Atomic(body) => hir(body, texts),
        Kind::Back { .. } => repeat(Hir::dot(regex_syntax::hir::Dot::AnyByte), 0, None),
        Kind::If { yes, no, .. } => Hir::alternation(vec![hir(yes, texts), hir(no, texts)]),
    }
}

fn repeat(sub: Hir, min: u32, max: Option<u32>) -> Hir {
    Hir::repetition(Repetition {
        min,
        max,
        greedy: true,
        sub: Box::new(sub),
    })
}

/// Of the characters above 127 only whether the set can hold any.
fn class(set: &Set, texts: Texts) -> Hir {
    let ascii = ('\0'..='\x7f').filter(|&c| set.has(c));
    if texts == Texts::Ascii {
        let bytes = ascii.filter_map(|c| u8::try_from(c).ok());
        return Hir::class(Class::Bytes(ClassBytes::new(
            bytes.map(|b| ClassBytesRange::new(b, b)),
        )));
    }
    let wide = set
        .any_wide()
        .then(|| ClassUnicodeRange::new('\u{80}', char::MAX));
    let ascii = ascii.map(|c| ClassUnicodeRange::new(c, c));
    Hir::class(Class::Unicode(ClassUnicode::new(ascii.chain(wide))))
}
