//! ETXTBSY: a program that runs is not written, and what is open for writing is not run (open(2), execve(2)).

use alloc::collections::BTreeMap;

use super::inode::{InodeRef, Kind};
use crate::error::{Errno, Result, err};
use crate::sched::SpinLock;

/// (device, inode)
type FileId = (u64, u64);

#[derive(Default)]
struct Uses {
    writers: usize,
    programs: usize,
}

static USES: SpinLock<BTreeMap<FileId, Uses>> = SpinLock::new(BTreeMap::new());

/// Somebody has the file open for writing.
#[derive(Debug)]
pub struct Writer(FileId);

/// A process runs the file.
#[derive(Debug)]
pub struct Running(FileId);

/// Counts a writer of a regular file; ETXTBSY while it runs.
pub fn write(inode: &InodeRef) -> Result<Option<Writer>> {
    if inode.kind() != Kind::Regular {
        return Ok(None);
    }
    let id = file_id(inode)?;
    let mut uses = USES.lock();
    if uses.get(&id).is_some_and(|uses| uses.programs > 0) {
        return err(Errno::ETXTBSY, "the program is running");
    }
    uses.entry(id).or_default().writers += 1;
    Ok(Some(Writer(id)))
}

/// Counts a process that runs the file; ETXTBSY while somebody writes it.
pub fn run(inode: &InodeRef) -> Result<Running> {
    let id = file_id(inode)?;
    let mut uses = USES.lock();
    if uses.get(&id).is_some_and(|uses| uses.writers > 0) {
        return err(Errno::ETXTBSY, "the file is open for writing");
    }
    uses.entry(id).or_default().programs += 1;
    Ok(Running(id))
}

fn file_id(inode: &InodeRef) -> Result<FileId> {
    let attr = inode.attr()?;
    Ok((attr.dev, attr.ino))
}

fn forget(id: FileId, change: impl FnOnce(&mut Uses)) {
    let mut uses = USES.lock();
    let Some(entry) = uses.get_mut(&id) else { return };
    change(entry);
    if entry.writers == 0 && entry.programs == 0 {
        uses.remove(&id);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        forget(self.0, |uses| uses.writers -= 1);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        forget(self.0, |uses| uses.programs -= 1);
    }
}
