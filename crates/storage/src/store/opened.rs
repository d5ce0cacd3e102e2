//! [`Store`]: creating it, opening it, replaying its log.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::commit::{Log, group_key};
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::inode::{FileKind, ROOT, Stat, Time};
use super::item::{Item, Key};
use super::log::{self, Body, Commit, Place, Record};
use super::pin::Pin;
use super::pointer::{BLOCK, MountId, Pointer};
use super::seal::KEY_SIZE;
use super::space::{Run, Space};
use super::staging::Staging;
use super::superblock::{SLOTS, Superblock};
use super::tree::Tree;
use super::vault::Vault;

/// Fresh random bytes, for one `format` or `open` only: the mount id comes from them.
pub struct Seed(pub [u8; 64]);

#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that the store may take on the disk.
    pub max_size: u64,
    pub is_read_only: bool,
    /// The store must be in this state or a later one.
    pub pin: Option<Pin>,
    pub limits: Limits,
}

/// Memory for tree nodes, about 8 KiB each.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub cached_nodes: usize,
    /// Changed nodes; when there are more, a checkpoint is written.
    pub dirty_nodes: usize,
}

impl Default for Options {
    /// A terabyte at most, about 32 MiB of memory.
    fn default() -> Self {
        Options {
            max_size: 1 << 40,
            is_read_only: false,
            pin: None,
            limits: Limits {
                cached_nodes: 4096,
                dirty_nodes: 2048,
            },
        }
    }
}

/// The smallest store: 1 MiB.
const MIN_BLOCKS: u64 = 256;

/// An open store. There is no lock inside.
pub struct Store<D> {
    pub(super) vault: Vault<D>,
    pub(super) tree: Tree,
    pub(super) space: Space,
    pub(super) staging: Staging,
    pub(super) log: Log,
    /// The last commit.
    pub(super) place: Place,
    /// Where its checkpoint's superblock is.
    pub(super) slot: u64,
    pub(super) store_id: [u8; 16],
    pub(super) name_key: [u8; 16],
    pub(super) next_ino: u64,
    pub(super) inode_count: u64,
    /// Data of this mount with a counter below is durable.
    pub(super) settled: u64,
    /// What was written with a counter below may be named by a commit.
    pub(super) commit_counter: u64,
    pub(super) limits: Limits,
    /// The log can't be continued.
    pub(super) must_checkpoint: bool,
    is_read_only: bool,
    is_failed: bool,
}

impl<D: Disk> Store<D> {
    /// A new store with an empty root directory, in an empty file. Durable when this returns.
    pub fn format(
        disk: D,
        key: &[u8; KEY_SIZE],
        seed: &Seed,
        options: &Options,
        now: Time,
    ) -> Result<Store<D>> {
        if disk.size()? != 0 {
            return Err(StoreError::NotEmptyDisk);
        }
        let blocks = options.max_size / BLOCK as u64;
        if blocks < MIN_BLOCKS {
            return Err(StoreError::NoSpace);
        }
        let mut vault = Vault::new(disk, key, mount_id(seed));
        let mut space = Space::new(blocks)?;
        let slots = space.reserve(&mut vault, SLOTS)?;
        if slots
            != Some(Run {
                start: 0,
                len: SLOTS,
            })
        {
            return Err(StoreError::NoSpace);
        }
        for slot in 0..SLOTS {
            space.mark_used(&mut vault, slot)?;
        }
        let mut store = Store::new(vault, Tree::new(), space, options);
        store.store_id.copy_from_slice(&seed.0[12..28]);
        store.name_key.copy_from_slice(&seed.0[28..44]);
        store.make_root(now)?;
        // Twice, so that both slots hold this store.
        store.must_checkpoint = true;
        store.checkpoint()?;
        store.must_checkpoint = true;
        store.checkpoint()?;
        Ok(store)
    }

    /// Writes nothing. What an earlier mount left unlinked but open goes with
    /// [`reclaim`](Store::reclaim).
    pub fn open(disk: D, key: &[u8; KEY_SIZE], seed: &Seed, options: &Options) -> Result<Store<D>> {
        let size = disk.size()?;
        if size < SLOTS * BLOCK as u64 {
            return Err(StoreError::NotAStore);
        }
        let mut vault = Vault::new(disk, key, mount_id(seed));
        let (superblock, tag, slot) = Superblock::read(&vault.disk, &mut vault.keys)?;
        let expected = superblock.block_count.saturating_mul(BLOCK as u64);
        if size < expected {
            return Err(StoreError::Truncated {
                expected,
                found: size,
            });
        }
        let limit = (options.max_size / BLOCK as u64).max(superblock.block_count);
        let tree = Tree::open(&mut vault, &superblock.root)?;
        let mut store = Store::new(vault, tree, Space::new(limit)?, options);
        store.take_over(&superblock, slot);
        store.place.tag = tag;
        store.load_groups()?;
        store.replay(superblock.log)?;
        if let Some(pin) = &options.pin {
            pin.check(&store.pin())?;
        }
        Ok(store)
    }

    fn new(vault: Vault<D>, tree: Tree, space: Space, options: &Options) -> Store<D> {
        Store {
            vault,
            tree,
            space,
            staging: Staging::default(),
            log: Log::default(),
            place: Place {
                seq: 0,
                tag: [0; 16],
            },
            slot: 1,
            store_id: [0; 16],
            name_key: [0; 16],
            next_ino: ROOT,
            inode_count: 0,
            settled: 0,
            commit_counter: 0,
            limits: options.limits,
            must_checkpoint: false,
            is_read_only: options.is_read_only,
            is_failed: false,
        }
    }

    fn take_over(&mut self, superblock: &Superblock, slot: u64) {
        self.store_id = superblock.store_id;
        self.name_key = superblock.name_key;
        self.next_ino = superblock.next_ino;
        self.inode_count = superblock.inode_count;
        self.place.seq = superblock.seq;
        self.slot = slot;
        self.space.set_high(superblock.block_count);
        self.log = Log::new(superblock.log);
    }

    fn load_groups(&mut self) -> Result<()> {
        let mut groups = Vec::new();
        let (from, to) = (group_key(0), group_key(u64::MAX));
        self.tree
            .scan(&mut self.vault, &from, &to, &mut |key, item| {
                if let Item::Group(group) = item {
                    groups.push((key.offset, *group));
                }
                ControlFlow::Continue(())
            })?;
        for (index, group) in groups {
            self.space.add_group(index, group)?;
        }
        Ok(())
    }

    /// Applies the records of the log. A commit is known to be whole when another follows it; the
    /// last one is looked at.
    fn replay(&mut self, segment: Run) -> Result<()> {
        let mut place = self.place;
        let (mut at, mut end) = (segment.start, segment.start + segment.len);
        let mut last: Option<Record> = None;
        let mut segments = Vec::new();
        while let Some(record) = log::read(&mut self.vault, &place, at, end)? {
            place = record.place;
            at += record.blocks;
            self.must_checkpoint = true;
            match record.body {
                Body::Next(run) => {
                    (at, end) = (run.start, run.start.saturating_add(run.len));
                    segments.push(run);
                }
                Body::Commit(_) => {
                    if let Some(whole) = last.replace(record) {
                        self.apply(whole)?;
                    }
                    self.use_segments(&mut segments)?;
                }
            }
        }
        if let Some(record) = last
            && self.is_whole(&record)?
        {
            self.apply(record)?;
        }
        self.tree.take_changed();
        self.space.committed();
        Ok(())
    }

    fn use_segments(&mut self, segments: &mut Vec<Run>) -> Result<()> {
        for run in segments.drain(..) {
            for block in run.start..run.start.saturating_add(run.len) {
                self.space.mark_used(&mut self.vault, block)?;
            }
            self.log.segments.push(run);
        }
        Ok(())
    }

    /// Whether the data came to the disk that was written together with this record.
    fn is_whole(&mut self, record: &Record) -> Result<bool> {
        let Body::Commit(commit) = &record.body else {
            return Ok(false);
        };
        let mut block = super::seal::zero_block()?;
        for (_, item) in &commit.items {
            let Some(Item::Chunk(chunk)) = item else {
                continue;
            };
            for (_, pointer) in chunk.slots() {
                let is_new = pointer.writing.mount == record.writing.mount
                    && pointer.writing.counter >= commit.settled;
                if !is_new {
                    continue;
                }
                match self.staging.read(&mut self.vault, pointer, &mut block[..]) {
                    Ok(()) => {}
                    Err(StoreError::Changed { .. }) => return Ok(false),
                    // The file may have ended before.
                    Err(_) if self.is_behind_the_end(pointer)? => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    fn is_behind_the_end(&self, pointer: &Pointer) -> Result<bool> {
        Ok((pointer.block + 1) * BLOCK as u64 > self.vault.disk.size()?)
    }

    fn apply(&mut self, record: Record) -> Result<()> {
        let Body::Commit(commit) = record.body else {
            return Ok(());
        };
        let Commit {
            next_ino,
            block_count,
            inode_count,
            items,
            ..
        } = commit;
        let (mut freed, mut used) = (Vec::new(), Vec::new());
        for (key, item) in items {
            used.extend(blocks_of(item.as_ref()));
            let old = match item {
                Some(item) => self.tree.put(&mut self.vault, key, item)?,
                None => self.tree.remove(&mut self.vault, &key)?,
            };
            freed.extend(blocks_of(old.as_ref()));
        }
        for block in freed {
            self.space.mark_free(&mut self.vault, block)?;
        }
        for block in used {
            self.space.mark_used(&mut self.vault, block)?;
        }
        self.next_ino = next_ino;
        self.inode_count = inode_count;
        self.space.set_high(block_count.min(self.space.limit()));
        self.place = record.place;
        Ok(())
    }

    fn make_root(&mut self, now: Time) -> Result<()> {
        let stat = Stat {
            nlink: 2,
            parent: ROOT,
            ..Stat::new(FileKind::Directory.mode() | 0o755, 0, 0, now)
        };
        self.tree.put(
            &mut self.vault,
            Key::inode(ROOT),
            Item::Inode(alloc::boxed::Box::new(stat)),
        )?;
        self.next_ino = ROOT + 1;
        self.inode_count = 1;
        Ok(())
    }

    /// Names the last commit: all that was done up to the last `sync`.
    pub fn pin(&self) -> Pin {
        Pin {
            store_id: self.store_id,
            seq: self.place.seq,
            tag: self.place.tag,
        }
    }

    pub fn disk(&self) -> &D {
        &self.vault.disk
    }

    /// Gives the disk back. What was not synced is lost.
    pub fn into_disk(self) -> D {
        self.vault.disk
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        if self.is_failed {
            return Err(StoreError::Failed);
        }
        if self.is_read_only {
            return Err(StoreError::ReadOnly);
        }
        Ok(())
    }

    /// An error that left a change half done closes the store for writing.
    pub(super) fn fail_if_broken<T>(&mut self, done: Result<T>) -> Result<T> {
        self.is_failed |= done.is_err();
        done
    }
}

fn blocks_of(item: Option<&Item>) -> impl Iterator<Item = u64> + '_ {
    let slots = match item {
        Some(Item::Chunk(chunk)) => chunk.slots(),
        _ => &[],
    };
    slots.iter().map(|(_, pointer)| pointer.block)
}

fn mount_id(seed: &Seed) -> MountId {
    let mut id = [0; 12];
    id.copy_from_slice(&seed.0[..12]);
    MountId(id)
}
