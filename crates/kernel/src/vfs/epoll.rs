//! epoll(7).
//!
//! An item is one watched (descriptor, open file). Its waker stands in the file's list for as long as it is watched;
//! a wake-up puts the item on the ready list, and epoll_wait looks at that list only. What is found not
//! ready leaves the list, what is ready stays if level-triggered.
//!
//! Lock order: a file's list of wakers (the wake-up comes under it), then the ready list, then the epoll's own
//! list of wakers. The items' lock is never held while a file is asked.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};

use super::file::File;
use super::inode::{Attr, Kind};
use super::open::OpenFile;
use super::pipe::anonymous_ino;
use super::poll::{Events, Readiness};
use crate::error::{Errno, Error, Result, err};
use crate::sched::{SpinLock, Wake, events, timer};

pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
pub const EPOLLWAKEUP: u32 = 1 << 29;
pub const EPOLLONESHOT: u32 = 1 << 30;
pub const EPOLLET: u32 = 1 << 31;
const FLAGS: u32 = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET;

/// Epoll instances watching each other: at most this deep.
const MAX_DEPTH: usize = 5;

pub struct Epoll {
    items: SpinLock<BTreeMap<Key, Arc<Item>>>,
    inbox: Arc<Inbox>,
    ino: u64,
}

/// What wake-ups touch. Its own object, so that a wake-up never holds the last reference to an epoll,
/// whose end takes the locks that the wake-up holds.
struct Inbox {
    ready: SpinLock<VecDeque<Arc<Item>>>,
    readiness: Readiness,
}

/// Descriptor number and open file.
type Key = (i32, usize);

struct Item {
    key: Key,
    file: Weak<OpenFile>,
    inbox: Arc<Inbox>,
    me: Weak<Item>,
    interest: SpinLock<Interest>,
    /// On the ready list.
    is_queued: AtomicBool,
}

/// What epoll_ctl asked for: EPOLL* bits and the value to give back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interest {
    pub events: u32,
    pub data: u64,
}

impl Interest {
    fn wanted(&self) -> Events {
        // A one-shot item that has fired wants nothing, not even errors.
        if self.events & !FLAGS == 0 && self.events & EPOLLONESHOT != 0 {
            return Events::NONE;
        }
        Events(self.events & !FLAGS) | Events::ERR | Events::HUP
    }
}

impl Wake for Item {
    fn wake(&self) -> bool {
        let has_waiters = self.inbox.readiness.has_waiters();
        if let Some(item) = self.me.upgrade() {
            self.inbox.enqueue(item);
            self.inbox.readiness.notify();
        }
        has_waiters
    }

    fn is_exclusive(&self) -> bool {
        self.interest.lock().events & EPOLLEXCLUSIVE != 0
    }
}

impl Inbox {
    fn enqueue(&self, item: Arc<Item>) {
        if !item.is_queued.swap(true, Ordering::AcqRel) {
            self.ready.lock().push_back(item);
        }
    }
}

impl Epoll {
    pub fn new() -> Arc<Epoll> {
        Arc::new(Epoll {
            items: SpinLock::new(BTreeMap::new()),
            inbox: Arc::new(Inbox {
                ready: SpinLock::new(VecDeque::new()),
                readiness: Readiness::new(),
            }),
            ino: anonymous_ino(),
        })
    }

    /// EPOLL_CTL_ADD
    pub fn add(self: &Arc<Epoll>, fd: i32, file: &Arc<OpenFile>, interest: Interest) -> Result<()> {
        if !file.file().is_pollable() {
            return err(Errno::EPERM, "a file that is always ready");
        }
        if let Some(other) = as_epoll(file)
            && (Arc::ptr_eq(&other, self) || other.depth_to(self, 1)? > MAX_DEPTH)
        {
            return err(Errno::EINVAL, "an epoll that watches itself");
        }
        let item = Arc::new_cyclic(|me| Item {
            key: key(fd, file),
            file: Arc::downgrade(file),
            inbox: self.inbox.clone(),
            me: me.clone(),
            interest: SpinLock::new(interest),
            is_queued: AtomicBool::new(false),
        });
        {
            let mut items = self.items.lock();
            // A descriptor's number may come back with another file at the same address.
            let is_watched =
                items.get(&item.key).is_some_and(|item| item.file.strong_count() > 0);
            if is_watched {
                return err(Errno::EEXIST, "watched already");
            }
            items.insert(item.key, item.clone());
        }
        let waker: Arc<dyn Wake> = item.clone();
        let now = file.file().poll(Some(&waker));
        self.enqueue_if(&item, now);
        Ok(())
    }

    /// EPOLL_CTL_MOD
    pub fn modify(&self, fd: i32, file: &Arc<OpenFile>, interest: Interest) -> Result<()> {
        let item = self.item(fd, file)?;
        *item.interest.lock() = interest;
        let now = self.poll_again(&item, file);
        self.enqueue_if(&item, now);
        Ok(())
    }

    /// EPOLL_CTL_DEL
    pub fn remove(&self, fd: i32, file: &Arc<OpenFile>) -> Result<()> {
        let item = self.item(fd, file)?;
        self.items.lock().remove(&item.key);
        let waker: Arc<dyn Wake> = item.clone();
        file.file().forget_waker(&waker);
        self.inbox.ready.lock().retain(|other| !Arc::ptr_eq(other, &item));
        Ok(())
    }

    /// Waits until something is ready, at most until `deadline_ns`; gives at most `max` events.
    pub fn wait(&self, max: usize, deadline_ns: Option<u64>) -> Result<Vec<(Events, u64)>> {
        let collect = || Some(self.collect(max)).filter(|found| !found.is_empty());
        if let Some(found) = collect() {
            return Ok(found);
        }
        if deadline_ns.is_some_and(|deadline| timer::now_ns() >= deadline) {
            // As for poll(2): what is ready now.
            events::look();
            return Ok(self.collect(max));
        }
        match self.inbox.readiness.wait_until(deadline_ns, collect) {
            Err(error) if error.errno == Errno::ETIMEDOUT => Ok(Vec::new()),
            result => result,
        }
    }

    /// Takes up to `max` ready items off the list; level-triggered ones go back to its end.
    fn collect(&self, max: usize) -> Vec<(Events, u64)> {
        let mut found = Vec::new();
        let mut again = Vec::new();
        let mut looks = self.inbox.ready.lock().len();
        while found.len() < max && looks > 0 {
            looks -= 1;
            let Some(item) = self.inbox.ready.lock().pop_front() else { break };
            item.is_queued.store(false, Ordering::Release);
            let Some(file) = item.file.upgrade() else {
                self.items.lock().remove(&item.key);
                continue;
            };
            let mut events = file.file().poll(None);
            if !file.file().keeps_wakers() {
                events |= self.poll_again(&item, &file);
            }
            let mut interest = item.interest.lock();
            let events = events.with_twins() & interest.wanted();
            if events.is_empty() {
                continue;
            }
            found.push((events, interest.data));
            if interest.events & EPOLLONESHOT != 0 {
                interest.events &= FLAGS;
            } else if interest.events & EPOLLET == 0 {
                drop(interest);
                again.push(item);
            }
        }
        again.into_iter().for_each(|item| self.inbox.enqueue(item));
        found
    }

    fn poll_again(&self, item: &Arc<Item>, file: &OpenFile) -> Events {
        let waker: Arc<dyn Wake> = item.clone();
        file.file().forget_waker(&waker);
        file.file().poll(Some(&waker))
    }

    fn item(&self, fd: i32, file: &Arc<OpenFile>) -> Result<Arc<Item>> {
        let found = self.items.lock().get(&key(fd, file)).cloned();
        found.ok_or(Error::new(Errno::ENOENT, "not watched"))
    }

    fn enqueue_if(&self, item: &Arc<Item>, now: Events) {
        let is_wanted = !(now.with_twins() & item.interest.lock().wanted()).is_empty();
        if is_wanted {
            self.inbox.enqueue(item.clone());
            self.inbox.readiness.notify();
        }
    }

    /// How many levels of epoll lie below; ELOOP if `target` is among them.
    fn depth_to(&self, target: &Arc<Epoll>, level: usize) -> Result<usize> {
        if level > MAX_DEPTH {
            return err(Errno::ELOOP, "epoll nested too deep");
        }
        let files: Vec<_> = self.items.lock().values().filter_map(|item| item.file.upgrade()).collect();
        let mut depth = level;
        for inner in files.iter().filter_map(as_epoll) {
            if Arc::ptr_eq(&inner, target) {
                return err(Errno::ELOOP, "epolls that watch each other");
            }
            depth = depth.max(inner.depth_to(target, level + 1)?);
        }
        Ok(depth)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for item in core::mem::take(self.items.get_mut()).into_values() {
            if let Some(file) = item.file.upgrade() {
                let waker: Arc<dyn Wake> = item;
                file.file().forget_waker(&waker);
            }
        }
        let ready = core::mem::take(&mut *self.inbox.ready.lock());
        drop(ready);
    }
}

fn key(fd: i32, file: &Arc<OpenFile>) -> Key {
    (fd, Arc::as_ptr(file) as usize)
}

/// The epoll instance behind an open file, if it is one.
pub fn as_epoll(file: &Arc<OpenFile>) -> Option<Arc<Epoll>> {
    let any: Arc<dyn Any + Send + Sync> = file.file().clone();
    any.downcast::<Epoll>().ok()
}

impl File for Epoll {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr::anonymous(self.ino, Kind::Regular, 0o600))
    }

    fn describe(&self) -> String {
        let items: Vec<_> = self.items.lock().values().cloned().collect();
        let mut text = String::new();
        for item in items {
            let interest = *item.interest.lock();
            text += &alloc::format!(
                "tfd: {:8} events: {:8x} data: {:16x} \n",
                item.key.0, interest.events | (Events::ERR | Events::HUP).0, interest.data
            );
        }
        text
    }

    fn label(&self) -> String {
        String::from("anon_inode:[eventpoll]")
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.inbox.readiness.add(waker);
        }
        let items: Vec<_> = self.inbox.ready.lock().iter().cloned().collect();
        let is_ready = items.iter().any(|item| {
            let wanted = item.interest.lock().wanted();
            let now = item.file.upgrade().map_or(Events::NONE, |file| file.file().poll(None));
            !(now.with_twins() & wanted).is_empty()
        });
        if is_ready { Events::IN } else { Events::NONE }
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.inbox.readiness.remove(waker);
    }
}
