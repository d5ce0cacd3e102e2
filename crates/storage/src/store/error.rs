//! What can be wrong: with the request, with the store or its key, with the disk.

use core::fmt;

use super::disk::DiskError;

pub type Result<T> = core::result::Result<T, StoreError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    // The caller's request.
    NotFound,
    Exists,
    NotADirectory,
    IsADirectory,
    NotEmpty,
    NotASymlink,
    /// The object has no data: a device, a fifo, a socket.
    NoData,
    /// A directory would move below itself, offsets are not whole blocks, a mode has no type, ...
    Invalid,
    NameTooLong,
    /// Beyond the size of the largest file.
    FileTooLarge,
    TooManyLinks,
    NoXattr,
    XattrTooLarge,
    /// The size limit is reached, or the host's disk is full.
    NoSpace,
    ReadOnly,
    OutOfMemory,
    // The store and its key.
    /// A store can only be created in an empty file.
    NotEmptyDisk,
    NotAStore,
    UnsupportedVersion(u32),
    WrongKey,
    /// The superblocks do not verify.
    ChangedSuperblock,
    /// The file is shorter than the store.
    Truncated {
        expected: u64,
        found: u64,
    },
    /// A pin names a later state, or another store.
    RolledBack {
        pinned: u64,
        found: u64,
    },
    OtherStore,
    /// A block does not hold what was last written there.
    Changed {
        block: u64,
    },
    /// Bytes that verify break a rule of the format: a bug of the writer.
    Malformed(&'static str),
    /// An earlier failure left the state in memory in doubt; what is on the disk is the last sync.
    Failed,
    /// The disk failed.
    Disk,
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Full => StoreError::NoSpace,
            DiskError::Failed => StoreError::Disk,
        }
    }
}

impl StoreError {
    /// The store, its key or the disk is to blame, not the request.
    pub fn is_about_the_store(&self) -> bool {
        self.request().is_none()
    }

    fn request(&self) -> Option<&'static str> {
        Some(match self {
            StoreError::NotFound => "there is no such name or inode",
            StoreError::Exists => "the name exists",
            StoreError::NotADirectory => "not a directory",
            StoreError::IsADirectory => "is a directory",
            StoreError::NotEmpty => "the directory is not empty",
            StoreError::NotASymlink => "not a symbolic link",
            StoreError::NoData => "the object has no data",
            StoreError::Invalid => "the request makes no sense",
            StoreError::NameTooLong => "the name is empty or too long",
            StoreError::FileTooLarge => "the file would be too large",
            StoreError::TooManyLinks => "too many links",
            StoreError::NoXattr => "there is no such attribute",
            StoreError::XattrTooLarge => "the attribute is too large",
            StoreError::NoSpace => "no space is left in the store",
            StoreError::ReadOnly => "the store is open for reading only",
            StoreError::OutOfMemory => "no memory for the store",
            _ => return None,
        })
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.request() {
            return f.write_str(text);
        }
        match self {
            StoreError::NotEmptyDisk => {
                f.write_str("the file is not empty; a store is only created in an empty one")
            }
            StoreError::NotAStore => f.write_str("the file is not an encrypted store"),
            StoreError::UnsupportedVersion(version) => {
                write!(f, "the store has format version {version}; expected 1")
            }
            StoreError::WrongKey => f.write_str("the key is not the store's key"),
            StoreError::ChangedSuperblock => {
                f.write_str("the store's superblocks were changed: neither verifies")
            }
            StoreError::Truncated { expected, found } => write!(
                f,
                "the store was truncated: the file has {found} bytes; expected {expected}"
            ),
            StoreError::RolledBack { pinned, found } => write!(
                f,
                "the store was rolled back: its last commit is {found}, the pin names {pinned}"
            ),
            StoreError::OtherStore => f.write_str("the store is another one than the pin names"),
            StoreError::Changed { block } => {
                write!(f, "the store was changed: block {block} does not verify")
            }
            StoreError::Malformed(rule) => write!(f, "the store is malformed: {rule}"),
            StoreError::Failed => {
                f.write_str("an earlier failure closed the store for writing; open it again")
            }
            StoreError::Disk => f.write_str("the store's file can't be read or written"),
            _ => unreachable!("requests have a text"),
        }
    }
}

impl core::error::Error for StoreError {}
