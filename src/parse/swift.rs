//! The lines that nearly all lines are: no user name outside quotes, nothing left to be found out from the right.
//!
//! Such a line is one run of pieces from left to right, each with the few bytes that follow it. Whatever is not so is read
//! again by the general way (access.rs), which alone decides what does not fit: this may only agree with it sooner.
//! Pieces that the server writes the same way again and again (`- - [22/Nov/2026:20:02:28 +0000] "`, the server's name)
//! are one stretch, which is compared with that of the line before.

use std::cell::Cell;

use super::access::{Access, number, split};
use super::format::{Free, Op, Segment, Text};
use crate::client::{Client, is_address_byte};
use crate::config::Field;

/// A format as one run.
#[derive(Clone, Debug)]
pub(super) struct Swift(Vec<Step>);

#[derive(Clone, Debug)]
struct Step {
    piece: Piece,
    /// The texts begin here.
    texts: bool,
    /// What follows it, filled up with zeros, and a mask of its bytes.
    then: [u32; 2],
    then_bytes: usize,
}

#[derive(Clone, Debug)]
enum Piece {
    Op(Op),
    /// As written, the peer is the client on nearly every line.
    Client,
    Peer,
    /// `-` for no user.
    Dash,
    /// Up to the quote.
    Text(Free),
    /// The same for `%u`, whose quote may be one of two.
    User,
    /// `%>s %b`.
    StatusAndBytes,
    /// `%r" %>s %b`, what stands behind nearly every request.
    RequestStatusAndBytes,
    /// `%{Referer}i" "%{User-Agent}i"`.
    RefererAndAgent,
    Stretch(Stretch),
    /// All that is left is the token at the line's beginning.
    Seal,
    Nothing,
}

impl Swift {
    /// `None`: the format is no such run.
    pub(super) fn new(segments: &[Segment], sealed: bool) -> Option<Self> {
        let mut steps = vec![Step::new(Piece::Nothing)];
        let end = segments.len().checked_sub(1)?;
        for (n, segment) in segments.iter().enumerate() {
            // The quote between two segments; that behind a text is the text's end.
            let last = steps.last()?;
            if n > 0
                && !(matches!(last.piece, Piece::Text(_) | Piece::User) && last.then_bytes == 0)
            {
                then(&mut steps, b"\"");
            }
            if n == end && sealed && is_blank_and_token(segment, segments.first()?) {
                then(&mut steps, b" ");
                steps.push(Step::new(Piece::Seal));
                break;
            }
            match segment.free {
                None => {}
                // A text in quotes alone, or a user of whom there is none.
                Some(_) if segment.quoted && segment.left.len() + segment.right.len() == 0 => {}
                Some(_) if segment.bare_user && n < end => {}
                Some(_) => return None,
            }
            segment.left.iter().for_each(|op| add(&mut steps, op));
            if let Some(free) = segment.free {
                let mut step = Step::new(Piece::Text(free));
                if segment.bare_user {
                    step.piece = Piece::Dash;
                } else if free == Free::One(Text::Is(Field::User)) {
                    step.piece = Piece::User;
                }
                step.texts = segment.begins_texts;
                steps.push(step);
                let right = segment.right.iter().rev();
                right.for_each(|op| add(&mut steps, op));
            }
        }
        Some(Self(joined(steps)))
    }

    /// Reads a line into an `access` that is empty, and returns what follows it. `None`: the general way should, into a new
    /// one. No piece goes beyond the end of a line, so other lines may follow.
    #[inline]
    pub(super) fn read<'a>(
        &self,
        line: &'a [u8],
        seal: Option<&[u8]>,
        access: &mut Access<'a>,
    ) -> Option<&'a [u8]> {
        let mut rest = line;
        let mut escaped = false;
        let mut client = &b""[..];
        for step in &self.0 {
            if step.texts {
                access.texts = rest;
            }
            match &step.piece {
                Piece::Nothing => {}
                Piece::Op(op) => rest = rest.get(op.read(rest, access)?..)?,
                Piece::Client => {
                    let (read, used) = Client::read(rest)?;
                    access.client = Some(read);
                    (client, rest) = rest.split_at_checked(used)?;
                }
                Piece::Peer => {
                    let same = rest.strip_prefix(client).filter(|after| {
                        !client.is_empty() && !after.first().is_some_and(|b| is_address_byte(*b))
                    });
                    if let Some(after) = same {
                        access.peer = access.client;
                        rest = after;
                    } else {
                        rest = rest.get(Op::Peer.read(rest, access)?..)?;
                    }
                }
                Piece::Dash => {
                    access.user = rest.get(..1).filter(|user| *user == b"-")?;
                    rest = rest.get(1..)?;
                }
                Piece::Text(free) => {
                    let (text, after) = split(rest, 0, &mut escaped)?;
                    free.set(access, text);
                    rest = after;
                }
                Piece::User => {
                    if rest.starts_with(b"\"") {
                        return None;
                    }
                    (access.user, rest) = split(rest, 0, &mut escaped)?;
                }
                Piece::StatusAndBytes => rest = status_and_bytes(rest, access)?,
                Piece::RequestStatusAndBytes => {
                    let (text, after) = split(rest, 0, &mut escaped)?;
                    access.set_request(text);
                    rest = status_and_bytes(after.strip_prefix(b" ")?, access)?;
                }
                Piece::RefererAndAgent => {
                    let (text, after) = split(rest, 0, &mut escaped)?;
                    access.referer = text;
                    let behind = after.strip_prefix(b" \"")?;
                    (access.agent, rest) = split(behind, 0, &mut escaped)?;
                }
                Piece::Stretch(stretch) => {
                    rest = stretch.read(rest, access)?;
                    continue;
                }
                Piece::Seal => {
                    rest = rest.strip_prefix(seal?)?;
                }
            }
            rest = step.follow(rest)?;
        }
        let texts = access.texts.len().saturating_sub(rest.len());
        access.texts = match escaped {
            true => b"",
            false => access.texts.get(..texts)?,
        };
        Some(rest)
    }
}

impl Step {
    fn new(piece: Piece) -> Self {
        Self {
            piece,
            texts: false,
            then: [0, 0],
            then_bytes: 0,
        }
    }

    fn is_followed_by(&self, bytes: &[u8]) -> bool {
        let [want, _] = self.then;
        want.to_le_bytes().get(..self.then_bytes) == Some(bytes)
    }

    /// What is left behind the bytes that follow the piece.
    #[inline(always)]
    fn follow<'a>(&self, rest: &'a [u8]) -> Option<&'a [u8]> {
        let [want, mask] = self.then;
        let fits = match rest.first_chunk() {
            Some(next) => u32::from_le_bytes(*next) & mask == want,
            // As behind the last piece of nearly every format.
            None if self.then_bytes == 0 => true,
            None => {
                let then = want.to_le_bytes();
                then.get(..self.then_bytes)
                    .is_some_and(|then| rest.starts_with(then))
            }
        };
        rest.get(self.then_bytes..).filter(|_| fits)
    }

    /// May this be part of a stretch?
    fn is_repeated(&self) -> bool {
        match &self.piece {
            Piece::Nothing | Piece::Dash => true,
            Piece::Op(Op::Time(shape)) => !shape.digits_only,
            Piece::Op(Op::Token { is, .. }) => {
                matches!(is, Text::Ignored | Text::Is(Field::Vhost))
            }
            Piece::Op(_)
            | Piece::Client
            | Piece::Peer
            | Piece::Text(_)
            | Piece::User
            | Piece::StatusAndBytes
            | Piece::RequestStatusAndBytes
            | Piece::RefererAndAgent
            | Piece::Stretch(_)
            | Piece::Seal => false,
        }
    }
}

/// Neighbouring pieces of the server's own that are mostly what they were on the line before.
#[derive(Clone, Debug)]
struct Stretch {
    steps: Vec<Step>,
    last: Cell<Seen>,
}

/// A stretch as it stood in a line, and what it said there. What follows each piece is part of it, so that nothing behind
/// it has a say in how it is read.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    bytes: [u64; SEEN_BYTES / 8],
    /// Of the bytes that belong to it.
    mask: [u64; SEEN_BYTES / 8],
    /// 0: nothing yet.
    len: usize,
    vhost: (usize, usize),
    user: (usize, usize),
}

/// `%l`, no user, `%t` and the blanks take 34.
const SEEN_BYTES: usize = 48;

impl Stretch {
    /// What is left of `rest` behind the stretch.
    #[inline]
    fn read<'a>(&self, rest: &'a [u8], access: &mut Access<'a>) -> Option<&'a [u8]> {
        let Some(block) = rest.first_chunk::<SEEN_BYTES>() else {
            return self.walk(rest, access);
        };
        let seen = self.last.get();
        let words = words(block).into_iter().zip(seen.bytes).zip(seen.mask);
        let differs = words.fold(0, |sum, ((now, then), mask)| sum | (now ^ then) & mask);
        if differs != 0 || seen.len == 0 {
            return self.learn(rest, block, access);
        }
        if let (from, to @ 1..) = seen.vhost {
            access.vhost = block.get(from..to)?;
        }
        if let (from, to @ 1..) = seen.user {
            access.user = block.get(from..to)?;
        }
        rest.get(seen.len..)
    }

    #[cold]
    fn learn<'a>(
        &self,
        rest: &'a [u8],
        block: &[u8; SEEN_BYTES],
        access: &mut Access<'a>,
    ) -> Option<&'a [u8]> {
        let after = self.walk(rest, access)?;
        let len = rest.len() - after.len();
        if len <= SEEN_BYTES {
            let mut mask = [0; SEEN_BYTES];
            mask.get_mut(..len)?.fill(0xff);
            let place = |text: &[u8]| {
                let from = text.as_ptr().addr().checked_sub(rest.as_ptr().addr());
                from.filter(|from| *from < len && !text.is_empty())
                    .map_or((0, 0), |from| (from, from + text.len()))
            };
            self.last.set(Seen {
                bytes: words(block),
                mask: words(&mask),
                len,
                vhost: place(access.vhost),
                user: place(access.user),
            });
        }
        Some(after)
    }

    /// Piece by piece.
    fn walk<'a>(&self, mut rest: &'a [u8], access: &mut Access<'a>) -> Option<&'a [u8]> {
        for step in &self.steps {
            rest = match &step.piece {
                Piece::Op(op) => rest.get(op.read(rest, access)?..)?,
                Piece::Dash => {
                    access.user = rest.get(..1).filter(|user| *user == b"-")?;
                    rest.get(1..)?
                }
                Piece::Nothing => rest,
                Piece::Client
                | Piece::Peer
                | Piece::Text(_)
                | Piece::User
                | Piece::StatusAndBytes
                | Piece::RequestStatusAndBytes
                | Piece::RefererAndAgent
                | Piece::Stretch(_)
                | Piece::Seal => return None,
            };
            rest = step.follow(rest)?;
        }
        Some(rest)
    }
}

fn words(block: &[u8; SEEN_BYTES]) -> [u64; SEEN_BYTES / 8] {
    let mut words = [0; SEEN_BYTES / 8];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Joins steps that are quicker read together.
fn joined(steps: Vec<Step>) -> Vec<Step> {
    let mut all: Vec<Step> = Vec::new();
    let mut stretch: Vec<Step> = Vec::new();
    for step in steps {
        if step.is_repeated() {
            stretch.push(step);
            continue;
        }
        end_stretch(&mut stretch, &mut all);
        all.push(step);
    }
    end_stretch(&mut stretch, &mut all);
    const REQUEST: Free = Free::One(Text::Is(Field::Request));
    const REFERER: Free = Free::One(Text::Is(Field::Referer));
    const AGENT: Free = Free::One(Text::Is(Field::Agent));
    type Are = fn(&Piece, &Piece) -> bool;
    let pairs: [(Are, &[u8], Piece); 3] = [
        (
            |a, b| matches!((a, b), (Piece::Op(Op::Status), Piece::Op(Op::Bytes))),
            b" ",
            Piece::StatusAndBytes,
        ),
        (
            |a, b| matches!((a, b), (Piece::Text(REQUEST), Piece::StatusAndBytes)),
            b" ",
            Piece::RequestStatusAndBytes,
        ),
        (
            |a, b| matches!((a, b), (Piece::Text(REFERER), Piece::Text(AGENT))),
            b" \"",
            Piece::RefererAndAgent,
        ),
    ];
    for (are, between, both) in pairs {
        let mut joined: Vec<Step> = Vec::new();
        for step in all {
            match joined.last_mut() {
                Some(last)
                    if last.is_followed_by(between)
                        && !step.texts
                        && are(&last.piece, &step.piece) =>
                {
                    last.piece = both.clone();
                    (last.then, last.then_bytes) = (step.then, step.then_bytes);
                }
                _ => joined.push(step),
            }
        }
        all = joined;
    }
    all
}

#[inline(always)]
fn status_and_bytes<'a>(rest: &'a [u8], access: &mut Access<'a>) -> Option<&'a [u8]> {
    let [
        a @ b'1'..=b'9',
        b @ b'0'..=b'9',
        c @ b'0'..=b'9',
        b' ',
        after @ ..,
    ] = rest
    else {
        return None;
    };
    access.status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    let (bytes, used) = number(after)?;
    access.bytes = bytes;
    after.get(used..)
}

fn end_stretch(stretch: &mut Vec<Step>, all: &mut Vec<Step>) {
    let worth = |step: &Step| {
        matches!(&step.piece, Piece::Op(Op::Time(_)))
            || matches!(&step.piece, Piece::Op(Op::Token { is, .. }) if *is != Text::Ignored)
    };
    // One that ends in a word would leave open where that ends.
    let closed = stretch.last().is_some_and(|last| last.then_bytes > 0);
    if closed && stretch.iter().any(worth) {
        all.push(Step::new(Piece::Stretch(Stretch {
            steps: std::mem::take(stretch),
            last: Cell::default(),
        })));
    } else {
        all.append(stretch);
    }
}

/// Is `last` a blank and the first word of `first`, and nothing else?
fn is_blank_and_token(last: &Segment, first: &Segment) -> bool {
    let (mut want, mut have) = (vec![Step::new(Piece::Nothing)], Vec::new());
    then(&mut want, b" ");
    let token = first.left.iter();
    token
        .take_while(|op| !matches!(op, Op::Byte(b' ')))
        .for_each(|op| add(&mut want, op));
    have.push(Step::new(Piece::Nothing));
    last.left.iter().for_each(|op| add(&mut have, op));
    // Both words are the same text (`sealed`), so their shape is enough.
    let shown = |steps: &[Step]| {
        let kind = |step: &Step| (std::mem::discriminant(&step.piece), step.then);
        steps.iter().map(kind).collect::<Vec<_>>()
    };
    last.free.is_none() && shown(&want) == shown(&have)
}

fn add(steps: &mut Vec<Step>, op: &Op) {
    match op {
        Op::Byte(byte) => then(steps, &[*byte]),
        Op::Literal(bytes) => then(steps, bytes),
        Op::Client => steps.push(Step::new(Piece::Client)),
        Op::Peer => steps.push(Step::new(Piece::Peer)),
        Op::Status | Op::Bytes | Op::Duration(_) | Op::Time(_) | Op::Token { .. } => {
            steps.push(Step::new(Piece::Op(op.clone())))
        }
    }
}

/// Adds to what follows the last piece.
fn then(steps: &mut Vec<Step>, bytes: &[u8]) {
    for &byte in bytes {
        match steps.last_mut() {
            Some(Step {
                then: [want, mask],
                then_bytes: n @ 0..4,
                ..
            }) => {
                *want |= u32::from(byte) << (8 * *n);
                *mask |= 0xff << (8 * *n);
                *n += 1;
            }
            _ => {
                steps.push(Step::new(Piece::Nothing));
                then(steps, &[byte]);
            }
        }
    }
}
