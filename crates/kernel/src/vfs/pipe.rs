//! Pipes and FIFOs: pipe(7).
//!
//! A ring of bytes with a lock, and two [`Readiness`] lists: one for readers, one for writers. A
//! write of at most PIPE_BUF bytes is atomic; a larger one goes in as room comes. Copies to and from user
//! memory happen under the ring's spin lock and pause at faults (see `transfer`).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::file::{File, Wait};
use super::flags::*;
use super::inode::{Attr, InodeRef, Kind, Position};
use super::poll::{Events, Readiness};
use super::ring::Ring;
use super::transfer::{Sink, Source};
use crate::error::{Errno, Error, Result, err};
use crate::sched::{SpinLock, Wake};

/// Writes up to this are atomic.
pub const PIPE_BUF: usize = 4096;
const DEFAULT_CAPACITY: usize = 64 << 10;
/// `fs.pipe-max-size`.
pub const MAX_CAPACITY: usize = 1 << 20;

/// What two ends share.
pub struct Pipe {
    state: SpinLock<State>,
    readers_wait: Readiness,
    writers_wait: Readiness,
    /// Openers of a FIFO waiting for the other end.
    openers: Readiness,
    ino: u64,
}

struct State {
    ring: Ring,
    capacity: usize,
    readers: usize,
    writers: usize,
    /// Counts of opens, so that an opener sees a peer that came and went.
    readers_ever: u64,
    writers_ever: u64,
    packets: Packets,
}

static NEXT_INO: AtomicU64 = AtomicU64::new(1);

/// A number for `pipe:[N]` and the like.
pub fn anonymous_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// Open FIFOs by (device, inode).
static FIFOS: SpinLock<BTreeMap<(u64, u64), Weak<Pipe>>> = SpinLock::new(BTreeMap::new());

/// One end, or both ends of a FIFO opened O_RDWR.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// The FIFO's inode.
    inode: Option<InodeRef>,
    /// O_DIRECT: each write is a packet.
    is_packet: AtomicBool,
}

/// A new pipe: its reading and its writing end.
pub fn new() -> (Arc<PipeEnd>, Arc<PipeEnd>) {
    let pipe = Pipe::new();
    let reader = PipeEnd::new(pipe.clone(), O_RDONLY, None);
    (reader, PipeEnd::new(pipe, O_WRONLY, None))
}

/// Opens a FIFO as fifo(7) says: waits for the other end unless O_NONBLOCK or O_RDWR.
pub fn open_fifo(inode: InodeRef, flags: u32) -> Result<Arc<dyn File>> {
    let pipe = fifo_of(&inode)?;
    let may_wait = flags & O_NONBLOCK == 0;
    let access = flags & O_ACCMODE;
    let before = {
        let state = pipe.state.lock();
        if access == O_WRONLY && !may_wait && state.readers == 0 {
            return err(Errno::ENXIO, "FIFO without reader");
        }
        (state.readers_ever, state.writers_ever)
    };
    let end = PipeEnd::new(pipe.clone(), access, Some(inode));
    pipe.openers.notify();
    if may_wait && access != O_RDWR {
        pipe.openers.wait(Wait::Allowed, || {
            let state = pipe.state.lock();
            let is_met = match access {
                O_RDONLY => state.writers > 0 || state.writers_ever != before.1,
                _ => state.readers > 0 || state.readers_ever != before.0,
            };
            is_met.then_some(())
        })?;
    }
    Ok(end)
}

fn fifo_of(inode: &InodeRef) -> Result<Arc<Pipe>> {
    let attr = inode.attr()?;
    let mut fifos = FIFOS.lock();
    if let Some(pipe) = fifos.get(&(attr.dev, attr.ino)).and_then(Weak::upgrade) {
        return Ok(pipe);
    }
    fifos.retain(|_, pipe| pipe.strong_count() > 0);
    let pipe = Pipe::new();
    fifos.insert((attr.dev, attr.ino), Arc::downgrade(&pipe));
    Ok(pipe)
}

impl Pipe {
    fn new() -> Arc<Pipe> {
        Arc::new(Pipe {
            state: SpinLock::new(State {
                ring: Ring::new(),
                capacity: DEFAULT_CAPACITY,
                readers: 0,
                writers: 0,
                readers_ever: 0,
                writers_ever: 0,
                packets: Packets::default(),
            }),
            readers_wait: Readiness::new(),
            writers_wait: Readiness::new(),
            openers: Readiness::new(),
            ino: anonymous_ino(),
        })
    }

    /// `None`: nothing there yet. `Some(n)`: n bytes were put, 0 at the end of the stream.
    fn try_read(&self, sink: &mut Sink<'_>) -> Option<usize> {
        let (count, was_full) = {
            let mut state = self.state.lock();
            if state.ring.is_empty() {
                return (state.writers == 0).then_some(0);
            }
            let was_full = state.room() < PIPE_BUF;
            (state.read(sink), was_full)
        };
        // Writers wait for room of up to PIPE_BUF; while there was that much, none waits.
        if was_full && count > 0 {
            self.writers_wait.notify();
        } else {
            self.writers_wait.notify_pollers();
        }
        Some(count)
    }

    /// `None`: no room yet. `Some(Ok(n))`: n bytes were taken.
    fn try_write(&self, source: &mut Source<'_>, is_packet: bool) -> Option<Result<usize>> {
        let (count, was_empty) = {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Some(err(Errno::EPIPE, "no reader"));
            }
            let needed = match source.left() {
                left if is_packet => left.min(PIPE_BUF),
                left if left <= PIPE_BUF => left,
                _ => 1,
            };
            if state.room() < needed {
                return None;
            }
            let was_empty = state.ring.is_empty();
            match state.write(source, is_packet) {
                Ok(count) => (count, was_empty),
                Err(error) => return Some(Err(error)),
            }
        };
        if was_empty && count > 0 {
            self.readers_wait.notify();
        } else {
            self.readers_wait.notify_pollers();
        }
        Some(Ok(count))
    }

    /// F_GETPIPE_SZ.
    fn capacity(&self) -> usize {
        self.state.lock().capacity
    }

    /// F_SETPIPE_SZ; gives the new capacity. Above fs.pipe-max-size it is for the privileged.
    fn set_capacity(&self, size: usize, is_privileged: bool) -> Result<usize> {
        if size > 1 << 31 {
            return err(Errno::EINVAL, "pipe larger than 2 GiB");
        }
        if size > MAX_CAPACITY && size > self.capacity() && !is_privileged {
            return err(Errno::EPERM, "above fs.pipe-max-size");
        }
        let capacity = size.max(4096).next_power_of_two();
        let mut state = self.state.lock();
        if state.ring.len() > capacity {
            return err(Errno::EBUSY, "more data than that in the pipe");
        }
        state.ring.shrink(capacity)?;
        state.capacity = capacity;
        drop(state);
        self.writers_wait.notify();
        Ok(capacity)
    }
}

impl State {
    fn room(&self) -> usize {
        self.capacity - self.ring.len()
    }

    /// Takes bytes out: of the first packet, or of what comes before one.
    fn read(&mut self, sink: &mut Sink<'_>) -> usize {
        let at = self.packets.consumed;
        let count = match self.packets.ahead.front().cloned() {
            Some(packet) if packet.start <= at => {
                let left = clip(packet.end - at);
                let is_cut = sink.room() < left;
                let wanted = left.min(sink.room());
                let copied = sink.capped(wanted, |sink| self.ring.read(sink));
                // What the reader has no room for is lost; what a fault stopped is not.
                if is_cut && copied == wanted {
                    self.ring.skip(left - copied);
                    self.packets.consumed += (left - copied) as u64;
                }
                copied
            }
            Some(packet) => sink.capped(clip(packet.start - at), |sink| self.ring.read(sink)),
            None => self.ring.read(sink),
        };
        self.packets.advance(count);
        count
    }

    fn write(&mut self, source: &mut Source<'_>, is_packet: bool) -> Result<usize> {
        let capacity = self.capacity;
        if !is_packet {
            let count = self.ring.write(source, capacity)?;
            return Ok(count);
        }
        let no_memory = |_| Error::new(Errno::ENOMEM, "packets of a pipe");
        self.packets.ahead.try_reserve(1).map_err(no_memory)?;
        let start = self.packets.consumed + self.ring.len() as u64;
        let count = source.capped(PIPE_BUF, |source| self.ring.write(source, capacity))?;
        if count > 0 {
            self.packets.ahead.push_back(start..start + count as u64);
        }
        Ok(count)
    }
}

/// Which bytes of the ring are packets (O_DIRECT), counted from the first byte the pipe ever had.
#[derive(Default)]
struct Packets {
    consumed: u64,
    ahead: VecDeque<Range<u64>>,
}

impl Packets {
    fn advance(&mut self, count: usize) {
        self.consumed += count as u64;
        while self.ahead.front().is_some_and(|packet| packet.end <= self.consumed) {
            self.ahead.pop_front();
        }
    }

    /// The ring was emptied.
    fn clear(&mut self) {
        self.ahead.clear();
    }
}

fn clip(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

impl PipeEnd {
    fn new(pipe: Arc<Pipe>, access: u32, inode: Option<InodeRef>) -> Arc<PipeEnd> {
        let reads = access == O_RDONLY || access == O_RDWR;
        let writes = access == O_WRONLY || access == O_RDWR;
        let mut state = pipe.state.lock();
        state.readers += usize::from(reads);
        state.writers += usize::from(writes);
        state.readers_ever += u64::from(reads);
        state.writers_ever += u64::from(writes);
        drop(state);
        Arc::new(PipeEnd { pipe, reads, writes, inode, is_packet: AtomicBool::new(false) })
    }

    pub fn capacity(&self) -> usize {
        self.pipe.capacity()
    }

    pub fn set_capacity(&self, size: usize, is_privileged: bool) -> Result<usize> {
        self.pipe.set_capacity(size, is_privileged)
    }

    /// Whether what is written from now on are packets.
    pub fn set_packets(&self, is_packet: bool) {
        self.is_packet.store(is_packet, Ordering::Relaxed);
    }

    pub fn is_same_pipe(&self, other: &PipeEnd) -> bool {
        Arc::ptr_eq(&self.pipe, &other.pipe)
    }

    /// Copies what is in the pipe and leaves it there; 0 at the end of the stream.
    pub fn peek(&self, buf: &mut [u8], wait: Wait) -> Result<usize> {
        self.pipe.readers_wait.wait(wait, || {
            let state = self.pipe.state.lock();
            if state.ring.is_empty() {
                return (state.writers == 0).then_some(0);
            }
            Some(state.ring.peek(&mut Sink::kernel(buf), 0))
        })
    }

    /// Bytes that can be written at once.
    pub fn room(&self) -> usize {
        self.pipe.state.lock().room()
    }

    /// Waits until something can be written; EPIPE.
    pub fn wait_for_room(&self, wait: Wait) -> Result<()> {
        self.pipe.writers_wait.wait(wait, || {
            let state = self.pipe.state.lock();
            if state.readers == 0 {
                return Some(err(Errno::EPIPE, "no reader"));
            }
            (state.room() > 0).then_some(Ok(()))
        })?
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= usize::from(self.reads);
        state.writers -= usize::from(self.writes);
        let (readers, writers) = (state.readers, state.writers);
        if readers == 0 && writers == 0 {
            // A FIFO forgets its content with its last user.
            state.ring.clear();
            state.packets.clear();
        }
        drop(state);
        if readers == 0 {
            self.pipe.writers_wait.notify();
        }
        if writers == 0 {
            self.pipe.readers_wait.notify();
        }
    }
}

impl File for PipeEnd {
    fn attr(&self) -> Result<Attr> {
        match &self.inode {
            Some(inode) => inode.attr(),
            None => Ok(Attr::anonymous(self.pipe.ino, Kind::Fifo, 0o600)),
        }
    }

    fn label(&self) -> String {
        format!("pipe:[{}]", self.pipe.ino)
    }

    fn inode(&self) -> Option<&InodeRef> {
        self.inode.as_ref()
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        if sink.room() == 0 {
            return Ok(());
        }
        // After a fault the rest must not wait: something was read already.
        let wait = if sink.done() > 0 { Wait::Never } else { wait };
        self.pipe.readers_wait.wait(wait, || self.pipe.try_read(sink)).map(drop)
    }

    fn write(&self, _at: Position, source: &mut Source<'_>, wait: Wait) -> Result<u64> {
        let is_packet = self.is_packet.load(Ordering::Relaxed);
        while source.left() > 0 {
            self.pipe.writers_wait.wait(wait, || self.pipe.try_write(source, is_packet))??;
        }
        Ok(0)
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            if self.reads {
                self.pipe.readers_wait.add(waker);
            }
            if self.writes {
                self.pipe.writers_wait.add(waker);
            }
        }
        let state = self.pipe.state.lock();
        let mut events = Events::NONE;
        if self.reads && !state.ring.is_empty() {
            events |= Events::IN;
        }
        if self.reads && state.writers == 0 && (state.writers_ever > 0 || self.inode.is_none()) {
            events |= Events::HUP;
        }
        if self.writes && state.room() >= PIPE_BUF {
            events |= Events::OUT;
        }
        if self.writes && state.readers == 0 {
            events |= Events::ERR;
        }
        events
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        if self.reads {
            self.pipe.readers_wait.remove(waker);
        }
        if self.writes {
            self.pipe.writers_wait.remove(waker);
        }
    }

    fn can_signal(&self) -> bool {
        true
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.pipe.state.lock().ring.len())
    }
}
