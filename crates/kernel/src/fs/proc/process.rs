//! Files about one process or thread: /proc/PID and /proc/PID/task/TID.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

use super::{Content, Node, Scope, descriptors, maps, number, stat, system};
use crate::error::{Errno, Error, Result, err};
use crate::mm;
use crate::process::credentials::Capability;
use crate::process::{self, Thread, inspect};
use crate::user::{self, UserAddr};
use crate::vfs::inode::{Kind, Link};
use crate::vfs::{FsContext, Identity, walk};

/// One name in a process's directory.
pub struct Entry {
    pub name: &'static str,
    pub mode: u32,
    what: What,
    /// Absent below `task/TID`.
    is_process_only: bool,
    /// Only below `task/TID`.
    is_thread_only: bool,
    /// For those who may look into the process (ptrace(2)).
    is_guarded: bool,
}

enum What {
    Text(fn(&Thread) -> Result<Vec<u8>>),
    Link(fn(&Thread) -> Result<Link>),
    Directory(Listing),
}

/// Directories whose names come from the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    Descriptors,
    DescriptorInfo,
    Tasks,
    Net,
}

const fn text(name: &'static str, make: fn(&Thread) -> Result<Vec<u8>>) -> Entry {
    Entry { name, mode: 0o444, what: What::Text(make), is_process_only: false, is_thread_only: false, is_guarded: false }
}

const fn link(name: &'static str, target: fn(&Thread) -> Result<Link>) -> Entry {
    Entry { name, mode: 0o777, what: What::Link(target), is_process_only: false, is_thread_only: false, is_guarded: false }
}

const fn directory(name: &'static str, mode: u32, listing: Listing) -> Entry {
    Entry { name, mode, what: What::Directory(listing), is_process_only: false, is_thread_only: false, is_guarded: false }
}

impl Entry {
    const fn writable(self) -> Entry {
        Entry { mode: 0o644, ..self }
    }

    const fn of_owner(self) -> Entry {
        Entry { mode: 0o400, is_guarded: true, ..self }
    }

    const fn of_owner_but_shown(self) -> Entry {
        Entry { is_guarded: true, ..self }
    }
}

static ENTRIES: [Entry; 45] = [
    text("auxv", auxv).of_owner(),
    text("autogroup", |_| line("/autogroup-1 nice 0")),
    text("cgroup", |_| line("0::/")),
    text("cmdline", |thread| user_range(thread, thread.process().program().args)),
    text("comm", comm).writable(),
    text("coredump_filter", |_| line("00000033")),
    text("cpuset", |_| line("/")),
    link("cwd", |thread| Ok(Link::Object(thread.fs().cwd()))),
    text("environ", |thread| user_range(thread, thread.process().program().env)).of_owner(),
    link("exe", exe),
    directory("fd", 0o500, Listing::Descriptors),
    directory("fdinfo", 0o555, Listing::DescriptorInfo),
    text("gid_map", |_| line(ALL_IDS)),
    text("io", io).of_owner(),
    text("limits", limits),
    text("loginuid", |_| Ok(b"4294967295".to_vec())),
    text("maps", maps::maps).of_owner_but_shown(),
    text("mountinfo", |_| Ok(system::mount_info().into_bytes())),
    text("mounts", |_| Ok(system::mounts().into_bytes())),
    directory("net", 0o555, Listing::Net),
    text("numa_maps", maps::numa_maps).of_owner_but_shown(),
    text("oom_adj", |thread| line(&format!("{}", oom_adjust(thread) * 17 / 1000))).writable(),
    text("oom_score", |_| line("0")),
    text("oom_score_adj", |thread| line(&format!("{}", oom_adjust(thread)))).writable(),
    text("personality", |thread| line(&format!("{:08x}", thread.process().personality.load(Ordering::Relaxed))))
        .of_owner(),
    text("projid_map", |_| line(ALL_IDS)),
    link("root", |thread| Ok(Link::Object(thread.fs().root()))),
    text("sched", comm),
    text("schedstat", |thread| line(&format!("{} 0 {}", thread.cpu_ns(), thread.usage().switches))),
    text("sessionid", |_| Ok(b"4294967295".to_vec())),
    text("setgroups", |_| line("allow")),
    text("smaps", maps::smaps).of_owner_but_shown(),
    text("smaps_rollup", maps::smaps_rollup).of_owner_but_shown(),
    text("stack", |_| Ok(Vec::new())).of_owner(),
    text("stat", |thread| stat::stat(thread.process(), Some(thread))),
    text("statm", stat::statm),
    text("status", |thread| stat::status(thread.process(), Some(thread))),
    text("syscall", |_| line("running")).of_owner(),
    text("timens_offsets", |_| line("monotonic           0         0\nboottime            0         0")),
    text("timers", |_| Ok(Vec::new())),
    text("timerslack_ns", |thread| line(&format!("{}", thread.timer_slack_ns.load(Ordering::Relaxed)))),
    text("uid_map", |_| line(ALL_IDS)),
    text("wchan", |_| Ok(b"0".to_vec())),
    Entry { is_thread_only: true, ..text("children", children) },
    Entry { is_process_only: true, ..directory("task", 0o555, Listing::Tasks) },
];

/// One user namespace: every id is itself.
const ALL_IDS: &str = "         0          0 4294967295";

/// The entries of a directory of `scope`.
pub fn entries(scope: Scope) -> impl Iterator<Item = &'static Entry> {
    let is_thread = scope.is_thread;
    ENTRIES.iter().filter(move |entry| !(if is_thread { entry.is_process_only } else { entry.is_thread_only }))
}

pub fn find(scope: Scope, name: &[u8]) -> Option<&'static Entry> {
    entries(scope).find(|entry| entry.name.as_bytes() == name).filter(|_| scope.exists())
}

/// A number for an entry, for its inode number.
pub fn index_of(entry: &'static Entry) -> u64 {
    ENTRIES.iter().position(|other| core::ptr::eq(other, entry)).unwrap_or(0) as u64
}

impl Entry {
    pub fn kind(&self) -> Kind {
        match self.what {
            What::Text(_) => Kind::Regular,
            What::Link(_) => Kind::Symlink,
            What::Directory(_) => Kind::Directory,
        }
    }

    pub fn content(&self, scope: Scope) -> Result<Content> {
        let Ok(thread) = scope.thread() else { return self.of_zombie(scope) };
        let is_link = matches!(self.what, What::Link(_));
        if is_link || self.is_guarded {
            check_may_look(&thread)?;
        }
        match self.what {
            What::Text(make) => Ok(Content::Text(make(&thread)?)),
            What::Link(target) => Ok(Content::Link(target(&thread)?)),
            What::Directory(_) => Ok(Content::Directory),
        }
    }

    /// What is left to say of a process that has ended and was not waited for.
    fn of_zombie(&self, scope: Scope) -> Result<Content> {
        let process = process::find_process(scope.pid).filter(|_| !scope.is_thread);
        let Some(process) = process else { return err(Errno::ESRCH, "the process has ended") };
        match self.name {
            "stat" => Ok(Content::Text(stat::stat(&process, None)?)),
            "status" => Ok(Content::Text(stat::status(&process, None)?)),
            "comm" => Ok(Content::Text(line(&stat::name_of(&process.name()))?)),
            "cmdline" | "environ" | "maps" | "smaps" => Ok(Content::Text(Vec::new())),
            "statm" => Ok(Content::Text(line("0 0 0 0 0 0 0")?)),
            _ => err(Errno::ESRCH, "the process has ended"),
        }
    }

    pub fn write(&self, scope: Scope, text: &[u8]) -> Result<()> {
        let thread = scope.thread()?;
        match self.name {
            "comm" => {
                let name = text.strip_suffix(b"\n").unwrap_or(text);
                thread.set_name(name);
                Ok(())
            }
            "oom_score_adj" => set_oom_adjust(&thread, text, 1000),
            "oom_adj" => set_oom_adjust(&thread, text, 17),
            _ => err(Errno::EACCES, "read-only"),
        }
    }

    /// The object called `name`, if this is a directory that has it.
    pub fn lookup(&'static self, scope: Scope, name: &[u8]) -> Option<Node> {
        let What::Directory(listing) = self.what else { return None };
        let number = number(name)?;
        match listing {
            Listing::Descriptors | Listing::DescriptorInfo => {
                let fd = i32::try_from(number).ok()?;
                scope.thread().ok()?.files().get(fd).ok()?;
                Some(match listing {
                    Listing::Descriptors => Node::Descriptor(scope, fd),
                    _ => Node::DescriptorInfo(scope, fd),
                })
            }
            Listing::Tasks => {
                let task = Scope { pid: scope.pid, tid: number, is_thread: true };
                task.exists().then_some(Node::Process(task))
            }
            Listing::Net => None,
        }
    }

    /// The names in this directory.
    pub fn names(&'static self, scope: Scope) -> Result<Vec<(String, Node)>> {
        let What::Directory(listing) = self.what else {
            return err(Errno::ENOTDIR, "not a directory");
        };
        let thread = scope.thread()?;
        Ok(match listing {
            Listing::Descriptors => {
                descriptors::all(&thread, |fd| Node::Descriptor(scope, fd))
            }
            Listing::DescriptorInfo => {
                descriptors::all(&thread, |fd| Node::DescriptorInfo(scope, fd))
            }
            Listing::Tasks => thread
                .process()
                .threads()
                .iter()
                .map(|thread| {
                    let tid = thread.tid();
                    let task = Scope { pid: scope.pid, tid, is_thread: true };
                    (format!("{tid}"), Node::Process(task))
                })
                .collect(),
            Listing::Net => Vec::new(),
        })
    }
}

fn oom_adjust(thread: &Thread) -> i32 {
    thread.process().oom_score_adj.load(Ordering::Relaxed)
}

/// A number from `-limit` to `limit`. Who may lower it: CAP_SYS_RESOURCE.
fn set_oom_adjust(thread: &Thread, text: &[u8], limit: i32) -> Result<()> {
    let value = core::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let Some(value) = value.filter(|value| (-limit..=limit).contains(value)) else {
        return err(Errno::EINVAL, "not a score");
    };
    let value = value * 1000 / limit;
    let may_lower = process::current().is_none_or(|me| me.credentials().has(Capability::SysResource));
    if value < oom_adjust(thread) && !may_lower {
        return err(Errno::EACCES, "CAP_SYS_RESOURCE");
    }
    thread.process().oom_score_adj.store(value, Ordering::Relaxed);
    Ok(())
}

fn line(text: &str) -> Result<Vec<u8>> {
    Ok(format!("{text}\n").into_bytes())
}

fn comm(thread: &Thread) -> Result<Vec<u8>> {
    line(&stat::name_of(&thread.name()))
}

/// EACCES for another user's process.
fn check_may_look(target: &Thread) -> Result<()> {
    let Some(me) = process::current() else { return Ok(()) };
    inspect::check_may_inspect(&me, target).map_err(|_| Error::new(Errno::EACCES, "another user's process"))
}

/// The ids of the children a thread's process has, as CONFIG_PROC_CHILDREN shows them.
fn children(thread: &Thread) -> Result<Vec<u8>> {
    let process = thread.process();
    let mut text = String::new();
    if thread.tid() == process.pid() {
        for child in process::tree::children(process.pid()) {
            let _ = write!(text, "{child} ");
        }
    }
    Ok(text.into_bytes())
}

/// Bytes of the process's memory; empty if it is about to end.
fn user_range(thread: &Thread, (start, end): (usize, usize)) -> Result<Vec<u8>> {
    /// Arguments and environment beyond this are cut.
    const MAX: usize = 2 << 20;
    let size = end.saturating_sub(start).min(MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| Error::new(Errno::ENOMEM, "contents"))?;
    bytes.resize(size, 0);
    let is_own = process::current().is_some_and(|me| Arc::ptr_eq(me.space(), thread.space()));
    let read = match is_own {
        true => user::read_bytes(UserAddr(start), &mut bytes),
        false => mm::within(thread.space(), || user::read_bytes(UserAddr(start), &mut bytes)),
    };
    if thread.process().is_ending() || read.is_err() {
        bytes.clear();
    }
    Ok(bytes)
}

fn auxv(thread: &Thread) -> Result<Vec<u8>> {
    Ok(thread.process().program().auxv.iter().flat_map(|word| word.to_le_bytes()).collect())
}

fn exe(thread: &Thread) -> Result<Link> {
    let path: Arc<Vec<u8>> = thread.process().program().path;
    match walk::lookup(&FsContext::new(), &Identity::ROOT, &path) {
        Ok(place) => Ok(Link::Object(place)),
        Err(_) => Ok(Link::Text([&path[..], b" (deleted)"].concat())),
    }
}

fn io(_: &Thread) -> Result<Vec<u8>> {
    Ok(b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n".to_vec())
}

/// Name, unit, as in /proc/PID/limits; the position is the number of the resource.
const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

fn limits(thread: &Thread) -> Result<Vec<u8>> {
    let shown = |value: u64| match value {
        u64::MAX => String::from("unlimited"),
        value => format!("{value}"),
    };
    let mut text = format!("{:<26}{:<21}{:<21}{:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (number, (name, unit)) in (0..).zip(LIMITS) {
        let Some(resource) = process::Resource::new(number) else { continue };
        let limit = thread.process().limit(resource);
        let _ = writeln!(text, "{name:<26}{:<21}{:<21}{unit:<10}", shown(limit.soft), shown(limit.hard));
    }
    Ok(text.into_bytes())
}
