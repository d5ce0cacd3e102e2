//! Inodes: their attributes, how they are made and how they go.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::commit::Purpose;
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::inode::{FileKind, SetAttr, Stat, Time};
use super::item::{Item, Key, KeyKind, PART};
use super::opened::Store;
use super::pointer::BLOCK;

/// What a new inode is.
#[derive(Clone, Copy, Debug)]
pub struct NewInode<'a> {
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a device node.
    pub rdev: u64,
    /// Of a symlink, 1 to 4095 bytes; else empty.
    pub target: &'a [u8],
}

/// Sizes for statfs(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStat {
    /// Of blocks, bytes.
    pub block_size: u32,
    pub blocks: u64,
    /// What data can have.
    pub free_blocks: u64,
    pub inodes: u64,
    /// Blocks that the host file has.
    pub file_blocks: u64,
}

const MAX_TARGET: usize = 4095;
/// Keys that are collected before their items are removed.
const REMOVE_BATCH: usize = 256;

impl<D: Disk> Store<D> {
    pub fn stat(&mut self, ino: u64) -> Result<Stat> {
        match self.tree.get(&mut self.vault, &Key::inode(ino))? {
            Some(Item::Inode(stat)) => Ok(**stat),
            _ => Err(StoreError::NotFound),
        }
    }

    pub fn set_attr(&mut self, ino: u64, change: &SetAttr, now: Time) -> Result<()> {
        self.change_inode(ino, |stat| {
            if let Some(mode) = change.mode {
                stat.mode = stat.kind().mode() | mode & 0o7777;
            }
            stat.uid = change.uid.unwrap_or(stat.uid);
            stat.gid = change.gid.unwrap_or(stat.gid);
            stat.atime = change.atime.unwrap_or(stat.atime);
            stat.mtime = change.mtime.unwrap_or(stat.mtime);
            stat.ctime = now;
        })
    }

    /// The directory hides the one of a layer below, or no longer does.
    pub fn set_opaque(&mut self, ino: u64, is_opaque: bool) -> Result<()> {
        self.change_inode(ino, |stat| stat.is_opaque = is_opaque)
    }

    /// The inode of the layer below that this one was copied from; 0 for none.
    pub fn set_origin(&mut self, ino: u64, origin: u64) -> Result<()> {
        self.change_inode(ino, |stat| stat.origin = origin)
    }

    pub fn read_link(&mut self, ino: u64) -> Result<Vec<u8>> {
        let stat = self.stat(ino)?;
        if stat.kind() != FileKind::Symlink {
            return Err(StoreError::NotASymlink);
        }
        self.parts(ino, KeyKind::Target, 0, stat.size as usize, MAX_TARGET)
    }

    pub fn statfs(&self) -> StoreStat {
        let free = self.space.free().saturating_sub(self.checkpoint_need());
        StoreStat {
            block_size: BLOCK as u32,
            blocks: self.space.limit(),
            free_blocks: free.saturating_sub(super::commit::RESERVE),
            inodes: self.inode_count,
            file_blocks: self.space.high(),
        }
    }

    /// Nobody uses this inode without a name any more: it goes, and its space is free.
    pub fn release(&mut self, ino: u64) -> Result<()> {
        if self.stat(ino)?.nlink != 0 {
            return Err(StoreError::Invalid);
        }
        self.begin(0, Purpose::Remove)?;
        let done = self.remove_inode(ino);
        self.fail_if_broken(done)
    }

    /// Releases all that an earlier mount left unlinked; the count.
    pub fn reclaim(&mut self) -> Result<u64> {
        let mut orphans = Vec::new();
        let key = |offset| Key::new(0, KeyKind::Orphan, offset);
        self.tree
            .scan(&mut self.vault, &key(0), &key(u64::MAX), &mut |key, _| {
                orphans.push(key.offset);
                ControlFlow::Continue(())
            })?;
        for ino in &orphans {
            self.release(*ino)?;
        }
        Ok(orphans.len() as u64)
    }

    pub(super) fn change_inode(&mut self, ino: u64, change: impl FnMut(&mut Stat)) -> Result<()> {
        self.stat(ino)?;
        self.begin(0, Purpose::Remove)?;
        self.update_inode(ino, change)
    }

    pub(super) fn update_inode(
        &mut self,
        ino: u64,
        mut change: impl FnMut(&mut Stat),
    ) -> Result<()> {
        let found = self
            .tree
            .update(&mut self.vault, &Key::inode(ino), |item| match item {
                Item::Inode(stat) => {
                    change(stat);
                    true
                }
                _ => false,
            })?;
        match found {
            Some(true) => Ok(()),
            _ => Err(StoreError::NotFound),
        }
    }

    /// What can be wrong with a new inode.
    pub(super) fn check_new(new: &NewInode<'_>) -> Result<FileKind> {
        let kind = FileKind::from_mode(new.mode).ok_or(StoreError::Invalid)?;
        let is_link = kind == FileKind::Symlink;
        match new.target.len() {
            0 if is_link => Err(StoreError::Invalid),
            1.. if !is_link => Err(StoreError::Invalid),
            size if size > MAX_TARGET => Err(StoreError::NameTooLong),
            _ => Ok(kind),
        }
    }

    pub(super) fn make_inode(
        &mut self,
        new: &NewInode<'_>,
        parent: u64,
        nlink: u32,
        now: Time,
    ) -> Result<u64> {
        let ino = self.next_ino;
        let stat = Stat {
            nlink,
            parent,
            rdev: new.rdev,
            size: new.target.len() as u64,
            ..Stat::new(new.mode, new.uid, new.gid, now)
        };
        let item = Item::Inode(Box::new(stat));
        self.tree.put(&mut self.vault, Key::inode(ino), item)?;
        self.put_parts(ino, KeyKind::Target, 0, new.target)?;
        self.next_ino += 1;
        self.inode_count += 1;
        Ok(ino)
    }

    pub(super) fn add_orphan(&mut self, ino: u64) -> Result<()> {
        let key = Key::new(0, KeyKind::Orphan, ino);
        self.tree.put(&mut self.vault, key, Item::Orphan).map(drop)
    }

    pub(super) fn remove_orphan(&mut self, ino: u64) -> Result<()> {
        let key = Key::new(0, KeyKind::Orphan, ino);
        self.tree.remove(&mut self.vault, &key).map(drop)
    }

    fn remove_inode(&mut self, ino: u64) -> Result<()> {
        let (from, to) = (
            Key::inode(ino),
            Key::new(ino, KeyKind::XattrValue, u64::MAX),
        );
        self.remove_items(&from, &to)?;
        self.remove_orphan(ino)?;
        self.inode_count = self.inode_count.saturating_sub(1);
        Ok(())
    }

    /// Removes all items from `from` to `to` and frees the blocks they name; the count of blocks.
    pub(super) fn remove_items(&mut self, from: &Key, to: &Key) -> Result<u64> {
        let mut freed = 0;
        loop {
            let mut keys = Vec::new();
            self.tree.scan(&mut self.vault, from, to, &mut |key, _| {
                keys.push(*key);
                match keys.len() {
                    REMOVE_BATCH => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })?;
            for key in &keys {
                let old = self.tree.remove(&mut self.vault, key)?;
                if let Some(Item::Chunk(chunk)) = old {
                    for (_, pointer) in chunk.slots() {
                        self.free_data(pointer)?;
                        freed += 1;
                    }
                }
            }
            if keys.len() < REMOVE_BATCH {
                return Ok(freed);
            }
        }
    }

    /// Bytes that stand in parts of `PART` bytes from `offset` on.
    pub(super) fn parts(
        &mut self,
        ino: u64,
        kind: KeyKind,
        offset: u64,
        size: usize,
        limit: usize,
    ) -> Result<Vec<u8>> {
        let wrong = StoreError::Malformed("a value lacks a part");
        if size > limit {
            return Err(wrong);
        }
        let mut bytes = Vec::new();
        for part in 0..size.div_ceil(PART) as u64 {
            let key = Key::new(ino, kind, offset + part);
            match self.tree.get(&mut self.vault, &key)? {
                Some(Item::Bytes(part)) => bytes.extend_from_slice(part),
                _ => return Err(wrong),
            }
        }
        match bytes.len() == size {
            true => Ok(bytes),
            false => Err(wrong),
        }
    }

    pub(super) fn put_parts(
        &mut self,
        ino: u64,
        kind: KeyKind,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        for (part, index) in bytes.chunks(PART).zip(0..) {
            let key = Key::new(ino, kind, offset + index);
            let item = Item::Bytes(part.into());
            self.tree.put(&mut self.vault, key, item)?;
        }
        Ok(())
    }
}
