//! eventfd(2): a counter to wait for.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use super::file::{File, Wait};
use super::inode::{Attr, Kind, Position};
use super::pipe::anonymous_ino;
use super::poll::{Events, Readiness};
use super::transfer::{Sink, Source};
use crate::error::{Errno, Result, err};
use crate::sched::{SpinLock, Wake};

/// What a read takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    All,
    /// EFD_SEMAPHORE
    One,
}

pub struct EventFd {
    count: SpinLock<u64>,
    take: Take,
    readiness: Readiness,
    ino: u64,
}

/// Largest count; one more would be the value that write refuses.
const MAX: u64 = u64::MAX - 1;

impl EventFd {
    pub fn new(count: u64, take: Take) -> Arc<EventFd> {
        let (count, readiness) = (SpinLock::new(count), Readiness::new());
        Arc::new(EventFd { count, take, readiness, ino: anonymous_ino() })
    }

    /// `None` while the count is 0.
    fn try_read(&self, sink: &mut Sink<'_>) -> Option<()> {
        {
            let mut count = self.count.lock();
            let value = match self.take {
                _ if *count == 0 => return None,
                Take::All => *count,
                Take::One => 1,
            };
            // A fault comes back here once it is resolved.
            if sink.put_all(&value.to_le_bytes()) {
                *count -= value;
            }
        }
        self.readiness.notify();
        Some(())
    }

    fn try_add(&self, value: u64) -> Option<()> {
        {
            let mut count = self.count.lock();
            if value > MAX - *count {
                return None;
            }
            *count += value;
        }
        self.readiness.notify();
        Some(())
    }
}

impl File for EventFd {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr::anonymous(self.ino, Kind::Regular, 0o600))
    }

    fn describe(&self) -> String {
        let is_semaphore = u32::from(self.take == Take::One);
        format!("eventfd-count: {:16x}\neventfd-id: {}\neventfd-semaphore: {is_semaphore}\n", *self.count.lock(), self.ino)
    }

    fn label(&self) -> String {
        String::from("anon_inode:[eventfd]")
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        if sink.room() < 8 {
            return err(Errno::EINVAL, "buffer below 8 bytes");
        }
        self.readiness.wait(wait, || self.try_read(sink))
    }

    fn write(&self, _at: Position, source: &mut Source<'_>, wait: Wait) -> Result<u64> {
        if source.left() < 8 {
            return err(Errno::EINVAL, "fewer than 8 bytes");
        }
        let mut bytes = [0; 8];
        let mark = *source;
        if !source.take_all(&mut bytes) {
            return Ok(0);
        }
        let value = u64::from_le_bytes(bytes);
        if value == u64::MAX {
            source.rewind(mark, 0);
            return err(Errno::EINVAL, "value -1");
        }
        self.readiness.wait(wait, || self.try_add(value)).inspect_err(|_| source.rewind(mark, 0))?;
        Ok(0)
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.readiness.add(waker);
        }
        let count = *self.count.lock();
        let mut events = Events::NONE;
        if count > 0 {
            events |= Events::IN;
        }
        if count < MAX {
            events |= Events::OUT;
        }
        events
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.readiness.remove(waker);
    }
}
