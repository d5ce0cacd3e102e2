//! A queue of whole messages: datagrams and sequenced packets.
//!
//! Senders put messages into the receiver's mailbox; a full one makes them wait or, for UDP, loses
//! the message. Bytes are copied from and to user memory without any lock held.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use occlum_enclave::time;

use super::Address;
use super::message::{Incoming, MSG_PEEK, MSG_TRUNC, Outgoing, PeerIds, Wanted};
use super::options::Switch;
use super::rights::Rights;
use crate::error::{Errno, Error, Result, err};
use crate::sched::{SpinLock, Wake};
use crate::vfs::poll::Readiness;
use crate::vfs::{Sink, Source};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub struct Mailbox {
    id: u64,
    state: SpinLock<State>,
    pub readers: Arc<Readiness>,
    pub writers: Arc<Readiness>,
    /// The owner has SO_PASSCRED.
    wants_ids: AtomicBool,
    /// The mailbox its owner is connected to: others may not write here. 0 for none.
    peer: AtomicU64,
    /// SO_ERROR of the owner.
    error: AtomicI32,
}

struct State {
    queue: VecDeque<Arc<Message>>,
    /// What the messages cost, as Linux counts buffer memory.
    used: usize,
    is_finished: bool,
    is_refused: bool,
    is_closed: bool,
}

/// How much a mailbox holds.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// In terms of [`Message::cost`].
    pub cost: usize,
    pub messages: usize,
}

pub struct Message {
    pub bytes: Vec<u8>,
    pub from: Option<Address>,
    /// The local address it was sent to, of a UDP datagram.
    pub to: Option<IpAddr>,
    pub rights: Rights,
    pub ids: Option<PeerIds>,
    pub arrival: Arrival,
}

/// How a datagram came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    pub interface: u32,
    /// Hops it had left, and its traffic class, where known.
    pub hops: Option<u8>,
    pub traffic_class: Option<u8>,
    /// CLOCK_REALTIME.
    pub at_ns: u64,
}

impl Arrival {
    pub fn now() -> Arrival {
        Arrival { at_ns: time::realtime_ns(), ..Arrival::default() }
    }
}

/// What became of a message that could not be put.
pub enum Refusal {
    Full,
    /// The receiver reads no more (shutdown).
    Refused,
    /// The receiver is gone.
    Closed,
}

impl Message {
    pub fn new(bytes: Vec<u8>) -> Message {
        Message {
            bytes,
            from: None,
            to: None,
            rights: Rights::default(),
            ids: None,
            arrival: Arrival::default(),
        }
    }

    /// Copies the message in; EFAULT unless all of it can be read.
    pub fn copy_in(source: &mut Source<'_>) -> Result<Message> {
        let size = source.left();
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| Error::new(Errno::ENOBUFS, "message"))?;
        bytes.resize(size, 0);
        let start = source.done();
        let copied = source.drive(|source| {
            let at = source.done() - start;
            source.take(&mut bytes[at..]);
            Ok(())
        })?;
        if copied - start < size {
            return err(Errno::EFAULT, "message not readable");
        }
        Ok(Message::new(bytes))
    }

    /// What Linux would charge for its buffer.
    pub fn cost(&self) -> usize {
        const BUFFER: usize = 256;
        const SHARED_INFO: usize = 320;
        let head = self.bytes.len().next_multiple_of(64) + SHARED_INFO;
        BUFFER + if head <= 8192 { head.next_power_of_two() } else { head }
    }
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox::new()
    }
}

impl Mailbox {
    pub fn new() -> Mailbox {
        Mailbox {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            state: SpinLock::new(State {
                queue: VecDeque::new(),
                used: 0,
                is_finished: false,
                is_refused: false,
                is_closed: false,
            }),
            readers: Arc::new(Readiness::new()),
            writers: Arc::new(Readiness::new()),
            wants_ids: AtomicBool::new(false),
            peer: AtomicU64::new(0),
            error: AtomicI32::new(0),
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    /// Puts `message`, or leaves it where it is.
    pub fn put(&self, message: &mut Option<Message>, limit: Limit) -> core::result::Result<(), Refusal> {
        {
            let mut state = self.state.lock();
            if state.is_closed {
                return Err(Refusal::Closed);
            }
            if state.is_refused {
                return Err(Refusal::Refused);
            }
            if !state.has_room(limit) || state.queue.try_reserve(1).is_err() {
                return Err(Refusal::Full);
            }
            let Some(message) = message.take() else { return Ok(()) };
            state.used += message.cost();
            state.queue.push_back(Arc::new(message));
        }
        self.readers.notify();
        Ok(())
    }

    pub fn has_room(&self, limit: Limit) -> bool {
        self.state.lock().has_room(limit)
    }

    /// Receives one message into `sink`. `None`: none is there.
    pub fn receive(&self, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        self.receive_after(sink, wanted, || ())
    }

    /// The same; before each look `refill` may bring messages from elsewhere.
    pub fn receive_after(
        &self,
        sink: &mut Sink<'_>,
        wanted: &Wanted,
        mut refill: impl FnMut(),
    ) -> Result<Incoming> {
        let message = wanted.patience.wait(&self.readers, || {
            refill();
            self.next(wanted)
        })??;
        match message {
            Some(message) => deliver(&message, sink),
            None => Ok(Incoming::default()),
        }
    }

    /// The next message; the inner `None` is the end.
    fn next(&self, wanted: &Wanted) -> Option<Result<Option<Arc<Message>>>> {
        if let Some(errno) = self.take_error() {
            return Some(err(errno, "the socket failed"));
        }
        let message = {
            let mut state = self.state.lock();
            match state.queue.front() {
                None => return state.is_finished.then_some(Ok(None)),
                Some(message) if wanted.has(MSG_PEEK) => return Some(Ok(Some(message.clone()))),
                Some(_) => {}
            }
            let message = state.queue.pop_front();
            state.used -= message.as_ref().map_or(0, |message| message.cost());
            message
        };
        self.writers.notify();
        Some(Ok(message))
    }

    /// Size of the next message (FIONREAD of datagram sockets).
    pub fn next_size(&self) -> usize {
        self.state.lock().queue.front().map_or(0, |message| message.bytes.len())
    }

    /// Bytes in all messages.
    pub fn all_size(&self) -> usize {
        self.state.lock().queue.iter().map(|message| message.bytes.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    pub fn is_finished(&self) -> bool {
        self.state.lock().is_finished
    }

    /// Nothing more comes; with [`Mailbox::refuse`], senders hear of it.
    pub fn finish(&self) {
        self.state.lock().is_finished = true;
        self.readers.notify();
        self.writers.notify();
    }

    pub fn refuse(&self) {
        self.state.lock().is_refused = true;
        self.finish();
    }

    /// The owner is gone. Says whether messages were left.
    pub fn close(&self) -> bool {
        let left = {
            let mut state = self.state.lock();
            state.is_closed = true;
            state.is_finished = true;
            state.used = 0;
            core::mem::take(&mut state.queue)
        };
        let had_some = !left.is_empty();
        // Outside the lock: a message may hold the last reference to a file.
        drop(left);
        self.readers.notify();
        self.writers.notify();
        had_some
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    pub fn is_refused(&self) -> bool {
        self.state.lock().is_refused
    }

    /// Drops messages of others than the new peer (connect(2) of a datagram socket does).
    pub fn set_peer(&self, peer: u64) {
        self.peer.store(peer, Ordering::Relaxed);
    }

    pub fn peer(&self) -> u64 {
        self.peer.load(Ordering::Relaxed)
    }

    pub fn set_wants_ids(&self, switch: Switch) {
        self.wants_ids.store(switch == Switch::On, Ordering::Relaxed);
    }

    pub fn wants_ids(&self) -> bool {
        self.wants_ids.load(Ordering::Relaxed)
    }

    pub fn take_error(&self) -> Option<Errno> {
        if self.error.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Errno::from_raw(self.error.swap(0, Ordering::Relaxed))
    }

    pub fn has_error(&self) -> bool {
        self.error.load(Ordering::Relaxed) != 0
    }

    pub fn set_error(&self, errno: Errno) {
        self.error.store(errno as i32, Ordering::Relaxed);
        self.readers.notify();
        self.writers.notify();
    }

    pub fn add_waker(&self, waker: &Arc<dyn Wake>) {
        self.readers.add(waker);
    }

    pub fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.readers.remove(waker);
    }
}

impl State {
    fn has_room(&self, limit: Limit) -> bool {
        self.used < limit.cost && self.queue.len() < limit.messages
    }
}

/// Copies a message out, as much as fits.
fn deliver(message: &Message, sink: &mut Sink<'_>) -> Result<Incoming> {
    let (start, room) = (sink.done(), sink.room());
    let count = message.bytes.len().min(room);
    let copied = sink.drive(|sink| {
        let at = sink.done() - start;
        sink.put(&message.bytes[at..]);
        Ok(())
    })?;
    if copied - start < count {
        return err(Errno::EFAULT, "no place for the message");
    }
    Ok(Incoming {
        from: message.from.clone(),
        rights: message.rights.clone(),
        ids: message.ids,
        to: message.to,
        arrival: message.arrival,
        notes: Vec::new(),
        flags: if message.bytes.len() > room { MSG_TRUNC } else { 0 },
        size: message.bytes.len(),
    })
}

/// The ids a message is sent with: told, or asked for.
pub fn ids_for(out: &Outgoing, is_asked: bool) -> Option<PeerIds> {
    out.ids.or_else(|| is_asked.then(PeerIds::current))
}
