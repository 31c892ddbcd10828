//! Files laid over each other: a name (`jail`, `filter.d/sshd`) to one configuration.
//!
//! Each file is read once, however many include it, and each configuration is put together once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::ini::{self, Options};
use super::percent::{Scope, Vars};
use crate::config::{Place, Problem, Severity};

/// Files that include each other in a row. fail2ban has no bound but the length of a path.
const INCLUDES_MAX_DEPTH: usize = 32;

/// Bytes of one file: the largest of fail2ban's own has 30 kB.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// Several files as one.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    /// `[DEFAULT]`.
    pub(super) defaults: Options,
    /// The other sections by name, and beside `name`, as `KNOWN/name`, what later files replaced in it. Options of `[Init?family=inet6]` are in `Init`, with `?family=inet6` behind their name.
    pub(super) sections: BTreeMap<String, Options>,
    /// Names of sections in the order of their first appearance, with its place.
    pub(super) order: Vec<(String, Place)>,
    /// See [`ini::File::damage`].
    pub(super) damage: Vec<(String, Problem)>,
}

impl Config {
    /// An option of a section or else of `[DEFAULT]`, as written.
    pub(super) fn entry(&self, section: &str, option: &str) -> Option<&ini::Entry> {
        let own = self.sections.get(section).and_then(|s| s.get(option));
        own.or_else(|| self.defaults.get(option))
    }

    fn lay_over(&mut self, file: &ini::File) {
        let copied = |o: &Options| {
            o.iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Vec<_>>()
        };
        self.defaults.extend(copied(&file.defaults));
        for section in &file.sections {
            let (name, condition) = conditional(&section.name).unwrap_or((&section.name, ""));
            let Some(below) = self.sections.get_mut(name) else {
                self.order.push((name.to_owned(), section.place.clone()));
                let options = copied(&section.options).into_iter();
                let options = options.map(|(k, v)| (k + condition, v)).collect();
                self.sections.insert(name.to_owned(), options);
                continue;
            };
            let mut replaced = Options::new();
            for (option, entry) in copied(&section.options) {
                let option = option + condition;
                if let Some(value) = below.insert(option.clone(), entry) {
                    replaced.insert(option, value);
                }
            }
            // Also when nothing was: a section that is there has the defaults.
            self.sections
                .entry(known(name))
                .or_default()
                .extend(replaced);
        }
        self.damage.extend(file.damage.iter().cloned());
    }
}

/// Where the values are kept that later files replaced in a section.
pub(super) fn known(section: &str) -> String {
    format!("KNOWN/{section}")
}

/// `Init?family=inet6` as `Init` and `?family=inet6`.
pub(super) fn conditional(name: &str) -> Option<(&str, &str)> {
    let (plain, condition) = name.split_at_checked(name.find('?')?)?;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    (!plain.is_empty() && plain.chars().all(word) && condition.len() > 1)
        .then_some((plain, condition))
}

/// The files of some folders, read when first needed.
#[derive(Debug)]
pub(super) struct Library {
    /// Where names are looked for, first to last.
    folders: Vec<PathBuf>,
    /// Every file read, in the order of reading.
    pub(super) files: Vec<PathBuf>,
    /// What is wrong with files whatever the jail.
    pub(super) problems: Vec<Problem>,
    read: HashMap<PathBuf, Option<Rc<ini::File>>>,
    /// What an included file stands for: itself, and what it includes.
    included: HashMap<PathBuf, Vec<PathBuf>>,
    configs: HashMap<String, Option<Rc<Config>>>,
}

impl Library {
    pub(super) fn new(folders: &[&Path]) -> Self {
        Self {
            folders: folders.iter().map(|f| f.to_path_buf()).collect(),
            files: Vec::new(),
            problems: Vec::new(),
            read: HashMap::new(),
            included: HashMap::new(),
            configs: HashMap::new(),
        }
    }

    /// The folder that relative paths of a configuration start from: the last one, which is fail2ban's.
    pub(super) fn folder(&self) -> &Path {
        self.folders.last().map_or(Path::new(""), PathBuf::as_path)
    }

    /// The configuration `name`, such as `jail` or `filter.d/sshd`; `None`: there is no such file in any folder.
    pub(super) fn config(&mut self, name: &str) -> Option<Rc<Config>> {
        if let Some(config) = self.configs.get(name) {
            return config.clone();
        }
        let files = self.folders.iter().map(|f| layers(&f.join(name)));
        let files = files
            .into_iter()
            .find(|files| !files.is_empty())
            .unwrap_or_default();
        let config = self.config_of(&files);
        self.configs.insert(name.to_owned(), config.clone());
        config
    }

    /// The configuration that one file is, with what it includes; `None`: there is no such file.
    pub(super) fn config_of_file(&mut self, file: &Path) -> Option<Rc<Config>> {
        self.config_of(&[file.to_path_buf()])
    }

    fn config_of(&mut self, files: &[PathBuf]) -> Option<Rc<Config>> {
        let mut config = Config::default();
        let mut any = false;
        for file in self.with_includes(files, &[]) {
            if let Some(file) = self.file(&file) {
                config.lay_over(&file);
                any = true;
            }
        }
        any.then(|| Rc::new(config))
    }

    /// `files`, each followed by its `.local` and surrounded by what it includes. `path`: the files that led here.
    fn with_includes(&mut self, files: &[PathBuf], path: &[PathBuf]) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for file in files {
            all.extend(self.around(file, path));
            let local = file.with_extension("local");
            if !files.contains(&local) && local.is_file() {
                all.extend(self.around(&local, path));
            }
        }
        all
    }

    /// What `file` includes before, itself, what it includes after.
    fn around(&mut self, file: &Path, path: &[PathBuf]) -> Vec<PathBuf> {
        let Some(read) = self.file(file) else {
            return Vec::new();
        };
        let mut path = path.to_vec();
        path.push(file.to_path_buf());
        let mut all = self.included(file, &read, "before", &path);
        all.push(file.to_path_buf());
        all.extend(self.included(file, &read, "after", &path));
        all
    }

    fn included(
        &mut self,
        file: &Path,
        read: &ini::File,
        key: &str,
        path: &[PathBuf],
    ) -> Vec<PathBuf> {
        let mut alone = Config::default();
        alone.lay_over(read);
        let Some(entry) = alone
            .sections
            .contains_key("INCLUDES")
            .then(|| alone.entry("INCLUDES", key))
            .flatten()
        else {
            return Vec::new();
        };
        let place = entry.place.clone();
        let nothing = Vars::new();
        let names = match Scope::new(&alone, "INCLUDES", &nothing).get(key) {
            Ok(names) => names.unwrap_or_default(),
            Err(problem) => {
                self.problems.push(problem);
                return Vec::new();
            }
        };
        let mut all = Vec::new();
        for name in names.split('\n').filter(|name| !name.is_empty()) {
            let include = self.beside(file, name);
            // The file itself is on the path as well, but fail2ban looks one step too late: harmless, it comes twice.
            if path.iter().rev().skip(1).any(|seen| *seen == include) {
                continue;
            }
            if path.len() > INCLUDES_MAX_DEPTH {
                let text = format!(
                    "more than {INCLUDES_MAX_DEPTH} files include each other in a row; \"{name}\" is left out"
                );
                self.tell(Problem::at(Severity::Error, &place, key, text));
                continue;
            }
            let files = match self.included.get(&include) {
                Some(files) => files.clone(),
                None => {
                    let files = self.with_includes(std::slice::from_ref(&include), path);
                    self.included.insert(include.clone(), files.clone());
                    files
                }
            };
            if files.is_empty() && include.extension().is_none_or(|e| e != "local") {
                let text = format!(
                    "there is no file {}; write the name of one, or take it away",
                    include.display()
                );
                self.tell(Problem::at(Severity::Warning, &place, key, text));
            }
            all.extend(files);
        }
        all
    }

    fn tell(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// `name` beside the file that includes it; a filter of our own may include one of fail2ban's.
    fn beside(&self, file: &Path, name: &str) -> PathBuf {
        let beside = file.with_file_name(name);
        let beside = if Path::new(name).is_absolute() {
            PathBuf::from(name)
        } else {
            beside
        };
        if beside.exists() {
            return beside;
        }
        let kind = file.parent().and_then(Path::file_name).unwrap_or_default();
        let elsewhere = self.folders.iter().map(|f| f.join(kind).join(name));
        elsewhere
            .into_iter()
            .find(|f| f.is_file())
            .unwrap_or(beside)
    }

    /// The file, if it can be read.
    fn file(&mut self, path: &Path) -> Option<Rc<ini::File>> {
        if let Some(file) = self.read.get(path) {
            return file.clone();
        }
        let file = if path.is_file() {
            self.read_file(path)
        } else {
            None
        };
        self.read.insert(path.to_path_buf(), file.clone());
        file
    }

    fn read_file(&mut self, path: &Path) -> Option<Rc<ini::File>> {
        let wrong = |text: String| Problem::of_file(Severity::Error, path, text);
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        if size > FILE_MAX_BYTES {
            self.problems.push(wrong(format!(
                "has {size} bytes; nothing above {FILE_MAX_BYTES} is read"
            )));
            return None;
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.problems.push(wrong(format!(
                    "cannot be read: {error}; nothing of it is used"
                )));
                return None;
            }
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = error
                    .as_bytes()
                    .get(..error.utf8_error().valid_up_to())
                    .unwrap_or_default();
                let line = 1 + memchr::memchr_iter(b'\n', good).count();
                let mut wrong = wrong(
                    "is not UTF-8 here; nothing of the file is used; write it anew as UTF-8"
                        .to_owned(),
                );
                wrong.line = Some(line);
                self.problems.push(wrong);
                return None;
            }
        };
        self.files.push(path.to_path_buf());
        let file = ini::read(&Arc::from(path), &text);
        self.problems
            .extend(file.damage.iter().map(|(_, problem)| problem.clone()));
        Some(Rc::new(file))
    }
}

/// The files that a name is read from, those that exist: `NAME.conf`, `NAME.d/*.conf`, `NAME.local`, `NAME.d/*.local`.
fn layers(base: &Path) -> Vec<PathBuf> {
    let ending = |end: &str| {
        let mut path = base.as_os_str().to_owned();
        path.push(end);
        PathBuf::from(path)
    };
    let drop_ins = |end: &str| {
        let entries = std::fs::read_dir(ending(".d"))
            .into_iter()
            .flatten()
            .flatten();
        let mut files: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == end))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|n| !n.as_encoded_bytes().starts_with(b"."))
            })
            .collect();
        files.sort();
        files
    };
    let mut files = vec![ending(".conf")];
    files.extend(drop_ins("conf"));
    files.push(ending(".local"));
    files.extend(drop_ins("local"));
    files.retain(|file| file.exists());
    files
}
