//! Scheduling as programs see it: affinity, policies, priorities.
//!
//! All threads run at one priority. Policies and nice values are checked, remembered and told back as
//! Linux does; affinity is remembered and limited to the vCPUs there are.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use occlum_enclave::vcpu;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::process::credentials::Capability;
use crate::process::thread::{SCHED_DEADLINE, SCHED_FIFO, SCHED_RESET_ON_FORK, SCHED_RR};
use crate::process::{Process, Resource, Thread, tree};
use crate::sched;
use crate::time::value::TimeSpec;
use crate::user;

const REMEMBERED: &str = "checked and remembered; all threads run at one priority";

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(24, "sched_yield", &[], sys_sched_yield),
    Syscall::full(140, "getpriority", &[Arg::Int, Arg::Int], sys_getpriority)
        .but(REMEMBERED),
    Syscall::full(141, "setpriority", &[Arg::Int, Arg::Int, Arg::Int], sys_setpriority)
        .but(REMEMBERED),
    Syscall::full(142, "sched_setparam", &[Arg::Int, Arg::Ptr], sys_sched_setparam)
        .but(REMEMBERED),
    Syscall::full(143, "sched_getparam", &[Arg::Int, Arg::Ptr], sys_sched_getparam)
        .but(REMEMBERED),
    Syscall::full(144, "sched_setscheduler", &[Arg::Int, Arg::Int, Arg::Ptr], sys_sched_setscheduler)
        .but(REMEMBERED),
    Syscall::full(145, "sched_getscheduler", &[Arg::Int], sys_sched_getscheduler)
        .but(REMEMBERED),
    Syscall::full(146, "sched_get_priority_max", &[Arg::Int], sys_sched_get_priority_max),
    Syscall::full(147, "sched_get_priority_min", &[Arg::Int], sys_sched_get_priority_min),
    Syscall::full(148, "sched_rr_get_interval", &[Arg::Int, Arg::Ptr], sys_sched_rr_get_interval),
    Syscall::full(203, "sched_setaffinity", &[Arg::Int, Arg::Uint, Arg::Ptr], sys_sched_setaffinity)
        .but("remembered, not obeyed"),
    Syscall::full(204, "sched_getaffinity", &[Arg::Int, Arg::Uint, Arg::Ptr], sys_sched_getaffinity),
    Syscall::full(251, "ioprio_set", &[Arg::Int, Arg::Int, Arg::Int], sys_ioprio_set)
        .but("checked and remembered, without effect"),
    Syscall::full(252, "ioprio_get", &[Arg::Int, Arg::Int], sys_ioprio_get),
    Syscall::full(309, "getcpu", &[Arg::Ptr, Arg::Ptr], sys_getcpu),
    Syscall::full(314, "sched_setattr", &[Arg::Int, Arg::Ptr, Arg::Hex], sys_sched_setattr)
        .but(REMEMBERED),
    Syscall::full(315, "sched_getattr", &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Hex], sys_sched_getattr)
        .but(REMEMBERED),
];

fn sys_sched_yield(_: &mut Call<'_>) -> Result<usize> {
    sched::yield_now();
    Ok(0)
}

/// The thread a call names: 0 is the caller.
fn thread_or_self(call: &Call<'_>, tid: i32) -> Result<Arc<Thread>> {
    match u32::try_from(tid) {
        Ok(0) => Ok(call.thread.clone()),
        Ok(tid) => tree::find_thread(tid).ok_or_else(tree::no_such_process),
        Err(_) => err(Errno::EINVAL, "negative id"),
    }
}

const SCHED_OTHER: u32 = 0;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;

/// The priorities a policy has.
fn priorities(policy: u32) -> Result<core::ops::RangeInclusive<u32>> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok(1..=99),
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok(0..=0),
        _ => err(Errno::EINVAL, "unknown policy"),
    }
}

fn policy_of(thread: &Thread) -> (u32, u32) {
    let packed = thread.policy.load(Ordering::Relaxed);
    (packed as u32, (packed >> 32) as u32)
}

fn set_policy(call: &Call<'_>, thread: &Thread, policy: u32, priority: u32) -> Result<()> {
    let bare = policy & !SCHED_RESET_ON_FORK;
    if !priorities(bare)?.contains(&priority) {
        return err(Errno::EINVAL, "priority out of the policy's range");
    }
    check_may_schedule(call, thread, policy, priority)?;
    thread.policy.store(u64::from(policy) | u64::from(priority) << 32, Ordering::Relaxed);
    Ok(())
}

/// sched(7): what needs CAP_SYS_NICE, or the resource limits RTPRIO and NICE.
fn check_may_schedule(call: &Call<'_>, thread: &Thread, policy: u32, priority: u32) -> Result<()> {
    if call.thread.credentials().has(Capability::SysNice) {
        return Ok(());
    }
    let (old, old_priority) = policy_of(thread);
    let (bare, old_bare) = (policy & !SCHED_RESET_ON_FORK, old & !SCHED_RESET_ON_FORK);
    let limit = thread.process().limit(Resource::RTPRIO).soft;
    let is_real_time = bare == SCHED_FIFO || bare == SCHED_RR;
    let is_refused = is_real_time && (bare != old_bare && limit == 0 || u64::from(priority) > limit.max(old_priority.into()))
        || bare == SCHED_DEADLINE
        || old_bare == SCHED_IDLE && bare != SCHED_IDLE && !may_be_nice(thread, thread.nice.load(Ordering::Relaxed))
        || old & SCHED_RESET_ON_FORK != 0 && policy & SCHED_RESET_ON_FORK == 0
        || !is_same_user(call.thread, thread);
    if is_refused { err(Errno::EPERM, "needs CAP_SYS_NICE") } else { Ok(()) }
}

/// Whether the caller's effective user is the target's real or effective one.
fn is_same_user(caller: &Thread, target: &Thread) -> bool {
    let (who, whom) = (caller.credentials().euid(), target.credentials().user);
    who == whom.real || who == whom.effective
}

/// Whether RLIMIT_NICE lets a thread have this nice value.
fn may_be_nice(thread: &Thread, nice: i32) -> bool {
    u64::from((20 - nice).unsigned_abs()) <= thread.process().limit(Resource::NICE).soft
}

fn sys_sched_setscheduler(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) < 0 || call.int(1) < 0 || call.addr(2).is_null() {
        return err(Errno::EINVAL, "negative id or policy, or no parameters");
    }
    let priority: i32 = user::read(call.addr(2))?;
    let Ok(priority) = u32::try_from(priority) else { return err(Errno::EINVAL, "negative priority") };
    let thread = thread_or_self(call, call.int(0))?;
    if call.uint(1) & !SCHED_RESET_ON_FORK == SCHED_DEADLINE {
        return err(Errno::EINVAL, "SCHED_DEADLINE is for sched_setattr");
    }
    set_policy(call, &thread, call.uint(1), priority)?;
    Ok(0)
}

fn sys_sched_setparam(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) < 0 || call.addr(1).is_null() {
        return err(Errno::EINVAL, "negative id or no parameters");
    }
    let priority: i32 = user::read(call.addr(1))?;
    let Ok(priority) = u32::try_from(priority) else { return err(Errno::EINVAL, "negative priority") };
    let thread = thread_or_self(call, call.int(0))?;
    let (policy, _) = policy_of(&thread);
    set_policy(call, &thread, policy, priority)?;
    Ok(0)
}

fn sys_sched_getparam(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) < 0 || call.addr(1).is_null() {
        return err(Errno::EINVAL, "negative id or no parameters");
    }
    let (_, priority) = policy_of(&*thread_or_self(call, call.int(0))?);
    user::write(call.addr(1), &priority)?;
    Ok(0)
}

fn sys_sched_getscheduler(call: &mut Call<'_>) -> Result<usize> {
    Ok(policy_of(&*thread_or_self(call, call.int(0))?).0 as usize)
}

fn sys_sched_get_priority_max(call: &mut Call<'_>) -> Result<usize> {
    Ok(*priorities(call.uint(0))?.end() as usize)
}

fn sys_sched_get_priority_min(call: &mut Call<'_>) -> Result<usize> {
    Ok(*priorities(call.uint(0))?.start() as usize)
}

/// SCHED_RR's time slice on Linux.
const RR_INTERVAL_NS: u64 = 100_000_000;
/// What Linux answers for other threads at nice 0.
const SLICE_NS: u64 = 4_000_000;

fn sys_sched_rr_get_interval(call: &mut Call<'_>) -> Result<usize> {
    let (policy, _) = policy_of(&*thread_or_self(call, call.int(0))?);
    let interval = match policy & !SCHED_RESET_ON_FORK {
        SCHED_FIFO => 0,
        SCHED_RR => RR_INTERVAL_NS,
        _ => SLICE_NS,
    };
    user::write(call.addr(1), &TimeSpec::from_ns(interval))?;
    Ok(0)
}

fn all_vcpus() -> u64 {
    match vcpu::count() {
        64 => u64::MAX,
        count => (1 << count) - 1,
    }
}

fn sys_sched_setaffinity(call: &mut Call<'_>) -> Result<usize> {
    let size = call.size(1).min(8);
    let mut bytes = [0; 8];
    user::read_bytes(call.addr(2), &mut bytes[..size])?;
    let mask = u64::from_le_bytes(bytes) & all_vcpus();
    let tid = call.int(0);
    let thread = if tid < 0 { return Err(tree::no_such_process()) } else { thread_or_self(call, tid)? };
    if !is_same_user(call.thread, &thread) && !call.thread.credentials().has(Capability::SysNice) {
        return err(Errno::EPERM, "another user's process");
    }
    if mask == 0 {
        return err(Errno::EINVAL, "no such processor");
    }
    thread.affinity.store(mask, Ordering::Relaxed);
    Ok(0)
}

fn sys_sched_getaffinity(call: &mut Call<'_>) -> Result<usize> {
    let size = call.uint(1) as usize;
    if !size.is_multiple_of(8) || size * 8 < vcpu::count() {
        return err(Errno::EINVAL, "mask too short or odd");
    }
    let tid = call.int(0);
    let thread = if tid < 0 { return Err(tree::no_such_process()) } else { thread_or_self(call, tid)? };
    user::write(call.addr(2), &(thread.affinity.load(Ordering::Relaxed) & all_vcpus()))?;
    Ok(8)
}

fn sys_getcpu(call: &mut Call<'_>) -> Result<usize> {
    if !call.addr(0).is_null() {
        user::write(call.addr(0), &(vcpu::index() as u32))?;
    }
    if !call.addr(1).is_null() {
        user::write(call.addr(1), &0u32)?;
    }
    Ok(0)
}

/// `struct sched_attr`, first version.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SCHED_ATTR_SIZE: u32 = size_of::<SchedAttr>() as u32;

fn sys_sched_setattr(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) < 0 || call.addr(1).is_null() || call.uint(2) != 0 {
        return err(Errno::EINVAL, "bad arguments");
    }
    let size: u32 = user::read(call.addr(1))?;
    if size != 0 && size < SCHED_ATTR_SIZE {
        user::write(call.addr(1), &SCHED_ATTR_SIZE)?;
        return err(Errno::E2BIG, "sched_attr too short");
    }
    check_rest_is_zero(call.addr(1), size)?;
    let attr: SchedAttr = user::read(call.addr(1))?;
    if attr.flags & !SCHED_FLAGS != 0 {
        return err(Errno::EINVAL, "unknown flags");
    }
    let thread = thread_or_self(call, call.int(0))?;
    let reset = if attr.flags & SCHED_FLAG_RESET_ON_FORK != 0 { SCHED_RESET_ON_FORK } else { 0 };
    if attr.policy == SCHED_DEADLINE {
        check_deadline(&attr)?;
    }
    let is_fair = attr.policy == SCHED_OTHER || attr.policy == SCHED_BATCH;
    let nice = attr.nice.clamp(-20, 19);
    if is_fair && nice < thread.nice.load(Ordering::Relaxed) {
        check_may_raise(call, &thread, nice, Errno::EPERM)?;
    }
    set_policy(call, &thread, attr.policy | reset, attr.priority)?;
    if is_fair {
        thread.nice.store(nice, Ordering::Relaxed);
    }
    *thread.deadline.lock() = [attr.runtime, attr.deadline, attr.period];
    Ok(0)
}

const SCHED_FLAG_RESET_ON_FORK: u64 = 1;
/// RESET_ON_FORK, RECLAIM, DL_OVERRUN.
const SCHED_FLAGS: u64 = 7;

/// A longer sched_attr than is known here must say nothing more.
fn check_rest_is_zero(addr: user::UserAddr, size: u32) -> Result<()> {
    let rest = (size.max(SCHED_ATTR_SIZE) - SCHED_ATTR_SIZE) as usize;
    if rest > 4096 {
        return err(Errno::E2BIG, "sched_attr too long");
    }
    let rest = user::UserSlice::<u8>::new(addr.offset(SCHED_ATTR_SIZE as usize), rest).copy_in()?;
    if rest.iter().any(|&byte| byte != 0) {
        user::write(addr, &SCHED_ATTR_SIZE)?;
        return err(Errno::E2BIG, "unknown fields of sched_attr");
    }
    Ok(())
}

/// sched(7): runtime <= deadline <= period, runtime at least 1024 ns.
fn check_deadline(attr: &SchedAttr) -> Result<()> {
    let period = if attr.period == 0 { attr.deadline } else { attr.period };
    let is_ordered = attr.runtime <= attr.deadline && attr.deadline <= period;
    if attr.runtime < 1024 || !is_ordered || (attr.deadline | period) >> 63 != 0 {
        return err(Errno::EINVAL, "runtime, deadline, period");
    }
    Ok(())
}

fn sys_sched_getattr(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) < 0 || call.addr(1).is_null() || call.uint(2) < SCHED_ATTR_SIZE || call.uint(3) != 0 {
        return err(Errno::EINVAL, "bad arguments");
    }
    let thread = thread_or_self(call, call.int(0))?;
    let (policy, priority) = policy_of(&thread);
    let [runtime, deadline, period] = match policy & !SCHED_RESET_ON_FORK {
        SCHED_DEADLINE => *thread.deadline.lock(),
        _ => [0; 3],
    };
    let attr = SchedAttr {
        size: SCHED_ATTR_SIZE,
        policy: policy & !SCHED_RESET_ON_FORK,
        flags: u64::from(policy & SCHED_RESET_ON_FORK != 0),
        nice: thread.nice.load(Ordering::Relaxed),
        priority,
        runtime,
        deadline,
        period,
    };
    user::write(call.addr(1), &attr)?;
    Ok(0)
}

const PRIO_PROCESS: i32 = 0;
const PRIO_PGRP: i32 = 1;
const PRIO_USER: i32 = 2;

/// The threads that getpriority and setpriority mean.
fn subjects(call: &Call<'_>) -> Result<alloc::vec::Vec<Arc<Thread>>> {
    threads_of(call, call.int(0))
}

/// The threads of a process, group or user, whose id is the second argument; 0 is the caller's.
fn threads_of(call: &Call<'_>, which: i32) -> Result<alloc::vec::Vec<Arc<Thread>>> {
    let who = call.uint(1);
    let of = |processes: alloc::vec::Vec<Arc<Process>>| processes.iter().flat_map(|p| p.threads()).collect();
    let found: alloc::vec::Vec<_> = match which {
        PRIO_PROCESS if who == 0 => alloc::vec![call.thread.clone()],
        PRIO_PROCESS => tree::find_thread(who).into_iter().collect(),
        PRIO_PGRP if who == 0 => of(tree::group(call.thread.process().pgid())),
        PRIO_PGRP => of(tree::group(who)),
        PRIO_USER => {
            let uid = if who == 0 { call.thread.credentials().user.real } else { who };
            let mut threads: alloc::vec::Vec<_> = of(tree::processes());
            threads.retain(|thread: &Arc<Thread>| thread.credentials().user.real == uid);
            threads
        }
        _ => return err(Errno::EINVAL, "unknown subject"),
    };
    if found.is_empty() { Err(tree::no_such_process()) } else { Ok(found) }
}

/// The raw call gives 20 - nice, so that it is never negative.
fn sys_getpriority(call: &mut Call<'_>) -> Result<usize> {
    let threads = subjects(call)?;
    let lowest = threads.iter().map(|thread| thread.nice.load(Ordering::Relaxed)).min().unwrap_or(0);
    Ok((20 - lowest) as usize)
}

fn sys_setpriority(call: &mut Call<'_>) -> Result<usize> {
    let nice = call.int(2).clamp(-20, 19);
    let mut result = Ok(0);
    for thread in subjects(call)? {
        let may_change = is_same_user(call.thread, &thread) || call.thread.credentials().has(Capability::SysNice);
        let changed = match may_change {
            false => err(Errno::EPERM, "another user's process"),
            true if nice < thread.nice.load(Ordering::Relaxed) => check_may_raise(call, &thread, nice, Errno::EACCES),
            true => Ok(()),
        };
        match changed {
            Ok(()) => thread.nice.store(nice, Ordering::Relaxed),
            Err(error) => result = Err(error),
        }
    }
    result
}

/// Whether the caller may give the thread a lower nice value than it has.
fn check_may_raise(call: &Call<'_>, thread: &Thread, nice: i32, refused: Errno) -> Result<()> {
    if may_be_nice(thread, nice) || call.thread.credentials().has(Capability::SysNice) {
        return Ok(());
    }
    err(refused, "RLIMIT_NICE")
}

const IOPRIO_CLASS_SHIFT: u32 = 13;

/// The threads that ioprio_get and ioprio_set mean; as for getpriority, whose numbers are one less.
fn io_subjects(call: &Call<'_>) -> Result<alloc::vec::Vec<Arc<Thread>>> {
    match call.int(0).checked_sub(1) {
        Some(which) => threads_of(call, which),
        None => err(Errno::EINVAL, "unknown subject"),
    }
}

fn sys_ioprio_set(call: &mut Call<'_>) -> Result<usize> {
    let priority = call.uint(2);
    let (class, data) = (priority >> IOPRIO_CLASS_SHIFT, priority & ((1 << IOPRIO_CLASS_SHIFT) - 1));
    let who = call.thread.credentials();
    match class {
        1 if !who.has(Capability::SysNice) && !who.has(Capability::SysAdmin) => {
            return err(Errno::EPERM, "real-time input and output");
        }
        0 if data == 0 => {}
        1 | 2 if data < 8 => {}
        3 => {}
        _ => return err(Errno::EINVAL, "unknown class or level"),
    }
    for thread in io_subjects(call)? {
        if !is_same_user(call.thread, &thread) && !who.has(Capability::SysNice) {
            return err(Errno::EPERM, "another user's process");
        }
        thread.io_priority.store(priority, Ordering::Relaxed);
    }
    Ok(0)
}

/// The most urgent one: the lowest number, where none set counts as best effort, level 4.
fn sys_ioprio_get(call: &mut Call<'_>) -> Result<usize> {
    let threads = io_subjects(call)?;
    if let [only] = &threads[..] {
        return Ok(only.io_priority.load(Ordering::Relaxed) as usize);
    }
    let effective = |thread: &Arc<Thread>| match thread.io_priority.load(Ordering::Relaxed) {
        0 => 2 << IOPRIO_CLASS_SHIFT | 4,
        priority => priority,
    };
    Ok(threads.iter().map(effective).min().unwrap_or(0) as usize)
}
