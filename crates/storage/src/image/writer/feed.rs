//! Contents of all regular files, in the order of the scan, in batches read ahead by a thread.
//!
//! A batch holds many small files or a part of a large one. Pieces of a file are cut at multiples
//! of `LEAF_SIZE`; parts that a file system reports as holes are left out.

use core::ops::Range;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;
use std::vec::Vec;

use rustix::io::Errno;

use super::error::WriteError;
use super::scan::{Scan, ScannedInode, Stamp};
use crate::image::record::{FileKind, LEAF_SIZE};

/// Small enough to stay in a CPU's cache between reading and hashing.
const BATCH_SIZE: usize = 1 << 20;
const BATCHES_AHEAD: usize = 4;

#[derive(Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub pieces: Vec<Piece>,
}

pub struct Piece {
    /// Index in the scan's inodes.
    pub inode: usize,
    /// A multiple of `LEAF_SIZE`.
    pub file_offset: u64,
    /// Where in the batch.
    pub range: Range<usize>,
}

/// Calls `consume` with all batches; stops at its first error or at the first file that can't be
/// read.
pub fn for_each_batch(
    scan: &Scan,
    mut consume: impl FnMut(&Batch) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let (full, batches) = mpsc::sync_channel::<Batch>(BATCHES_AHEAD);
    let (used, empty) = mpsc::channel();
    thread::scope(|scope| {
        let reader = scope.spawn(move || Feed::new(full, empty).run(scan));
        let consumed = drain(batches, &used, &mut consume);
        let read = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // If the consumer failed, the reader stopped because nobody listened.
        consumed.and(read)
    })
}

/// Owns `batches`, so that the reader learns when nobody listens any more.
fn drain(
    batches: Receiver<Batch>,
    used: &Sender<Batch>,
    consume: &mut impl FnMut(&Batch) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    for mut batch in batches {
        consume(&batch)?;
        batch.pieces.clear();
        // The reader may have ended; then nobody needs the buffer.
        drop(used.send(batch));
    }
    Ok(())
}

struct Feed {
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
    batch: Batch,
    /// Bytes of the batch in use; its buffer keeps its length when it is used again.
    filled: usize,
}

impl Feed {
    fn new(full: SyncSender<Batch>, empty: Receiver<Batch>) -> Feed {
        Feed {
            full,
            empty,
            batch: empty_batch(),
            filled: 0,
        }
    }

    fn run(mut self, scan: &Scan) -> Result<(), WriteError> {
        for (index, inode) in scan.inodes().iter().enumerate() {
            if inode.kind == FileKind::Regular && inode.size > 0 {
                self.add_file(index, inode, &scan.source().join(&inode.path))?;
            }
        }
        self.send()
    }

    fn add_file(
        &mut self,
        index: usize,
        inode: &ScannedInode,
        path: &Path,
    ) -> Result<(), WriteError> {
        let mut file = File::open(path).map_err(WriteError::io("open", path))?;
        let mut offset = 0;
        while offset < inode.size {
            if inode.is_sparse {
                let Some(data) = next_data(&mut file, offset, path)? else {
                    break;
                };
                offset = data;
            }
            offset += self.add_piece(index, inode, offset, &mut file, path)? as u64;
        }
        let metadata = file.metadata().map_err(WriteError::io("look at", path))?;
        if Stamp::of(&metadata) != inode.stamp {
            return Err(changed(path));
        }
        Ok(())
    }

    /// Reads the next piece of a file, at least a leaf or the rest of it, and says how much it was.
    fn add_piece(
        &mut self,
        index: usize,
        inode: &ScannedInode,
        offset: u64,
        file: &mut File,
        path: &Path,
    ) -> Result<usize, WriteError> {
        let rest = usize::try_from(inode.size - offset).unwrap_or(usize::MAX);
        if self.room() < rest.min(LEAF_SIZE) {
            self.send()?;
        }
        let size = match self.room() {
            room if rest <= room => rest,
            room => room - room % LEAF_SIZE,
        };
        let range = self.filled..self.filled + size;
        file.read_exact(&mut self.batch.bytes[range.clone()])
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => changed(path),
                _ => WriteError::io("read", path)(error),
            })?;
        self.filled = range.end;
        self.batch.pieces.push(Piece {
            inode: index,
            file_offset: offset,
            range,
        });
        Ok(size)
    }

    fn room(&self) -> usize {
        BATCH_SIZE - self.filled
    }

    fn send(&mut self) -> Result<(), WriteError> {
        let next = self.empty.try_recv().unwrap_or_else(|_| empty_batch());
        let batch = core::mem::replace(&mut self.batch, next);
        self.filled = 0;
        // The consumer hangs up only after an error of its own, which is the one reported.
        self.full.send(batch).map_err(|_| WriteError::Cancelled)
    }
}

fn empty_batch() -> Batch {
    Batch {
        bytes: std::vec![0; BATCH_SIZE],
        pieces: Vec::new(),
    }
}

/// Seeks to the leaf in which the first data at or behind `offset` stands; `None` if only a hole
/// follows.
fn next_data(file: &mut File, offset: u64, path: &Path) -> Result<Option<u64>, WriteError> {
    let data = match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data,
        Err(Errno::NXIO) => return Ok(None),
        // A file system without holes.
        Err(_) => offset,
    };
    let leaf = (data - data % LEAF_SIZE as u64).max(offset);
    file.seek(SeekFrom::Start(leaf))
        .map_err(WriteError::io("seek in", path))?;
    Ok(Some(leaf))
}

fn changed(path: &Path) -> WriteError {
    WriteError::Changed {
        path: path.to_path_buf(),
    }
}
