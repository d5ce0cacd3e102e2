//! What the tree holds: keys and items, and their bytes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::chunk::Chunk;
use super::error::{Result, StoreError};
use super::inode::{INODE_SIZE, Stat};
use super::pointer::{POINTER_SIZE, Pointer};
use super::wire::Fields;

pub const KEY_BYTES: usize = 17;
/// A leaf holds at least two values.
pub const MAX_VALUE: usize = 1400;
/// Bytes of a symlink's target or an attribute's value in one item.
pub const PART: usize = 1024;
/// The entry kind of a whiteout.
pub const WHITEOUT: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyKind {
    Inode = 1,
    Names = 2,
    Chunk = 3,
    Target = 4,
    XattrNames = 5,
    XattrValue = 6,
    Orphan = 7,
    Group = 8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub ino: u64,
    pub kind: KeyKind,
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Inode(Box<Stat>),
    Names(Vec<NameEntry>),
    Chunk(Chunk),
    /// A part of a symlink's target or of an attribute's value.
    Bytes(Box<[u8]>),
    XattrNames(Vec<XattrEntry>),
    Orphan,
    Group(Group),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// 0 for a whiteout.
    pub ino: u64,
    pub kind: u8,
    pub name: Box<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrEntry {
    pub offset: u64,
    pub size: u32,
    pub name: Box<[u8]>,
}

/// A group's space map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub map: Pointer,
    pub free: u32,
}

impl Key {
    pub const FIRST: Key = Key::new(0, KeyKind::Inode, 0);

    pub const fn new(ino: u64, kind: KeyKind, offset: u64) -> Key {
        Key { ino, kind, offset }
    }

    pub const fn inode(ino: u64) -> Key {
        Key::new(ino, KeyKind::Inode, 0)
    }

    pub fn parse(fields: &mut Fields<'_>) -> Result<Key> {
        let ino = fields.u64()?;
        let kind = match fields.u8()? {
            1 => KeyKind::Inode,
            2 => KeyKind::Names,
            3 => KeyKind::Chunk,
            4 => KeyKind::Target,
            5 => KeyKind::XattrNames,
            6 => KeyKind::XattrValue,
            7 => KeyKind::Orphan,
            8 => KeyKind::Group,
            _ => return Err(StoreError::Malformed("a key has an unknown kind")),
        };
        let offset = fields.u64()?;
        Ok(Key { ino, kind, offset })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ino.to_le_bytes());
        out.push(self.kind as u8);
        out.extend_from_slice(&self.offset.to_le_bytes());
    }
}

impl Item {
    pub fn encoded_size(&self) -> usize {
        match self {
            Item::Inode(_) => INODE_SIZE,
            Item::Names(entries) => entries.iter().map(|entry| 10 + entry.name.len()).sum(),
            Item::Chunk(chunk) => chunk.encoded_size(),
            Item::Bytes(bytes) => bytes.len(),
            Item::XattrNames(entries) => entries.iter().map(|entry| 13 + entry.name.len()).sum(),
            Item::Orphan => 0,
            Item::Group(_) => POINTER_SIZE + 4,
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Item::Inode(stat) => stat.encode(out),
            Item::Names(entries) => {
                for entry in entries {
                    out.extend_from_slice(&entry.ino.to_le_bytes());
                    out.extend_from_slice(&[entry.kind, entry.name.len() as u8]);
                    out.extend_from_slice(&entry.name);
                }
            }
            Item::Chunk(chunk) => chunk.encode(out),
            Item::Bytes(bytes) => out.extend_from_slice(bytes),
            Item::XattrNames(entries) => {
                for entry in entries {
                    out.extend_from_slice(&entry.offset.to_le_bytes());
                    out.extend_from_slice(&entry.size.to_le_bytes());
                    out.push(entry.name.len() as u8);
                    out.extend_from_slice(&entry.name);
                }
            }
            Item::Orphan => {}
            Item::Group(group) => {
                out.extend_from_slice(&group.map.encode());
                out.extend_from_slice(&group.free.to_le_bytes());
            }
        }
    }

    pub fn parse(kind: KeyKind, value: &[u8]) -> Result<Item> {
        if value.len() > MAX_VALUE {
            return Err(StoreError::Malformed("a value is too long"));
        }
        let fields = &mut Fields::new(value);
        let item = match kind {
            KeyKind::Inode => Item::Inode(Box::new(Stat::parse(fields)?)),
            KeyKind::Names => Item::Names(names(fields)?),
            KeyKind::Chunk => Item::Chunk(Chunk::parse(fields)?),
            KeyKind::Target | KeyKind::XattrValue => Item::Bytes(fields.bytes(value.len())?.into()),
            KeyKind::XattrNames => Item::XattrNames(xattrs(fields)?),
            KeyKind::Orphan => Item::Orphan,
            KeyKind::Group => Item::Group(Group {
                map: fields.pointer()?,
                free: fields.u32()?,
            }),
        };
        fields.end()?;
        Ok(item)
    }
}

fn names(fields: &mut Fields<'_>) -> Result<Vec<NameEntry>> {
    let mut entries = Vec::new();
    while !fields.is_empty() {
        entries.push(NameEntry {
            ino: fields.u64()?,
            kind: fields.u8()?,
            name: fields.name()?,
        });
    }
    Ok(entries)
}

fn xattrs(fields: &mut Fields<'_>) -> Result<Vec<XattrEntry>> {
    let mut entries = Vec::new();
    while !fields.is_empty() {
        entries.push(XattrEntry {
            offset: fields.u64()?,
            size: fields.u32()?,
            name: fields.name()?,
        });
    }
    Ok(entries)
}
