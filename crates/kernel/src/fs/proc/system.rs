//! Files about the whole system.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use occlum_enclave::{HeapUsage, pages::Pages, time, vcpu};
use spin::Once;

use super::Content;
use crate::error::{Errno, Result, err};
use crate::fs::cache;
use crate::mm;
use crate::process;
use crate::process::system::{RELEASE, VERSION};
use crate::random;
use crate::sched::{self, load};
use crate::vfs::inode::{Kind, Link};
use crate::fs::options;
use crate::vfs::{self, Mount, mounts, pipe, table};

/// One name below /proc that belongs to no process.
pub struct Entry {
    pub name: &'static str,
    pub mode: u32,
    what: What,
}

enum What {
    Text(fn() -> String),
    /// Always the same, without the newline.
    Fixed(&'static str),
    Link(fn() -> String),
    Directory(&'static [Entry]),
}

pub(super) const fn text(name: &'static str, make: fn() -> String) -> Entry {
    Entry { name, mode: 0o444, what: What::Text(make) }
}

pub(super) const fn fixed(name: &'static str, value: &'static str) -> Entry {
    Entry { name, mode: 0o444, what: What::Fixed(value) }
}

const fn link(name: &'static str, target: fn() -> String) -> Entry {
    Entry { name, mode: 0o777, what: What::Link(target) }
}

pub(super) const fn directory(name: &'static str, entries: &'static [Entry]) -> Entry {
    Entry { name, mode: 0o555, what: What::Directory(entries) }
}


pub static ROOT: [Entry; 25] = [
    text("cmdline", || String::from("occlum\n")),
    text("cpuinfo", cpuinfo),
    text("devices", || String::from("Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n")),
    text("filesystems", filesystems),
    text("loadavg", loadavg),
    text("meminfo", meminfo),
    text("stat", stat),
    text("swaps", || String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
    text("uptime", uptime),
    text("version", version),
    text("vmstat", vmstat),
    link("mounts", || String::from("self/mounts")),
    link("net", || String::from("self/net")),
    link("self", || format!("{}", current_ids().0)),
    link("thread-self", || format!("{0}/task/{1}", current_ids().0, current_ids().1)),
    directory("sys", &SYS),
    fixed("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled"),
    text("consoles", String::new),
    text("diskstats", String::new),
    text("execdomains", || String::from("0-0\tLinux           \t[kernel]\n")),
    text("interrupts", String::new),
    text("locks", locks),
    text("misc", String::new),
    text("modules", String::new),
    text("partitions", || String::from("major minor  #blocks  name\n\n")),
];

static SYS: [Entry; 4] = [
    directory("fs", &SYS_FS),
    directory("kernel", &SYS_KERNEL),
    directory("net", &SYS_NET),
    directory("vm", &SYS_VM),
];

static SYS_FS: [Entry; 13] = [
    text("file-max", || format!("{}\n", i64::MAX)),
    fixed("file-nr", "0\t0\t9223372036854775807"),
    text("nr_open", || format!("{}\n", table::MAX_LIMIT)),
    text("pipe-max-size", || format!("{}\n", pipe::MAX_CAPACITY)),
    fixed("pipe-user-pages-soft", "16384"),
    fixed("protected_hardlinks", "0"),
    fixed("protected_symlinks", "0"),
    directory("inotify", &SYS_FS_INOTIFY),
    fixed("aio-max-nr", "65536"),
    fixed("aio-nr", "0"),
    directory("mqueue", &SYS_FS_MQUEUE),
    fixed("overflowgid", "65534"),
    fixed("overflowuid", "65534"),
];

static SYS_FS_INOTIFY: [Entry; 3] = [
    fixed("max_queued_events", "16384"),
    fixed("max_user_instances", "128"),
    fixed("max_user_watches", "65536"),
];

static SYS_KERNEL: [Entry; 35] = [
    fixed("cap_last_cap", "40"),
    fixed("core_pattern", "core"),
    fixed("core_uses_pid", "0"),
    fixed("domainname", "(none)"),
    text("hostname", || format!("{}\n", String::from_utf8_lossy(&process::system::hostname()))),
    fixed("msgmax", "8192"),
    fixed("ngroups_max", "65536"),
    fixed("osrelease", RELEASE),
    fixed("ostype", "Linux"),
    fixed("overflowgid", "65534"),
    fixed("overflowuid", "65534"),
    fixed("perf_event_paranoid", "4"),
    fixed("pid_max", "4194304"),
    directory("random", &SYS_KERNEL_RANDOM),
    fixed("randomize_va_space", "0"),
    fixed("sched_autogroup_enabled", "0"),
    fixed("tainted", "0"),
    text("threads-max", || format!("{}\n", process::tree::max_threads())),
    fixed("version", VERSION),
    fixed("dmesg_restrict", "1"),
    fixed("kptr_restrict", "1"),
    fixed("modules_disabled", "1"),
    fixed("msgmnb", "16384"),
    fixed("msgmni", "32000"),
    text("ns_last_pid", || format!("{}\n", process::tree::last_id())),
    fixed("panic", "0"),
    fixed("printk", "4\t4\t1\t7"),
    directory("pty", &SYS_KERNEL_PTY),
    fixed("sched_child_runs_first", "0"),
    fixed("sched_rr_timeslice_ms", "100"),
    fixed("sem", "32000\t1024000000\t500\t32000"),
    fixed("shmall", "18446744073692774399"),
    fixed("shmmax", "18446744073692774399"),
    fixed("shmmni", "4096"),
    fixed("unprivileged_bpf_disabled", "2"),
];

static SYS_KERNEL_PTY: [Entry; 2] = [fixed("max", "4096"), fixed("nr", "0")];

static SYS_FS_MQUEUE: [Entry; 5] = [
    fixed("msg_default", "10"),
    fixed("msg_max", "10"),
    fixed("msgsize_default", "8192"),
    fixed("msgsize_max", "8192"),
    fixed("queues_max", "256"),
];

static SYS_KERNEL_RANDOM: [Entry; 4] = [
    text("boot_id", || format!("{}\n", boot_id())),
    fixed("entropy_avail", "256"),
    fixed("poolsize", "256"),
    text("uuid", || format!("{}\n", new_uuid())),
];

static SYS_NET: [Entry; 2] = [directory("core", &SYS_NET_CORE), directory("ipv4", &SYS_NET_IPV4)];

static SYS_NET_CORE: [Entry; 5] = [
    fixed("rmem_default", "212992"),
    fixed("rmem_max", "212992"),
    fixed("somaxconn", "4096"),
    fixed("wmem_default", "212992"),
    fixed("wmem_max", "212992"),
];

static SYS_NET_IPV4: [Entry; 4] = [
    fixed("ip_local_port_range", "32768\t60999"),
    fixed("tcp_fin_timeout", "60"),
    fixed("tcp_keepalive_time", "7200"),
    fixed("tcp_max_syn_backlog", "512"),
];

static SYS_VM: [Entry; 7] = [
    fixed("max_map_count", "65530"),
    fixed("mmap_min_addr", "65536"),
    fixed("nr_hugepages", "0"),
    fixed("overcommit_memory", "1"),
    fixed("overcommit_ratio", "50"),
    fixed("swappiness", "0"),
    fixed("vfs_cache_pressure", "100"),
];

impl Entry {
    pub fn kind(&self) -> Kind {
        match self.what {
            What::Text(_) | What::Fixed(_) => Kind::Regular,
            What::Link(_) => Kind::Symlink,
            What::Directory(_) => Kind::Directory,
        }
    }

    pub fn children(&self) -> &'static [Entry] {
        match self.what {
            What::Directory(entries) => entries,
            _ => &[],
        }
    }

    pub fn content(&self) -> Result<Content> {
        Ok(match self.what {
            What::Text(make) => Content::Text(make().into_bytes()),
            What::Fixed(value) => Content::Text(format!("{value}\n").into_bytes()),
            What::Link(target) => Content::Link(Link::Text(target().into_bytes())),
            What::Directory(_) => Content::Directory,
        })
    }

    pub fn write(&self, _text: &[u8]) -> Result<()> {
        err(Errno::EACCES, "a fixed setting")
    }
}

/// Process and thread that ask; 0 for the kernel itself.
fn current_ids() -> (u32, u32) {
    process::current().map_or((0, 0), |thread| (thread.process().pid(), thread.tid()))
}

fn version() -> String {
    format!("Linux version {} {}\n", RELEASE, VERSION)
}

fn uptime() -> String {
    let shown = |ns: u64| format!("{}.{:02}", ns / 1_000_000_000, ns / 10_000_000 % 100);
    format!("{} {}\n", shown(time::monotonic_ns()), shown(idle_ns()))
}

/// Time that vCPUs spent without a task of a program.
fn idle_ns() -> u64 {
    (time::monotonic_ns() * vcpu::count() as u64).saturating_sub(process::usage::of_all().cpu_ns)
}

fn loadavg() -> String {
    let count = process::tree::thread_count();
    let [one, five, fifteen] = load::averages().map(load::show);
    let active = sched::run::active_tasks() + 1;
    format!("{one} {five} {fifteen} {active}/{count} {}\n", process::tree::last_id())
}

fn meminfo() -> String {
    let user = mm::Usage::now();
    let heap = HeapUsage::now();
    let total = (user.limit + heap.limit) / 1024;
    let free = (user.limit.saturating_sub(user.granted)) / 1024;
    let cached = cache::bytes() / 1024;
    let mut text = String::new();
    let rows = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", cached),
        ("SwapCached", 0),
        ("Active", user.granted / 1024),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", user.granted / 1024),
        ("Mapped", 0),
        ("Shmem", Pages::in_use().saturating_sub(cache::bytes()) / 1024),
        ("Slab", heap.size / 1024),
        ("CommitLimit", total),
        ("Committed_AS", user.granted / 1024),
        ("VmallocTotal", 0),
        ("HugePages_Total", 0),
        ("Hugepagesize", 2048),
    ];
    for (name, value) in rows {
        let unit = if name == "HugePages_Total" { "" } else { " kB" };
        // Writing to a String can't fail.
        let _ = writeln!(text, "{:<16}{value:>8}{unit}", format!("{name}:"));
    }
    text
}

fn vmstat() -> String {
    let user = mm::Usage::now();
    format!("nr_free_pages {}\nnr_anon_pages {}\n", (user.limit - user.granted.min(user.limit)) / 4096, user.granted / 4096)
}

/// No CPUID here: the model is the enclave's own, flags are those of baseline x86-64.
fn cpuinfo() -> String {
    let mut text = String::new();
    let mhz = time::clock_params().map_or(0, |params| (1000u64 << 32) / u64::from(params.mult.max(1)));
    for index in 0..vcpu::count() {
        let _ = write!(
            text,
            "processor\t: {index}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 0\n\
             model name\t: Occlum vCPU\nstepping\t: 0\ncpu MHz\t\t: {mhz}.000\ncache size\t: 0 KB\n\
             physical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {index}\ncpu cores\t: {count}\n\
             fpu\t\t: yes\nfpu_exception\t: yes\nwp\t\t: yes\n\
             flags\t\t: fpu tsc cx8 cmov mmx fxsr sse sse2 syscall nx lm rep_good nopl rdrand\n\
             clflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: 46 bits physical, 48 bits virtual\n\n",
            count = vcpu::count(),
        );
    }
    text
}

/// Which vCPU did what is not known: each is shown with its share.
fn stat() -> String {
    let used = process::usage::of_all();
    let count = vcpu::count().max(1) as u64;
    let shown = |part: u64| {
        let ticks = |ns: u64| process::usage::ns_to_ticks(ns / part);
        format!("{} 0 {} {} 0 0 0 0 0 0", ticks(used.user_ns()), ticks(used.system_ns), ticks(idle_ns()))
    };
    let mut text = format!("cpu  {}\n", shown(1));
    for index in 0..count {
        let _ = writeln!(text, "cpu{index} {}", shown(count));
    }
    let boot_s = time::realtime_ns().saturating_sub(time::monotonic_ns()) / 1_000_000_000;
    let _ = write!(
        text,
        "intr 0\nctxt {}\nbtime {boot_s}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\n",
        used.switches,
        process::tree::made(),
        sched::run::active_tasks() + 1,
    );
    text
}

/// Record locks, proc_locks(5).
fn locks() -> String {
    let mut text = String::new();
    for (number, ((dev, ino), lock)) in (1..).zip(vfs::locks::all()) {
        let family = match (lock.family, lock.owner) {
            (vfs::locks::Family::Flock, _) => "FLOCK ",
            (_, vfs::locks::Owner::Open(_)) => "OFDLCK",
            _ => "POSIX ",
        };
        let mode = if lock.mode == vfs::locks::Mode::Shared { "READ " } else { "WRITE" };
        let pid = match lock.owner {
            vfs::locks::Owner::Process { pid, .. } => i64::from(pid),
            vfs::locks::Owner::Open(_) => -1,
        };
        let end = if lock.end == u64::MAX { String::from("EOF") } else { format!("{}", lock.end - 1) };
        let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff);
        let _ = writeln!(
            text,
            "{number}: {family} ADVISORY  {mode} {pid} {major:02x}:{minor:02x}:{ino} {} {end}",
            lock.start
        );
    }
    text
}

fn filesystems() -> String {
    let names = ["proc", "tmpfs", "ramfs", "devtmpfs", "overlay", "hostfs", "sefs", "unionfs"];
    names.iter().map(|name| format!("nodev\t{name}\n")).collect()
}

/// /proc/mounts in the format of fstab(5).
pub fn mounts() -> String {
    let mut text = String::new();
    for mount in mounts::all() {
        let (target, flags) = (target_of(&mount), options::shown(&mount));
        let source = escaped(mount.source.as_bytes());
        let _ = writeln!(text, "{source} {target} {} {flags}{} 0 0", mount.fs.name(), own_options(&mount));
    }
    text
}

/// /proc/PID/mountinfo.
pub fn mount_info() -> String {
    let mut text = String::new();
    for mount in mounts::all() {
        let (target, flags) = (target_of(&mount), options::shown(&mount));
        let parent = mount.on().map_or(0, |on| on.mount.id);
        let dev = mount.root.inode().attr().map_or(0, |attr| attr.dev);
        let root = escaped(&root_in_fs(&mount));
        let access = if mount.fs.is_read_only() { "ro" } else { "rw" };
        let (name, source) = (mount.fs.name(), escaped(mount.source.as_bytes()));
        let own = own_options(&mount);
        let _ = writeln!(
            text,
            "{} {parent} 0:{dev} {root} {target} {flags} - {name} {source} {access}{own}",
            mount.id,
        );
    }
    text
}

fn own_options(mount: &Mount) -> String {
    let own = mount.fs.options();
    if own.is_empty() { own } else { format!(",{own}") }
}

fn target_of(mount: &Mount) -> String {
    escaped(&mount.on().map_or(Vec::from(*b"/"), |on| on.name(&mounts::root()).text))
}

/// The mount's root as a path in its file system: not `/` for a bind mount of a part.
fn root_in_fs(mount: &Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.root.clone();
    while let Some(parent) = at.parent() {
        names.push(at.name());
        at = parent;
    }
    let mut text = Vec::new();
    for name in names.iter().rev() {
        text.push(b'/');
        text.extend_from_slice(name);
    }
    if text.is_empty() { Vec::from(*b"/") } else { text }
}

/// Space, tab, newline and backslash as octal numbers, as getmntent(3) reads them.
fn escaped(text: &[u8]) -> String {
    let mut out = String::new();
    for part in text.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                ' ' | '\t' | '\n' | '\\' => {
                    let _ = write!(out, "\\{:03o}", character as u32);
                }
                _ => out.push(character),
            }
        }
        part.invalid().iter().for_each(|byte| {
            let _ = write!(out, "\\{byte:03o}");
        });
    }
    out
}

fn boot_id() -> &'static str {
    static BOOT_ID: Once<String> = Once::new();
    BOOT_ID.call_once(new_uuid)
}

/// A random UUID (version 4).
fn new_uuid() -> String {
    let mut bytes = [0; 16];
    random::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}
