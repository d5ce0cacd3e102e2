//! What shared memory, semaphore sets and message queues have in common.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{Errno, Result, err};
use crate::process::Credentials;
use crate::process::credentials::Capability;
use crate::sched::{SpinLock, WaitQueue};

pub const IPC_PRIVATE: i32 = 0;
pub const IPC_CREAT: i32 = 0o1000;
pub const IPC_EXCL: i32 = 0o2000;
pub const IPC_NOWAIT: i32 = 0o4000;

/// Permission bits as [`Permissions::check`] takes them.
pub const MAY_READ: u32 = 0o444;
pub const MAY_WRITE: u32 = 0o222;

/// An id is `sequence * SEQUENCE + index`, so that ids are not soon used again.
const SEQUENCE: i32 = 32768;

/// `struct ipc64_perm`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Permissions {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    creator_uid: u32,
    creator_gid: u32,
    pub mode: u32,
    sequence: u16,
    padding: [u16; 3],
    unused: [u64; 2],
}

const _: () = assert!(size_of::<Permissions>() == 48);

impl Permissions {
    fn new(key: i32, mode: i32, sequence: u16, who: &Credentials) -> Permissions {
        Permissions {
            key,
            uid: who.euid(),
            gid: who.egid(),
            creator_uid: who.euid(),
            creator_gid: who.egid(),
            mode: mode as u32 & 0o777,
            sequence,
            ..Permissions::default()
        }
    }

    /// EACCES unless `who` has all of `wanted` (bits of owner, group or others: they are one).
    pub fn check(&self, who: &Credentials, wanted: u32) -> Result<()> {
        let wanted = (wanted >> 6 | wanted >> 3 | wanted) & 7;
        let granted = if who.euid() == self.uid || who.euid() == self.creator_uid {
            self.mode >> 6
        } else if who.is_in_group(self.gid) || who.is_in_group(self.creator_gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted == 0 || who.has(Capability::IpcOwner) {
            return Ok(());
        }
        err(Errno::EACCES, "permissions of the object")
    }

    /// EPERM unless `who` owns or made it: what IPC_SET and IPC_RMID ask.
    pub fn check_owner(&self, who: &Credentials) -> Result<()> {
        let is_owner = who.euid() == self.uid || who.euid() == self.creator_uid;
        if is_owner || who.has(Capability::SysAdmin) {
            return Ok(());
        }
        err(Errno::EPERM, "not the owner of the object")
    }

    /// IPC_SET.
    pub fn set(&mut self, new: &Permissions) -> Result<()> {
        if new.uid == u32::MAX || new.gid == u32::MAX {
            return err(Errno::EINVAL, "no such id");
        }
        self.uid = new.uid;
        self.gid = new.gid;
        self.mode = self.mode & !0o777 | new.mode & 0o777;
        Ok(())
    }
}

/// One object of kind `S`.
pub struct Object<S> {
    pub id: i32,
    pub inner: SpinLock<Inner<S>>,
    /// Woken at every change and at removal.
    pub changed: WaitQueue,
}

pub struct Inner<S> {
    pub permissions: Permissions,
    pub is_removed: bool,
    pub state: S,
}

impl<S> Inner<S> {
    /// EIDRM for those who held the object when it went.
    pub fn check_alive(&self) -> Result<()> {
        if self.is_removed { err(Errno::EIDRM, "the object was removed") } else { Ok(()) }
    }
}

/// All objects of one kind.
pub struct Table<S> {
    slots: SpinLock<Slots<S>>,
    max: usize,
}

struct Slots<S> {
    objects: BTreeMap<i32, Arc<Object<S>>>,
    by_key: BTreeMap<i32, i32>,
    sequence: i32,
}

/// What a `*get` call asks for.
pub struct Request<'a> {
    pub key: i32,
    /// IPC_CREAT, IPC_EXCL and permission bits.
    pub flags: i32,
    pub who: &'a Credentials,
}

impl<S> Table<S> {
    /// `max` objects at most.
    pub const fn new(max: usize) -> Table<S> {
        let slots = Slots { objects: BTreeMap::new(), by_key: BTreeMap::new(), sequence: 0 };
        Table { slots: SpinLock::new(slots), max }
    }

    /// The id of the object with a key, which `make` makes if there is none; `check` refuses what is there.
    pub fn get(
        &self,
        request: &Request<'_>,
        check: impl FnOnce(&S) -> Result<()>,
        make: impl FnOnce(i32) -> Result<S>,
    ) -> Result<i32> {
        let mut slots = self.slots.lock();
        let found = slots.by_key.get(&request.key).copied().filter(|_| request.key != IPC_PRIVATE);
        let found = found.and_then(|id| slots.objects.get(&id));
        if let Some(object) = found {
            if request.flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                return err(Errno::EEXIST, "the key is taken");
            }
            let inner = object.inner.lock();
            check(&inner.state)?;
            inner.permissions.check(request.who, request.flags as u32)?;
            return Ok(object.id);
        }
        if request.key != IPC_PRIVATE && request.flags & IPC_CREAT == 0 {
            return err(Errno::ENOENT, "no object with this key");
        }
        if slots.objects.len() >= self.max {
            return err(Errno::ENOSPC, "too many objects");
        }
        slots.insert(request, make)
    }

    /// EINVAL for an id that no object has.
    pub fn find(&self, id: i32) -> Result<Arc<Object<S>>> {
        match self.slots.lock().objects.get(&id) {
            Some(object) => Ok(object.clone()),
            None => err(Errno::EINVAL, "no object with this id"),
        }
    }

    /// The object at an index (`*_STAT`).
    pub fn at_index(&self, index: i32) -> Result<Arc<Object<S>>> {
        let slots = self.slots.lock();
        match slots.objects.values().find(|object| object.id % SEQUENCE == index) {
            Some(object) => Ok(object.clone()),
            None => err(Errno::EINVAL, "no object with this index"),
        }
    }

    pub fn all(&self) -> Vec<Arc<Object<S>>> {
        self.slots.lock().objects.values().cloned().collect()
    }

    /// The highest index in use, 0 if there is none.
    pub fn last_index(&self) -> usize {
        self.slots.lock().objects.keys().map(|id| (id % SEQUENCE) as usize).max().unwrap_or(0)
    }

    /// The object can no longer be found by its key, which is free for another.
    pub fn forget_key(&self, key: i32, id: i32) {
        let mut slots = self.slots.lock();
        if slots.by_key.get(&key) == Some(&id) {
            slots.by_key.remove(&key);
        }
    }

    /// Removes an object; who waits for it hears EIDRM.
    pub fn remove(&self, object: &Object<S>) {
        let key = {
            let mut inner = object.inner.lock();
            inner.is_removed = true;
            inner.permissions.key
        };
        self.forget_key(key, object.id);
        let gone = self.slots.lock().objects.remove(&object.id);
        object.changed.wake_all();
        drop(gone);
    }
}

impl<S> Slots<S> {
    fn insert(&mut self, request: &Request<'_>, make: impl FnOnce(i32) -> Result<S>) -> Result<i32> {
        let mut index = 0;
        while self.objects.keys().any(|id| id % SEQUENCE == index) {
            index += 1;
        }
        let sequence = self.sequence;
        let id = sequence * SEQUENCE + index;
        let state = make(id)?;
        self.sequence = (sequence + 1) % (i32::MAX / SEQUENCE);
        let permissions = Permissions::new(request.key, request.flags, sequence as u16, request.who);
        let inner = SpinLock::new(Inner { permissions, is_removed: false, state });
        self.objects.insert(id, Arc::new(Object { id, inner, changed: WaitQueue::new() }));
        if request.key != IPC_PRIVATE {
            self.by_key.insert(request.key, id);
        }
        Ok(id)
    }
}

/// Seconds since 1970, for the time stamps of objects.
pub fn now_s() -> i64 {
    crate::vfs::inode::Timestamp::now().s
}
