//! Who a thread acts as: user and group ids, capabilities (credentials(7), capabilities(7)).

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::vfs::Identity;

/// Capabilities of Linux 6.6: 0 to 40.
pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// The capabilities the kernel asks for, by bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    Chown = 0,
    DacOverride = 1,
    DacReadSearch = 2,
    Fowner = 3,
    Fsetid = 4,
    Kill = 5,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    IpcLock = 14,
    IpcOwner = 15,
    SysChroot = 18,
    SysPtrace = 19,
    SysPacct = 20,
    SysAdmin = 21,
    SysBoot = 22,
    SysNice = 23,
    SysResource = 24,
    SysTime = 25,
    SysTtyConfig = 26,
    Mknod = 27,
    Lease = 28,
    CheckpointRestore = 40,
}

/// The ids of one kind: real, effective, saved, and the one file access goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
    pub fs: u32,
}

impl Ids {
    pub const fn all(id: u32) -> Ids {
        Ids { real: id, effective: id, saved: id, fs: id }
    }

    /// Whether an unprivileged process may make `id` its effective id.
    pub fn may_become(&self, id: u32) -> bool {
        id == self.real || id == self.effective || id == self.saved
    }
}

/// Never changed in place: a change makes a new one.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub user: Ids,
    pub group: Ids,
    pub groups: Arc<Vec<u32>>,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub securebits: u32,
}

impl Credentials {
    /// What the first program starts with.
    pub fn root() -> Credentials {
        Credentials {
            user: Ids::all(0),
            group: Ids::all(0),
            groups: Arc::new(Vec::new()),
            effective: ALL_CAPABILITIES,
            permitted: ALL_CAPABILITIES,
            inheritable: 0,
            bounding: ALL_CAPABILITIES,
            ambient: 0,
            securebits: 0,
        }
    }

    /// Effective user id.
    pub fn euid(&self) -> u32 {
        self.user.effective
    }

    /// Effective group id.
    pub fn egid(&self) -> u32 {
        self.group.effective
    }

    /// User id for file access.
    pub fn fsuid(&self) -> u32 {
        self.user.fs
    }

    /// Group id for file access.
    pub fn fsgid(&self) -> u32 {
        self.group.fs
    }

    /// Whether `gid` is the group for file access or one of the supplementary groups.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.group.fs == gid || self.groups.contains(&gid)
    }

    /// As file access sees it.
    pub fn identity(&self) -> Identity {
        Identity::from(self)
    }

    pub fn has(&self, capability: Capability) -> bool {
        self.effective & (1 << capability as u8) != 0
    }

    /// With other user ids. Capabilities follow as capabilities(7) says for a change from or to 0.
    pub fn with_user(&self, user: Ids) -> Credentials {
        let mut new = Credentials { user, ..self.clone() };
        let had_root = [self.user.real, self.user.effective, self.user.saved].contains(&0);
        let has_root = [user.real, user.effective, user.saved].contains(&0);
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return new;
        }
        if had_root && !has_root {
            if self.securebits & SECBIT_KEEP_CAPS == 0 {
                new.permitted = 0;
                new.effective = 0;
            }
            new.ambient = 0;
        }
        if self.user.effective == 0 && user.effective != 0 {
            new.effective = 0;
        }
        if self.user.effective != 0 && user.effective == 0 {
            new.effective = new.permitted;
        }
        new
    }

    /// With another user id for file access; the capabilities about files follow.
    pub fn with_fsuid(&self, id: u32) -> Credentials {
        let mut new = Credentials { user: Ids { fs: id, ..self.user }, ..self.clone() };
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return new;
        }
        if self.user.fs == 0 && id != 0 {
            new.effective &= !FILE_CAPABILITIES;
        }
        if self.user.fs != 0 && id == 0 {
            new.effective |= new.permitted & FILE_CAPABILITIES;
        }
        new
    }

    /// After execve of a program that is not set-user-ID: root gets all it may have, others what is
    /// ambient.
    pub fn after_exec(&self) -> Credentials {
        let mut new = self.clone();
        new.user.saved = new.user.effective;
        new.user.fs = new.user.effective;
        new.group.saved = new.group.effective;
        new.group.fs = new.group.effective;
        new.securebits &= !SECBIT_KEEP_CAPS;
        let is_root = (self.user.real == 0 || self.user.effective == 0) && self.securebits & SECBIT_NOROOT == 0;
        new.permitted = if is_root { self.bounding | self.inheritable } else { self.ambient };
        new.effective = if is_root && self.user.effective == 0 { new.permitted } else { self.ambient };
        new
    }
}

/// Root's user id gives no capabilities (capabilities(7)).
pub const SECBIT_NOROOT: u32 = 1;
/// Changes of user ids leave capabilities alone.
pub const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;
pub const SECBIT_KEEP_CAPS: u32 = 1 << 4;
pub const SECBIT_KEEP_CAPS_LOCKED: u32 = 1 << 5;
pub const SECBIT_NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
/// The bits that lock the one below each.
pub const SECBIT_LOCKS: u32 = 0xaa;

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
const FILE_CAPABILITIES: u64 =
    1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 9 | 1 << 27 | 1 << 32;
