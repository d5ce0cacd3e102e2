//! Where read data goes ([`Sink`]) and written data comes from ([`Source`]): user memory or a kernel
//! buffer, in one or many pieces.
//!
//! File systems copy while they hold locks, so a copy that faults must not be resolved there: the
//! transfer *pauses* (`room`/`left` give 0), the file system returns as if it were full, and
//! [`Sink::drive`]/[`Source::drive`] resolve the fault with no lock held and call again. What was copied is
//! counted in the transfer itself, so the second call goes on where the first one stopped.

use occlum_enclave::host::{self, HostSlice};

use crate::error::{Errno, Result, err};
use crate::mm::{Access, residency};
use crate::user::{self, UserAddr};

/// One piece of user memory (`struct iovec`).
#[derive(Clone, Copy, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct IoVec {
    pub base: usize,
    pub size: usize,
}

/// Position in a list of user pieces.
#[derive(Clone, Copy)]
struct UserPieces<'a> {
    rest: &'a [IoVec],
    /// The piece being copied; `rest` follows it.
    current: IoVec,
    /// Bytes left in all pieces.
    left: usize,
    fault: Option<usize>,
}

impl<'a> UserPieces<'a> {
    fn new(pieces: &'a [IoVec]) -> UserPieces<'a> {
        let left = pieces.iter().map(|piece| piece.size).sum();
        UserPieces { rest: pieces, current: IoVec::default(), left, fault: None }
    }

    fn one(addr: UserAddr, size: usize) -> UserPieces<'a> {
        UserPieces { rest: &[], current: IoVec { base: addr.0, size }, left: size, fault: None }
    }

    fn room(&self) -> usize {
        if self.fault.is_some() { 0 } else { self.left }
    }

    /// Calls `copy(address, offset, size)` for the next `size` bytes, piece by piece, until a fault; gives
    /// the number of bytes copied.
    fn advance(&mut self, size: usize, mut copy: impl FnMut(usize, usize, usize) -> usize) -> usize {
        let mut done = 0;
        while done < size && self.room() > 0 {
            while self.current.size == 0 {
                let Some((&next, rest)) = self.rest.split_first() else { return done };
                (self.current, self.rest) = (next, rest);
            }
            let step = self.current.size.min(size - done);
            let copied = copy(self.current.base, done, step);
            done += copied;
            self.left -= copied;
            self.current.base += copied;
            self.current.size -= copied;
            if copied < step {
                self.fault = Some(self.current.base);
            }
        }
        done
    }

    /// Makes the page a copy stopped at present, or says EFAULT.
    fn resolve(&mut self, access: Access) -> Result<()> {
        match self.fault.take() {
            Some(address) => user::make_present(address, access),
            None => Ok(()),
        }
    }
}

enum Target<'a> {
    User(UserPieces<'a>),
    Kernel(&'a mut [u8]),
}

/// Where read data goes.
pub struct Sink<'a> {
    target: Target<'a>,
    done: usize,
    /// Value of `done` at which it counts as full; see [`Sink::capped`].
    cap: usize,
}

impl<'a> Sink<'a> {
    pub fn user(addr: UserAddr, size: usize) -> Sink<'a> {
        Sink { target: Target::User(UserPieces::one(addr, size)), done: 0, cap: usize::MAX }
    }

    /// The caller has checked that the sum of the sizes does not overflow.
    pub fn user_pieces(pieces: &'a [IoVec]) -> Sink<'a> {
        Sink { target: Target::User(UserPieces::new(pieces)), done: 0, cap: usize::MAX }
    }

    pub fn kernel(buf: &'a mut [u8]) -> Sink<'a> {
        Sink { target: Target::Kernel(buf), done: 0, cap: usize::MAX }
    }

    /// Bytes it takes now; 0 when full or paused.
    pub fn room(&self) -> usize {
        let room = match &self.target {
            Target::User(pieces) => pieces.room(),
            Target::Kernel(buf) => buf.len() - self.done,
        };
        room.min(self.cap - self.done)
    }

    /// Runs `put` with room for at most `size` more bytes.
    pub fn capped<R>(&mut self, size: usize, put: impl FnOnce(&mut Sink<'a>) -> R) -> R {
        let outer = self.cap;
        self.cap = outer.min(self.done.saturating_add(size));
        let result = put(self);
        self.cap = outer;
        result
    }

    /// Bytes put so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Copies as much of `bytes` as it takes and says how much.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(self.room())];
        let copied = match &mut self.target {
            Target::User(pieces) => pieces.advance(bytes.len(), |addr, from, size| {
                match residency::write(addr, &bytes[from..from + size]) {
                    Ok(()) => size,
                    Err(fault) => fault.address.saturating_sub(addr).min(size - 1),
                }
            }),
            Target::Kernel(buf) => {
                buf[self.done..self.done + bytes.len()].copy_from_slice(bytes);
                bytes.len()
            }
        };
        self.done += copied;
        copied
    }

    /// Copies as much of `from`, host memory, as it takes and says how much. Read once.
    pub fn put_from_host(&mut self, from: &HostSlice) -> usize {
        let size = from.size().min(self.room());
        let copied = match &mut self.target {
            Target::User(pieces) => pieces.advance(size, |addr, at, size| {
                let Some(part) = from.part(at, size) else { return 0 };
                match residency::copy_from_host(addr, &part) {
                    Ok(()) => size,
                    Err(fault) => fault.address.saturating_sub(addr).min(size - 1),
                }
            }),
            Target::Kernel(buf) => {
                let place = &mut buf[self.done..self.done + size];
                match from.read(place) {
                    Ok(()) => size,
                    Err(lie) => host::stop_for(lie),
                }
            }
        };
        self.done += copied;
        copied
    }

    /// Puts all of `bytes` or, at a fault, nothing: for values that must not be torn. The caller has checked
    /// that there is room.
    pub fn put_all(&mut self, bytes: &[u8]) -> bool {
        let before = match &self.target {
            Target::User(pieces) => Some(*pieces),
            Target::Kernel(_) => None,
        };
        let done = self.done;
        if self.put(bytes) == bytes.len() {
            return true;
        }
        if let (Target::User(pieces), Some(before)) = (&mut self.target, before) {
            *pieces = UserPieces { fault: pieces.fault, ..before };
        }
        self.done = done;
        false
    }

    /// Puts `size` zeros, or as many as it takes.
    pub fn put_zeros(&mut self, size: usize) -> usize {
        let size = size.min(self.room());
        let copied = match &mut self.target {
            Target::User(pieces) => pieces.advance(size, |addr, _, size| {
                match residency::fill(addr, 0, size) {
                    Ok(()) => size,
                    Err(fault) => fault.address.saturating_sub(addr).min(size - 1),
                }
            }),
            Target::Kernel(buf) => {
                buf[self.done..self.done + size].fill(0);
                size
            }
        };
        self.done += copied;
        copied
    }

    /// Runs `step` until it comes back without a fault pending; gives the bytes put. An error after the
    /// first byte is a short count, as in read(2).
    pub fn drive(&mut self, mut step: impl FnMut(&mut Sink<'a>) -> Result<()>) -> Result<usize> {
        loop {
            if let Err(error) = step(self) {
                return if self.done > 0 { Ok(self.done) } else { Err(error) };
            }
            match &mut self.target {
                Target::User(pieces) if pieces.fault.is_some() => {
                    if let Err(error) = pieces.resolve(Access::Write) {
                        return if self.done > 0 { Ok(self.done) } else { Err(error) };
                    }
                }
                _ => return Ok(self.done),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Origin<'a> {
    User(UserPieces<'a>),
    Kernel(&'a [u8]),
}

/// Where written data comes from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    origin: Origin<'a>,
    done: usize,
    /// As in [`Sink`].
    cap: usize,
}

impl<'a> Source<'a> {
    pub fn user(addr: UserAddr, size: usize) -> Source<'a> {
        Source { origin: Origin::User(UserPieces::one(addr, size)), done: 0, cap: usize::MAX }
    }

    /// The caller has checked that the sum of the sizes does not overflow.
    pub fn user_pieces(pieces: &'a [IoVec]) -> Source<'a> {
        Source { origin: Origin::User(UserPieces::new(pieces)), done: 0, cap: usize::MAX }
    }

    pub fn kernel(bytes: &'a [u8]) -> Source<'a> {
        Source { origin: Origin::Kernel(bytes), done: 0, cap: usize::MAX }
    }

    /// Bytes it gives now; 0 when all were taken or when paused.
    pub fn left(&self) -> usize {
        let left = match &self.origin {
            Origin::User(pieces) => pieces.room(),
            Origin::Kernel(bytes) => bytes.len() - self.done,
        };
        left.min(self.cap - self.done)
    }

    /// Runs `take` with at most `size` more bytes to take.
    pub fn capped<R>(&mut self, size: usize, take: impl FnOnce(&mut Source<'a>) -> R) -> R {
        let outer = self.cap;
        self.cap = outer.min(self.done.saturating_add(size));
        let result = take(self);
        self.cap = outer;
        result
    }

    /// Bytes taken so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Fills as much of `buf` as it can and says how much.
    pub fn take(&mut self, buf: &mut [u8]) -> usize {
        let size = buf.len().min(self.cap - self.done);
        let buf = &mut buf[..size];
        let copied = match &mut self.origin {
            Origin::User(pieces) => pieces.advance(buf.len(), |addr, to, size| {
                match residency::read(addr, &mut buf[to..to + size]) {
                    Ok(()) => size,
                    Err(fault) => fault.address.saturating_sub(addr).min(size - 1),
                }
            }),
            Origin::Kernel(bytes) => {
                let size = buf.len().min(bytes.len() - self.done);
                buf[..size].copy_from_slice(&bytes[self.done..self.done + size]);
                size
            }
        };
        self.done += copied;
        copied
    }

    /// Copies as much as it can to host memory and says how much.
    pub fn take_to_host(&mut self, to: &HostSlice) -> usize {
        let size = to.size().min(self.left());
        let copied = match &mut self.origin {
            Origin::User(pieces) => pieces.advance(size, |addr, at, size| {
                let Some(part) = to.part(at, size) else { return 0 };
                match residency::copy_to_host(addr, &part) {
                    Ok(()) => size,
                    Err(fault) => fault.address.saturating_sub(addr).min(size - 1),
                }
            }),
            Origin::Kernel(bytes) => match to.write(&bytes[self.done..self.done + size]) {
                Ok(()) => size,
                Err(lie) => host::stop_for(lie),
            },
        };
        self.done += copied;
        copied
    }

    /// Fills all of `buf` or, at a fault, takes nothing. The caller has checked that there is enough.
    pub fn take_all(&mut self, buf: &mut [u8]) -> bool {
        let before = *self;
        if self.take(buf) == buf.len() {
            return true;
        }
        let fault = match &self.origin {
            Origin::User(pieces) => pieces.fault,
            Origin::Kernel(_) => None,
        };
        *self = before;
        if let Origin::User(pieces) = &mut self.origin {
            pieces.fault = fault;
        }
        false
    }

    /// Counts all that is left as taken, without looking at it.
    pub fn skip_all(&mut self) {
        let size = self.left();
        if let Origin::User(pieces) = &mut self.origin {
            pieces.advance(size, |_, _, size| size);
        }
        self.done += size;
    }

    /// Goes back to `mark`, a copy made before a `take`, and counts only `size` bytes as taken since.
    pub fn rewind(&mut self, mark: Source<'a>, size: usize) {
        *self = mark;
        if let Origin::User(pieces) = &mut self.origin {
            pieces.advance(size, |_, _, size| size);
        }
        self.done += size;
    }

    /// As [`Sink::drive`].
    pub fn drive(&mut self, mut step: impl FnMut(&mut Source<'a>) -> Result<()>) -> Result<usize> {
        loop {
            if let Err(error) = step(self) {
                return if self.done > 0 { Ok(self.done) } else { Err(error) };
            }
            match &mut self.origin {
                Origin::User(pieces) if pieces.fault.is_some() => {
                    if let Err(error) = pieces.resolve(Access::Read) {
                        return if self.done > 0 { Ok(self.done) } else { Err(error) };
                    }
                }
                _ => return Ok(self.done),
            }
        }
    }
}

/// Linux moves at most this much in one call (`MAX_RW_COUNT`).
pub const MAX_TRANSFER: usize = 0x7fff_f000;

/// Checks a vector of pieces as readv(2) does, and cuts it to [`MAX_TRANSFER`].
pub fn check_pieces(pieces: &mut [IoVec]) -> Result<()> {
    let mut total = 0usize;
    for piece in pieces {
        if piece.size > isize::MAX as usize {
            return err(Errno::EINVAL, "iovec longer than SSIZE_MAX");
        }
        piece.size = piece.size.min(MAX_TRANSFER - total);
        total += piece.size;
    }
    Ok(())
}
