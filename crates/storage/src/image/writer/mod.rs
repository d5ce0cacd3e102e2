//! Makes an image of a directory tree, at build time.
//!
//! ```text
//! scan --inodes--> feed (thread) --batches--> leaves --pwrite--> output (temporary file)
//!                                               |
//!      metadata (sites, extents, symlinks, directories, inodes) --> tree --> superblock
//! ```
//!
//! Two threads: one reads files, one hashes and writes, while a third only waits for the disk. The
//! result depends on the tree alone, not on timing: leaves are numbered in the order of the scan.
//!
//! - `scan`: the source tree in its one order; which files are ELF
//! - `feed`: file contents in batches; `leaves`: whole leaves and shared ones, equal ones once
//! - `metadata`: everything else in the leaf space
//! - `output`: a temporary file, synced and renamed at the end
//! - `manifest`: whether an image is still what its source says

mod encode;
mod error;
mod feed;
mod leaves;
mod manifest;
mod metadata;
mod output;
mod scan;

use core::convert::Infallible;
use core::ops::ControlFlow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::vec::Vec;

pub use error::WriteError;
pub use manifest::up_to_date;
pub use scan::{ElfFile, Scan};

use super::hash::{BlockKind, Hash};
use super::record::{FileKind, LEAF_SIZE, MAX_SITES_SIZE, NODE_SIZE, Superblock};
use super::tree::{FAN_OUT, TreeShape};
use feed::Batch;
use leaves::{FileExtents, Leaves};
use output::Output;

/// What an image was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    pub root_hash: Hash,
    /// Bytes of the image file.
    pub image_size: u64,
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    /// Bytes of all regular files.
    pub content_size: u64,
}

/// What goes into an image beside the tree.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Site tables by path relative to the source, as [`Scan::elf_files`] names them.
    pub sites: HashMap<PathBuf, Vec<u8>>,
    /// Stands for everything that shapes `sites` other than the tree: an image made with another
    /// tag is not up to date.
    pub tag: Vec<u8>,
}

/// Writes the image of `scan` to `dest` and its manifest beside it. `dest` is replaced at the end,
/// in one step; on an error it is as it was.
///
/// `progress` hears bytes of file content done and of all; it may break to cancel.
pub fn write_image(
    scan: &Scan,
    dest: &Path,
    extras: &Extras,
    mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<ImageInfo, WriteError> {
    check_sites(scan, &extras.sites)?;
    let output = Output::create(dest)?;
    let mut leaves = Leaves::new(output);
    let data = write_contents(scan, &mut leaves, &mut progress)?;
    let (mut output, mut hashes) = leaves.finish()?;
    let metadata = metadata::lay_out(scan, &data, &extras.sites, hashes.len() as u64)?;
    write_metadata(&metadata.bytes, &mut output, &mut hashes)?;
    let shape = TreeShape::new(hashes.len() as u64);
    let superblock = Superblock {
        leaf_count: shape.leaf_count(),
        inode_table: metadata.inode_table,
        inode_count: metadata.inode_count,
        tree: write_tree(&shape, hashes, |offset, node| output.write_at(offset, node))?,
    };
    let superblock = superblock.encode();
    output.write_at(0, &superblock)?;
    output.commit()?;
    let root_hash = BlockKind::Superblock.hash(&superblock);
    let info = summarize(scan, root_hash, shape.image_size());
    manifest::save(scan, dest, &extras.tag, &info)?;
    Ok(info)
}

/// An image in memory with this leaf space, whatever it holds, and its root hash. For tests of what
/// a reader does with fields that no writer would write: the hashes are right, so only its own
/// checks are left.
pub fn seal(leaf_space: &[u8], inode_table: u64, inode_count: u32) -> (Vec<u8>, Hash) {
    let hashes: Vec<Hash> = leaf_space
        .chunks_exact(LEAF_SIZE)
        .map(|leaf| BlockKind::Leaf.hash(leaf))
        .collect();
    let shape = TreeShape::new(hashes.len() as u64);
    let mut image = std::vec![0; shape.image_size() as usize];
    let leaves = shape.leaf_offset(0) as usize;
    image[leaves..leaves + leaf_space.len()].copy_from_slice(leaf_space);
    let tree = write_tree(&shape, hashes, |offset, node| {
        image[offset as usize..][..NODE_SIZE].copy_from_slice(node);
        Ok::<(), Infallible>(())
    });
    let Ok(tree) = tree;
    let leaf_count = shape.leaf_count();
    let superblock = Superblock {
        leaf_count,
        inode_table,
        inode_count,
        tree,
    }
    .encode();
    image[..superblock.len()].copy_from_slice(&superblock);
    (image, BlockKind::Superblock.hash(&superblock))
}

fn check_sites(scan: &Scan, sites: &HashMap<PathBuf, Vec<u8>>) -> Result<(), WriteError> {
    let regular = scan
        .inodes()
        .iter()
        .filter(|inode| inode.kind == FileKind::Regular);
    let known = regular
        .filter(|inode| sites.contains_key(&inode.path))
        .count();
    if known != sites.len() {
        return Err(WriteError::SitesWithoutFile {
            count: sites.len() - known,
        });
    }
    match sites.iter().find(|(_, table)| table.len() > MAX_SITES_SIZE) {
        Some((path, table)) => Err(WriteError::SitesTooLarge {
            path: path.clone(),
            size: table.len(),
        }),
        None => Ok(()),
    }
}

/// The data of all regular files; the result is indexed like the scan's inodes.
fn write_contents(
    scan: &Scan,
    leaves: &mut Leaves,
    progress: &mut impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Vec<FileExtents>, WriteError> {
    let total = scan.content_size();
    let mut data: Vec<FileExtents> = Vec::new();
    data.resize_with(scan.inodes().len(), FileExtents::default);
    let mut done = 0;
    feed::for_each_batch(scan, |batch: &Batch| {
        for piece in &batch.pieces {
            let extents = &mut data[piece.inode];
            leaves.put(
                &batch.bytes[piece.range.clone()],
                piece.file_offset,
                extents,
            )?;
            done += piece.range.len() as u64;
        }
        match progress(done, total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(WriteError::Cancelled),
        }
    })?;
    Ok(data)
}

/// Appends `bytes` to the leaf space as blocks of its own, padded with zeros.
fn write_metadata(
    bytes: &[u8],
    output: &mut Output,
    hashes: &mut Vec<Hash>,
) -> Result<(), WriteError> {
    for chunk in bytes.chunks(LEAF_SIZE) {
        let mut leaf = std::vec![0; LEAF_SIZE];
        leaf[..chunk.len()].copy_from_slice(chunk);
        output.write_leaves(hashes.len() as u64, &leaf)?;
        hashes.push(BlockKind::Leaf.hash(&leaf));
    }
    Ok(())
}

/// Writes the tree over the leaf hashes, level by level, and returns the hash of its root node.
fn write_tree<E>(
    shape: &TreeShape,
    mut hashes: Vec<Hash>,
    mut write: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Hash, E> {
    for level in 0..=shape.root_level() {
        let mut parents = Vec::with_capacity(hashes.len().div_ceil(FAN_OUT as usize));
        for (index, group) in (0..).zip(hashes.chunks(FAN_OUT as usize)) {
            let mut node = group.concat();
            node.resize(NODE_SIZE, 0);
            write(shape.node_offset(level, index), &node)?;
            parents.push(BlockKind::Node.hash(&node));
        }
        hashes = parents;
    }
    Ok(hashes[0])
}

fn summarize(scan: &Scan, root_hash: Hash, image_size: u64) -> ImageInfo {
    let count = |kind| {
        scan.inodes()
            .iter()
            .filter(|inode| inode.kind == kind)
            .count() as u64
    };
    ImageInfo {
        root_hash,
        image_size,
        files: count(FileKind::Regular),
        directories: count(FileKind::Directory),
        symlinks: count(FileKind::Symlink),
        content_size: scan.content_size(),
    }
}
