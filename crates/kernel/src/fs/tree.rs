//! Builds the tree of mounts from the measured configuration, and the first process's descriptors.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use occlum_abi::boot::{BootConfig, Mount, MountKind};
use occlum_enclave::HeapUsage;
use occlum_enclave::host::HostSlice;

use super::cache;
use super::console::Console;
use super::image::ImageFs;
use super::dev;
use super::host::HostFs;
use super::proc::ProcFs;
use super::proc::sysfs::SysFs;
use super::pty::devpts::DevPts;
use super::ramfs::RamFs;
use super::store::Lower;
use super::stores;
use crate::error::Errno;
use crate::vfs::flags::{O_RDONLY, O_RDWR, O_WRONLY};
use crate::vfs::inode::{NewContent, NewNode};
use crate::vfs::mount::{FileSystem, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME, Path};
use crate::vfs::mounts;
use crate::vfs::table::OnExec;
use crate::vfs::walk;
use crate::vfs::{FileTable, FsContext, Identity, InodeRef, Kind, OpenFile};

/// Why the tree can't be built: a sentence for the log.
pub type Problem = String;

/// Mounts everything in `config`, the root first. `image` is host memory.
pub fn mount_all(config: &BootConfig, image: HostSlice) -> Result<(), Problem> {
    if let Ok(size @ 1..) = usize::try_from(config.page_cache_size) {
        cache::set_limit(size);
    }
    let limit = memory_limit(config);
    let image = ImageFs::open(image, &config.image_root)
        .map_err(|error| format!("the file-system image can't be used: {error}"))?;
    let lower = image.root().map_err(|error| format!("the image has no root directory: {error:?}"))?;
    let base = Base { image: lower, mark: mark_of(&config.image_root), limit };
    mount_root(config, &base)?;
    for mount in config.mounts.iter().filter(|mount| mount.target != "/") {
        add(mount, &base)?;
    }
    Ok(())
}

/// What mounts are made from.
struct Base {
    image: InodeRef,
    mark: u32,
    /// Bytes of file data in memory when the configuration gives no limit.
    limit: u64,
}

/// Tells this image's inode numbers from another's.
fn mark_of(root: &[u8; 32]) -> u32 {
    u32::from_le_bytes([root[0], root[1], root[2], root[3]])
}

fn memory_limit(config: &BootConfig) -> u64 {
    config.resource_limits.user_space_size.max(HeapUsage::now().limit as u64)
}

fn mount_root(config: &BootConfig, base: &Base) -> Result<(), Problem> {
    let no_root = |error: crate::error::Error| format!("no root file system: {error:?}");
    let store = config.mounts.iter().find_map(|mount| match &mount.kind {
        MountKind::Union { store } if mount.target == "/" => Some(store),
        _ => None,
    });
    let (fs, source): (Arc<dyn FileSystem>, &str) = match store {
        Some(store) => {
            let lower = Lower { root: base.image.clone(), mark: base.mark };
            (stores::open_sealed(store, Some(lower))?, &store.source)
        }
        None => (RamFs::over(base.image.clone(), base.limit).map_err(no_root)?, "image"),
    };
    mounts::mount_root(fs, String::from(source)).map(drop).map_err(no_root)
}

fn add(mount: &Mount, base: &Base) -> Result<(), Problem> {
    let target = &mount.target;
    let problem = |error: crate::error::Error| format!("can't mount {target}: {error:?}");
    let (fs, source): (Arc<dyn FileSystem>, &str) = match &mount.kind {
        MountKind::Ramfs { size_limit: 0 } => (RamFs::new(base.limit, 0o1777).map_err(problem)?, "tmpfs"),
        MountKind::Ramfs { size_limit } => (RamFs::new(*size_limit, 0o1777).map_err(problem)?, "tmpfs"),
        MountKind::Procfs => (Arc::new(ProcFs), "proc"),
        MountKind::Devfs => (dev::new(base.limit).map_err(problem)?, "devtmpfs"),
        MountKind::Hostfs { source } => (HostFs::new(source).map_err(problem)?, source),
        MountKind::Store { store } => (stores::open_sealed(store, None)?, &store.source),
        MountKind::Union { store } => {
            let root = image_dir(base, target).map_err(problem)?;
            (stores::open_sealed(store, Some(Lower { root, mark: base.mark }))?, &store.source)
        }
        MountKind::Root => return Ok(()),
    };
    let flags = MS_RELATIME | if fs.is_read_only() { MS_RDONLY } else { 0 };
    let dir = make_dir(target.as_bytes()).map_err(problem)?;
    mounts::mount(fs, dir, String::from(source), flags).map_err(problem)?;
    if matches!(mount.kind, MountKind::Procfs) && target == "/proc" {
        // What is read there goes with /proc, so the configuration need not name it.
        let flags = MS_NOSUID | MS_NOEXEC | MS_RELATIME;
        let dir = make_dir(b"/sys").map_err(problem)?;
        mounts::mount(Arc::new(SysFs), dir, String::from("sysfs"), flags).map_err(problem)?;
    }
    if matches!(mount.kind, MountKind::Devfs) {
        let dir = make_dir(format!("{target}/pts").as_bytes()).map_err(problem)?;
        let flags = MS_NOSUID | MS_NOEXEC | MS_RELATIME;
        mounts::mount(Arc::new(DevPts), dir, String::from("devpts"), flags).map_err(problem)?;
    }
    Ok(())
}

/// The image's directory `path`; an empty one where it has none.
fn image_dir(base: &Base, path: &str) -> crate::error::Result<InodeRef> {
    let mut at = base.image.clone();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match at.lookup(name.as_bytes()) {
            Ok(next) if next.kind() == Kind::Directory => at = next,
            _ => return RamFs::new(0, 0o755)?.root(),
        }
    }
    Ok(at)
}

/// The directory at `path`, made with what is missing above it.
fn make_dir(path: &[u8]) -> crate::error::Result<Path> {
    let mut at = mounts::root();
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        let child = {
            let _changes = at.dentry.changes.lock();
            match at.dentry.child_locked(name) {
                Ok(child) => child,
                Err(error) if error.errno == Errno::ENOENT => {
                    let new = NewNode { content: NewContent::Directory, mode: 0o755, uid: 0, gid: 0 };
                    let inode = at.inode().create(name, &new)?;
                    at.dentry.adopt(name, inode)
                }
                Err(error) => return Err(error),
            }
        };
        at = at.with(child).enter_mounts();
    }
    Ok(at)
}

/// Descriptors 0, 1 and 2 of a new program: the host's, or missing where those are closed.
pub fn standard_files(consoles: &[Option<Arc<Console>>; 3]) -> crate::error::Result<FileTable> {
    let table = FileTable::new();
    for (fd, (console, access)) in (0..).zip(consoles.iter().zip([O_RDONLY, O_WRONLY, O_WRONLY])) {
        if let Some(console) = console {
            let access = if console.is_terminal() { O_RDWR } else { access };
            table.replace(fd, OpenFile::new(console.clone(), access), OnExec::Keep)?;
        }
    }
    Ok(table)
}

/// Writes a file of the root before the first process runs (`/etc/hostname` and the like), unless it exists.
pub fn provide_file(path: &str, content: &[u8]) -> crate::error::Result<()> {
    let fs = FsContext::new();
    if walk::lookup(&fs, &Identity::ROOT, path.as_bytes()).is_ok() {
        return Ok(());
    }
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = make_dir(dir.as_bytes())?;
    let _changes = dir.dentry.changes.lock();
    let new = NewNode { content: NewContent::Regular, mode: 0o644, uid: 0, gid: 0 };
    let inode = dir.inode().create(name.as_bytes(), &new)?;
    let mut source = crate::vfs::Source::kernel(content);
    inode.write_at(crate::vfs::inode::Position::At(0), &mut source)?;
    dir.dentry.forget(name.as_bytes());
    Ok(())
}
