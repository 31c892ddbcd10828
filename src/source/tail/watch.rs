//! inotify: which files have grown, in which folders something has appeared. One watch for each inode, whoever asks.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::statfs::fstatfs;

use super::FileId;

/// Reads of the queue before the files get their turn again; each is up to 4 KiB of events.
const READS: usize = 16;
/// File systems whose files others write, or whose events come from elsewhere (linux/magic.h): NFS, SMB, CIFS, SMB2,
/// FUSE, 9P, Ceph, AFS, Coda, vboxsf, GFS2, OCFS2, overlayfs.
const WITHOUT_EVENTS: [u32; 13] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x7375_7245,
    0x786f_4256,
    0x0116_1970,
    0x7461_636f,
    0x794c_7630,
];

/// What a watch is for.
#[derive(Debug, Default)]
struct Watched {
    files: Vec<FileId>,
    folder: Option<PathBuf>,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Change {
    /// A file was written, renamed or removed.
    File(FileId),
    /// Something appeared in a folder or left it.
    Entry {
        /// The folder joined with the name.
        path: PathBuf,
        folder: bool,
    },
    /// A folder is gone or somewhere else.
    Folder,
    /// Events were lost: anything may have happened.
    Anything,
}

#[derive(Debug)]
pub(super) struct Watches {
    inotify: Option<Inotify>,
    watched: HashMap<WatchDescriptor, Watched>,
    folders: HashMap<PathBuf, WatchDescriptor>,
}

impl Watches {
    pub(super) fn new(polling: bool) -> io::Result<Self> {
        let inotify = if polling {
            None
        } else {
            Some(Inotify::init(
                InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC,
            )?)
        };
        Ok(Self {
            inotify,
            watched: HashMap::new(),
            folders: HashMap::new(),
        })
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches an open file: exactly that one, whatever its name leads to now. `None`: it must be polled.
    pub(super) fn file(
        &mut self,
        file: &File,
        id: FileId,
    ) -> Result<Option<WatchDescriptor>, Errno> {
        let Some(inotify) = &self.inotify else {
            return Ok(None);
        };
        let kind = fstatfs(file).map(|stat| stat.filesystem_type().0);
        // A long whose upper half may be a sign.
        let kind = kind
            .ok()
            .and_then(|kind| u32::try_from(kind & 0xffff_ffff).ok());
        if kind.is_some_and(|kind| WITHOUT_EVENTS.contains(&kind)) {
            return Ok(None);
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF;
        let watch = inotify.add_watch(path.as_str(), flags)?;
        self.watched.entry(watch).or_default().files.push(id);
        Ok(Some(watch))
    }

    pub(super) fn drop_file(&mut self, watch: WatchDescriptor, id: FileId) {
        let Some(watched) = self.watched.get_mut(&watch) else {
            return;
        };
        if let Some(at) = watched.files.iter().position(|file| *file == id) {
            watched.files.swap_remove(at);
        }
        if watched.files.is_empty() && watched.folder.is_none() {
            self.watched.remove(&watch);
            if let Some(inotify) = &self.inotify {
                // Refused where it went with its inode already.
                inotify.rm_watch(watch).ok();
            }
        }
    }

    /// Watches a folder; again after it was replaced. Is the watch a new one?
    pub(super) fn folder(&mut self, path: &Path) -> Result<bool, Errno> {
        let Some(inotify) = &self.inotify else {
            return Ok(false);
        };
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let watch = match inotify.add_watch(path, flags) {
            Ok(watch) => watch,
            // It went away since.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(false),
            Err(error) => return Err(error),
        };
        let before = self.folders.insert(path.to_owned(), watch);
        if before == Some(watch) {
            return Ok(false);
        }
        if let Some(watched) = before.and_then(|before| self.watched.get_mut(&before)) {
            watched.folder = None;
        }
        self.watched.entry(watch).or_default().folder = Some(path.to_owned());
        Ok(true)
    }

    /// Forgets folders that lead to no log any more.
    pub(super) fn keep_folders(&mut self, keep: impl Fn(&Path) -> bool) {
        let gone: Vec<_> = self
            .folders
            .extract_if(|path, _| !keep(path))
            .map(|(_, watch)| watch)
            .collect();
        for watch in gone {
            if let Some(watched) = self.watched.get_mut(&watch) {
                watched.folder = None;
                if watched.files.is_empty() {
                    self.watched.remove(&watch);
                    if let Some(inotify) = &self.inotify {
                        // Refused where it went with its folder already.
                        inotify.rm_watch(watch).ok();
                    }
                }
            }
        }
    }

    /// What happened since the last look; never waits.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..READS {
            let Some(Ok(events)) = self.inotify.as_ref().map(Inotify::read_events) else {
                break;
            };
            for event in events {
                self.heed(event, &mut changes);
            }
        }
        changes
    }

    fn heed(&mut self, event: InotifyEvent, changes: &mut Vec<Change>) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            changes.push(Change::Anything);
            return;
        }
        let Some(watched) = self.watched.get(&event.wd) else {
            return;
        };
        match (&watched.folder, event.name) {
            (Some(folder), Some(name)) => changes.push(Change::Entry {
                path: folder.join(name),
                folder: event.mask.contains(AddWatchFlags::IN_ISDIR),
            }),
            (Some(_), None) => changes.push(Change::Folder),
            (None, _) => changes.extend(watched.files.iter().map(|file| Change::File(*file))),
        }
        if event.mask.contains(AddWatchFlags::IN_IGNORED)
            && let Some(Watched {
                folder: Some(folder),
                ..
            }) = self.watched.remove(&event.wd)
        {
            self.folders.remove(&folder);
        }
    }
}
