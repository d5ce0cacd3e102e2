//! From a path to an open file, and the entries that are made on the way: open(2).

use alloc::sync::Arc;

use super::access::{self, Identity, MAY_EXEC, MAY_READ, MAY_WRITE, S_ISGID};
use super::busy;
use super::dentry::Dentry;
use super::flags::*;
use super::inotify::{self, IN_CREATE, IN_MODIFY};
use super::inode::{Attr, InodeRef, Kind, NewContent, NewNode};
use super::mount::{MS_NODEV, Path};
use super::mounts;
use super::open::OpenFile;
use super::walk::{LastLink, Parent, Walker};
use super::mapping;
use crate::error::{Errno, Result, err};

/// Permission bits asked for, and the umask that applies.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub bits: u32,
    pub umask: u32,
}

impl Mode {
    fn masked(self) -> u32 {
        self.bits & 0o7777 & !self.umask
    }
}

/// open(2) of the path that `walker` is about to walk.
pub fn open(mut walker: Walker<'_>, flags: u32, mode: Mode) -> Result<Arc<OpenFile>> {
    let flags = check_flags(flags)?;
    let who = walker.who();
    let last = if flags & O_NOFOLLOW != 0 { LastLink::Keep } else { LastLink::Follow };
    if flags & O_TMPFILE == O_TMPFILE {
        return open_nameless(walker.walk(LastLink::Follow)?, who, flags, mode);
    }
    if flags & O_CREAT == 0 {
        return open_existing(walker.walk(last)?, who, flags);
    }
    loop {
        let parent = walker.parent()?;
        if !parent.is_ordinary() || parent.wants_dir {
            return err(Errno::EISDIR, "O_CREAT of a directory");
        }
        match find_or_create(&parent, who, mode)? {
            // The mode of a new file does not limit this very descriptor.
            Entry::Created(path) => {
                let writer = writer(&path, flags)?;
                return OpenFile::open_counted(path, flags, writer);
            }
            Entry::Found(_) if flags & O_EXCL != 0 => return err(Errno::EEXIST, "file exists"),
            Entry::Found(path) if path.dentry.kind() == Kind::Symlink => {
                if flags & O_NOFOLLOW != 0 {
                    return err(Errno::ELOOP, "O_NOFOLLOW and a symbolic link");
                }
                walker.follow(&path)?;
                if walker.is_at_object() {
                    return open_existing(walker.walk(last)?, who, flags);
                }
            }
            Entry::Found(path) => return open_existing(path, who, flags),
        }
    }
}

/// The flags that count, as Linux's build_open_flags decides.
fn check_flags(flags: u32) -> Result<u32> {
    if flags & O_PATH != 0 {
        return Ok(flags & (O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC));
    }
    if flags & O_CREAT != 0 && flags & O_DIRECTORY != 0 {
        return err(Errno::EINVAL, "O_CREAT with O_DIRECTORY or O_TMPFILE");
    }
    let is_tmpfile = flags & O_TMPFILE & !O_DIRECTORY != 0;
    if is_tmpfile && (flags & O_DIRECTORY == 0 || flags & O_ACCMODE == O_RDONLY) {
        return err(Errno::EINVAL, "O_TMPFILE must be opened for writing");
    }
    if flags & O_CREAT != 0 && flags & O_EXCL != 0 {
        return Ok(flags | O_NOFOLLOW | O_LARGEFILE);
    }
    Ok(flags | O_LARGEFILE)
}

enum Entry {
    Found(Path),
    Created(Path),
}

/// The entry a path ends in, made as a regular file if there is none.
fn find_or_create(parent: &Parent, who: &Identity, mode: Mode) -> Result<Entry> {
    let dir = &parent.dir;
    let _changes = dir.dentry.changes.lock();
    match dir.dentry.child_locked(&parent.name) {
        Ok(child) => return Ok(Entry::Found(dir.with(child).enter_mounts())),
        Err(error) if error.errno != Errno::ENOENT => return Err(error),
        Err(_) => {}
    }
    let new = new_node(dir, who, NewContent::Regular, mode)?;
    let inode = dir.inode().create(&parent.name, &new)?;
    let made = dir.dentry.adopt(&parent.name, inode);
    inotify::entry_changed(&dir.dentry, &parent.name, made.inode(), IN_CREATE);
    Ok(Entry::Created(dir.with(made)))
}

/// What `who` makes in `dir`, with the owner and mode that the directory's set-group-ID bit decides.
/// The caller holds the directory's lock. EACCES, ENOENT if `dir` was removed, EROFS.
pub fn new_node<'a>(
    dir: &Path,
    who: &Identity,
    content: NewContent<'a>,
    mode: Mode,
) -> Result<NewNode<'a>> {
    check_can_add(dir, who)?;
    let (bits, gid) = inherited(&dir.inode().attr()?, who, &content, mode);
    Ok(NewNode { content, mode: bits, uid: who.uid, gid })
}

/// Whether `who` may add names to `dir`.
pub fn check_can_add(dir: &Path, who: &Identity) -> Result<()> {
    if dir.dentry.is_deleted() {
        return err(Errno::ENOENT, "the directory was removed");
    }
    check_writable_mount(dir)?;
    access::check(&**dir.inode(), who, MAY_WRITE | MAY_EXEC)
}

/// EROFS on a mount that is read-only.
pub fn check_writable_mount(path: &Path) -> Result<()> {
    if path.mount.is_read_only() { err(Errno::EROFS, "read-only mount") } else { Ok(()) }
}

fn inherited(dir: &Attr, who: &Identity, content: &NewContent<'_>, mode: Mode) -> (u32, u32) {
    let bits = mode.masked();
    if dir.mode & S_ISGID == 0 {
        return (bits, who.gid);
    }
    let is_dir = matches!(content, NewContent::Directory);
    (if is_dir { bits | S_ISGID } else { bits }, dir.gid)
}

fn open_nameless(dir: Path, who: &Identity, flags: u32, mode: Mode) -> Result<Arc<OpenFile>> {
    if !dir.dentry.is_dir() {
        return err(Errno::ENOTDIR, "O_TMPFILE in what is no directory");
    }
    check_can_add(&dir, who)?;
    let inode = dir.inode().create_nameless(mode.masked(), who.uid, who.gid)?;
    let mut shown = dir.name(&mounts::root()).text;
    shown.extend_from_slice(b"/#tmpfile (deleted)");
    OpenFile::open(dir.with(Dentry::nameless(inode, &shown)), flags)
}

fn open_existing(path: Path, who: &Identity, flags: u32) -> Result<Arc<OpenFile>> {
    let kind = path.dentry.kind();
    if flags & O_DIRECTORY != 0 && kind != Kind::Directory {
        return err(Errno::ENOTDIR, "O_DIRECTORY");
    }
    if flags & O_PATH != 0 {
        return OpenFile::open(path, flags);
    }
    let wanted = wanted_access(flags);
    match kind {
        Kind::Symlink => return err(Errno::ELOOP, "O_NOFOLLOW and a symbolic link"),
        Kind::Directory if wanted & MAY_WRITE != 0 => {
            return err(Errno::EISDIR, "a directory can't be written");
        }
        Kind::Directory if flags & O_CREAT != 0 => {
            return err(Errno::EISDIR, "O_CREAT and a directory");
        }
        Kind::Socket => return err(Errno::ENXIO, "a socket"),
        Kind::CharDevice | Kind::BlockDevice if path.mount.has(MS_NODEV) => {
            return err(Errno::EACCES, "a device on a nodev mount");
        }
        _ => {}
    }
    if wanted & MAY_WRITE != 0 && kind == Kind::Regular {
        check_writable_mount(&path)?;
    }
    access::check(&**path.inode(), who, wanted)?;
    if flags & O_NOATIME != 0 && !who.owns(&path.inode().attr()?) {
        return err(Errno::EPERM, "O_NOATIME on another's file");
    }
    let writer = writer(&path, flags)?;
    if flags & O_TRUNC != 0 && kind == Kind::Regular {
        mapping::resize(path.inode(), 0)?;
        inotify::changed(&path.dentry, IN_MODIFY);
    }
    OpenFile::open_counted(path, flags, writer)
}

/// Counts who opens a file for writing; ETXTBSY.
fn writer(path: &Path, flags: u32) -> Result<Option<busy::Writer>> {
    if wanted_access(flags) & MAY_WRITE == 0 {
        return Ok(None);
    }
    busy::write(path.inode())
}

fn wanted_access(flags: u32) -> u32 {
    let access = match flags & O_ACCMODE {
        O_RDONLY => MAY_READ,
        O_WRONLY => MAY_WRITE,
        _ => MAY_READ | MAY_WRITE,
    };
    if flags & O_TRUNC != 0 { access | MAY_WRITE } else { access }
}

/// Opens an inode that has no name (memfd).
pub fn open_unnamed(inode: InodeRef, shown: &[u8], flags: u32) -> Result<Arc<OpenFile>> {
    OpenFile::open(mounts::root().with(Dentry::nameless(inode, shown)), flags)
}
