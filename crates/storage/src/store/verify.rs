//! Reading everything: is the store whole, and does it fit together?

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::commit::group_key;
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::inode::FileKind;
use super::item::{Item, Key, KeyKind, WHITEOUT};
use super::opened::Store;
use super::pointer::Pointer;
use super::seal::zero_block;

/// Items that are looked at before their data is read.
const BATCH: usize = 64;

/// What a walk over all items found.
#[derive(Default)]
struct Census {
    /// Inode, links as its record says, names found, type.
    inodes: BTreeMap<u64, (u32, u32, FileKind)>,
    orphans: BTreeSet<u64>,
    names: Vec<(u64, u8)>,
    blocks: BTreeSet<u64>,
}

impl<D: Disk> Store<D> {
    /// Reads and verifies every block that is in use, and checks that names, links and blocks agree.
    /// `progress` hears blocks done and all; it may break to stop early. What was not synced counts
    /// as well.
    pub fn verify(&mut self, mut progress: impl FnMut(u64, u64) -> ControlFlow<()>) -> Result<()> {
        let total = self.space.limit() - self.space.free();
        let mut census = Census::default();
        let mut next = Some(Key::FIRST);
        while let Some(from) = next {
            let (pointers, last) = self.census_batch(&from, &mut census)?;
            for pointer in &pointers {
                let mut block = zero_block()?;
                self.staging
                    .read(&mut self.vault, pointer, &mut block[..])?;
            }
            if progress(census.blocks.len() as u64, total).is_break() {
                return Ok(());
            }
            self.tree.trim(self.limits.cached_nodes);
            next = last;
        }
        census.check()?;
        self.check_maps(&census)
    }

    /// Looks at some items; the data they name, and where to go on.
    fn census_batch(
        &mut self,
        from: &Key,
        census: &mut Census,
    ) -> Result<(Vec<Pointer>, Option<Key>)> {
        let mut pointers = Vec::new();
        let mut wrong = None;
        let mut seen = 0;
        let mut next = None;
        let end = Key::new(u64::MAX, KeyKind::Group, u64::MAX);
        self.tree
            .scan(&mut self.vault, from, &end, &mut |key, item| {
                if seen == BATCH {
                    next = Some(*key);
                    return ControlFlow::Break(());
                }
                seen += 1;
                if let Err(error) = census.add(key, item, &mut pointers) {
                    wrong = Some(error);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
        match wrong {
            Some(error) => Err(error),
            None => Ok((pointers, next)),
        }
    }

    /// Every block that a file has is in use in the maps.
    fn check_maps(&mut self, census: &Census) -> Result<()> {
        for block in &census.blocks {
            if !self.space.is_used(&mut self.vault, *block)? {
                return Err(StoreError::Malformed("a block of a file is free"));
            }
        }
        let count = self.space.group_count();
        let (from, to) = (group_key(0), group_key(u64::MAX));
        let mut is_outside = false;
        self.tree.scan(&mut self.vault, &from, &to, &mut |key, _| {
            is_outside |= key.offset >= count;
            ControlFlow::Continue(())
        })?;
        match is_outside {
            true => Err(StoreError::Malformed("a space map lies behind the store")),
            false => Ok(()),
        }
    }
}

impl Census {
    fn add(&mut self, key: &Key, item: &Item, pointers: &mut Vec<Pointer>) -> Result<()> {
        match item {
            Item::Inode(stat) => {
                self.inodes.insert(key.ino, (stat.nlink, 0, stat.kind()));
            }
            Item::Names(entries) => {
                let files = entries.iter().filter(|entry| entry.kind != WHITEOUT);
                self.names
                    .extend(files.map(|entry| (entry.ino, entry.kind)));
            }
            Item::Chunk(chunk) => {
                for (_, pointer) in chunk.slots() {
                    if !self.blocks.insert(pointer.block) {
                        return Err(StoreError::Malformed("two files have one block"));
                    }
                    pointers.push(*pointer);
                }
            }
            Item::Orphan => {
                self.orphans.insert(key.offset);
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        for (ino, kind) in &self.names {
            let inode = self.inodes.get_mut(ino);
            let inode = inode.ok_or(StoreError::Malformed("a name stands for nothing"))?;
            if inode.2 as u8 != *kind {
                return Err(StoreError::Malformed(
                    "a name has another type than its inode",
                ));
            }
            inode.1 += 1;
        }
        for (ino, (nlink, names, kind)) in &self.inodes {
            let is_right = match kind {
                FileKind::Directory => *nlink == 0 || *nlink >= 2,
                _ => nlink == names,
            };
            if !is_right || (*nlink == 0) != self.orphans.contains(ino) {
                return Err(StoreError::Malformed("an inode's links are miscounted"));
            }
        }
        Ok(())
    }
}
