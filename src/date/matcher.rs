//! Finds an expression in a line as Python would: leftmost, then first choice first, going back where that fails.
//!
//! Why an engine of our own: a date's expression looks back, repeats its separator and must see the end of a part of the
//! line as its end, which the `regex` crate cannot do; and it is so short that telling branches apart by their next byte
//! costs less than starting a general engine. Going back is bounded by a number of steps.

use super::needs::{self, Need, Starts};
use crate::pattern::ast::{At, Greed, Kind, Node, Set, word};
use crate::pattern::parse::Parsed;
use crate::pattern::program::{anchored, single};

/// The place where a date may begin: not inside a word. A character of private use, so that it can stand in the text.
pub(super) const EDGE_START: char = '\u{f8f0}';
/// The place where a date may end.
pub(super) const EDGE_END: char = '\u{f8f1}';

/// No position.
const NOWHERE: usize = usize::MAX;
/// Steps for one search, and as many more for each byte. A date takes about fifty, a place where none begins one to five.
/// With more it is no match.
const STEPS: usize = 100_000;
const STEPS_A_BYTE: usize = 20;
/// Choices and settings that wait to be taken back. With more it is no match.
const STACK_MAX: usize = 100_000;
/// Longest program, operations.
const OPS_MAX: usize = 20_000;
/// Branches that one table tells apart.
const TABLE_BRANCHES: usize = 16;

#[derive(Debug)]
enum Op {
    Match,
    Byte(u8),
    Set(Set),
    Repeat {
        set: Set,
        min: usize,
        max: usize,
        greedy: bool,
    },
    /// The first branch first; the table says for each next byte (and 256: the end) which ones can be.
    Branch {
        targets: Vec<usize>,
        table: Box<[u16; 257]>,
    },
    Jump(usize),
    /// Puts the position into a slot.
    Save(usize),
    /// A round of a loop that began at the slot's position and took nothing is the last.
    Round {
        slot: usize,
        exit: usize,
    },
    At(At),
    EdgeStart,
    EdgeEnd,
    /// The program behind it, up to its `Match`; `back` characters earlier.
    Look {
        ahead: bool,
        negated: bool,
        back: usize,
        next: usize,
    },
    Atomic {
        next: usize,
    },
    Back {
        group: usize,
        fold: bool,
    },
    If {
        group: usize,
        no: usize,
    },
}

/// Which bytes can come next, and whether the end can.
#[derive(Clone)]
struct Firsts {
    bytes: [bool; 256],
    end: bool,
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Matcher {
    ops: Vec<Op>,
    slots: usize,
    anchored: bool,
    looks_behind: bool,
    /// Begins with [`Op::EdgeStart`].
    at_edge: bool,
    ascii_words: bool,
    /// What every match contains.
    pub(super) need: Need,
    starts: Box<[bool; 256]>,
    starts_at_end: bool,
}

enum Frame {
    Try {
        pc: usize,
        pos: usize,
    },
    Undo {
        slot: usize,
        old: usize,
    },
    /// A greedy repeat that may give back down to `least`.
    Shorter {
        pc: usize,
        least: usize,
        pos: usize,
    },
    /// A lazy repeat that may take `left` more.
    Longer {
        op: usize,
        pos: usize,
        left: usize,
    },
}

/// What a search works with and leaves behind; made once, used for every line.
#[derive(Default)]
pub(super) struct Search {
    slots: Vec<usize>,
    stack: Vec<Frame>,
    /// How many bytes of the text, from its beginning, the search has looked at (one more than there are: at its end).
    pub(super) far: usize,
    steps: usize,
}

impl Search {
    /// Where a group matched; 0 is the whole.
    pub(super) fn group(&self, group: usize) -> Option<std::ops::Range<usize>> {
        let start = *self.slots.get(group * 2)?;
        let end = *self.slots.get(group * 2 + 1)?;
        (start != NOWHERE && end != NOWHERE).then_some(start..end)
    }

    fn slot(&self, slot: usize) -> usize {
        self.slots.get(slot).copied().unwrap_or(NOWHERE)
    }

    fn set(&mut self, slot: usize, value: usize) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = value;
        }
    }
}

impl Matcher {
    /// Compiles.
    ///
    /// # Errors
    /// The expression is too large.
    pub(super) fn new(parsed: &Parsed) -> Result<Self, String> {
        let node = &parsed.root;
        let mut matcher = Matcher {
            ops: Vec::new(),
            slots: parsed.groups as usize * 2 + 2,
            anchored: anchored(node),
            looks_behind: false,
            at_edge: false,
            ascii_words: parsed.ascii,
            need: needs::of(node),
            starts: Box::new([false; 256]),
            starts_at_end: false,
        };
        matcher.emit(node)?;
        matcher.push(Op::Match)?;
        matcher.at_edge = matches!(matcher.ops.first(), Some(Op::EdgeStart));
        let firsts = matcher.firsts(0);
        matcher.starts = Box::new(firsts.bytes);
        matcher.starts_at_end = firsts.end;
        for pc in 0..matcher.ops.len() {
            let Some(Op::Branch { targets, .. }) = matcher.ops.get(pc) else {
                continue;
            };
            let firsts: Vec<_> = targets
                .iter()
                .map(|&target| matcher.firsts(target))
                .collect();
            let mut filled = Box::new([0u16; 257]);
            for (byte, mask) in filled.iter_mut().enumerate() {
                for (branch, first) in firsts.iter().enumerate() {
                    if first.bytes.get(byte).copied().unwrap_or(first.end) {
                        *mask |= 1 << branch;
                    }
                }
            }
            if let Some(Op::Branch { table, .. }) = matcher.ops.get_mut(pc) {
                *table = filled;
            }
        }
        Ok(matcher)
    }

    /// Whether it looks further back than to the character before the match.
    pub(super) fn looks_behind(&self) -> bool {
        self.looks_behind
    }

    /// Whether it can only match at the start of the line.
    pub(super) fn anchored(&self) -> bool {
        self.anchored
    }

    fn push(&mut self, op: Op) -> Result<usize, String> {
        if self.ops.len() >= OPS_MAX {
            return Err("too large an expression".to_owned());
        }
        self.ops.push(op);
        Ok(self.ops.len() - 1)
    }

    fn branch(&mut self) -> Result<usize, String> {
        self.push(Op::Branch {
            targets: Vec::new(),
            table: Box::new([0; 257]),
        })
    }

    fn aim(&mut self, branch: usize, to: Vec<usize>) {
        if let Some(Op::Branch { targets, .. }) = self.ops.get_mut(branch) {
            *targets = to;
        }
    }

    fn land(&mut self, jumps: &[usize]) {
        let here = self.ops.len();
        for &jump in jumps {
            match self.ops.get_mut(jump) {
                Some(Op::Jump(to)) => *to = here,
                Some(Op::Look { next, .. } | Op::Atomic { next }) => *next = here,
                Some(Op::If { no, .. }) => *no = here,
                Some(Op::Round { exit, .. }) => *exit = here,
                Some(_) | None => {}
            }
        }
    }

    fn emit(&mut self, node: &Node) -> Result<(), String> {
        match &node.kind {
            Kind::Empty => {}
            Kind::Char(EDGE_START) => {
                self.push(Op::EdgeStart)?;
            }
            Kind::Char(EDGE_END) => {
                self.push(Op::EdgeEnd)?;
            }
            Kind::Char(c) => {
                self.push(match u8::try_from(*c) {
                    Ok(byte) if byte.is_ascii() => Op::Byte(byte),
                    Ok(_) | Err(_) => Op::Set(Set::one(*c)),
                })?;
            }
            Kind::Set(set) => {
                self.push(Op::Set((**set).clone()))?;
            }
            Kind::Concat(nodes) => nodes.iter().try_for_each(|node| self.emit(node))?,
            Kind::Either(nodes) => self.alternatives(&nodes.iter().collect::<Vec<_>>())?,
            Kind::Group(group, node) => {
                let slot = *group as usize * 2;
                self.push(Op::Save(slot))?;
                self.emit(node)?;
                self.push(Op::Save(slot + 1))?;
            }
            Kind::Repeat {
                body,
                min,
                max,
                greed,
            } => {
                let (min, max) = (*min as usize, max.map_or(NOWHERE, |max| max as usize));
                match greed {
                    Greed::Most => self.repeat(body, min, max, true)?,
                    Greed::Least => self.repeat(body, min, max, false)?,
                    Greed::Own => {
                        let atomic = self.push(Op::Atomic { next: 0 })?;
                        self.repeat(body, min, max, true)?;
                        self.push(Op::Match)?;
                        self.land(&[atomic]);
                    }
                }
            }
            Kind::At(at) => {
                self.push(Op::At(*at))?;
            }
            Kind::Look { not, behind, body } => {
                self.looks_behind |= behind.is_some();
                let look = Op::Look {
                    ahead: behind.is_none(),
                    negated: *not,
                    back: behind.unwrap_or(0) as usize,
                    next: 0,
                };
                self.inner(body, look)?;
            }
            Kind::Atomic(node) => self.inner(node, Op::Atomic { next: 0 })?,
            Kind::Back { group, fold } => {
                self.push(Op::Back {
                    group: *group as usize,
                    fold: *fold,
                })?;
            }
            Kind::If { group, yes, no } => {
                let test = self.push(Op::If {
                    group: *group as usize,
                    no: 0,
                })?;
                self.emit(yes)?;
                let jump = self.push(Op::Jump(0))?;
                self.land(&[test]);
                self.emit(no)?;
                self.land(&[jump]);
            }
        }
        Ok(())
    }

    fn inner(&mut self, node: &Node, op: Op) -> Result<(), String> {
        let op = self.push(op)?;
        self.emit(node)?;
        self.push(Op::Match)?;
        self.land(&[op]);
        Ok(())
    }

    fn alternatives(&mut self, nodes: &[&Node]) -> Result<(), String> {
        let (nodes, more) = nodes.split_at(match nodes.len() {
            0..=TABLE_BRANCHES => nodes.len(),
            _ => TABLE_BRANCHES - 1,
        });
        let branch = self.branch()?;
        let mut targets = Vec::new();
        let mut jumps = Vec::new();
        for node in nodes {
            targets.push(self.ops.len());
            self.emit(node)?;
            jumps.push(self.push(Op::Jump(0))?);
        }
        if !more.is_empty() {
            targets.push(self.ops.len());
            self.alternatives(more)?;
        }
        self.aim(branch, targets);
        self.land(&jumps);
        Ok(())
    }

    fn repeat(&mut self, node: &Node, min: usize, max: usize, greedy: bool) -> Result<(), String> {
        let edge = matches!(node.kind, Kind::Char(EDGE_START | EDGE_END));
        if let Some(set) = single(node).filter(|_| !edge) {
            self.push(Op::Repeat {
                set,
                min,
                max,
                greedy,
            })?;
            return Ok(());
        }
        for _ in 0..min {
            self.emit(node)?;
        }
        let order = |body: usize, exit: usize| {
            if greedy {
                vec![body, exit]
            } else {
                vec![exit, body]
            }
        };
        if max == NOWHERE {
            let branch = self.branch()?;
            let slot = self.slots;
            self.slots += 1;
            self.push(Op::Save(slot))?;
            self.emit(node)?;
            let round = self.push(Op::Round { slot, exit: 0 })?;
            self.push(Op::Jump(branch))?;
            self.aim(branch, order(branch + 1, self.ops.len()));
            self.land(&[round]);
            return Ok(());
        }
        let mut branches = Vec::new();
        for _ in min..max {
            branches.push(self.branch()?);
            self.emit(node)?;
        }
        for branch in branches {
            self.aim(branch, order(branch + 1, self.ops.len()));
        }
        Ok(())
    }

    /// What a match that goes on at `pc` can begin with; rather too much than too little.
    fn firsts(&self, pc: usize) -> Firsts {
        let mut firsts = Firsts {
            bytes: [false; 256],
            end: false,
        };
        let mut seen = vec![false; self.ops.len()];
        let mut open = vec![pc];
        while let Some(pc) = open.pop() {
            match seen.get_mut(pc) {
                Some(seen) if !*seen => *seen = true,
                Some(_) | None => continue,
            }
            let Some(op) = self.ops.get(pc) else { continue };
            match op {
                Op::Match | Op::Atomic { .. } | Op::Back { .. } => {
                    return Firsts {
                        bytes: [true; 256],
                        end: true,
                    };
                }
                Op::Byte(byte) => firsts.add(|b| b == *byte),
                Op::Set(set) => firsts.add_set(set),
                Op::Repeat { set, min, .. } => {
                    firsts.add_set(set);
                    if *min == 0 {
                        open.push(pc + 1);
                    }
                }
                Op::Branch { targets, .. } => open.extend(targets),
                Op::Jump(to) => open.push(*to),
                Op::Round { exit, .. } => open.extend([pc + 1, *exit]),
                Op::Look { next, .. } => open.push(*next),
                Op::If { no, .. } => open.extend([pc + 1, *no]),
                Op::Save(_) | Op::At(_) | Op::EdgeStart | Op::EdgeEnd => open.push(pc + 1),
            }
        }
        firsts
    }

    /// Looks for the leftmost match in a part of a line; what is before the part is seen by looks behind, its end is the end
    /// of the text. Both lie between characters. `starts`: where a match can begin at all.
    pub(super) fn find(
        &self,
        line: &str,
        (from, to): (usize, usize),
        starts: Starts,
        search: &mut Search,
    ) -> bool {
        let text = line.as_bytes().get(..to).unwrap_or_default();
        search.far = 0;
        search.steps = STEPS + STEPS_A_BYTE * text.len();
        if self.anchored {
            let can = from == 0 && starts.next(0).is_some_and(|(first, _)| first == 0);
            return can && self.try_at(text, 0, search);
        }
        let mut start = from;
        while let Some((first, last)) = starts.next(start) {
            start = first;
            while start <= last {
                let Some(&byte) = text.get(start) else {
                    // At the end of the text, once.
                    return self.starts_at_end && self.try_at(text, from.max(text.len()), search);
                };
                if self.can_start(text, start, byte) && self.try_at(text, start, search) {
                    return true;
                }
                start += 1;
            }
        }
        false
    }

    /// Whether a match may begin with this byte: between characters only, and where that is asked for not inside a word.
    fn can_start(&self, text: &[u8], start: usize, byte: u8) -> bool {
        let first = self.starts.get(usize::from(byte)).copied().unwrap_or(true);
        let before = |at: usize| text.get(at).is_some_and(u8::is_ascii_alphanumeric);
        let inside = self.at_edge
            && byte.is_ascii_alphanumeric()
            && start.checked_sub(1).is_some_and(before);
        first && !inside && byte & 0xc0 != 0x80
    }

    fn try_at(&self, text: &[u8], start: usize, search: &mut Search) -> bool {
        search.slots.clear();
        search.slots.resize(self.slots, NOWHERE);
        search.stack.clear();
        let Some(end) = self.run(text, 0, start, search, false) else {
            return false;
        };
        search.set(0, start);
        search.set(1, end);
        true
    }

    /// Runs from `pc` to a `Match`, and says where that ends. With `nested`, an outer run may still go back.
    fn run(
        &self,
        text: &[u8],
        mut pc: usize,
        mut pos: usize,
        search: &mut Search,
        nested: bool,
    ) -> Option<usize> {
        let base = search.stack.len();
        loop {
            search.steps = search.steps.saturating_sub(1);
            let forth = match self.ops.get(pc)? {
                Op::Match => {
                    search.far = search.far.max(pos + 1);
                    return Some(pos);
                }
                Op::Byte(byte) => {
                    let fits = text.get(pos) == Some(byte);
                    pos += usize::from(fits);
                    pc += 1;
                    fits
                }
                Op::Set(set) => match step(set, text, pos) {
                    Some(next) => {
                        pos = next;
                        pc += 1;
                        true
                    }
                    None => false,
                },
                Op::Repeat {
                    set,
                    min,
                    max,
                    greedy,
                } => {
                    let most = if *greedy { *max } else { *min };
                    let (mut taken, mut at, mut least) = (0, pos, pos);
                    while taken < most {
                        if taken == *min {
                            least = at;
                        }
                        match step(set, text, at) {
                            Some(next) => at = next,
                            None => break,
                        }
                        taken += 1;
                    }
                    if taken == *min {
                        least = at;
                    }
                    // What was taken or refused has been looked at, also if less is kept.
                    search.far = search.far.max(at + 1);
                    if taken < *min {
                        false
                    } else {
                        if *greedy && at > least {
                            search.stack.push(Frame::Shorter {
                                pc: pc + 1,
                                least,
                                pos: at,
                            });
                        } else if !*greedy && max > min {
                            search.stack.push(Frame::Longer {
                                op: pc,
                                pos: at,
                                left: max - min,
                            });
                        }
                        pos = at;
                        pc += 1;
                        true
                    }
                }
                Op::Branch { targets, table } => {
                    let next = text.get(pos).map_or(256, |&byte| usize::from(byte));
                    let mut mask = table.get(next).copied().unwrap_or(u16::MAX);
                    search.far = search.far.max(pos + 1);
                    if mask == 0 {
                        false
                    } else {
                        // The first that can be is taken; the others wait, the second on top.
                        let first = usize::try_from(mask.trailing_zeros()).unwrap_or(0);
                        mask &= mask - 1;
                        while mask != 0 {
                            let last = usize::try_from(mask.ilog2()).unwrap_or(0);
                            mask &= !(1 << last);
                            if let Some(&pc) = targets.get(last) {
                                search.stack.push(Frame::Try { pc, pos });
                            }
                        }
                        pc = targets.get(first).copied()?;
                        true
                    }
                }
                Op::Jump(to) => {
                    pc = *to;
                    true
                }
                Op::Save(slot) => {
                    if nested || !search.stack.is_empty() {
                        let old = search.slot(*slot);
                        search.stack.push(Frame::Undo { slot: *slot, old });
                    }
                    search.set(*slot, pos);
                    pc += 1;
                    true
                }
                Op::Round { slot, exit } => {
                    pc = if search.slot(*slot) == pos {
                        *exit
                    } else {
                        pc + 1
                    };
                    true
                }
                Op::Look {
                    ahead,
                    negated,
                    back,
                    next,
                } => {
                    let from = if *ahead {
                        Some(pos)
                    } else {
                        backwards(text, pos, *back)
                    };
                    let mark = search.stack.len();
                    let found = match from {
                        Some(from) => self.run(text, pc + 1, from, search, true),
                        None => None,
                    };
                    match found {
                        Some(_) if *negated => undo(search, mark),
                        Some(_) => keep(search, mark),
                        None => {}
                    }
                    pc = *next;
                    found.is_some() != *negated
                }
                Op::Atomic { next } => {
                    let mark = search.stack.len();
                    match self.run(text, pc + 1, pos, search, true) {
                        Some(end) => {
                            keep(search, mark);
                            pos = end;
                            pc = *next;
                            true
                        }
                        None => false,
                    }
                }
                Op::Back { group, fold } => match search.group(*group) {
                    Some(range) => {
                        let len = range.len();
                        let said = text.get(range).unwrap_or_default();
                        let same = text.get(pos..pos + len).is_some_and(|here| {
                            if *fold {
                                here.eq_ignore_ascii_case(said)
                            } else {
                                here == said
                            }
                        });
                        search.far = search.far.max(pos + len);
                        if same {
                            pos += len;
                        }
                        pc += 1;
                        same
                    }
                    None => false,
                },
                Op::If { group, no } => {
                    pc = if search.group(*group).is_some() {
                        pc + 1
                    } else {
                        *no
                    };
                    true
                }
                Op::At(at) => {
                    let fits = holds(*at, text, pos);
                    pc += 1;
                    fits
                }
                Op::EdgeStart => {
                    pc += 1;
                    self.may_begin(text, pos)
                }
                Op::EdgeEnd => {
                    pc += 1;
                    !self.inside_word(text, pos)
                }
            };
            if search.stack.len() > STACK_MAX {
                search.steps = 0;
            }
            if forth && search.steps > 0 {
                continue;
            }
            search.far = search.far.max(pos + 1);
            loop {
                if search.stack.len() <= base || search.steps == 0 {
                    undo(search, base);
                    return None;
                }
                match search.stack.pop()? {
                    Frame::Try { pc: to, pos: at } => {
                        (pc, pos) = (to, at);
                        break;
                    }
                    Frame::Undo { slot, old } => search.set(slot, old),
                    Frame::Shorter {
                        pc: to,
                        least,
                        pos: at,
                    } => {
                        let at = backwards(text, at, 1)?;
                        if at > least {
                            search.stack.push(Frame::Shorter {
                                pc: to,
                                least,
                                pos: at,
                            });
                        }
                        (pc, pos) = (to, at);
                        break;
                    }
                    Frame::Longer { op, pos: at, left } => {
                        let Some(Op::Repeat { set, .. }) = self.ops.get(op) else {
                            return None;
                        };
                        search.far = search.far.max(at + 1);
                        let Some(at) = step(set, text, at) else {
                            continue;
                        };
                        if left > 1 {
                            search.stack.push(Frame::Longer {
                                op,
                                pos: at,
                                left: left - 1,
                            });
                        }
                        (pc, pos) = (op + 1, at);
                        break;
                    }
                }
            }
        }
    }

    fn inside_word(&self, text: &[u8], pos: usize) -> bool {
        let ascii = self.ascii_words;
        word_at(text, pos, ascii) && word_before(text, pos, ascii)
    }

    /// Nothing begins at the end, but behind a word or in an empty line.
    fn may_begin(&self, text: &[u8], pos: usize) -> bool {
        let behind_word = || word_before(text, pos, self.ascii_words);
        !self.inside_word(text, pos) && (pos < text.len() || pos == 0 || behind_word())
    }
}

fn word_at(text: &[u8], pos: usize, ascii: bool) -> bool {
    match text.get(pos) {
        Some(byte) if byte.is_ascii() => byte.is_ascii_alphanumeric() || *byte == b'_',
        Some(_) => !ascii && char_at(text, pos).is_some_and(word),
        None => false,
    }
}

fn word_before(text: &[u8], pos: usize, ascii: bool) -> bool {
    backwards(text, pos, 1).is_some_and(|pos| word_at(text, pos, ascii))
}

fn holds(at: At, text: &[u8], pos: usize) -> bool {
    let at_end = pos == text.len();
    match at {
        At::Start => pos == 0,
        At::LineStart => pos == 0 || text.get(pos - 1) == Some(&b'\n'),
        At::LastLineEnd => at_end || text.get(pos..) == Some(b"\n"),
        At::LineEnd => at_end || text.get(pos) == Some(&b'\n'),
        At::End => at_end,
        // Python sees no edge in an empty text, and no place that is none either.
        At::Bound { not, ascii } => {
            let (before, behind) = (word_before(text, pos, ascii), word_at(text, pos, ascii));
            !text.is_empty() && (before != behind) != not
        }
    }
}

impl Firsts {
    fn add(&mut self, can: impl Fn(u8) -> bool) {
        for (byte, place) in (0u8..=255).zip(self.bytes.iter_mut()) {
            *place |= can(byte);
        }
    }

    fn add_set(&mut self, set: &Set) {
        self.add(|byte| set.has_byte(byte) || byte >= 128 && set.any_wide());
    }
}

/// Takes one character.
fn step(set: &Set, text: &[u8], pos: usize) -> Option<usize> {
    let byte = *text.get(pos)?;
    if byte < 128 {
        return set.has_byte(byte).then_some(pos + 1);
    }
    let c = char_at(text, pos)?;
    (set.any_wide() && set.has(c)).then_some(pos + c.len_utf8())
}

fn char_at(text: &[u8], pos: usize) -> Option<char> {
    let len = match text.get(pos)? {
        0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    let bytes = text.get(pos..text.len().min(pos + len))?;
    std::str::from_utf8(bytes).ok()?.chars().next()
}

fn backwards(text: &[u8], mut pos: usize, chars: usize) -> Option<usize> {
    for _ in 0..chars {
        pos = pos.checked_sub(1)?;
        while text.get(pos)? & 0xc0 == 0x80 {
            pos = pos.checked_sub(1)?;
        }
    }
    Some(pos)
}

/// Takes back all that was set since `mark`.
fn undo(search: &mut Search, mark: usize) {
    while search.stack.len() > mark {
        if let Some(Frame::Undo { slot, old }) = search.stack.pop() {
            search.set(slot, old);
        }
    }
}

/// Drops the choices made since `mark`, but not how to take back what was set.
fn keep(search: &mut Search, mark: usize) {
    let mut kept = mark;
    for at in mark..search.stack.len() {
        if matches!(search.stack.get(at), Some(Frame::Undo { .. })) {
            search.stack.swap(kept, at);
            kept += 1;
        }
    }
    search.stack.truncate(kept);
}
