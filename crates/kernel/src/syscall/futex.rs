//! futex(2).

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Result, err};
use crate::futex::{self, MATCH_ANY, pi};
use crate::time::clock::Clock;
use crate::time::value::TimeSpec;
use crate::user::{UserAddr, UserSlice};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(202, "futex", &[Arg::Ptr, Arg::Hex, Arg::Uint, Arg::Ptr, Arg::Ptr, Arg::Hex], sys_futex)
        .but("no WAIT_REQUEUE_PI and CMP_REQUEUE_PI; pi locks inherit no priority, for there are none"),
    Syscall::full(449, "futex_waitv", &[Arg::Ptr, Arg::Uint, Arg::Hex, Arg::Ptr, Arg::Int], sys_futex_waitv),
];

/// `struct futex_waitv`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct WaitWord {
    expected: u64,
    addr: u64,
    flags: u32,
    reserved: u32,
}

fn sys_futex_waitv(call: &mut Call<'_>) -> Result<usize> {
    const COUNT_MAX: u32 = 128;
    const FUTEX_32: u32 = 2;
    if call.uint(2) != 0 || call.uint(1) == 0 || call.uint(1) > COUNT_MAX || call.addr(0).is_null() {
        return err(Errno::EINVAL, "flags or count");
    }
    let deadline = match TimeSpec::read_optional(call.addr(3))? {
        None => None,
        Some(time) => Some(match call.int(4) {
            0 => Clock::Realtime.to_monotonic(time.to_ns()?),
            1 => time.to_ns()?,
            _ => return err(Errno::EINVAL, "clock"),
        }),
    };
    let words = UserSlice::<WaitWord>::new(call.addr(0), call.uint(1) as usize).copy_in()?;
    let mut wanted = alloc::vec::Vec::new();
    for word in &words {
        let is_wrong = word.flags & !FUTEX_PRIVATE_FLAG != FUTEX_32
            || word.reserved != 0
            || !word.addr.is_multiple_of(4)
            || word.expected > u64::from(u32::MAX);
        if is_wrong {
            return err(Errno::EINVAL, "a word of futex_waitv");
        }
        wanted.push((UserAddr(word.addr as usize), word.expected as u32));
    }
    futex::wait_any(&wanted, deadline)
}

const FUTEX_WAIT: u32 = 0;
const FUTEX_WAKE: u32 = 1;
const FUTEX_REQUEUE: u32 = 3;
const FUTEX_CMP_REQUEUE: u32 = 4;
const FUTEX_WAKE_OP: u32 = 5;
const FUTEX_LOCK_PI: u32 = 6;
const FUTEX_UNLOCK_PI: u32 = 7;
const FUTEX_TRYLOCK_PI: u32 = 8;
const FUTEX_WAIT_BITSET: u32 = 9;
const FUTEX_WAKE_BITSET: u32 = 10;
const FUTEX_LOCK_PI2: u32 = 13;

const FUTEX_PRIVATE_FLAG: u32 = 128;
const FUTEX_CLOCK_REALTIME: u32 = 256;

fn sys_futex(call: &mut Call<'_>) -> Result<usize> {
    let options = call.uint(1);
    let operation = options & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    let takes_clock = matches!(operation, FUTEX_WAIT_BITSET | FUTEX_LOCK_PI2 | FUTEX_WAIT);
    if options & FUTEX_CLOCK_REALTIME != 0 && !takes_clock {
        return err(Errno::ENOSYS, "FUTEX_CLOCK_REALTIME with another operation");
    }
    let (addr, value) = (call.addr(0), call.uint(2));
    match operation {
        FUTEX_WAIT => wait(call, MATCH_ANY),
        FUTEX_WAIT_BITSET => wait(call, bitset(call)?),
        FUTEX_WAKE => futex::wake(addr, count(value), MATCH_ANY),
        FUTEX_WAKE_BITSET => futex::wake(addr, count(value), bitset(call)?),
        FUTEX_REQUEUE => requeue(call, None),
        FUTEX_CMP_REQUEUE => requeue(call, Some(call.uint(5))),
        FUTEX_WAKE_OP => wake_op(call),
        FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => {
            let is_realtime = operation == FUTEX_LOCK_PI || options & FUTEX_CLOCK_REALTIME != 0;
            let clock = if is_realtime { Clock::Realtime } else { Clock::Monotonic };
            let deadline = TimeSpec::read_optional(call.addr(3))?.map(TimeSpec::to_ns).transpose()?;
            pi::lock(addr, call.thread.tid(), deadline.map(|at| clock.to_monotonic(at)))?;
            Ok(0)
        }
        FUTEX_UNLOCK_PI => pi::unlock(addr, call.thread.tid()).map(|()| 0),
        FUTEX_TRYLOCK_PI => pi::try_lock(addr, call.thread.tid()).map(|()| 0),
        _ => err(Errno::ENOSYS, "unknown futex operation"),
    }
}

fn bitset(call: &Call<'_>) -> Result<u32> {
    match call.uint(5) {
        0 => err(Errno::EINVAL, "empty bitset"),
        bits => Ok(bits),
    }
}

/// A count of waiters: a C int whose negative values mean, as on Linux, "one".
fn count(value: u32) -> usize {
    match value as i32 {
        count if count <= 0 => 1,
        count => count as usize,
    }
}

fn wait(call: &Call<'_>, bits: u32) -> Result<usize> {
    let options = call.uint(1);
    let deadline = match TimeSpec::read_optional(call.addr(3))? {
        None => None,
        Some(time) => {
            let ns = time.to_ns()?;
            let is_relative = options & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME) == FUTEX_WAIT;
            Some(if is_relative {
                call.thread.deadline_after(ns)
            } else if options & FUTEX_CLOCK_REALTIME != 0 {
                Clock::Realtime.to_monotonic(ns)
            } else {
                ns
            })
        }
    };
    futex::wait(call.addr(0), call.uint(2), bits, deadline)?;
    Ok(0)
}

fn requeue(call: &Call<'_>, expected: Option<u32>) -> Result<usize> {
    let (to_wake, to_move) = (call.int(2), call.int(3));
    let (Ok(to_wake), Ok(to_move)) = (usize::try_from(to_wake), usize::try_from(to_move)) else {
        return err(Errno::EINVAL, "negative count");
    };
    let (woken, moved) = futex::requeue(call.addr(0), call.addr(4), to_wake, to_move, expected)?;
    // FUTEX_REQUEUE tells of the woken ones only.
    Ok(if expected.is_some() { woken + moved } else { woken })
}

fn wake_op(call: &Call<'_>) -> Result<usize> {
    let code = call.uint(5);
    let field = |shift: u32, bits: u32| (code >> shift) & ((1 << bits) - 1);
    let sign_extend = |value: u32| ((value << 20) as i32 >> 20) as u32;
    let shifts = field(28, 4) & 8 != 0;
    let raw = sign_extend(field(12, 12));
    let operand = if shifts { 1u32 << (raw & 31) } else { raw };
    let against = sign_extend(field(0, 12)) as i32;
    let (operation, comparison) = (field(28, 4) & 7, field(24, 4));
    if operation > 4 || comparison > 5 {
        return err(Errno::ENOSYS, "unknown operation or comparison");
    }
    let change = |old: u32| match operation {
        0 => operand,
        1 => old.wrapping_add(operand),
        2 => old | operand,
        3 => old & !operand,
        _ => old ^ operand,
    };
    let test = |old: u32| {
        let old = old as i32;
        match comparison {
            0 => old == against,
            1 => old != against,
            2 => old < against,
            3 => old <= against,
            4 => old > against,
            _ => old >= against,
        }
    };
    // The second count travels where other operations have their time-out.
    let counts = (count(call.uint(2)), count(call.uint(3)));
    futex::wake_op(call.addr(0), call.addr(4), counts, change, test)
}
