//! A queue of bytes in memory: what pipes, streams and terminals are made of.
//!
//! It starts without memory and grows as it is filled, up to the capacity its owner passes. The owner's
//! lock guards it; copies under that lock pause at faults (see `transfer`).

use occlum_enclave::pages::Pages;

use super::transfer::{Sink, Source};
use crate::error::{Errno, Error, Result};

/// Rings start this small and grow to their capacity when they are filled.
const FIRST_SIZE: usize = 4096;

/// Bytes, first in first out.
#[derive(Default)]
pub struct Ring {
    /// A power of two long, or not there yet.
    pages: Option<Pages>,
    start: usize,
    len: usize,
}

impl Ring {
    pub const fn new() -> Ring {
        Ring { pages: None, start: 0, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves bytes into `sink`, as many as it takes; says how many.
    pub fn read(&mut self, sink: &mut Sink<'_>) -> usize {
        let count = self.peek(sink, 0);
        self.skip(count);
        count
    }

    /// Copies bytes into `sink` from `offset` on and keeps them.
    pub fn peek(&self, sink: &mut Sink<'_>, offset: usize) -> usize {
        let Some(pages) = &self.pages else { return 0 };
        let mut at = offset;
        while at < self.len && sink.room() > 0 {
            let start = (self.start + at) & (pages.len() - 1);
            let run = (self.len - at).min(pages.len() - start);
            let copied = sink.put(&pages[start..start + run]);
            at += copied;
            if copied < run {
                break;
            }
        }
        at.saturating_sub(offset)
    }

    /// Forgets the first `count` bytes.
    pub fn skip(&mut self, count: usize) {
        let mask = self.pages.as_ref().map_or(0, |pages| pages.len() - 1);
        self.len -= count;
        self.start = if self.len == 0 { 0 } else { (self.start + count) & mask };
    }

    /// Takes bytes from `source` while fewer than `capacity` are held; says how many. ENOMEM.
    pub fn write(&mut self, source: &mut Source<'_>, capacity: usize) -> Result<usize> {
        let wanted = (self.len + source.left()).min(capacity);
        if self.pages.as_ref().is_none_or(|pages| pages.len() < wanted) {
            self.move_to(wanted.max(FIRST_SIZE).next_power_of_two())?;
        }
        let Some(pages) = &mut self.pages else { return Ok(0) };
        let mut count = 0;
        while source.left() > 0 && self.len < capacity.min(pages.len()) {
            let end = (self.start + self.len) & (pages.len() - 1);
            let run = if end >= self.start { pages.len() - end } else { self.start - end };
            let run = run.min(capacity.min(pages.len()) - self.len).min(source.left());
            let taken = source.take(&mut pages[end..end + run]);
            count += taken;
            self.len += taken;
            if taken < run {
                break;
            }
        }
        Ok(count)
    }

    /// Gives back memory beyond `capacity`, a power of two that the content fits in.
    pub fn shrink(&mut self, capacity: usize) -> Result<()> {
        match &self.pages {
            Some(pages) if pages.len() > capacity => self.move_to(capacity),
            _ => Ok(()),
        }
    }

    /// Forgets the content and gives the memory back.
    pub fn clear(&mut self) {
        *self = Ring::new();
    }

    fn move_to(&mut self, size: usize) -> Result<()> {
        let order = (size / 4096).trailing_zeros() as usize;
        let mut pages = Pages::new(order).map_err(|_| Error::new(Errno::ENOMEM, "stream buffer"))?;
        if let Some(old) = &self.pages {
            let first = self.len.min(old.len() - self.start);
            pages[..first].copy_from_slice(&old[self.start..self.start + first]);
            pages[first..self.len].copy_from_slice(&old[..self.len - first]);
        }
        self.start = 0;
        self.pages = Some(pages);
        Ok(())
    }
}
