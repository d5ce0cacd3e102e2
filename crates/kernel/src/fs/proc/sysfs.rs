//! /sys: the few files of it that programs read, made of the same parts as /proc.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use occlum_abi::layout::MAX_VCPUS;
use occlum_enclave::vcpu;

use super::system::{Entry, directory, fixed, text};
use super::{Node, ProcInode, stat};
use crate::error::Result;
use crate::mm;
use crate::vfs::inode::InodeRef;
use crate::vfs::mount::{FileSystem, StatFs};

const SYSFS_MAGIC: u64 = 0x6265_6572;

pub struct SysFs;

impl FileSystem for SysFs {
    fn name(&self) -> &'static str {
        "sysfs"
    }

    fn root(&self) -> Result<InodeRef> {
        Ok(ProcInode::new(Node::System(&ROOT)) as Arc<_>)
    }

    fn stat(&self) -> Result<StatFs> {
        Ok(StatFs { magic: SYSFS_MAGIC, block_size: 4096, ..StatFs::default() })
    }
}

static ROOT: Entry = directory("sys", &TOP);

static TOP: [Entry; 9] = [
    directory("block", &[]),
    directory("bus", &[]),
    directory("class", &[]),
    directory("dev", &[]),
    directory("devices", &DEVICES),
    directory("firmware", &[]),
    directory("fs", &FS),
    directory("kernel", &KERNEL),
    directory("module", &[]),
];

static FS: [Entry; 1] = [directory("cgroup", &[])];
static DEVICES: [Entry; 1] = [directory("system", &SYSTEM)];
static SYSTEM: [Entry; 2] = [directory("cpu", &CPU), directory("node", &NODE)];

static CPU: [Entry; 6 + MAX_VCPUS] = [
    text("kernel_max", || format!("{}\n", MAX_VCPUS - 1)),
    fixed("offline", ""),
    text("online", cpus),
    text("possible", cpus),
    text("present", cpus),
    fixed("isolated", ""),
    cpu("cpu0"), cpu("cpu1"), cpu("cpu2"), cpu("cpu3"), cpu("cpu4"), cpu("cpu5"), cpu("cpu6"), cpu("cpu7"),
    cpu("cpu8"), cpu("cpu9"), cpu("cpu10"), cpu("cpu11"), cpu("cpu12"), cpu("cpu13"), cpu("cpu14"), cpu("cpu15"),
    cpu("cpu16"), cpu("cpu17"), cpu("cpu18"), cpu("cpu19"), cpu("cpu20"), cpu("cpu21"), cpu("cpu22"), cpu("cpu23"),
    cpu("cpu24"), cpu("cpu25"), cpu("cpu26"), cpu("cpu27"), cpu("cpu28"), cpu("cpu29"), cpu("cpu30"), cpu("cpu31"),
    cpu("cpu32"), cpu("cpu33"), cpu("cpu34"), cpu("cpu35"), cpu("cpu36"), cpu("cpu37"), cpu("cpu38"), cpu("cpu39"),
    cpu("cpu40"), cpu("cpu41"), cpu("cpu42"), cpu("cpu43"), cpu("cpu44"), cpu("cpu45"), cpu("cpu46"), cpu("cpu47"),
    cpu("cpu48"), cpu("cpu49"), cpu("cpu50"), cpu("cpu51"), cpu("cpu52"), cpu("cpu53"), cpu("cpu54"), cpu("cpu55"),
    cpu("cpu56"), cpu("cpu57"), cpu("cpu58"), cpu("cpu59"), cpu("cpu60"), cpu("cpu61"), cpu("cpu62"), cpu("cpu63"),
];

/// Those that are not there are not shown, see [`is_there`].
const fn cpu(name: &'static str) -> Entry {
    directory(name, &ONE_CPU)
}

static ONE_CPU: [Entry; 1] = [fixed("online", "1")];

/// False for processors beyond those of this instance.
pub(super) fn is_there(entry: &Entry) -> bool {
    let number = entry.name.strip_prefix("cpu").and_then(|number| number.parse::<usize>().ok());
    number.is_none_or(|number| number < vcpu::count())
}

static NODE: [Entry; 6] = [
    fixed("has_cpu", "0"),
    fixed("has_memory", "0"),
    fixed("has_normal_memory", "0"),
    directory("node0", &NODE0),
    fixed("online", "0"),
    fixed("possible", "0"),
];

static NODE0: [Entry; 4] = [
    text("cpulist", cpus),
    text("cpumap", || format!("{:x}\n", mask())),
    fixed("distance", "10"),
    text("meminfo", node_memory),
];

static KERNEL: [Entry; 1] = [directory("mm", &MM)];
static MM: [Entry; 2] = [directory("hugepages", &[]), directory("transparent_hugepage", &HUGE)];
static HUGE: [Entry; 3] = [
    fixed("defrag", "always defer defer+madvise madvise [never]"),
    fixed("enabled", "always madvise [never]"),
    fixed("hpage_pmd_size", "2097152"),
];

fn mask() -> u64 {
    if vcpu::count() >= 64 { u64::MAX } else { (1 << vcpu::count()) - 1 }
}

fn cpus() -> String {
    format!("{}\n", stat::list(mask()))
}

fn node_memory() -> String {
    let usage = mm::Usage::now();
    let (total, used) = (usage.limit / 1024, usage.granted / 1024);
    let free = total.saturating_sub(used);
    format!("Node 0 MemTotal: {total:>15} kB\nNode 0 MemFree: {free:>16} kB\nNode 0 MemUsed: {used:>16} kB\n")
}
