//! The entries of one directory.
//!
//! ```text
//! data: | header 16 | entry 0 | entry 1 | ... | names |
//! ```

use core::ops::ControlFlow;

use super::error::{ImageError, Malformed};
use super::leafspace::LeafSpace;
use super::record::{
    DIR_ENTRY_SIZE, DIR_HEADER_SIZE, DirEntryRecord, DirHeader, Extent, ExtentList, FileKind, Ino,
    InodeRecord, MAX_NAME_LEN, name_hash,
};
use super::source::ImageSource;

/// One entry as `read_dir` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    pub name: &'a [u8],
    pub ino: Ino,
    pub kind: FileKind,
    /// Where a later `read_dir` goes on behind this entry.
    pub next: u32,
}

/// An opened directory: its header was read and fits its size.
pub struct Directory<'a, S> {
    space: LeafSpace<'a, S>,
    address: u64,
    size: u64,
    header: DirHeader,
    inode_count: u32,
}

impl<'a, S: ImageSource> Directory<'a, S> {
    pub fn open(
        mut space: LeafSpace<'a, S>,
        record: &InodeRecord,
        inode_count: u32,
    ) -> Result<Self, ImageError> {
        let address = single_extent(record)
            .ok_or(Malformed::DirectoryHeader)?
            .address;
        let header = DirHeader::parse(&space.record(address)?);
        let entries = u64::from(header.count) * DIR_ENTRY_SIZE as u64;
        if record.size < DIR_HEADER_SIZE as u64 + entries {
            return Err(Malformed::DirectoryHeader.into());
        }
        Ok(Directory {
            space,
            address,
            size: record.size,
            header,
            inode_count,
        })
    }

    pub fn parent(&self) -> Ino {
        self.header.parent
    }

    pub fn lookup(&mut self, name: &[u8]) -> Result<Option<Ino>, ImageError> {
        let hash = name_hash(name);
        let mut buf = [0; MAX_NAME_LEN];
        for index in self.first_with_hash(hash)?..self.header.count {
            let entry = self.entry(index)?;
            if entry.hash != hash {
                break;
            }
            if self.name(&entry, &mut buf)? == name {
                return Ok(Some(entry.ino));
            }
        }
        Ok(None)
    }

    /// Shows the entries from number `cursor` on until `visit` breaks.
    pub fn read(
        &mut self,
        cursor: u32,
        mut visit: impl FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), ImageError> {
        let mut buf = [0; MAX_NAME_LEN];
        for index in cursor..self.header.count {
            let entry = self.entry(index)?;
            let name = self.name(&entry, &mut buf)?;
            let shown = DirEntry {
                name,
                ino: entry.ino,
                kind: entry.kind,
                next: index + 1,
            };
            if visit(shown).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Number of the first entry whose hash is `hash` or more.
    fn first_with_hash(&mut self, hash: u32) -> Result<u32, ImageError> {
        let (mut low, mut high) = (0, self.header.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.hash < hash {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn entry(&mut self, index: u32) -> Result<DirEntryRecord, ImageError> {
        let offset = DIR_HEADER_SIZE as u64 + u64::from(index) * DIR_ENTRY_SIZE as u64;
        let entry = DirEntryRecord::parse(&self.space.record(self.at(offset)?)?)?;
        if entry.ino.0 == 0 || entry.ino.0 > self.inode_count {
            return Err(Malformed::DirectoryEntry.into());
        }
        Ok(entry)
    }

    fn name<'b>(
        &mut self,
        entry: &DirEntryRecord,
        buf: &'b mut [u8; MAX_NAME_LEN],
    ) -> Result<&'b [u8], ImageError> {
        let name = &mut buf[..usize::from(entry.name_len)];
        let start = u64::from(entry.name_offset);
        if start + name.len() as u64 > self.size {
            return Err(Malformed::DirectoryEntry.into());
        }
        self.space.read(self.at(start)?, name)?;
        if !is_file_name(name) {
            return Err(Malformed::DirectoryEntry.into());
        }
        Ok(name)
    }

    fn at(&self, offset: u64) -> Result<u64, Malformed> {
        self.address.checked_add(offset).ok_or(Malformed::Address)
    }
}

/// The one extent that holds all of an inode's data, if that is how it lies.
pub fn single_extent(record: &InodeRecord) -> Option<Extent> {
    match &record.extents {
        ExtentList::Inline { count: 1, extents }
            if extents[0].file_offset == 0 && extents[0].size == record.size =>
        {
            Some(extents[0])
        }
        _ => None,
    }
}

/// Whether a directory may hold this name.
pub fn is_file_name(name: &[u8]) -> bool {
    let is_reserved = matches!(name, b"" | b"." | b"..");
    !is_reserved && name.len() <= MAX_NAME_LEN && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}
