//! A directory of the host, for plain exchange: nothing in it is trusted, nothing in it is secret.
//!
//! Objects are named by their path below the mounted directory, so a name that the host moves becomes
//! another object; names are looked up each time. What the host says about a file is checked for being possible
//! (type, size, times, names), never for being true.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ops::ControlFlow;

use occlum_abi::ocall::{HostStatFs, Ocall};
use occlum_enclave::host;

use super::hostcall;
use super::hostfd::{HostFd, NO_DIRECTORY, checked, open_at, output, put_path};
use crate::error::{Errno, Error, Result, err};
use crate::sched::SpinLock;
use crate::vfs::file::{File, Wait};
use crate::vfs::flags::*;
use crate::vfs::inode::*;
use crate::vfs::mount::{FileSystem, StatFs};
use crate::vfs::{Sink, Source};

/// Magic number of FUSE: a file system that somebody else serves.
const MAGIC: u64 = 0x6573_5546;
const DEV: u64 = 0x1d;
const NAME_MAX: usize = 255;

/// A mounted host directory.
pub struct HostFs {
    shared: Arc<Shared>,
}

struct Shared {
    directory: HostFd,
}

impl HostFs {
    /// Mounts the host directory `source`.
    pub fn new(source: &str) -> Result<Arc<HostFs>> {
        let directory = open_at(NO_DIRECTORY, source.as_bytes(), O_RDONLY | O_DIRECTORY, 0)?;
        Ok(Arc::new(HostFs { shared: Arc::new(Shared { directory }) }))
    }
}

impl FileSystem for HostFs {
    fn name(&self) -> &'static str {
        "hostfs"
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(HostInode::new(&self.shared, Vec::new(), Kind::Directory))
    }

    /// ```text
    /// 0 block_size  8 blocks  16 blocks_free  24 blocks_available  32 files  40 files_free  48 name_max
    /// ```
    fn stat(&self) -> Result<StatFs> {
        let staging = host::staging();
        let args = [self.shared.handle(), staging.addr(), 0, 0, 0];
        checked(Ocall::StatFs, args, 0)?;
        let mut raw = [0; size_of::<HostStatFs>()];
        hostcall::copy_in(Ocall::StatFs, &staging, &mut raw);
        let (words, _) = raw.as_chunks::<8>();
        let word = |index: usize| u64::from_le_bytes(words[index]);
        Ok(StatFs {
            magic: MAGIC,
            block_size: word(0).clamp(512, 1 << 20),
            blocks: word(1),
            blocks_free: word(3),
            files: word(4),
            files_free: word(5),
        })
    }
}

impl Shared {
    fn handle(&self) -> u64 {
        u64::from(self.directory.0)
    }

    fn open(&self, path: &[u8], flags: u32, mode: u32) -> Result<HostFd> {
        open_at(self.handle(), shown(path), flags | O_NOFOLLOW, mode)
    }

    /// A call whose arguments are the directory, a path and one value.
    fn on_path(&self, call: Ocall, path: &[u8], value: u64) -> Result<()> {
        let staging = put_path(path)?;
        checked(call, [self.handle(), staging.addr(), path.len() as u64, value, 0], 0)?;
        Ok(())
    }

    /// A call on two paths.
    fn on_paths(&self, call: Ocall, one: &[u8], other: &[u8], value: u64) -> Result<()> {
        self.on_path(call, &[one, b"\0", other].concat(), value)
    }
}

/// The mounted directory itself is `.` to the host.
fn shown(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

/// One object of the host's directory.
struct HostInode {
    shared: Arc<Shared>,
    /// Below the mounted directory, without a leading slash; empty for the directory itself.
    path: Vec<u8>,
    kind: Kind,
    /// Opened for data when first needed (mmap, exec), with the access mode it was opened for.
    data: SpinLock<Option<(u32, Arc<HostFd>)>>,
}

impl HostInode {
    fn new(shared: &Arc<Shared>, path: Vec<u8>, kind: Kind) -> Arc<HostInode> {
        Arc::new(HostInode { shared: shared.clone(), path, kind, data: SpinLock::new(None) })
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path[..], b"/", name].concat() }
    }

    fn stat(&self, path: &[u8]) -> Result<Attr> {
        let path = shown(path);
        let staging = put_path(path)?;
        let answer = output(&staging);
        let args = [self.shared.handle(), staging.addr(), path.len() as u64, answer.addr(), 0];
        checked(Ocall::Stat, args, 0)?;
        let mut attr = hostcall::take_stat(Ocall::Stat, &answer)?;
        attr.dev = DEV;
        Ok(attr)
    }

    /// The data of a regular file, open at least for `access` (O_RDONLY or O_RDWR).
    fn data(&self, access: u32) -> Result<Arc<HostFd>> {
        if let Some((have, fd)) = &*self.data.lock()
            && (*have == O_RDWR || access == O_RDONLY)
        {
            return Ok(fd.clone());
        }
        let fd = Arc::new(self.shared.open(&self.path, access, 0)?);
        let old = self.data.lock().replace((access, fd.clone()));
        drop(old);
        Ok(fd)
    }

    fn other(&self, inode: &InodeRef) -> Result<Arc<HostInode>> {
        let any: Arc<dyn Any + Send + Sync> = inode.clone();
        match any.downcast::<HostInode>() {
            Ok(other) if Arc::ptr_eq(&other.shared, &self.shared) => Ok(other),
            _ => err(Errno::EXDEV, "another file system"),
        }
    }
}

impl Inode for HostInode {
    fn attr(&self) -> Result<Attr> {
        let attr = self.stat(&self.path)?;
        if Kind::from_mode(attr.mode) != Some(self.kind) {
            return err(Errno::ESTALE, "the host put another object in its place");
        }
        Ok(attr)
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let path = shown(&self.path);
        if let Some(mode) = change.mode {
            self.shared.on_path(Ocall::Chmod, path, u64::from(mode))?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.unwrap_or(u32::MAX), change.gid.unwrap_or(u32::MAX));
            self.shared.on_path(Ocall::Chown, path, u64::from(uid) | u64::from(gid) << 32)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            const UTIME_OMIT: i64 = 0x3fff_fffe;
            let fields = |time: Option<Timestamp>| match time {
                Some(time) => [time.s, i64::from(time.ns)],
                None => [0, UTIME_OMIT],
            };
            let staging = put_path(path)?;
            let times = output(&staging);
            let raw: Vec<u8> = [fields(change.atime), fields(change.mtime)]
                .concat()
                .into_iter()
                .flat_map(i64::to_le_bytes)
                .collect();
            hostcall::copy_out(&times, &raw);
            let args = [self.shared.handle(), staging.addr(), path.len() as u64, times.addr(), 0];
            checked(Ocall::Utimes, args, 0)?;
        }
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let path = self.path_of(name);
        let attr = self.stat(&path)?;
        let Some(kind) = Kind::from_mode(attr.mode) else { return err(Errno::EIO, "file type") };
        Ok(HostInode::new(&self.shared, path, kind))
    }

    fn has_stable_names(&self) -> bool {
        false
    }

    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<InodeRef> {
        let path = self.path_of(name);
        match new.content {
            NewContent::Regular => {
                drop(self.shared.open(&path, O_WRONLY | O_CREAT | O_EXCL, new.mode)?);
            }
            NewContent::Directory => {
                self.shared.on_path(Ocall::Mkdir, &path, u64::from(new.mode))?;
            }
            NewContent::Symlink(target) => self.shared.on_paths(Ocall::Symlink, target, &path, 0)?,
            _ => return err(Errno::EPERM, "special files on the host"),
        }
        self.lookup(name)
    }

    fn link(&self, name: &[u8], inode: &InodeRef) -> Result<()> {
        let old = self.other(inode)?;
        self.shared.on_paths(Ocall::Link, &old.path, &self.path_of(name), 0)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.shared.on_path(Ocall::Unlink, &self.path_of(name), 0)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        const AT_REMOVEDIR: u64 = 0x200;
        self.shared.on_path(Ocall::Unlink, &self.path_of(name), AT_REMOVEDIR)
    }

    fn rename(&self, name: &[u8], to: &InodeRef, to_name: &[u8], how: Rename) -> Result<()> {
        let flags = match how {
            Rename::Replace => 0,
            Rename::NoReplace => 1,
            Rename::Exchange => 2,
        };
        let to = self.other(to)?.path_of(to_name);
        self.shared.on_paths(Ocall::Rename, &self.path_of(name), &to, flags)
    }

    fn read_dir(&self, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        let directory = self.shared.open(&self.path, O_RDONLY | O_DIRECTORY, 0)?;
        let mut cursor = cursor;
        loop {
            let staging = host::staging();
            let size = staging.size().min(32 << 10);
            let args = [u64::from(directory.0), staging.addr(), size as u64, cursor, 0];
            let count = checked(Ocall::ReadDir, args, size)?;
            if count == 0 {
                return Ok(());
            }
            let mut raw = alloc::vec![0; count];
            hostcall::copy_in(Ocall::ReadDir, &staging, &mut raw);
            match self.show(&raw, visit)? {
                ControlFlow::Break(()) => return Ok(()),
                // A cursor that stands still would keep us here for ever.
                ControlFlow::Continue(next) if next == cursor => return Ok(()),
                ControlFlow::Continue(next) => cursor = next,
            }
        }
    }

    fn read_link(&self) -> Result<Link> {
        const TARGET_MAX: usize = 4095;
        let staging = put_path(&self.path)?;
        let answer = output(&staging);
        let room = answer.size().min(TARGET_MAX);
        let args =
            [self.shared.handle(), staging.addr(), self.path.len() as u64, answer.addr(), room as u64];
        let count = checked(Ocall::ReadLink, args, room)?;
        let mut target = alloc::vec![0; count];
        hostcall::copy_in(Ocall::ReadLink, &answer, &mut target);
        if target.is_empty() || target.contains(&0) {
            return err(Errno::EIO, "the host's link makes no sense");
        }
        Ok(Link::Text(target))
    }

    fn open(self: Arc<Self>, flags: u32) -> Result<Option<Arc<dyn File>>> {
        match self.kind {
            Kind::Directory => Ok(None),
            Kind::Regular => {
                let access = match flags & O_ACCMODE {
                    O_RDONLY => O_RDONLY,
                    O_WRONLY => O_WRONLY,
                    _ => O_RDWR,
                };
                let fd = self.shared.open(&self.path, access, 0)?;
                if Kind::from_mode(hostcall::stat_of(fd.0)?.mode) != Some(Kind::Regular) {
                    return err(Errno::ESTALE, "the host put another object in its place");
                }
                Ok(Some(Arc::new(HostFile { fd })))
            }
            Kind::Symlink => err(Errno::ELOOP, "a symbolic link"),
            _ => err(Errno::ENXIO, "devices, FIFOs and sockets of the host"),
        }
    }

    fn read_at(&self, offset: u64, sink: &mut Sink<'_>) -> Result<()> {
        self.data(O_RDONLY)?.read_at(offset, sink)
    }

    fn write_at(&self, position: Position, source: &mut Source<'_>) -> Result<u64> {
        self.data(O_RDWR)?.write_at(position, source)
    }

    fn resize(&self, size: u64) -> Result<()> {
        let fd = self.data(O_RDWR)?;
        checked(Ocall::Truncate, [u64::from(fd.0), size, 0, 0, 0], 0)?;
        Ok(())
    }
}

impl HostInode {
    /// Shows the entries in `raw`; gives the cursor behind them.
    ///
    /// ```text
    /// struct linux_dirent64:  0 ino 8 | 8 off 8 | 16 reclen 2 | 18 type 1 | 19 name, NUL, padding
    /// ```
    fn show(&self, raw: &[u8], visit: &mut Visit<'_>) -> Result<ControlFlow<(), u64>> {
        let lie = || Error::new(Errno::EIO, "the host's directory makes no sense");
        let mut rest = raw;
        let mut next = 0;
        while let Some((header, _)) = rest.split_first_chunk::<19>() {
            let [i0, i1, i2, i3, i4, i5, i6, i7, o0, o1, o2, o3, o4, o5, o6, o7, r0, r1, kind] = *header;
            let ino = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
            next = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
            let size = usize::from(u16::from_le_bytes([r0, r1]));
            let name = rest.get(19..size).ok_or_else(lie)?;
            rest = rest.get(size..).ok_or_else(lie)?;
            let end = name.iter().position(|&byte| byte == 0).ok_or_else(lie)?;
            let name = &name[..end];
            if matches!(name, b"." | b"..") {
                continue;
            }
            if name.is_empty() || name.len() > NAME_MAX || name.contains(&b'/') {
                return Err(lie());
            }
            let kind = Kind::from_mode(u32::from(kind) << 12).unwrap_or(Kind::Regular);
            if visit(DirEntry { name, ino, kind, next }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(next))
    }
}

/// An open regular file of the host.
struct HostFile {
    fd: HostFd,
}

impl File for HostFile {
    fn attr(&self) -> Result<Attr> {
        let mut attr = hostcall::stat_of(self.fd.0)?;
        attr.dev = DEV;
        Ok(attr)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, sink: &mut Sink<'_>, _wait: Wait) -> Result<()> {
        self.fd.read_at(offset, sink)
    }

    fn write(&self, at: Position, source: &mut Source<'_>, _wait: Wait) -> Result<u64> {
        self.fd.write_at(at, source)
    }

    fn is_pollable(&self) -> bool {
        false
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(usize::try_from(self.attr()?.size).unwrap_or(usize::MAX))
    }

    fn sync(&self) -> Result<()> {
        checked(Ocall::Sync, [u64::from(self.fd.0), 0, 0, 0, 0], 0)?;
        Ok(())
    }
}
