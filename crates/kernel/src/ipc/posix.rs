//! POSIX message queues (mq_overview(7)): named, bounded, the highest priority first.
//!
//! A queue lives in [`NAMES`] until mq_unlink(3), and in its open files. Each open is a [`QueueFile`], so
//! that a notification ends with the descriptor it was asked for through.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::error::{Errno, Error, Result, err};
use crate::process;
use crate::sched::{SpinLock, Wake};
use crate::signal::{SigInfo, Signal, send_to_process};
use crate::vfs::access::{self, Identity, MAY_READ, MAY_WRITE};
use crate::vfs::file::{File, Wait};
use crate::vfs::pipe::anonymous_ino;
use crate::vfs::poll::{Events, Readiness};
use crate::vfs::{Attr, Kind, Sink};

/// Without attributes (fs.mqueue.msg_default, msgsize_default), which is also what everybody may ask for.
const DEFAULT_COUNT: usize = 10;
const DEFAULT_SIZE: usize = 8192;
/// What CAP_SYS_RESOURCE may ask for (HARD_MSGMAX, HARD_MSGSIZEMAX).
const HARD_COUNT: usize = 65536;
const HARD_SIZE: usize = 16 << 20;
/// fs.mqueue.queues_max
const QUEUES_MAX: usize = 256;
const NAME_MAX: usize = 255;
pub const PRIORITY_MAX: u32 = 32768;

static NAMES: SpinLock<BTreeMap<Vec<u8>, Arc<Queue>>> = SpinLock::new(BTreeMap::new());

/// Bounds of a queue: messages, and bytes in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub count: usize,
    pub size: usize,
}

struct Queue {
    name: Vec<u8>,
    bounds: Bounds,
    attr: Attr,
    state: SpinLock<State>,
    readiness: Readiness,
}

#[derive(Default)]
struct State {
    /// Oldest first, by priority.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    len: usize,
    /// Threads that wait for a message: then nobody is notified.
    receivers: usize,
    notification: Option<Notification>,
}

/// mq_notify(3): told once, when a message comes to the empty queue.
#[derive(Clone, Copy)]
pub struct Notification {
    pub pid: u32,
    /// `None`: registered, but nothing is sent.
    pub signal: Option<(Signal, u64)>,
    /// Address of the open file, to end with it.
    file: usize,
}

/// One open of a queue.
pub struct QueueFile {
    queue: Arc<Queue>,
    ino: u64,
}

/// What mq_open(3) is to do with the name.
pub struct Open<'a> {
    pub name: Vec<u8>,
    pub who: &'a Identity,
    /// MAY_READ and MAY_WRITE bits.
    pub access: u32,
    /// `None` opens what exists.
    pub create: Option<Create>,
}

pub struct Create {
    pub mode: u32,
    pub is_exclusive: bool,
    pub bounds: Option<Bounds>,
    /// CAP_SYS_RESOURCE
    pub is_privileged: bool,
    /// RLIMIT_MSGQUEUE
    pub limit: u64,
}

/// mq_open(3).
pub fn open(request: Open<'_>) -> Result<Arc<QueueFile>> {
    check_name(&request.name)?;
    let mut names = NAMES.lock();
    let queue = match (names.get(&request.name), request.create) {
        (Some(_), Some(create)) if create.is_exclusive => return err(Errno::EEXIST, "the queue exists"),
        (Some(queue), _) => {
            access::check_attr(&queue.attr, request.who, request.access)?;
            queue.clone()
        }
        (None, None) => return err(Errno::ENOENT, "no such queue"),
        (None, Some(_)) if names.len() >= QUEUES_MAX => return err(Errno::ENOSPC, "too many queues"),
        (None, Some(create)) => {
            let queue = Arc::new(Queue::new(request.name.clone(), request.who, &create)?);
            names.insert(request.name, queue.clone());
            queue
        }
    };
    Ok(Arc::new(QueueFile { queue, ino: anonymous_ino() }))
}

/// mq_unlink(3).
pub fn unlink(name: &[u8], who: &Identity) -> Result<()> {
    check_name(name)?;
    let gone = {
        let mut names = NAMES.lock();
        let Some(queue) = names.get(name) else { return err(Errno::ENOENT, "no such queue") };
        if !who.owns(&queue.attr) {
            return err(Errno::EPERM, "not the owner of the queue");
        }
        names.remove(name)
    };
    drop(gone);
    Ok(())
}

fn check_name(name: &[u8]) -> Result<()> {
    match name {
        b"" => err(Errno::ENOENT, "empty name"),
        b"." | b".." => err(Errno::EACCES, "not a name"),
        _ if name.contains(&b'/') => err(Errno::EACCES, "a slash in the name"),
        _ if name.len() > NAME_MAX => err(Errno::ENAMETOOLONG, "name longer than 255 bytes"),
        _ => Ok(()),
    }
}

impl Queue {
    fn new(name: Vec<u8>, who: &Identity, create: &Create) -> Result<Queue> {
        let bounds = create.bounds.unwrap_or(Bounds { count: DEFAULT_COUNT, size: DEFAULT_SIZE });
        let most = if create.is_privileged { (HARD_COUNT, HARD_SIZE) } else { (DEFAULT_COUNT, DEFAULT_SIZE) };
        if bounds.count == 0 || bounds.size == 0 || bounds.count > most.0 || bounds.size > most.1 {
            return err(Errno::EINVAL, "bounds of the queue");
        }
        if bounds.count.saturating_mul(bounds.size) as u64 > create.limit {
            return err(Errno::EMFILE, "RLIMIT_MSGQUEUE");
        }
        let attr = Attr { uid: who.uid, gid: who.gid, ..Attr::anonymous(anonymous_ino(), Kind::Regular, create.mode) };
        let (state, readiness) = (SpinLock::new(State::default()), Readiness::new());
        Ok(Queue { name, bounds, attr, state, readiness })
    }
}

impl QueueFile {
    pub fn bounds(&self) -> Bounds {
        self.queue.bounds
    }

    /// Messages in the queue.
    pub fn len(&self) -> usize {
        self.queue.state.lock().len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// mq_timedsend(3); the deadline is of CLOCK_MONOTONIC.
    pub fn send(&self, data: Vec<u8>, priority: u32, wait: Wait, deadline_ns: Option<u64>) -> Result<()> {
        if data.len() > self.queue.bounds.size {
            return err(Errno::EMSGSIZE, "longer than the queue's messages");
        }
        let mut data = Some(data);
        let notification = self.attempt(wait, deadline_ns, || self.try_send(&mut data, priority))?;
        self.queue.readiness.notify();
        if let Some(notification) = notification {
            notification.deliver();
        }
        Ok(())
    }

    fn try_send(&self, data: &mut Option<Vec<u8>>, priority: u32) -> Option<Option<Notification>> {
        let mut state = self.queue.state.lock();
        if state.len >= self.queue.bounds.count {
            return None;
        }
        let was_empty = state.len == 0;
        state.messages.entry(priority).or_default().extend(data.take());
        state.len += 1;
        let is_told = was_empty && state.receivers == 0;
        Some(if is_told { state.notification.take() } else { None })
    }

    /// mq_timedreceive(3) with room for `size` bytes: the message and its priority.
    pub fn receive(&self, size: usize, wait: Wait, deadline_ns: Option<u64>) -> Result<(Vec<u8>, u32)> {
        if size < self.queue.bounds.size {
            return err(Errno::EMSGSIZE, "less room than the queue's messages may need");
        }
        self.queue.state.lock().receivers += 1;
        let received = self.attempt(wait, deadline_ns, || self.queue.state.lock().take());
        self.queue.state.lock().receivers -= 1;
        let received = received?;
        self.queue.readiness.notify();
        Ok(received)
    }

    fn attempt<R>(
        &self,
        wait: Wait,
        deadline_ns: Option<u64>,
        attempt: impl FnMut() -> Option<R>,
    ) -> Result<R> {
        match wait {
            Wait::Never => self.queue.readiness.wait(wait, attempt),
            Wait::Allowed => self.queue.readiness.wait_until(deadline_ns, attempt),
        }
    }

    /// mq_notify(3); EBUSY if a process that lives has asked before.
    pub fn notify(&self, pid: u32, signal: Option<(Signal, u64)>) -> Result<()> {
        let mut state = self.queue.state.lock();
        let is_taken = state.notification.is_some_and(|other| process::find_process(other.pid).is_some());
        if is_taken {
            return err(Errno::EBUSY, "somebody is notified already");
        }
        state.notification = Some(Notification { pid, signal, file: self.address() });
        Ok(())
    }

    /// mq_notify(3) without an event: takes back what the process asked for.
    pub fn forget_notification(&self, pid: u32) {
        let mut state = self.queue.state.lock();
        if state.notification.is_some_and(|notification| notification.pid == pid) {
            state.notification = None;
        }
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    fn describe_queue(&self) -> String {
        const SIGEV_NONE: u32 = 1;
        let state = self.queue.state.lock();
        let bytes: usize = state.messages.values().flatten().map(Vec::len).sum();
        let (how, signal, pid) = match &state.notification {
            None => (0, 0, 0),
            Some(Notification { signal: Some((signal, _)), pid, .. }) => (0, signal.number(), *pid),
            Some(Notification { pid, .. }) => (SIGEV_NONE, 0, *pid),
        };
        format!("QSIZE:{bytes:<10} NOTIFY:{how:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n")
    }
}

impl State {
    fn take(&mut self) -> Option<(Vec<u8>, u32)> {
        let mut highest = self.messages.last_entry()?;
        let priority = *highest.key();
        let data = highest.get_mut().pop_front();
        if highest.get().is_empty() {
            highest.remove();
        }
        self.len -= 1;
        data.map(|data| (data, priority))
    }
}

impl Notification {
    fn deliver(&self) {
        let Some((signal, value)) = self.signal else { return };
        let Some(target) = process::find_process(self.pid) else { return };
        let sender = process::current();
        let pid = sender.as_ref().map_or(0, |sender| sender.process().pid());
        let uid = sender.as_ref().map_or(0, |sender| sender.credentials().user.real);
        // A full queue of signals loses it, as in Linux.
        let _ = send_to_process(&target, signal, SigInfo::message_queue(signal, pid, uid, value));
    }
}

impl Drop for QueueFile {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if state.notification.is_some_and(|notification| notification.file == self.address()) {
            state.notification = None;
        }
    }
}

impl File for QueueFile {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr { ino: self.ino, ..self.queue.attr })
    }

    fn label(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.queue.name))
    }

    /// A line about the queue, mq_overview(7).
    fn read(&self, offset: u64, sink: &mut Sink<'_>, _wait: Wait) -> Result<()> {
        let text = self.describe_queue();
        let start = usize::try_from(offset).map_or(text.len(), |offset| offset.min(text.len()));
        sink.put(&text.as_bytes()[start..]);
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.queue.readiness.add(waker);
        }
        let len = self.len();
        let mut events = Events::NONE;
        if len > 0 {
            events |= Events::IN;
        }
        if len < self.queue.bounds.count {
            events |= Events::OUT;
        }
        events
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.queue.readiness.remove(waker);
    }
}

/// The access bits of open(2)'s access mode; EINVAL for the fourth value.
pub fn access_bits(mode: u32) -> Result<u32> {
    match mode {
        0 => Ok(MAY_READ),
        1 => Ok(MAY_WRITE),
        2 => Ok(MAY_READ | MAY_WRITE),
        _ => Err(Error::new(Errno::EINVAL, "access mode")),
    }
}
