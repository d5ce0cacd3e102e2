//! Extended attributes.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::commit::Purpose;
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::inode::Time;
use super::item::{Item, Key, KeyKind, PART, XattrEntry};
use super::opened::Store;
use super::siphash::siphash;

/// setxattr(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    Any,
    Create,
    Replace,
}

const MAX_VALUE: usize = 65536;
const MAX_NAME: usize = 255;
/// The low bits of an offset number the parts of a value, and values whose names have one hash.
const HASH_MASK: u64 = 0x7fff_ffff_ffff_ff00;
const VALUE_PARTS: u64 = (MAX_VALUE / PART) as u64;

impl<D: Disk> Store<D> {
    pub fn xattr(&mut self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        if !self.stat(ino)?.has_xattrs {
            return Err(StoreError::NoXattr);
        }
        let (offset, size) = self.find_xattr(ino, name)?.ok_or(StoreError::NoXattr)?;
        self.parts(ino, KeyKind::XattrValue, offset, size as usize, MAX_VALUE)
    }

    pub fn set_xattr(
        &mut self,
        ino: u64,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        now: Time,
    ) -> Result<()> {
        self.stat(ino)?;
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(StoreError::NameTooLong);
        }
        if value.len() > MAX_VALUE {
            return Err(StoreError::XattrTooLarge);
        }
        let old = self.find_xattr(ino, name)?;
        match (mode, old) {
            (XattrMode::Create, Some(_)) => return Err(StoreError::Exists),
            (XattrMode::Replace, None) => return Err(StoreError::NoXattr),
            _ => {}
        }
        self.begin((value.len() / PART) as u64, Purpose::Add)?;
        let done = self.put_xattr(ino, name, value, old, now);
        self.fail_if_broken(done)
    }

    pub fn remove_xattr(&mut self, ino: u64, name: &[u8], now: Time) -> Result<()> {
        self.stat(ino)?;
        let (offset, size) = self.find_xattr(ino, name)?.ok_or(StoreError::NoXattr)?;
        self.begin(0, Purpose::Remove)?;
        let done = self.drop_xattr(ino, name, offset, size, now);
        self.fail_if_broken(done)
    }

    pub fn xattr_names(&mut self, ino: u64) -> Result<Vec<Box<[u8]>>> {
        let mut names = Vec::new();
        if !self.stat(ino)?.has_xattrs {
            return Ok(names);
        }
        let key = |offset| Key::new(ino, KeyKind::XattrNames, offset);
        self.tree
            .scan(&mut self.vault, &key(0), &key(u64::MAX), &mut |_, item| {
                if let Item::XattrNames(entries) = item {
                    names.extend(entries.iter().map(|entry| entry.name.clone()));
                }
                ControlFlow::Continue(())
            })?;
        Ok(names)
    }

    fn xattr_key(&self, ino: u64, name: &[u8]) -> Key {
        let hash = siphash(&self.name_key, name) & HASH_MASK;
        Key::new(ino, KeyKind::XattrNames, hash)
    }

    /// Offset and size of the value.
    fn find_xattr(&mut self, ino: u64, name: &[u8]) -> Result<Option<(u64, u32)>> {
        let key = self.xattr_key(ino, name);
        let Some(Item::XattrNames(entries)) = self.tree.get(&mut self.vault, &key)? else {
            return Ok(None);
        };
        let found = entries.iter().find(|entry| *entry.name == *name);
        Ok(found.map(|entry| (entry.offset, entry.size)))
    }

    fn put_xattr(
        &mut self,
        ino: u64,
        name: &[u8],
        value: &[u8],
        old: Option<(u64, u32)>,
        now: Time,
    ) -> Result<()> {
        if let Some((offset, size)) = old {
            self.drop_parts(ino, offset, size)?;
        }
        let key = self.xattr_key(ino, name);
        let size = value.len() as u32;
        let new = || Item::XattrNames(Vec::new());
        let offset = self.tree.upsert(&mut self.vault, &key, new, |item| {
            let Item::XattrNames(entries) = item else {
                return None;
            };
            if let Some(entry) = entries.iter_mut().find(|entry| *entry.name == *name) {
                entry.size = size;
                return Some(entry.offset);
            }
            let is_free = |at: &u64| entries.iter().all(|entry| entry.offset != *at);
            let offset = (0..4)
                .map(|nth| key.offset + nth * VALUE_PARTS)
                .find(is_free)?;
            entries.push(XattrEntry {
                offset,
                size,
                name: name.into(),
            });
            Some(offset)
        })?;
        let offset = offset.ok_or(StoreError::NoSpace)?;
        self.put_parts(ino, KeyKind::XattrValue, offset, value)?;
        self.update_inode(ino, |stat| {
            stat.has_xattrs = true;
            stat.ctime = now;
        })
    }

    fn drop_xattr(
        &mut self,
        ino: u64,
        name: &[u8],
        offset: u64,
        size: u32,
        now: Time,
    ) -> Result<()> {
        self.drop_parts(ino, offset, size)?;
        let key = self.xattr_key(ino, name);
        let left = self.tree.update(&mut self.vault, &key, |item| {
            let Item::XattrNames(entries) = item else {
                return 1;
            };
            entries.retain(|entry| *entry.name != *name);
            entries.len()
        })?;
        if left == Some(0) {
            self.tree.remove(&mut self.vault, &key)?;
        }
        self.update_inode(ino, |stat| stat.ctime = now)
    }

    fn drop_parts(&mut self, ino: u64, offset: u64, size: u32) -> Result<()> {
        for part in 0..(size as usize).div_ceil(PART) as u64 {
            let key = Key::new(ino, KeyKind::XattrValue, offset + part);
            self.tree.remove(&mut self.vault, &key)?;
        }
        Ok(())
    }
}
