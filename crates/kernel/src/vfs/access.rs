//! Who may do what with a file: the mode bits, path_resolution(7) and capabilities(7).

use alloc::vec::Vec;

use super::inode::{Attr, Inode, Kind};
use crate::error::{Errno, Result, err};
use crate::process::credentials::{ALL_CAPABILITIES, Capability};
use crate::process::{self, Credentials};

pub const MAY_EXEC: u32 = 1;
pub const MAY_WRITE: u32 = 2;
pub const MAY_READ: u32 = 4;

pub const S_ISUID: u32 = 0o4000;
pub const S_ISGID: u32 = 0o2000;
pub const S_ISVTX: u32 = 0o1000;

/// Who acts on files: the file-system user, groups and effective capabilities of a thread.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// By bit number.
    pub capabilities: u64,
}

impl From<&Credentials> for Identity {
    /// The effective user, as most calls go by.
    fn from(credentials: &Credentials) -> Identity {
        Identity {
            uid: credentials.fsuid(),
            gid: credentials.fsgid(),
            groups: credentials.groups.to_vec(),
            capabilities: credentials.effective,
        }
    }
}

impl Identity {
    /// The real user, as access(2) goes by: root has what it may have, others nothing.
    pub fn real(credentials: &Credentials) -> Identity {
        Identity {
            uid: credentials.user.real,
            gid: credentials.group.real,
            groups: credentials.groups.to_vec(),
            capabilities: if credentials.user.real == 0 { credentials.permitted } else { 0 },
        }
    }

    pub const ROOT: Identity = Identity { uid: 0, gid: 0, groups: Vec::new(), capabilities: ALL_CAPABILITIES };

    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities & (1 << capability as u8) != 0
    }

    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Owner, or privileged: may change mode and times.
    pub fn owns(&self, attr: &Attr) -> bool {
        self.uid == attr.uid || self.has(Capability::Fowner)
    }
}

/// Whether set-user-ID and set-group-ID bits survive a write by the current thread (CAP_FSETID).
pub fn may_keep_set_ids() -> bool {
    process::current().is_none_or(|thread| thread.credentials().has(Capability::Fsetid))
}

/// EACCES unless `who` may do all of `wanted` (MAY_* bits) with `inode`.
pub fn check(inode: &dyn Inode, who: &Identity, wanted: u32) -> Result<()> {
    // The privileged need the attributes only to find out whether a file is executable for anybody.
    if who.has(Capability::DacOverride) && (wanted & MAY_EXEC == 0 || inode.kind() == Kind::Directory) {
        return Ok(());
    }
    check_attr(&inode.attr()?, who, wanted)
}

/// As [`check`], with the attributes at hand.
pub fn check_attr(attr: &Attr, who: &Identity, wanted: u32) -> Result<()> {
    if permits(attr, who, wanted) { Ok(()) } else { err(Errno::EACCES, "mode bits forbid it") }
}

fn permits(attr: &Attr, who: &Identity, wanted: u32) -> bool {
    let is_directory = Kind::from_mode(attr.mode) == Some(Kind::Directory);
    if who.has(Capability::DacOverride) && (wanted & MAY_EXEC == 0 || is_directory || attr.mode & 0o111 != 0) {
        return true;
    }
    let reads = if is_directory { MAY_READ | MAY_EXEC } else { MAY_READ };
    if who.has(Capability::DacReadSearch) && wanted & !reads == 0 {
        return true;
    }
    let granted = if who.uid == attr.uid {
        attr.mode >> 6
    } else if who.is_in_group(attr.gid) {
        attr.mode >> 3
    } else {
        attr.mode
    };
    granted & wanted == wanted
}

/// Whether `who` may remove or rename an entry with attributes `entry` in `dir`: write and search
/// permission, and the sticky bit's rule.
pub fn check_removal(dir: &dyn Inode, entry: &dyn Inode, who: &Identity) -> Result<()> {
    if who.has(Capability::DacOverride) && who.has(Capability::Fowner) {
        return Ok(());
    }
    let dir = dir.attr()?;
    check_attr(&dir, who, MAY_WRITE | MAY_EXEC)?;
    if dir.mode & S_ISVTX != 0 && dir.uid != who.uid && !who.owns(&entry.attr()?) {
        return err(Errno::EPERM, "sticky directory");
    }
    Ok(())
}
