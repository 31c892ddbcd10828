//! From the main file through every Include to one list of directives, each with its place and its server.
//!
//! Sections that hold only for some requests (`<Directory>`, `<Location>`) cannot carry log directives and are walked
//! through; `<IfModule>`, `<IfDefine>`, `<IfFile>` and `<VirtualHost>` are obeyed. Macros are not expanded: that is told, not guessed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::syntax::{self, Variables};
use super::{Place, Server, Unread};

/// Includes deeper than this are a circle. httpd's own limit is 128 (`AP_MAX_INCLUDE_DEPTH`).
const DEPTH_MAX: usize = 32;

/// Built into the httpd of Debian and Red Hat, so without a LoadModule line.
const BUILT_IN: [&str; 8] = [
    "core",
    "so",
    "http",
    "log_config",
    "logio",
    "version",
    "unixd",
    "watchdog",
];

/// One line of httpd's configuration, words unquoted.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) place: Place,
    /// Index into the servers: 0 is the main server.
    pub(super) server: usize,
    /// In lower case.
    pub(super) name: String,
    pub(super) args: Vec<String>,
}

/// Reads files and keeps what they said.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) variables: Variables,
    /// What relative paths begin at.
    pub(super) root: PathBuf,
    pub(super) servers: Vec<Server>,
    pub(super) directives: Vec<Directive>,
    pub(super) unread: Vec<Unread>,
    /// Modules loaded so far, `mod_x.so` and `x_module` both as `x`.
    modules: Vec<String>,
    /// Open sections, outermost first, and whether what is in them counts.
    sections: Vec<(String, bool)>,
    server: usize,
}

impl Walk {
    pub(super) fn new(root: PathBuf, main: Server) -> Self {
        Self {
            root,
            servers: vec![main],
            ..Self::default()
        }
    }

    /// Reads `path` and what it includes.
    ///
    /// # Errors
    /// `path` itself cannot be read. What it includes is noted in `unread` instead.
    pub(super) fn file(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        for (line, text) in syntax::lines(&text) {
            let place = Place {
                file: path.to_owned(),
                line,
            };
            self.line(place, &text, depth);
        }
        Ok(())
    }

    fn live(&self) -> bool {
        self.sections.iter().all(|(_, live)| *live)
    }

    fn line(&mut self, place: Place, text: &str, depth: usize) {
        if let Some(name) = text.strip_prefix("</") {
            self.close(name.trim_end_matches('>').trim());
            return;
        }
        if let Some(section) = text.strip_prefix('<') {
            let section = section.strip_suffix('>').unwrap_or(section);
            self.open(place, &syntax::words(section, &self.variables));
            return;
        }
        if !self.live() {
            return;
        }
        let mut args = syntax::words(text, &self.variables);
        if args.is_empty() {
            return;
        }
        let name = args.remove(0).to_ascii_lowercase();
        let first = args.first().map_or("", String::as_str);
        match name.as_str() {
            "define" => self
                .variables
                .set(first, args.get(1).map_or("", String::as_str)),
            "undefine" => self.variables.unset(first),
            "serverroot" => self.root = PathBuf::from(first),
            "loadmodule" => self.modules.push(module(first)),
            "servername" => {
                if let Some(server) = self.servers.get_mut(self.server) {
                    first.clone_into(&mut server.name);
                }
            }
            "include" => self.include(&place, first, depth, true),
            "includeoptional" => self.include(&place, first, depth, false),
            "use" => self.unread.push(Unread::Macro(place, first.to_owned())),
            _ => self.directives.push(Directive {
                place,
                server: self.server,
                name,
                args,
            }),
        }
    }

    fn open(&mut self, place: Place, words: &[String]) {
        let name = words
            .first()
            .map_or("", String::as_str)
            .to_ascii_lowercase();
        let argument = words.get(1).map_or("", String::as_str);
        let (not, what) = argument
            .strip_prefix('!')
            .map_or((false, argument), |w| (true, w));
        let live = match name.as_str() {
            "ifmodule" => self.loaded(what) != not,
            "ifdefine" => self.variables.has(what) != not,
            "iffile" => self.root.join(what).exists() != not,
            "macro" => false,
            "virtualhost" if self.live() => {
                self.server = self.servers.len();
                self.servers.push(Server {
                    place,
                    name: argument.to_owned(),
                });
                true
            }
            _ => true,
        };
        self.sections.push((name, live));
    }

    fn close(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        if let Some(at) = self.sections.iter().rposition(|(open, _)| *open == name) {
            self.sections.truncate(at);
        }
        if name == "virtualhost" {
            self.server = 0;
        }
    }

    /// A configuration without a single LoadModule is of a server with everything built in.
    fn loaded(&self, what: &str) -> bool {
        let what = module(what);
        self.modules.is_empty() || self.modules.contains(&what) || BUILT_IN.contains(&what.as_str())
    }

    fn include(&mut self, place: &Place, pattern: &str, depth: usize, must: bool) {
        let found = expand(&self.root.join(pattern));
        if depth >= DEPTH_MAX || (found.is_empty() && must && !pattern.contains(['*', '?', '['])) {
            let error = io::Error::from(io::ErrorKind::NotFound);
            self.unread
                .push(Unread::File(place.clone(), self.root.join(pattern), error));
            return;
        }
        for file in found {
            if let Err(error) = self.file(&file, depth + 1) {
                self.unread.push(Unread::File(place.clone(), file, error));
            }
        }
    }
}

/// `mod_log_config.c`, `log_config_module`, `mod_log_config.so`: `log_config`.
fn module(name: &str) -> String {
    let name = name
        .strip_suffix(".c")
        .or(name.strip_suffix(".so"))
        .unwrap_or(name);
    let name = name.strip_suffix("_module").unwrap_or(name);
    name.strip_prefix("mod_").unwrap_or(name).to_owned()
}

/// Files an Include means, in httpd's order: wildcards in any part of the path; a directory stands for all that is in it.
fn expand(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let part = part.as_os_str().to_string_lossy();
        found = if part.contains(['*', '?', '[']) {
            found
                .iter()
                .flat_map(|dir| entries(dir, Some(&part)))
                .collect()
        } else {
            found.into_iter().map(|dir| dir.join(&*part)).collect()
        };
    }
    found
        .into_iter()
        .filter(|p| p.exists())
        .flat_map(flat)
        .collect()
}

fn flat(path: PathBuf) -> Vec<PathBuf> {
    if path.is_dir() {
        entries(&path, None).into_iter().flat_map(flat).collect()
    } else {
        vec![path]
    }
}

/// What is in a directory and fits, sorted. As in a shell, a wildcard does not fit a leading dot.
fn entries(dir: &Path, pattern: Option<&str>) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = listed
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            pattern.is_none_or(|p| (!name.starts_with('.') || p.starts_with('.')) && fits(p, &name))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// A shell pattern with `*`, `?` and `[a-z]`.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    let Some(first) = rest.next() else {
        return name.is_empty();
    };
    let mut behind = name.chars();
    match first {
        '*' => {
            let rest = rest.as_str();
            name.char_indices()
                .any(|(at, _)| fits(rest, name.split_at(at).1))
                || fits(rest, "")
        }
        '[' => {
            let Some((set, after)) = rest.as_str().split_once(']') else {
                return false;
            };
            behind.next().is_some_and(|c| in_set(set, c)) && fits(after, behind.as_str())
        }
        first => {
            behind.next().is_some_and(|c| first == '?' || c == first)
                && fits(rest.as_str(), behind.as_str())
        }
    }
}

fn in_set(set: &str, c: char) -> bool {
    let (not, set) = set
        .strip_prefix(['!', '^'])
        .map_or((false, set), |s| (true, s));
    let set: Vec<char> = set.chars().collect();
    let ranged = set
        .windows(3)
        .any(|w| matches!(w, [from, '-', to] if (from..=to).contains(&&c)));
    (ranged || set.contains(&c)) != not
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("a?c", "abc"),
            ("[0-9]*", "10-x"),
            ("*", ""),
            ("[!a]b", "cb"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.conf", "a.conf.bak"),
            ("a?c", "ac"),
            ("[0-9]*", "x"),
            ("[!a]b", "ab"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn module_names_are_one_in_all_three_spellings() {
        assert_eq!(
            ["mod_log_config.c", "log_config_module", "mod_log_config.so"].map(module),
            ["log_config"; 3]
        );
    }
}
