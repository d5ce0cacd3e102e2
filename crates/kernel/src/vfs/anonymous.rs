//! Files without a name, seen by way of a name of /proc/PID/fd: opening it gives the same file again.

use alloc::sync::Arc;

use super::dentry::Dentry;
use super::file::File;
use super::inode::{Attr, Inode, Kind};
use super::mount::Path;
use super::mounts;
use super::open::OpenFile;
use crate::error::Result;

/// Stands for an open file that is in no file system.
struct AnonymousInode {
    file: Arc<OpenFile>,
}

/// A place that leads to `file` and shows what it is.
pub fn place_of(file: Arc<OpenFile>) -> Path {
    let label = file.file().label();
    let dentry = Dentry::nameless(Arc::new(AnonymousInode { file }), label.as_bytes());
    mounts::root().with(dentry)
}

impl Inode for AnonymousInode {
    fn attr(&self) -> Result<Attr> {
        self.file.file().attr()
    }

    fn kind(&self) -> Kind {
        let mode = self.attr().map_or(0, |attr| attr.mode);
        Kind::from_mode(mode).unwrap_or(Kind::Regular)
    }

    fn open(self: Arc<Self>, _flags: u32) -> Result<Option<Arc<dyn File>>> {
        Ok(Some(self.file.file().clone()))
    }
}
