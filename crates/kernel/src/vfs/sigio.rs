//! Signals about readiness (O_ASYNC, F_SETOWN, F_SETSIG: fcntl(2)).
//!
//! While an open file has O_ASYNC, a waker of its own stands in the lists of the file behind it. It is called
//! under the lock of such a list, so it asks the file nothing (which of reading and writing became possible it
//! tells by how the file was opened) and only notes that there is a signal to send. The system call that caused
//! it sends it on its way out, or a kernel task does.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::flags::{O_ACCMODE, O_ASYNC, O_WRONLY};
use super::open::OpenFile;
use crate::error::{Errno, Result, err};
use crate::process::{self, Credentials, Process, tree};
use crate::sched::{self, SpinLock, TaskRef, Wake};
use crate::signal::{SigInfo, Signal, send_to_process, send_to_thread};

/// Who gets the signals; F_SETOWN_EX's kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Thread(u32),
    Process(u32),
    Group(u32),
}

/// What an open file remembers of this.
#[derive(Default)]
pub struct Async {
    settings: SpinLock<Settings>,
    waker: SpinLock<Option<Arc<dyn Wake>>>,
}

#[derive(Clone, Default)]
struct Settings {
    owner: Option<Owner>,
    /// F_SETSIG; `None` is plain SIGIO.
    signal: Option<Signal>,
    fd: i32,
    /// Who set the owner: signals go where that one may send them.
    who: Option<Arc<Credentials>>,
}

impl Async {
    pub fn owner(&self) -> Option<Owner> {
        self.settings.lock().owner
    }

    pub fn signal(&self) -> i32 {
        self.settings.lock().signal.map_or(0, Signal::number)
    }

    /// Who set the owner.
    pub fn set_by(&self) -> Option<Arc<Credentials>> {
        self.settings.lock().who.clone()
    }
}

impl OpenFile {
    /// F_SETOWN; ESRCH if there is nobody like that.
    pub fn set_owner(&self, owner: Option<Owner>, fd: i32) -> Result<()> {
        let exists = match owner {
            None => true,
            Some(Owner::Thread(tid)) => tree::find_thread(tid).is_some(),
            Some(Owner::Process(pid)) => tree::find_process(pid).is_some(),
            Some(Owner::Group(pgid)) => !tree::group(pgid).is_empty(),
        };
        if !exists {
            return err(Errno::ESRCH, "no such owner");
        }
        let who = process::current().map(|thread| thread.credentials());
        let old = {
            let mut settings = self.asynchronous.settings.lock();
            let new = Settings { owner, fd, who, ..settings.clone() };
            core::mem::replace(&mut *settings, new)
        };
        drop(old);
        self.arm();
        Ok(())
    }

    /// F_SETSIG.
    pub fn set_signal(&self, signal: Option<Signal>) {
        self.asynchronous.settings.lock().signal = signal;
        self.arm();
    }

    /// After a change: has the signals sent that the flags and the owner ask for.
    pub(super) fn arm(&self) {
        self.disarm();
        let settings = self.asynchronous.settings.lock().clone();
        let Some(owner) = settings.owner.filter(|_| self.flags() & O_ASYNC != 0) else { return };
        let is_write = self.flags() & O_ACCMODE == O_WRONLY;
        start_courier();
        let waker: Arc<dyn Wake> = Arc::new_cyclic(|me| Sender {
            owner,
            is_write,
            settings,
            is_noted: AtomicBool::new(false),
            me: me.clone(),
        });
        self.file().poll(Some(&waker));
        *self.asynchronous.waker.lock() = Some(waker);
    }

    pub(super) fn disarm(&self) {
        let waker = self.asynchronous.waker.lock().take();
        if let Some(waker) = waker {
            self.file().forget_waker(&waker);
        }
    }
}

struct Sender {
    owner: Owner,
    is_write: bool,
    settings: Settings,
    /// In the list of those to send.
    is_noted: AtomicBool,
    me: Weak<Sender>,
}

static NOTED: SpinLock<VecDeque<Arc<Sender>>> = SpinLock::new(VecDeque::new());
static NOTED_COUNT: AtomicUsize = AtomicUsize::new(0);
static COURIER: SpinLock<Option<TaskRef>> = SpinLock::new(None);

/// Sends what was noted. Called with no lock held.
#[inline]
pub fn send_noted() {
    if NOTED_COUNT.load(Ordering::Relaxed) != 0 {
        send_all();
    }
}

#[cold]
fn send_all() {
    loop {
        let next = {
            let mut noted = NOTED.lock();
            let next = noted.pop_front();
            NOTED_COUNT.store(noted.len(), Ordering::Relaxed);
            next
        };
        let Some(sender) = next else { return };
        sender.is_noted.store(false, Ordering::Release);
        sender.deliver();
    }
}

/// The task that sends what no system call sends: readiness that comes from the host. Without memory for it
/// those signals come late.
fn start_courier() {
    if COURIER.lock().is_some() {
        return;
    }
    let body = Box::new(|| loop {
        send_all();
        sched::park();
    });
    let Ok(task) = sched::spawn(String::from("sigio"), body) else { return };
    let is_first = {
        let mut courier = COURIER.lock();
        let is_first = courier.is_none();
        courier.get_or_insert_with(|| task.clone());
        is_first
    };
    if is_first {
        sched::unpark(&task);
    }
}

impl Wake for Sender {
    fn wake(&self) -> bool {
        if self.is_noted.swap(true, Ordering::AcqRel) {
            return true;
        }
        if let Some(me) = self.me.upgrade() {
            let mut noted = NOTED.lock();
            noted.push_back(me);
            NOTED_COUNT.store(noted.len(), Ordering::Relaxed);
        }
        let courier = COURIER.lock().clone();
        if let Some(courier) = courier {
            sched::unpark(&courier);
        }
        true
    }
}

impl Sender {
    fn deliver(&self) {
        match self.owner {
            Owner::Thread(tid) => {
                if let Some(thread) = tree::find_thread(tid).filter(|thread| self.may_reach(thread.process())) {
                    // A full queue loses it; the plain signal is never refused.
                    let _ = send_to_thread(&thread, self.signal(), self.info());
                }
            }
            Owner::Process(pid) => tree::find_process(pid).iter().for_each(|process| self.send(process)),
            Owner::Group(pgid) => tree::group(pgid).iter().for_each(|process| self.send(process)),
        }
    }

    fn send(&self, process: &Process) {
        if self.may_reach(process) && send_to_process(process, self.signal(), self.info()).is_err() {
            // No room for one more record: a plain SIGIO instead, as on Linux.
            let _ = send_to_process(process, Signal::IO, SigInfo::kernel(Signal::IO));
        }
    }

    fn signal(&self) -> Signal {
        self.settings.signal.unwrap_or(Signal::IO)
    }

    fn info(&self) -> SigInfo {
        const POLL_IN: (i32, u64) = (1, 0x41);
        const POLL_OUT: (i32, u64) = (2, 0x304);
        match self.settings.signal {
            None => SigInfo::kernel(Signal::IO),
            Some(signal) => {
                let (code, band) = if self.is_write { POLL_OUT } else { POLL_IN };
                SigInfo::about_file(signal, code, band, self.settings.fd)
            }
        }
    }

    fn may_reach(&self, process: &Process) -> bool {
        let Some(who) = &self.settings.who else { return false };
        let Some(whom) = process.main_thread().map(|thread| thread.credentials()) else { return false };
        let is_one_of = |id: u32| id == whom.user.real || id == whom.user.saved;
        who.euid() == 0 || is_one_of(who.user.real) || is_one_of(who.euid())
    }
}
