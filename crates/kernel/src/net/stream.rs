//! Two ends that exchange bytes inside the enclave: connected AF_UNIX streams and loopback TCP.
//!
//! A [`Connection`] has two lanes, one for each direction; an [`End`] reads one and writes the other.
//! A lane is a ring of bytes under a spin lock. What travels with the bytes without being one of
//! them (open files, the sender's ids) is kept as [`Mark`]s at positions of the byte stream.
//!
//! Life of a lane: open; *finished* (no more bytes will come: the reader gets the rest, then the end);
//! *refused* (bytes are no longer taken: EPIPE). For AF_UNIX both come together. With TCP a reader may
//! be *gone* before the writer knows: the first write then seems to succeed, as it does when the
//! reset takes a network's time.
//!
//! Lock order: at most one lane's lock is held; readiness lists are notified, and open files dropped,
//! without it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::message::{Incoming, MSG_PEEK, MSG_WAITALL, Outgoing, PeerIds, Wanted};
use super::options::Switch;
use super::patience::Patience;
use super::rights::Rights;
use crate::error::{Errno, Error, Result, err};
use crate::sched::{SpinLock, Wake};
use crate::vfs::poll::Readiness;
use crate::vfs::ring::Ring;
use crate::vfs::{Events, Sink, Source};

/// In what the two families differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    Unix,
    Tcp,
}

pub struct Connection {
    /// `lanes[n]` leads to end n.
    lanes: [Lane; 2],
    /// SO_ERROR of end n; 0 for none.
    errors: [AtomicI32; 2],
    /// One end was closed by a reset.
    is_reset: AtomicBool,
    manners: Manners,
}

/// One side of a connection; dropping it closes that side.
pub struct End {
    connection: Arc<Connection>,
    side: usize,
    /// Closing aborts the connection (SO_LINGER with no time).
    aborts: AtomicBool,
}

struct Lane {
    state: SpinLock<LaneState>,
    readers: Readiness,
    writers: Readiness,
    /// The reading end has SO_PASSCRED.
    wants_ids: AtomicBool,
}

struct LaneState {
    ring: Ring,
    capacity: usize,
    /// Position in the stream of the ring's first byte.
    position: u64,
    /// Sorted by position, none before `position`.
    marks: VecDeque<Mark>,
    /// Whose the bytes at `position`, and the last bytes written, are.
    ids_here: Option<PeerIds>,
    ids_last: Option<PeerIds>,
    is_finished: bool,
    is_refused: bool,
    is_reader_gone: bool,
}

/// From `at` on the bytes come from `ids`; with the byte at `at` come `rights`, and one receive that gets
/// them ends at `end`.
struct Mark {
    at: u64,
    end: u64,
    rights: Rights,
    ids: Option<PeerIds>,
}

/// What one attempt to send did.
enum Sent {
    Bytes,
    ReaderGone,
}

/// Two connected ends; each lane holds up to `capacity` bytes.
pub fn pair(manners: Manners, capacities: [usize; 2]) -> (End, End) {
    let connection = Arc::new(Connection {
        lanes: [Lane::new(capacities[1]), Lane::new(capacities[0])],
        errors: [AtomicI32::new(0), AtomicI32::new(0)],
        is_reset: AtomicBool::new(false),
        manners,
    });
    (End::new(connection.clone(), 0), End::new(connection, 1))
}

impl End {
    fn new(connection: Arc<Connection>, side: usize) -> End {
        End { connection, side, aborts: AtomicBool::new(false) }
    }

    fn incoming(&self) -> &Lane {
        &self.connection.lanes[self.side]
    }

    fn outgoing(&self) -> &Lane {
        &self.connection.lanes[1 - self.side]
    }

    /// Sends all of `source`, waiting for room as `out.patience` allows.
    pub fn send(&self, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize> {
        let lane = self.outgoing();
        let is_asked = lane.wants_ids.load(Ordering::Relaxed)
            || self.incoming().wants_ids.load(Ordering::Relaxed);
        if is_asked && out.ids.is_none() {
            out.ids = Some(PeerIds::current());
        }
        source.drive(|source| {
            loop {
                let patience = out.patience;
                patience.wait(&lane.writers, || self.try_send(source, out))??;
                if source.left() == 0 {
                    return Ok(());
                }
            }
        })
    }

    /// `None`: no room yet.
    fn try_send(&self, source: &mut Source<'_>, out: &mut Outgoing) -> Option<Result<()>> {
        let lane = self.outgoing();
        let sent = lane.state.lock().put(source, out)?;
        match sent {
            Ok(Sent::Bytes) => lane.readers.notify(),
            Ok(Sent::ReaderGone) => self.learn_of_reset(),
            Err(error) if error.errno == Errno::EPIPE => return Some(Err(self.broken_pipe())),
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(()))
    }

    /// A TCP error that nobody has heard of comes before EPIPE.
    fn broken_pipe(&self) -> Error {
        let pending = if self.connection.manners == Manners::Tcp { self.take_error() } else { None };
        Error::new(pending.unwrap_or(Errno::EPIPE), "the connection is shut down for sending")
    }

    /// The peer had closed; its reset is the answer to what was just sent.
    fn learn_of_reset(&self) {
        self.set_error(self.side, Errno::EPIPE);
        self.incoming().close();
        self.outgoing().close();
    }

    /// Puts what is there into `sink`, waiting for the first byte, with MSG_WAITALL for all.
    pub fn receive(&self, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        let mut incoming = Incoming::default();
        incoming.size = sink.drive(|sink| {
            loop {
                let is_content = sink.done() > 0 && !wanted.has(MSG_WAITALL);
                let patience = if is_content { Patience::Never } else { wanted.patience };
                let lane = self.incoming();
                let count = patience.wait(&lane.readers, || self.try_receive(sink, wanted, &mut incoming))??;
                let is_all = !wanted.has(MSG_WAITALL) || wanted.has(MSG_PEEK);
                if is_all || count == 0 || sink.room() == 0 || !incoming.rights.is_empty() {
                    return Ok(());
                }
            }
        })?;
        Ok(incoming)
    }

    /// `None`: nothing there yet. 0 at the end of the stream, or at a fault.
    fn try_receive(
        &self,
        sink: &mut Sink<'_>,
        wanted: &Wanted,
        incoming: &mut Incoming,
    ) -> Option<Result<usize>> {
        let lane = self.incoming();
        let has_made_room = {
            let mut state = lane.state.lock();
            if state.ring.is_empty() {
                let is_finished = state.is_finished;
                drop(state);
                return match self.take_error() {
                    Some(errno) => Some(err(errno, "the connection failed")),
                    None => is_finished.then_some(Ok(0)),
                };
            }
            let was_writable = state.is_writable(self.connection.manners);
            let count = state.take(sink, wanted, incoming);
            (!was_writable && state.is_writable(self.connection.manners), count)
        };
        if has_made_room.0 {
            lane.writers.notify();
        }
        Some(Ok(has_made_room.1))
    }

    /// Ends one or both directions.
    pub fn shutdown(&self, reads: Direction, writes: Direction) {
        if writes == Direction::Ends {
            self.outgoing().close();
        }
        if reads == Direction::Ends {
            match self.connection.manners {
                Manners::Unix => self.incoming().close(),
                // The peer is not told; what it still sends is taken.
                Manners::Tcp => self.incoming().finish(),
            }
        }
    }

    /// Takes the error that the next call would report.
    pub fn take_error(&self) -> Option<Errno> {
        let error = &self.connection.errors[self.side];
        if error.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Errno::from_raw(error.swap(0, Ordering::Relaxed))
    }

    /// The other end was closed by a reset: there is no connection any more.
    pub fn is_reset(&self) -> bool {
        self.connection.is_reset.load(Ordering::Relaxed)
    }

    fn set_error(&self, side: usize, errno: Errno) {
        self.connection.errors[side].store(errno as i32, Ordering::Relaxed);
    }

    pub fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.incoming().readers.add(waker);
            self.outgoing().writers.add(waker);
        }
        let manners = self.connection.manners;
        let mut events = Events::NONE;
        let (is_refused, is_writable) = {
            let state = self.outgoing().state.lock();
            (state.is_refused, state.is_writable(manners))
        };
        let (is_finished, has_data) = {
            let state = self.incoming().state.lock();
            (state.is_finished, !state.ring.is_empty())
        };
        if is_finished {
            events |= Events::IN | Events::RDHUP;
        }
        if has_data {
            events |= Events::IN;
        }
        if is_finished && is_refused {
            events |= Events::HUP;
        }
        if is_writable || (is_refused && manners == Manners::Tcp) {
            events |= Events::OUT;
        }
        if self.connection.errors[self.side].load(Ordering::Relaxed) != 0 {
            events |= Events::ERR;
        }
        events
    }

    pub fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.incoming().readers.remove(waker);
        self.outgoing().writers.remove(waker);
    }

    /// FIONREAD.
    pub fn readable_bytes(&self) -> usize {
        self.incoming().state.lock().ring.len()
    }

    /// SIOCOUTQ: bytes the peer has not read.
    pub fn unread_bytes(&self) -> usize {
        self.outgoing().state.lock().ring.len()
    }

    /// SO_SNDBUF.
    pub fn set_capacity(&self, capacity: usize) {
        let lane = self.outgoing();
        lane.state.lock().capacity = capacity;
        lane.writers.notify();
    }

    /// SO_PASSCRED.
    pub fn set_wants_ids(&self, switch: Switch) {
        self.incoming().wants_ids.store(switch == Switch::On, Ordering::Relaxed);
    }

    /// Whether closing aborts: SO_LINGER with no time.
    pub fn set_aborts(&self, switch: Switch) {
        self.aborts.store(switch == Switch::On, Ordering::Relaxed);
    }
}

/// What shutdown(2) does to a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Stays,
    Ends,
}

impl Drop for End {
    fn drop(&mut self) {
        let has_unread = self.incoming().forget_content();
        let is_reset = has_unread || self.aborts.load(Ordering::Relaxed);
        if is_reset {
            self.connection.is_reset.store(true, Ordering::Relaxed);
            self.set_error(1 - self.side, Errno::ECONNRESET);
        }
        if self.connection.manners == Manners::Tcp && !is_reset {
            self.incoming().state.lock().is_reader_gone = true;
            self.outgoing().finish();
        } else {
            self.incoming().close();
            self.outgoing().close();
        }
    }
}

impl Lane {
    fn new(capacity: usize) -> Lane {
        Lane {
            state: SpinLock::new(LaneState {
                ring: Ring::new(),
                capacity,
                position: 0,
                marks: VecDeque::new(),
                ids_here: None,
                ids_last: None,
                is_finished: false,
                is_refused: false,
                is_reader_gone: false,
            }),
            readers: Readiness::new(),
            writers: Readiness::new(),
            wants_ids: AtomicBool::new(false),
        }
    }

    fn finish(&self) {
        self.state.lock().is_finished = true;
        self.readers.notify();
        self.writers.notify();
    }

    /// Finished and refused.
    fn close(&self) {
        {
            let mut state = self.state.lock();
            state.is_finished = true;
            state.is_refused = true;
        }
        self.readers.notify();
        self.writers.notify();
    }

    /// Drops what was not read; says whether there was something.
    fn forget_content(&self) -> bool {
        let (had_bytes, marks) = {
            let mut state = self.state.lock();
            let had_bytes = !state.ring.is_empty();
            state.ring.clear();
            (had_bytes, core::mem::take(&mut state.marks))
        };
        // Outside the lock: the last reference to an open file closes it.
        drop(marks);
        had_bytes
    }
}

impl LaneState {
    /// Whether poll says OUT, and blocked writers are woken: not for every byte that gets free.
    fn is_writable(&self, manners: Manners) -> bool {
        match manners {
            Manners::Unix => self.ring.len() * 4 <= self.capacity,
            Manners::Tcp => self.ring.len() * 3 <= self.capacity * 2,
        }
    }

    /// `None`: no room.
    fn put(&mut self, source: &mut Source<'_>, out: &mut Outgoing) -> Option<Result<Sent>> {
        if self.is_refused {
            return Some(err(Errno::EPIPE, "the connection is shut down for sending"));
        }
        if source.left() == 0 {
            return Some(Ok(Sent::Bytes));
        }
        if self.is_reader_gone {
            source.rewind(*source, source.left());
            return Some(Ok(Sent::ReaderGone));
        }
        if self.ring.len() >= self.capacity {
            return None;
        }
        let has_mark = !out.rights.is_empty() || out.ids != self.ids_last;
        if has_mark && self.marks.try_reserve(1).is_err() {
            return Some(err(Errno::ENOMEM, "stream marks"));
        }
        let at = self.position + self.ring.len() as u64;
        match self.ring.write(source, self.capacity) {
            Ok(count) if count > 0 && has_mark => {
                let rights = core::mem::take(&mut out.rights);
                self.marks.push_back(Mark { at, end: at + count as u64, rights, ids: out.ids });
                self.ids_last = out.ids;
            }
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(Sent::Bytes))
    }

    /// Puts bytes up to the next boundary, with what belongs to them.
    fn take(&mut self, sink: &mut Sink<'_>, wanted: &Wanted, incoming: &mut Incoming) -> usize {
        let is_peek = wanted.has(MSG_PEEK);
        let offset = if is_peek { sink.done() } else { 0 };
        let start = self.position + offset as u64;
        let limit = self.boundary(start, wanted.wants_ids) - start;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let count = sink.capped(limit, |sink| self.ring.peek(sink, offset));
        if count > 0 {
            self.collect(start + count as u64, is_peek, incoming);
        }
        if !is_peek {
            self.ring.skip(count);
            self.position += count as u64;
            self.forget_marks();
        }
        count
    }

    /// Where one receive that begins at `start` must end.
    fn boundary(&self, start: u64, tells_ids: bool) -> u64 {
        let mut ids = self.ids_here;
        for mark in &self.marks {
            if tells_ids && mark.at > start && mark.ids != ids {
                return mark.at;
            }
            if mark.at >= start && !mark.rights.is_empty() {
                return mark.end;
            }
            ids = mark.ids;
        }
        u64::MAX
    }

    /// Adds what belongs to the bytes before `end`: the first byte's ids, all open files.
    fn collect(&mut self, end: u64, is_peek: bool, incoming: &mut Incoming) {
        let mut first_ids = self.ids_here;
        for mark in self.marks.iter_mut().take_while(|mark| mark.at < end) {
            if mark.at <= self.position {
                first_ids = mark.ids;
            }
            if is_peek {
                incoming.rights.clone_from(&mark.rights);
            } else {
                incoming.rights.append(&mut mark.rights);
            }
        }
        if incoming.ids.is_none() {
            incoming.ids = first_ids;
        }
    }

    fn forget_marks(&mut self) {
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.at < self.position) {
            self.ids_here = mark.ids;
        }
    }
}
