//! `<tags>` of a command: first those that the configuration answers, then those that a ban answers.
//!
//! The first kind is text of the administrator's and is pasted, inside out, as fail2ban does. The second kind is
//! strangers' text. It is pasted only where it holds no character that means something to a shell; otherwise `<matches>`
//! becomes `$f2bV_matches`, and the value travels as an argument that the shell never parses. So `"<matches>"` and
//! `<matches>` give a script the words they give it under fail2ban, and nothing in them can run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::ticket::cut;
use super::{Family, Op, Spec, SpecError};

/// Rounds of replacement after which a tag must be feeding itself; fail2ban's number.
const ROUNDS: usize = 25;
/// Longest that a command may grow to while its tags are replaced, bytes.
const TEXT_MAX: usize = 1 << 20;
/// Longest text of a command that the kernel takes: MAX_ARG_STRLEN (binfmts.h), 128 KiB, with room for the NUL.
const SCRIPT_MAX: usize = 128 * 1024 - 1;
/// Answered by a ban, even where the configuration has an option of that name.
const OF_BANS: [&str; 4] = ["matches", "ipmatches", "ipjailmatches", "bantime"];

/// A command's text, and values beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// For `sh -c`.
    pub text: String,
    /// `$1` and so on.
    pub values: Vec<String>,
}

/// The commands of an action, the configuration's tags replaced.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    texts: BTreeMap<(Op, Family), String>,
    /// Some value differs between the families.
    pub(super) by_family: bool,
    /// `families`, if it was set.
    pub(super) families: Option<Vec<Family>>,
}

impl Commands {
    pub(super) fn new(spec: &Spec) -> Result<Self, SpecError> {
        let mut properties = spec.properties.clone();
        for name in OF_BANS {
            properties.remove(name);
        }
        properties.insert("timeout".into(), spec.timeout.as_secs().to_string());
        let endless = |(option, tag)| SpecError::Endless {
            jail: spec.jail.clone(),
            action: spec.action.clone(),
            option,
            tag,
        };
        let mut texts = BTreeMap::new();
        for family in [Family::Any, Family::Inet4, Family::Inet6] {
            let condition = match family {
                Family::Any => String::new(),
                Family::Inet4 | Family::Inet6 => format!("?family={}", family.as_str()),
            };
            let resolved = resolve(&properties, &condition).map_err(endless)?;
            for op in Op::ALL {
                let text = expand(&resolved, &condition, op.option()).map_err(endless)?;
                texts.insert((op, family), text);
            }
        }
        let families = spec.properties.get("families").map(|text| {
            let words = text.split([' ', ',', '\n', '\t']);
            words
                .filter_map(|word| match word {
                    "inet4" => Some(Family::Inet4),
                    "inet6" => Some(Family::Inet6),
                    _ => None,
                })
                .collect()
        });
        Ok(Self {
            texts,
            by_family: properties.keys().any(|name| is_conditional(name)),
            families: families.filter(|families: &Vec<Family>| !families.is_empty()),
        })
    }

    pub(super) fn text(&self, op: Op, family: Family) -> &str {
        self.texts.get(&(op, family)).map_or("", String::as_str)
    }
}

/// `NAME?family=...`, where NAME is one word: fail2ban overlooks names with other characters here.
fn is_conditional(name: &str) -> bool {
    name.split_once("?family=").is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

/// The next `<tag>` from `from` on: where it starts, and its name.
fn next_tag(text: &str, from: usize) -> Option<(usize, &str)> {
    let mut at = from;
    loop {
        let start = at + text.get(at..)?.find('<')?;
        let rest = text.get(start + 1..)?;
        let end = rest.find([' ', '<', '>'])?;
        if end > 0 && rest.get(end..)?.starts_with('>') {
            return Some((start, rest.get(..end)?));
        }
        at = start + 1;
    }
}

/// All tags replaced in one go; what is put in is not looked at again.
pub(super) fn replace<'a>(
    text: &str,
    mut value: impl FnMut(&str) -> Option<Cow<'a, str>>,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some((start, tag)) = next_tag(text, at) {
        let end = start + tag.len() + 2;
        out.push_str(text.get(at..start).unwrap_or_default());
        match value(tag) {
            Some(value) => out.push_str(&value),
            None => out.push_str(text.get(start..end).unwrap_or_default()),
        }
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

fn get<'a>(
    properties: &'a BTreeMap<String, String>,
    condition: &str,
    tag: &str,
) -> Option<&'a String> {
    let conditional = if condition.is_empty() {
        None
    } else {
        properties.get(&format!("{tag}{condition}"))
    };
    conditional.or_else(|| properties.get(tag))
}

/// The properties with each other's values in them. The error names the option and the tag that has no end.
fn resolve(
    properties: &BTreeMap<String, String>,
    condition: &str,
) -> Result<BTreeMap<String, String>, (String, String)> {
    let mut resolved = properties.clone();
    let mut counts: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let names: Vec<String> = properties.keys().cloned().collect();
    loop {
        let mut again = false;
        for name in &names {
            let Some(mut value) = resolved.get(name).cloned() else {
                continue;
            };
            let counts = counts.entry(name.clone()).or_default();
            let mut changed = false;
            let mut at = 0;
            while let Some((start, tag)) = next_tag(&value, at) {
                let count = counts.get(tag).copied().unwrap_or(1);
                if tag == name || count > ROUNDS || value.len() > TEXT_MAX {
                    return Err((name.clone(), tag.to_owned()));
                }
                let Some(replacement) = get(&resolved, condition, tag) else {
                    at = start + tag.len() + 2;
                    continue;
                };
                let tag = tag.to_owned();
                let grown = value.matches(&format!("<{tag}>")).count() * replacement.len();
                if grown > TEXT_MAX {
                    return Err((name.clone(), tag));
                }
                value = value.replace(&format!("<{tag}>"), replacement);
                *counts.entry(tag).or_insert(0) += 1;
                changed = true;
                at = start;
            }
            if changed {
                again |= next_tag(&value, 0).is_some();
                resolved.insert(name.clone(), value);
            }
        }
        if !again {
            return Ok(resolved);
        }
    }
}

/// The text of one option, once and for all.
fn expand(
    properties: &BTreeMap<String, String>,
    condition: &str,
    option: &str,
) -> Result<String, (String, String)> {
    let mut text = match get(properties, condition, option) {
        Some(text) => text.clone(),
        None => return Ok(String::new()),
    };
    for _ in 0..ROUNDS {
        let next = replace(&text, |tag| {
            get(properties, condition, tag)
                .map(|value| Cow::Borrowed(value.as_str()))
                .or_else(|| constant(tag))
        });
        if next == text || !next.contains('<') {
            return Ok(next);
        }
        if next.len() > TEXT_MAX {
            break;
        }
        text = next;
    }
    Err((option.to_owned(), option.to_owned()))
}

/// Tags that are always the same.
fn constant(tag: &str) -> Option<Cow<'static, str>> {
    match tag {
        "br" => Some(Cow::Borrowed("\n")),
        "sp" => Some(Cow::Borrowed(" ")),
        _ => None,
    }
}

/// A command with a ban's values: `value` answers tags, `capture` the NAME of `<F-NAME>`, where no answer means empty.
pub(super) fn fill<'a>(
    command: &str,
    value: impl Fn(&str) -> Option<Cow<'a, str>>,
    capture: impl Fn(&str) -> Option<Cow<'a, str>>,
) -> Script {
    // A value whose characters mean nothing is pasted, perhaps several times: rather shorter values than a command that
    // the kernel refuses, since then nobody would be banned.
    let mut script = Script::default();
    for longest in [usize::MAX, 8 * 1024, 1024, 256] {
        script = fill_up_to(command, &value, &capture, longest);
        if script.text.len() <= SCRIPT_MAX {
            break;
        }
    }
    script
}

fn fill_up_to<'a>(
    command: &str,
    value: &impl Fn(&str) -> Option<Cow<'a, str>>,
    capture: &impl Fn(&str) -> Option<Cow<'a, str>>,
    longest: usize,
) -> Script {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut guard = |tag: &str, value: Cow<'a, str>| -> Cow<'a, str> {
        let mut value = value.replace('\0', "\u{fffd}");
        cut(&mut value, longest);
        if !value.contains(is_special) {
            return Cow::Owned(value);
        }
        let name: String = tag
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let name = format!("f2bV_{name}");
        let word = format!("${{{name}}}");
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => variables.push((name, value)),
        }
        Cow::Owned(word)
    };
    let text = replace(command, |tag| match value(tag) {
        Some(value) => Some(guard(tag, value)),
        None => constant(tag),
    });
    let text = replace(&text, |tag| {
        let name = tag.strip_prefix("F-")?;
        let upper =
            |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(upper) {
            return None;
        }
        Some(match capture(name) {
            Some(value) => guard(&format!("F_{}", name.to_lowercase()), value),
            None => Cow::Borrowed(""),
        })
    });
    if variables.is_empty() {
        return Script {
            text,
            values: Vec::new(),
        };
    }
    let mut script = Script::default();
    for (at, (name, value)) in (1..).zip(variables) {
        // An assignment neither splits nor expands what a variable holds (POSIX, 2.9.1).
        script.text.push_str(&format!("{name}=${{{at}}} "));
        script.values.push(value);
    }
    script.text.push('\n');
    script.text.push_str(&text);
    script
}

/// What a shell may take for more than a letter; fail2ban's list, so that the same values are pasted.
fn is_special(c: char) -> bool {
    matches!(
        c,
        '\\' | '#'
            | '&'
            | ';'
            | '`'
            | '|'
            | '*'
            | '?'
            | '~'
            | '<'
            | '>'
            | '^'
            | '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '$'
            | '\''
            | '"'
            | '\n'
            | '\r'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(properties: &[(&str, &str)]) -> Spec {
        let mut spec = Spec::new("sshd", "act", "act");
        spec.properties = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        spec
    }

    #[test]
    fn a_family_has_its_own_values() {
        let commands = Commands::new(&spec(&[
            ("actionban", "<tool> -A <name> <ip> <block>"),
            ("tool", "iptables"),
            ("tool?family=inet6", "ip6tables"),
            ("block", "<reject><sp>now"),
            ("reject", "REJECT"),
            ("name", "sshd"),
        ]))
        .unwrap();
        assert!(commands.by_family);
        assert_eq!(
            commands.text(Op::Ban, Family::Inet4),
            "iptables -A sshd <ip> REJECT now"
        );
        assert_eq!(
            commands.text(Op::Ban, Family::Inet6),
            "ip6tables -A sshd <ip> REJECT now"
        );
    }

    #[test]
    fn a_tag_inside_a_tag_is_replaced_inside_out() {
        let commands = Commands::new(&spec(&[
            ("actionban", "<say-<mode>> <bantime> <matches>"),
            ("mode", "loud"),
            ("say-loud", "HELLO"),
            ("bantime", "600"),
            ("matches", "mine"),
        ]))
        .unwrap();
        assert_eq!(
            commands.text(Op::Ban, Family::Any),
            "HELLO <bantime> <matches>"
        );
    }

    #[test]
    fn a_tag_that_needs_itself_is_refused_and_named() {
        for properties in [
            &[("actionban", "<a>"), ("a", "x<a>")][..],
            &[("actionban", "<a>"), ("a", "<b>"), ("b", "<a>")],
            &[("actionban", "<a>"), ("a", "<b><b>"), ("b", "<a><a>")],
        ] {
            let error = Commands::new(&spec(properties)).unwrap_err();
            assert!(error.to_string().contains("needs itself"), "{error}");
        }
    }

    #[test]
    fn a_hostile_value_never_becomes_text() {
        let hostile = "a\0b'\"`id`$(id)\n; -rf <ip> ${IFS}";
        let script = fill(
            "mail \"<matches>\" <F-USER> <F-NOBODY>.",
            |tag| (tag == "matches").then_some(Cow::Borrowed(hostile)),
            |name| (name == "USER").then_some(Cow::Borrowed("$(id)")),
        );
        assert_eq!(
            script.text,
            "f2bV_matches=${1} f2bV_F_user=${2} \nmail \"${f2bV_matches}\" ${f2bV_F_user} ."
        );
        assert_eq!(script.values[0], hostile.replace('\0', "\u{fffd}"));
    }

    #[test]
    fn a_command_never_grows_past_what_the_kernel_takes() {
        let long = "x".repeat(32 * 1024);
        let command = "<matches> ".repeat(20);
        let script = fill(&command, |_| Some(Cow::Borrowed(&*long)), |_| None);
        assert!(script.text.len() < SCRIPT_MAX);
    }
}
