//! The tree as a list of steps for the machine. Repetitions of groups are written out, so that a place in the program and a
//! place in the text are all that a step depends on: that is what lets the machine remember where it has failed.

use std::ops::Range;

use memchr::memmem::Finder;

use super::ast::{At, Greed, Kind, Node, Set, holds};
use super::needs;
use super::parse::Parsed;

/// Most steps of a program. fail2ban's own filters need up to 700.
pub(super) const STEPS_MAX: u32 = 30_000;

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// These bytes of `literals`.
    Literal {
        from: u32,
        to: u32,
    },
    /// One character of this set.
    Set(u32),
    /// Characters of one set, many times.
    Run {
        set: u32,
        min: u32,
        /// `u32::MAX`: no bound.
        max: u32,
        greed: Greed,
        memo: u32,
        /// What the step behind it can begin with, of `firsts`.
        then: u32,
    },
    At(At),
    /// The first, and if that leads nowhere the second. `memo` is `NO_MEMO` where only one way leads here. Behind each, what
    /// it can begin with, of `firsts`: most ways are told apart by one character. `needs`: what each cannot end
    /// without because of a condition, of `needles`; 0: nothing is known.
    Split {
        first: (u32, u32),
        second: (u32, u32),
        needs: [u16; 2],
        memo: u32,
    },
    Jump(u32),
    /// The place in the text, into a slot.
    Save(u32),
    /// No place, into a slot: a group that is asked about opens.
    Unset(u32),
    /// The same, where a turn of a loop begins.
    Turn(u32),
    /// A turn that matched nothing is the loop's last.
    Turned {
        register: u32,
        out: u32,
    },
    Back {
        group: u32,
        fold: bool,
    },
    If {
        group: u32,
        no: u32,
    },
    /// The body follows, up to its `Accept`; then `next`. `behind`: characters to go back, `u32::MAX` is a look ahead.
    Look {
        not: bool,
        behind: u32,
        next: u32,
    },
    Atomic {
        next: u32,
    },
    Accept,
}

pub(super) const NO_MEMO: u32 = u32::MAX;
/// Steps looked at to tell what a way can begin with; with more it can be anything.
const AHEAD_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    /// Of each step, the part of the text it was made from.
    pub(super) spans: Vec<Range<u32>>,
    pub(super) literals: Vec<u8>,
    pub(super) sets: Vec<Chars>,
    /// How many steps remember where they have been.
    pub(super) memos: u32,
    pub(super) registers: u32,
    /// Groups that capture.
    pub(super) groups: u32,
    /// Groups that steps ask about; what is remembered holds for one content of these only.
    pub(super) referenced: Vec<(u32, bool)>,
    /// Matches at the start of the text only.
    pub(super) anchored: bool,
    pub(super) first: Beginning,
    /// Each once.
    pub(super) firsts: Vec<Beginning>,
    /// Literals that some way cannot end without, see [`needs`].
    pub(super) needles: Vec<Finder<'static>>,
}

/// A set, and what one look at a byte tells.
#[derive(Debug)]
pub(super) struct Chars {
    pub(super) set: Set,
    /// The bytes that are a character of it by themselves.
    pub(super) bytes: Box<Bytes>,
    /// See [`Set::lacks_only`].
    pub(super) lacks: Option<u8>,
}

/// What a way can begin with, as one look at a byte tells it.
#[derive(Debug)]
pub(super) struct Beginning {
    first: First,
    /// The bytes that a character can begin with here.
    pub(super) bytes: Box<Bytes>,
    /// Also nothing, so the end of the text, too.
    pub(super) empty: bool,
}

/// A bit needs three instructions more than a byte to be looked at, and this is most of what the machine does.
pub(super) type Bytes = [bool; 256];

fn bytes(is: impl Fn(u8) -> bool) -> Box<Bytes> {
    let mut bytes = Box::new([false; 256]);
    for (byte, at) in (0..=u8::MAX).zip(bytes.iter_mut()) {
        *at = is(byte);
    }
    bytes
}

impl Chars {
    fn new(set: &Set) -> Chars {
        Chars {
            bytes: bytes(|byte| set.has_byte(byte)),
            lacks: set.lacks_only(),
            set: set.clone(),
        }
    }
}

impl Beginning {
    fn new(first: First) -> Beginning {
        // No character begins with a byte from 0x80 to 0xbf.
        let can = |byte| holds(first.ascii, byte) || first.wide && byte >= 0xc0;
        Beginning {
            bytes: bytes(|byte| first.empty || can(byte)),
            empty: first.empty,
            first,
        }
    }
}

/// The characters a match can begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct First {
    ascii: u128,
    /// Also others.
    wide: bool,
    /// Can match nothing, so that the others do not matter.
    empty: bool,
}

impl First {
    const NOTHING: First = First {
        ascii: 0,
        wide: false,
        empty: true,
    };
    const ANYTHING: First = First {
        ascii: u128::MAX,
        wide: true,
        empty: true,
    };

    fn of(set: &Set) -> First {
        First {
            ascii: set.ascii(),
            wide: set.any_wide(),
            empty: false,
        }
    }

    fn or(self, other: First) -> First {
        First {
            ascii: self.ascii | other.ascii,
            wide: self.wide || other.wide,
            empty: self.empty || other.empty,
        }
    }
}

/// How many steps a tree needs, without building them.
pub(super) fn size(node: &Node) -> u64 {
    let sum = |nodes: &[Node]| {
        nodes
            .iter()
            .fold(0_u64, |sum, node| sum.saturating_add(size(node)))
    };
    match &node.kind {
        Kind::Empty => 0,
        Kind::Char(_) | Kind::Set(_) | Kind::At(_) | Kind::Back { .. } => 1,
        Kind::Concat(nodes) => sum(nodes),
        Kind::Either(nodes) => sum(nodes).saturating_add(2 * nodes.len() as u64),
        Kind::Repeat { body, .. } if single(body).is_some() => 1,
        Kind::Repeat { body, min, max, .. } => {
            let times = u64::from(max.unwrap_or(min.saturating_add(1)));
            size(body).saturating_add(6).saturating_mul(times)
        }
        Kind::Group(_, body) | Kind::Atomic(body) | Kind::Look { body, .. } => {
            size(body).saturating_add(2)
        }
        Kind::If { yes, no, .. } => size(yes).saturating_add(size(no)).saturating_add(2),
    }
}

pub(super) fn compile(parsed: &Parsed) -> Program {
    let mut compiler = Compiler {
        program: Program {
            steps: Vec::new(),
            spans: Vec::new(),
            literals: Vec::new(),
            sets: Vec::new(),
            memos: 0,
            registers: 0,
            groups: parsed.groups,
            referenced: parsed.referenced.clone(),
            anchored: anchored(&parsed.root),
            first: Beginning::new(first(&parsed.root)),
            firsts: Vec::new(),
            needles: Vec::new(),
        },
    };
    compiler.node(&parsed.root);
    compiler.push(Step::Accept, &(parsed.root.span.end..parsed.root.span.end));
    compiler.look_ahead();
    compiler.program
}

impl Program {
    /// The bytes of a literal.
    #[inline]
    pub(super) fn literal(&self, (from, to): (u32, u32)) -> &[u8] {
        let bytes = self.literals.get(from as usize..to as usize);
        bytes.unwrap_or_default()
    }

    /// What a match that goes on at a step can begin with; rather too much than too little.
    fn first_from(&self, pc: u32) -> First {
        let mut all = First {
            empty: false,
            ..First::NOTHING
        };
        let mut seen = Vec::new();
        let mut open = vec![pc];
        while let Some(pc) = open.pop() {
            if seen.contains(&pc) {
                continue;
            }
            seen.push(pc);
            let (Some(step), true) = (self.steps.get(pc as usize), seen.len() <= AHEAD_MAX) else {
                return First::ANYTHING;
            };
            let set = |set: u32| {
                self.sets
                    .get(set as usize)
                    .map_or(First::ANYTHING, |chars| First::of(&chars.set))
            };
            match *step {
                Step::Literal { from, .. } => match self.literals.get(from as usize) {
                    Some(byte) if byte.is_ascii() => all.ascii |= 1 << byte,
                    _ => all.wide = true,
                },
                Step::Set(of) => all = all.or(set(of)),
                Step::Run { set: of, min, .. } => {
                    all = all.or(set(of));
                    if min == 0 {
                        open.push(pc + 1);
                    }
                }
                Step::Split { first, second, .. } => open.extend([first.0, second.0]),
                Step::Jump(to) => open.push(to),
                Step::Turned { out, .. } => open.extend([pc + 1, out]),
                Step::If { no, .. } => open.extend([pc + 1, no]),
                Step::Look { next, .. } => open.push(next),
                Step::At(_) | Step::Save(_) | Step::Unset(_) | Step::Turn(_) => open.push(pc + 1),
                Step::Atomic { .. } => open.push(pc + 1),
                Step::Back { .. } | Step::Accept => return First::ANYTHING,
            }
        }
        all
    }
}

struct Compiler {
    program: Program,
}

impl Compiler {
    fn here(&self) -> u32 {
        u32::try_from(self.program.steps.len()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, step: Step, span: &Range<usize>) -> u32 {
        let at = self.here();
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.program.steps.push(step);
        self.program.spans.push(short(span.start)..short(span.end));
        at
    }

    fn set(&mut self, set: &Set) -> u32 {
        let sets = &mut self.program.sets;
        let at = sets
            .iter()
            .position(|known| known.set == *set)
            .unwrap_or_else(|| {
                sets.push(Chars::new(set));
                sets.len() - 1
            });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn memo(&mut self) -> u32 {
        self.program.memos += 1;
        self.program.memos - 1
    }

    /// Tells each choice what its ways can begin with.
    fn look_ahead(&mut self) {
        let asks = |step: &Step| matches!(step, Step::If { .. });
        let asks = self.program.steps.iter().any(asks);
        for at in 0..self.here() {
            let Some(mut step) = self.program.steps.get(at as usize).copied() else {
                continue;
            };
            if let Step::Run { then, .. } = &mut step {
                *then = self.first_from(at + 1);
            } else if let Step::Split {
                first,
                second,
                needs,
                ..
            } = &mut step
            {
                first.1 = self.first_from(first.0);
                second.1 = self.first_from(second.0);
                if asks {
                    *needs = [first.0, second.0].map(|way| {
                        let needed = needs::of_way(&self.program, way);
                        needed.map_or(0, |needed| self.needle(needed))
                    });
                }
            }
            self.replace(at, step);
        }
    }

    fn first_from(&mut self, pc: u32) -> u32 {
        let first = self.program.first_from(pc);
        let firsts = &mut self.program.firsts;
        let known = firsts.iter().position(|known| known.first == first);
        let at = known.unwrap_or_else(|| {
            firsts.push(Beginning::new(first));
            firsts.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// The number of a needle, from 1; 0: there are too many.
    fn needle(&mut self, literal: (u32, u32)) -> u16 {
        let needle = Finder::new(self.program.literal(literal)).into_owned();
        self.program.needles.push(needle);
        u16::try_from(self.program.needles.len()).unwrap_or(0)
    }

    fn replace(&mut self, at: u32, step: Step) {
        if let Some(old) = self.program.steps.get_mut(at as usize) {
            *old = step;
        }
    }

    fn literal(&mut self, nodes: &[Node]) {
        let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else {
            return;
        };
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let from = short(self.program.literals.len());
        for node in nodes {
            if let Kind::Char(c) = node.kind {
                self.program
                    .literals
                    .extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        let to = short(self.program.literals.len());
        self.push(
            Step::Literal { from, to },
            &(first.span.start..last.span.end),
        );
    }

    fn node(&mut self, node: &Node) {
        if self.here() > STEPS_MAX {
            return; // refused when the pattern was read
        }
        let span = &node.span;
        match &node.kind {
            Kind::Empty => {}
            Kind::Char(_) => self.literal(std::slice::from_ref(node)),
            Kind::Set(set) => {
                let set = self.set(set);
                self.push(Step::Set(set), span);
            }
            Kind::At(at) => {
                self.push(Step::At(*at), span);
            }
            Kind::Concat(nodes) => {
                let char = |node: &Node| matches!(node.kind, Kind::Char(_));
                for run in nodes.chunk_by(|a, b| char(a) && char(b)) {
                    match run {
                        [one] => self.node(one),
                        many => self.literal(many),
                    }
                }
            }
            Kind::Either(nodes) => self.either(nodes, span),
            Kind::Repeat {
                body,
                min,
                max,
                greed,
            } => match single(body) {
                Some(set) => {
                    let (set, memo) = (self.set(&set), self.memo());
                    let run = Step::Run {
                        set,
                        min: *min,
                        max: max.unwrap_or(u32::MAX),
                        greed: *greed,
                        memo,
                        then: 0,
                    };
                    self.push(run, span);
                }
                None if *greed == Greed::Own => {
                    let atomic = self.push(Step::Accept, span);
                    self.repeat(body, *min, *max, Greed::Own, span);
                    self.push(Step::Accept, span);
                    let next = self.here();
                    self.replace(atomic, Step::Atomic { next });
                }
                None => self.repeat(body, *min, *max, *greed, span),
            },
            Kind::Group(number, body) => {
                if self.program.referenced.contains(&(*number, true)) {
                    self.push(Step::Unset(number * 2 + 1), span);
                }
                self.push(Step::Save(number * 2), span);
                self.node(body);
                self.push(Step::Save(number * 2 + 1), span);
            }
            Kind::Look { not, behind, body } => {
                let look = self.push(Step::Accept, span);
                self.node(body);
                self.push(Step::Accept, span);
                let look_step = Step::Look {
                    not: *not,
                    behind: behind.unwrap_or(u32::MAX),
                    next: self.here(),
                };
                self.replace(look, look_step);
            }
            Kind::Atomic(body) => self.atomic(body),
            Kind::Back { group, fold } => {
                let back = Step::Back {
                    group: *group,
                    fold: *fold,
                };
                self.push(back, span);
            }
            Kind::If { group, yes, no } => {
                let ask = self.push(Step::Accept, span);
                self.node(yes);
                let jump = self.push(Step::Accept, span);
                let ask_step = Step::If {
                    group: *group,
                    no: self.here(),
                };
                self.replace(ask, ask_step);
                self.node(no);
                let end = self.here();
                self.replace(jump, Step::Jump(end));
            }
        }
    }

    fn either(&mut self, nodes: &[Node], span: &Range<usize>) {
        let mut memo = self.memo();
        let mut jumps = Vec::new();
        let last = nodes.len().saturating_sub(1);
        for (i, node) in nodes.iter().enumerate() {
            if i == last {
                self.node(node);
                break;
            }
            let split = self.push(Step::Accept, span);
            self.node(node);
            jumps.push(self.push(Step::Accept, span));
            let step = Step::Split {
                first: (split + 1, 0),
                second: (self.here(), 0),
                needs: [0; 2],
                memo,
            };
            self.replace(split, step);
            memo = NO_MEMO; // the further ones are reached through the first alone
        }
        let end = self.here();
        for jump in jumps {
            self.replace(jump, Step::Jump(end));
        }
    }

    fn atomic(&mut self, body: &Node) {
        let atomic = self.push(Step::Accept, &body.span);
        self.node(body);
        self.push(Step::Accept, &body.span);
        let next = self.here();
        self.replace(atomic, Step::Atomic { next });
    }

    /// Of a possessive repetition each turn by itself gives nothing back.
    fn turn(&mut self, body: &Node, greed: Greed) {
        match greed {
            Greed::Own => self.atomic(body),
            Greed::Most | Greed::Least => self.node(body),
        }
    }

    fn repeat(
        &mut self,
        body: &Node,
        min: u32,
        max: Option<u32>,
        greed: Greed,
        span: &Range<usize>,
    ) {
        if size(body) == 0 {
            return;
        }
        for _ in 0..min {
            self.turn(body, greed);
            if self.here() > STEPS_MAX {
                return;
            }
        }
        let register = match first(body).empty {
            true => {
                self.program.registers += 1;
                Some(self.program.registers - 1)
            }
            false => None,
        };
        let turns = max.map_or(1, |max| max.saturating_sub(min));
        let mut splits = Vec::new();
        let mut turned = Vec::new();
        for _ in 0..turns {
            let memo = self.memo();
            splits.push((self.push(Step::Accept, span), memo));
            if let Some(register) = register {
                self.push(Step::Turn(register), span);
            }
            self.turn(body, greed);
            if let Some(register) = register {
                turned.push((self.push(Step::Accept, span), register));
            }
            if self.here() > STEPS_MAX {
                return;
            }
        }
        if let (None, Some(&(split, _))) = (max, splits.first()) {
            self.push(Step::Jump(split), span);
        }
        let out = self.here();
        for (split, memo) in splits {
            let (first, second) = match greed {
                Greed::Least => (out, split + 1),
                Greed::Most | Greed::Own => (split + 1, out),
            };
            self.replace(
                split,
                Step::Split {
                    first: (first, 0),
                    second: (second, 0),
                    needs: [0; 2],
                    memo,
                },
            );
        }
        for (at, register) in turned {
            self.replace(at, Step::Turned { register, out });
        }
    }
}

/// A piece that is always one character.
pub(crate) fn single(node: &Node) -> Option<Set> {
    if let Kind::Char(c) = &node.kind {
        return Some(Set::one(*c));
    }
    if let Kind::Set(set) = &node.kind {
        return Some((**set).clone());
    }
    None
}

/// Every way through it begins at the start of the text.
pub(crate) fn anchored(node: &Node) -> bool {
    match &node.kind {
        Kind::At(At::Start) => true,
        Kind::Concat(nodes) => nodes
            .iter()
            .find(|node| !matches!(node.kind, Kind::Empty))
            .is_some_and(anchored),
        Kind::Either(nodes) => nodes.iter().all(anchored),
        Kind::Group(_, body) | Kind::Atomic(body) => anchored(body),
        Kind::Repeat { body, min, .. } => *min > 0 && anchored(body),
        Kind::Empty | Kind::Char(_) | Kind::Set(_) | Kind::At(_) => false,
        Kind::Look { .. } | Kind::Back { .. } | Kind::If { .. } => false,
    }
}

fn first(node: &Node) -> First {
    match &node.kind {
        Kind::Empty | Kind::At(_) | Kind::Look { .. } => First::NOTHING,
        Kind::Char(c) => First {
            ascii: if c.is_ascii() { 1 << u32::from(*c) } else { 0 },
            wide: !c.is_ascii(),
            empty: false,
        },
        Kind::Set(set) => First::of(set),
        Kind::Concat(nodes) => {
            let mut all = First::NOTHING;
            for node in nodes {
                let next = first(node);
                all.ascii |= next.ascii;
                all.wide |= next.wide;
                if !next.empty {
                    all.empty = false;
                    break;
                }
            }
            all
        }
        Kind::Either(nodes) => nodes
            .iter()
            .map(first)
            .reduce(First::or)
            .unwrap_or(First::NOTHING),
        Kind::Repeat { body, min, .. } => {
            let body = first(body);
            First {
                empty: body.empty || *min == 0,
                ..body
            }
        }
        Kind::Group(_, body) | Kind::Atomic(body) => first(body),
        Kind::Back { .. } | Kind::If { .. } => First::ANYTHING,
    }
}
