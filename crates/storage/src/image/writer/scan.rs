//! The source tree, in the one order that makes an image reproducible.
//!
//! Each directory's names are sorted; inode numbers are given as names are met, a directory's
//! entries in a row, so that what is listed together lies together.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::vec::Vec;

use super::error::WriteError;
use crate::image::record::{FileKind, Ino};

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// Size of an ELF-64 file header: nothing shorter is a program.
const MIN_ELF_SIZE: u64 = 64;

/// A tree as it was when it was scanned. Only names and attributes: no file was opened.
#[derive(Debug)]
pub struct Scan {
    source: PathBuf,
    inodes: Vec<ScannedInode>,
}

/// A file that begins with the ELF magic. What `path`, `size` and `mtime_ns` name can key a cache
/// of what was found in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfFile {
    /// Relative to the source.
    pub path: PathBuf,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i128,
}

#[derive(Debug)]
pub struct ScannedInode {
    /// Relative to the source; of several hard links, the first in order.
    pub path: PathBuf,
    pub kind: FileKind,
    pub mode: u32,
    /// Names inside the tree; for a directory 2 plus its subdirectories.
    pub nlink: u32,
    /// Bytes, for regular files; else 0.
    pub size: u64,
    pub rdev: u64,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// A directory's names, sorted.
    pub children: Vec<(OsString, Ino)>,
    pub parent: Ino,
    /// Whether the file occupies less disk than its size: it may have holes worth skipping.
    pub is_sparse: bool,
    pub stamp: Stamp,
}

/// What tells that a file was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Scan {
    /// Scans the tree under the directory `source`.
    pub fn new(source: &Path) -> Result<Scan, WriteError> {
        let metadata = fs::metadata(source).map_err(WriteError::io("look at", source))?;
        let mut scan = Scan {
            source: source.to_path_buf(),
            inodes: Vec::new(),
        };
        let root = scan.add(PathBuf::new(), Ino::ROOT, &metadata)?;
        let mut links = HashMap::new();
        let mut waiting = std::vec![root];
        while let Some(dir) = waiting.pop() {
            let first = scan.inodes.len();
            scan.add_children(dir, &mut links)?;
            // The last one goes in first, so the first is scanned next.
            let added = (first..scan.inodes.len()).rev();
            let is_directory = |index: &usize| scan.inodes[*index].kind == FileKind::Directory;
            waiting.extend(added.filter(is_directory));
        }
        Ok(scan)
    }

    pub fn source(&self) -> &Path {
        &self.source
    }

    /// In the order of their inode numbers, which start at 1.
    pub fn inodes(&self) -> &[ScannedInode] {
        &self.inodes
    }

    /// Bytes of all regular files.
    pub fn content_size(&self) -> u64 {
        self.inodes.iter().map(|inode| inode.size).sum()
    }

    /// The ELF files: reads four bytes of each regular file.
    pub fn elf_files(&self) -> Result<Vec<ElfFile>, WriteError> {
        let mut found = Vec::new();
        for inode in &self.inodes {
            if inode.kind == FileKind::Regular
                && inode.size >= MIN_ELF_SIZE
                && is_elf(&self.source.join(&inode.path))?
            {
                found.push(ElfFile {
                    path: inode.path.clone(),
                    size: inode.size,
                    mtime_ns: i128::from(inode.mtime_s) * 1_000_000_000
                        + i128::from(inode.mtime_ns),
                });
            }
        }
        Ok(found)
    }

    fn add_children(
        &mut self,
        dir: usize,
        links: &mut HashMap<(u64, u64), Ino>,
    ) -> Result<(), WriteError> {
        let dir_path = self.inodes[dir].path.clone();
        for (name, metadata) in list(&self.source.join(&dir_path))? {
            let ino = self.child(dir_path.join(&name), dir, &metadata, links)?;
            self.inodes[dir].children.push((name, ino));
        }
        Ok(())
    }

    /// The inode of one name: a known one for a further hard link, else a new one.
    fn child(
        &mut self,
        path: PathBuf,
        dir: usize,
        metadata: &Metadata,
        links: &mut HashMap<(u64, u64), Ino>,
    ) -> Result<Ino, WriteError> {
        let is_linked = metadata.nlink() > 1 && !metadata.is_dir();
        let identity = (metadata.dev(), metadata.ino());
        if is_linked && let Some(ino) = links.get(&identity) {
            self.inodes[ino.0 as usize - 1].nlink += 1;
            return Ok(*ino);
        }
        let index = self.add(path, ino_of(dir), metadata)?;
        if metadata.is_dir() {
            self.inodes[dir].nlink += 1;
        }
        if is_linked {
            links.insert(identity, ino_of(index));
        }
        Ok(ino_of(index))
    }

    fn add(
        &mut self,
        path: PathBuf,
        parent: Ino,
        metadata: &Metadata,
    ) -> Result<usize, WriteError> {
        let index = self.inodes.len();
        let Some(kind) = FileKind::from_mode(metadata.mode()) else {
            return Err(WriteError::Changed { path });
        };
        if index >= u32::MAX as usize {
            return Err(WriteError::TooLarge {
                path: self.source.clone(),
            });
        }
        let is_regular = kind == FileKind::Regular;
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        self.inodes.push(ScannedInode {
            path,
            kind,
            mode: metadata.mode(),
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            size: if is_regular { metadata.size() } else { 0 },
            rdev: if is_device { metadata.rdev() } else { 0 },
            mtime_s: metadata.mtime(),
            // The kernel keeps it below 10^9, so it fits.
            mtime_ns: metadata.mtime_nsec() as u32,
            children: Vec::new(),
            parent,
            is_sparse: is_regular && metadata.blocks().saturating_mul(512) < metadata.size(),
            stamp: Stamp::of(metadata),
        });
        Ok(index)
    }
}

fn ino_of(index: usize) -> Ino {
    Ino(index as u32 + 1)
}

/// Names and attributes in a directory, sorted by the bytes of the name.
fn list(path: &Path) -> Result<Vec<(OsString, Metadata)>, WriteError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(WriteError::io("list", path))? {
        let entry = entry.map_err(WriteError::io("list", path))?;
        let metadata = entry
            .metadata()
            .map_err(WriteError::io("look at", &entry.path()))?;
        found.push((entry.file_name(), metadata));
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    Ok(found)
}

fn is_elf(path: &Path) -> Result<bool, WriteError> {
    let mut magic = [0; ELF_MAGIC.len()];
    let mut file = File::open(path).map_err(WriteError::io("open", path))?;
    match file.read_exact(&mut magic) {
        Ok(()) => Ok(magic == ELF_MAGIC),
        // Truncated since the scan; the writer will say so.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(WriteError::io("read", path)(error)),
    }
}
