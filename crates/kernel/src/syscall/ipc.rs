//! System V interprocess communication: shared memory, semaphores, message queues.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arg, Call, Syscall};
use crate::error::{Errno, Error, Result, err};
use crate::ipc::memory::{self, Attach, Segment};
use crate::ipc::message::{self, Message, Queue, Wanted};
use crate::ipc::object::{IPC_NOWAIT, MAY_READ, MAY_WRITE, Object, Permissions, Request};
use crate::ipc::semaphore::{self, Operation, Set, WaitsFor};
use crate::mm::{Fixed, PAGE_SIZE, Prot};
use crate::process::credentials::Capability;
use crate::time::value::TimeSpec;
use crate::user::{self, UserSlice};

use Arg::{Hex, Int, Ptr, Uint};

pub(super) const CALLS: &[Syscall] = &[
    Syscall::full(29, "shmget", &[Hex, Uint, Hex], sys_shmget).but("no huge pages (SHM_HUGETLB)"),
    Syscall::full(30, "shmat", &[Int, Ptr, Hex], sys_shmat)
        .but("all processes see a segment at one address, and a second attach gives it again"),
    Syscall::full(31, "shmctl", &[Int, Int, Ptr], sys_shmctl).but("the end of a process sets no shm_dtime"),
    Syscall::full(64, "semget", &[Hex, Int, Hex], sys_semget),
    Syscall::full(65, "semop", &[Int, Ptr, Uint], sys_semop),
    Syscall::full(66, "semctl", &[Int, Int, Int, Ptr], sys_semctl),
    Syscall::full(67, "shmdt", &[Ptr], sys_shmdt),
    Syscall::full(68, "msgget", &[Hex, Hex], sys_msgget),
    Syscall::full(69, "msgsnd", &[Int, Ptr, Uint, Hex], sys_msgsnd),
    Syscall::full(70, "msgrcv", &[Int, Ptr, Uint, Int, Hex], sys_msgrcv),
    Syscall::full(71, "msgctl", &[Int, Int, Ptr], sys_msgctl),
    Syscall::full(220, "semtimedop", &[Int, Ptr, Uint, Ptr], sys_semtimedop),
];

const IPC_RMID: i32 = 0;
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
const IPC_INFO: i32 = 3;

fn pid(call: &Call<'_>) -> u32 {
    call.thread.process().pid()
}

// Shared memory.

const SHM_RDONLY: i32 = 0o10000;
const SHM_RND: i32 = 0o20000;
const SHM_REMAP: i32 = 0o40000;
const SHM_EXEC: i32 = 0o100000;
const SHM_HUGETLB: i32 = 0o4000;
const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

/// `struct shmid64_ds`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SegmentStatus {
    permissions: Permissions,
    size: u64,
    attached_s: i64,
    detached_s: i64,
    changed_s: i64,
    creator: u32,
    last_pid: u32,
    attach_count: u64,
    unused: [u64; 2],
}

fn sys_shmget(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.int(2);
    if flags & SHM_HUGETLB != 0 {
        return err(Errno::ENOMEM, "no pool of huge pages");
    }
    let who = call.thread.credentials();
    let request = Request { key: call.int(0), flags, who: &who };
    Ok(memory::get(&request, call.size(1), pid(call))? as usize)
}

fn sys_shmat(call: &mut Call<'_>) -> Result<usize> {
    let flags = call.int(2);
    let how = Attach { addr: attach_address(call.size(1), flags)?, fixed: attach_fixed(call, flags)?, prot: attach_prot(flags) };
    let segment = memory::find(call.int(0))?;
    let wanted = if flags & SHM_RDONLY != 0 { MAY_READ } else { MAY_READ | MAY_WRITE };
    let wanted = if flags & SHM_EXEC != 0 { wanted | 0o111 } else { wanted };
    segment.inner.lock().permissions.check(&call.thread.credentials(), wanted)?;
    memory::attach(&segment, call.thread.space(), &how, pid(call))
}

fn attach_address(addr: usize, flags: i32) -> Result<Option<usize>> {
    if addr == 0 {
        return if flags & SHM_REMAP != 0 { err(Errno::EINVAL, "SHM_REMAP without address") } else { Ok(None) };
    }
    let aligned = addr & !(PAGE_SIZE - 1);
    if aligned != addr && flags & SHM_RND == 0 {
        return err(Errno::EINVAL, "address not page-aligned");
    }
    if aligned == 0 {
        return err(Errno::EINVAL, "address 0");
    }
    Ok(Some(aligned))
}

fn attach_fixed(call: &Call<'_>, flags: i32) -> Result<Fixed> {
    Ok(match call.size(1) {
        0 => Fixed::No,
        _ if flags & SHM_REMAP != 0 => Fixed::Replace,
        _ => Fixed::NoReplace,
    })
}

fn attach_prot(flags: i32) -> Prot {
    let prot = if flags & SHM_RDONLY != 0 { Prot::READ } else { Prot::READ_WRITE };
    if flags & SHM_EXEC != 0 { prot.union(Prot::EXEC) } else { prot }
}

fn sys_shmdt(call: &mut Call<'_>) -> Result<usize> {
    memory::detach(call.thread.space(), call.size(0), pid(call)).map(|()| 0)
}

fn sys_shmctl(call: &mut Call<'_>) -> Result<usize> {
    let (id, command) = (call.int(0), call.int(1));
    if id < 0 || command < 0 {
        return err(Errno::EINVAL, "negative id or command");
    }
    let who = call.thread.credentials();
    match command {
        IPC_INFO => memory_limits(call),
        SHM_INFO => memory_info(call),
        SHM_STAT | SHM_STAT_ANY => {
            let segment = memory::SEGMENTS.at_index(id)?;
            if command == SHM_STAT {
                segment.inner.lock().permissions.check(&who, MAY_READ)?;
            }
            user::write(call.addr(2), &segment_status(&segment))?;
            Ok(segment.id as usize)
        }
        IPC_STAT => {
            let segment = memory::find(id)?;
            segment.inner.lock().permissions.check(&who, MAY_READ)?;
            user::write(call.addr(2), &segment_status(&segment)).map(|()| 0)
        }
        IPC_SET => {
            let new: SegmentStatus = user::read(call.addr(2))?;
            let segment = memory::find(id)?;
            let mut inner = segment.inner.lock();
            inner.permissions.check_owner(&who)?;
            inner.permissions.set(&new.permissions)?;
            inner.state.changed_s = crate::ipc::object::now_s();
            Ok(0)
        }
        IPC_RMID => {
            let segment = memory::find(id)?;
            segment.inner.lock().permissions.check_owner(&who)?;
            memory::remove(&segment);
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => lock_segment(call, id, command),
        _ => err(Errno::EINVAL, "unknown command"),
    }
}

/// Nothing is ever swapped: only the mark changes.
fn lock_segment(call: &Call<'_>, id: i32, command: i32) -> Result<usize> {
    let segment = memory::find(id)?;
    let mut inner = segment.inner.lock();
    inner.permissions.check_owner(&call.thread.credentials())?;
    match command {
        SHM_LOCK => inner.permissions.mode |= memory::SHM_LOCKED,
        _ => inner.permissions.mode &= !memory::SHM_LOCKED,
    }
    Ok(0)
}

fn segment_status(segment: &Object<Segment>) -> SegmentStatus {
    let attach_count = memory::attach_count(segment) as u64;
    let inner = segment.inner.lock();
    let state = &inner.state;
    SegmentStatus {
        permissions: inner.permissions,
        size: state.size as u64,
        attached_s: state.attached_s,
        detached_s: state.detached_s,
        changed_s: state.changed_s,
        creator: state.creator,
        last_pid: state.last_pid,
        attach_count,
        unused: [0; 2],
    }
}

/// `struct shminfo64`: shmmax, shmmin, shmmni, shmseg, shmall.
fn memory_limits(call: &Call<'_>) -> Result<usize> {
    let huge = u64::MAX - (1 << 24);
    let count = memory::SEGMENTS_MAX as u64;
    user::write(call.addr(2), &[huge, 1, count, count, huge, 0, 0, 0, 0])?;
    Ok(memory::SEGMENTS.last_index())
}

/// `struct shm_info`: used_ids, shm_tot, shm_rss, shm_swp, swap_attempts, swap_successes.
fn memory_info(call: &Call<'_>) -> Result<usize> {
    let all = memory::SEGMENTS.all();
    let pages: usize = all.iter().map(|each| each.inner.lock().state.size.div_ceil(PAGE_SIZE)).sum();
    user::write(call.addr(2), &[all.len() as u64, pages as u64, pages as u64, 0, 0, 0])?;
    Ok(memory::SEGMENTS.last_index())
}

// Semaphores.

const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

/// `struct semid64_ds` of x86-64.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SetStatus {
    permissions: Permissions,
    operated_s: i64,
    unused_1: u64,
    changed_s: i64,
    unused_2: u64,
    count: u64,
    unused_3: [u64; 2],
}

fn sys_semget(call: &mut Call<'_>) -> Result<usize> {
    let Ok(count) = usize::try_from(call.int(1)) else { return err(Errno::EINVAL, "negative count") };
    let who = call.thread.credentials();
    let request = Request { key: call.int(0), flags: call.int(2), who: &who };
    Ok(semaphore::get(&request, count)? as usize)
}

fn sys_semop(call: &mut Call<'_>) -> Result<usize> {
    semop(call, None)
}

fn sys_semtimedop(call: &mut Call<'_>) -> Result<usize> {
    let timeout = TimeSpec::read_optional(call.addr(3))?;
    semop(call, timeout)
}

fn semop(call: &Call<'_>, timeout: Option<TimeSpec>) -> Result<usize> {
    let (id, count) = (call.int(0), call.uint(2) as usize);
    if count == 0 || id < 0 {
        return err(Errno::EINVAL, "no operation, or a negative id");
    }
    if count > semaphore::OPERATIONS_MAX {
        return err(Errno::E2BIG, "too many operations");
    }
    let operations = UserSlice::<Operation>::new(call.addr(1), count).copy_in()?;
    let timeout_ns = timeout.map(TimeSpec::to_ns).transpose()?;
    let set = semaphore::SETS.find(id)?;
    let deadline = timeout_ns.map(|ns| crate::sched::timer::now_ns().saturating_add(ns));
    semaphore::operate(&set, &operations, &call.thread.credentials(), pid(call), deadline)?;
    Ok(0)
}

fn sys_semctl(call: &mut Call<'_>) -> Result<usize> {
    let (id, command) = (call.int(0), call.int(2));
    if id < 0 {
        return err(Errno::EINVAL, "negative id");
    }
    let who = call.thread.credentials();
    match command {
        IPC_INFO | SEM_INFO => semaphore_limits(call, command),
        SEM_STAT | SEM_STAT_ANY => {
            let set = semaphore::SETS.at_index(id)?;
            if command == SEM_STAT {
                set.inner.lock().permissions.check(&who, MAY_READ)?;
            }
            user::write(call.addr(3), &set_status(&set))?;
            Ok(set.id as usize)
        }
        IPC_STAT => {
            let set = semaphore::SETS.find(id)?;
            set.inner.lock().permissions.check(&who, MAY_READ)?;
            user::write(call.addr(3), &set_status(&set)).map(|()| 0)
        }
        IPC_SET => {
            let new: SetStatus = user::read(call.addr(3))?;
            let set = semaphore::SETS.find(id)?;
            let mut inner = set.inner.lock();
            inner.permissions.check_owner(&who)?;
            inner.permissions.set(&new.permissions)?;
            inner.state.changed_s = crate::ipc::object::now_s();
            Ok(0)
        }
        IPC_RMID => {
            let set = semaphore::SETS.find(id)?;
            set.inner.lock().permissions.check_owner(&who)?;
            semaphore::remove(&set);
            Ok(0)
        }
        GETALL | SETALL => all_values(call, id, command),
        GETPID | GETVAL | GETNCNT | GETZCNT => get_value(call, id, command),
        SETVAL => set_value(call, id),
        _ => err(Errno::EINVAL, "unknown command"),
    }
}

fn set_status(set: &Object<Set>) -> SetStatus {
    let inner = set.inner.lock();
    SetStatus {
        permissions: inner.permissions,
        operated_s: inner.state.operated_s,
        changed_s: inner.state.changed_s,
        count: inner.state.semaphores.len() as u64,
        ..SetStatus::default()
    }
}

fn all_values(call: &Call<'_>, id: i32, command: i32) -> Result<usize> {
    let set = semaphore::SETS.find(id)?;
    let who = call.thread.credentials();
    let wanted = if command == GETALL { MAY_READ } else { MAY_WRITE };
    let values: Vec<u16> = {
        let inner = set.inner.lock();
        inner.permissions.check(&who, wanted)?;
        inner.state.semaphores.iter().map(|each| each.value as u16).collect()
    };
    let slice = UserSlice::<u16>::new(call.addr(3), values.len());
    if command == GETALL {
        return slice.copy_out(&values).map(|()| 0);
    }
    let values = slice.copy_in()?;
    if values.iter().any(|&value| i32::from(value) > semaphore::VALUE_MAX) {
        return err(Errno::ERANGE, "value above SEMVMX");
    }
    let mut inner = set.inner.lock();
    inner.check_alive()?;
    inner.state.set_values(&values, pid(call));
    drop(inner);
    set.changed.wake_all();
    Ok(0)
}

fn get_value(call: &Call<'_>, id: i32, command: i32) -> Result<usize> {
    let set = semaphore::SETS.find(id)?;
    let inner = set.inner.lock();
    inner.permissions.check(&call.thread.credentials(), MAY_READ)?;
    let index = semaphore_index(call, &inner.state)?;
    let semaphore = inner.state.semaphores[index];
    Ok(match command {
        GETVAL => semaphore.value as usize,
        GETPID => semaphore.pid as usize,
        GETNCNT => inner.state.waiting(index, WaitsFor::Increase),
        _ => inner.state.waiting(index, WaitsFor::Zero),
    })
}

fn set_value(call: &Call<'_>, id: i32) -> Result<usize> {
    let value = call.int(3);
    if !(0..=semaphore::VALUE_MAX).contains(&value) {
        return err(Errno::ERANGE, "value above SEMVMX");
    }
    let set = semaphore::SETS.find(id)?;
    let mut inner = set.inner.lock();
    let index = semaphore_index(call, &inner.state)?;
    inner.permissions.check(&call.thread.credentials(), MAY_WRITE)?;
    inner.state.set_value(index, value, pid(call));
    drop(inner);
    set.changed.wake_all();
    Ok(0)
}

fn semaphore_index(call: &Call<'_>, set: &Set) -> Result<usize> {
    match usize::try_from(call.int(1)) {
        Ok(index) if index < set.semaphores.len() => Ok(index),
        _ => err(Errno::EINVAL, "no such semaphore"),
    }
}

/// `struct seminfo`: semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz, semvmx, semaem.
fn semaphore_limits(call: &Call<'_>, command: i32) -> Result<usize> {
    let (sets, each) = (semaphore::SETS_MAX as i32, semaphore::SEMAPHORES_MAX as i32);
    let all = sets.saturating_mul(each);
    let operations = semaphore::OPERATIONS_MAX as i32;
    let mut info = [all, sets, all, all, each, operations, operations, 20, semaphore::VALUE_MAX, semaphore::VALUE_MAX];
    if command == SEM_INFO {
        let used = semaphore::SETS.all();
        info[7] = used.len() as i32;
        info[9] = used.iter().map(|set| set.inner.lock().state.semaphores.len() as i32).sum();
    }
    user::write(call.addr(3), &info)?;
    Ok(semaphore::SETS.last_index())
}

// Message queues.

const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;

/// `struct msqid64_ds`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct QueueStatus {
    permissions: Permissions,
    sent_s: i64,
    received_s: i64,
    changed_s: i64,
    size: u64,
    len: u64,
    max_size: u64,
    last_sender: u32,
    last_receiver: u32,
    unused: [u64; 2],
}

fn sys_msgget(call: &mut Call<'_>) -> Result<usize> {
    let who = call.thread.credentials();
    let request = Request { key: call.int(0), flags: call.int(1), who: &who };
    Ok(message::get(&request)? as usize)
}

fn sys_msgsnd(call: &mut Call<'_>) -> Result<usize> {
    let kind: i64 = user::read(call.addr(1))?;
    let size = call.size(2);
    if size > message::MESSAGE_MAX || call.int(0) < 0 || kind < 1 {
        return err(Errno::EINVAL, "size, id or type");
    }
    let data = UserSlice::<u8>::new(call.addr(1).offset(8), size).copy_in()?;
    let queue = message::QUEUES.find(call.int(0))?;
    let who = call.thread.credentials();
    message::send(&queue, Message { kind, data }, call.int(3), &who, pid(call)).map(|()| 0)
}

fn sys_msgrcv(call: &mut Call<'_>) -> Result<usize> {
    let wanted = Wanted { kind: call.long(3), size: call.size(2), flags: call.int(4) };
    if call.int(0) < 0 || wanted.size > isize::MAX as usize {
        return err(Errno::EINVAL, "negative id or size");
    }
    if wanted.flags & message::MSG_COPY != 0
        && (wanted.flags & message::MSG_EXCEPT != 0 || wanted.flags & IPC_NOWAIT == 0)
    {
        return err(Errno::EINVAL, "MSG_COPY needs IPC_NOWAIT alone");
    }
    let queue = message::QUEUES.find(call.int(0))?;
    let message = message::receive(&queue, wanted, &call.thread.credentials(), pid(call))?;
    let size = message.data.len().min(wanted.size);
    user::write(call.addr(1), &message.kind)?;
    user::write_bytes(call.addr(1).offset(8), &message.data[..size])?;
    Ok(size)
}

fn sys_msgctl(call: &mut Call<'_>) -> Result<usize> {
    let (id, command) = (call.int(0), call.int(1));
    if id < 0 || command < 0 {
        return err(Errno::EINVAL, "negative id or command");
    }
    let who = call.thread.credentials();
    match command {
        IPC_INFO | MSG_INFO => queue_limits(call, command),
        MSG_STAT | MSG_STAT_ANY => {
            let queue = message::QUEUES.at_index(id)?;
            if command == MSG_STAT {
                queue.inner.lock().permissions.check(&who, MAY_READ)?;
            }
            user::write(call.addr(2), &queue_status(&queue))?;
            Ok(queue.id as usize)
        }
        IPC_STAT => {
            let queue = message::QUEUES.find(id)?;
            queue.inner.lock().permissions.check(&who, MAY_READ)?;
            user::write(call.addr(2), &queue_status(&queue)).map(|()| 0)
        }
        IPC_SET => set_queue(call, id),
        IPC_RMID => {
            let queue = message::QUEUES.find(id)?;
            queue.inner.lock().permissions.check_owner(&who)?;
            message::QUEUES.remove(&queue);
            Ok(0)
        }
        _ => err(Errno::EINVAL, "unknown command"),
    }
}

fn set_queue(call: &Call<'_>, id: i32) -> Result<usize> {
    let new: QueueStatus = user::read(call.addr(2))?;
    let who = call.thread.credentials();
    let queue = message::QUEUES.find(id)?;
    let mut inner = queue.inner.lock();
    inner.permissions.check_owner(&who)?;
    let max_size = usize::try_from(new.max_size).unwrap_or(usize::MAX);
    if max_size > message::QUEUE_BYTES && !who.has(Capability::SysResource) {
        return Err(Error::new(Errno::EPERM, "above MSGMNB"));
    }
    inner.permissions.set(&new.permissions)?;
    inner.state.max_size = max_size;
    inner.state.changed_s = crate::ipc::object::now_s();
    drop(inner);
    queue.changed.wake_all();
    Ok(0)
}

fn queue_status(queue: &Object<Queue>) -> QueueStatus {
    let inner = queue.inner.lock();
    let state = &inner.state;
    QueueStatus {
        permissions: inner.permissions,
        sent_s: state.sent_s,
        received_s: state.received_s,
        changed_s: state.changed_s,
        size: state.size as u64,
        len: state.len() as u64,
        max_size: state.max_size as u64,
        last_sender: state.last_sender,
        last_receiver: state.last_receiver,
        unused: [0; 2],
    }
}

/// `struct msginfo`: msgpool, msgmap, msgmax, msgmnb, msgmni, msgssz, msgtql, msgseg (16 bits).
fn queue_limits(call: &Call<'_>, command: i32) -> Result<usize> {
    let max = message::QUEUES_MAX as i32;
    let bytes = message::QUEUE_BYTES as i32;
    let mut info = [max * bytes / 1024, bytes, message::MESSAGE_MAX as i32, bytes, max, 16, bytes, 0xffff];
    if command == MSG_INFO {
        let queues = message::QUEUES.all();
        info[0] = queues.len() as i32;
        info[1] = queues.iter().map(|queue| queue.inner.lock().state.len() as i32).sum();
        info[6] = queues.iter().map(|queue| queue.inner.lock().state.size as i32).sum();
    }
    user::write(call.addr(2), &info)?;
    Ok(message::QUEUES.last_index())
}
