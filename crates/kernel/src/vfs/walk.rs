//! How a path finds its file: path_resolution(7).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::access::{self, Identity, MAY_EXEC};
use super::inode::{Kind, Link};
use super::mount::Path;
use super::context::FsContext;
use crate::error::{Errno, Result, err};

const MAX_LINKS: u32 = 40;
pub const NAME_MAX: usize = 255;
pub const PATH_MAX: usize = 4096;

/// What to do with a symbolic link that the whole path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    Follow,
    /// The link itself (lstat, O_NOFOLLOW, unlink).
    Keep,
}

/// What openat2(2) forbids on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolve(u64);

impl Resolve {
    const NO_XDEV: u64 = 1;
    const NO_MAGICLINKS: u64 = 2;
    const NO_SYMLINKS: u64 = 4;
    const BENEATH: u64 = 8;
    const IN_ROOT: u64 = 16;
    /// Everything is in memory, or found without waiting for long.
    const CACHED: u64 = 32;

    /// From RESOLVE_* bits; EINVAL.
    pub fn new(bits: u64) -> Result<Resolve> {
        let scopes = Resolve::BENEATH | Resolve::IN_ROOT;
        if bits > (Resolve::CACHED << 1) - 1 || bits & scopes == scopes {
            return err(Errno::EINVAL, "RESOLVE_ flags");
        }
        Ok(Resolve(bits))
    }

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// Whether even an absolute path stays below the directory.
    pub fn is_scoped(self) -> bool {
        self.has(Resolve::BENEATH | Resolve::IN_ROOT)
    }
}

/// From where and as whom a path is walked.
pub struct Walker<'a> {
    who: &'a Identity,
    root: Path,
    at: Path,
    /// What is left of the path from `position` on.
    rest: Vec<u8>,
    position: usize,
    links: u32,
    resolve: Resolve,
}

/// The directory that holds, or will hold, the last name of a path.
pub struct Parent {
    pub dir: Path,
    /// `.` and `..` possible, empty for `/`.
    pub name: Vec<u8>,
    /// The path ends with a slash: the name must be a directory.
    pub wants_dir: bool,
}

impl Parent {
    /// Whether the last name is one that can be created or removed.
    pub fn is_ordinary(&self) -> bool {
        !matches!(&self.name[..], b"" | b"." | b"..")
    }
}

impl<'a> Walker<'a> {
    /// A walk of `path` that starts at `start` (the working directory, a directory descriptor) if the path
    /// is relative. ENOENT for the empty path.
    pub fn new(fs: &FsContext, who: &'a Identity, start: Path, path: Vec<u8>) -> Result<Walker<'a>> {
        if path.is_empty() {
            return err(Errno::ENOENT, "empty path");
        }
        let root = fs.root();
        let at = if path[0] == b'/' { root.clone() } else { start };
        Ok(Walker { who, root, at, rest: path, position: 0, links: 0, resolve: Resolve::default() })
    }

    /// A walk that obeys `resolve`. A scope makes `start` the root of the walk.
    pub fn within(
        fs: &FsContext,
        who: &'a Identity,
        start: Path,
        path: Vec<u8>,
        resolve: Resolve,
    ) -> Result<Walker<'a>> {
        let is_absolute = path.first() == Some(&b'/');
        if is_absolute && resolve.has(Resolve::BENEATH) {
            return err(Errno::EXDEV, "an absolute path, RESOLVE_BENEATH");
        }
        let mut walker = Walker::new(fs, who, start.clone(), path)?;
        if resolve.is_scoped() {
            walker.root = start.clone();
            walker.at = start;
        }
        walker.resolve = resolve;
        Ok(walker)
    }

    /// EXDEV if going to `next` crosses a mount and must not.
    fn check_mount(&self, next: &Path) -> Result<()> {
        if self.resolve.has(Resolve::NO_XDEV) && !Arc::ptr_eq(&self.at.mount, &next.mount) {
            return err(Errno::EXDEV, "another mount, RESOLVE_NO_XDEV");
        }
        Ok(())
    }

    /// As whom it walks.
    pub fn who(&self) -> &'a Identity {
        self.who
    }

    /// Whether nothing is left to walk: a link led to an object.
    pub fn is_at_object(&self) -> bool {
        self.rest[self.position..].iter().all(|&byte| byte == b'/')
    }

    /// Walks to the object.
    pub fn walk(mut self, last: LastLink) -> Result<Path> {
        while let Some((name, is_last)) = self.next_name() {
            let child = self.step(name)?;
            let Some(child) = child else { continue };
            if child.dentry.kind() == Kind::Symlink {
                let keeps = is_last && last == LastLink::Keep && !self.ends_with_slash();
                if !keeps {
                    self.follow(&child)?;
                    continue;
                }
            }
            self.at = child;
        }
        self.require_dir_after_slash()?;
        Ok(self.at)
    }

    /// Walks to the directory of the last name. May be called again after [`Walker::follow`].
    pub fn parent(&mut self) -> Result<Parent> {
        loop {
            let Some((range, is_last)) = self.next_name() else {
                return Ok(Parent { dir: self.at.clone(), name: Vec::new(), wants_dir: true });
            };
            if is_last {
                self.require_search()?;
                let name = self.rest[range].to_vec();
                check_name(&name)?;
                return Ok(Parent { dir: self.at.clone(), name, wants_dir: self.ends_with_slash() });
            }
            let Some(child) = self.step(range)? else { continue };
            if child.dentry.kind() == Kind::Symlink {
                self.follow(&child)?;
            } else {
                self.at = child;
            }
        }
    }

    /// Goes on with what the symbolic link `link` leads to, then with the rest of the path.
    pub fn follow(&mut self, link: &Path) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return err(Errno::ELOOP, "more than 40 symbolic links");
        }
        if self.resolve.has(Resolve::NO_SYMLINKS) {
            return err(Errno::ELOOP, "a link, RESOLVE_NO_SYMLINKS");
        }
        match link.inode().read_link()? {
            Link::Object(_) if self.resolve.has(Resolve::NO_MAGICLINKS) => {
                return err(Errno::ELOOP, "a link of /proc, RESOLVE_NO_MAGICLINKS");
            }
            Link::Object(_) if self.resolve.is_scoped() => {
                return err(Errno::EXDEV, "a link of /proc leads anywhere");
            }
            Link::Object(path) => {
                self.check_mount(&path)?;
                self.at = path;
            }
            Link::Text(target) if target.is_empty() => return err(Errno::ENOENT, "empty link"),
            Link::Text(mut target) => {
                if target[0] == b'/' {
                    if self.resolve.has(Resolve::BENEATH) {
                        return err(Errno::EXDEV, "an absolute link, RESOLVE_BENEATH");
                    }
                    self.check_mount(&self.root)?;
                    self.at = self.root.clone();
                }
                target.extend_from_slice(&self.rest[self.position..]);
                self.rest = target;
                self.position = 0;
            }
        }
        Ok(())
    }

    /// The range of the next name in `rest`, and whether it is the last one.
    fn next_name(&mut self) -> Option<(core::ops::Range<usize>, bool)> {
        let rest = &self.rest;
        let start = (self.position..rest.len()).find(|&i| rest[i] != b'/')?;
        let end = (start..rest.len()).find(|&i| rest[i] == b'/').unwrap_or(rest.len());
        let is_last = rest[end..].iter().all(|&byte| byte == b'/');
        self.position = end;
        Some((start..end, is_last))
    }

    fn ends_with_slash(&self) -> bool {
        self.rest.last() == Some(&b'/')
    }

    /// One name from `at`: `.` and `..` move there, others give the child.
    fn step(&mut self, range: core::ops::Range<usize>) -> Result<Option<Path>> {
        self.require_search()?;
        let name = &self.rest[range];
        match name {
            b"." => Ok(None),
            b".." => {
                if self.resolve.has(Resolve::BENEATH) && self.at.is_same(&self.root) {
                    return err(Errno::EXDEV, "above the directory, RESOLVE_BENEATH");
                }
                let parent = self.at.parent(&self.root);
                self.check_mount(&parent)?;
                self.at = parent;
                Ok(None)
            }
            _ => {
                check_name(name)?;
                let child = self.at.dentry.child(name)?;
                let child = self.at.with(child).enter_mounts();
                self.check_mount(&child)?;
                Ok(Some(child))
            }
        }
    }

    fn require_search(&self) -> Result<()> {
        if !self.at.dentry.is_dir() {
            return err(Errno::ENOTDIR, "a directory of the path is none");
        }
        access::check(&**self.at.inode(), self.who, MAY_EXEC)
    }

    fn require_dir_after_slash(&self) -> Result<()> {
        if self.ends_with_slash() && !self.at.dentry.is_dir() {
            return err(Errno::ENOTDIR, "path ends with a slash");
        }
        Ok(())
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return err(Errno::ENAMETOOLONG, "name longer than 255 bytes");
    }
    Ok(())
}

/// Walks `path` from the working directory, following links: what `execve` and `open` start with.
pub fn lookup(fs: &FsContext, who: &Identity, path: &[u8]) -> Result<Path> {
    Walker::new(fs, who, fs.cwd(), path.to_vec())?.walk(LastLink::Follow)
}
