//! Unix-domain sockets: socketpair(2), and streams by name: unix(7).
//!
//! A connected stream socket is two pipes, one for each direction, so it moves data at a pipe's speed and
//! with a pipe's rules; SOCK_DGRAM and SOCK_SEQPACKET keep messages apart in a queue of their own
//! ([`Messages`]).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::file::{File, Wait};
use super::inode::{Attr, Kind, Position};
use super::pipe::{self, PipeEnd, anonymous_ino};
use super::poll::{Events, Readiness};
use super::transfer::{Sink, Source};
use crate::error::{Errno, Error, Result, err};
use crate::sched::{SpinLock, Wake};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Stream,
    Datagram,
    SeqPacket,
}

/// shutdown(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    Read,
    Write,
    Both,
}

/// SO_PEERCRED
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Where a socket can be found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Device and inode of the socket file, and the path it was bound to.
    File { id: (u64, u64), path: Vec<u8> },
    /// Linux's abstract names.
    Abstract(Vec<u8>),
}

impl Name {
    fn key(&self) -> Key {
        match self {
            Name::File { id, .. } => Key::File(*id),
            Name::Abstract(name) => Key::Abstract(name.clone()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    File((u64, u64)),
    Abstract(Vec<u8>),
}

static NAMED: SpinLock<BTreeMap<Key, Weak<Socket>>> = SpinLock::new(BTreeMap::new());

pub struct Socket {
    kind: Type,
    state: SpinLock<State>,
    name: SpinLock<Option<Name>>,
    readiness: Readiness,
    owner: Peer,
    ino: u64,
    /// SO_PASSCRED and the like are remembered for getsockopt.
    options: AtomicU32,
}

enum State {
    Fresh,
    Listening(Listener),
    Connected(Connection),
}

struct Listener {
    backlog: usize,
    waiting: VecDeque<Arc<Socket>>,
}

#[derive(Clone)]
struct Connection {
    input: Channel,
    output: Channel,
    peer: Peer,
    peer_name: Option<Name>,
}

/// One direction of a connection.
#[derive(Clone)]
enum Channel {
    Stream(Arc<PipeEnd>),
    Messages(Arc<Messages>),
    /// After shutdown.
    Closed,
}

/// A queue of whole messages.
pub struct Messages {
    queue: SpinLock<VecDeque<Vec<u8>>>,
    size: AtomicU32,
    readiness: Readiness,
    is_closed: AtomicBool,
}

/// Bytes waiting in a queue of messages, and the largest message.
const QUEUE_MAX: usize = 208 << 10;

impl Messages {
    fn new() -> Arc<Messages> {
        Arc::new(Messages {
            queue: SpinLock::new(VecDeque::new()),
            size: AtomicU32::new(0),
            readiness: Readiness::new(),
            is_closed: AtomicBool::new(false),
        })
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.readiness.notify();
    }

    fn has_room(&self) -> bool {
        (self.size.load(Ordering::Relaxed) as usize) < QUEUE_MAX
    }

    fn send(&self, source: &mut Source<'_>, wait: Wait) -> Result<()> {
        if source.left() > QUEUE_MAX {
            return err(Errno::EMSGSIZE, "message too long");
        }
        let mark = *source;
        let mut message = alloc::vec![0; source.left()];
        if !source.take_all(&mut message) {
            return Ok(());
        }
        let mut message = Some(message);
        let sent = self.readiness.wait(wait, || {
            if self.is_closed.load(Ordering::Acquire) {
                return Some(err(Errno::EPIPE, "the peer is gone"));
            }
            if !self.has_room() {
                return None;
            }
            let message = message.take()?;
            self.size.fetch_add(message.len() as u32, Ordering::Relaxed);
            self.queue.lock().push_back(message);
            Some(Ok(()))
        });
        match sent.and_then(|result| result) {
            Ok(()) => {
                self.readiness.notify();
                Ok(())
            }
            Err(error) => {
                source.rewind(mark, 0);
                Err(error)
            }
        }
    }

    /// Puts one message; what does not fit is lost. Says how long it was.
    fn receive(&self, sink: &mut Sink<'_>, wait: Wait) -> Result<usize> {
        let message = self.readiness.wait(wait, || {
            let message = self.queue.lock().pop_front();
            if message.is_none() && self.is_closed.load(Ordering::Acquire) {
                return Some(None);
            }
            message.map(Some)
        })?;
        let Some(message) = message else { return Ok(0) };
        let size = message.len();
        let fitting = &message[..size.min(sink.room())];
        if !sink.put_all(fitting) {
            self.queue.lock().push_front(message);
            return Ok(0);
        }
        self.size.fetch_sub(size as u32, Ordering::Relaxed);
        self.readiness.notify();
        Ok(size)
    }
}

impl Socket {
    pub fn new(kind: Type, owner: Peer) -> Arc<Socket> {
        Socket::with_state(kind, State::Fresh, None, owner)
    }

    fn with_state(kind: Type, state: State, name: Option<Name>, owner: Peer) -> Arc<Socket> {
        Arc::new(Socket {
            kind,
            state: SpinLock::new(state),
            name: SpinLock::new(name),
            readiness: Readiness::new(),
            owner,
            ino: anonymous_ino(),
            options: AtomicU32::new(0),
        })
    }

    /// Two sockets connected to each other.
    pub fn pair(kind: Type, owner: Peer) -> (Arc<Socket>, Arc<Socket>) {
        let (one, other) = connection(kind, owner, owner, None, None);
        let socket = |state| Socket::with_state(kind, State::Connected(state), None, owner);
        (socket(one), socket(other))
    }

    pub fn kind(&self) -> Type {
        self.kind
    }

    pub fn name(&self) -> Option<Name> {
        self.name.lock().clone()
    }

    pub fn peer_name(&self) -> Result<Option<Name>> {
        match &*self.state.lock() {
            State::Connected(connection) => Ok(connection.peer_name.clone()),
            _ => err(Errno::ENOTCONN, "not connected"),
        }
    }

    /// SO_PEERCRED
    pub fn peer(&self) -> Peer {
        match &*self.state.lock() {
            State::Connected(connection) => connection.peer,
            _ => Peer::default(),
        }
    }

    pub fn is_listening(&self) -> bool {
        matches!(*self.state.lock(), State::Listening(_))
    }

    pub fn options(&self) -> &AtomicU32 {
        &self.options
    }

    /// bind(2): makes the socket known by `name`.
    pub fn bind(self: &Arc<Socket>, name: Name) -> Result<()> {
        let mut own = self.name.lock();
        if own.is_some() {
            return err(Errno::EINVAL, "bound already");
        }
        let mut named = NAMED.lock();
        named.retain(|_, socket| socket.strong_count() > 0);
        if named.contains_key(&name.key()) {
            return err(Errno::EADDRINUSE, "the name is taken");
        }
        named.insert(name.key(), Arc::downgrade(self));
        *own = Some(name);
        Ok(())
    }

    pub fn listen(&self, backlog: usize) -> Result<()> {
        if self.kind == Type::Datagram {
            return err(Errno::EOPNOTSUPP, "listen on datagrams");
        }
        if self.name.lock().is_none() {
            return err(Errno::EINVAL, "not bound");
        }
        let backlog = backlog.clamp(1, 4096);
        let mut state = self.state.lock();
        match &mut *state {
            State::Fresh => *state = State::Listening(Listener { backlog, waiting: VecDeque::new() }),
            State::Listening(listener) => listener.backlog = backlog,
            State::Connected(_) => return err(Errno::EINVAL, "connected"),
        }
        Ok(())
    }

    pub fn accept(&self, wait: Wait) -> Result<Arc<Socket>> {
        if !self.is_listening() {
            return err(Errno::EINVAL, "not listening");
        }
        let accepted = self.readiness.wait(wait, || match &mut *self.state.lock() {
            State::Listening(listener) => listener.waiting.pop_front(),
            _ => None,
        })?;
        self.readiness.notify();
        Ok(accepted)
    }

    /// connect(2) of a stream or sequenced-packet socket to a listening one.
    pub fn connect(&self, key: &Key, wait: Wait) -> Result<()> {
        let target = NAMED.lock().get(key).and_then(Weak::upgrade);
        let Some(target) = target else { return err(Errno::ECONNREFUSED, "nobody listens") };
        if target.kind != self.kind {
            return err(Errno::EPROTOTYPE, "another type of socket");
        }
        match &*self.state.lock() {
            State::Fresh => {}
            State::Connected(_) => return err(Errno::EISCONN, "connected already"),
            State::Listening(_) => return err(Errno::EINVAL, "listening"),
        }
        let (mine, theirs) = connection(self.kind, self.owner, target.owner, self.name(), target.name());
        let accepted =
            Socket::with_state(self.kind, State::Connected(theirs), target.name(), target.owner);
        let mut accepted = Some(accepted);
        target.readiness.wait(wait, || match &mut *target.state.lock() {
            State::Listening(listener) if listener.waiting.len() <= listener.backlog => {
                listener.waiting.extend(accepted.take());
                Some(Ok(()))
            }
            State::Listening(_) => None,
            _ => Some(err(Errno::ECONNREFUSED, "nobody listens")),
        })??;
        *self.state.lock() = State::Connected(mine);
        self.readiness.notify();
        target.readiness.notify();
        Ok(())
    }

    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        let mut closed = Vec::new();
        {
            let mut state = self.state.lock();
            let State::Connected(connection) = &mut *state else {
                return err(Errno::ENOTCONN, "not connected");
            };
            if how != Shutdown::Write {
                closed.push(core::mem::replace(&mut connection.input, Channel::Closed));
            }
            if how != Shutdown::Read {
                closed.push(core::mem::replace(&mut connection.output, Channel::Closed));
            }
        }
        for channel in &closed {
            channel.close();
        }
        self.readiness.notify();
        Ok(())
    }

    fn connection(&self) -> Result<Connection> {
        match &*self.state.lock() {
            State::Connected(connection) => Ok(connection.clone()),
            _ if self.kind == Type::Stream => err(Errno::EINVAL, "not connected"),
            _ => err(Errno::ENOTCONN, "not connected"),
        }
    }

    /// recv(2): the length of what came; for messages the whole length, also if it did not fit.
    pub fn receive(&self, sink: &mut Sink<'_>, wait: Wait) -> Result<usize> {
        match self.connection()?.input {
            Channel::Stream(pipe) => {
                let before = sink.done();
                pipe.read(0, sink, wait)?;
                Ok(sink.done() - before)
            }
            Channel::Messages(messages) => messages.receive(sink, wait),
            Channel::Closed => Ok(0),
        }
    }

    /// More of a stream behind what `sink` has already (MSG_WAITALL).
    pub fn receive_more(&self, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        match self.connection()?.input {
            Channel::Stream(pipe) => pipe.read_more(sink, wait),
            _ => Ok(()),
        }
    }

    pub fn send(&self, source: &mut Source<'_>, wait: Wait) -> Result<()> {
        let connection = self.connection().map_err(|_| Error::new(Errno::ENOTCONN, "not connected"))?;
        match connection.output {
            Channel::Stream(pipe) => pipe.write(Position::End, source, wait).map(drop),
            Channel::Messages(messages) => messages.send(source, wait),
            Channel::Closed => err(Errno::EPIPE, "shut down"),
        }
    }
}

/// The two ends of a new connection: of who connects and of who accepts.
fn connection(
    kind: Type,
    one: Peer,
    other: Peer,
    one_name: Option<Name>,
    other_name: Option<Name>,
) -> (Connection, Connection) {
    let channel = || match kind {
        Type::Stream => {
            let (reader, writer) = pipe::new();
            (Channel::Stream(reader), Channel::Stream(writer))
        }
        _ => {
            let messages = Messages::new();
            (Channel::Messages(messages.clone()), Channel::Messages(messages))
        }
    };
    let (there_in, there_out) = channel();
    let (back_in, back_out) = channel();
    (
        Connection { input: back_in, output: there_out, peer: other, peer_name: other_name },
        Connection { input: there_in, output: back_out, peer: one, peer_name: one_name },
    )
}

impl Channel {
    /// Pipes close by themselves when their last end goes.
    fn close(&self) {
        if let Channel::Messages(messages) = self {
            messages.close();
        }
    }

    fn poll_input(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        match self {
            Channel::Stream(pipe) => {
                let events = pipe.poll(waker);
                // Where a pipe says that its writers are gone, a socket says that reading gives the end.
                if events.has(Events::HUP) { events | Events::IN | Events::RDHUP } else { events }
            }
            Channel::Messages(messages) => {
                if let Some(waker) = waker {
                    messages.readiness.add(waker);
                }
                if messages.is_closed.load(Ordering::Acquire) {
                    return Events::IN | Events::RDHUP | Events::HUP;
                }
                if messages.queue.lock().is_empty() { Events::NONE } else { Events::IN }
            }
            Channel::Closed => Events::IN | Events::RDHUP,
        }
    }

    fn poll_output(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        match self {
            Channel::Stream(pipe) => {
                let events = pipe.poll(waker);
                // A peer that reads no more: writing fails at once, which counts as ready.
                if events.has(Events::ERR) { Events::OUT | Events::HUP } else { events }
            }
            Channel::Messages(messages) => {
                if let Some(waker) = waker {
                    messages.readiness.add(waker);
                }
                if messages.has_room() { Events::OUT } else { Events::NONE }
            }
            Channel::Closed => Events::OUT,
        }
    }

    fn forget(&self, waker: &Arc<dyn Wake>) {
        match self {
            Channel::Stream(pipe) => pipe.forget_waker(waker),
            Channel::Messages(messages) => messages.readiness.remove(waker),
            Channel::Closed => {}
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(name) = self.name.get_mut().take() {
            let mut named = NAMED.lock();
            if named.get(&name.key()).is_some_and(|socket| socket.strong_count() == 0) {
                named.remove(&name.key());
            }
        }
        match self.state.get_mut() {
            State::Connected(connection) => {
                connection.input.close();
                connection.output.close();
            }
            State::Listening(_) | State::Fresh => {}
        }
    }
}

impl File for Socket {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr::anonymous(self.ino, Kind::Socket, 0o777))
    }

    fn label(&self) -> String {
        format!("socket:[{}]", self.ino)
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        self.receive(sink, wait).map(drop)
    }

    fn write(&self, _at: Position, source: &mut Source<'_>, wait: Wait) -> Result<u64> {
        self.send(source, wait)?;
        Ok(0)
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.readiness.add(waker);
        }
        let (input, output) = match &*self.state.lock() {
            State::Fresh => return Events::OUT | Events::HUP,
            State::Listening(listener) if listener.waiting.is_empty() => return Events::NONE,
            State::Listening(_) => return Events::IN,
            State::Connected(connection) => (connection.input.clone(), connection.output.clone()),
        };
        let (input, output) = (input.poll_input(waker), output.poll_output(waker));
        let mut events = (input | output) & !Events::HUP;
        if input.has(Events::RDHUP) && output.has(Events::HUP) {
            events |= Events::HUP;
        }
        events
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.readiness.remove(waker);
        if let Ok(connection) = self.connection() {
            connection.input.forget(waker);
            connection.output.forget(waker);
        }
    }

    fn readable_bytes(&self) -> Result<usize> {
        match self.connection()?.input {
            Channel::Stream(pipe) => pipe.readable_bytes(),
            Channel::Messages(messages) => Ok(messages.queue.lock().front().map_or(0, Vec::len)),
            Channel::Closed => Ok(0),
        }
    }
}
