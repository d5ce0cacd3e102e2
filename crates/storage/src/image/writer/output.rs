//! The image file while it is written: a temporary beside its place, renamed when it is whole and
//! on disk.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};

use super::error::WriteError;
use crate::image::record::{LEAF_SIZE, SUPERBLOCK_SIZE};

/// Bytes written between two requests to send them to the disk.
const SYNC_EVERY: usize = 32 << 20;

pub struct Output {
    file: File,
    dest: PathBuf,
    temporary: Temporary,
    flusher: Flusher,
    unsynced: usize,
}

impl Output {
    pub fn create(dest: &Path) -> Result<Output, WriteError> {
        let temporary = Temporary::beside(dest);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary.path)
            .map_err(WriteError::io("create", &temporary.path))?;
        let copy = file
            .try_clone()
            .map_err(WriteError::io("duplicate", &temporary.path))?;
        let flusher = Flusher::start(copy);
        Ok(Output {
            file,
            dest: dest.to_path_buf(),
            temporary,
            flusher,
            unsynced: 0,
        })
    }

    /// Writes whole leaves from number `first` on.
    pub fn write_leaves(&mut self, first: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_at(SUPERBLOCK_SIZE as u64 + first * LEAF_SIZE as u64, bytes)
    }

    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(WriteError::io("write", &self.temporary.path))?;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.flusher.request();
        }
        Ok(())
    }

    /// Puts the file in its place once all of it is on disk.
    pub fn commit(self) -> Result<(), WriteError> {
        self.flusher.stop();
        let path = &self.temporary.path;
        self.file.sync_all().map_err(WriteError::io("sync", path))?;
        fs::rename(path, &self.dest).map_err(WriteError::io("rename", path))?;
        sync_directory(&self.dest)
    }
}

/// Makes a rename in the directory of `path` durable.
pub fn sync_directory(path: &Path) -> Result<(), WriteError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let open = File::open(dir).map_err(WriteError::io("open", dir))?;
    open.sync_all().map_err(WriteError::io("sync", dir))
}

/// A file that is gone when the value is, unless it was renamed.
pub struct Temporary {
    pub path: PathBuf,
}

impl Temporary {
    /// A name in the same directory, so that it can be renamed to `dest`.
    pub fn beside(dest: &Path) -> Temporary {
        let mut name = OsString::from(dest);
        name.push(std::format!(".tmp{}", std::process::id()));
        Temporary {
            path: PathBuf::from(name),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; after an error that error is the one to
        // report.
        drop(fs::remove_file(&self.path));
    }
}

/// Sends what was written to the disk while more is produced: the last sync then has little to do.
struct Flusher {
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    fn start(file: File) -> Flusher {
        let (requests, due) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            for () in due {
                // Only a head start: the sync before the rename reports errors.
                drop(file.sync_data());
            }
        });
        Flusher {
            requests: Some(requests),
            thread: Some(thread),
        }
    }

    fn request(&self) {
        match self.requests.as_ref().map(|requests| requests.try_send(())) {
            // One is waiting already: it covers these bytes as well.
            Some(Err(TrySendError::Full(()))) => {}
            Some(Err(TrySendError::Disconnected(()))) | Some(Ok(())) | None => {}
        }
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It ends when the channel does, and has nothing to return.
            drop(thread.join());
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.end();
    }
}
