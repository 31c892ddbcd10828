//! Python's regular expressions, as far as a datepattern can hold them, to a tree.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex_syntax::hir::{Class as HirClass, HirKind};

/// The place where a date may begin: not inside a word. A character of private use, so that it can stand in the text.
pub(super) const EDGE_START: char = '\u{f8f0}';
/// The place where a date may end.
pub(super) const EDGE_END: char = '\u{f8f1}';

/// Deepest nesting of groups.
const DEPTH_MAX: usize = 100;

/// Unicode's decimal digits, letters and numbers, and blanks, beyond ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Digit,
    Word,
    Space,
}

/// One character out of a set.
#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    /// The answer for ASCII.
    ascii: u128,
    ranges: Vec<(char, char)>,
    kinds: Vec<(Kind, bool)>,
    negated: bool,
    fold: bool,
    /// Whether anything beyond ASCII may belong to it.
    pub(super) wide: bool,
}

impl Class {
    pub(super) fn of_byte(byte: u8) -> Self {
        let c = char::from(byte);
        Class {
            ranges: vec![(c, c)],
            ..Class::default()
        }
        .finished()
    }

    pub(super) fn has_ascii(&self, byte: u8) -> bool {
        byte < 128 && self.ascii >> byte & 1 == 1
    }

    pub(super) fn has(&self, c: char) -> bool {
        match u8::try_from(c) {
            Ok(byte) if byte < 128 => self.has_ascii(byte),
            Ok(_) | Err(_) => self.wide && self.tell(c),
        }
    }

    fn tell(&self, c: char) -> bool {
        let plain = |c: char| {
            self.ranges.iter().any(|&(from, to)| from <= c && c <= to)
                || self.kinds.iter().any(|&(kind, yes)| is(kind, c) == yes)
        };
        let found = plain(c)
            || self.fold
                && (plain(fold(c)) || c.to_lowercase().any(plain) || c.to_uppercase().any(plain));
        found != self.negated
    }

    fn finished(mut self) -> Self {
        let up_to = |byte: u8| u128::MAX >> (127 - u32::from(byte.min(127)));
        let mut ascii = 0u128;
        for &(from, to) in &self.ranges {
            if let Ok(from @ 0..=127) = u8::try_from(from) {
                let below = if from == 0 { 0 } else { up_to(from - 1) };
                ascii |= up_to(u8::try_from(to).unwrap_or(127)) & !below;
            }
        }
        for &(kind, yes) in &self.kinds {
            let members = (0u8..128).filter(|&byte| is(kind, char::from(byte)) == yes);
            ascii = members.fold(ascii, |set, byte| set | 1 << byte);
        }
        if self.fold {
            // A letter's two cases are 32 apart.
            let upper = up_to(b'Z') & !up_to(b'A' - 1);
            ascii |= ((ascii & upper) << 32) | ((ascii >> 32) & upper);
        }
        let letters_beyond = 1u128 << b'i' | 1 << b'k' | 1 << b's';
        self.wide = self.negated
            || !self.kinds.is_empty()
            || self.ranges.iter().any(|&(_, to)| !to.is_ascii())
            || self.fold && ascii & letters_beyond != 0;
        self.ascii = if self.negated { !ascii } else { ascii };
        self
    }
}

/// The ASCII letter that Python takes for the same when case does not matter.
fn fold(c: char) -> char {
    match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        '\u{130}' | '\u{131}' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

fn is(kind: Kind, c: char) -> bool {
    match kind {
        Kind::Digit => c.is_ascii_digit() || !c.is_ascii() && digit(c).is_some(),
        Kind::Word => is_word(c),
        // Python's blanks have the four separators of ASCII too.
        Kind::Space => c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c),
    }
}

/// Whether Python's `\w` takes it: letters and numbers, no combining marks.
pub(super) fn is_word(c: char) -> bool {
    static WORDS: OnceLock<Vec<(char, char)>> = OnceLock::new();
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    holds(WORDS.get_or_init(|| ranges(r"[\pL\pN_]")), c).is_some()
}

/// The value of a decimal digit of any script.
pub(super) fn digit(c: char) -> Option<u32> {
    static DIGITS: OnceLock<Vec<(char, char)>> = OnceLock::new();
    if c.is_ascii() {
        return c.to_digit(10);
    }
    // Digits come in rows of ten.
    holds(DIGITS.get_or_init(|| ranges(r"\d")), c).map(|from| (u32::from(c) - u32::from(from)) % 10)
}

fn holds(ranges: &[(char, char)], c: char) -> Option<char> {
    let after = ranges.partition_point(|&(from, _)| from <= c);
    let &(from, to) = ranges.get(after.checked_sub(1)?)?;
    (c <= to).then_some(from)
}

fn ranges(class: &str) -> Vec<(char, char)> {
    match regex_syntax::parse(class).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(HirClass::Unicode(set))) => set
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// What must be so between two characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    Start,
    LineStart,
    End,
    LineEnd,
    VeryEnd,
    /// `\b` (true), `\B`.
    Edge(bool),
    EdgeStart,
    EdgeEnd,
}

/// A piece of an expression.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Empty,
    Byte(u8),
    Class(Class),
    Seq(Vec<Node>),
    Alt(Vec<Node>),
    Group(usize, Box<Node>),
    /// `max` of `usize::MAX` is no bound.
    Repeat {
        node: Box<Node>,
        min: usize,
        max: usize,
        greedy: bool,
    },
    At(Spot),
    Ahead {
        node: Box<Node>,
        negated: bool,
    },
    /// `width`: characters.
    Behind {
        node: Box<Node>,
        negated: bool,
        width: usize,
    },
    Atomic(Box<Node>),
    Back {
        group: usize,
        fold: bool,
    },
    If {
        group: usize,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

/// An expression and the names of its groups.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) node: Node,
    /// Groups without the whole match.
    pub(super) groups: usize,
    /// In the order of their numbers.
    pub(super) names: Vec<(String, usize)>,
    /// Whether words are of ASCII (`(?a)`).
    pub(super) ascii_words: bool,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    multiline: bool,
    dotall: bool,
    verbose: bool,
    ascii: bool,
}

struct Parser<'p> {
    text: &'p str,
    at: usize,
    depth: usize,
    groups: usize,
    names: BTreeMap<String, usize>,
    open: Vec<usize>,
}

/// Reads an expression of Python's.
///
/// # Errors
/// What is wrong with it, in words that can follow "datepattern: ".
pub(super) fn parse(text: &str) -> Result<Parsed, String> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        groups: 0,
        names: BTreeMap::new(),
        open: Vec::new(),
    };
    let mut flags = Flags::default();
    while parser.global_flags(&mut flags)? {}
    let node = parser.alternatives(&mut flags)?;
    if parser.peek().is_some() {
        return Err(parser.wrong("a \")\" without its \"(\""));
    }
    let mut names: Vec<_> = parser.names.into_iter().collect();
    names.sort_by_key(|&(_, group)| group);
    Ok(Parsed {
        node,
        groups: parser.groups,
        names,
        ascii_words: flags.ascii,
    })
}

impl Parser<'_> {
    fn wrong(&self, what: &str) -> String {
        format!(
            "{what} at column {}",
            self.text.get(..self.at).map_or(0, |t| t.chars().count()) + 1
        )
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, what: &str) -> bool {
        let yes = self.rest().starts_with(what);
        if yes {
            self.at += what.len();
        }
        yes
    }

    /// `(?iu)` ahead of everything.
    fn global_flags(&mut self, flags: &mut Flags) -> Result<bool, String> {
        let Some(inside) = self.rest().strip_prefix("(?") else {
            return Ok(false);
        };
        let letters = inside.bytes().take_while(u8::is_ascii_lowercase).count();
        if letters == 0 || inside.as_bytes().get(letters) != Some(&b')') {
            return Ok(false);
        }
        self.at += 2;
        self.switch(flags)?;
        self.at += 1;
        Ok(true)
    }

    fn switch(&mut self, flags: &mut Flags) -> Result<(), String> {
        let mut on = true;
        while let Some(c) = self.peek() {
            match c {
                'i' => flags.fold = on,
                'm' => flags.multiline = on,
                's' => flags.dotall = on,
                'x' => flags.verbose = on,
                'a' => flags.ascii = on,
                'u' => flags.ascii = !on,
                '-' if on => on = false,
                ')' | ':' => return Ok(()),
                _ => return Err(self.wrong("an unknown flag")),
            }
            self.at += c.len_utf8();
        }
        Err(self.wrong("unclosed flags"))
    }

    fn alternatives(&mut self, flags: &mut Flags) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong("groups nested too deep"));
        }
        let mut branches = vec![self.sequence(flags)?];
        while self.eat("|") {
            branches.push(self.sequence(flags)?);
        }
        self.depth -= 1;
        Ok(match branches.pop() {
            Some(only) if branches.is_empty() => only,
            Some(last) => {
                branches.push(last);
                Node::Alt(branches)
            }
            None => Node::Empty,
        })
    }

    fn sequence(&mut self, flags: &mut Flags) -> Result<Node, String> {
        let mut nodes = Vec::new();
        while let Some(c) = self.peek() {
            if c == '|' || c == ')' {
                break;
            }
            if flags.verbose && c.is_whitespace() {
                self.next();
                continue;
            }
            if flags.verbose && c == '#' {
                while self.next().is_some_and(|c| c != '\n') {}
                continue;
            }
            let (atom, repeatable) = self.atom(*flags)?;
            nodes.push(self.repeated(atom, repeatable, *flags)?);
        }
        Ok(match nodes.pop() {
            Some(only) if nodes.is_empty() => only,
            Some(last) => {
                nodes.push(last);
                Node::Seq(nodes)
            }
            None => Node::Empty,
        })
    }

    fn repeated(&mut self, atom: Node, repeatable: bool, flags: Flags) -> Result<Node, String> {
        if flags.verbose {
            while self.peek().is_some_and(char::is_whitespace) {
                self.next();
            }
        }
        let Some((min, max)) = self.quantifier()? else {
            return Ok(atom);
        };
        if !repeatable {
            return Err(self.wrong("nothing to repeat"));
        }
        let greedy = !self.eat("?");
        let possessive = greedy && self.eat("+");
        let here = self.at;
        if self.quantifier()?.is_some() {
            self.at = here;
            return Err(self.wrong("a repeat of a repeat"));
        }
        let node = Node::Repeat {
            node: Box::new(atom),
            min,
            max,
            greedy,
        };
        Ok(if possessive {
            Node::Atomic(Box::new(node))
        } else {
            node
        })
    }

    fn quantifier(&mut self) -> Result<Option<(usize, usize)>, String> {
        Ok(match self.peek() {
            Some('*') => {
                self.at += 1;
                Some((0, usize::MAX))
            }
            Some('+') => {
                self.at += 1;
                Some((1, usize::MAX))
            }
            Some('?') => {
                self.at += 1;
                Some((0, 1))
            }
            Some('{') => {
                // Anything but {n}, {n,}, {,m}, {n,m} is text.
                let Some((inside, _)) = self.rest().get(1..).and_then(|r| r.split_once('}')) else {
                    return Ok(None);
                };
                let (low, high) = inside.split_once(',').unwrap_or((inside, inside));
                let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
                if inside.is_empty() || !digits(low) || !digits(high) {
                    return Ok(None);
                }
                let number = |t: &str, none| {
                    if t.is_empty() {
                        Ok(none)
                    } else {
                        t.parse::<usize>()
                    }
                };
                let (Ok(min), Ok(max)) = (number(low, 0), number(high, usize::MAX)) else {
                    return Err(self.wrong("too large a repeat"));
                };
                if max < min {
                    return Err(self.wrong("a repeat with its ends the wrong way round"));
                }
                self.at += inside.len() + 2;
                Some((min, max))
            }
            Some(_) | None => None,
        })
    }

    /// The next piece, and whether it may be repeated.
    fn atom(&mut self, flags: Flags) -> Result<(Node, bool), String> {
        let Some(c) = self.next() else {
            return Ok((Node::Empty, false));
        };
        Ok(match c {
            EDGE_START => (Node::At(Spot::EdgeStart), false),
            EDGE_END => (Node::At(Spot::EdgeEnd), false),
            '^' => (
                if flags.multiline {
                    Node::At(Spot::LineStart)
                } else {
                    Node::At(Spot::Start)
                },
                false,
            ),
            '$' => (
                if flags.multiline {
                    Node::At(Spot::LineEnd)
                } else {
                    Node::At(Spot::End)
                },
                false,
            ),
            '.' => {
                let mut class = Class {
                    negated: true,
                    ..Class::default()
                };
                if !flags.dotall {
                    class.ranges.push(('\n', '\n'));
                }
                (Node::Class(class.finished()), true)
            }
            '[' => (self.class(flags)?, true),
            '(' => self.group(flags)?,
            '\\' => self.escape(flags)?,
            '*' | '+' | '?' => return Err(self.wrong("nothing to repeat")),
            '{' => {
                self.at -= 1;
                if self.quantifier()?.is_some() {
                    return Err(self.wrong("nothing to repeat"));
                }
                self.at += 1;
                (literal(c, false), true)
            }
            other => (literal(other, flags.fold), true),
        })
    }

    fn group(&mut self, mut flags: Flags) -> Result<(Node, bool), String> {
        let wrong = self.wrong("a group of an unknown kind");
        let node = if !self.eat("?") {
            self.capture(None, &mut flags)?
        } else if self.eat(":") {
            self.alternatives(&mut flags)?
        } else if self.eat("P<") {
            let name = self.until('>')?;
            self.capture(Some(name), &mut flags)?
        } else if self.eat("P=") {
            let name = self.until(')')?;
            return Ok((self.back(&name, flags)?, true));
        } else if self.eat("=") {
            Node::Ahead {
                node: Box::new(self.alternatives(&mut flags)?),
                negated: false,
            }
        } else if self.eat("!") {
            Node::Ahead {
                node: Box::new(self.alternatives(&mut flags)?),
                negated: true,
            }
        } else if self.rest().starts_with("<=") || self.rest().starts_with("<!") {
            let negated = self.rest().starts_with("<!");
            self.at += 2;
            let node = self.alternatives(&mut flags)?;
            let width =
                width(&node).ok_or_else(|| self.wrong("a look behind that has no fixed width"))?;
            Node::Behind {
                node: Box::new(node),
                negated,
                width,
            }
        } else if self.eat(">") {
            Node::Atomic(Box::new(self.alternatives(&mut flags)?))
        } else if self.eat("#") {
            self.until(')')?;
            return Ok((Node::Empty, false));
        } else if self.eat("(") {
            let name = self.until(')')?;
            let group = self.known(&name)?;
            let yes = self.sequence(&mut flags)?;
            let no = if self.eat("|") {
                self.sequence(&mut flags)?
            } else {
                Node::Empty
            };
            Node::If {
                group,
                yes: Box::new(yes),
                no: Box::new(no),
            }
        } else {
            self.switch(&mut flags)?;
            if !self.eat(":") {
                return Err(wrong);
            }
            self.alternatives(&mut flags)?
        };
        if !self.eat(")") {
            return Err(self.wrong("an unclosed group"));
        }
        // A group of one piece is repeated as that piece.
        Ok((node, true))
    }

    fn capture(&mut self, name: Option<String>, flags: &mut Flags) -> Result<Node, String> {
        self.groups += 1;
        let group = self.groups;
        if let Some(name) = name {
            let fine = name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit());
            if name.is_empty() || !fine {
                return Err(self.wrong("a group's name that is none"));
            }
            if self.names.insert(name.clone(), group).is_some() {
                return Err(self.wrong(&format!("a second group (or code) of the name {name}")));
            }
        }
        self.open.push(group);
        let node = self.alternatives(flags)?;
        self.open.pop();
        Ok(Node::Group(group, Box::new(node)))
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let Some((inside, _)) = self.rest().split_once(end) else {
            return Err(self.wrong("an unclosed group"));
        };
        let inside = inside.to_owned();
        self.at += inside.len() + end.len_utf8();
        Ok(inside)
    }

    fn known(&self, name: &str) -> Result<usize, String> {
        let group = match name.parse::<usize>() {
            Ok(number) => Some(number).filter(|&n| n > 0 && n <= self.groups),
            Err(_) => self.names.get(name).copied(),
        };
        group.ok_or_else(|| self.wrong(&format!("no group {name} before it")))
    }

    fn back(&self, name: &str, flags: Flags) -> Result<Node, String> {
        let group = self.known(name)?;
        if self.open.contains(&group) {
            return Err(self.wrong("a reference to an open group"));
        }
        Ok(Node::Back {
            group,
            fold: flags.fold,
        })
    }

    fn escape(&mut self, flags: Flags) -> Result<(Node, bool), String> {
        let Some(c) = self.peek() else {
            return Err(self.wrong("a \"\\\" at the end"));
        };
        let zero_width = match c {
            'A' => Some(Node::At(Spot::Start)),
            'Z' => Some(Node::At(Spot::VeryEnd)),
            'b' => Some(Node::At(Spot::Edge(true))),
            'B' => Some(Node::At(Spot::Edge(false))),
            _ => None,
        };
        if let Some(node) = zero_width {
            self.next();
            return Ok((node, false));
        }
        if ('1'..='9').contains(&c) {
            let rest = self.rest().as_bytes();
            let octal = rest.len() >= 3
                && rest.iter().take(3).all(|b| (b'0'..=b'7').contains(b))
                && c <= '3';
            if !octal {
                let digits = rest
                    .iter()
                    .take(2)
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                let name = self.rest().get(..digits).unwrap_or_default().to_owned();
                self.at += digits;
                return Ok((self.back(&name, flags)?, true));
            }
        }
        if let Some(kind) = kind(c) {
            self.next();
            return Ok((Node::Class(of_kind(kind, flags)), true));
        }
        Ok((literal(self.escaped()?, flags.fold), true))
    }

    /// The character behind a backslash, in a class or out of one.
    fn escaped(&mut self) -> Result<char, String> {
        let Some(c) = self.next() else {
            return Err(self.wrong("a \"\\\" at the end"));
        };
        let hex = |parser: &mut Self, digits: usize| {
            let text = parser.rest().get(..digits).unwrap_or_default();
            let code = u32::from_str_radix(text, 16).ok().and_then(char::from_u32);
            parser.at += text.len();
            code.ok_or_else(|| parser.wrong("an escape that is not a character"))
        };
        match c {
            'n' => Ok('\n'),
            't' => Ok('\t'),
            'r' => Ok('\r'),
            'f' => Ok('\x0c'),
            'v' => Ok('\x0b'),
            'a' => Ok('\x07'),
            'x' => hex(self, 2),
            'u' => hex(self, 4),
            'U' => hex(self, 8),
            '0'..='7' => {
                let more = self
                    .rest()
                    .bytes()
                    .take(2)
                    .take_while(|b| (b'0'..=b'7').contains(b));
                let more = more.count();
                let text = self
                    .text
                    .get(self.at - 1..self.at + more)
                    .unwrap_or_default();
                let code = u32::from_str_radix(text, 8).ok().and_then(char::from_u32);
                self.at += more;
                code.ok_or_else(|| self.wrong("an escape that is not a character"))
            }
            c if c.is_ascii_alphanumeric() => Err(self.wrong("an unknown escape")),
            other => Ok(other),
        }
    }

    fn class(&mut self, flags: Flags) -> Result<Node, String> {
        let mut class = Class {
            fold: flags.fold,
            ..Class::default()
        };
        class.negated = self.eat("^");
        let mut first = true;
        loop {
            let Some(c) = self.next() else {
                return Err(self.wrong("an unclosed \"[\""));
            };
            if c == ']' && !first {
                break;
            }
            first = false;
            let Some(low) = self.member(c, &mut class, flags)? else {
                continue;
            };
            let range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            if !range {
                class.ranges.push((low, low));
                continue;
            }
            self.at += 1;
            let Some(c) = self.next() else {
                return Err(self.wrong("an unclosed \"[\""));
            };
            match self.member(c, &mut class, flags)? {
                Some(high) if low <= high => class.ranges.push((low, high)),
                Some(_) | None => return Err(self.wrong("a range that is none")),
            }
        }
        Ok(Node::Class(class.finished()))
    }

    /// A character of a class; `None` when it was a kind, which is put in.
    fn member(&mut self, c: char, class: &mut Class, flags: Flags) -> Result<Option<char>, String> {
        if c != '\\' {
            return Ok(Some(c));
        }
        match self.peek() {
            Some('b') => {
                self.next();
                Ok(Some('\x08'))
            }
            Some(letter) if kind(letter).is_some() => {
                self.next();
                if let Some((kind, yes)) = kind(letter) {
                    if flags.ascii {
                        let ascii = of_kind((kind, yes), flags);
                        let members = (0u8..128).filter(|&b| ascii.has_ascii(b));
                        class
                            .ranges
                            .extend(members.map(|b| (char::from(b), char::from(b))));
                        if !yes {
                            class.ranges.push(('\u{80}', char::MAX));
                        }
                    } else {
                        class.kinds.push((kind, yes));
                    }
                }
                Ok(None)
            }
            Some(_) | None => self.escaped().map(Some),
        }
    }
}

fn kind(letter: char) -> Option<(Kind, bool)> {
    Some(match letter {
        'd' => (Kind::Digit, true),
        'D' => (Kind::Digit, false),
        'w' => (Kind::Word, true),
        'W' => (Kind::Word, false),
        's' => (Kind::Space, true),
        'S' => (Kind::Space, false),
        _ => return None,
    })
}

fn of_kind((kind, yes): (Kind, bool), flags: Flags) -> Class {
    if !flags.ascii {
        return Class {
            kinds: vec![(kind, yes)],
            ..Class::default()
        }
        .finished();
    }
    let members = (0u8..128).map(char::from).filter(|&c| {
        // Python's ASCII blanks are the plain six.
        is(kind, c) && !(kind == Kind::Space && ('\u{1c}'..='\u{1f}').contains(&c))
    });
    let ranges = members.map(|c| (c, c)).collect();
    Class {
        ranges,
        negated: !yes,
        ..Class::default()
    }
    .finished()
}

fn literal(c: char, fold: bool) -> Node {
    match u8::try_from(c) {
        Ok(byte) if byte < 128 && !(fold && byte.is_ascii_alphabetic()) => Node::Byte(byte),
        Ok(_) | Err(_) => Node::Class(
            Class {
                ranges: vec![(c, c)],
                fold,
                ..Class::default()
            }
            .finished(),
        ),
    }
}

/// How many characters a node takes, if always the same number.
fn width(node: &Node) -> Option<usize> {
    match node {
        Node::Byte(_) | Node::Class(_) => Some(1),
        Node::Seq(nodes) => nodes.iter().map(width).sum(),
        Node::Alt(nodes) => {
            let mut widths = nodes.iter().map(width);
            let first = widths.next()??;
            widths.all(|w| w == Some(first)).then_some(first)
        }
        Node::Group(_, node) | Node::Atomic(node) => width(node),
        Node::Repeat { node, min, max, .. } => {
            (min == max).then(|| width(node))??.checked_mul(*min)
        }
        Node::Back { .. } => None,
        Node::If { yes, no, .. } => {
            let first = width(yes)?;
            (width(no)? == first).then_some(first)
        }
        Node::Empty | Node::At(_) | Node::Ahead { .. } | Node::Behind { .. } => Some(0),
    }
}
