//! `bantime.formula` and `bantime.factor`: expressions in Python's syntax, with Python's results. Arithmetic only: nothing
//! in them can reach anything but the three names and chance, and none takes long.
//!
//! Whole numbers are exact up to 127 bits, and doubles beyond; Python would go on exactly.

use std::fmt;

use crate::parse::text::Escaped;

/// Longest expression, in words and signs; also the bound of how deep it can nest.
const TOKENS_MAX: usize = 500;
/// Deepest nesting that is read.
const DEPTH_MAX: usize = 50;

/// A number, as Python tells the two kinds apart. A truth value is 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Int(i128),
    Float(f64),
}

/// What the names in an expression stand for. A name that is `None` is not known there.
pub(super) struct Scope<'s> {
    pub(super) time: Option<Value>,
    pub(super) count: Option<Value>,
    pub(super) factor: Option<Value>,
    pub(super) random: &'s mut dyn FnMut() -> f64,
}

/// An expression that was read.
#[derive(Clone, Debug)]
pub struct Formula(Expr);

/// Why an expression cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub enum FormulaError {
    /// A word or sign that has no place here.
    Unexpected(Box<str>),
    /// It ends too early.
    Ends,
    /// A function has too few or too many arguments.
    Arguments(&'static str),
    /// Longer or deeper than anybody needs.
    TooLong,
    /// It can be read, but gives no number.
    Eval(EvalError),
}

/// Why an expression gives no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// Division by zero.
    ZeroDivision,
    /// A function was asked for something it does not have, as the root of -1.
    Domain,
    /// Too large for a double.
    Overflow,
    /// Shifting something that is not a whole number, or by less than 0.
    Shift,
    /// A name that has no value here.
    NoName,
    /// The result is infinite, or not a number.
    NotFinite,
}

impl fmt::Display for FormulaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected(word) => write!(
                f,
                "\"{}\" has no place here",
                Escaped {
                    bytes: word.as_bytes(),
                    max: 40
                }
            )?,
            Self::Ends => f.write_str("it ends too early")?,
            Self::Arguments(name) => write!(f, "{name}() has other arguments")?,
            Self::TooLong => write!(f, "it is too long, or nests too deep")?,
            Self::Eval(error) => return error.fmt(f),
        }
        f.write_str(
            "; write numbers, ban.Time, ban.Count, banFactor, + - * / // % ** << >>, comparisons, and or not, A if B else \
             C, parentheses, min max int float round abs pow, math.exp and its like, random.random()",
        )
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroDivision => "it divides by zero",
            Self::Domain => {
                "it asks a function for what it cannot give, as the root of a negative number"
            }
            Self::Overflow => "a number grows too large",
            Self::Shift => "<< and >> take whole numbers, and not less than 0 on the right",
            Self::NoName => "ban.Time, ban.Count and banFactor are known in bantime.formula only",
            Self::NotFinite => "the result is no number of seconds",
        })
    }
}

impl std::error::Error for FormulaError {}
impl std::error::Error for EvalError {}

impl From<EvalError> for FormulaError {
    fn from(error: EvalError) -> Self {
        Self::Eval(error)
    }
}

#[derive(Clone, Debug)]
enum Expr {
    Number(Value),
    Name(Name),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Op, Box<Expr>, Box<Expr>),
    /// Python's chain: `a < b < c`.
    Compare(Box<Expr>, Vec<(Cmp, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    If {
        cond: Box<Expr>,
        then: Box<Expr>,
        otherwise: Box<Expr>,
    },
    Call(Function, Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    Time,
    Count,
    Factor,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
    Left,
    Right,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cmp {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Min,
    Max,
    Int,
    Float,
    Round,
    Abs,
    Pow,
    Random,
    Log,
    /// Of `math`: a whole number from a double.
    Whole(fn(f64) -> f64),
    /// Of `math`.
    One(fn(f64) -> f64),
    /// Of `math`.
    Two(fn(f64, f64) -> f64),
}

/// What can be called: the name, and how few and how many arguments.
const FUNCTIONS: &[(&str, Function, usize, usize)] = &[
    ("min", Function::Min, 2, 100),
    ("max", Function::Max, 2, 100),
    ("int", Function::Int, 1, 1),
    ("float", Function::Float, 1, 1),
    ("round", Function::Round, 1, 2),
    ("abs", Function::Abs, 1, 1),
    ("pow", Function::Pow, 2, 2),
    ("random.random", Function::Random, 0, 0),
    ("math.log", Function::Log, 1, 2),
    ("math.floor", Function::Whole(f64::floor), 1, 1),
    ("math.ceil", Function::Whole(f64::ceil), 1, 1),
    ("math.trunc", Function::Whole(f64::trunc), 1, 1),
    ("math.exp", Function::One(f64::exp), 1, 1),
    ("math.exp2", Function::One(f64::exp2), 1, 1),
    ("math.expm1", Function::One(f64::exp_m1), 1, 1),
    ("math.log2", Function::One(f64::log2), 1, 1),
    ("math.log10", Function::One(f64::log10), 1, 1),
    ("math.log1p", Function::One(f64::ln_1p), 1, 1),
    ("math.sqrt", Function::One(f64::sqrt), 1, 1),
    ("math.cbrt", Function::One(f64::cbrt), 1, 1),
    ("math.fabs", Function::One(f64::abs), 1, 1),
    ("math.sin", Function::One(f64::sin), 1, 1),
    ("math.cos", Function::One(f64::cos), 1, 1),
    ("math.tan", Function::One(f64::tan), 1, 1),
    ("math.atan", Function::One(f64::atan), 1, 1),
    ("math.tanh", Function::One(f64::tanh), 1, 1),
    ("math.pow", Function::Two(f64::powf), 2, 2),
    ("math.fmod", Function::Two(|a, b| a % b), 2, 2),
    ("math.hypot", Function::Two(f64::hypot), 2, 2),
];

impl Formula {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, and what can be written.
    pub fn new(text: &str) -> Result<Self, FormulaError> {
        let tokens = tokens(text)?;
        let mut parser = Parser {
            tokens: &tokens,
            depth: 0,
        };
        let expr = parser.expr()?;
        match parser.next() {
            None => Ok(Self(expr)),
            Some(token) => Err(token.unexpected()),
        }
    }

    /// Its value where `ban.Time` is `time`, `ban.Count` is `count` and `banFactor` is `factor`; numbers without a fraction
    /// are whole. `random` gives numbers from 0 to 1.
    ///
    /// # Errors
    /// It has no value there.
    pub fn eval(
        &self,
        time: f64,
        count: u32,
        factor: f64,
        random: &mut dyn FnMut() -> f64,
    ) -> Result<f64, EvalError> {
        let value = self.value(&mut Scope {
            time: Some(Value::whole(time)),
            count: Some(Value::Int(count.into())),
            factor: Some(Value::whole(factor)),
            random,
        })?;
        Ok(value.to_float())
    }

    pub(super) fn value(&self, scope: &mut Scope<'_>) -> Result<Value, EvalError> {
        eval(&self.0, scope)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(Value, Box<str>),
    /// With its dots: `ban.Time`.
    Word(Box<str>),
    Sign(&'static str),
}

impl Token {
    fn unexpected(&self) -> FormulaError {
        FormulaError::Unexpected(match self {
            Self::Number(_, text) | Self::Word(text) => text.clone(),
            Self::Sign(sign) => (*sign).into(),
        })
    }
}

/// Longer ones first.
const SIGNS: &[&str] = &[
    "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%", "(", ")",
    ",",
];

fn tokens(text: &str) -> Result<Vec<Token>, FormulaError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        if tokens.len() >= TOKENS_MAX {
            return Err(FormulaError::TooLong);
        }
        let (token, len) = if first.is_ascii_digit() || first == '.' {
            number(rest)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let len = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.')
                .unwrap_or(rest.len());
            (Token::Word(rest.get(..len).unwrap_or_default().into()), len)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(FormulaError::Unexpected(first.to_string().into()));
        };
        tokens.push(token);
        rest = rest.get(len..).unwrap_or_default().trim_start();
    }
    Ok(tokens)
}

fn number(text: &str) -> Result<(Token, usize), FormulaError> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        from + rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len())
    };
    let at = |place: usize| text.as_bytes().get(place).copied();
    let mut end = digits(0);
    let mut whole = true;
    if at(end) == Some(b'.') {
        whole = false;
        end = digits(end + 1);
    }
    if matches!(at(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(at(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            whole = false;
            end = exponent;
        }
    }
    // A letter behind a number (0x10, 10m) belongs to it, for the message.
    let full = end
        + text
            .get(end..)
            .unwrap_or_default()
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len() - end);
    let word = text.get(..full).unwrap_or_default();
    let unexpected = || FormulaError::Unexpected(word.into());
    if full > end {
        return Err(unexpected());
    }
    let value = if whole {
        // 010 is an error in Python too.
        if word.len() > 1 && word.starts_with('0') && word.bytes().any(|b| b != b'0') {
            return Err(unexpected());
        }
        match word.parse() {
            Ok(int) => Value::Int(int),
            Err(_) => Value::Float(word.parse().map_err(|_| unexpected())?),
        }
    } else {
        Value::Float(word.parse().map_err(|_| unexpected())?)
    };
    Ok((Token::Number(value, word.into()), end))
}

struct Parser<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl<'t> Parser<'t> {
    fn next(&mut self) -> Option<&'t Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    /// Takes the next token if it is this word or sign.
    fn take(&mut self, wanted: &str) -> bool {
        let is = match self.tokens.first() {
            Some(Token::Word(word)) => **word == *wanted,
            Some(Token::Sign(sign)) => *sign == wanted,
            Some(Token::Number(..)) | None => false,
        };
        if is {
            self.next();
        }
        is
    }

    fn expect(&mut self, wanted: &str) -> Result<(), FormulaError> {
        if self.take(wanted) {
            return Ok(());
        }
        Err(self
            .tokens
            .first()
            .map_or(FormulaError::Ends, Token::unexpected))
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FormulaError>,
    ) -> Result<T, FormulaError> {
        if self.depth >= DEPTH_MAX {
            return Err(FormulaError::TooLong);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// `A if B else C`, and all that binds closer.
    fn expr(&mut self) -> Result<Expr, FormulaError> {
        self.deeper(|p| {
            let then = p.or()?;
            if !p.take("if") {
                return Ok(then);
            }
            let cond = p.or()?;
            p.expect("else")?;
            Ok(Expr::If {
                cond: cond.into(),
                then: then.into(),
                otherwise: p.expr()?.into(),
            })
        })
    }

    fn or(&mut self) -> Result<Expr, FormulaError> {
        let mut left = self.and()?;
        while self.take("or") {
            left = Expr::Or(left.into(), self.and()?.into());
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, FormulaError> {
        let mut left = self.not()?;
        while self.take("and") {
            left = Expr::And(left.into(), self.not()?.into());
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr, FormulaError> {
        if self.take("not") {
            return self.deeper(|p| Ok(Expr::Not(p.not()?.into())));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, FormulaError> {
        const CMPS: [(&str, Cmp); 6] = [
            ("<", Cmp::Lt),
            ("<=", Cmp::Le),
            (">", Cmp::Gt),
            (">=", Cmp::Ge),
            ("==", Cmp::Eq),
            ("!=", Cmp::Ne),
        ];
        let left = self.shift()?;
        let mut chain = Vec::new();
        while let Some((_, cmp)) = CMPS.iter().find(|(sign, _)| self.take(sign)) {
            chain.push((*cmp, self.shift()?));
        }
        if chain.is_empty() {
            return Ok(left);
        }
        Ok(Expr::Compare(left.into(), chain))
    }

    fn shift(&mut self) -> Result<Expr, FormulaError> {
        self.chain(&[("<<", Op::Left), (">>", Op::Right)], Self::sum)
    }

    fn sum(&mut self) -> Result<Expr, FormulaError> {
        self.chain(&[("+", Op::Add), ("-", Op::Sub)], Self::product)
    }

    fn product(&mut self) -> Result<Expr, FormulaError> {
        let ops = [
            ("*", Op::Mul),
            ("//", Op::FloorDiv),
            ("/", Op::Div),
            ("%", Op::Mod),
        ];
        self.chain(&ops, Self::signed)
    }

    fn chain(
        &mut self,
        ops: &[(&str, Op)],
        part: fn(&mut Self) -> Result<Expr, FormulaError>,
    ) -> Result<Expr, FormulaError> {
        let mut left = part(self)?;
        while let Some((_, op)) = ops.iter().find(|(sign, _)| self.take(sign)) {
            left = Expr::Binary(*op, left.into(), part(self)?.into());
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Expr, FormulaError> {
        if self.take("-") {
            return self.deeper(|p| Ok(Expr::Negative(p.signed()?.into())));
        }
        if self.take("+") {
            return self.deeper(|p| Ok(Expr::Positive(p.signed()?.into())));
        }
        let base = self.atom()?;
        if self.take("**") {
            // To the right first, and closer than a sign on the left: -2 ** 2 is -4, 2 ** -1 is a half.
            let exponent = self.deeper(Self::signed)?;
            return Ok(Expr::Binary(Op::Pow, base.into(), exponent.into()));
        }
        Ok(base)
    }

    fn atom(&mut self) -> Result<Expr, FormulaError> {
        let token = self.next().ok_or(FormulaError::Ends)?;
        match token {
            Token::Number(value, _) => Ok(Expr::Number(*value)),
            Token::Sign("(") => {
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign(_) => Err(token.unexpected()),
            Token::Word(word) => match &**word {
                "ban.Time" => Ok(Expr::Name(Name::Time)),
                "ban.Count" => Ok(Expr::Name(Name::Count)),
                "banFactor" => Ok(Expr::Name(Name::Factor)),
                "True" => Ok(Expr::Number(Value::Int(1))),
                "False" => Ok(Expr::Number(Value::Int(0))),
                "math.pi" => Ok(Expr::Number(Value::Float(std::f64::consts::PI))),
                "math.e" => Ok(Expr::Number(Value::Float(std::f64::consts::E))),
                word => self.call(word, token),
            },
        }
    }

    fn call(&mut self, word: &str, token: &Token) -> Result<Expr, FormulaError> {
        let (name, function, fewest, most) = FUNCTIONS
            .iter()
            .find(|(name, ..)| *name == word)
            .ok_or_else(|| token.unexpected())?;
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
                if self.take(")") {
                    break;
                }
            }
            arguments.push(self.expr()?);
        }
        if !(*fewest..=*most).contains(&arguments.len()) {
            return Err(FormulaError::Arguments(name));
        }
        Ok(Expr::Call(*function, arguments))
    }
}

fn eval(expr: &Expr, scope: &mut Scope<'_>) -> Result<Value, EvalError> {
    let truth = |yes: bool| Value::Int(yes.into());
    match expr {
        Expr::Number(value) => Ok(*value),
        Expr::Name(name) => match name {
            Name::Time => scope.time,
            Name::Count => scope.count,
            Name::Factor => scope.factor,
        }
        .ok_or(EvalError::NoName),
        Expr::Not(inner) => Ok(truth(!eval(inner, scope)?.is_true())),
        Expr::Positive(inner) => eval(inner, scope),
        Expr::Negative(inner) => Ok(match eval(inner, scope)? {
            Value::Int(int) => int
                .checked_neg()
                .map_or(Value::Float(-to_float(int)), Value::Int),
            Value::Float(float) => Value::Float(-float),
        }),
        Expr::Binary(op, left, right) => {
            let left = eval(left, scope)?;
            binary(*op, left, eval(right, scope)?)
        }
        Expr::Compare(first, chain) => {
            let mut left = eval(first, scope)?;
            for (cmp, right) in chain {
                let right = eval(right, scope)?;
                if !compare(*cmp, left, right) {
                    return Ok(truth(false));
                }
                left = right;
            }
            Ok(truth(true))
        }
        Expr::And(left, right) => {
            let left = eval(left, scope)?;
            if left.is_true() {
                eval(right, scope)
            } else {
                Ok(left)
            }
        }
        Expr::Or(left, right) => {
            let left = eval(left, scope)?;
            if left.is_true() {
                Ok(left)
            } else {
                eval(right, scope)
            }
        }
        Expr::If {
            cond,
            then,
            otherwise,
        } => {
            let branch = if eval(cond, scope)?.is_true() {
                then
            } else {
                otherwise
            };
            eval(branch, scope)
        }
        Expr::Call(function, arguments) => {
            let values: Vec<Value> = arguments
                .iter()
                .map(|argument| eval(argument, scope))
                .collect::<Result<_, _>>()?;
            call(*function, &values, scope)
        }
    }
}

fn call(function: Function, values: &[Value], scope: &mut Scope<'_>) -> Result<Value, EvalError> {
    let first = values.first().copied().unwrap_or(Value::Int(0));
    let second = values.get(1).copied();
    let rest = values.iter().skip(1).copied();
    match function {
        // Of equals the first, and of what cannot be compared too.
        Function::Min => Ok(rest.fold(first, |least, value| {
            if compare(Cmp::Lt, value, least) {
                value
            } else {
                least
            }
        })),
        Function::Max => Ok(rest.fold(first, Value::max)),
        Function::Int => first.truncated(f64::trunc),
        Function::Float => Ok(Value::Float(first.to_float())),
        Function::Abs => Ok(match first {
            Value::Int(int) => int
                .checked_abs()
                .map_or(Value::Float(to_float(int).abs()), Value::Int),
            Value::Float(float) => Value::Float(float.abs()),
        }),
        Function::Round => match second {
            None => first.truncated(f64::round_ties_even),
            Some(Value::Int(places)) => round_to(first, places),
            Some(Value::Float(_)) => Err(EvalError::Domain),
        },
        Function::Pow => binary(Op::Pow, first, second.unwrap_or(Value::Int(1))),
        Function::Random => Ok(Value::Float((scope.random)())),
        Function::Log => {
            let ln = |value: Value| match value.to_float() {
                x if x > 0.0 || x.is_nan() => Ok(x.ln()),
                _ => Err(EvalError::Domain),
            };
            match second {
                None => ln(first).map(Value::Float),
                Some(base) => binary(Op::Div, Value::Float(ln(first)?), Value::Float(ln(base)?)),
            }
        }
        Function::Whole(f) => first.truncated(f),
        Function::One(f) => checked(f(first.to_float()), &[first]),
        Function::Two(f) => {
            let second = second.unwrap_or(Value::Int(0));
            checked(f(first.to_float(), second.to_float()), &[first, second])
        }
    }
}

/// A result of C's mathematics, as Python looks at it.
fn checked(result: f64, arguments: &[Value]) -> Result<Value, EvalError> {
    if result.is_nan() && !arguments.iter().any(|a| a.to_float().is_nan()) {
        return Err(EvalError::Domain);
    }
    if result.is_infinite() && arguments.iter().all(|a| a.to_float().is_finite()) {
        return Err(EvalError::Overflow);
    }
    Ok(Value::Float(result))
}

/// `round(x, places)`: the nearest decimal of so many places, exactly.
fn round_to(value: Value, places: i128) -> Result<Value, EvalError> {
    match (value, usize::try_from(places)) {
        (Value::Int(_), Ok(_)) => Ok(value),
        (Value::Float(float), Ok(places)) if places <= 300 => {
            let text = format!("{float:.places$}");
            text.parse()
                .map(Value::Float)
                .map_err(|_| EvalError::Domain)
        }
        (Value::Float(_), Ok(_)) => Ok(value),
        (_, Err(_)) => {
            let unit = 10f64.powf(to_float(places.saturating_neg().min(400)));
            let rounded = (value.to_float() / unit).round_ties_even() * unit;
            let rounded = if rounded.is_nan() { 0.0 } else { rounded };
            match value {
                Value::Int(_) => Value::Float(rounded).truncated(f64::trunc),
                Value::Float(_) => Ok(Value::Float(rounded)),
            }
        }
    }
}

fn compare(cmp: Cmp, left: Value, right: Value) -> bool {
    let order = match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(&right)),
        (left, right) => left.to_float().partial_cmp(&right.to_float()),
    };
    match cmp {
        Cmp::Lt => order.is_some_and(std::cmp::Ordering::is_lt),
        Cmp::Le => order.is_some_and(std::cmp::Ordering::is_le),
        Cmp::Gt => order.is_some_and(std::cmp::Ordering::is_gt),
        Cmp::Ge => order.is_some_and(std::cmp::Ordering::is_ge),
        Cmp::Eq => order.is_some_and(std::cmp::Ordering::is_eq),
        Cmp::Ne => !order.is_some_and(std::cmp::Ordering::is_eq),
    }
}

fn binary(op: Op, left: Value, right: Value) -> Result<Value, EvalError> {
    if let (Value::Int(left), Value::Int(right)) = (left, right)
        && let Some(result) = whole(op, left, right)?
    {
        return Ok(Value::Int(result));
    }
    let (x, y) = (left.to_float(), right.to_float());
    Ok(Value::Float(match op {
        Op::Add => x + y,
        Op::Sub => x - y,
        Op::Mul => x * y,
        Op::Div if y == 0.0 => return Err(EvalError::ZeroDivision),
        Op::Div => x / y,
        Op::FloorDiv | Op::Mod if y == 0.0 => return Err(EvalError::ZeroDivision),
        Op::FloorDiv => floor_div(x, y).0,
        Op::Mod => floor_div(x, y).1,
        Op::Pow if x == 0.0 && y < 0.0 => return Err(EvalError::ZeroDivision),
        Op::Pow => return checked(x.powf(y), &[left, right]),
        Op::Left => match (left, right) {
            // Of whole numbers that grow out of 127 bits.
            (Value::Int(_), Value::Int(_)) => {
                return checked(x * 2f64.powf(y), &[left, right]);
            }
            _ => return Err(EvalError::Shift),
        },
        Op::Right => return Err(EvalError::Shift),
    }))
}

/// Among whole numbers; `None`: the result is none, or too large.
fn whole(op: Op, left: i128, right: i128) -> Result<Option<i128>, EvalError> {
    let small = |n: i128| u32::try_from(n).ok();
    Ok(match op {
        Op::Add => left.checked_add(right),
        Op::Sub => left.checked_sub(right),
        Op::Mul => left.checked_mul(right),
        Op::Div => None,
        Op::FloorDiv | Op::Mod if right == 0 => return Err(EvalError::ZeroDivision),
        Op::FloorDiv => left.checked_div_euclid(right).and_then(|quotient| {
            // Euclid's remainder is never negative; Python's has the sign of the divisor.
            let rest = left.checked_rem_euclid(right)?;
            if right < 0 && rest != 0 {
                quotient.checked_sub(1)
            } else {
                Some(quotient)
            }
        }),
        Op::Mod => left.checked_rem_euclid(right).map(|rest| {
            if right < 0 && rest != 0 {
                rest + right
            } else {
                rest
            }
        }),
        Op::Pow if right < 0 => None,
        Op::Pow => small(right).and_then(|right| left.checked_pow(right)),
        Op::Left | Op::Right if right < 0 => return Err(EvalError::Shift),
        Op::Left if left == 0 => Some(0),
        Op::Left => small(right)
            .filter(|right| *right < 127)
            .and_then(|right| left.checked_mul(1i128 << right)),
        Op::Right => Some(left >> small(right).unwrap_or(127).min(127)),
    })
}

/// Python's `divmod` of doubles.
fn floor_div(x: f64, y: f64) -> (f64, f64) {
    let mut rest = x % y;
    let mut quotient = (x - rest) / y;
    if rest == 0.0 {
        rest = 0f64.copysign(y);
    } else if (y < 0.0) != (rest < 0.0) {
        rest += y;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0f64.copysign(x / y), rest);
    }
    let floor = quotient.floor();
    let floor = if quotient - floor > 0.5 {
        floor + 1.0
    } else {
        floor
    };
    (floor, rest)
}

impl Value {
    /// A whole number if it is one: bantimes are.
    pub(super) fn whole(float: f64) -> Self {
        Self::Float(float)
            .truncated(f64::trunc)
            .ok()
            .filter(|int| int.to_float() == float)
            .unwrap_or(Self::Float(float))
    }

    pub(super) fn to_float(self) -> f64 {
        match self {
            Self::Int(int) => to_float(int),
            Self::Float(float) => float,
        }
    }

    pub(super) fn times(self, other: Self) -> Self {
        binary(Op::Mul, self, other).unwrap_or(Self::Float(f64::NAN))
    }

    /// The larger; of equals the first.
    pub(super) fn max(self, other: Self) -> Self {
        if compare(Cmp::Gt, other, self) {
            other
        } else {
            self
        }
    }

    fn is_true(self) -> bool {
        self != Self::Int(0) && self != Self::Float(0.0)
    }

    /// A whole number, by `round`.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "what does not fit in a whole number was left above"
    )]
    fn truncated(self, round: fn(f64) -> f64) -> Result<Self, EvalError> {
        match self {
            Self::Int(_) => Ok(self),
            Self::Float(float) if !float.is_finite() => Err(EvalError::Overflow),
            Self::Float(float) => {
                let rounded = round(float);
                // 2^126: beyond it a double is whole already.
                if rounded.abs() < 8.5e37 {
                    Ok(Self::Int(rounded as i128))
                } else {
                    Ok(Self::Float(rounded))
                }
            }
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "the nearest double is what Python computes with too"
)]
fn to_float(int: i128) -> f64 {
    int as f64
}
