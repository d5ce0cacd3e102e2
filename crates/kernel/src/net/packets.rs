//! Two ends that exchange whole messages in order: connected AF_UNIX sequenced packets.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use super::mailbox::{self, Limit, Mailbox, Message, Refusal};
use super::message::{Incoming, Outgoing, Wanted};
use super::options::Switch;
use super::stream::Direction;
use crate::error::{Errno, Result, err};
use crate::sched::Wake;
use crate::vfs::{Events, Sink, Source};

/// One side; dropping it closes that side.
pub struct PacketEnd {
    own: Arc<Mailbox>,
    peer: Arc<Mailbox>,
    aborts: AtomicBool,
}

/// Two connected ends.
pub fn pair() -> (PacketEnd, PacketEnd) {
    let (one, other) = (Arc::new(Mailbox::new()), Arc::new(Mailbox::new()));
    let end = |own, peer| PacketEnd { own, peer, aborts: AtomicBool::new(false) };
    (end(one.clone(), other.clone()), end(other, one))
}

impl PacketEnd {
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.own
    }

    /// Sends one message; waits while `send_buffer` bytes are unread.
    pub fn send(&self, source: &mut Source<'_>, out: &mut Outgoing, send_buffer: usize) -> Result<usize> {
        if source.left() > send_buffer.saturating_sub(32) {
            return err(Errno::EMSGSIZE, "larger than the send buffer");
        }
        let mut message = Message::copy_in(source)?;
        let size = message.bytes.len();
        message.ids = mailbox::ids_for(out, self.own.wants_ids() || self.peer.wants_ids());
        message.rights.append(&mut out.rights);
        let mut message = Some(message);
        let limit = Limit { cost: send_buffer, messages: usize::MAX };
        out.patience.wait(&self.peer.writers, || match self.peer.put(&mut message, limit) {
            Ok(()) => Some(Ok(size)),
            Err(Refusal::Full) => None,
            Err(_) => Some(err(Errno::EPIPE, "the connection is shut down for sending")),
        })?
    }

    pub fn receive(&self, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        self.own.receive(sink, wanted)
    }

    pub fn shutdown(&self, reads: Direction, writes: Direction) {
        if reads == Direction::Ends {
            self.own.refuse();
        }
        if writes == Direction::Ends {
            self.peer.refuse();
        }
    }

    pub fn poll(&self, send_buffer: usize, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.own.readers.add(waker);
            self.peer.writers.add(waker);
        }
        let mut events = Events::NONE;
        let is_finished = self.own.is_finished();
        if is_finished {
            events |= Events::IN | Events::RDHUP;
        }
        if is_finished && (self.peer.is_refused() || self.peer.is_closed()) {
            events |= Events::HUP;
        }
        if !self.own.is_empty() {
            events |= Events::IN;
        }
        if self.peer.has_room(Limit { cost: send_buffer / 4, messages: usize::MAX }) {
            events |= Events::OUT;
        }
        if self.own.has_error() {
            events |= Events::ERR;
        }
        events
    }

    /// Whether closing is an error for the peer in any case.
    pub fn set_aborts(&self, switch: Switch) {
        self.aborts.store(switch == Switch::On, Ordering::Relaxed);
    }

    pub fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.own.readers.remove(waker);
        self.peer.writers.remove(waker);
    }
}

impl Drop for PacketEnd {
    fn drop(&mut self) {
        if self.own.close() || self.aborts.load(Ordering::Relaxed) {
            self.peer.set_error(Errno::ECONNRESET);
        }
        self.peer.refuse();
    }
}
