//! /sys: the few files of it that programs read, made of the same parts as /proc.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

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

static CPU: [Entry; 6] = [
    text("kernel_max", || format!("{}\n", occlum_abi::layout::MAX_VCPUS - 1)),
    fixed("offline", ""),
    text("online", cpus),
    text("possible", cpus),
    text("present", cpus),
    fixed("isolated", ""),
];

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
