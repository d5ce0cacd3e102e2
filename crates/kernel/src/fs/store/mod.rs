//! Files in an encrypted store (`occlum_storage::store`) on the host: alone, or as the writable layer over a
//! read-only file system (a union).
//!
//! ```text
//! Node (an inode: attributes, page cache, what is below) --> Shared (store, tables) --> Store --> HostDisk
//! ```
//! What a name means over a lower file system:
//! - a name of the store, else the name below; a whiteout of the store hides what is below
//! - a directory of the store shows what is below through unless it is *opaque*; what is below is the
//!   directory of the same name, or the one that the attribute [`REDIRECT`] names by its path (after a rename)
//! - everything else in the store stands for itself: it was copied up whole, or made here
//!
//! A node of the lower file system is *raised* (copied up, with the directories above it) at its first
//! change: the copy has no name until it is complete. Its inode number stays the lower one's: the store keeps
//! it as the *origin*, with a mark of the lower file system in the upper half, because another image has other
//! numbers. Numbers of the store's own files start at 2^32 then.
//!
//! Attributes and data that only grew old in memory (dirty pages, size, times of writes) go to the store at
//! fsync, by the write-back task and when too much is dirty; names and other attributes go at once. The
//! store makes durable what it has at its `sync`.
//!
//! Lock order: `raising`, then a file's content, then the store (all sleeping); tables and attributes are
//! leaf spin locks. An inode that loses its last user only notes it ([`Shared::unused`]): dropping never sleeps.

mod data;
mod layer;
mod meta;
mod node;
mod writeback;

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use occlum_enclave::log;
use occlum_storage::store::{Options, Seed, Store, StoreError};

pub use node::Node;

use super::disk::HostDisk;
use crate::error::{Errno, Error, Result, err};
use crate::random;
use crate::sched::{Mutex, SpinLock};
use crate::vfs::InodeRef;
use crate::vfs::mount::{FileSystem, StatFs};

const MAGIC: u64 = 0x5345_4653;
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
/// The store's root directory.
const ROOT: u64 = 1;
/// First inode number of the store's own files over a lower file system.
const FIRST_OWN_INO: u64 = 1 << 32;
/// Attribute of a directory that shows another lower directory than the one of its name: its path below.
const REDIRECT: &[u8] = b"trusted.occlum.redirect";
/// Names of attributes that are ours alone.
const OWN_XATTRS: &[u8] = b"trusted.occlum.";

type Disk = HostDisk;

/// A file system over which a store's files lie.
pub struct Lower {
    pub root: InodeRef,
    /// Tells its inode numbers from those of another lower file system.
    pub mark: u32,
}

/// A mounted store.
pub struct StoreFs {
    shared: Arc<Shared>,
    root: Arc<Node>,
}

/// What all nodes of one store refer to.
pub struct Shared {
    dev: u64,
    store: Mutex<Store<Disk>>,
    lower: Option<Lower>,
    is_read_only: bool,
    nodes: SpinLock<Nodes>,
    /// Nodes with something to write.
    dirty: SpinLock<BTreeMap<u64, Arc<Node>>>,
    /// Dirty pages of all files.
    dirty_pages: AtomicI64,
    /// Pages for which the store had room when it was last asked.
    room: AtomicI64,
    /// Inodes without names that lost their last user.
    unused: SpinLock<Vec<u64>>,
    /// Held while something is raised.
    raising: Mutex<()>,
    next_dirty: AtomicU64,
}

/// Nodes alive, by number in the store and by number below.
#[derive(Default)]
struct Nodes {
    upper: BTreeMap<u64, Weak<Node>>,
    lower: BTreeMap<u64, Weak<Node>>,
    /// Raised nodes with more names below: those must find the same node.
    kept: Vec<Arc<Node>>,
}

impl StoreFs {
    /// Opens the store on `disk`; an empty file becomes a new store.
    pub fn open(
        disk: HostDisk,
        key: &[u8; 32],
        options: &Options,
        lower: Option<Lower>,
    ) -> core::result::Result<Arc<StoreFs>, StoreError> {
        use occlum_storage::store::Disk as _;
        let mut seed = [0; 64];
        random::fill(&mut seed);
        let is_new = disk.size()? == 0 && !options.is_read_only && options.pin.is_none();
        let mut store = match is_new {
            true => Store::format(disk, key, &Seed(seed), options, meta::now())?,
            false => Store::open(disk, key, &Seed(seed), options)?,
        };
        if !options.is_read_only {
            store.reclaim()?;
        }
        let shared = Shared::new(store, lower, options.is_read_only);
        let root = shared.root().map_err(|error| {
            log!(Error, "the root of the store can't be read: {error:?}");
            StoreError::Failed
        })?;
        Ok(Arc::new(StoreFs { shared, root }))
    }

    /// Tells inode numbers of this store from those of other file systems; see [`Lower::mark`].
    pub fn mark(&self) -> Result<u32> {
        let id = self.shared.with(|store| Ok(store.pin()))?.store_id;
        Ok(u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
    }
}

impl FileSystem for StoreFs {
    fn name(&self) -> &'static str {
        if self.shared.lower.is_some() { "unionfs" } else { "sefs" }
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(self.root.clone())
    }

    fn stat(&self) -> Result<StatFs> {
        let stat = self.shared.with(|store| Ok(store.statfs()))?;
        let waiting = self.shared.dirty_pages.load(Ordering::Relaxed).max(0) as u64;
        Ok(StatFs {
            magic: if self.shared.lower.is_some() { OVERLAYFS_MAGIC } else { MAGIC },
            block_size: 4096,
            blocks: stat.blocks,
            blocks_free: stat.free_blocks.saturating_sub(waiting),
            files: stat.inodes.saturating_add(stat.free_blocks),
            files_free: stat.free_blocks,
        })
    }

    fn sync(&self) -> Result<()> {
        self.shared.sync()
    }

    fn is_read_only(&self) -> bool {
        self.shared.is_read_only
    }
}

impl Drop for StoreFs {
    /// The last mount went. Whoever unmounted has synced and was told how that went.
    fn drop(&mut self) {
        self.shared.nodes.lock().kept.clear();
        if !self.shared.is_read_only
            && let Err(error) = self.shared.with(|store| store.checkpoint())
        {
            log!(Error, "a store could not be closed in order: {error:?}");
        }
    }
}

impl Shared {
    fn new(store: Store<Disk>, lower: Option<Lower>, is_read_only: bool) -> Arc<Shared> {
        static NEXT_DEV: AtomicU64 = AtomicU64::new(0x1_0020);
        Arc::new(Shared {
            dev: NEXT_DEV.fetch_add(1, Ordering::Relaxed),
            store: Mutex::new(store),
            lower,
            is_read_only,
            nodes: SpinLock::new(Nodes::default()),
            dirty: SpinLock::new(BTreeMap::new()),
            dirty_pages: AtomicI64::new(0),
            room: AtomicI64::new(0),
            unused: SpinLock::new(Vec::new()),
            raising: Mutex::new(()),
            next_dirty: AtomicU64::new(0),
        })
    }

    /// Asks the store. May sleep.
    fn with<R>(&self, ask: impl FnOnce(&mut Store<Disk>) -> core::result::Result<R, StoreError>) -> Result<R> {
        let mut store = self.store.lock();
        let unused = core::mem::take(&mut *self.unused.lock());
        for ino in unused {
            store.release(ino).map_err(refuse)?;
        }
        ask(&mut store).map_err(refuse)
    }

    /// Counts `pages` more that wait to be written; ENOSPC if the store would have no room for all.
    fn charge(&self, pages: u32) -> Result<()> {
        let pages = i64::from(pages);
        let waiting = self.dirty_pages.fetch_add(pages, Ordering::Relaxed) + pages;
        if waiting <= self.room.load(Ordering::Relaxed) {
            return Ok(());
        }
        let free = match self.with(|store| Ok(store.statfs())) {
            Ok(stat) => i64::try_from(stat.free_blocks).unwrap_or(i64::MAX),
            Err(error) => {
                self.dirty_pages.fetch_sub(pages, Ordering::Relaxed);
                return Err(error);
            }
        };
        // Half of it, so that it is asked again before it can be used up by others.
        self.room.store(free / 2, Ordering::Relaxed);
        if waiting > free {
            self.dirty_pages.fetch_sub(pages, Ordering::Relaxed);
            return err(Errno::ENOSPC, "the store is full");
        }
        Ok(())
    }

    fn discharge(&self, pages: u32) {
        self.dirty_pages.fetch_sub(i64::from(pages), Ordering::Relaxed);
    }
}

impl data::Place<'_> {
    /// Fills `buf`; what lies behind `stored` is zeros.
    fn read(&self, offset: u64, stored: u64, buf: &mut [u8]) -> Result<()> {
        let there = usize::try_from(stored.saturating_sub(offset)).map_or(buf.len(), |size| size.min(buf.len()));
        let (data, rest) = buf.split_at_mut(there);
        rest.fill(0);
        if data.is_empty() {
            return Ok(());
        }
        let count = self.shared.with(|store| store.read_at(self.ino, offset, data))?;
        data[count..].fill(0);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.shared.with(|store| store.write_at(self.ino, offset, data, meta::now()))
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.shared.with(|store| store.set_size(self.ino, size, meta::now()))
    }
}

/// What a store's error means for the program. A store that was changed under way is EIO, as a broken disk
/// is: what was read before was right, and the log says what happened.
fn refuse(error: StoreError) -> Error {
    let errno = match error {
        StoreError::NotFound => Errno::ENOENT,
        StoreError::Exists => Errno::EEXIST,
        StoreError::NotADirectory => Errno::ENOTDIR,
        StoreError::IsADirectory => Errno::EISDIR,
        StoreError::NotEmpty => Errno::ENOTEMPTY,
        StoreError::NotASymlink | StoreError::NoData | StoreError::Invalid => Errno::EINVAL,
        StoreError::NameTooLong => Errno::ENAMETOOLONG,
        StoreError::FileTooLarge => Errno::EFBIG,
        StoreError::TooManyLinks => Errno::EMLINK,
        StoreError::NoXattr => Errno::ENODATA,
        StoreError::XattrTooLarge => Errno::ENOSPC,
        StoreError::NoSpace => Errno::ENOSPC,
        StoreError::ReadOnly => Errno::EROFS,
        StoreError::OutOfMemory => Errno::ENOMEM,
        about_the_store => {
            log!(Error, "{about_the_store}");
            Errno::EIO
        }
    };
    Error::new(errno, "the store's answer")
}
