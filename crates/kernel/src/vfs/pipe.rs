//! Pipes and FIFOs: pipe(7).
//!
//! A ring of bytes with a lock, and two [`Readiness`] lists: one for readers, one for writers. A
//! write of at most PIPE_BUF bytes is atomic; a larger one goes in as room comes. Copies to and from user
//! memory happen under the ring's spin lock and pause at faults (see `transfer`).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};

use occlum_enclave::pages::Pages;

use super::file::{File, Wait};
use super::flags::*;
use super::inode::{Attr, InodeRef, Kind, Position};
use super::poll::{Events, Readiness};
use super::transfer::{Sink, Source};
use crate::error::{Errno, Error, Result, err};
use crate::sched::{SpinLock, Wake};

/// Writes up to this are atomic.
pub const PIPE_BUF: usize = 4096;
const DEFAULT_CAPACITY: usize = 64 << 10;
/// `fs.pipe-max-size`.
pub const MAX_CAPACITY: usize = 1 << 20;
/// Rings start this small and grow to their capacity when they are filled.
const FIRST_SIZE: usize = 4096;

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
    ring: Option<Pages>,
    start: usize,
    len: usize,
    capacity: usize,
    readers: usize,
    writers: usize,
    /// Counts of opens, so that an opener sees a peer that came and went.
    readers_ever: u64,
    writers_ever: u64,
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
                ring: None,
                start: 0,
                len: 0,
                capacity: DEFAULT_CAPACITY,
                readers: 0,
                writers: 0,
                readers_ever: 0,
                writers_ever: 0,
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
            if state.len == 0 {
                return (state.writers == 0).then_some(0);
            }
            let was_full = state.capacity - state.len < PIPE_BUF;
            (state.read(sink), was_full)
        };
        // Writers wait for room of up to PIPE_BUF; while there was that much, none waits.
        if was_full && count > 0 {
            self.writers_wait.notify();
        }
        Some(count)
    }

    /// `None`: no room yet. `Some(Ok(n))`: n bytes were taken.
    fn try_write(&self, source: &mut Source<'_>) -> Option<Result<usize>> {
        let (count, was_empty) = {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Some(err(Errno::EPIPE, "no reader"));
            }
            let needed = if source.left() <= PIPE_BUF { source.left() } else { 1 };
            if state.capacity - state.len < needed {
                return None;
            }
            let was_empty = state.len == 0;
            match state.write(source) {
                Ok(count) => (count, was_empty),
                Err(error) => return Some(Err(error)),
            }
        };
        if was_empty && count > 0 {
            self.readers_wait.notify();
        }
        Some(Ok(count))
    }

    /// F_GETPIPE_SZ.
    fn capacity(&self) -> usize {
        self.state.lock().capacity
    }

    /// F_SETPIPE_SZ; gives the new capacity.
    fn set_capacity(&self, size: usize) -> Result<usize> {
        if size > MAX_CAPACITY {
            return err(Errno::EPERM, "above fs.pipe-max-size");
        }
        let capacity = size.max(4096).next_power_of_two();
        let mut state = self.state.lock();
        if state.len > capacity {
            return err(Errno::EBUSY, "more data than that in the pipe");
        }
        if state.ring.as_ref().is_some_and(|ring| ring.len() > capacity) {
            state.move_to(capacity)?;
        }
        state.capacity = capacity;
        drop(state);
        self.writers_wait.notify();
        Ok(capacity)
    }
}

impl State {
    fn read(&mut self, sink: &mut Sink<'_>) -> usize {
        let mut count = 0;
        while self.len > 0 && sink.room() > 0 {
            let Some(ring) = &self.ring else { break };
            let run = self.len.min(ring.len() - self.start);
            let copied = sink.put(&ring[self.start..self.start + run]);
            count += copied;
            self.len -= copied;
            self.start = if self.len == 0 { 0 } else { (self.start + copied) & (ring.len() - 1) };
            if copied < run {
                break;
            }
        }
        count
    }

    fn write(&mut self, source: &mut Source<'_>) -> Result<usize> {
        let wanted = (self.len + source.left()).min(self.capacity);
        if self.ring.as_ref().is_none_or(|ring| ring.len() < wanted) {
            self.move_to(wanted.max(FIRST_SIZE).next_power_of_two())?;
        }
        let Some(ring) = &mut self.ring else { return Ok(0) };
        let mut count = 0;
        while source.left() > 0 && self.len < self.capacity.min(ring.len()) {
            let end = (self.start + self.len) & (ring.len() - 1);
            let run = if end >= self.start { ring.len() - end } else { self.start - end };
            let run = run.min(self.capacity.min(ring.len()) - self.len).min(source.left());
            let taken = source.take(&mut ring[end..end + run]);
            count += taken;
            self.len += taken;
            if taken < run {
                break;
            }
        }
        Ok(count)
    }

    /// Moves the content to a ring of `size` bytes, a power of two.
    fn move_to(&mut self, size: usize) -> Result<()> {
        let order = (size / 4096).trailing_zeros() as usize;
        let mut pages = Pages::new(order).map_err(|_| Error::new(Errno::ENOMEM, "pipe buffer"))?;
        if let Some(old) = &self.ring {
            let first = self.len.min(old.len() - self.start);
            pages[..first].copy_from_slice(&old[self.start..self.start + first]);
            pages[first..self.len].copy_from_slice(&old[..self.len - first]);
        }
        self.start = 0;
        self.ring = Some(pages);
        Ok(())
    }
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
        Arc::new(PipeEnd { pipe, reads, writes, inode })
    }

    /// Waits for more, although `sink` has something already.
    pub(super) fn read_more(&self, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        self.pipe.readers_wait.wait(wait, || self.pipe.try_read(sink)).map(drop)
    }

    pub fn capacity(&self) -> usize {
        self.pipe.capacity()
    }

    pub fn set_capacity(&self, size: usize) -> Result<usize> {
        self.pipe.set_capacity(size)
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
            state.ring = None;
            (state.start, state.len) = (0, 0);
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
        while source.left() > 0 {
            self.pipe.writers_wait.wait(wait, || self.pipe.try_write(source))??;
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
        if self.reads && state.len > 0 {
            events |= Events::IN;
        }
        if self.reads && state.writers == 0 && (state.writers_ever > 0 || self.inode.is_none()) {
            events |= Events::HUP;
        }
        if self.writes && state.capacity - state.len >= PIPE_BUF {
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

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.pipe.state.lock().len)
    }
}
