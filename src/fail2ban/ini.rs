//! One file's text to sections, as Python's ConfigParser takes it.
//!
//! Where fail2ban would refuse to start at all, this goes on: a line that cannot be read is left out and told, with the
//! section it stood in, so that only what is written in that section suffers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Place, Problem, Severity};

/// A value as written, with where its name stands.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Lines joined by newlines, comments gone, the end stripped; nothing replaced yet.
    pub(super) value: String,
    /// Where it is written.
    pub(super) place: Place,
}

/// The options of a section, by lower-case name.
pub(super) type Options = BTreeMap<String, Entry>;

/// A section as it stands in one file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// As written: case counts.
    pub(super) name: String,
    /// Where its header is.
    pub(super) place: Place,
    /// What it says.
    pub(super) options: Options,
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// `[DEFAULT]`.
    pub(super) defaults: Options,
    /// The others in their order.
    pub(super) sections: Vec<Section>,
    /// What could not be read, and the section it concerns (empty: none in particular, so all of them).
    pub(super) damage: Vec<(String, Problem)>,
}

/// Python's idea of white space: Unicode's, and the four separators of ASCII.
pub(super) fn blank(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Where an option's lines are being gathered.
enum At {
    /// Ahead of the first section.
    Nowhere,
    Default,
    /// Index into [`File::sections`].
    Section(usize),
}

/// Reads `text`, the content of the file named `path`.
pub(super) fn read(path: &Arc<Path>, text: &str) -> File {
    let mut file = File::default();
    let mut at = At::Nowhere;
    let mut option: Option<String> = None;
    let mut indent = 0;
    // In a section that stands twice: that is told once, not for each of its names.
    let mut again = false;
    // A carriage return ends a line too.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    for (number, line) in text.split('\n').enumerate() {
        let place = Place {
            file: Arc::clone(path),
            line: number + 1,
        };
        let (value, commented) = without_comment(line);
        let value = value.trim_matches(blank);
        if value.is_empty() {
            if !commented && let Some(entry) = entry(&mut file, &at, option.as_deref()) {
                entry.value.push('\n');
            }
            continue;
        }
        let depth = line.chars().take_while(|c| blank(*c)).count();
        if depth > indent
            && let Some(entry) = entry(&mut file, &at, option.as_deref())
        {
            entry.value.push('\n');
            entry.value.push_str(value);
            continue;
        }
        indent = depth;
        if let Some(header) = header(value) {
            option = None;
            let told = file.damage.len();
            at = open(&mut file, header, place);
            again = file.damage.len() > told;
            continue;
        }
        let written = value
            .find(['=', ':'])
            .and_then(|cut| value.split_at_checked(cut));
        let Some((name, rest)) =
            written.filter(|(name, _)| !name.trim_end_matches(blank).is_empty())
        else {
            let text = format!(
                "\"{}\" is neither `name = value` nor a [section]; write a # before a remark",
                shown(value)
            );
            damage(&mut file, &at, &place, "", text);
            option = None;
            continue;
        };
        let name = name.trim_end_matches(blank).to_lowercase();
        // Only one delimiter belongs to the syntax: `a == b` is `= b`.
        let value = rest.get(1..).unwrap_or_default().trim_matches(blank);
        let Some(options) = options(&mut file, &at) else {
            let text =
                "stands ahead of the first section; write [DEFAULT] or [jail's name] above it"
                    .to_owned();
            damage(&mut file, &at, &place, &name, text);
            continue;
        };
        let entry = Entry {
            value: value.to_owned(),
            place: place.clone(),
        };
        if let Some(first) = options.insert(name.clone(), entry)
            && !again
        {
            let text = format!(
                "is written twice in this section, first in line {}; keep one of them",
                first.place.line
            );
            damage(&mut file, &at, &place, &name, text);
        }
        option = Some(name);
    }
    let ends = file.sections.iter_mut().map(|s| &mut s.options);
    for options in ends.chain([&mut file.defaults]) {
        for entry in options.values_mut() {
            entry
                .value
                .truncate(entry.value.trim_end_matches(blank).len());
        }
    }
    file
}

/// The line without its comment, and whether there was one.
fn without_comment(line: &str) -> (&str, bool) {
    if line.trim_start_matches(blank).starts_with(['#', ';']) {
        return ("", true);
    }
    let mut before = None;
    for (at, c) in line.char_indices() {
        if c == ';' && before.is_some_and(blank) {
            return (line.get(..at).unwrap_or(line), true);
        }
        before = Some(c);
    }
    (line, false)
}

/// `[name]`, whatever stands behind the last bracket.
fn header(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('[')?;
    inner
        .get(..inner.rfind(']')?)
        .filter(|name| !name.is_empty())
}

fn open(file: &mut File, name: &str, place: Place) -> At {
    if name == "DEFAULT" {
        return At::Default;
    }
    if let Some(known) = file.sections.iter().position(|s| s.name == name) {
        let first = file.sections.get(known).map_or(0, |s| s.place.line);
        let text = format!("stands twice in this file, first in line {first}; put both together");
        file.damage.push((
            name.to_owned(),
            Problem::at(Severity::Error, &place, &format!("[{name}]"), text),
        ));
        return At::Section(known);
    }
    file.sections.push(Section {
        name: name.to_owned(),
        place,
        options: Options::new(),
    });
    At::Section(file.sections.len() - 1)
}

fn options<'a>(file: &'a mut File, at: &At) -> Option<&'a mut Options> {
    match at {
        At::Nowhere => None,
        At::Default => Some(&mut file.defaults),
        At::Section(index) => file.sections.get_mut(*index).map(|s| &mut s.options),
    }
}

fn entry<'a>(file: &'a mut File, at: &At, option: Option<&str>) -> Option<&'a mut Entry> {
    options(file, at)?.get_mut(option?)
}

fn damage(file: &mut File, at: &At, place: &Place, key: &str, text: String) {
    let section = match at {
        At::Nowhere => String::new(),
        At::Default => "DEFAULT".to_owned(),
        At::Section(index) => file
            .sections
            .get(*index)
            .map_or(String::new(), |s| s.name.clone()),
    };
    file.damage
        .push((section, Problem::at(Severity::Error, place, key, text)));
}

/// A piece of a value for a message.
pub(super) fn shown(value: &str) -> String {
    let mut piece: String = value.chars().take(60).collect();
    if piece.len() < value.len() {
        piece.push_str("...");
    }
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> File {
        read(&Arc::from(Path::new("x.conf")), text)
    }

    fn value(file: &File, section: &str, option: &str) -> String {
        let section = file.sections.iter().find(|s| s.name == section).unwrap();
        section.options[option].value.clone()
    }

    #[test]
    fn a_value_goes_on_while_lines_are_indented_deeper() {
        let file =
            of("[a]\nOne : 1 ; note\n two\n\n# no\n  # neither\n  three # kept\n\nnext = x;y\n");
        assert_eq!(value(&file, "a", "one"), "1\ntwo\n\nthree # kept");
        assert_eq!(value(&file, "a", "next"), "x;y");
        assert_eq!(file.sections[0].options["one"].place.line, 2);
        assert!(file.damage.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line_and_the_rest_is_read() {
        let file = of("early = 1\n[a]\nx = 1\nnonsense\nx = 2\n[b]\ny == 3\n[a]\nz = 4\n");
        let told: Vec<_> = file
            .damage
            .iter()
            .map(|(s, p)| (s.as_str(), p.line.unwrap()))
            .collect();
        assert_eq!(told, [("", 1), ("a", 4), ("a", 5), ("a", 8)]);
        assert_eq!(value(&file, "b", "y"), "= 3");
        assert_eq!(value(&file, "a", "z"), "4");
    }

    #[test]
    fn a_section_that_stands_twice_is_told_once() {
        let file = of("[a]\nx = 1\n[a]\nx = 2\n");
        assert_eq!(file.damage.len(), 1);
        assert_eq!(file.damage[0].1.line, Some(3));
    }
}
