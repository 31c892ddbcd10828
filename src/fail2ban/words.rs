//! `name[option=value, ...]` and lists of words, as they stand in values.

use super::ini::{blank, shown};

/// `name[option=value, ...]`, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// What is in front of the bracket.
    pub(super) name: String,
    /// Name and value, in their order; of two with the same name the later counts.
    pub(super) options: Vec<(String, String)>,
}

/// Takes `text` apart.
///
/// # Errors
/// What is wrong; what to write.
pub(super) fn call(text: &str) -> Result<Call, String> {
    let text = text.trim_end_matches(blank);
    let (name, inner) = match text.find('[') {
        None => (text, ""),
        Some(open) => {
            let inner = text.get(open + 1..).and_then(|t| t.strip_suffix(']'));
            let inner = inner.ok_or_else(|| {
                format!(
                    "\"{}\" does not end with ]; write name[option=value]",
                    shown(text)
                )
            })?;
            (text.get(..open).unwrap_or_default(), inner)
        }
    };
    let name = name.trim_matches(blank);
    if name.is_empty() {
        return Err("no name in front of the [; write name[option=value]".to_owned());
    }
    let mut call = Call {
        name: name.to_owned(),
        options: Vec::new(),
    };
    let mut rest = inner;
    loop {
        let begun = rest.trim_start_matches(blank);
        if begun.is_empty()
            || begun
                .strip_prefix(',')
                .is_some_and(|r| r.chars().all(blank))
        {
            return Ok(call);
        }
        let Some(one) = option(begun) else {
            return Err(format!("\"{}\" is not option=value", shown(begun)));
        };
        call.options.push((
            one.name.to_owned(),
            one.value.trim_matches(blank).to_owned(),
        ));
        rest = match separator(one.rest) {
            Some(rest) => rest,
            None if one.rest.chars().all(blank) => "",
            None => {
                return Err(format!(
                    "behind {} stands \"{}\"; write a comma there, or quotes around the value",
                    one.name,
                    shown(one.rest)
                ));
            }
        };
    }
}

/// One `name=value`, and what follows it.
struct Written<'a> {
    name: &'a str,
    value: &'a str,
    rest: &'a str,
}

fn option(text: &str) -> Option<Written<'_>> {
    let (name, after) = text.split_once('=')?;
    let letter = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    // `blocktype?family=inet6="..."`: the condition belongs to the name.
    let (name, after) = match name.strip_suffix("?family") {
        Some(_) => {
            let (family, after) = after.split_once('=')?;
            (text.get(..name.len() + 1 + family.len())?, after)
        }
        None => (name, after),
    };
    let plain = name
        .split("?family=")
        .all(|part| !part.is_empty() && part.chars().all(letter));
    if !plain {
        return None;
    }
    for quote in ['"', '\''] {
        if let Some((value, rest)) = after.strip_prefix(quote).and_then(|a| a.split_once(quote)) {
            return Some(Written { name, value, rest });
        }
    }
    let (value, rest) = after.split_at(after.find([',', ']']).unwrap_or(after.len()));
    Some(Written { name, value, rest })
}

/// What is behind `,` or `][`.
fn separator(text: &str) -> Option<&str> {
    text.strip_prefix(',').or_else(|| {
        let behind = text.strip_prefix(']')?;
        behind.trim_start_matches(blank).strip_prefix('[')
    })
}

/// A list of calls, apart by blanks or newlines outside of brackets.
pub(super) fn calls(list: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut rest = list.trim_start_matches(blank);
    while !rest.is_empty() {
        let plain = rest.find(blank).unwrap_or(rest.len());
        let end = bracketed(rest).filter(|end| {
            rest.get(*end..)
                .is_none_or(|r| r.is_empty() || r.starts_with(blank))
        });
        let (one, behind) = rest.split_at(end.unwrap_or(plain));
        all.push(one);
        rest = behind.trim_start_matches(blank);
    }
    all
}

/// Where a call with brackets ends, if one begins here.
fn bracketed(text: &str) -> Option<usize> {
    let name = text.find(|c| c == '[' || blank(c))?;
    let mut rest = text
        .get(name..)?
        .trim_start_matches(blank)
        .strip_prefix('[')
        .filter(|_| name > 0)?;
    loop {
        rest = rest.trim_start_matches(blank);
        if let Some(behind) = rest.strip_prefix(']') {
            let again = behind.trim_start_matches(blank).strip_prefix('[');
            match again {
                Some(more) => rest = more,
                None => return Some(text.len() - behind.len()),
            }
            continue;
        }
        rest = option(rest)?.rest.trim_start_matches(blank);
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// Words, apart by blanks, commas and newlines.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|c| c == ',' || blank(c))
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Words as a shell takes them apart: quotes hold blanks, a backslash takes the next character as it is.
///
/// # Errors
/// A quote is not closed.
pub(super) fn shell_words(text: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some('"'), '\\') => {
                let next = chars.next().ok_or("ends with a backslash")?;
                let word = word.get_or_insert_default();
                if next != '"' && next != '\\' {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, '\\') => word
                .get_or_insert_default()
                .push(chars.next().ok_or("ends with a backslash")?),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t' | '\r' | '\n') => all.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("a {quote} is not closed"));
    }
    all.extend(word);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<(String, String)> {
        call(text).unwrap().options
    }

    #[test]
    fn options_may_be_quoted_and_in_several_brackets() {
        let read = options("x[a=1, b=\"2,]\"][c='3 \"', d= 4 \n]");
        let read: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(read, [("a", "1"), ("b", "2,]"), ("c", "3 \""), ("d", "4")]);
        assert_eq!(
            options("x[a?family=inet6=\"1\"]"),
            [("a?family=inet6".to_owned(), "1".to_owned())]
        );
    }

    #[test]
    fn a_call_that_cannot_be_read_is_told() {
        for bad in [
            "x[a=1",
            "x[a=1]b",
            "[a=1]",
            "x[a]",
            "x[a=\"1\" b=2]",
            "x[a=1]b]",
        ] {
            assert!(call(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_of_calls_is_taken_apart_outside_of_brackets() {
        let list = "a[x=\"1 2\",\n y=3] b\n  c[z='[ ]'][w=q\nr]  d[ e";
        assert_eq!(
            calls(list),
            ["a[x=\"1 2\",\n y=3]", "b", "c[z='[ ]'][w=q\nr]", "d[", "e"]
        );
    }

    #[test]
    fn journalmatch_is_taken_apart_as_a_shell_would() {
        assert_eq!(
            shell_words("_X=a\\ b + 'Y=c d'\"e\"").unwrap(),
            ["_X=a b", "+", "Y=c de"]
        );
        assert!(shell_words("'x").is_err());
    }
}
