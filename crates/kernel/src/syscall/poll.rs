//! Waiting for files: poll, select, epoll.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err, interrupted_unless_handled};
use crate::sched::{WaitError, Waiter, Wake, events, timer};
use crate::signal::{self, SigSet};
use crate::time::value::{TimeSpec, TimeVal};
use crate::user::{self, UserAddr, UserSlice};
use crate::vfs::epoll::{self, EPOLLEXCLUSIVE, Epoll, Interest};
use crate::vfs::flags::{O_CLOEXEC, O_RDWR};
use crate::vfs::table::OnExec;
use crate::vfs::{Events, OpenFile};

use Arg::{Fd, Hex, Int, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(7, "poll", &[Ptr, Uint, Int], sys_poll),
    Syscall::full(23, "select", &[Int, Ptr, Ptr, Ptr, Ptr], sys_select),
    Syscall::full(213, "epoll_create", &[Int], sys_epoll_create),
    Syscall::full(232, "epoll_wait", &[Fd, Ptr, Int, Int], sys_epoll_wait),
    Syscall::full(233, "epoll_ctl", &[Fd, Int, Fd, Ptr], sys_epoll_ctl)
        .but("EPOLLWAKEUP does nothing"),
    Syscall::full(270, "pselect6", &[Int, Ptr, Ptr, Ptr, Ptr, Ptr], sys_pselect6),
    Syscall::full(271, "ppoll", &[Ptr, Uint, Ptr, Ptr, Uint], sys_ppoll),
    Syscall::full(281, "epoll_pwait", &[Fd, Ptr, Int, Int, Ptr, Uint], sys_epoll_pwait),
    Syscall::full(291, "epoll_create1", &[Hex], sys_epoll_create1),
    Syscall::full(441, "epoll_pwait2", &[Fd, Ptr, Int, Ptr, Ptr, Uint], sys_epoll_pwait2),
];

/// One file that is polled.
struct Polled {
    /// `None`: skipped, or not open (then `ready` says so).
    file: Option<Arc<OpenFile>>,
    wanted: Events,
    ready: Events,
}

/// Waits until one of `files` is ready or the deadline has passed; says how many are.
fn wait_for(files: &mut [Polled], deadline_ns: Option<u64>) -> Result<usize> {
    let count = check(files, None);
    if count > 0 {
        return Ok(count);
    }
    if deadline_ns.is_some_and(|deadline| timer::now_ns() >= deadline) {
        // Who does not wait asks for what is ready now, not for what the host has told so far.
        events::look();
        return Ok(check(files, None));
    }
    let waiter = Waiter::new();
    let waker: Arc<dyn Wake> = waiter.clone();
    loop {
        let count = check(files, Some(&waker));
        let waited = if count > 0 { Ok(()) } else { waiter.wait(deadline_ns, true) };
        for file in files.iter().filter_map(|polled| polled.file.as_ref()) {
            file.file().forget_waker(&waker);
        }
        match waited {
            _ if count > 0 => return Ok(count),
            Ok(()) => {}
            Err(WaitError::TimedOut) => return Ok(check(files, None)),
            Err(WaitError::Interrupted) => match check(files, None) {
                0 => return Err(interrupted_unless_handled()),
                count => return Ok(count),
            },
        }
    }
}

fn check(files: &mut [Polled], waker: Option<&Arc<dyn Wake>>) -> usize {
    let mut count = 0;
    for polled in files {
        if let Some(file) = &polled.file {
            let always = Events::ERR | Events::HUP;
            polled.ready = file.file().poll(waker).with_twins() & (polled.wanted | always);
        }
        count += usize::from(!polled.ready.is_empty());
    }
    count
}

/// `struct pollfd`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct PollFd {
    fd: i32,
    events: u16,
    ready: u16,
}

fn sys_poll(call: &mut Call<'_>) -> Result<usize> {
    let deadline = match call.int(2) {
        negative if negative < 0 => None,
        ms => Some(call.thread.deadline_after(ms as u64 * 1_000_000)),
    };
    poll(call, deadline)
}

fn sys_ppoll(call: &mut Call<'_>) -> Result<usize> {
    let deadline = relative(call, TimeSpec::read_optional(call.addr(2))?)?;
    replace_mask(call, call.addr(3), call.size(4))?;
    let result = poll(call, deadline);
    give_back_rest(call.addr(2), deadline, TimeSpec::from_ns);
    result
}

fn poll(call: &Call<'_>, deadline: Option<u64>) -> Result<usize> {
    let (addr, count) = (call.addr(0), call.uint(1) as usize);
    if count > call.thread.files().limit().max(call.thread.files().capacity()) {
        return err(Errno::EINVAL, "more descriptors than RLIMIT_NOFILE");
    }
    let mut fds = UserSlice::<PollFd>::new(addr, count).copy_in()?;
    let mut files = reserve(count)?;
    for fd in &fds {
        files.push(to_polled(call, fd.fd, Events(u32::from(fd.events))));
    }
    let ready = wait_for(&mut files, deadline)?;
    for (fd, polled) in fds.iter_mut().zip(&files) {
        fd.ready = polled.ready.0 as u16;
    }
    UserSlice::new(addr, count).copy_out(&fds)?;
    Ok(ready)
}

fn to_polled(call: &Call<'_>, fd: i32, wanted: Events) -> Polled {
    if fd < 0 {
        return Polled { file: None, wanted, ready: Events::NONE };
    }
    match call.thread.files().get_content(fd) {
        Ok(file) => Polled { file: Some(file), wanted, ready: Events::NONE },
        Err(_) => Polled { file: None, wanted, ready: Events::NVAL },
    }
}

fn reserve<T>(count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| Error::new(Errno::ENOMEM, "too many descriptors"))?;
    Ok(list)
}

/// When a relative time-out is over; `None` for ever.
fn relative(call: &Call<'_>, timeout: Option<TimeSpec>) -> Result<Option<u64>> {
    timeout.map(|timeout| Ok(call.thread.deadline_after(timeout.to_ns()?))).transpose()
}

/// Linux writes the time left over back; that it can't is no error.
fn give_back_rest<T: user::Plain>(addr: UserAddr, deadline: Option<u64>, make: fn(u64) -> T) {
    if let Some(deadline) = deadline {
        let rest = deadline.saturating_sub(timer::now_ns());
        let _ = user::write(addr, &make(rest));
    }
}

/// The signal mask argument of ppoll and its kind: holds until the call has returned.
fn replace_mask(call: &Call<'_>, addr: UserAddr, size: usize) -> Result<()> {
    if addr.is_null() {
        return Ok(());
    }
    if size != size_of::<u64>() {
        return err(Errno::EINVAL, "size of the signal set");
    }
    signal::mask::set_temporary(call.thread, SigSet(user::read::<u64>(addr)?));
    Ok(())
}

fn sys_select(call: &mut Call<'_>) -> Result<usize> {
    let addr = call.addr(4);
    let deadline = match addr.is_null() {
        true => None,
        false => {
            let timeout: TimeVal = user::read(addr)?;
            // Linux carries microseconds of a second and more over; only negative values are wrong.
            if timeout.seconds < 0 || timeout.microseconds < 0 {
                return err(Errno::EINVAL, "negative time-out");
            }
            let ns = (timeout.seconds as u64).saturating_mul(1_000_000_000);
            let ns = ns.saturating_add((timeout.microseconds as u64).saturating_mul(1000));
            Some(call.thread.deadline_after(ns))
        }
    };
    let result = select(call, deadline);
    give_back_rest(addr, deadline, TimeVal::from_ns);
    result
}

fn sys_pselect6(call: &mut Call<'_>) -> Result<usize> {
    let deadline = relative(call, TimeSpec::read_optional(call.addr(4))?)?;
    if !call.addr(5).is_null() {
        let [set, size] = user::read::<[u64; 2]>(call.addr(5))?;
        replace_mask(call, UserAddr(set as usize), size as usize)?;
    }
    let result = select(call, deadline);
    give_back_rest(call.addr(4), deadline, TimeSpec::from_ns);
    result
}

/// What the three sets of select(2) stand for.
const SETS: [Events; 3] = [
    Events(Events::IN.0 | Events::HUP.0 | Events::ERR.0),
    Events(Events::OUT.0 | Events::ERR.0),
    Events::PRI,
];

fn select(call: &Call<'_>, deadline: Option<u64>) -> Result<usize> {
    let Ok(count) = usize::try_from(call.int(0)) else {
        return err(Errno::EINVAL, "negative number of descriptors");
    };
    let count = count.min(call.thread.files().capacity());
    let words = count.div_ceil(64);
    let addrs = [call.addr(1), call.addr(2), call.addr(3)];
    let mut sets = [vec![], vec![], vec![]];
    for (set, addr) in sets.iter_mut().zip(addrs) {
        *set = if addr.is_null() { vec![0; words] } else { UserSlice::<u64>::new(addr, words).copy_in()? };
    }
    let (fds, mut files) = to_select(call, &sets, count)?;
    wait_for(&mut files, deadline)?;
    let mut ready = 0;
    let mut results = [vec![0u64; words], vec![0; words], vec![0; words]];
    for (fd, polled) in fds.into_iter().zip(&files) {
        for (index, meaning) in SETS.iter().enumerate() {
            let is_asked = sets[index][fd / 64] >> (fd % 64) & 1 != 0;
            if is_asked && polled.ready.has(*meaning) {
                results[index][fd / 64] |= 1 << (fd % 64);
                ready += 1;
            }
        }
    }
    for (result, addr) in results.iter().zip(addrs) {
        if !addr.is_null() {
            UserSlice::new(addr, words).copy_out(result)?;
        }
    }
    Ok(ready)
}

/// The descriptors in any of the sets; EBADF if one is not open.
fn to_select(call: &Call<'_>, sets: &[Vec<u64>; 3], count: usize) -> Result<(Vec<usize>, Vec<Polled>)> {
    let (mut fds, mut files) = (Vec::new(), Vec::new());
    for fd in 0..count {
        let is_in = |set: &Vec<u64>| set[fd / 64] >> (fd % 64) & 1 != 0;
        let mut wanted = Events::NONE;
        for (set, meaning) in sets.iter().zip(SETS) {
            if is_in(set) {
                wanted |= meaning;
            }
        }
        if wanted.is_empty() {
            continue;
        }
        let file = call.thread.files().get_content(fd as i32)?;
        // Errors and hang-ups count only where the sets ask for them.
        fds.push(fd);
        files.push(Polled { file: Some(file), wanted, ready: Events::NONE });
    }
    Ok((fds, files))
}

fn sys_epoll_create(call: &mut Call<'_>) -> Result<usize> {
    if call.int(0) <= 0 {
        return err(Errno::EINVAL, "size");
    }
    epoll_create(call, 0)
}

fn sys_epoll_create1(call: &mut Call<'_>) -> Result<usize> {
    epoll_create(call, call.uint(0))
}

fn epoll_create(call: &Call<'_>, flags: u32) -> Result<usize> {
    if flags & !O_CLOEXEC != 0 {
        return err(Errno::EINVAL, "flags");
    }
    let file = OpenFile::new(Epoll::new(), O_RDWR);
    let on_exec = OnExec::when(flags & O_CLOEXEC != 0);
    Ok(call.thread.files().insert(file, on_exec)? as usize)
}

/// Bytes of `struct epoll_event`, which is packed: events 4, data 8.
const EVENT_SIZE: usize = 12;

fn sys_epoll_ctl(call: &mut Call<'_>) -> Result<usize> {
    const ADD: u32 = 1;
    const DEL: u32 = 2;
    const MOD: u32 = 3;
    let operation = call.uint(1);
    let interest = match operation {
        DEL => Interest::default(),
        _ => {
            let mut raw = [0; EVENT_SIZE];
            user::read_bytes(call.addr(3), &mut raw)?;
            parse_event(&raw)
        }
    };
    let files = call.thread.files();
    let watcher = files.get(call.int(0))?;
    let (fd, file) = (call.int(2), files.get(call.int(2))?);
    if file.is_path_only() || watcher.is_path_only() {
        return err(Errno::EBADF, "O_PATH descriptor");
    }
    let Some(epoll) = epoll::as_epoll(&watcher) else { return err(Errno::EINVAL, "not an epoll") };
    if Arc::ptr_eq(&watcher, &file) {
        return err(Errno::EINVAL, "an epoll that watches itself");
    }
    if interest.events & EPOLLEXCLUSIVE != 0 && operation != DEL {
        check_exclusive(operation == ADD, &file, interest.events)?;
    }
    match operation {
        ADD => epoll.add(fd, &file, interest)?,
        MOD => epoll.modify(fd, &file, interest)?,
        DEL => epoll.remove(fd, &file)?,
        _ => return err(Errno::EINVAL, "unknown operation"),
    }
    Ok(0)
}

/// EPOLLEXCLUSIVE can be added only, to files other than epolls, and with few other bits.
fn check_exclusive(is_add: bool, file: &Arc<OpenFile>, events: u32) -> Result<()> {
    const ALLOWED: u32 = 0x1 | 0x4 | 0x8 | 0x10 | EPOLLEXCLUSIVE | epoll::EPOLLWAKEUP | epoll::EPOLLET;
    if !is_add || events & !ALLOWED != 0 || epoll::as_epoll(file).is_some() {
        return err(Errno::EINVAL, "EPOLLEXCLUSIVE where it has no meaning");
    }
    Ok(())
}

fn parse_event(raw: &[u8; EVENT_SIZE]) -> Interest {
    let [e0, e1, e2, e3, data @ ..] = *raw;
    Interest { events: u32::from_le_bytes([e0, e1, e2, e3]), data: u64::from_le_bytes(data) }
}

fn sys_epoll_wait(call: &mut Call<'_>) -> Result<usize> {
    let deadline = milliseconds(call);
    epoll_wait(call, deadline)
}

fn sys_epoll_pwait(call: &mut Call<'_>) -> Result<usize> {
    let deadline = milliseconds(call);
    replace_mask(call, call.addr(4), call.size(5))?;
    epoll_wait(call, deadline)
}

fn sys_epoll_pwait2(call: &mut Call<'_>) -> Result<usize> {
    let deadline = relative(call, TimeSpec::read_optional(call.addr(3))?)?;
    replace_mask(call, call.addr(4), call.size(5))?;
    epoll_wait(call, deadline)
}

fn milliseconds(call: &Call<'_>) -> Option<u64> {
    let ms = u64::try_from(call.int(3)).ok()?;
    Some(timer::now_ns().saturating_add(ms * 1_000_000))
}

/// Events given at once.
const MAX_EVENTS: usize = 65_536;

fn epoll_wait(call: &Call<'_>, deadline: Option<u64>) -> Result<usize> {
    let max = call.int(2);
    if max <= 0 || max as usize > i32::MAX as usize / EVENT_SIZE {
        return err(Errno::EINVAL, "maxevents");
    }
    let watcher = call.thread.files().get_content(call.int(0))?;
    let Some(epoll) = epoll::as_epoll(&watcher) else { return err(Errno::EINVAL, "not an epoll") };
    let found = match epoll.wait((max as usize).min(MAX_EVENTS), deadline) {
        // epoll_wait is never restarted.
        Err(error) if error.errno == Errno::EINTR => return err(Errno::EINTR, "a signal came"),
        found => found?,
    };
    let mut raw = Vec::with_capacity(found.len() * EVENT_SIZE);
    for (events, data) in &found {
        raw.extend_from_slice(&events.0.to_le_bytes());
        raw.extend_from_slice(&data.to_le_bytes());
    }
    user::write_bytes(call.addr(1), &raw)?;
    Ok(found.len())
}
