//! [`Image`]: an open image as a file system.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::blocks::{Blocks, zeros};
use super::cache::CacheLimits;
use super::directory::{DirEntry, Directory, single_extent};
use super::error::{ImageError, Malformed};
use super::hash::{BlockKind, Hash};
use super::leafspace::LeafSpace;
use super::record::{
    EXTENT_SIZE, Extent, ExtentList, FileKind, INODE_SIZE, Ino, InodeRecord, LEAF_SIZE,
    MAX_SITES_SIZE, MAX_TARGET_LEN, SUPERBLOCK_SIZE, Superblock,
};
use super::source::ImageSource;

/// Leaf blocks that `verify_all` reads at once.
const VERIFY_LEAVES: usize = 16;

/// An open image. All methods may run on several vCPUs at once.
///
/// After an error a caller's buffer may hold a part of the answer; what it holds was checked, but
/// how much is not said.
pub struct Image<S> {
    blocks: Blocks<S>,
    superblock: Superblock,
}

/// An inode, read and checked once; keep it as long as the file is known. Attributes as in stat(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    ino: Ino,
    record: InodeRecord,
}

/// The root hash that an image would have to be opened with, from its own superblock: says which
/// image it claims to be. Evidence of nothing; for tools that show an image to its owner.
pub fn claimed_root_hash<S: ImageSource>(source: &S) -> Result<Hash, ImageError> {
    let mut bytes = [0; SUPERBLOCK_SIZE];
    source.read_at(0, &mut bytes)?;
    Ok(BlockKind::Superblock.hash(&bytes))
}

/// Sizes for statfs(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageStat {
    /// Leaf blocks of `LEAF_SIZE` bytes.
    pub blocks: u64,
    pub inodes: u32,
}

impl<S: ImageSource> Image<S> {
    /// Checks the superblock and the root node; nothing else is read.
    pub fn open(source: S, root_hash: &Hash) -> Result<Image<S>, ImageError> {
        Image::open_with(source, root_hash, CacheLimits::default())
    }

    pub fn open_with(
        source: S,
        root_hash: &Hash,
        limits: CacheLimits,
    ) -> Result<Image<S>, ImageError> {
        let (blocks, superblock) = Blocks::open(source, root_hash, limits)?;
        let table_size = u64::from(superblock.inode_count) * INODE_SIZE as u64;
        let table_end = superblock.inode_table.checked_add(table_size);
        let space_size = superblock.leaf_count * LEAF_SIZE as u64;
        let is_inside = table_end.is_some_and(|end| end <= space_size);
        if !is_inside || superblock.inode_count == 0 {
            return Err(Malformed::InodeTable.into());
        }
        Ok(Image { blocks, superblock })
    }

    pub fn stat(&self) -> ImageStat {
        ImageStat {
            blocks: self.blocks.leaf_count(),
            inodes: self.superblock.inode_count,
        }
    }

    pub fn root(&self) -> Result<Inode, ImageError> {
        self.inode(Ino::ROOT)
    }

    pub fn inode(&self, ino: Ino) -> Result<Inode, ImageError> {
        if ino.0 == 0 || ino.0 > self.superblock.inode_count {
            return Err(ImageError::NoSuchInode(ino.0));
        }
        let address = self.superblock.inode_table + u64::from(ino.0 - 1) * INODE_SIZE as u64;
        let record = InodeRecord::parse(&self.space().record(address)?)?;
        Ok(Inode { ino, record })
    }

    /// The inode number of `name` in `dir`; `None` if there is no such name.
    pub fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<Ino>, ImageError> {
        self.directory(dir)?.lookup(name)
    }

    /// The directory that holds `dir`; the root's is itself.
    pub fn parent(&self, dir: &Inode) -> Result<Ino, ImageError> {
        Ok(self.directory(dir)?.parent())
    }

    /// Shows the entries of `dir`, without `.` and `..`, until `visit` breaks. `cursor` is 0 at
    /// first, then the `next` of the last entry that was used. No lock is held while `visit` runs.
    pub fn read_dir(
        &self,
        dir: &Inode,
        cursor: u32,
        visit: impl FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), ImageError> {
        self.directory(dir)?.read(cursor, visit)
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, link: &Inode) -> Result<Vec<u8>, ImageError> {
        if link.kind() != FileKind::Symlink {
            return Err(ImageError::NotASymlink(link.ino.0));
        }
        let extent = single_extent(&link.record).ok_or(Malformed::SymlinkTarget)?;
        if extent.size == 0 || extent.size > MAX_TARGET_LEN {
            return Err(Malformed::SymlinkTarget.into());
        }
        self.read_vec(extent.address, extent.size as usize)
    }

    /// Reads file data at `offset`, as pread(2): the count is short only at the end of the file.
    ///
    /// Parts of `buf` that are whole leaves of the file (offset and length multiples of
    /// `LEAF_SIZE`) are copied and hashed in place, past the cache: read in such units.
    pub fn read_at(&self, file: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize, ImageError> {
        let rest = file.size().saturating_sub(offset);
        let size = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        let mut space = self.space();
        let mut done = 0;
        while done < size {
            let position = offset + done as u64;
            done += self.read_piece(&mut space, file, position, &mut buf[done..size])?;
        }
        Ok(size)
    }

    /// The site table of an ELF file, if it has one.
    pub fn sites(&self, file: &Inode) -> Result<Option<Vec<u8>>, ImageError> {
        let size = file.record.sites_size as usize;
        if size == 0 {
            return Ok(None);
        }
        // Also bounded by the image: a small image can't ask for much memory.
        let space_size = self.blocks.leaf_count() * LEAF_SIZE as u64;
        if size > MAX_SITES_SIZE || size as u64 > space_size {
            return Err(Malformed::SitesSize.into());
        }
        self.read_vec(file.record.sites, size).map(Some)
    }

    /// Reads and checks every block of the image. `progress` hears the number of leaf blocks done
    /// and of all; it may break to stop early.
    pub fn verify_all(
        &self,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), ImageError> {
        let mut buf = zeros(VERIFY_LEAVES * LEAF_SIZE)?;
        let count = self.blocks.leaf_count();
        let mut done = 0;
        while done < count {
            let leaves = (count - done).min(VERIFY_LEAVES as u64);
            self.blocks
                .read_leaves(done, &mut buf[..leaves as usize * LEAF_SIZE])?;
            done += leaves;
            if progress(done, count).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Reads 1 or more bytes that lie together, or are in one hole, and says how many.
    fn read_piece(
        &self,
        space: &mut LeafSpace<'_, S>,
        file: &Inode,
        position: u64,
        buf: &mut [u8],
    ) -> Result<usize, ImageError> {
        let room = buf.len();
        let clip = |size: u64| usize::try_from(size).map_or(room, |size| size.min(room));
        let Some(extent) = extent_behind(space, &file.record.extents, position)? else {
            buf.fill(0);
            return Ok(room);
        };
        if extent.file_offset > position {
            let size = clip(extent.file_offset - position);
            buf[..size].fill(0);
            return Ok(size);
        }
        let size = clip(extent.end() - position);
        let address = extent.address.checked_add(position - extent.file_offset);
        space.read(address.ok_or(Malformed::Address)?, &mut buf[..size])?;
        Ok(size)
    }

    fn read_vec(&self, address: u64, size: usize) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(size)
            .map_err(|_| ImageError::OutOfMemory)?;
        bytes.resize(size, 0);
        self.space().read(address, &mut bytes)?;
        Ok(bytes)
    }

    fn directory(&self, dir: &Inode) -> Result<Directory<'_, S>, ImageError> {
        if dir.kind() != FileKind::Directory {
            return Err(ImageError::NotADirectory(dir.ino.0));
        }
        Directory::open(self.space(), &dir.record, self.superblock.inode_count)
    }

    fn space(&self) -> LeafSpace<'_, S> {
        LeafSpace::new(&self.blocks)
    }
}

impl Inode {
    pub fn ino(&self) -> Ino {
        self.ino
    }

    pub fn kind(&self) -> FileKind {
        self.record.kind
    }

    /// `st_mode`: type and permission bits.
    pub fn mode(&self) -> u32 {
        self.record.mode
    }

    pub fn nlink(&self) -> u32 {
        self.record.nlink
    }

    pub fn uid(&self) -> u32 {
        self.record.uid
    }

    pub fn gid(&self) -> u32 {
        self.record.gid
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Seconds since 1970 and nanoseconds below 10^9.
    pub fn mtime(&self) -> (i64, u32) {
        (self.record.mtime_s, self.record.mtime_ns)
    }

    /// `st_rdev` of a device node, else 0.
    pub fn rdev(&self) -> u64 {
        self.record.rdev
    }

    /// Bytes of the site table, 0 if there is none.
    pub fn sites_size(&self) -> u32 {
        self.record.sites_size
    }
}

/// The first extent that ends behind `position`: it holds it, or a hole lies before it.
fn extent_behind<S: ImageSource>(
    space: &mut LeafSpace<'_, S>,
    extents: &ExtentList,
    position: u64,
) -> Result<Option<Extent>, ImageError> {
    let (mut low, mut high) = (0, extents.count());
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let extent = extent_at(space, extents, middle)?;
        if extent.size == 0 {
            return Err(Malformed::ExtentOrder.into());
        }
        if extent.end() <= position {
            low = middle + 1;
        } else {
            found = Some(extent);
            high = middle;
        }
    }
    Ok(found)
}

fn extent_at<S: ImageSource>(
    space: &mut LeafSpace<'_, S>,
    extents: &ExtentList,
    index: u32,
) -> Result<Extent, ImageError> {
    match extents {
        ExtentList::Inline { extents, .. } => Ok(extents[index as usize]),
        ExtentList::Table { table, .. } => {
            let offset = u64::from(index) * EXTENT_SIZE as u64;
            let address = table.checked_add(offset).ok_or(Malformed::Address)?;
            let bytes: [u8; EXTENT_SIZE] = space.record(address)?;
            Ok(Extent::parse(&bytes))
        }
    }
}
