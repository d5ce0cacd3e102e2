//! What can be wrong with an image, one variant per lie or defect.

use core::fmt;

use super::source::SourceError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The source could not deliver bytes that the image has.
    Source,
    /// The superblock is not the one that the root hash names.
    SuperblockHash,
    NotAnImage,
    UnsupportedVersion(u32),
    /// A superblock field has a value that version 1 does not have.
    UnsupportedParameter {
        field: &'static str,
        found: u64,
    },
    /// The file is shorter or longer than its superblock says.
    WrongSize {
        expected: u64,
        found: u64,
    },
    NodeHash {
        level: u8,
        index: u64,
    },
    LeafHash {
        index: u64,
    },
    /// The checked bytes break a rule of the format: a bug of the writer.
    Malformed(Malformed),
    NoSuchInode(u32),
    NotADirectory(u32),
    NotASymlink(u32),
    OutOfMemory,
}

/// The rule that checked bytes break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The inode table does not lie in the leaf space.
    InodeTable,
    /// An inode's type is none of the seven.
    Mode,
    /// A time has a thousand million nanoseconds or more.
    Time,
    /// An address range does not lie in the leaf space.
    Address,
    /// Extents are out of order or empty.
    ExtentOrder,
    /// A directory's data is not one extent, or its header does not fit its size.
    DirectoryHeader,
    /// A directory entry points outside the directory or the inode table.
    DirectoryEntry,
    /// A symlink's target is not one extent of 1 to 4095 bytes.
    SymlinkTarget,
    /// A site table is larger than any can be.
    SitesSize,
}

impl From<Malformed> for ImageError {
    fn from(rule: Malformed) -> Self {
        ImageError::Malformed(rule)
    }
}

impl From<SourceError> for ImageError {
    fn from(_: SourceError) -> Self {
        ImageError::Source
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Source => write!(f, "the image file can't be read"),
            ImageError::SuperblockHash => {
                write!(f, "the image is not the one that the root hash names")
            }
            ImageError::NotAnImage => write!(f, "the file is not a file-system image"),
            ImageError::UnsupportedVersion(version) => {
                write!(f, "the image has format version {version}; expected 1")
            }
            ImageError::UnsupportedParameter { field, found } => {
                write!(
                    f,
                    "the image's {field} is {found}, which format version 1 does not have"
                )
            }
            ImageError::WrongSize { expected, found } => {
                write!(f, "the image file has {found} bytes; expected {expected}")
            }
            ImageError::NodeHash { level, index } => {
                write!(f, "node {index} of tree level {level} was changed")
            }
            ImageError::LeafHash { index } => write!(f, "leaf block {index} was changed"),
            ImageError::Malformed(rule) => write!(f, "the image is malformed: {rule:?}"),
            ImageError::NoSuchInode(ino) => write!(f, "the image has no inode {ino}"),
            ImageError::NotADirectory(ino) => write!(f, "inode {ino} is not a directory"),
            ImageError::NotASymlink(ino) => write!(f, "inode {ino} is not a symbolic link"),
            ImageError::OutOfMemory => write!(f, "no memory for a block of the image"),
        }
    }
}

impl core::error::Error for ImageError {}
