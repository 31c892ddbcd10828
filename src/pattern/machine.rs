//! The judge: a backtracking matcher with Python's order of preference, that remembers from where it has failed.
//!
//! What can still match depends on the step, the place in the text, and, where the pattern has back-references or
//! conditions, on what the groups they ask about hold. A state that failed once fails again, so it is left at once: the
//! time is bounded by steps times length and not, as in Python, exponential. Groups stay exact, because the first way
//! through a state is also the preferred one.
//!
//! Remembering costs more than it saves on all but hostile lines: a search begins without (`MEMORY`), and begins anew
//! with it when it takes long. What it finds is the same.

use std::collections::{HashMap, HashSet};

use super::ast::{At, Greed, word};
use super::program::{Bytes, Chars, NO_MEMO, Program, Step};

/// Steps of one search; some 30 ms. Reached by patterns with back-references on lines made for it.
pub(super) const WORK_MAX: u64 = 6_000_000;
/// Ways still open at one time, 24 bytes each.
const STACK_MAX: usize = 1 << 20;
/// Bits of memory of failed states; above it, a set of bounded size.
const BITS_MAX: usize = 1 << 26;
/// Failed states in that set.
const SEEN_MAX: usize = 1 << 19;
/// Scratch above this, bytes, is given back after the search.
const KEEP_BYTES: usize = 256 * 1024;

const UNSET: usize = usize::MAX;

/// The search was given up.
#[derive(Debug)]
pub(super) struct TooHard;

/// What a search needs beside the text; kept from line to line.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Start and end of each group; group 0 is the whole match.
    pub(super) slots: Vec<usize>,
    registers: Vec<usize>,
    stack: Vec<Frame>,
    bits: Vec<u64>,
    seen: HashSet<Mark, foldhash::fast::FixedState>,
    /// Contents of the groups that are asked about, numbered as they come.
    contents: HashMap<Box<[u8]>, u32, foldhash::fast::FixedState>,
    /// Marks made inside lookarounds that are still open.
    trail: Vec<Mark>,
}

/// Memo, place, number of the contents, loops whose present turn has matched nothing yet.
type Mark = (u32, usize, u32, u32);

#[derive(Debug, Clone, Copy)]
enum Frame {
    Branch {
        pc: u32,
        pos: usize,
    },
    /// A run that can end anywhere from `low` to `high`, later first.
    Most {
        next: u32,
        then: u32,
        low: usize,
        high: usize,
    },
    /// A run that can go on from `pos`.
    Least {
        pc: u32,
        count: u32,
        pos: usize,
    },
    Slot {
        slot: u32,
        old: usize,
    },
    Register {
        register: u32,
        old: usize,
    },
}

/// How far a search got, for lines that do not match.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Far {
    pub(super) pos: usize,
    pub(super) pc: u32,
}

/// `MEMORY`: failed states are remembered. `REACH`: how far it got is noted.
pub(super) struct Search<'a, const MEMORY: bool, const REACH: bool> {
    program: &'a Program,
    text: &'a str,
    bytes: &'a [u8],
    scratch: &'a mut Scratch,
    left: u64,
    hashed: bool,
    /// Number of the present contents, when known.
    content: Option<u32>,
    nested: u32,
    far: Far,
}

impl<'a, const MEMORY: bool, const REACH: bool> Search<'a, MEMORY, REACH> {
    pub(super) fn new(program: &'a Program, text: &'a str, scratch: &'a mut Scratch) -> Self {
        let count = |n: u32| n as usize;
        scratch.stack.clear();
        let mut hashed = false;
        if MEMORY {
            let cells = (text.len() + 1)
                .saturating_mul(count(program.memos))
                .saturating_mul(1 << program.registers.min(8));
            hashed = !program.referenced.is_empty() || cells > BITS_MAX || program.registers > 8;
            scratch.bits.clear();
            scratch.seen.clear();
            scratch.contents.clear();
            scratch.trail.clear();
            if !hashed {
                scratch.bits.resize(cells.div_ceil(64), 0);
            }
        }
        scratch.slots.clear();
        scratch.slots.resize(count(program.groups) * 2 + 2, UNSET);
        scratch.registers.clear();
        scratch.registers.resize(count(program.registers), UNSET);
        Self {
            program,
            text,
            bytes: text.as_bytes(),
            scratch,
            left: WORK_MAX,
            hashed,
            content: None,
            nested: 0,
            far: Far::default(),
        }
    }

    /// Whether the pattern matches; the slots tell where. `work`: the steps it may take.
    pub(super) fn find(mut self, work: u64) -> Result<bool, TooHard> {
        self.left = work;
        let found = self.all_starts();
        self.scratch.shrink();
        found
    }

    /// How far the best attempt got. Given up or not: as far as it was looked at.
    pub(super) fn reach(mut self) -> Far {
        self.left = WORK_MAX / 8;
        let _found_or_given_up = self.all_starts();
        self.scratch.shrink();
        self.far
    }

    fn all_starts(&mut self) -> Result<bool, TooHard> {
        if self.program.anchored {
            return self.start(0);
        }
        let first = &self.program.first;
        for start in 0..=self.bytes.len() {
            let can = match self.bytes.get(start) {
                _ if first.empty => self.text.is_char_boundary(start),
                Some(byte) => in_table(&first.bytes, *byte),
                None => false,
            };
            if can && self.start(start)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn start(&mut self, start: usize) -> Result<bool, TooHard> {
        let Some(end) = self.run(0, start)? else {
            return Ok(false);
        };
        if let [from, to, ..] = self.scratch.slots.as_mut_slice() {
            (*from, *to) = (start, end);
        }
        Ok(true)
    }

    /// From a step to the `Accept` that ends it. Without a match everything is as it was; with one, the ways that were
    /// still open are left on the stack.
    fn run(&mut self, mut pc: u32, mut pos: usize) -> Result<Option<usize>, TooHard> {
        let program = self.program;
        let base = self.scratch.stack.len();
        loop {
            self.work(1)?;
            let Some(step) = program.steps.get(pc as usize) else {
                return Ok(None);
            };
            let goes_on = match *step {
                Step::Literal { from, to } => {
                    let literal = program.literal((from, to));
                    let rest = self.bytes.get(pos..).unwrap_or_default();
                    if begins(rest, literal) {
                        pos += literal.len();
                        true
                    } else {
                        if REACH {
                            let same = rest.iter().zip(literal).take_while(|(a, b)| a == b).count();
                            self.fell(pc, pos + same);
                        }
                        false
                    }
                }
                Step::Set(set) => match self.one(set, pos) {
                    Some(next) => {
                        pos = next;
                        true
                    }
                    None => {
                        self.fell(pc, pos);
                        false
                    }
                },
                Step::Run {
                    set,
                    min,
                    max,
                    greed,
                    memo,
                    then,
                } => match self.enter(pc, pos, set, min, max, greed, memo, then)? {
                    Some(next) => {
                        pos = next;
                        true
                    }
                    None => false,
                },
                Step::At(at) => {
                    let holds = self.holds(at, pos);
                    if !holds {
                        self.fell(pc, pos);
                    }
                    holds
                }
                Step::Split {
                    first,
                    second,
                    needs,
                    memo,
                } => {
                    let [needs_first, needs_second] = needs;
                    if !self.chance(first.1, pos) || !self.has(needs_first, pos)? {
                        pc = second.0;
                        continue;
                    }
                    if !self.chance(second.1, pos) || !self.has(needs_second, pos)? {
                        pc = first.0;
                        continue;
                    }
                    if self.mark(memo, pos)? {
                        self.push(Frame::Branch { pc: second.0, pos })?;
                        pc = first.0;
                        continue;
                    }
                    false
                }
                Step::Jump(to) => {
                    pc = to;
                    continue;
                }
                Step::Save(slot) => {
                    let old = self.set_slot(slot, pos);
                    self.push(Frame::Slot { slot, old })?;
                    true
                }
                Step::Unset(slot) => {
                    let old = self.set_slot(slot, UNSET);
                    self.push(Frame::Slot { slot, old })?;
                    true
                }
                Step::Turn(register) => {
                    let old = self.set_register(register, pos);
                    self.push(Frame::Register { register, old })?;
                    true
                }
                Step::Turned { register, out } => {
                    if self.scratch.registers.get(register as usize) == Some(&pos) {
                        pc = out;
                        continue;
                    }
                    true
                }
                Step::Back { group, fold } => match self.again(group, fold, pos)? {
                    Some(next) => {
                        pos = next;
                        true
                    }
                    None => {
                        self.fell(pc, pos);
                        false
                    }
                },
                Step::If { group, no } => {
                    if self.group(group).is_none() {
                        pc = no;
                        continue;
                    }
                    true
                }
                Step::Look { not, behind, next } => {
                    if self.look(pc + 1, pos, not, behind)? {
                        pc = next;
                        continue;
                    }
                    self.fell(pc, pos);
                    false
                }
                Step::Atomic { next } => match self.inner(pc + 1, pos, true)? {
                    Some(end) => {
                        pos = end;
                        pc = next;
                        continue;
                    }
                    None => false,
                },
                Step::Accept => return Ok(Some(pos)),
            };
            if goes_on {
                pc += 1;
                continue;
            }
            match self.back(base)? {
                Some(open) => (pc, pos) = open,
                None => return Ok(None),
            }
        }
    }

    fn work(&mut self, amount: u64) -> Result<(), TooHard> {
        self.left = self.left.checked_sub(amount).ok_or(TooHard)?;
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Result<(), TooHard> {
        if self.scratch.stack.len() >= STACK_MAX {
            return Err(TooHard);
        }
        self.scratch.stack.push(frame);
        Ok(())
    }

    /// The next open way, and everything undone that was done since it was left.
    fn back(&mut self, base: usize) -> Result<Option<(u32, usize)>, TooHard> {
        while self.scratch.stack.len() > base {
            let Some(frame) = self.scratch.stack.pop() else {
                break;
            };
            match frame {
                Frame::Branch { pc, pos } => return Ok(Some((pc, pos))),
                Frame::Most {
                    next,
                    then,
                    low,
                    high,
                } => {
                    if let Some(open) = self.shorter(next, then, low, high)? {
                        return Ok(Some((next, open)));
                    }
                }
                Frame::Least { pc, count, pos } => {
                    if let Some(open) = self.longer(pc, count, pos)? {
                        return Ok(Some((pc + 1, open)));
                    }
                }
                Frame::Slot { slot, old } => {
                    self.set_slot(slot, old);
                }
                Frame::Register { register, old } => {
                    self.set_register(register, old);
                }
            }
        }
        Ok(None)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the fields of one step, taken apart by the only caller"
    )]
    fn enter(
        &mut self,
        pc: u32,
        mut pos: usize,
        set: u32,
        min: u32,
        max: u32,
        greed: Greed,
        memo: u32,
        then: u32,
    ) -> Result<Option<usize>, TooHard> {
        let program = self.program;
        let Some(members) = program.sets.get(set as usize) else {
            return Ok(None);
        };
        for _ in 0..min {
            match self.member(members, pos) {
                Some(next) => pos = next,
                None => {
                    self.fell(pc, pos);
                    return Ok(None);
                }
            }
        }
        self.work(u64::from(min) / 4)?;
        let low = pos;
        // With a bound, what is left depends on how much was taken; so only the entry is remembered.
        let endless = max == u32::MAX;
        if !self.mark(memo, pos)? {
            return Ok(None);
        }
        if greed == Greed::Least {
            self.push(Frame::Least {
                pc,
                count: min,
                pos,
            })?;
            return Ok(Some(pos));
        }
        let mut count = min;
        if !MEMORY && endless {
            // Nothing to note on the way, and nothing to count.
            pos = self.run_of(members, pos);
            count += u32::try_from(pos - low).unwrap_or(u32::MAX);
        }
        while (MEMORY || !endless) && count < max {
            let Some(next) = self.member(members, pos) else {
                break;
            };
            // From there on it was tried before, and failed.
            if endless && !self.mark(memo, next)? {
                if greed == Greed::Own {
                    return Ok(None);
                }
                break;
            }
            pos = next;
            count += 1;
        }
        self.work(u64::from(count) / 4)?;
        if greed == Greed::Own {
            return Ok(Some(pos));
        }
        self.shorter(pc + 1, then, low, pos)
    }

    /// The latest end of a run from which the next step has a chance; the ones before it stay open.
    fn shorter(
        &mut self,
        next: u32,
        then: u32,
        low: usize,
        mut high: usize,
    ) -> Result<Option<usize>, TooHard> {
        let from = high;
        if let Some(first) = self.program.firsts.get(then as usize)
            && !first.empty
            && !REACH
        {
            let can = |byte: &u8| in_table(&first.bytes, *byte);
            let bytes = self.bytes.get(low..self.bytes.len().min(high + 1));
            let Some(at) = bytes.and_then(|bytes| bytes.iter().rposition(can)) else {
                self.work((high - low) as u64 / 4)?;
                return Ok(None);
            };
            high = low + at;
            self.work((from - high) as u64 / 4)?;
        }
        if high > low {
            let frame = Frame::Most {
                next,
                then,
                low,
                high: self.before(high),
            };
            self.push(frame)?;
        }
        Ok(Some(high))
    }

    /// One character more of a run that takes as few as it can.
    fn longer(
        &mut self,
        pc: u32,
        mut count: u32,
        mut pos: usize,
    ) -> Result<Option<usize>, TooHard> {
        let program = self.program;
        let Some(Step::Run {
            set,
            max,
            memo,
            then,
            ..
        }) = program.steps.get(pc as usize)
        else {
            return Ok(None);
        };
        let Some(members) = program.sets.get(*set as usize) else {
            return Ok(None);
        };
        let low = pos;
        loop {
            let next = self.member(members, pos).filter(|_| count < *max);
            let Some(next) = next else {
                self.fell(pc + 1, low);
                return Ok(None);
            };
            if *max == u32::MAX {
                if !self.mark(*memo, next)? {
                    return Ok(None);
                }
            } else {
                count += 1;
            }
            self.work(1)?;
            pos = next;
            if self.chance(*then, pos) {
                self.push(Frame::Least { pc, count, pos })?;
                return Ok(Some(pos));
            }
        }
    }

    /// Whether a way that begins so can match here at all, as far as one character tells. Where how far it gets is asked
    /// for, all are tried.
    #[inline]
    fn chance(&self, first: u32, pos: usize) -> bool {
        let Some(first) = self.program.firsts.get(first as usize) else {
            return true;
        };
        REACH
            || match self.bytes.get(pos) {
                Some(byte) => in_table(&first.bytes, *byte),
                None => first.empty,
            }
    }

    /// Whether what a way cannot end without is still to come.
    #[inline]
    fn has(&mut self, needle: u16, pos: usize) -> Result<bool, TooHard> {
        match needle.checked_sub(1) {
            Some(at) if !REACH => self.finds(at, pos),
            _ => Ok(true),
        }
    }

    fn finds(&mut self, at: u16, pos: usize) -> Result<bool, TooHard> {
        let rest = self.bytes.get(pos..).unwrap_or_default();
        self.work(rest.len() as u64 / 64)?;
        let needle = self.program.needles.get(usize::from(at));
        Ok(needle.is_none_or(|needle| needle.find(rest).is_some()))
    }

    /// Behind all characters of a set from a place on.
    fn run_of(&self, chars: &Chars, mut pos: usize) -> usize {
        let rest = self.bytes.get(pos..).unwrap_or_default();
        if let Some(lacks) = chars.lacks {
            return memchr::memchr(lacks, rest).map_or(self.bytes.len(), |at| pos + at);
        }
        loop {
            let rest = self.bytes.get(pos..).unwrap_or_default().iter();
            pos += rest
                .take_while(|byte| in_table(&chars.bytes, **byte))
                .count();
            // A character above 127, or the end of the run.
            match self.bytes.get(pos) {
                Some(byte) if !byte.is_ascii() => match self.member(chars, pos) {
                    Some(next) => pos = next,
                    None => return pos,
                },
                _ => return pos,
            }
        }
    }

    fn before(&self, pos: usize) -> usize {
        let mut pos = pos.saturating_sub(1);
        while !self.text.is_char_boundary(pos) {
            pos -= 1;
        }
        pos
    }

    /// Behind the character at a place, when it is one of a set.
    fn one(&self, set: u32, pos: usize) -> Option<usize> {
        self.member(self.program.sets.get(set as usize)?, pos)
    }

    #[inline]
    fn member(&self, chars: &Chars, pos: usize) -> Option<usize> {
        let byte = *self.bytes.get(pos)?;
        if in_table(&chars.bytes, byte) {
            return Some(pos + 1);
        }
        if byte.is_ascii() {
            return None;
        }
        self.wide_member(chars, pos)
    }

    #[cold]
    fn wide_member(&self, chars: &Chars, pos: usize) -> Option<usize> {
        let c = self.text.get(pos..)?.chars().next()?;
        chars.set.has(c).then_some(pos + c.len_utf8())
    }

    fn holds(&self, at: At, pos: usize) -> bool {
        let end = self.bytes.len();
        let newline = |pos: usize| self.bytes.get(pos) == Some(&b'\n');
        match at {
            At::Start => pos == 0,
            At::LineStart => pos.checked_sub(1).is_none_or(newline),
            At::End => pos == end,
            At::LineEnd => pos == end || newline(pos),
            At::LastLineEnd => pos == end || pos + 1 == end && newline(pos),
            At::Bound { not, ascii } => {
                let word = |c: Option<char>| c.is_some_and(|c| word(c) && (!ascii || c.is_ascii()));
                let before = word(
                    self.text
                        .get(..pos)
                        .and_then(|head| head.chars().next_back()),
                );
                let after = word(self.text.get(pos..).and_then(|rest| rest.chars().next()));
                // In an empty text Python finds neither.
                end != 0 && (before != after) != not
            }
        }
    }

    fn group(&self, group: u32) -> Option<&'a str> {
        let at = group as usize * 2;
        let (from, to) = (self.scratch.slots.get(at)?, self.scratch.slots.get(at + 1)?);
        self.text.get(*from..*to)
    }

    /// Behind the text of a group, when it stands here once more.
    fn again(&mut self, group: u32, fold: bool, pos: usize) -> Result<Option<usize>, TooHard> {
        let (Some(wanted), Some(rest)) = (self.group(group), self.text.get(pos..)) else {
            return Ok(None);
        };
        self.work(wanted.len() as u64 / 8)?;
        if !fold {
            return Ok(rest.starts_with(wanted).then_some(pos + wanted.len()));
        }
        let mut chars = rest.chars();
        for c in wanted.chars() {
            match chars.next() {
                Some(d) if c == d || c.to_lowercase().eq(d.to_lowercase()) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(self.bytes.len() - chars.as_str().len()))
    }

    fn look(&mut self, pc: u32, pos: usize, not: bool, behind: u32) -> Result<bool, TooHard> {
        let start = if behind == u32::MAX {
            Some(pos)
        } else {
            let mut head = self.text.get(..pos).unwrap_or_default().chars();
            (0..behind)
                .try_for_each(|_| head.next_back().map(|_| ()))
                .map(|()| head.as_str().len())
        };
        let Some(start) = start else {
            return Ok(not);
        };
        let far = self.far;
        let found = self.inner(pc, start, !not)?.is_some();
        if not {
            self.far = far;
        }
        Ok(found != not)
    }

    /// A match of its own inside: its open ways are closed. `keep`: its groups stay.
    fn inner(&mut self, pc: u32, pos: usize, keep: bool) -> Result<Option<usize>, TooHard> {
        let base = self.scratch.stack.len();
        let trail = self.scratch.trail.len();
        self.nested += 1;
        let found = self.run(pc, pos)?;
        self.nested -= 1;
        if found.is_some() {
            // What was marked on the way has not failed.
            while self.scratch.trail.len() > trail {
                if let Some(mark) = self.scratch.trail.pop() {
                    self.unmark(mark);
                }
            }
            if keep {
                let open = self.scratch.stack.split_off(base);
                let undo =
                    |frame: &Frame| matches!(frame, Frame::Slot { .. } | Frame::Register { .. });
                self.scratch.stack.extend(open.into_iter().filter(undo));
            } else {
                self.undo(base);
            }
        } else {
            self.scratch.trail.truncate(trail);
        }
        Ok(found)
    }

    fn undo(&mut self, base: usize) {
        while self.scratch.stack.len() > base {
            match self.scratch.stack.pop() {
                Some(Frame::Slot { slot, old }) => {
                    self.set_slot(slot, old);
                }
                Some(Frame::Register { register, old }) => {
                    self.set_register(register, old);
                }
                _ => {}
            }
        }
    }

    fn set_slot(&mut self, slot: u32, pos: usize) -> usize {
        let asked = |&(group, _): &(u32, bool)| group == slot / 2;
        if MEMORY && self.program.referenced.iter().any(asked) {
            self.content = None;
        }
        match self.scratch.slots.get_mut(slot as usize) {
            Some(value) => std::mem::replace(value, pos),
            None => UNSET,
        }
    }

    fn set_register(&mut self, register: u32, pos: usize) -> usize {
        match self.scratch.registers.get_mut(register as usize) {
            Some(value) => std::mem::replace(value, pos),
            None => UNSET,
        }
    }

    /// Notes that a state is being tried. `false`: it was before.
    #[inline]
    fn mark(&mut self, memo: u32, pos: usize) -> Result<bool, TooHard> {
        if !MEMORY || memo == NO_MEMO {
            return Ok(true);
        }
        self.remember(memo, pos)
    }

    fn remember(&mut self, memo: u32, pos: usize) -> Result<bool, TooHard> {
        let mut mark = (memo, pos, 0, self.idle_turns(pos));
        let fresh = if self.hashed {
            mark.2 = self.contents()?;
            if self.scratch.seen.len() >= SEEN_MAX {
                return Err(TooHard);
            }
            self.scratch.seen.insert(mark)
        } else {
            let (word, bit) = self.cell(mark);
            match self.scratch.bits.get_mut(word) {
                Some(bits) => {
                    let fresh = *bits & bit == 0;
                    *bits |= bit;
                    fresh
                }
                None => return Err(TooHard),
            }
        };
        if fresh && self.nested > 0 {
            self.scratch.trail.push(mark);
        }
        Ok(fresh)
    }

    /// A turn that stays empty is a loop's last, so what can follow depends on it. One bit a loop; beyond 32 such loops,
    /// which nobody writes, groups of empty turns may be judged otherwise than in Python.
    fn idle_turns(&self, pos: usize) -> u32 {
        let registers = self.scratch.registers.iter().take(32).enumerate();
        registers.fold(0, |idle, (i, start)| idle | u32::from(*start == pos) << i)
    }

    fn unmark(&mut self, mark: Mark) {
        if self.hashed {
            self.scratch.seen.remove(&mark);
        } else {
            let (word, bit) = self.cell(mark);
            if let Some(bits) = self.scratch.bits.get_mut(word) {
                *bits &= !bit;
            }
        }
    }

    fn cell(&self, (memo, pos, _, idle): Mark) -> (usize, u64) {
        let cell = pos * self.program.memos as usize + memo as usize;
        let cell = cell << self.program.registers | idle as usize;
        (cell / 64, 1 << (cell % 64))
    }

    /// The number of what the groups that are asked about hold now.
    fn contents(&mut self) -> Result<u32, TooHard> {
        if self.program.referenced.is_empty() {
            return Ok(0);
        }
        if let Some(known) = self.content {
            return Ok(known);
        }
        let mut key: Vec<u8> = Vec::new();
        for &(group, for_text) in &self.program.referenced {
            let start = self.scratch.slots.get(group as usize * 2);
            match self.group(group) {
                None if for_text && start != Some(&UNSET) => {
                    // Open: what it will hold depends on where it began.
                    key.push(3);
                    key.extend((start.copied().unwrap_or(UNSET) as u64).to_le_bytes());
                }
                None => key.push(0),
                Some(text) if for_text => {
                    key.push(2);
                    key.extend((text.len() as u64).to_le_bytes());
                    key.extend(text.as_bytes());
                }
                Some(_) => key.push(1),
            }
        }
        self.work(key.len() as u64 / 4)?;
        let next = u32::try_from(self.scratch.contents.len()).map_err(|_| TooHard)?;
        if key.len().saturating_mul(self.scratch.contents.len()) > BITS_MAX / 8 {
            return Err(TooHard);
        }
        let number = *self.scratch.contents.entry(key.into()).or_insert(next);
        self.content = Some(number);
        Ok(number)
    }

    #[inline]
    fn fell(&mut self, pc: u32, pos: usize) {
        if REACH && (pos, pc) > (self.far.pos, self.far.pc) {
            self.far = Far { pos, pc };
        }
    }
}

/// Literals are short: a call of memcmp takes longer than to look.
#[inline]
fn begins(rest: &[u8], literal: &[u8]) -> bool {
    const SHORT_BYTES: usize = 16;
    match rest.get(..literal.len()) {
        Some(head) if literal.len() <= SHORT_BYTES => {
            head.iter().zip(literal).all(|(is, wanted)| is == wanted)
        }
        Some(head) => head == literal,
        None => false,
    }
}

#[inline]
fn in_table(bytes: &Bytes, byte: u8) -> bool {
    bytes.get(usize::from(byte)) == Some(&true)
}

impl Scratch {
    /// A line made to be hard must not keep its memory.
    fn shrink(&mut self) {
        if self.bits.capacity() * 8 > KEEP_BYTES {
            self.bits = Vec::new();
        }
        if self.stack.capacity() * size_of::<Frame>() > KEEP_BYTES {
            self.stack = Vec::new();
        }
        if self.seen.capacity() * size_of::<Mark>() > KEEP_BYTES {
            self.seen = HashSet::default();
        }
        if self.contents.capacity() * 32 > KEEP_BYTES {
            self.contents = HashMap::default();
        }
        if self.trail.capacity() * size_of::<Mark>() > KEEP_BYTES {
            self.trail = Vec::new();
        }
    }
}
