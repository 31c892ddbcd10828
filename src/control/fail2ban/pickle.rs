//! Python's pickles, as far as they are data.
//!
//! fail2ban's clients send lists of texts as pickles, and want pickles back. Python's own reader runs what a pickle asks
//! for, so whoever may write to fail2ban's socket is root; this one knows no opcode that names or calls anything (GLOBAL,
//! REDUCE, BUILD, INST and their kin), and refuses the whole pickle at the first of them.
//!
//! What a pickle shares (its memo) makes a small one mean an endless one. So values are first kept flat, each thing once,
//! and only then made a tree, whose size and depth are bounded; whatever contains itself meets the bound of depth.

use std::collections::HashMap;
use std::fmt;

/// Things in a pickle. A reload of a hundred jails is some 50,000.
const NODES_MAX: usize = 500_000;
/// Places of the memo and the stack.
const MEMO_MAX: usize = NODES_MAX;
/// Lists in lists. fail2ban's own need 5.
const DEPTH_MAX: usize = 16;
/// Bytes of all texts of the tree, shared ones each time, and [`NODE_COST`] for each thing.
const TREE_MAX: usize = 16 << 20;
const NODE_COST: usize = 64;
/// The newest protocol of Python 3.
const PROTOCOL_MAX: u8 = 5;
/// Digits of a number as text, and bytes of one as bytes: more is no number anybody means.
const DIGITS_MAX: usize = 40;

/// What a pickle holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// A whole number. Those beyond 64 bits are read as floats.
    Int(i64),
    /// A number.
    Float(f64),
    /// `str`, and `bytes` where they are text.
    Text(String),
    /// `list`; sets are read as lists.
    List(Vec<Value>),
    /// `tuple`.
    Tuple(Vec<Value>),
    /// `dict`, in the order of insertion; the same key may stand twice.
    Dict(Vec<(Value, Value)>),
    /// An exception, which is only written.
    Exception(Exception),
}

/// An exception as Python raises it: what a client is told went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Exception {
    /// Of which module: `builtins`.
    pub module: &'static str,
    /// Its name there.
    pub class: &'static str,
    /// What it was made with.
    pub args: Vec<Value>,
}

impl Exception {
    /// One of Python's own, with a text.
    pub fn new(class: &'static str, text: impl Into<String>) -> Self {
        Self {
            module: "builtins",
            class,
            args: vec![Value::Text(text.into())],
        }
    }
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A list of texts.
    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    /// A pair.
    pub fn pair(first: Self, second: Self) -> Self {
        Self::Tuple(vec![first, second])
    }

    /// A count; one beyond 64 bits is the largest there is.
    pub fn count(count: impl TryInto<i64>) -> Self {
        Self::Int(count.try_into().unwrap_or(i64::MAX))
    }

    /// As a text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// What is in a list or a tuple.
    #[must_use]
    pub fn items(&self) -> Option<&[Self]> {
        if let Self::List(items) | Self::Tuple(items) = self {
            Some(items)
        } else {
            None
        }
    }
}

/// Why a pickle is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An opcode that would run something, or that nobody knows.
    Opcode(u8),
    /// It ends in the middle.
    Short,
    /// What an opcode needs is not there or of another kind.
    Broken,
    /// More than is taken: things, depth, texts.
    TooMuch,
    /// A protocol that is not known.
    Protocol(u8),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opcode(code) => write!(
                f,
                "opcode 0x{code:02x}: only data is read, nothing that names or calls anything"
            ),
            Self::Short => write!(f, "it ends too early"),
            Self::Broken => write!(f, "it is no pickle"),
            Self::TooMuch => write!(f, "it holds too much"),
            Self::Protocol(n) => write!(f, "protocol {n} is not known"),
        }
    }
}

/// Reads one pickle. What follows its end is not looked at.
///
/// # Errors
/// It is none, holds something that is not data, or too much.
pub fn read(bytes: &[u8]) -> Result<Value, Refused> {
    let mut reader = Reader {
        rest: bytes,
        nodes: Vec::new(),
        stack: Vec::new(),
        memo: HashMap::new(),
    };
    let root = reader.run()?;
    let mut budget = TREE_MAX;
    reader.tree(root, 0, &mut budget)
}

/// The number of a node.
type Id = usize;

/// A thing, not yet part of a tree.
#[derive(Debug)]
enum Node<'b> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'b str),
    Made(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Mark,
    Is(Id),
}

struct Reader<'b> {
    rest: &'b [u8],
    nodes: Vec<Node<'b>>,
    stack: Vec<Slot>,
    memo: HashMap<u32, Id>,
}

impl<'b> Reader<'b> {
    fn run(&mut self) -> Result<Id, Refused> {
        loop {
            match self.byte()? {
                0x80 => match self.byte()? {
                    n if n > PROTOCOL_MAX => return Err(Refused::Protocol(n)),
                    _ => {}
                },
                0x95 => {
                    self.take(8)?; // FRAME: how much may be read at once
                }
                b'.' => return self.pop(),
                b'(' => self.put(Slot::Mark)?,
                b'0' => {
                    self.stack.pop().ok_or(Refused::Broken)?;
                }
                b'1' => {
                    self.above_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.put(Slot::Is(top))?;
                }
                b'N' => self.push(Node::None)?,
                0x88 => self.push(Node::Bool(true))?,
                0x89 => self.push(Node::Bool(false))?,
                b'K' => {
                    let n = i64::from(self.byte()?);
                    self.push(Node::Int(n))?;
                }
                b'M' => {
                    let n = i64::from(u16::from_le_bytes(self.array()?));
                    self.push(Node::Int(n))?;
                }
                b'J' => {
                    let n = i64::from(i32::from_le_bytes(self.array()?));
                    self.push(Node::Int(n))?;
                }
                b'I' | b'L' => {
                    let line = self.line()?;
                    self.push(whole(line)?)?;
                }
                0x8a => {
                    let len = usize::from(self.byte()?);
                    let node = long(self.take(len)?)?;
                    self.push(node)?;
                }
                0x8b => {
                    let len = self.length(4)?;
                    let node = long(self.take(len)?)?;
                    self.push(node)?;
                }
                b'F' => {
                    let line = text(self.line()?)?;
                    let number = line.trim().parse().map_err(|_| Refused::Broken)?;
                    self.push(Node::Float(number))?;
                }
                b'G' => {
                    let number = f64::from_be_bytes(self.array()?);
                    self.push(Node::Float(number))?;
                }
                b'X' | b'T' | b'B' => self.text(4)?,
                0x8c | b'U' | b'C' => self.text(1)?,
                0x8d | 0x8e | 0x96 => self.text(8)?,
                b'V' => {
                    let line = self.line()?;
                    self.push(Node::Made(raw_unicode(line)?))?;
                }
                b'S' => {
                    let line = self.line()?;
                    self.push(Node::Made(quoted(line)?))?;
                }
                b']' | 0x8f => self.push(Node::List(Vec::new()))?,
                b')' => self.push(Node::Tuple(Vec::new()))?,
                b'}' => self.push(Node::Dict(Vec::new()))?,
                b'l' | 0x91 => {
                    let items = self.above_mark()?;
                    self.push(Node::List(items))?;
                }
                b't' => {
                    let items = self.above_mark()?;
                    self.push(Node::Tuple(items))?;
                }
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b'd' => {
                    let items = pairs(&self.above_mark()?)?;
                    self.push(Node::Dict(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(&[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.above_mark()?;
                    self.extend(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.insert(&[(key, value)])?;
                }
                b'u' => {
                    let items = pairs(&self.above_mark()?)?;
                    self.insert(&items)?;
                }
                0x94 => {
                    let at = u32::try_from(self.memo.len()).map_err(|_| Refused::TooMuch)?;
                    self.remember(at)?;
                }
                b'q' => {
                    let at = u32::from(self.byte()?);
                    self.remember(at)?;
                }
                b'r' => {
                    let at = u32::from_le_bytes(self.array()?);
                    self.remember(at)?;
                }
                b'p' => {
                    let at = self.place()?;
                    self.remember(at)?;
                }
                b'h' => {
                    let at = u32::from(self.byte()?);
                    self.recall(at)?;
                }
                b'j' => {
                    let at = u32::from_le_bytes(self.array()?);
                    self.recall(at)?;
                }
                b'g' => {
                    let at = self.place()?;
                    self.recall(at)?;
                }
                other => return Err(Refused::Opcode(other)),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Refused> {
        let (first, rest) = self.rest.split_first().ok_or(Refused::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], Refused> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Refused::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        self.take(N)?.try_into().map_err(|_| Refused::Short)
    }

    /// A length in so many bytes, the lowest first.
    fn length(&mut self, bytes: usize) -> Result<usize, Refused> {
        let taken = self.take(bytes)?;
        let length = taken
            .iter()
            .rev()
            .fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
        usize::try_from(length).map_err(|_| Refused::Short)
    }

    fn line(&mut self) -> Result<&'b [u8], Refused> {
        let end = memchr::memchr(b'\n', self.rest).ok_or(Refused::Short)?;
        let line = self.take(end)?;
        self.byte()?;
        Ok(line)
    }

    /// A text whose length is in so many bytes. Bytes that are no text cannot be meant by anybody.
    fn text(&mut self, bytes: usize) -> Result<(), Refused> {
        let len = self.length(bytes)?;
        let taken = self.take(len)?;
        self.push(Node::Text(text(taken)?))
    }

    fn put(&mut self, slot: Slot) -> Result<(), Refused> {
        if self.stack.len() >= NODES_MAX {
            return Err(Refused::TooMuch);
        }
        self.stack.push(slot);
        Ok(())
    }

    fn push(&mut self, node: Node<'b>) -> Result<(), Refused> {
        if self.nodes.len() >= NODES_MAX {
            return Err(Refused::TooMuch);
        }
        let id = self.nodes.len();
        self.nodes.push(node);
        self.put(Slot::Is(id))
    }

    fn top(&self) -> Result<Id, Refused> {
        match self.stack.last() {
            Some(Slot::Is(id)) => Ok(*id),
            Some(Slot::Mark) | None => Err(Refused::Broken),
        }
    }

    fn pop(&mut self) -> Result<Id, Refused> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Takes what is above the last mark, and the mark.
    fn above_mark(&mut self) -> Result<Vec<Id>, Refused> {
        let mark = self
            .stack
            .iter()
            .rposition(|slot| matches!(slot, Slot::Mark))
            .ok_or(Refused::Broken)?;
        let items = self.stack.drain(mark..).skip(1);
        let ids = items.map(|slot| match slot {
            Slot::Is(id) => Ok(id),
            Slot::Mark => Err(Refused::Broken),
        });
        ids.collect()
    }

    fn tuple(&mut self, len: usize) -> Result<(), Refused> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items))
    }

    fn extend(&mut self, items: &[Id]) -> Result<(), Refused> {
        let list = self.top()?;
        match self.nodes.get_mut(list) {
            Some(Node::List(list)) => {
                list.extend_from_slice(items);
                Ok(())
            }
            _ => Err(Refused::Broken),
        }
    }

    fn insert(&mut self, items: &[(Id, Id)]) -> Result<(), Refused> {
        let dict = self.top()?;
        match self.nodes.get_mut(dict) {
            Some(Node::Dict(dict)) => {
                dict.extend_from_slice(items);
                Ok(())
            }
            _ => Err(Refused::Broken),
        }
    }

    fn place(&mut self) -> Result<u32, Refused> {
        let line = text(self.line()?)?;
        line.parse().map_err(|_| Refused::Broken)
    }

    fn remember(&mut self, at: u32) -> Result<(), Refused> {
        let top = self.top()?;
        if self.memo.len() >= MEMO_MAX {
            return Err(Refused::TooMuch);
        }
        self.memo.insert(at, top);
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Result<(), Refused> {
        let id = *self.memo.get(&at).ok_or(Refused::Broken)?;
        self.put(Slot::Is(id))
    }

    fn tree(&self, id: Id, depth: usize, budget: &mut usize) -> Result<Value, Refused> {
        let mut pay = |cost: usize| {
            *budget = budget.checked_sub(cost).ok_or(Refused::TooMuch)?;
            Ok(())
        };
        pay(NODE_COST)?;
        if depth > DEPTH_MAX {
            return Err(Refused::TooMuch);
        }
        let each = |ids: &[Id], budget: &mut usize| -> Result<Vec<Value>, Refused> {
            let items = ids.iter().map(|id| self.tree(*id, depth + 1, budget));
            items.collect()
        };
        Ok(match self.nodes.get(id).ok_or(Refused::Broken)? {
            Node::None => Value::None,
            Node::Bool(is) => Value::Bool(*is),
            Node::Int(n) => Value::Int(*n),
            Node::Float(n) => Value::Float(*n),
            Node::Text(text) => {
                pay(text.len())?;
                Value::text(*text)
            }
            Node::Made(text) => {
                pay(text.len())?;
                Value::text(text.as_str())
            }
            Node::List(ids) => Value::List(each(ids, budget)?),
            Node::Tuple(ids) => Value::Tuple(each(ids, budget)?),
            Node::Dict(ids) => {
                let pair = |(key, value): &(Id, Id)| {
                    Ok((
                        self.tree(*key, depth + 1, budget)?,
                        self.tree(*value, depth + 1, budget)?,
                    ))
                };
                Value::Dict(ids.iter().map(pair).collect::<Result<_, _>>()?)
            }
        })
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, Refused> {
    let (pairs, []) = items.as_chunks::<2>() else {
        return Err(Refused::Broken);
    };
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn text(bytes: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(bytes).map_err(|_| Refused::Broken)
}

/// A whole number, as text: `12`, `12L`, and `00` and `01`, which are no numbers.
fn whole<'b>(line: &[u8]) -> Result<Node<'b>, Refused> {
    let line = text(line)?.trim();
    let line = line.strip_suffix('L').unwrap_or(line);
    if line.len() > DIGITS_MAX {
        return Err(Refused::TooMuch);
    }
    match line {
        "00" => return Ok(Node::Bool(false)),
        "01" => return Ok(Node::Bool(true)),
        _ => {}
    }
    let number = line.parse().map(Node::Int).ok();
    let large = || line.parse().ok().filter(|n: &f64| n.is_finite());
    number
        .or_else(|| large().map(Node::Float))
        .ok_or(Refused::Broken)
}

/// A whole number in two's complement, the lowest byte first.
fn long<'b>(bytes: &[u8]) -> Result<Node<'b>, Refused> {
    let negative = bytes.last().is_some_and(|last| *last >= 0x80);
    let fill = if negative { 0xff } else { 0 };
    if bytes.len() > DIGITS_MAX {
        return Err(Refused::TooMuch);
    }
    if let Some((low, [])) = bytes.split_at_checked(bytes.len().min(8)) {
        let mut all = [fill; 8];
        for (to, from) in all.iter_mut().zip(low) {
            *to = *from;
        }
        return Ok(Node::Int(i64::from_le_bytes(all)));
    }
    let digits = bytes.iter().rev();
    let size = digits.fold(0.0f64, |n, byte| {
        n * 256.0 + f64::from(if negative { !*byte } else { *byte })
    });
    Ok(Node::Float(if negative { -size - 1.0 } else { size }))
}

/// A text of protocol 0: bytes are Latin-1, `\uXXXX` and `\UXXXXXXXX` are what they say.
fn raw_unicode(line: &[u8]) -> Result<String, Refused> {
    let (mut out, mut rest) = (String::new(), line);
    while let Some((first, behind)) = rest.split_first() {
        let digits = match behind.first() {
            Some(b'u') if *first == b'\\' => 4,
            Some(b'U') if *first == b'\\' => 8,
            _ => 0,
        };
        if digits == 0 {
            out.push(char::from(*first));
            rest = behind;
            continue;
        }
        let hex = behind.get(1..=digits).ok_or(Refused::Broken)?;
        out.push(char_of(hex)?);
        rest = behind.get(digits + 1..).unwrap_or_default();
    }
    Ok(out)
}

fn char_of(hex: &[u8]) -> Result<char, Refused> {
    let code = u32::from_str_radix(text(hex)?, 16).map_err(|_| Refused::Broken)?;
    char::from_u32(code).ok_or(Refused::Broken)
}

/// A text of Python 2 in protocol 0: in quotes, with a backslash before what needs one.
fn quoted(line: &[u8]) -> Result<String, Refused> {
    let line = line.trim_ascii();
    let inner = match line {
        [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
        _ => return Err(Refused::Broken),
    };
    let (mut out, mut bytes) = (Vec::new(), inner.iter());
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        match bytes.next().ok_or(Refused::Broken)? {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'x' => {
                let hex = [bytes.next(), bytes.next()].map(|byte| byte.copied().unwrap_or(b'!'));
                out.push(u8::try_from(char_of(&hex)?).map_err(|_| Refused::Broken)?);
            }
            other => out.push(*other),
        }
    }
    String::from_utf8(out).map_err(|_| Refused::Broken)
}

/// Writes one pickle, of protocol 2, which every reader there is understands.
#[must_use]
pub fn write(value: &Value) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    put(&mut out, value);
    out.push(b'.');
    out
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::None => out.push(b'N'),
        Value::Bool(true) => out.push(0x88),
        Value::Bool(false) => out.push(0x89),
        Value::Int(n) => {
            if let Ok(small) = i32::try_from(*n) {
                out.push(b'J');
                out.extend(small.to_le_bytes());
            } else {
                out.extend([0x8a, 8]);
                out.extend(n.to_le_bytes());
            }
        }
        Value::Float(n) => {
            out.push(b'G');
            out.extend(n.to_be_bytes());
        }
        Value::Text(text) => put_text(out, text),
        Value::List(items) => {
            out.extend([b']', b'(']);
            items.iter().for_each(|item| put(out, item));
            out.push(b'e');
        }
        Value::Tuple(items) => {
            out.push(b'(');
            items.iter().for_each(|item| put(out, item));
            out.push(b't');
        }
        Value::Dict(items) => {
            out.extend([b'}', b'(']);
            for (key, value) in items {
                put(out, key);
                put(out, value);
            }
            out.push(b'u');
        }
        Value::Exception(exception) => {
            out.push(b'c');
            out.extend(exception.module.as_bytes());
            out.push(b'\n');
            out.extend(exception.class.as_bytes());
            out.extend(b"\n(");
            exception.args.iter().for_each(|arg| put(out, arg));
            out.extend(b"tR");
        }
    }
}

/// A text; one of more than 4 GiB, which nothing here can be, is cut.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let (len, text) = match u32::try_from(text.len()) {
        Ok(len) => (len, text),
        Err(_) => (0, ""),
    };
    out.push(b'X');
    out.extend(len.to_le_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Value {
        Value::texts(words.iter().copied())
    }

    #[test]
    fn what_fail2ban_client_sends_is_read() {
        // pickle.dumps(["status", "web"], 5)
        let sent = b"\x80\x05\x95\x14\0\0\0\0\0\0\0]\x94(\x8c\x06status\x94\x8c\x03web\x94e.";
        assert_eq!(read(sent), Ok(list(&["status", "web"])));
        // Protocol 2 of Python 3, and as Go's encoder writes it.
        let sent = b"\x80\x02]q\0(X\x06\0\0\0statusq\x01X\x03\0\0\0webq\x02e.";
        assert_eq!(read(sent), Ok(list(&["status", "web"])));
        assert_eq!(
            read(b"\x80\x02(U\x06statusU\x03webl."),
            Ok(list(&["status", "web"]))
        );
        // Protocol 0.
        assert_eq!(
            read(b"(lp0\nVstatus\np1\naVw\\u00e9b\np2\na."),
            Ok(list(&["status", "w\u{e9}b"]))
        );
        assert_eq!(read(b"(lS'a\\'b\\x41'\na."), Ok(list(&["a'bA"])));
    }

    #[test]
    fn numbers_are_read_in_all_their_ways() {
        for (bytes, value) in [
            (&b"K\x07."[..], Value::Int(7)),
            (b"M\x01\x02.", Value::Int(513)),
            (b"J\xff\xff\xff\xff.", Value::Int(-1)),
            (b"I12\n.", Value::Int(12)),
            (b"I01\n.", Value::Bool(true)),
            (b"L12L\n.", Value::Int(12)),
            (b"\x8a\x00.", Value::Int(0)),
            (b"\x8a\x02\x00\x80.", Value::Int(-32768)),
            (
                b"\x8a\x09\0\0\0\0\0\0\0\0\x01.",
                Value::Float(2f64.powi(64)),
            ),
            (b"F0.5\n.", Value::Float(0.5)),
            (b"G?\xe0\0\0\0\0\0\0.", Value::Float(0.5)),
        ] {
            assert_eq!(read(bytes), Ok(value), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_would_run_something_is_refused() {
        // cos\nsystem\n(S'id'\ntR. and its kin
        for bytes in [
            &b"cos\nsystem\n(S'id'\ntR."[..],
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
            b"(S'id'\nios\nsystem\n.",
            b"\x80\x02]}b.",
            b"\x80\x02)}\x81.",
            b"\x82\x01.",
            b"Pid\n.",
            b"]Q.",
        ] {
            assert!(
                matches!(read(bytes), Err(Refused::Opcode(_))),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn a_small_pickle_cannot_mean_an_endless_one() {
        // Each list holds the one before ten times.
        let mut laughs = b"]\x94".to_vec();
        for at in 0..12u8 {
            laughs.extend(b"](");
            laughs.extend([b'h', at].repeat(10));
            laughs.extend(b"e\x94");
        }
        laughs.push(b'.');
        assert_eq!(read(&laughs), Err(Refused::TooMuch));
        // A list that holds itself.
        assert_eq!(read(b"]\x94h\0a."), Err(Refused::TooMuch));
        // A long text, very often.
        let mut long = b"](X".to_vec();
        long.extend(100_000u32.to_le_bytes());
        long.extend([b'x'; 100_000]);
        long.push(0x94);
        long.extend(b"h\0".repeat(1000));
        long.extend(b"e.");
        assert_eq!(read(&long), Err(Refused::TooMuch));
        // Depth.
        assert_eq!(
            read(&[vec![b']'; 100], vec![b'a'; 99], vec![b'.']].concat()),
            Err(Refused::TooMuch)
        );
        // A length of what is not there allocates nothing.
        assert_eq!(read(b"X\xff\xff\xff\x7fx."), Err(Refused::Short));
        assert_eq!(
            read(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffx."),
            Err(Refused::Short)
        );
    }

    #[test]
    fn what_is_no_pickle_is_told_apart() {
        assert_eq!(read(b""), Err(Refused::Short));
        assert_eq!(read(b"."), Err(Refused::Broken));
        assert_eq!(read(b"\x80\x06N."), Err(Refused::Protocol(6)));
        assert_eq!(read(b"h\x01."), Err(Refused::Broken));
        assert_eq!(read(b"K\x01K\x02a."), Err(Refused::Broken));
        assert_eq!(read(b"(K\x01d."), Err(Refused::Broken));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let value = Value::Tuple(vec![
            Value::Int(0),
            Value::List(vec![
                Value::pair(Value::text("a"), Value::Int(1 << 40)),
                Value::Dict(vec![(Value::text("sshd"), list(&["192.0.2.7"]))]),
                Value::None,
                Value::Bool(true),
                Value::Float(-0.5),
                Value::List(Vec::new()),
                Value::Tuple(Vec::new()),
            ]),
        ]);
        assert_eq!(read(&write(&value)), Ok(value));
    }

    #[test]
    fn an_exception_is_written_as_a_call() {
        let error = Value::Exception(Exception::new("ValueError", "no"));
        assert_eq!(
            write(&error),
            b"\x80\x02cbuiltins\nValueError\n(X\x02\0\0\0notR."
        );
    }
}
