//! The lines that nearly all lines are: no user name outside quotes, nothing left to be found out from the right.
//!
//! Such a line is one run of pieces from left to right, each with the few bytes that follow it. Whatever is not so is read
//! again by the general way (access.rs), which alone decides what does not fit: this may only agree with it sooner.

use super::access::{Access, split};
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
            if n > 0 && !(matches!(last.piece, Piece::Text(_)) && last.then_bytes == 0) {
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
                }
                step.texts = segment.begins_texts;
                steps.push(step);
                let right = segment.right.iter().rev();
                right.for_each(|op| add(&mut steps, op));
            }
        }
        Some(Self(steps))
    }

    /// Reads a line into an `access` that is empty; `None`: the general way should, into a new one.
    #[inline]
    pub(super) fn read<'a>(
        &self,
        line: &'a [u8],
        seal: Option<&[u8]>,
        access: &mut Access<'a>,
    ) -> Option<()> {
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
                    if *free == Free::One(Text::Is(Field::User)) && rest.starts_with(b"\"") {
                        return None;
                    }
                    let (text, after) = split(rest, 0, &mut escaped)?;
                    free.set(access, text);
                    rest = after;
                }
                Piece::Seal => {
                    rest = rest.get(seal.filter(|seal| seal.len() == rest.len())?.len()..)?;
                }
            }
            let [want, mask] = step.then;
            let fits = match rest.first_chunk() {
                Some(next) => u32::from_le_bytes(*next) & mask == want,
                None => {
                    let then = want.to_le_bytes();
                    then.get(..step.then_bytes)
                        .is_some_and(|then| rest.starts_with(then))
                }
            };
            rest = rest.get(step.then_bytes..).filter(|_| fits)?;
        }
        if escaped {
            access.texts = b"";
        }
        rest.is_empty().then_some(())
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
