//! Files about one process or thread: /proc/PID and /proc/PID/task/TID.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

use super::{Content, Node, Scope, descriptors, number, system};
use crate::error::{Errno, Error, Result, err};
use crate::mm::{Mapping, Prot};
use crate::process::credentials::Capability;
use crate::process::{self, Thread, usage};
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
    Entry { name, mode: 0o444, what: What::Text(make), is_process_only: false }
}

const fn link(name: &'static str, target: fn(&Thread) -> Result<Link>) -> Entry {
    Entry { name, mode: 0o777, what: What::Link(target), is_process_only: false }
}

const fn directory(name: &'static str, mode: u32, listing: Listing) -> Entry {
    Entry { name, mode, what: What::Directory(listing), is_process_only: false }
}

impl Entry {
    const fn writable(self) -> Entry {
        Entry { mode: 0o644, ..self }
    }
}

static ENTRIES: [Entry; 29] = [
    text("auxv", auxv),
    text("cgroup", |_| line("0::/")),
    text("cmdline", |thread| user_range(thread, thread.process().program().args)),
    text("comm", comm).writable(),
    link("cwd", |thread| Ok(Link::Object(thread.fs().cwd()))),
    text("environ", |thread| user_range(thread, thread.process().program().env)),
    link("exe", exe),
    directory("fd", 0o500, Listing::Descriptors),
    directory("fdinfo", 0o555, Listing::DescriptorInfo),
    text("io", io),
    text("limits", limits),
    text("loginuid", |_| Ok(b"4294967295".to_vec())),
    text("maps", maps),
    text("mountinfo", |_| Ok(system::mount_info().into_bytes())),
    text("mounts", |_| Ok(system::mounts().into_bytes())),
    directory("net", 0o555, Listing::Net),
    text("oom_adj", |thread| line(&format!("{}", oom_adjust(thread) * 17 / 1000))).writable(),
    text("oom_score", |_| line("0")),
    text("oom_score_adj", |thread| line(&format!("{}", oom_adjust(thread)))).writable(),
    text("personality", |_| line("00000000")),
    link("root", |thread| Ok(Link::Object(thread.fs().root()))),
    text("sched", comm),
    text("schedstat", |thread| line(&format!("{} 0 0", thread.cpu_ns()))),
    text("setgroups", |_| line("allow")),
    text("smaps", smaps),
    text("stat", stat),
    text("statm", statm),
    text("status", status),
    Entry { is_process_only: true, ..directory("task", 0o555, Listing::Tasks) },
];

/// The entries of a directory of `scope`.
pub fn entries(scope: Scope) -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().filter(move |entry| !(scope.is_thread && entry.is_process_only))
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
        let thread = scope.thread()?;
        match self.what {
            What::Text(make) => Ok(Content::Text(make(&thread)?)),
            What::Link(target) => Ok(Content::Link(target(&thread)?)),
            What::Directory(_) => Ok(Content::Directory),
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

/// `comm` without its padding.
fn name_of(thread: &Thread) -> String {
    let name = thread.name();
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

fn comm(thread: &Thread) -> Result<Vec<u8>> {
    line(&name_of(thread))
}

/// Bytes of the process's memory; empty if they are another process's, which the kernel reads only as
/// that process.
fn user_range(thread: &Thread, (start, end): (usize, usize)) -> Result<Vec<u8>> {
    /// Arguments and environment beyond this are cut.
    const MAX: usize = 2 << 20;
    let size = end.saturating_sub(start).min(MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| Error::new(Errno::ENOMEM, "contents"))?;
    bytes.resize(size, 0);
    // All processes live in one address space, each at its own addresses.
    if thread.process().is_ending() || user::read_bytes(UserAddr(start), &mut bytes).is_err() {
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

fn all_mappings(thread: &Thread) -> Vec<Mapping> {
    let mut all = vec![];
    thread.space().for_each_mapping(|mapping| all.push(mapping.clone()));
    all
}

fn append_mapping(text: &mut String, mapping: &Mapping) {
    let bit = |prot, letter| if mapping.prot.contains(prot) { letter } else { '-' };
    let start = text.len();
    let _ = write!(
        text,
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        mapping.start,
        mapping.end,
        bit(Prot::READ, 'r'),
        bit(Prot::WRITE, 'w'),
        bit(Prot::EXEC, 'x'),
        if mapping.is_shared { 's' } else { 'p' },
        mapping.offset,
        mapping.file.dev >> 8,
        mapping.file.dev & 0xff,
        mapping.file.ino,
    );
    if !mapping.name.is_empty() {
        // Linux puts names in column 73.
        while text.len() - start < 73 {
            text.push(' ');
        }
        text.push_str(&mapping.name);
    }
    text.push('\n');
}

fn maps(thread: &Thread) -> Result<Vec<u8>> {
    let mut text = String::new();
    all_mappings(thread).iter().for_each(|mapping| append_mapping(&mut text, mapping));
    Ok(text.into_bytes())
}

fn smaps(thread: &Thread) -> Result<Vec<u8>> {
    let mut text = String::new();
    for mapping in all_mappings(thread) {
        append_mapping(&mut text, &mapping);
        let resident = mapping.resident / 1024;
        let _ = write!(
            text,
            "Size:           {:>8} kB\nKernelPageSize: {:>8} kB\nMMUPageSize:    {:>8} kB\n\
             Rss:            {resident:>8} kB\nPss:            {resident:>8} kB\n\
             Private_Dirty:  {resident:>8} kB\nSwap:           {:>8} kB\n",
            (mapping.end - mapping.start) / 1024, 4, 4, 0,
        );
    }
    Ok(text.into_bytes())
}

fn state_of(thread: &Thread) -> (char, &'static str) {
    if thread.process().signals().lock().stop.is_some() {
        ('T', "stopped")
    } else if thread.is_sleeping() {
        ('S', "sleeping")
    } else {
        ('R', "running")
    }
}

/// /proc/PID/stat: 52 numbers, proc_pid_stat(5).
fn stat(thread: &Thread) -> Result<Vec<u8>> {
    let process = thread.process();
    let space = thread.space().usage();
    let used = process.usage();
    let children = process.children_usage();
    let program = process.program();
    let mut text = format!("{} ({}) {} ", thread.tid(), name_of(thread), state_of(thread).0);
    let fields: [u64; 49] = [
        process.ppid().into(),
        process.pgid().into(),
        process.sid().into(),
        0, // no controlling terminal
        u64::MAX,
        0,
        used.minor_faults,
        children.minor_faults,
        used.major_faults,
        children.major_faults,
        usage::ns_to_ticks(used.cpu_ns),
        0,
        usage::ns_to_ticks(children.cpu_ns),
        0,
        20,
        0,
        process.thread_count() as u64,
        0,
        usage::ns_to_ticks(process.start_ns()),
        space.mapped as u64,
        (space.resident / 4096) as u64,
        u64::MAX,
        0,
        0,
        program.stack as u64,
        0,
        0,
        0,
        thread.signals().blocked().0 & 0x7fff_ffff,
        0,
        0,
        0,
        0,
        0,
        17, // SIGCHLD
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        program.args.0 as u64,
        program.args.1 as u64,
        program.env.0 as u64,
        program.env.1 as u64,
        0,
    ];
    for (index, field) in fields.iter().enumerate() {
        // tpgid is the only one shown as a negative number.
        let _ = if index == 4 { write!(text, "-1 ") } else { write!(text, "{field} ") };
    }
    text.pop();
    line(&text)
}

fn statm(thread: &Thread) -> Result<Vec<u8>> {
    let space = thread.space().usage();
    let pages = |bytes: usize| bytes / 4096;
    line(&format!(
        "{} {} 0 {} 0 {} 0",
        pages(space.mapped),
        pages(space.resident),
        pages(space.text),
        pages(space.data + space.stack),
    ))
}

fn status(thread: &Thread) -> Result<Vec<u8>> {
    let process = thread.process();
    let credentials = thread.credentials();
    let (letter, word) = state_of(thread);
    let space = thread.space().usage();
    let ids = |ids: crate::process::credentials::Ids| {
        format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.fs)
    };
    let groups: String = credentials.groups.iter().map(|group| format!("{group} ")).collect();
    let kib = |bytes: usize| format!("{:>8} kB", bytes / 1024);
    let mut text = String::new();
    let rows = [
        ("Name", name_of(thread)),
        ("Umask", format!("{:04o}", thread.fs().umask())),
        ("State", format!("{letter} ({word})")),
        ("Tgid", format!("{}", process.pid())),
        ("Ngid", String::from("0")),
        ("Pid", format!("{}", thread.tid())),
        ("PPid", format!("{}", process.ppid())),
        ("TracerPid", String::from("0")),
        ("Uid", ids(credentials.user)),
        ("Gid", ids(credentials.group)),
        ("FDSize", format!("{}", thread.files().capacity())),
        ("Groups", groups),
        ("VmPeak", kib(space.mapped)),
        ("VmSize", kib(space.mapped)),
        ("VmLck", kib(space.locked)),
        ("VmPin", kib(0)),
        ("VmHWM", kib(space.resident)),
        ("VmRSS", kib(space.resident)),
        ("RssAnon", kib(space.resident)),
        ("RssFile", kib(0)),
        ("RssShmem", kib(0)),
        ("VmData", kib(space.data)),
        ("VmStk", kib(space.stack)),
        ("VmExe", kib(space.text)),
        ("VmLib", kib(0)),
        ("VmPTE", kib(0)),
        ("VmSwap", kib(0)),
        ("Threads", format!("{}", process.thread_count())),
        ("SigBlk", format!("{:016x}", thread.signals().blocked().0)),
        ("CapInh", format!("{:016x}", credentials.inheritable)),
        ("CapPrm", format!("{:016x}", credentials.permitted)),
        ("CapEff", format!("{:016x}", credentials.effective)),
        ("CapBnd", format!("{:016x}", credentials.bounding)),
        ("CapAmb", format!("{:016x}", credentials.ambient)),
        ("NoNewPrivs", String::from("0")),
        ("Seccomp", String::from("0")),
        ("Cpus_allowed", format!("{:x}", (1u64 << occlum_enclave::vcpu::count().min(63)) - 1)),
        ("Cpus_allowed_list", cpu_list()),
        ("voluntary_ctxt_switches", format!("{}", thread.usage().switches)),
        ("nonvoluntary_ctxt_switches", String::from("0")),
    ];
    for (name, value) in rows {
        let _ = writeln!(text, "{name}:\t{value}");
    }
    Ok(text.into_bytes())
}

fn cpu_list() -> String {
    match occlum_enclave::vcpu::count() {
        1 => String::from("0"),
        count => format!("0-{}", count - 1),
    }
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
