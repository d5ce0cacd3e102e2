//! Resource limits (getrlimit(2)).

use crate::mm::MemoryLimits;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What is limited, by its number in the system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource(usize);

impl Resource {
    pub const CPU: Resource = Resource(0);
    pub const FSIZE: Resource = Resource(1);
    pub const DATA: Resource = Resource(2);
    pub const STACK: Resource = Resource(3);
    pub const CORE: Resource = Resource(4);
    pub const RSS: Resource = Resource(5);
    pub const NPROC: Resource = Resource(6);
    pub const NOFILE: Resource = Resource(7);
    pub const MEMLOCK: Resource = Resource(8);
    pub const AS: Resource = Resource(9);
    pub const LOCKS: Resource = Resource(10);
    pub const SIGPENDING: Resource = Resource(11);
    pub const MSGQUEUE: Resource = Resource(12);
    pub const NICE: Resource = Resource(13);
    pub const RTPRIO: Resource = Resource(14);
    pub const RTTIME: Resource = Resource(15);
    pub const COUNT: usize = 16;

    pub fn new(number: u32) -> Option<Resource> {
        Some(Resource(number as usize)).filter(|resource| resource.0 < Resource::COUNT)
    }
}

pub const INFINITY: u64 = u64::MAX;

/// Largest RLIMIT_NOFILE (Linux: fs.nr_open).
pub const NOFILE_MAX: u64 = 1 << 20;

/// `struct rlimit64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

impl Limit {
    pub const NONE: Limit = Limit::both(INFINITY);

    const fn new(soft: u64, hard: u64) -> Limit {
        Limit { soft, hard }
    }

    const fn both(value: u64) -> Limit {
        Limit { soft: value, hard: value }
    }
}

/// All limits of one process.
#[derive(Clone, Debug)]
pub struct Limits([Limit; Resource::COUNT]);

impl Limits {
    /// What the first program starts with: Linux's defaults, with the stack and the number of threads
    /// the configuration gives.
    pub fn initial(stack_size: u64, max_threads: u32) -> Limits {
        let threads = u64::from(max_threads);
        let mut limits = [Limit::both(INFINITY); Resource::COUNT];
        limits[Resource::STACK.0] = Limit::new(stack_size, INFINITY);
        limits[Resource::CORE.0] = Limit::new(0, INFINITY);
        limits[Resource::NPROC.0] = Limit::both(threads);
        limits[Resource::NOFILE.0] = Limit::new(1024, NOFILE_MAX);
        limits[Resource::MEMLOCK.0] = Limit::both(8 << 20);
        limits[Resource::SIGPENDING.0] = Limit::both(threads.max(1024));
        limits[Resource::MSGQUEUE.0] = Limit::both(819_200);
        limits[Resource::NICE.0] = Limit::both(0);
        limits[Resource::RTPRIO.0] = Limit::both(0);
        Limits(limits)
    }

    pub fn get(&self, resource: Resource) -> Limit {
        self.0[resource.0]
    }

    /// Those the memory manager enforces.
    pub fn memory(&self) -> MemoryLimits {
        let bytes = |resource| usize::try_from(self.get(resource).soft).unwrap_or(usize::MAX);
        MemoryLimits {
            address_space: bytes(Resource::AS),
            data: bytes(Resource::DATA),
            stack: bytes(Resource::STACK),
            locked: bytes(Resource::MEMLOCK),
        }
    }

    pub fn set(&mut self, resource: Resource, limit: Limit) {
        self.0[resource.0] = limit;
    }
}
