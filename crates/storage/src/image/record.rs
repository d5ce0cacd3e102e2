//! Superblock, inode, extent and directory entry as bytes.
//!
//! Byte diagrams: `docs/format/image.md`, repeated here beside each parser. Parsing checks what one
//! record can tell about itself; bounds against the rest of the image are its users' business.

use super::error::{ImageError, Malformed};
use super::hash::{HASH_SIZE, Hash};

pub const LEAF_SIZE: usize = 1 << LEAF_LOG2;
pub const NODE_SIZE: usize = 1 << NODE_LOG2;
pub const SUPERBLOCK_SIZE: usize = 4096;
pub const INODE_SIZE: usize = 128;
pub const EXTENT_SIZE: usize = 24;
pub const DIR_HEADER_SIZE: usize = 16;
pub const DIR_ENTRY_SIZE: usize = 16;
/// More extents than these stand in a table.
pub const INLINE_EXTENTS: usize = 2;
pub const MAX_LEAF_COUNT: u64 = 1 << 40;
pub const MAX_NAME_LEN: usize = 255;
pub const MAX_TARGET_LEN: u64 = 4095;
/// Bytes of the largest site table.
pub const MAX_SITES_SIZE: usize = 64 << 20;

pub const LEAF_LOG2: u8 = 14;
pub const NODE_LOG2: u8 = 12;
pub const MAGIC: &[u8; 8] = b"OCCLUMIM";
pub const VERSION: u32 = 1;
pub const HASH_BLAKE3: u8 = 1;
pub const CIPHER_NONE: u8 = 0;
pub const SUPERBLOCK_USED: usize = 80;

/// An inode number, 1 to the image's inode count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u32);

impl Ino {
    pub const ROOT: Ino = Ino(1);
}

/// The file types of stat(2). The value is the `d_type` of readdir(3), which is `S_IFMT >> 12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FileKind {
    Fifo = 1,
    CharDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    Symlink = 10,
    Socket = 12,
}

impl FileKind {
    pub fn from_mode(mode: u32) -> Option<FileKind> {
        FileKind::from_d_type(u8::try_from(mode >> 12).ok()?)
    }

    pub fn from_d_type(d_type: u8) -> Option<FileKind> {
        match d_type {
            1 => Some(FileKind::Fifo),
            2 => Some(FileKind::CharDevice),
            4 => Some(FileKind::Directory),
            6 => Some(FileKind::BlockDevice),
            8 => Some(FileKind::Regular),
            10 => Some(FileKind::Symlink),
            12 => Some(FileKind::Socket),
            _ => None,
        }
    }
}

/// ```text
///    0  8  magic            24  8  inode_table
///    8  4  version          32  4  inode_count
///   12  1  leaf_log2        36 12  zero
///   13  1  node_log2        48 32  tree
///   14  1  hash             80     zero to 4096
///   15  1  cipher
///   16  8  leaf_count
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub leaf_count: u64,
    pub inode_table: u64,
    pub inode_count: u32,
    pub tree: Hash,
}

impl Superblock {
    pub fn parse(bytes: &[u8; SUPERBLOCK_SIZE]) -> Result<Superblock, ImageError> {
        if bytes[..8] != *MAGIC {
            return Err(ImageError::NotAnImage);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(ImageError::UnsupportedVersion(version));
        }
        Superblock::check_parameters(bytes)?;
        let mut tree = [0; HASH_SIZE];
        tree.copy_from_slice(&bytes[48..SUPERBLOCK_USED]);
        Ok(Superblock {
            leaf_count: u64_at(bytes, 16),
            inode_table: u64_at(bytes, 24),
            inode_count: u32_at(bytes, 32),
            tree,
        })
    }

    fn check_parameters(bytes: &[u8; SUPERBLOCK_SIZE]) -> Result<(), ImageError> {
        let refuse = |field, found| Err(ImageError::UnsupportedParameter { field, found });
        let parameters = [
            ("leaf_log2", bytes[12], LEAF_LOG2),
            ("node_log2", bytes[13], NODE_LOG2),
            ("hash", bytes[14], HASH_BLAKE3),
            ("cipher", bytes[15], CIPHER_NONE),
        ];
        for (field, found, expected) in parameters {
            if found != expected {
                return refuse(field, u64::from(found));
            }
        }
        let leaf_count = u64_at(bytes, 16);
        if leaf_count == 0 || leaf_count > MAX_LEAF_COUNT {
            return refuse("leaf_count", leaf_count);
        }
        let mut reserved = bytes[36..48].iter().chain(&bytes[SUPERBLOCK_USED..]);
        match reserved.find(|byte| **byte != 0) {
            Some(byte) => refuse("reserved field", u64::from(*byte)),
            None => Ok(()),
        }
    }
}

/// ```text
///    0  4  mode      24  8  mtime s, signed    48  8  sites
///    4  4  nlink     32  4  mtime ns           56  4  sites_size
///    8  4  uid       36  4  extent_count       60 12  zero
///   12  4  gid       40  8  rdev               72 48  extents, or address of their table
///   16  8  size                               120  8  zero
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRecord {
    pub kind: FileKind,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub rdev: u64,
    pub sites: u64,
    pub sites_size: u32,
    pub extents: ExtentList,
}

/// Where an inode's extents stand: in its record, or `count` of them at address `table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtentList {
    Inline {
        count: u32,
        extents: [Extent; INLINE_EXTENTS],
    },
    Table {
        count: u32,
        table: u64,
    },
}

impl ExtentList {
    pub fn count(&self) -> u32 {
        match self {
            ExtentList::Inline { count, .. } | ExtentList::Table { count, .. } => *count,
        }
    }
}

impl InodeRecord {
    pub fn parse(bytes: &[u8; INODE_SIZE]) -> Result<InodeRecord, Malformed> {
        let mode = u32_at(bytes, 0);
        let mtime_ns = u32_at(bytes, 32);
        if mtime_ns >= 1_000_000_000 {
            return Err(Malformed::Time);
        }
        Ok(InodeRecord {
            kind: FileKind::from_mode(mode).ok_or(Malformed::Mode)?,
            mode,
            nlink: u32_at(bytes, 4),
            uid: u32_at(bytes, 8),
            gid: u32_at(bytes, 12),
            size: u64_at(bytes, 16),
            mtime_s: u64_at(bytes, 24).cast_signed(),
            mtime_ns,
            rdev: u64_at(bytes, 40),
            sites: u64_at(bytes, 48),
            sites_size: u32_at(bytes, 56),
            extents: InodeRecord::parse_extents(bytes),
        })
    }

    fn parse_extents(bytes: &[u8; INODE_SIZE]) -> ExtentList {
        let count = u32_at(bytes, 36);
        if count as usize > INLINE_EXTENTS {
            return ExtentList::Table {
                count,
                table: u64_at(bytes, 72),
            };
        }
        let extents = [
            Extent::parse(&bytes[72..96]),
            Extent::parse(&bytes[96..120]),
        ];
        ExtentList::Inline { count, extents }
    }
}

/// `size` bytes from `file_offset` on stand at `address`.
///
/// ```text
///    0  8  file_offset      8  8  address     16  8  size
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub file_offset: u64,
    pub address: u64,
    pub size: u64,
}

impl Extent {
    /// `bytes` holds at least `EXTENT_SIZE` bytes.
    pub fn parse(bytes: &[u8]) -> Extent {
        Extent {
            file_offset: u64_at(bytes, 0),
            address: u64_at(bytes, 8),
            size: u64_at(bytes, 16),
        }
    }

    /// First file offset behind the extent; saturates, so that a wild extent stays comparable.
    pub fn end(&self) -> u64 {
        self.file_offset.saturating_add(self.size)
    }
}

/// ```text
///    0  4  count      4  4  parent      8  8  zero
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirHeader {
    pub count: u32,
    pub parent: Ino,
}

impl DirHeader {
    pub fn parse(bytes: &[u8; DIR_HEADER_SIZE]) -> DirHeader {
        DirHeader {
            count: u32_at(bytes, 0),
            parent: Ino(u32_at(bytes, 4)),
        }
    }
}

/// ```text
///    0  4  hash      8  4  name_offset     13  1  kind
///    4  4  ino      12  1  name_len        14  2  zero
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntryRecord {
    pub hash: u32,
    pub ino: Ino,
    pub name_offset: u32,
    pub name_len: u8,
    pub kind: FileKind,
}

impl DirEntryRecord {
    pub fn parse(bytes: &[u8; DIR_ENTRY_SIZE]) -> Result<DirEntryRecord, Malformed> {
        Ok(DirEntryRecord {
            hash: u32_at(bytes, 0),
            ino: Ino(u32_at(bytes, 4)),
            name_offset: u32_at(bytes, 8),
            name_len: bytes[12],
            kind: FileKind::from_d_type(bytes[13]).ok_or(Malformed::DirectoryEntry)?,
        })
    }
}

/// 32-bit FNV-1a. It only spreads names; entries with one hash are told apart by name.
pub fn name_hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811C_9DC5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(field)
}
