//! The hashed image: `occlum_storage`'s reader over host memory, as a read-only file system.
//!
//! Data goes through a cache of checked pages ([`pages`]); names are cached by the file layer. A block that
//! does not match its hash is a lie of the host: the enclave stops, because no answer would be right.

mod pages;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use occlum_enclave::host::{self, HostMisbehaved, HostSlice};
use occlum_enclave::{log, vector};
use occlum_storage::image::{self, FileKind, Image, ImageError, ImageSource, Ino, SourceError};
use spin::Once;

use crate::error::{Errno, Error, Result, err};
use crate::vfs::file::File;
use crate::vfs::inode::{Attr, DirEntry, Inode, InodeRef, Kind, Link, SetAttr, Timestamp, Visit};
use crate::vfs::Sink;

/// `st_dev` of the image itself; programs see the union's.
const DEV: u64 = 0x1f;

/// Host memory that holds the image file.
struct HostImage(HostSlice);

impl ImageSource for HostImage {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> core::result::Result<(), SourceError> {
        let offset = usize::try_from(offset).map_err(|_| SourceError)?;
        let part = self.0.part(offset, buf.len()).ok_or(SourceError)?;
        part.read(buf).map_err(|_| SourceError)
    }

    fn size(&self) -> u64 {
        self.0.size() as u64
    }

    fn with_vectors<R>(&self, work: impl FnOnce() -> R) -> R {
        vector::wide(work)
    }
}

/// An open image.
pub struct ImageFs {
    image: Image<HostImage>,
}

impl ImageFs {
    /// Checks the image's superblock and root node against `root_hash`.
    pub fn open(memory: HostSlice, root_hash: &[u8; 32]) -> core::result::Result<Arc<ImageFs>, ImageError> {
        let image = Image::open(HostImage(memory), root_hash)?;
        Ok(Arc::new(ImageFs { image }))
    }

    pub fn root(self: &Arc<ImageFs>) -> Result<InodeRef> {
        self.inode(Ino::ROOT)
    }

    fn inode(self: &Arc<ImageFs>, ino: Ino) -> Result<InodeRef> {
        let inode = self.image.inode(ino).map_err(refuse)?;
        Ok(ImageInode::new(self.clone(), inode))
    }
}

/// One inode of the image.
pub struct ImageInode {
    fs: Arc<ImageFs>,
    inode: image::Inode,
    pages: Arc<pages::FilePages>,
    sites: Once<Option<Arc<[u8]>>>,
}

impl ImageInode {
    fn new(fs: Arc<ImageFs>, inode: image::Inode) -> Arc<ImageInode> {
        Arc::new(ImageInode { fs, inode, pages: pages::FilePages::new(), sites: Once::new() })
    }

    fn load_sites(&self) -> Option<Arc<[u8]>> {
        match self.fs.image.sites(&self.inode) {
            Ok(table) => table.map(Arc::from),
            Err(error) => {
                log!(Warn, "no system-call sites of inode {}: {:?}", self.inode.ino().0, refuse(error));
                None
            }
        }
    }
}

impl Inode for ImageInode {
    fn attr(&self) -> Result<Attr> {
        let inode = &self.inode;
        let (s, ns) = inode.mtime();
        let time = Timestamp { s, ns };
        Ok(Attr {
            dev: DEV,
            ino: u64::from(inode.ino().0),
            mode: inode.mode(),
            nlink: inode.nlink(),
            uid: inode.uid(),
            gid: inode.gid(),
            rdev: inode.rdev(),
            size: inode.size(),
            block_size: image::LEAF_SIZE as u32,
            blocks: inode.size().div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
        })
    }

    fn kind(&self) -> Kind {
        kind_of(self.inode.kind())
    }

    fn set_attr(&self, _change: &SetAttr) -> Result<()> {
        err(Errno::EROFS, "the image is read-only")
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        match self.fs.image.lookup(&self.inode, name).map_err(refuse)? {
            Some(ino) => self.fs.inode(ino),
            None => err(Errno::ENOENT, "no such name"),
        }
    }

    fn read_dir(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        let Ok(cursor) = u32::try_from(cursor) else { return Ok(()) };
        let show = |entry: image::DirEntry<'_>| -> ControlFlow<()> {
            visit(DirEntry {
                name: entry.name,
                ino: u64::from(entry.ino.0),
                kind: kind_of(entry.kind),
                next: u64::from(entry.next),
            })
        };
        self.fs.image.read_dir(&self.inode, cursor, show).map_err(refuse)
    }

    fn read_link(&self) -> Result<Link> {
        let target: Vec<u8> = self.fs.image.read_link(&self.inode).map_err(refuse)?;
        Ok(Link::Text(target))
    }

    fn open(self: Arc<Self>, _flags: u32) -> Result<Option<Arc<dyn File>>> {
        Ok(None)
    }

    fn read_at(&self, offset: u64, sink: &mut Sink<'_>) -> Result<()> {
        let load = |offset: u64, buf: &mut [u8]| {
            let count = self.fs.image.read_at(&self.inode, offset, buf).map_err(refuse)?;
            if count == buf.len() { Ok(()) } else { err(Errno::EIO, "short read of the image") }
        };
        self.pages.read_at(self.inode.size(), offset, sink, load)
    }

    fn is_unchanging(&self) -> bool {
        true
    }

    fn sites(&self) -> Option<Arc<[u8]>> {
        self.sites.call_once(|| self.load_sites()).clone()
    }
}

fn kind_of(kind: FileKind) -> Kind {
    match kind {
        FileKind::Fifo => Kind::Fifo,
        FileKind::CharDevice => Kind::CharDevice,
        FileKind::Directory => Kind::Directory,
        FileKind::BlockDevice => Kind::BlockDevice,
        FileKind::Regular => Kind::Regular,
        FileKind::Symlink => Kind::Symlink,
        FileKind::Socket => Kind::Socket,
    }
}

/// What an image error means for the program. Changed blocks end the enclave; what is left is the builder's
/// mistake or want of memory.
fn refuse(error: ImageError) -> Error {
    match error {
        ImageError::Source => host::stop_for(HostMisbehaved::UnreadableMemory),
        ImageError::SuperblockHash | ImageError::NodeHash { .. } | ImageError::LeafHash { .. } => {
            log!(Error, "{error}");
            host::stop_for(HostMisbehaved::ChangedImage)
        }
        ImageError::OutOfMemory => Error::new(Errno::ENOMEM, "no memory for a block of the image"),
        other => {
            log!(Error, "{other}");
            Error::new(Errno::EIO, "the image is malformed")
        }
    }
}
