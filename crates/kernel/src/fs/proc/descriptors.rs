//! /proc/PID/fd and fdinfo.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Node, Scope};
use crate::error::Result;
use crate::process::Thread;
use crate::vfs::{OpenFile, anonymous};
use crate::vfs::flags::O_CLOEXEC;
use crate::vfs::inode::Link;
use crate::vfs::table::OnExec;

fn file(scope: Scope, fd: i32) -> Result<Arc<OpenFile>> {
    scope.thread()?.files().get(fd)
}

/// All descriptors as directory entries.
pub fn all(thread: &Thread, node: impl Fn(i32) -> Node) -> Vec<(String, Node)> {
    thread.files().fds().into_iter().map(|fd| (format!("{fd}"), node(fd))).collect()
}

/// A file with a name leads there, whatever became of the name; others only show what they are.
pub fn link(scope: Scope, fd: i32) -> Result<Link> {
    let file = file(scope, fd)?;
    Ok(match file.path() {
        Some(path) => Link::Object(path.clone()),
        None => Link::Object(anonymous::place_of(file)),
    })
}

/// Read and write permission show how it was opened.
pub fn link_mode(scope: Scope, fd: i32) -> u32 {
    file(scope, fd).map_or(0, |file| {
        0o100
            | if file.is_readable() { 0o400 } else { 0 }
            | if file.is_writable() { 0o200 } else { 0 }
    })
}

pub fn info(scope: Scope, fd: i32) -> Result<String> {
    let file = file(scope, fd)?;
    let closes = scope.thread()?.files().on_exec(fd)? == OnExec::Close;
    let flags = file.flags() | if closes { O_CLOEXEC } else { 0 };
    let mount = file.path().map_or(0, |path| path.mount.id);
    let offset = if file.file().is_seekable() { file.offset() } else { 0 };
    let ino = file.file().attr()?.ino;
    let rest = file.file().describe();
    Ok(format!("pos:\t{offset}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{ino}\n{rest}"))
}
