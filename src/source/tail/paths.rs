//! `logpath` globs to paths, as Python's `glob.glob` expands them, and the folders where a new match would appear.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// `*` stops at a slash and leaves out names that begin with a dot.
const AS_PYTHON: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};
/// Paths of one glob, and folders on the way to them. A folder that grows without end must not take all memory.
const PATHS_MAX: usize = 50_000;

/// One glob.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    text: String,
    parts: Vec<Part>,
    whole: Option<Pattern>,
}

#[derive(Clone, Debug)]
enum Part {
    Name(OsString),
    Any(Pattern),
}

/// What a glob finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) paths: Vec<PathBuf>,
    /// Folders in which something that is created may be a match, or lead to one.
    pub(super) folders: BTreeSet<PathBuf>,
    /// There is more than we take.
    pub(super) cut: bool,
}

/// Regular files, links and whatever else the glob `text` finds now; nothing for a text that is no glob.
#[must_use]
pub fn expand(text: &str) -> Vec<PathBuf> {
    Glob::new(text).map_or_else(|_| Vec::new(), |glob| glob.walk().paths)
}

impl Glob {
    /// # Errors
    /// The message says what is wrong.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("logpath: {text:?} must begin with /"));
        }
        let mut parts = Vec::new();
        for component in Path::new(text).components() {
            let name = match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir => OsString::from(".."),
                Component::Normal(name) => name.to_owned(),
            };
            let as_text = name.to_string_lossy();
            parts.push(if has_magic(&as_text) {
                Part::Any(pattern(&as_text, text)?)
            } else {
                Part::Name(name)
            });
        }
        let whole = has_magic(text).then(|| pattern(text, text)).transpose()?;
        Ok(Self {
            text: text.to_owned(),
            parts,
            whole,
        })
    }

    /// It names one file, which is waited for.
    pub(super) fn is_literal(&self) -> bool {
        self.whole.is_none()
    }

    pub(super) fn matches(&self, path: &Path) -> bool {
        match &self.whole {
            Some(whole) => whole.matches_path_with(path, AS_PYTHON),
            None => path == Path::new(&self.text),
        }
    }

    /// Expands. A literal path is found also where nothing is.
    pub(super) fn walk(&self) -> Found {
        let mut found = Found::default();
        let mut here = vec![PathBuf::from("/")];
        for (depth, part) in self.parts.iter().enumerate() {
            let last = depth + 1 == self.parts.len();
            let mut next = Vec::new();
            for folder in here {
                match part {
                    Part::Name(name) => {
                        let path = folder.join(name);
                        if last || !path.is_dir() {
                            found.folders.insert(folder);
                        }
                        if std::fs::symlink_metadata(&path).is_ok() {
                            next.push(path);
                        }
                    }
                    Part::Any(pattern) => {
                        let Ok(entries) = std::fs::read_dir(&folder) else {
                            continue;
                        };
                        for entry in entries.flatten() {
                            let name = entry.file_name();
                            if !pattern.matches_path_with(Path::new(&name), AS_PYTHON) {
                                continue;
                            }
                            let path = folder.join(name);
                            if last || path.is_dir() {
                                next.push(path);
                            }
                            if next.len() >= PATHS_MAX {
                                found.cut = true;
                                break;
                            }
                        }
                        found.folders.insert(folder);
                    }
                }
                if found.cut {
                    break;
                }
            }
            here = next;
        }
        here.sort();
        found.paths = here;
        found
    }
}

fn has_magic(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// `**` is `*` in Python unless it is told otherwise, and fail2ban does not.
fn pattern(part: &str, whole: &str) -> Result<Pattern, String> {
    let mut one_star = String::with_capacity(part.len());
    for c in part.chars() {
        if !(c == '*' && one_star.ends_with('*')) {
            one_star.push(c);
        }
    }
    Pattern::new(&one_star).map_err(|error| {
        format!("logpath: {whole:?} is no glob: {error}; write a literal [ as [[]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_those_where_a_match_can_appear() {
        let root = std::env::temp_dir().join(format!("f2b-pipe-glob-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/logs")).unwrap();
        std::fs::create_dir_all(root.join("b")).unwrap();
        std::fs::write(root.join("a/logs/x.log"), "").unwrap();
        std::fs::write(root.join("a/logs/.hidden.log"), "").unwrap();
        let of = |tail: &str| Glob::new(&format!("{}/{tail}", root.display())).unwrap();
        let found = of("*/logs/**.log").walk();
        assert_eq!(found.paths, [root.join("a/logs/x.log")]);
        let folders: Vec<_> = found.folders.into_iter().collect();
        assert_eq!(folders, [root.clone(), root.join("a/logs"), root.join("b")]);
        let found = of("c/d/e.log").walk();
        assert!(found.paths.is_empty());
        assert!(found.folders.contains(&root));
        assert!(of("*/logs/*.log").matches(&root.join("b/logs/new.log")));
        assert!(!of("*/logs/*.log").matches(&root.join("b/c/logs/new.log")));
        std::fs::remove_dir_all(root).unwrap();
        assert!(Glob::new("relative.log").is_err());
    }
}
