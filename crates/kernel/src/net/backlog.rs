//! Connections that wait for accept(2).

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::patience::Patience;
use crate::error::{Errno, Error, Result, err};
use crate::sched::{SpinLock, Wake};
use crate::vfs::poll::{Events, Readiness};

/// `net.core.somaxconn`.
pub const SOMAXCONN: usize = 4096;

/// Of a listening socket; `T` is what accept(2) makes a socket of.
pub struct Backlog<T> {
    state: SpinLock<State<T>>,
    acceptors: Arc<Readiness>,
    connectors: Readiness,
}

struct State<T> {
    queue: VecDeque<T>,
    limit: usize,
    is_closed: bool,
}

impl<T> Backlog<T> {
    /// `limit` as given to listen(2).
    pub fn new(limit: usize) -> Backlog<T> {
        Backlog::announcing(limit, Arc::new(Readiness::new()))
    }

    /// Whose acceptors somebody else notifies too.
    pub fn announcing(limit: usize, acceptors: Arc<Readiness>) -> Backlog<T> {
        Backlog {
            state: SpinLock::new(State { queue: VecDeque::new(), limit, is_closed: false }),
            acceptors,
            connectors: Readiness::new(),
        }
    }

    pub fn set_limit(&self, limit: usize) {
        self.state.lock().limit = limit;
        self.connectors.notify();
    }

    /// Queues a connection; waits while too many are queued. ECONNREFUSED if nobody will accept it.
    pub fn push(&self, connection: T, patience: Patience) -> Result<()> {
        let mut connection = Some(connection);
        patience.wait(&self.connectors, || self.try_push(&mut connection))??;
        self.acceptors.notify();
        Ok(())
    }

    fn try_push(&self, connection: &mut Option<T>) -> Option<Result<()>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Some(err(Errno::ECONNREFUSED, "the listener is gone"));
        }
        if state.queue.len() > state.limit {
            return None;
        }
        if state.queue.try_reserve(1).is_err() {
            return Some(err(Errno::ENOBUFS, "backlog"));
        }
        state.queue.extend(connection.take());
        Some(Ok(()))
    }

    /// The oldest connection. EINVAL once the listener is shut down.
    pub fn pop(&self, patience: Patience) -> Result<T> {
        self.pop_after(patience, || Ok(()))
    }

    /// The same; before each look `refill` may bring connections from elsewhere.
    pub fn pop_after(&self, patience: Patience, mut refill: impl FnMut() -> Result<()>) -> Result<T> {
        let popped = patience.wait(&self.acceptors, || {
            let refilled = refill();
            let mut state = self.state.lock();
            match state.queue.pop_front() {
                Some(connection) => Some(Ok(connection)),
                None if state.is_closed => Some(Err(Error::new(Errno::EINVAL, "listener shut down"))),
                None => refilled.err().map(Err),
            }
        })??;
        self.connectors.notify();
        Ok(popped)
    }

    /// Connections that are queued; more than enough once nobody will accept them.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        if state.is_closed { usize::MAX } else { state.queue.len() }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Readiness of the listening socket.
    pub fn poll(&self) -> Events {
        let state = self.state.lock();
        let mut events = Events::NONE;
        if !state.queue.is_empty() {
            events |= Events::IN;
        }
        if state.is_closed {
            events |= Events::IN | Events::RDHUP | Events::HUP;
        }
        events
    }

    /// No more connections; gives those that nobody will accept.
    pub fn close(&self) -> VecDeque<T> {
        let queue = {
            let mut state = self.state.lock();
            state.is_closed = true;
            core::mem::take(&mut state.queue)
        };
        self.acceptors.notify();
        self.connectors.notify();
        queue
    }

    pub fn add_waker(&self, waker: &Arc<dyn Wake>) {
        self.acceptors.add(waker);
    }

    pub fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.acceptors.remove(waker);
    }
}
