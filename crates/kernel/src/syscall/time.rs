//! Time: clocks, sleeping, timers.

use alloc::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{self, Errno, Error, Result, err};
use crate::process::{Thread, tree};
use crate::sched::{WaitError, WaitQueue};
use crate::signal::Signal;
use crate::time::IntervalTimer;
use crate::time::clock::{CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, Clock, Kind};
use crate::time::timer::{Notice, Origin, ProgramTimer, Setting};
use crate::time::value::{NS_PER_SECOND, TimeSpec, TimeVal};
use crate::user::{self, UserAddr};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(35, "nanosleep", &[Arg::Ptr, Arg::Ptr], sys_nanosleep),
    Syscall::full(36, "getitimer", &[Arg::Int, Arg::Ptr], sys_getitimer),
    Syscall::full(37, "alarm", &[Arg::Uint], sys_alarm),
    Syscall::full(38, "setitimer", &[Arg::Int, Arg::Ptr, Arg::Ptr], sys_setitimer),
    Syscall::full(96, "gettimeofday", &[Arg::Ptr, Arg::Ptr], sys_gettimeofday),
    Syscall::full(164, "settimeofday", &[Arg::Ptr, Arg::Ptr], sys_settimeofday)
        .never(NOT_OURS),
    Syscall::full(201, "time", &[Arg::Ptr], sys_time),
    Syscall::full(222, "timer_create", &[Arg::Int, Arg::Ptr, Arg::Ptr], sys_timer_create),
    Syscall::full(223, "timer_settime", &[Arg::Int, Arg::Hex, Arg::Ptr, Arg::Ptr], sys_timer_settime),
    Syscall::full(224, "timer_gettime", &[Arg::Int, Arg::Ptr], sys_timer_gettime),
    Syscall::full(225, "timer_getoverrun", &[Arg::Int], sys_timer_getoverrun),
    Syscall::full(226, "timer_delete", &[Arg::Int], sys_timer_delete),
    Syscall::full(227, "clock_settime", &[Arg::Int, Arg::Ptr], sys_clock_settime)
        .never(NOT_OURS),
    Syscall::full(228, "clock_gettime", &[Arg::Int, Arg::Ptr], sys_clock_gettime),
    Syscall::full(229, "clock_getres", &[Arg::Int, Arg::Ptr], sys_clock_getres),
    Syscall::full(230, "clock_nanosleep", &[Arg::Int, Arg::Hex, Arg::Ptr, Arg::Ptr], sys_clock_nanosleep),
];

const NOT_OURS: &str = "the clocks are the host's";

fn sys_settimeofday(call: &mut Call<'_>) -> Result<usize> {
    if !call.addr(0).is_null() {
        let time: TimeVal = user::read(call.addr(0))?;
        if time.seconds < 0 || !(0..1_000_000).contains(&time.microseconds) {
            return err(Errno::EINVAL, "no time");
        }
    }
    err(Errno::EPERM, NOT_OURS)
}

fn sys_clock_settime(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) != CLOCK_REALTIME {
        return err(Errno::EINVAL, "can't be set");
    }
    user::read::<TimeSpec>(call.addr(1))?.to_ns()?;
    err(Errno::EPERM, NOT_OURS)
}

fn sys_clock_gettime(call: &mut Call<'_>) -> Result<usize> {
    let (clock, _) = Clock::find(call.int(0), call.thread)?;
    user::write(call.addr(1), &TimeSpec::from_ns(clock.now_ns()))?;
    Ok(0)
}

fn sys_clock_getres(call: &mut Call<'_>) -> Result<usize> {
    let (_, kind) = Clock::find(call.int(0), call.thread)?;
    if !call.addr(1).is_null() {
        user::write(call.addr(1), &TimeSpec::from_ns(Clock::resolution_ns(kind)))?;
    }
    Ok(0)
}

fn sys_gettimeofday(call: &mut Call<'_>) -> Result<usize> {
    if !call.addr(0).is_null() {
        user::write(call.addr(0), &TimeVal::from_ns(Clock::Realtime.now_ns()))?;
    }
    if !call.addr(1).is_null() {
        // struct timezone: UTC.
        user::write(call.addr(1), &[0u32; 2])?;
    }
    Ok(0)
}

fn sys_time(call: &mut Call<'_>) -> Result<usize> {
    let seconds = Clock::Realtime.now_ns() / NS_PER_SECOND;
    if !call.addr(0).is_null() {
        user::write(call.addr(0), &seconds)?;
    }
    Ok(seconds as usize)
}

fn sys_nanosleep(call: &mut Call<'_>) -> Result<usize> {
    let request: TimeSpec = user::read(call.addr(0))?;
    let ns = request.to_ns()?;
    sleep_for(call.thread, &Clock::Monotonic, ns, call.addr(1))
}

const TIMER_ABSTIME: u32 = 1;

fn sys_clock_nanosleep(call: &mut Call<'_>) -> Result<usize> {
    let id = call.int(0);
    let (clock, kind) = Clock::find(id, call.thread)?;
    if id == CLOCK_THREAD_CPUTIME_ID {
        return err(Errno::EINVAL, "can't sleep on one's own processor time");
    }
    if kind == Kind::Coarse {
        return err(Errno::EOPNOTSUPP, "can't sleep on this clock");
    }
    let ns = user::read::<TimeSpec>(call.addr(2))?.to_ns()?;
    if call.uint(1) & TIMER_ABSTIME == 0 {
        return sleep_for(call.thread, &clock, ns, call.addr(3));
    }
    sleep_until(&clock, ns).map_err(|why| match why {
        WaitError::Interrupted => error::interrupted_unless_handled(),
        WaitError::TimedOut => Error::new(Errno::ETIMEDOUT, ""),
    })?;
    Ok(0)
}

/// Sleeps for `ns`; writes what was left if a signal ended it.
fn sleep_for(thread: &Thread, clock: &Clock, ns: u64, left: UserAddr) -> Result<usize> {
    // In CLOCK_MONOTONIC, so that the end is known when the call runs again; processor time passes
    // while others run, so that sleep is measured on its own clock.
    let is_cpu_clock = matches!(clock, Clock::ProcessCpu(_) | Clock::ThreadCpu(_));
    let (clock, deadline) = match is_cpu_clock {
        true => (clock.clone(), clock.now_ns().saturating_add(ns)),
        false => (Clock::Monotonic, thread.deadline_after(ns)),
    };
    if sleep_until(&clock, deadline).is_ok() {
        return Ok(0);
    }
    if !left.is_null() {
        let rest = deadline.saturating_sub(clock.now_ns());
        user::write(left, &TimeSpec::from_ns(rest))?;
    }
    Err(error::interrupted_unless_handled())
}

fn sleep_until(clock: &Clock, deadline: u64) -> core::result::Result<(), WaitError> {
    let never = WaitQueue::new();
    loop {
        if clock.now_ns() >= deadline {
            return Ok(());
        }
        // Nothing wakes this queue: the wait ends by time or by a signal.
        let at = Some(clock.to_monotonic(deadline));
        if never.wait_until(at, true, || None::<()>) == Err(WaitError::Interrupted) {
            return Err(WaitError::Interrupted);
        }
    }
}

/// `struct itimerspec`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct TimerSpec {
    interval: TimeSpec,
    value: TimeSpec,
}

/// `struct itimerval`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct IntervalValue {
    interval: TimeVal,
    value: TimeVal,
}

impl From<Setting> for IntervalValue {
    fn from(setting: Setting) -> IntervalValue {
        // Never shown as disarmed while less than a microsecond is left.
        let shown = if setting.value_ns == 0 { 0 } else { setting.value_ns.max(1_000) };
        IntervalValue {
            interval: TimeVal::from_ns(setting.interval_ns),
            value: TimeVal::from_ns(shown),
        }
    }
}

fn interval_timer(thread: &Thread, which: i32) -> Result<Arc<ProgramTimer>> {
    let process = thread.process();
    let (which, clock, signal) = match which {
        0 => (IntervalTimer::Real, Clock::Monotonic, Signal::ALRM),
        1 => (IntervalTimer::Virtual, Clock::ProcessCpu(process.clone()), Signal::VTALRM),
        2 => (IntervalTimer::Prof, Clock::ProcessCpu(process.clone()), Signal::PROF),
        _ => return err(Errno::EINVAL, "unknown timer"),
    };
    let notice = Notice::Process(Arc::downgrade(process), signal, Origin::Interval);
    Ok(process.timers().interval(which, || ProgramTimer::new(clock, notice)))
}

fn sys_getitimer(call: &mut Call<'_>) -> Result<usize> {
    let timer = interval_timer(call.thread, call.int(0))?;
    user::write(call.addr(1), &IntervalValue::from(timer.get()))?;
    Ok(0)
}

fn sys_setitimer(call: &mut Call<'_>) -> Result<usize> {
    let new: IntervalValue = match call.addr(1) {
        // An old habit that Linux still allows.
        addr if addr.is_null() => IntervalValue::default(),
        addr => user::read(addr)?,
    };
    let setting = Setting { value_ns: new.value.to_ns()?, interval_ns: new.interval.to_ns()? };
    let old = interval_timer(call.thread, call.int(0))?.set(setting);
    if !call.addr(2).is_null() {
        user::write(call.addr(2), &IntervalValue::from(old))?;
    }
    Ok(0)
}

fn sys_alarm(call: &mut Call<'_>) -> Result<usize> {
    let setting = Setting { value_ns: u64::from(call.uint(0)) * NS_PER_SECOND, interval_ns: 0 };
    let old = interval_timer(call.thread, 0)?.set(setting);
    // Rounded to the nearest second, but never to 0 while armed.
    let seconds = (old.value_ns + NS_PER_SECOND / 2) / NS_PER_SECOND;
    Ok(if old.value_ns == 0 { 0 } else { seconds.max(1) as usize })
}

/// `struct sigevent`
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SigEvent {
    value: u64,
    signal: i32,
    notify: i32,
    tid: i32,
    padding: [i32; 11],
}

impl Default for SigEvent {
    fn default() -> SigEvent {
        SigEvent { value: 0, signal: Signal::ALRM.number(), notify: SIGEV_SIGNAL, tid: 0, padding: [0; 11] }
    }
}

const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD: i32 = 2;
const SIGEV_THREAD_ID: i32 = 4;

fn sys_timer_create(call: &mut Call<'_>) -> Result<usize> {
    let (clock, kind) = Clock::find(call.int(0), call.thread)?;
    if kind == Kind::Coarse {
        return err(Errno::EOPNOTSUPP, "no timers on this clock");
    }
    let event: Option<SigEvent> = match call.addr(1) {
        addr if addr.is_null() => None,
        addr => Some(user::read(addr)?),
    };
    let target = event_target(call.thread, event.unwrap_or_default())?;
    let process = call.thread.process();
    let id = process.timers().add(|id| {
        let value = event.map_or(u64::from(id), |event| event.value);
        ProgramTimer::new(clock, target.notice(call.thread, Origin::Posix { id, value }))
    })?;
    if let Err(error) = user::write(call.addr(2), &id) {
        process.timers().remove(id)?;
        return Err(error);
    }
    Ok(0)
}

enum EventTarget {
    Nobody,
    Process(Signal),
    Thread(Arc<Thread>, Signal),
}

fn event_target(caller: &Thread, event: SigEvent) -> Result<EventTarget> {
    if event.notify == SIGEV_NONE {
        return Ok(EventTarget::Nobody);
    }
    let Some(signal) = Signal::new(event.signal) else { return err(Errno::EINVAL, "no such signal") };
    match event.notify {
        SIGEV_SIGNAL | SIGEV_THREAD => Ok(EventTarget::Process(signal)),
        SIGEV_THREAD_ID => {
            let thread = tree::find_thread(event.tid.unsigned_abs());
            let own = thread.filter(|thread| thread.process().pid() == caller.process().pid());
            match own {
                Some(thread) => Ok(EventTarget::Thread(thread, signal)),
                None => err(Errno::EINVAL, "not a thread of the process"),
            }
        }
        _ => err(Errno::EINVAL, "unknown notification"),
    }
}

impl EventTarget {
    fn notice(&self, caller: &Thread, origin: Origin) -> Notice {
        match self {
            EventTarget::Nobody => Notice::None,
            EventTarget::Process(signal) => {
                Notice::Process(Arc::downgrade(caller.process()), *signal, origin)
            }
            EventTarget::Thread(thread, signal) => {
                Notice::Thread(Arc::downgrade(thread.state()), *signal, origin)
            }
        }
    }
}

fn sys_timer_settime(call: &mut Call<'_>) -> Result<usize> {
    if call.addr(2).is_null() {
        return err(Errno::EINVAL, "no new value");
    }
    let new: TimerSpec = user::read(call.addr(2))?;
    let setting = Setting { value_ns: new.value.to_ns()?, interval_ns: new.interval.to_ns()? };
    let timer = call.thread.process().timers().get(call.uint(0))?;
    let old = match call.uint(1) & TIMER_ABSTIME {
        0 => timer.set(setting),
        _ => timer.set_at(setting.value_ns, setting),
    };
    write_setting(call.addr(3), old)
}

fn sys_timer_gettime(call: &mut Call<'_>) -> Result<usize> {
    let setting = call.thread.process().timers().get(call.uint(0))?.get();
    user::write(call.addr(1), &timer_spec(setting))?;
    Ok(0)
}

fn write_setting(addr: UserAddr, setting: Setting) -> Result<usize> {
    if !addr.is_null() {
        user::write(addr, &timer_spec(setting))?;
    }
    Ok(0)
}

fn timer_spec(setting: Setting) -> TimerSpec {
    TimerSpec {
        interval: TimeSpec::from_ns(setting.interval_ns),
        value: TimeSpec::from_ns(setting.value_ns),
    }
}

fn sys_timer_getoverrun(call: &mut Call<'_>) -> Result<usize> {
    Ok(call.thread.process().timers().get(call.uint(0))?.last_overrun() as usize)
}

fn sys_timer_delete(call: &mut Call<'_>) -> Result<usize> {
    call.thread.process().timers().remove(call.uint(0))?;
    Ok(0)
}
