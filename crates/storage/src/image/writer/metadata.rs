//! Everything in the leaf space that is not file content, laid out behind it in memory:
//!
//! ```text
//! site tables | extent tables | symlink targets | directories | inode table
//! ```

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::vec::Vec;

use super::error::WriteError;
use super::leaves::FileExtents;
use super::scan::{Scan, ScannedInode};
use crate::image::record::FileKind;
use crate::image::record::{
    DIR_ENTRY_SIZE, DIR_HEADER_SIZE, DirEntryRecord, DirHeader, Extent, ExtentList, INLINE_EXTENTS,
    INODE_SIZE, Ino, InodeRecord, LEAF_SIZE, name_hash,
};

pub struct Metadata {
    /// Begins at a leaf boundary.
    pub bytes: Vec<u8>,
    /// Address.
    pub inode_table: u64,
    pub inode_count: u32,
}

/// `data` is indexed like the scan's inodes; `first_leaf` is where the result will stand.
pub fn lay_out(
    scan: &Scan,
    data: &[FileExtents],
    sites: &HashMap<PathBuf, Vec<u8>>,
    first_leaf: u64,
) -> Result<Metadata, WriteError> {
    let mut area = Area {
        base: first_leaf * LEAF_SIZE as u64,
        bytes: Vec::new(),
    };
    let mut records: Vec<InodeRecord> = scan.inodes().iter().map(record).collect();
    area.add_sites(scan, sites, &mut records);
    for (record, extents) in records.iter_mut().zip(data) {
        record.extents = area.extent_list(extents);
    }
    area.add_links(scan, &mut records)?;
    area.add_directories(scan, &mut records)?;
    let inode_table = area.align(INODE_SIZE);
    for record in &records {
        area.bytes.extend_from_slice(&record.encode());
    }
    Ok(Metadata {
        bytes: area.bytes,
        inode_table,
        inode_count: records.len() as u32,
    })
}

/// Attributes only. Owners are those inside: everything belongs to root.
fn record(inode: &ScannedInode) -> InodeRecord {
    InodeRecord {
        kind: inode.kind,
        mode: inode.mode,
        nlink: inode.nlink,
        uid: 0,
        gid: 0,
        size: inode.size,
        mtime_s: inode.mtime_s,
        mtime_ns: inode.mtime_ns,
        rdev: inode.rdev,
        sites: 0,
        sites_size: 0,
        extents: inline(&[]),
    }
}

struct Area {
    base: u64,
    bytes: Vec<u8>,
}

impl Area {
    fn add_sites(
        &mut self,
        scan: &Scan,
        sites: &HashMap<PathBuf, Vec<u8>>,
        records: &mut [InodeRecord],
    ) {
        for (inode, record) in scan.inodes().iter().zip(records) {
            let Some(table) = sites
                .get(&inode.path)
                .filter(|_| inode.kind == FileKind::Regular)
            else {
                continue;
            };
            record.sites = self.append(table);
            // Checked against MAX_SITES_SIZE before.
            record.sites_size = table.len() as u32;
        }
    }

    fn add_links(&mut self, scan: &Scan, records: &mut [InodeRecord]) -> Result<(), WriteError> {
        for (inode, record) in scan.inodes().iter().zip(records) {
            if inode.kind != FileKind::Symlink {
                continue;
            }
            let path = scan.source().join(&inode.path);
            let target = fs::read_link(&path).map_err(WriteError::io("read link", &path))?;
            self.set_data(record, &target.into_os_string().into_vec());
        }
        Ok(())
    }

    fn add_directories(
        &mut self,
        scan: &Scan,
        records: &mut [InodeRecord],
    ) -> Result<(), WriteError> {
        for (index, inode) in scan.inodes().iter().enumerate() {
            if inode.kind == FileKind::Directory {
                let data = encode_directory(inode, records)?;
                self.align(DIR_ENTRY_SIZE);
                self.set_data(&mut records[index], &data);
            }
        }
        Ok(())
    }

    fn set_data(&mut self, record: &mut InodeRecord, data: &[u8]) {
        record.size = data.len() as u64;
        let address = self.append(data);
        record.extents = inline(&[Extent {
            file_offset: 0,
            address,
            size: record.size,
        }]);
    }

    fn extent_list(&mut self, extents: &[Extent]) -> ExtentList {
        if extents.len() <= INLINE_EXTENTS {
            return inline(extents);
        }
        let table = self.align(8);
        for extent in extents {
            self.bytes.extend_from_slice(&extent.encode());
        }
        // A file of 2^32 extents would have 64 TiB.
        ExtentList::Table {
            count: extents.len() as u32,
            table,
        }
    }

    fn append(&mut self, data: &[u8]) -> u64 {
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(data);
        address
    }

    /// Pads with zeros; the address behind them.
    fn align(&mut self, size: usize) -> u64 {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(size), 0);
        self.base + self.bytes.len() as u64
    }
}

/// At most `INLINE_EXTENTS` of them.
fn inline(found: &[Extent]) -> ExtentList {
    let mut extents = [Extent {
        file_offset: 0,
        address: 0,
        size: 0,
    }; INLINE_EXTENTS];
    extents[..found.len()].copy_from_slice(found);
    ExtentList::Inline {
        count: found.len() as u32,
        extents,
    }
}

fn encode_directory(dir: &ScannedInode, records: &[InodeRecord]) -> Result<Vec<u8>, WriteError> {
    let too_large = || WriteError::TooLarge {
        path: dir.path.clone(),
    };
    let mut children: Vec<(u32, &[u8], Ino)> = dir
        .children
        .iter()
        .map(|(name, ino)| (name_hash(name.as_bytes()), name.as_bytes(), *ino))
        .collect();
    children.sort_unstable();
    let header = DirHeader {
        count: children.len() as u32,
        parent: dir.parent,
    };
    let mut data = header.encode().to_vec();
    let mut name_offset = DIR_HEADER_SIZE + children.len() * DIR_ENTRY_SIZE;
    for (hash, name, ino) in &children {
        let entry = DirEntryRecord {
            hash: *hash,
            ino: *ino,
            name_offset: u32::try_from(name_offset).map_err(|_| too_large())?,
            name_len: u8::try_from(name.len()).map_err(|_| too_large())?,
            kind: records[ino.0 as usize - 1].kind,
        };
        data.extend_from_slice(&entry.encode());
        name_offset += name.len();
    }
    for (_, name, _) in &children {
        data.extend_from_slice(name);
    }
    Ok(data)
}
