//! System V message queues (msgget(2), msgsnd(2), msgrcv(2)).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::object::{IPC_NOWAIT, Inner, MAY_READ, MAY_WRITE, Object, Request, Table, now_s};
use crate::error::{Errno, Error, Result, err, interrupted_unless_handled};
use crate::process::Credentials;
use crate::sched::WaitError;

/// MSGMNI, MSGMAX, MSGMNB.
pub const QUEUES_MAX: usize = 32000;
pub const MESSAGE_MAX: usize = 8192;
pub const QUEUE_BYTES: usize = 16384;

/// msgrcv(2)
pub const MSG_NOERROR: i32 = 0o10000;
pub const MSG_EXCEPT: i32 = 0o20000;
pub const MSG_COPY: i32 = 0o40000;

pub static QUEUES: Table<Queue> = Table::new(QUEUES_MAX);

pub struct Queue {
    messages: VecDeque<Message>,
    /// Bytes in all messages, and how many there may be.
    pub size: usize,
    pub max_size: usize,
    pub sent_s: i64,
    pub received_s: i64,
    pub changed_s: i64,
    pub last_sender: u32,
    pub last_receiver: u32,
}

#[derive(Clone)]
pub struct Message {
    pub kind: i64,
    pub data: Vec<u8>,
}

/// What msgrcv(2) takes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// `msgtyp`
    pub kind: i64,
    /// Room for the message's data.
    pub size: usize,
    pub flags: i32,
}

/// msgget(2).
pub fn get(request: &Request<'_>) -> Result<i32> {
    QUEUES.get(request, |_| Ok(()), |_| Ok(Queue::new()))
}

/// msgsnd(2).
pub fn send(queue: &Object<Queue>, message: Message, flags: i32, who: &Credentials, pid: u32) -> Result<()> {
    let mut message = Some(message);
    let sent = wait(queue, flags, Errno::EAGAIN, || {
        let mut inner = queue.inner.lock();
        if let Err(error) = inner.check_alive().and_then(|()| inner.permissions.check(who, MAY_WRITE)) {
            return Some(Err(error));
        }
        inner.state.push(&mut message, pid).then_some(Ok(()))
    });
    sent?;
    queue.changed.wake_all();
    Ok(())
}

/// msgrcv(2).
pub fn receive(queue: &Object<Queue>, wanted: Wanted, who: &Credentials, pid: u32) -> Result<Message> {
    let message = wait(queue, wanted.flags, Errno::ENOMSG, || try_receive(&mut queue.inner.lock(), wanted, who, pid))?;
    queue.changed.wake_all();
    Ok(message)
}

fn try_receive(inner: &mut Inner<Queue>, wanted: Wanted, who: &Credentials, pid: u32) -> Option<Result<Message>> {
    if let Err(error) = inner.check_alive().and_then(|()| inner.permissions.check(who, MAY_READ)) {
        return Some(Err(error));
    }
    let index = inner.state.find(wanted)?;
    let size = inner.state.messages[index].data.len();
    if size > wanted.size && wanted.flags & MSG_NOERROR == 0 {
        return Some(err(Errno::E2BIG, "the message is longer"));
    }
    if wanted.flags & MSG_COPY != 0 {
        return Some(Ok(inner.state.messages[index].clone()));
    }
    inner.state.take(index, pid).map(Ok)
}

/// Tries until `attempt` gives something; `would_block` is the errno of IPC_NOWAIT.
fn wait<T>(
    queue: &Object<Queue>,
    flags: i32,
    would_block: Errno,
    mut attempt: impl FnMut() -> Option<Result<T>>,
) -> Result<T> {
    if let Some(result) = attempt() {
        return result;
    }
    if flags & IPC_NOWAIT != 0 {
        return err(would_block, "would wait");
    }
    match queue.changed.wait_until(None, true, attempt) {
        Ok(result) => result,
        Err(WaitError::Interrupted) => Err(interrupted_unless_handled()),
        Err(WaitError::TimedOut) => Err(Error::new(Errno::EAGAIN, "no time-out was set")),
    }
}

impl Queue {
    fn new() -> Queue {
        Queue {
            messages: VecDeque::new(),
            size: 0,
            max_size: QUEUE_BYTES,
            sent_s: 0,
            received_s: 0,
            changed_s: now_s(),
            last_sender: 0,
            last_receiver: 0,
        }
    }

    /// Messages in the queue.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes the message if there is room.
    fn push(&mut self, message: &mut Option<Message>, pid: u32) -> bool {
        let size = message.as_ref().map_or(0, |message| message.data.len());
        if self.size + size > self.max_size || self.messages.len() + 1 > self.max_size {
            return false;
        }
        self.messages.extend(message.take());
        self.size += size;
        self.sent_s = now_s();
        self.last_sender = pid;
        true
    }

    fn take(&mut self, index: usize, pid: u32) -> Option<Message> {
        let message = self.messages.remove(index)?;
        self.size -= message.data.len();
        self.received_s = now_s();
        self.last_receiver = pid;
        Some(message)
    }

    fn find(&self, wanted: Wanted) -> Option<usize> {
        let kinds = || self.messages.iter().map(|message| message.kind);
        match wanted.kind {
            index if wanted.flags & MSG_COPY != 0 => {
                usize::try_from(index).ok().filter(|&index| index < self.messages.len())
            }
            0 => (!self.messages.is_empty()).then_some(0),
            kind if kind < 0 => {
                let limit = kind.checked_neg().unwrap_or(i64::MAX);
                let lowest = kinds().filter(|&kind| kind <= limit).min()?;
                kinds().position(|kind| kind == lowest)
            }
            kind if wanted.flags & MSG_EXCEPT != 0 => kinds().position(|other| other != kind),
            kind => kinds().position(|other| other == kind),
        }
    }
}
