//! What can go wrong while an image is written.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub enum WriteError {
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The file changed between the scan and the end of its reading.
    Changed {
        path: PathBuf,
    },
    /// More inodes than a 32-bit inode number can name, or a directory too large for its records.
    TooLarge {
        path: PathBuf,
    },
    /// Site tables name files that the tree does not have.
    SitesWithoutFile {
        count: usize,
    },
    SitesTooLarge {
        path: PathBuf,
        size: usize,
    },
    /// The progress callback asked to stop.
    Cancelled,
}

impl WriteError {
    /// For `map_err`: what was done to which file.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> WriteError + 'a {
        move |source| WriteError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Io {
                action,
                path,
                source,
            } => {
                write!(f, "can't {action} {}: {source}", path.display())
            }
            WriteError::Changed { path } => {
                write!(f, "{} changed while the image was made", path.display())
            }
            WriteError::TooLarge { path } => {
                write!(
                    f,
                    "{} has more entries than an image can hold",
                    path.display()
                )
            }
            WriteError::SitesWithoutFile { count } => {
                write!(f, "{count} site tables name files that are not in the tree")
            }
            WriteError::SitesTooLarge { path, size } => {
                write!(f, "the site table of {} has {size} bytes", path.display())
            }
            WriteError::Cancelled => write!(f, "cancelled"),
        }
    }
}

impl core::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            WriteError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
