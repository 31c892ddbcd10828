//! The syntax of Python's `re` (3.11), read into a tree. What Python refuses is refused, with the place.

use super::ast::{At, Class, Greed, Item, Kind, Node, Set};
use super::error::{Mistake, PatternError};

/// Longest text of a pattern, bytes, its tags written out. The longest of fail2ban's own filters has 3 KiB.
const TEXT_MAX: usize = 64 * 1024;
/// Groups within groups. Each takes some hundred bytes of stack, here and where the tree is walked.
const DEPTH_MAX: u32 = 200;
/// Python's own bound of a count is 2^32; nobody repeats a piece more often than this.
const COUNT_MAX: u32 = 1 << 24;

pub(crate) struct Parsed {
    pub(crate) root: Node,
    /// How many groups capture.
    pub(crate) groups: u32,
    /// Those that have a name, in the order they open, each with its number.
    pub(crate) names: Vec<(Box<str>, u32)>,
    /// Groups that others ask about, and whether for their text; else for whether they took part.
    pub(crate) referenced: Vec<(u32, bool)>,
    /// Whether words are of ASCII for all of it (`(?a)`).
    pub(crate) ascii: bool,
}

#[derive(Clone, Copy)]
struct Flags {
    fold: bool,
    multiline: bool,
    dot_all: bool,
    verbose: bool,
    ascii: bool,
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
    flags: Flags,
    /// By number less one.
    groups: Vec<GroupState>,
    names: Vec<(Box<str>, u32)>,
    referenced: Vec<(u32, bool)>,
    /// Conditions on groups by number, looked at when all groups are known.
    awaited: Vec<(u32, usize)>,
    /// Inside a lookbehind: groups from here on were opened in it.
    behind: Option<u32>,
    widths: bool,
}

struct GroupState {
    open: bool,
    width: Width,
}

/// Fewest and most characters.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Width(u64, u64);

/// What a quantifier would repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Repeat,
    Item,
}

pub(crate) fn parse(text: &str, multiline: bool) -> Result<Parsed, PatternError> {
    if text.len() > TEXT_MAX {
        return Err(PatternError::new(0, Mistake::TooLong { max: TEXT_MAX }));
    }
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        flags: Flags {
            fold: false,
            multiline,
            dot_all: false,
            verbose: false,
            ascii: false,
        },
        groups: Vec::new(),
        names: Vec::new(),
        referenced: Vec::new(),
        awaited: Vec::new(),
        behind: None,
        widths: text.contains("(?<"),
    };
    let root = parser.either(true)?;
    if parser.at < text.len() {
        return Err(parser.error(Mistake::Unopened));
    }
    let groups = parser.count();
    if let Some(&(group, at)) = parser.awaited.iter().find(|(group, _)| *group > groups) {
        return Err(PatternError::new(
            at,
            Mistake::NoSuchGroup(group.to_string()),
        ));
    }
    Ok(Parsed {
        root,
        groups,
        names: parser.names,
        referenced: parser.referenced,
        ascii: parser.flags.ascii,
    })
}

impl Parser<'_> {
    fn error(&self, mistake: Mistake) -> PatternError {
        PatternError::new(self.at, mistake)
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

    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn digits(&mut self, most: usize, radix: u32) -> &str {
        let from = self.at;
        while self.at - from < most && self.peek().is_some_and(|c| c.is_digit(radix)) {
            self.at += 1;
        }
        self.text.get(from..self.at).unwrap_or_default()
    }

    fn node(&self, kind: Kind, from: usize) -> Node {
        Node {
            kind,
            span: from..self.at,
        }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.groups.len()).unwrap_or(u32::MAX)
    }

    /// Alternatives up to a closing parenthesis or the end.
    fn either(&mut self, top: bool) -> Result<Node, PatternError> {
        let from = self.at;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(Mistake::TooDeep { max: DEPTH_MAX }));
        }
        let mut branches = vec![self.concat(top)?];
        while self.eat("|") {
            branches.push(self.concat(false)?);
        }
        self.depth -= 1;
        Ok(match branches.pop() {
            Some(only) if branches.is_empty() => only,
            Some(last) => {
                branches.push(last);
                self.node(Kind::Either(branches), from)
            }
            None => self.node(Kind::Empty, from),
        })
    }

    fn concat(&mut self, first: bool) -> Result<Node, PatternError> {
        let from = self.at;
        let mut nodes: Vec<Node> = Vec::new();
        let mut last = Last::Nothing;
        while let Some(c) = self.peek() {
            let start = self.at;
            match c {
                '|' | ')' => break,
                '\t'..='\r' | ' ' if self.flags.verbose => {
                    self.at += 1;
                }
                '#' if self.flags.verbose => {
                    let end = self
                        .rest()
                        .find('\n')
                        .map_or(self.text.len(), |n| self.at + n + 1);
                    self.at = end;
                }
                '*' | '+' | '?' | '{' => {
                    if let Some((min, max)) = self.quantifier()? {
                        let greed = if self.eat("?") {
                            Greed::Least
                        } else if self.eat("+") {
                            Greed::Own
                        } else {
                            Greed::Most
                        };
                        let body = match last {
                            Last::Item => nodes.pop(),
                            Last::Repeat => {
                                return Err(PatternError::new(start, Mistake::RepeatedTwice));
                            }
                            Last::Nothing => None,
                        };
                        let Some(body) = body else {
                            return Err(PatternError::new(start, Mistake::NothingToRepeat));
                        };
                        let span = body.span.start..self.at;
                        let kind = Kind::Repeat {
                            body: Box::new(body),
                            min,
                            max,
                            greed,
                        };
                        nodes.push(Node { kind, span });
                        last = Last::Repeat;
                    } else {
                        self.at += 1;
                        nodes.push(self.node(Kind::Char('{'), start));
                        last = Last::Item;
                    }
                }
                '(' => {
                    let may_set = first && nodes.is_empty();
                    if let Some(node) = self.group(may_set)? {
                        nodes.push(node);
                        last = Last::Item;
                    }
                }
                _ => {
                    let kind = self.single()?;
                    last = if matches!(kind, Kind::At(_)) {
                        Last::Nothing
                    } else {
                        Last::Item
                    };
                    nodes.push(self.node(kind, start));
                }
            }
        }
        Ok(match nodes.pop() {
            None => self.node(Kind::Empty, from),
            Some(only) if nodes.is_empty() => only,
            Some(last) => {
                nodes.push(last);
                self.node(Kind::Concat(nodes), from)
            }
        })
    }

    /// `None`: a brace that is text.
    fn quantifier(&mut self) -> Result<Option<(u32, Option<u32>)>, PatternError> {
        let start = self.at;
        match self.next() {
            Some('*') => return Ok(Some((0, None))),
            Some('+') => return Ok(Some((1, None))),
            Some('?') => return Ok(Some((0, Some(1)))),
            _ => {}
        }
        if self.peek() == Some('}') {
            self.at = start;
            return Ok(None);
        }
        let low = self.digits(usize::MAX, 10).to_owned();
        let high = if self.eat(",") {
            self.digits(usize::MAX, 10).to_owned()
        } else {
            low.clone()
        };
        if !self.eat("}") {
            self.at = start;
            return Ok(None);
        }
        let number = |digits: &str| -> Result<Option<u32>, PatternError> {
            if digits.is_empty() {
                return Ok(None);
            }
            let count = digits.parse().ok().filter(|&count| count <= COUNT_MAX);
            count
                .map(Some)
                .ok_or_else(|| PatternError::new(start, Mistake::Count { max: COUNT_MAX }))
        };
        let min = number(&low)?.unwrap_or(0);
        let max = number(&high)?;
        if max.is_some_and(|max| max < min) {
            return Err(PatternError::new(start, Mistake::MinAboveMax));
        }
        Ok(Some((min, max)))
    }

    /// A character, a class or a place.
    fn single(&mut self) -> Result<Kind, PatternError> {
        Ok(match self.next() {
            Some('^') if self.flags.multiline => Kind::At(At::LineStart),
            Some('^') => Kind::At(At::Start),
            Some('$') if self.flags.multiline => Kind::At(At::LineEnd),
            Some('$') => Kind::At(At::LastLineEnd),
            Some('.') if self.flags.dot_all => Kind::Set(Box::new(self.set(&[], true))),
            Some('.') => Kind::Set(Box::new(self.set(&[Item::Range('\n', '\n')], true))),
            Some('[') => self.class()?,
            Some('\\') => self.escape()?,
            Some(c) => self.char(c),
            None => Kind::Empty,
        })
    }

    fn set(&self, items: &[Item], not: bool) -> Set {
        Set::new(items, not, self.flags.fold, self.flags.ascii)
    }

    fn char(&self, c: char) -> Kind {
        let caseless = !self.flags.fold || !c.is_alphabetic();
        if caseless {
            return Kind::Char(c);
        }
        Kind::Set(Box::new(self.set(&[Item::Range(c, c)], false)))
    }

    fn escape(&mut self) -> Result<Kind, PatternError> {
        let start = self.at - 1;
        let ascii = self.flags.ascii;
        let Some(c) = self.next() else {
            return Err(PatternError::new(start, Mistake::LoneBackslash));
        };
        Ok(match c {
            'A' => Kind::At(At::Start),
            'Z' => Kind::At(At::End),
            'b' => Kind::At(At::Bound { not: false, ascii }),
            'B' => Kind::At(At::Bound { not: true, ascii }),
            '0' => {
                let digits = self.digits(2, 8).to_owned();
                let code = u32::from_str_radix(&digits, 8).unwrap_or(0);
                self.char(char::from_u32(code).unwrap_or('\0'))
            }
            '1'..='9' => {
                // Three octal digits are a character, everything else is a group of one or two digits.
                let octal = self.text.get(self.at - 1..self.at + 2).unwrap_or_default();
                if octal.len() == 3 && octal.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
                    self.at += 2;
                    let code = u32::from_str_radix(octal, 8)
                        .ok()
                        .filter(|&code| code <= 0o377);
                    let c = code.and_then(char::from_u32);
                    return c.map(|c| self.char(c)).ok_or_else(|| {
                        PatternError::new(start, Mistake::BadEscape(octal.to_owned()))
                    });
                }
                let from = self.at - 1;
                self.digits(1, 10);
                let digits = self.text.get(from..self.at).unwrap_or_default();
                let group = digits.parse().unwrap_or(u32::MAX);
                return self.back(group, start);
            }
            c => match class_of(c) {
                Some(class) => Kind::Set(Box::new(self.set(&[Item::Class(class)], false))),
                None => {
                    let c = self.escaped_char(c, start)?;
                    self.char(c)
                }
            },
        })
    }

    fn back(&mut self, group: u32, start: usize) -> Result<Kind, PatternError> {
        let number = usize::try_from(group).unwrap_or(usize::MAX);
        let Some(state) = number.checked_sub(1).and_then(|i| self.groups.get(i)) else {
            return Err(PatternError::new(
                start,
                Mistake::NoSuchGroup(group.to_string()),
            ));
        };
        if state.open || self.behind.is_some_and(|first| group > first) {
            return Err(PatternError::new(start, Mistake::OpenGroup));
        }
        self.refer(group, true);
        Ok(Kind::Back {
            group,
            fold: self.flags.fold,
        })
    }

    fn refer(&mut self, group: u32, text: bool) {
        match self
            .referenced
            .iter_mut()
            .find(|(known, _)| *known == group)
        {
            Some((_, for_text)) => *for_text |= text,
            None => self.referenced.push((group, text)),
        }
    }

    /// Escapes that mean one character, in and out of classes. `c` is behind the backslash and already taken.
    fn escaped_char(&mut self, c: char, start: usize) -> Result<char, PatternError> {
        let hex = match c {
            'a' => return Ok('\x07'),
            'f' => return Ok('\x0c'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            c if c.is_ascii_alphanumeric() => 0,
            c => return Ok(c),
        };
        let digits = self.digits(hex, 16).to_owned();
        let code = u32::from_str_radix(&digits, 16)
            .ok()
            .filter(|_| digits.len() == hex);
        code.and_then(char::from_u32).ok_or_else(|| {
            let escape = self.text.get(start + 1..self.at).unwrap_or_default();
            PatternError::new(start, Mistake::BadEscape(escape.to_owned()))
        })
    }

    fn class(&mut self) -> Result<Kind, PatternError> {
        let start = self.at - 1;
        let not = self.eat("^");
        let mut items = Vec::new();
        let first = self.at;
        loop {
            let from = self.at;
            let Some(c) = self.next() else {
                return Err(PatternError::new(start, Mistake::UnclosedClass));
            };
            if c == ']' && from != first {
                break;
            }
            let low = self.class_item(c, from)?;
            if self.peek() != Some('-') {
                items.push(low);
                continue;
            }
            self.at += 1;
            let to = self.at;
            match self.next() {
                None => return Err(PatternError::new(start, Mistake::UnclosedClass)),
                Some(']') => {
                    items.push(low);
                    items.push(Item::Range('-', '-'));
                    break;
                }
                Some(c) => {
                    let high = self.class_item(c, to)?;
                    let (Item::Range(low, _), Item::Range(high, _)) = (low, high) else {
                        return Err(PatternError::new(from, Mistake::BadRange));
                    };
                    if high < low {
                        return Err(PatternError::new(from, Mistake::BadRange));
                    }
                    items.push(Item::Range(low, high));
                }
            }
        }
        if let ([Item::Range(low, high)], false) = (items.as_slice(), not)
            && low == high
        {
            return Ok(self.char(*low));
        }
        Ok(Kind::Set(Box::new(self.set(&items, not))))
    }

    fn class_item(&mut self, c: char, start: usize) -> Result<Item, PatternError> {
        if c != '\\' {
            return Ok(Item::Range(c, c));
        }
        let Some(c) = self.next() else {
            return Err(PatternError::new(start, Mistake::UnclosedClass));
        };
        if let Some(class) = class_of(c) {
            return Ok(Item::Class(class));
        }
        let c = match c {
            'b' => '\x08',
            '0'..='7' => {
                self.at -= 1;
                let digits = self.digits(3, 8).to_owned();
                let code = u32::from_str_radix(&digits, 8)
                    .ok()
                    .filter(|&code| code <= 0o377);
                code.and_then(char::from_u32)
                    .ok_or_else(|| PatternError::new(start, Mistake::BadEscape(digits)))?
            }
            c => self.escaped_char(c, start)?,
        };
        Ok(Item::Range(c, c))
    }

    /// What begins with a parenthesis. `None`: a comment, or flags for all of the pattern.
    fn group(&mut self, may_set: bool) -> Result<Option<Node>, PatternError> {
        let start = self.at;
        self.at += 1;
        if !self.eat("?") {
            return self.capture(None, start).map(Some);
        }
        let Some(c) = self.next() else {
            return Err(PatternError::new(start, Mistake::Unclosed));
        };
        match c {
            'P' if self.eat("<") => {
                let name = self.name('>')?;
                self.capture(Some(name), start).map(Some)
            }
            'P' if self.eat("=") => {
                let name = self.name(')')?;
                let group = self.named(&name, start)?;
                let kind = self.back(group, start)?;
                Ok(Some(self.node(kind, start)))
            }
            ':' => self.inside(start).map(Some),
            '#' => match self.rest().find(')') {
                Some(end) => {
                    self.at += end + 1;
                    Ok(None)
                }
                None => Err(PatternError::new(start, Mistake::Unclosed)),
            },
            '>' => {
                let body = self.inside(start)?;
                Ok(Some(self.node(Kind::Atomic(Box::new(body)), start)))
            }
            '=' | '!' => {
                let body = Box::new(self.inside(start)?);
                let kind = Kind::Look {
                    not: c == '!',
                    behind: None,
                    body,
                };
                Ok(Some(self.node(kind, start)))
            }
            '<' => self.behind(start).map(Some),
            '(' => self.condition(start).map(Some),
            c => {
                self.at -= c.len_utf8();
                self.flags(may_set, start)
            }
        }
    }

    /// Up to the closing parenthesis, which is taken.
    fn inside(&mut self, start: usize) -> Result<Node, PatternError> {
        let flags = self.flags;
        let mut body = self.either(false)?;
        self.flags = flags;
        self.close(start)?;
        body.span = start..self.at;
        Ok(body)
    }

    fn close(&mut self, start: usize) -> Result<(), PatternError> {
        if self.eat(")") {
            return Ok(());
        }
        Err(PatternError::new(start, Mistake::Unclosed))
    }

    fn capture(&mut self, name: Option<Box<str>>, start: usize) -> Result<Node, PatternError> {
        self.groups.push(GroupState {
            open: true,
            width: Width(0, 0),
        });
        let number = self.count();
        if let Some(name) = name {
            if self.names.iter().any(|(known, _)| *known == name) {
                return Err(PatternError::new(start, Mistake::NameTwice(name.into())));
            }
            self.names.push((name, number));
        }
        let body = self.inside(start)?;
        let width = if self.widths {
            self.width(&body)
        } else {
            Width(0, 0)
        };
        let index = usize::try_from(number).unwrap_or(usize::MAX) - 1;
        if let Some(group) = self.groups.get_mut(index) {
            *group = GroupState { open: false, width };
        }
        Ok(self.node(Kind::Group(number, Box::new(body)), start))
    }

    fn name(&mut self, end: char) -> Result<Box<str>, PatternError> {
        let name = self
            .rest()
            .find(end)
            .and_then(|len| self.rest().get(..len))
            .ok_or_else(|| self.error(Mistake::Unclosed))?
            .to_owned();
        if !is_name(&name) {
            return Err(self.error(Mistake::BadName(name)));
        }
        self.at += name.len() + end.len_utf8();
        Ok(name.into())
    }

    fn named(&self, name: &str, start: usize) -> Result<u32, PatternError> {
        self.names
            .iter()
            .find(|(known, _)| **known == *name)
            .map(|&(_, number)| number)
            .ok_or_else(|| PatternError::new(start, Mistake::NoSuchGroup(name.to_owned())))
    }

    fn behind(&mut self, start: usize) -> Result<Node, PatternError> {
        let not = match self.next() {
            Some('=') => false,
            Some('!') => true,
            _ => return Err(PatternError::new(start, Mistake::UnknownExtension)),
        };
        let outer = self.behind;
        self.behind = outer.or(Some(self.count()));
        let body = self.inside(start)?;
        self.behind = outer;
        let Width(min, max) = self.width(&body);
        let width = u32::try_from(min).ok().filter(|_| min == max);
        let Some(width) = width else {
            return Err(PatternError::new(start, Mistake::BehindVaries));
        };
        let kind = Kind::Look {
            not,
            behind: Some(width),
            body: Box::new(body),
        };
        Ok(self.node(kind, start))
    }

    fn condition(&mut self, start: usize) -> Result<Node, PatternError> {
        let name_at = self.at;
        let name = self
            .rest()
            .find(')')
            .and_then(|len| self.rest().get(..len))
            .ok_or_else(|| self.error(Mistake::Unclosed))?
            .to_owned();
        let group = if is_name(&name) {
            self.named(&name, start)?
        } else {
            let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
            let number: Option<u32> = name.parse().ok().filter(|&n| digits && n > 0);
            let Some(number) = number else {
                return Err(self.error(Mistake::BadName(name)));
            };
            self.awaited.push((number, name_at));
            number
        };
        if self.behind.is_some_and(|first| group > first) {
            return Err(PatternError::new(start, Mistake::OpenGroup));
        }
        self.refer(group, false);
        self.at += name.len() + 1;
        let flags = self.flags;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(Mistake::TooDeep { max: DEPTH_MAX }));
        }
        let yes = Box::new(self.concat(false)?);
        let no = Box::new(if self.eat("|") {
            self.concat(false)?
        } else {
            self.node(Kind::Empty, self.at)
        });
        self.depth -= 1;
        self.flags = flags;
        if self.peek() == Some('|') {
            return Err(self.error(Mistake::ThirdBranch));
        }
        self.close(start)?;
        Ok(self.node(Kind::If { group, yes, no }, start))
    }

    /// `(?i)` at the very start, `(?i:...)`, `(?i-s:...)` anywhere. The character at hand is behind the question mark.
    fn flags(&mut self, may_set: bool, start: usize) -> Result<Option<Node>, PatternError> {
        let outer = self.flags;
        let mut flags = outer;
        let mut on = true;
        let mut any = false;
        let (mut ascii, mut unicode) = (false, false);
        let mut switched_on = String::new();
        loop {
            let c = self.next();
            if let Some(letter) = c {
                if on {
                    switched_on.push(letter);
                } else if switched_on.contains(letter) {
                    return Err(PatternError::new(start, Mistake::UnknownExtension));
                }
            }
            match c {
                Some('i') => flags.fold = on,
                Some('m') => flags.multiline = on,
                Some('s') => flags.dot_all = on,
                Some('x') => flags.verbose = on,
                Some('a') if on => ascii = true,
                Some('u') if on => unicode = true,
                Some('-') if on => {
                    on = false;
                    any = false;
                    continue;
                }
                Some(':') if any => break,
                Some(')') if any && on => break,
                None => return Err(PatternError::new(start, Mistake::Unclosed)),
                _ => return Err(PatternError::new(start, Mistake::UnknownExtension)),
            }
            any = true;
        }
        if ascii && unicode {
            return Err(PatternError::new(start, Mistake::UnknownExtension));
        }
        if ascii || unicode {
            flags.ascii = ascii;
        }
        if self
            .text
            .get(..self.at)
            .is_some_and(|head| head.ends_with(')'))
        {
            if !may_set {
                return Err(PatternError::new(start, Mistake::LateFlags));
            }
            self.flags = flags;
            return Ok(None);
        }
        self.flags = flags;
        let body = self.either(false)?;
        self.flags = outer;
        self.close(start)?;
        Ok(Some(Node {
            span: start..self.at,
            ..body
        }))
    }

    fn width(&self, node: &Node) -> Width {
        match &node.kind {
            Kind::Empty | Kind::At(_) | Kind::Look { .. } => Width(0, 0),
            Kind::Char(_) | Kind::Set(_) => Width(1, 1),
            Kind::Concat(nodes) => nodes.iter().fold(Width(0, 0), |sum, node| {
                let width = self.width(node);
                Width(sum.0.saturating_add(width.0), sum.1.saturating_add(width.1))
            }),
            Kind::Either(nodes) => nodes
                .iter()
                .map(|node| self.width(node))
                .reduce(|a, b| Width(a.0.min(b.0), a.1.max(b.1)))
                .unwrap_or(Width(0, 0)),
            Kind::Repeat { body, min, max, .. } => {
                let width = self.width(body);
                let most = max.map_or(u64::MAX, u64::from);
                Width(
                    width.0.saturating_mul(u64::from(*min)),
                    width.1.saturating_mul(most),
                )
            }
            Kind::Group(_, body) | Kind::Atomic(body) => self.width(body),
            Kind::Back { group, .. } => usize::try_from(*group)
                .ok()
                .and_then(|number| self.groups.get(number.checked_sub(1)?))
                .map_or(Width(0, 0), |group| group.width),
            Kind::If { yes, no, .. } => {
                let (a, b) = (self.width(yes), self.width(no));
                Width(a.0.min(b.0), a.1.max(b.1))
            }
        }
    }
}

fn class_of(c: char) -> Option<Class> {
    Some(match c {
        'w' => Class::Word,
        'W' => Class::NotWord,
        'd' => Class::Digit,
        'D' => Class::NotDigit,
        's' => Class::Space,
        'S' => Class::NotSpace,
        _ => return None,
    })
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && chars.all(|c| c == '_' || c.is_alphanumeric())
}
