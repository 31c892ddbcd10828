//! The configuration of this process while it runs, and how it comes to another one.
//!
//! ```text
//! change, reload (in charge) ──> file of changes ──> look (every process, twice a second) ──> Config ──> rooms
//! ```
//!
//! A process that begins goes by the file, too: one that httpd starts by a graceful restart has the changes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::kept::Kept;
use super::{Change, add, apply, problem};
use crate::config::{self, Config, Current, Loaded, Problem, RuntimePaths};
use crate::run::guarded;
use crate::silence::board;

/// How often the file of changes is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Files that do not say what was read at the last reload are told of after this long.
const ASTRAY: Duration = Duration::from_secs(5);
const ABOUT_FILES: &str = "files of the configuration";
/// So often they are read once more, if they change meanwhile.
const READS: u32 = 5;
/// What it is about.
const ABOUT: &str = "live changes";

/// Takes another configuration to the rooms. Called by one thread at a time, and not by one that bans or reads lines.
pub(crate) type Room = Box<dyn FnMut(&Arc<Config>) + Send>;

/// The configuration of this process.
pub(crate) struct Course {
    /// The file.
    path: PathBuf,
    paths: RuntimePaths,
    /// For whoever looks now and then.
    current: Current,
    state: Mutex<State>,
    over: AtomicBool,
}

struct State {
    /// What the command line says over the file (`--dry-run`), and what a format cannot do.
    adjust: Box<dyn Fn(&mut Config) + Send>,
    /// As read, before changes.
    base: Config,
    kept: Kept,
    /// The reload that `base` is of.
    reloads: u64,
    /// The file of changes as it was when it was read.
    seen: Option<Seen>,
    room: Option<Room>,
    /// What was read anew elsewhere does not stand in the files any more: since when.
    astray: Option<Instant>,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen(u64, u64, i64, i64);

impl std::fmt::Debug for Course {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Course")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Course {
    /// Reads the configuration at `path`, and what was changed since. What is wrong is returned beside it.
    pub(crate) fn begin(
        path: &Path,
        paths: &RuntimePaths,
        adjust: impl Fn(&mut Config) + Send + 'static,
    ) -> (Arc<Self>, Loaded) {
        let loaded = config::load(path);
        let seen = seen(&paths.changes());
        let kept = read(paths);
        let base = loaded.config.clone();
        let mut config = changed(&base, &kept.changes);
        adjust(&mut config);
        let course = Arc::new(Self {
            path: path.to_path_buf(),
            paths: paths.clone(),
            current: Current::new(Arc::new(config)),
            state: Mutex::new(State {
                adjust: Box::new(adjust),
                base,
                reloads: kept.reloads,
                kept,
                seen,
                room: None,
                astray: None,
            }),
            over: AtomicBool::new(false),
        });
        (course, loaded)
    }

    /// The configuration that holds.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.current.get()
    }

    /// Jails that are switched off, as they would be if they were on.
    pub(crate) fn switched_off(&self) -> Vec<config::Jail> {
        let off = &self.config().switched_off;
        let state = self.lock();
        let jails = state.base.jails.iter();
        jails
            .filter(|jail| off.contains(&jail.name))
            .cloned()
            .collect()
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on `room` goes on with what is new, and the file is looked at.
    pub(crate) fn follow(self: &Arc<Self>, room: Room) {
        self.lock().room = Some(room);
        log::set_max_level(self.config().log_level);
        let course = Arc::downgrade(self);
        let look = move || {
            crate::sys::stand_back();
            loop {
                thread::sleep(LOOK);
                match course.upgrade() {
                    // A panic is said where it happens, and costs this change only.
                    Some(course) if !course.over.load(Ordering::Relaxed) => {
                        guarded(|| course.look());
                    }
                    Some(_) | None => return,
                }
            }
        };
        let started = thread::Builder::new().name("changes".into()).spawn(look);
        if let Err(error) = started {
            log::error!("cannot start a thread: {error}; changes while it runs are not noticed");
        }
    }

    /// The process ends: rooms are let go.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.lock().room = None;
    }

    /// Makes changes, in this process at once and in the others within a second.
    ///
    /// # Errors
    /// All that is wrong; then nothing has changed.
    pub(crate) fn change(&self, changes: &[Change]) -> Result<(), Vec<Problem>> {
        let mut state = self.lock();
        self.catch_up(&mut state);
        let mut kept = state.kept.clone();
        add(&mut kept.changes, changes).map_err(|problem| vec![problem])?;
        // Those of before may have become impossible by a reload; only what is new is refused.
        let mut config = changed(&state.base, &state.kept.changes);
        for jail in &state.base.jails {
            if config.switched_off.contains(&jail.name) {
                config.jails.push(jail.clone());
            }
        }
        let problems = apply(&mut config, changes);
        if !problems.is_empty() {
            return Err(problems);
        }
        kept.generation += 1;
        self.write(&mut state, kept, None)
    }

    /// Reads the configuration anew, in all processes, and forgets changes: all, or those of one jail.
    ///
    /// # Errors
    /// All that is wrong; then the old one goes on. A jail of fail2ban's folder that runs must not be lost by a mistake
    /// either.
    pub(crate) fn reload(&self, jail: Option<&str>) -> Result<(), Vec<Problem>> {
        let mut state = self.lock();
        self.catch_up(&mut state);
        let (base, text) = self.load(&state.base).map_err(|(problems, _)| problems)?;
        let mut kept = state.kept.clone();
        match jail {
            None => kept.changes.clear(),
            Some(jail) => kept.changes.retain(|change| of_jail(change) != Some(jail)),
        }
        kept.generation += 1;
        kept.reloads += 1;
        kept.text = text;
        state.astray = None;
        self.write(&mut state, kept, Some(base))
    }

    /// Looks whether another process has changed something.
    fn look(&self) {
        let mut state = self.lock();
        self.catch_up(&mut state);
    }

    fn catch_up(&self, state: &mut State) {
        let now = seen(&self.paths.changes());
        // A file that is gone, with the runtime directory say, takes nothing back.
        if (now == state.seen && state.astray.is_none()) || now.is_none() {
            return;
        }
        state.seen = now;
        let kept = read(&self.paths);
        let mut anew = kept.generation != state.kept.generation;
        if kept.reloads != state.reloads {
            let as_read = |text| kept.text == 0 || kept.text == text;
            // Where it is not, that may be for a moment: somebody is writing it.
            let loaded = as_read(config::fingerprint(&self.path)).then(|| self.load(&state.base));
            match loaded {
                Some(Ok((base, text))) if as_read(text) => {
                    state.base = base;
                    (state.reloads, state.astray) = (kept.reloads, None);
                    anew = true;
                }
                Some(Err((problems, text))) if as_read(text) => {
                    (state.reloads, state.astray) = (kept.reloads, None);
                    for problem in problems {
                        log::error!("{problem}");
                    }
                    log::error!(
                        "the configuration was read anew and is bad now; the old one goes on"
                    );
                }
                Some(_) | None => {
                    let since = *state.astray.get_or_insert_with(Instant::now);
                    if since.elapsed() >= ASTRAY {
                        board().tell(
                            ABOUT_FILES,
                            "they are not as they were at the last reload, so this process goes on with what was before it; \
                             f2b-pipe reload"
                                .to_owned(),
                        );
                    }
                }
            }
        }
        if state.astray.is_none() {
            board().over(ABOUT_FILES, "they are as at the last reload");
        }
        state.kept = kept;
        if anew {
            self.go_on(state);
        }
    }

    /// The configuration, if it is good, and the number of its text.
    fn load(&self, running: &Config) -> Result<(Config, u64), (Vec<Problem>, u64)> {
        let mut text = config::fingerprint(&self.path);
        let mut loaded = config::load(&self.path);
        // Somebody may be writing it.
        for _ in 0..READS {
            let now = config::fingerprint(&self.path);
            if now == text {
                break;
            }
            text = now;
            loaded = config::load(&self.path);
        }
        good(running, loaded)
            .map(|config| (config, text))
            .map_err(|problems| (problems, text))
    }

    fn write(
        &self,
        state: &mut State,
        kept: Kept,
        base: Option<Config>,
    ) -> Result<(), Vec<Problem>> {
        let path = self.paths.changes();
        kept.write(&path).map_err(|error| {
            let text = format!("{}: {error}; nothing has changed", path.display());
            vec![problem("", text)]
        })?;
        state.seen = seen(&path);
        state.kept = kept;
        if let Some(base) = base {
            (state.base, state.reloads) = (base, state.kept.reloads);
        }
        self.go_on(state);
        Ok(())
    }

    /// Rooms go on with what holds now.
    fn go_on(&self, state: &mut State) {
        let mut config = changed(&state.base, &state.kept.changes);
        (state.adjust)(&mut config);
        let config = Arc::new(config);
        log::set_max_level(config.log_level);
        self.current.set(Arc::clone(&config));
        if let Some(room) = &mut state.room {
            room(&config);
        }
        log::info!(
            "the configuration is another one now; jails: {}",
            config
                .jails
                .iter()
                .map(|jail| jail.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The configuration, if it is good.
fn good(running: &Config, loaded: Loaded) -> Result<Config, Vec<Problem>> {
    let mut problems: Vec<Problem> = loaded.errors().cloned().collect();
    for broken in &loaded.config.broken {
        let runs = running.jails.iter().any(|jail| jail.name == broken.jail);
        if runs && !problems.contains(&broken.problem) {
            problems.push(broken.problem.clone());
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for problem in loaded.told() {
        log::warn!("{problem}");
    }
    Ok(loaded.config)
}

/// The configuration with what was changed.
fn changed(base: &Config, changes: &[Change]) -> Config {
    let mut config = base.clone();
    let problems = apply(&mut config, changes);
    match problems.first() {
        None => board().over(ABOUT, "all of them hold"),
        Some(first) => board().tell(
            ABOUT,
            format!(
                "{} of them cannot be any more ({first}); f2b-pipe reload forgets them all",
                problems.len()
            ),
        ),
    }
    config
}

/// Whose change it is.
fn of_jail(change: &Change) -> Option<&str> {
    match change {
        Change::Mode { jail, .. } | Change::Set { jail, .. } => Some(jail),
        Change::Ignore { jail, .. } | Change::Unignore { jail, .. } => jail.as_deref(),
        Change::LogLevel(_) => None,
    }
}

fn read(paths: &RuntimePaths) -> Kept {
    let path = paths.changes();
    Kept::read(&path).unwrap_or_else(|error| {
        log::error!("{}: {error}; no live change holds", path.display());
        Kept::default()
    })
}

fn seen(path: &Path) -> Option<Seen> {
    let meta = fs::metadata(path).ok()?;
    Some(Seen(
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(maxretry: u32) -> String {
        format!("[fail2ban]\nconfig = \"\"\n[jail.mine]\nstatus = [404]\nmaxretry = {maxretry}\n")
    }

    #[test]
    fn what_one_process_has_read_anew_the_others_read_or_nothing() {
        let dir = std::env::temp_dir().join(format!("f2b-course-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("f2b-pipe.toml");
        let put = |text: &str| fs::write(&path, text).unwrap();
        let paths = RuntimePaths::new(&dir.join("run"), &path);
        put(&config(3));
        let begin = || Course::begin(&path, &paths, |_| {}).0;
        let (one, other) = (begin(), begin());
        let maxretry = |course: &Course| {
            let config = course.config();
            let mine = config.jails.iter().find(|jail| jail.name == "mine");
            mine.map(|jail| jail.maxretry)
        };
        let look = || {
            other.look();
            maxretry(&other)
        };
        put(&config(4));
        assert_eq!(look(), Some(3), "nobody has asked for that");
        one.reload(None).unwrap();
        assert_eq!((maxretry(&one), look()), (Some(4), Some(4)));
        // Before the other one looks, an editor begins to write.
        put(&config(5));
        one.reload(None).unwrap();
        put("");
        assert_eq!((maxretry(&one), look()), (Some(5), Some(4)));
        put("[jail.mine]\nmaxretry = 'man");
        assert_eq!(look(), Some(4));
        // Changes are made all the same.
        let mine = || "mine".to_owned();
        let findtime = Change::Set {
            jail: mine(),
            to: super::super::Setting::FindTime(7.0),
        };
        one.change(&[findtime]).unwrap();
        assert_eq!(look(), Some(4));
        let seconds = |course: &Course| {
            let config = course.config();
            let mine = config.jails.iter().find(|jail| jail.name == "mine");
            mine.map(|jail| jail.findtime.as_secs())
        };
        assert_eq!(seconds(&other), Some(7));
        put(&config(5));
        assert_eq!(look(), Some(5));
        assert_eq!(seconds(&other), Some(7));
        // What is refused changes nothing anywhere.
        put("[jail.mine]\nmaxretri = 1\n");
        assert_eq!(one.reload(None).unwrap_err().len(), 1);
        assert_eq!((maxretry(&one), look()), (Some(5), Some(5)));
        fs::remove_dir_all(dir).unwrap();
    }
}
