//! The records of `record.rs` as bytes: the other direction of each parser there.

use crate::image::record::{
    CIPHER_NONE, DIR_ENTRY_SIZE, DIR_HEADER_SIZE, DirEntryRecord, DirHeader, EXTENT_SIZE, Extent,
    ExtentList, HASH_BLAKE3, INODE_SIZE, InodeRecord, LEAF_LOG2, MAGIC, NODE_LOG2, SUPERBLOCK_SIZE,
    SUPERBLOCK_USED, Superblock, VERSION,
};

impl Superblock {
    pub fn encode(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        put_u32(&mut bytes, 8, VERSION);
        bytes[12..16].copy_from_slice(&[LEAF_LOG2, NODE_LOG2, HASH_BLAKE3, CIPHER_NONE]);
        put_u64(&mut bytes, 16, self.leaf_count);
        put_u64(&mut bytes, 24, self.inode_table);
        put_u32(&mut bytes, 32, self.inode_count);
        bytes[48..SUPERBLOCK_USED].copy_from_slice(&self.tree);
        bytes
    }
}

impl InodeRecord {
    pub fn encode(&self) -> [u8; INODE_SIZE] {
        let mut bytes = [0; INODE_SIZE];
        put_u32(&mut bytes, 0, self.mode);
        put_u32(&mut bytes, 4, self.nlink);
        put_u32(&mut bytes, 8, self.uid);
        put_u32(&mut bytes, 12, self.gid);
        put_u64(&mut bytes, 16, self.size);
        put_u64(&mut bytes, 24, self.mtime_s.cast_unsigned());
        put_u32(&mut bytes, 32, self.mtime_ns);
        put_u32(&mut bytes, 36, self.extents.count());
        put_u64(&mut bytes, 40, self.rdev);
        put_u64(&mut bytes, 48, self.sites);
        put_u32(&mut bytes, 56, self.sites_size);
        match &self.extents {
            ExtentList::Inline { extents, .. } => {
                bytes[72..96].copy_from_slice(&extents[0].encode());
                bytes[96..120].copy_from_slice(&extents[1].encode());
            }
            ExtentList::Table { table, .. } => put_u64(&mut bytes, 72, *table),
        }
        bytes
    }
}

impl Extent {
    pub fn encode(&self) -> [u8; EXTENT_SIZE] {
        let mut bytes = [0; EXTENT_SIZE];
        put_u64(&mut bytes, 0, self.file_offset);
        put_u64(&mut bytes, 8, self.address);
        put_u64(&mut bytes, 16, self.size);
        bytes
    }
}

impl DirHeader {
    pub fn encode(&self) -> [u8; DIR_HEADER_SIZE] {
        let mut bytes = [0; DIR_HEADER_SIZE];
        put_u32(&mut bytes, 0, self.count);
        put_u32(&mut bytes, 4, self.parent.0);
        bytes
    }
}

impl DirEntryRecord {
    pub fn encode(&self) -> [u8; DIR_ENTRY_SIZE] {
        let mut bytes = [0; DIR_ENTRY_SIZE];
        put_u32(&mut bytes, 0, self.hash);
        put_u32(&mut bytes, 4, self.ino.0);
        put_u32(&mut bytes, 8, self.name_offset);
        bytes[12] = self.name_len;
        bytes[13] = self.kind as u8;
        bytes
    }
}

fn put_u32(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], offset: usize, value: u64) {
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}
