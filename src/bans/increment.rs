//! How much longer the next ban is, and how much more a failure counts, for who was banned before.

use std::fmt;

use super::formula::{EvalError, Formula, FormulaError, Scope, Value};
use crate::parse::text::Escaped;

/// Bans beyond which neither grows any more by itself.
const COUNT_MAX: u32 = 20;

/// How many failures one failure counts for, after `count` bans (at least 1): 2, 3, 5, 9...
pub(super) fn weight(count: u32) -> u32 {
    (1 << (count.clamp(1, COUNT_MAX) - 1)) + 1
}

/// `bantime.increment`'s keys, as they are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// `bantime.factor`: an expression.
    pub factor: Option<&'o str>,
    /// `bantime.formula`: an expression over `ban.Time`, `ban.Count` and `banFactor`.
    pub formula: Option<&'o str>,
    /// `bantime.multipliers`: whole numbers, in the place of the formula.
    pub multipliers: Option<&'o str>,
    /// `bantime.maxtime`, seconds.
    pub maxtime: Option<f64>,
    /// `bantime.rndtime`, seconds: up to so much is added by chance.
    pub rndtime: Option<f64>,
    /// `bantime.overalljails`: bans of all jails count.
    pub overalljails: bool,
}

/// `bantime.*` of a jail as it is configured or was changed, for who asks for it. Nothing: nowhere written.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Written {
    /// `bantime.increment`.
    pub on: Option<bool>,
    /// `bantime.factor`.
    pub factor: Option<String>,
    /// `bantime.formula`.
    pub formula: Option<String>,
    /// `bantime.multipliers`.
    pub multipliers: Option<String>,
    /// `bantime.maxtime`, seconds.
    pub maxtime: Option<f64>,
    /// `bantime.rndtime`, seconds.
    pub rndtime: Option<f64>,
    /// `bantime.overalljails`.
    pub overalljails: Option<bool>,
}

impl Written {
    /// What it means for `jail`; `None`: bans do not grow.
    ///
    /// # Errors
    /// As [`Increment::new`], also when it is not on.
    pub fn increment(&self, jail: &str) -> Result<Option<Increment>, IncrementError> {
        let options = Options {
            factor: self.factor.as_deref(),
            formula: self.formula.as_deref(),
            multipliers: self.multipliers.as_deref(),
            maxtime: self.maxtime,
            rndtime: self.rndtime,
            overalljails: self.overalljails == Some(true),
        };
        let increment = Increment::new(jail, &options)?;
        Ok((self.on == Some(true)).then_some(increment))
    }
}

/// `bantime.increment` of a jail.
#[derive(Clone, Debug)]
pub struct Increment {
    jail: Box<str>,
    factor: Value,
    growth: Growth,
    maxtime: Option<f64>,
    rndtime: Option<f64>,
    overalljails: bool,
}

#[derive(Clone, Debug)]
enum Growth {
    Doubling,
    Formula(Formula),
    Multipliers(Vec<i64>),
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct IncrementError {
    /// Whose.
    pub jail: Box<str>,
    /// Which.
    pub key: &'static str,
    /// What is written there.
    pub text: Box<str>,
    /// Why not; `None`: multipliers that are not whole numbers.
    pub why: Option<FormulaError>,
}

impl fmt::Display for IncrementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            jail,
            key,
            text,
            why,
        } = self;
        let text = Escaped {
            bytes: text.as_bytes(),
            max: 120,
        };
        write!(f, "jail {jail}: {key}: \"{text}\": ")?;
        match why {
            Some(why) => why.fmt(f),
            None => f.write_str("write whole numbers with blanks between them, as in 1 2 4 8 16"),
        }
    }
}

impl std::error::Error for IncrementError {}

impl Increment {
    /// Of `jail`, whose name stands in messages.
    ///
    /// # Errors
    /// An expression or a number that cannot be read, or that fails on an ordinary ban.
    pub fn new(jail: &str, options: &Options<'_>) -> Result<Self, IncrementError> {
        let written = |text: Option<&str>| {
            let text = text.map(str::trim).filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let error = |key, text: &str, why| IncrementError {
            jail: jail.into(),
            key,
            text: text.into(),
            why,
        };
        let factor = match written(options.factor) {
            None => Value::Int(1),
            Some(text) => Formula::new(&text)
                .and_then(|formula| {
                    Ok(formula.value(&mut Scope {
                        time: None,
                        count: None,
                        factor: None,
                        random: &mut || 0.5,
                    })?)
                })
                .map_err(|why| error("bantime.factor", &text, Some(why)))?,
        };
        let growth = match (written(options.multipliers), written(options.formula)) {
            (Some(text), _) => Growth::Multipliers(
                text.split_whitespace()
                    .map(str::parse)
                    .collect::<Result<_, _>>()
                    .map_err(|_| error("bantime.multipliers", &text, None))?,
            ),
            (None, Some(text)) => {
                let formula = Formula::new(&text)
                    .map_err(|why| error("bantime.formula", &text, Some(why)))?;
                // A wrong type shows at any ban; better now than at the first one.
                for count in 1..=2 {
                    formula
                        .value(&mut Scope {
                            time: Some(Value::Int(600)),
                            count: Some(Value::Int(count)),
                            factor: Some(factor),
                            random: &mut || 0.5,
                        })
                        .map_err(|why| error("bantime.formula", &text, Some(why.into())))?;
                }
                Growth::Formula(formula)
            }
            (None, None) => Growth::Doubling,
        };
        Ok(Self {
            jail: jail.into(),
            factor,
            growth,
            maxtime: options.maxtime,
            rndtime: options.rndtime,
            overalljails: options.overalljails,
        })
    }

    /// How long a ban is (seconds, `None`: for ever) that would be `bantime` seconds long, after `count` bans before it.
    /// `random` gives numbers from 0 to 1.
    ///
    /// # Errors
    /// The formula fails on these numbers, or gives none.
    pub fn bantime(
        &self,
        bantime: f64,
        count: u32,
        random: &mut dyn FnMut() -> f64,
    ) -> Result<Option<f64>, EvalError> {
        let time = Value::whole(bantime);
        let mut secs = match &self.growth {
            Growth::Doubling => {
                let grown = Value::Int(1i128 << count.min(COUNT_MAX));
                time.max(time.times(grown).times(self.factor)).to_float()
            }
            Growth::Multipliers(multipliers) => {
                let place = usize::try_from(count).unwrap_or(usize::MAX);
                let multiplier = multipliers.get(place).or(multipliers.last());
                let multiplier = Value::Int(multiplier.copied().unwrap_or(1).into());
                time.times(self.factor).times(multiplier).to_float()
            }
            Growth::Formula(formula) => {
                let value = formula.value(&mut Scope {
                    time: Some(time),
                    count: Some(Value::Int(count.into())),
                    factor: Some(self.factor),
                    random: &mut *random,
                })?;
                time.max(value).to_float()
            }
        };
        if let Some(maxtime) = self.maxtime
            && maxtime < secs
        {
            secs = maxtime;
        }
        if let Some(rndtime) = self.rndtime {
            secs += random() * rndtime;
        }
        if secs == -1.0 {
            return Ok(None);
        }
        if !secs.is_finite() {
            return Err(EvalError::NotFinite);
        }
        Ok(Some(secs))
    }

    /// The longest that a restored ban may be, seconds; `None`: any length.
    #[must_use]
    pub fn maxtime(&self) -> Option<f64> {
        self.maxtime.filter(|maxtime| *maxtime > 0.0)
    }

    /// Whether bans of all jails count.
    #[must_use]
    pub fn overall(&self) -> bool {
        self.overalljails
    }

    /// Whose it is.
    #[must_use]
    pub fn jail(&self) -> &str {
        &self.jail
    }
}
