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
use crate::process::{Process, Thread, tree};
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
        .but("accepted, without effect"),
    Syscall::full(252, "ioprio_get", &[Arg::Int, Arg::Int], sys_ioprio_get)
        .but("always 0: none set"),
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
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;
const SCHED_DEADLINE: u32 = 6;
const SCHED_RESET_ON_FORK: u32 = 0x4000_0000;

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

fn set_policy(call: &Call<'_>, tid: i32, policy: u32, priority: u32) -> Result<usize> {
    let bare = policy & !SCHED_RESET_ON_FORK;
    let thread = thread_or_self(call, tid)?;
    if bare == SCHED_DEADLINE || !priorities(bare)?.contains(&priority) {
        return err(Errno::EINVAL, "priority out of the policy's range");
    }
    let is_real_time = bare == SCHED_FIFO || bare == SCHED_RR;
    if is_real_time && !call.thread.credentials().has(Capability::SysNice) {
        return err(Errno::EPERM, "needs CAP_SYS_NICE");
    }
    thread.policy.store(u64::from(policy) | u64::from(priority) << 32, Ordering::Relaxed);
    Ok(0)
}

fn sys_sched_setscheduler(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) < 0 || call.int(1) < 0 || call.addr(2).is_null() {
        return err(Errno::EINVAL, "negative id or policy, or no parameters");
    }
    let priority: i32 = user::read(call.addr(2))?;
    let Ok(priority) = u32::try_from(priority) else { return err(Errno::EINVAL, "negative priority") };
    set_policy(call, call.int(0), call.uint(1), priority)
}

fn sys_sched_setparam(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) < 0 || call.addr(1).is_null() {
        return err(Errno::EINVAL, "negative id or no parameters");
    }
    let priority: i32 = user::read(call.addr(1))?;
    let Ok(priority) = u32::try_from(priority) else { return err(Errno::EINVAL, "negative priority") };
    let (policy, _) = policy_of(&*thread_or_self(call, call.int(0))?);
    set_policy(call, call.int(0), policy, priority)
}

fn sys_sched_getparam(call: &mut Call<'_>) -> Result<usize> {
    if call.addr(1).is_null() {
        return err(Errno::EINVAL, "no parameters");
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
    let attr: SchedAttr = user::read(call.addr(1))?;
    let reset = if attr.flags & 1 != 0 { SCHED_RESET_ON_FORK } else { 0 };
    set_policy(call, call.int(0), attr.policy | reset, attr.priority)?;
    if attr.policy == SCHED_OTHER || attr.policy == SCHED_BATCH {
        let thread = thread_or_self(call, call.int(0))?;
        thread.nice.store(attr.nice.clamp(-20, 19), Ordering::Relaxed);
    }
    Ok(0)
}

fn sys_sched_getattr(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) < 0 || call.addr(1).is_null() || call.uint(2) < SCHED_ATTR_SIZE || call.uint(3) != 0 {
        return err(Errno::EINVAL, "bad arguments");
    }
    let thread = thread_or_self(call, call.int(0))?;
    let (policy, priority) = policy_of(&thread);
    let attr = SchedAttr {
        size: SCHED_ATTR_SIZE,
        policy: policy & !SCHED_RESET_ON_FORK,
        flags: u64::from(policy & SCHED_RESET_ON_FORK != 0),
        nice: thread.nice.load(Ordering::Relaxed),
        priority,
        ..SchedAttr::default()
    };
    user::write(call.addr(1), &attr)?;
    Ok(0)
}

const PRIO_PROCESS: i32 = 0;
const PRIO_PGRP: i32 = 1;
const PRIO_USER: i32 = 2;

/// The threads that getpriority and setpriority mean.
fn subjects(call: &Call<'_>) -> Result<alloc::vec::Vec<Arc<Thread>>> {
    let who = call.uint(1);
    let of = |processes: alloc::vec::Vec<Arc<Process>>| processes.iter().flat_map(|p| p.threads()).collect();
    let found: alloc::vec::Vec<_> = match call.int(0) {
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
    let threads = subjects(call)?;
    let may_raise = call.thread.credentials().has(Capability::SysNice);
    for thread in threads {
        if nice < thread.nice.load(Ordering::Relaxed) && !may_raise {
            return err(Errno::EACCES, "only root lowers nice values");
        }
        thread.nice.store(nice, Ordering::Relaxed);
    }
    Ok(0)
}

fn sys_ioprio_set(call: &mut Call<'_>) -> Result<usize> {
    match call.int(0) {
        1..=3 => Ok(0),
        _ => err(Errno::EINVAL, "unknown subject"),
    }
}

fn sys_ioprio_get(call: &mut Call<'_>) -> Result<usize> {
    match call.int(0) {
        1..=3 => Ok(0),
        _ => err(Errno::EINVAL, "unknown subject"),
    }
}

