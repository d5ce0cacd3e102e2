//! Limits and consumption: prlimit(2), getrusage(2), times(2).

use alloc::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::process::credentials::{Capability, Ids};
use crate::process::limits::NOFILE_MAX;
use crate::process::usage::{Usage, ns_to_ticks};
use crate::process::{Limit, Process, Resource, Thread, cpu_limit, tree};
use crate::sched::timer;
use crate::time::value::TimeVal;
use crate::user;

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(97, "getrlimit", &[Arg::Int, Arg::Ptr], sys_getrlimit),
    Syscall::full(98, "getrusage", &[Arg::Int, Arg::Ptr], sys_getrusage)
        .but("the share of system time is estimated; no block I/O counts"),
    Syscall::full(100, "times", &[Arg::Ptr], sys_times)
        .but("the share of system time is estimated"),
    Syscall::full(160, "setrlimit", &[Arg::Int, Arg::Ptr], sys_setrlimit)
        .but(NOT_ENFORCED),
    Syscall::full(302, "prlimit64", &[Arg::Int, Arg::Int, Arg::Ptr, Arg::Ptr], sys_prlimit64)
        .but(NOT_ENFORCED),
];

const NOT_ENFORCED: &str = "RSS, LOCKS and RTTIME are only remembered, RSS as on Linux; no core file is ever written";

fn sys_getrlimit(call: &mut Call<'_>) -> Result<usize> {
    let resource = resource(call.uint(0))?;
    user::write(call.addr(1), &call.thread.process().limit(resource))?;
    Ok(0)
}

fn sys_setrlimit(call: &mut Call<'_>) -> Result<usize> {
    let limit: Limit = user::read(call.addr(1))?;
    let resource = resource(call.uint(0))?;
    set(call, call.thread.process(), resource, limit)?;
    Ok(0)
}

fn sys_prlimit64(call: &mut Call<'_>) -> Result<usize> {
    let resource = resource(call.uint(1))?;
    let new: Option<Limit> = match call.addr(2) {
        addr if addr.is_null() => None,
        addr => Some(user::read(addr)?),
    };
    let process = match call.uint(0) {
        0 => call.thread.process().clone(),
        pid => {
            let thread = tree::find_thread(pid).ok_or_else(tree::no_such_process)?;
            check_may_limit(call, &thread)?;
            thread.process().clone()
        }
    };
    let old = process.limit(resource);
    if let Some(new) = new {
        set(call, &process, resource, new)?;
    }
    if !call.addr(3).is_null() {
        user::write(call.addr(3), &old)?;
    }
    Ok(0)
}

/// prlimit(2): all of the target's ids must be the caller's real ones, or CAP_SYS_RESOURCE.
fn check_may_limit(call: &Call<'_>, target: &Thread) -> Result<()> {
    let (who, whom) = (call.thread.credentials(), target.credentials());
    let is_own = |ids: Ids, id: u32| ids.real == id && ids.effective == id && ids.saved == id;
    let is_same = is_own(whom.user, who.user.real) && is_own(whom.group, who.group.real);
    let is_self = Arc::ptr_eq(call.thread.process(), target.process());
    if is_self || is_same || who.has(Capability::SysResource) {
        return Ok(());
    }
    err(Errno::EPERM, "another user's process")
}

fn resource(number: u32) -> Result<Resource> {
    match Resource::new(number) {
        Some(resource) => Ok(resource),
        None => err(Errno::EINVAL, "unknown resource"),
    }
}

fn set(call: &Call<'_>, process: &Arc<Process>, resource: Resource, limit: Limit) -> Result<()> {
    if limit.soft > limit.hard {
        return err(Errno::EINVAL, "soft limit above the hard one");
    }
    if resource == Resource::NOFILE && limit.hard > NOFILE_MAX {
        return err(Errno::EPERM, "above fs.nr_open");
    }
    let is_raised = limit.hard > process.limit(resource).hard;
    if is_raised && !call.thread.credentials().has(Capability::SysResource) {
        return err(Errno::EPERM, "only root raises a hard limit");
    }
    process.set_limit(resource, limit);
    apply(process, resource, limit);
    if resource == Resource::CPU {
        cpu_limit::watch(process);
    }
    Ok(())
}

/// Tells those who enforce the limit.
fn apply(process: &Process, resource: Resource, limit: Limit) {
    let Some(thread) = process.main_thread() else { return };
    match resource {
        Resource::NOFILE => thread.files().set_limit(usize::try_from(limit.soft).unwrap_or(usize::MAX)),
        Resource::AS | Resource::DATA | Resource::STACK | Resource::MEMLOCK => {
            thread.space().set_limits(process.memory_limits());
        }
        _ => {}
    }
}

/// `struct rusage`: times, then 14 counters.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct RUsage {
    user: TimeVal,
    system: TimeVal,
    max_rss_kib: u64,
    _shared: [u64; 3],
    minor_faults: u64,
    major_faults: u64,
    _swaps: u64,
    _blocks: [u64; 2],
    _messages: [u64; 2],
    _signals: u64,
    voluntary_switches: u64,
    involuntary_switches: u64,
}

const _: () = assert!(size_of::<RUsage>() == 144);

impl From<&Usage> for RUsage {
    fn from(usage: &Usage) -> RUsage {
        RUsage {
            user: TimeVal::from_ns(usage.user_ns()),
            system: TimeVal::from_ns(usage.system_ns),
            max_rss_kib: usage.max_rss / 1024,
            minor_faults: usage.minor_faults,
            major_faults: usage.major_faults,
            voluntary_switches: usage.switches.saturating_sub(usage.preemptions),
            involuntary_switches: usage.preemptions,
            ..RUsage::default()
        }
    }
}

const RUSAGE_SELF: i32 = 0;
const RUSAGE_CHILDREN: i32 = -1;
const RUSAGE_THREAD: i32 = 1;

fn sys_getrusage(call: &mut Call<'_>) -> Result<usize> {
    let process = call.thread.process();
    let mut usage = match call.int(0) {
        RUSAGE_SELF => process.usage(),
        RUSAGE_CHILDREN => process.children_usage(),
        RUSAGE_THREAD => call.thread.usage(),
        _ => return err(Errno::EINVAL, "unknown subject"),
    };
    if call.int(0) != RUSAGE_CHILDREN {
        usage.max_rss = usage.max_rss.max(call.thread.space().usage().resident as u64);
    }
    user::write(call.addr(1), &RUsage::from(&usage))?;
    Ok(0)
}

fn sys_times(call: &mut Call<'_>) -> Result<usize> {
    let process = call.thread.process();
    if !call.addr(0).is_null() {
        let (own, children) = (process.usage(), process.children_usage());
        let times = [own.user_ns(), own.system_ns, children.user_ns(), children.system_ns];
        user::write(call.addr(0), &times.map(ns_to_ticks))?;
    }
    Ok(ns_to_ticks(timer::now_ns()) as usize)
}

