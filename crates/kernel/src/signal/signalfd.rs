//! Signals as bytes to read (signalfd(2)).
//!
//! The descriptor names a set, not an owner: a read takes from the signals of the thread that reads.

use alloc::string::String;
use alloc::sync::Arc;

use spin::Mutex;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{SigInfo, SigSet, mask};
use crate::error::{Errno, Result, err};
use crate::process;
use crate::sched::Wake;
use crate::vfs::file::{File, Wait};
use crate::vfs::poll::wait_error;
use crate::vfs::{Attr, Events, Kind, Sink};

/// What a signalfd refers to.
pub struct SignalFile {
    set: Mutex<SigSet>,
}

impl SignalFile {
    pub fn new(set: SigSet) -> SignalFile {
        SignalFile { set: Mutex::new(set) }
    }

    pub fn set_mask(&self, set: SigSet) {
        *self.set.lock() = set;
    }
}

/// `struct signalfd_siginfo`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Record {
    signo: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    fd: i32,
    tid: u32,
    band: u32,
    overrun: u32,
    trap_number: u32,
    status: i32,
    value: i32,
    pointer: u64,
    user_time: u64,
    system_time: u64,
    address: u64,
    address_lsb: u16,
    padding: u16,
    syscall: i32,
    call_address: u64,
    architecture: u32,
    rest: [u32; 7],
}

const RECORD_SIZE: usize = size_of::<Record>();
const _: () = assert!(RECORD_SIZE == 128);

impl From<&SigInfo> for Record {
    fn from(info: &SigInfo) -> Record {
        Record {
            signo: info.signo as u32,
            errno: info.errno,
            code: info.code,
            pid: info.pid(),
            uid: info.uid(),
            // The union's words under all their names: readers go by the code.
            tid: info.timer_id(),
            overrun: info.uid(),
            status: info.value() as i32,
            value: info.value() as i32,
            pointer: info.value(),
            user_time: info.word(2),
            system_time: info.word(3),
            address: info.address(),
            ..Record::default()
        }
    }
}

impl File for SignalFile {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr::anonymous(0, Kind::Regular, 0o600))
    }

    fn describe(&self) -> String {
        alloc::format!("sigmask:\t{:016x}\n", self.set.lock().0)
    }

    fn label(&self) -> String {
        String::from("anon_inode:[signalfd]")
    }

    fn read(&self, _offset: u64, sink: &mut Sink<'_>, wait: Wait) -> Result<()> {
        let Some(thread) = process::current() else { return err(Errno::EINVAL, "no thread reads") };
        if sink.room() < RECORD_SIZE {
            return err(Errno::EINVAL, "no room for a record");
        }
        let set = *self.set.lock();
        let take = || mask::take(&thread, set);
        let first = match take() {
            Some(found) => found,
            None if wait == Wait::Never => return err(Errno::EAGAIN, "no signal is pending"),
            None => {
                let readers = &thread.process().signals().readers;
                readers.wait_until(None, true, take).map_err(wait_error)?
            }
        };
        let mut next = Some(first);
        while let Some((_, info)) = next {
            sink.put(Record::from(&info).as_bytes());
            next = if sink.room() >= RECORD_SIZE { take() } else { None };
        }
        Ok(())
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        let Some(thread) = process::current() else { return Events(0) };
        if let Some(waker) = waker {
            thread.process().signals().readers.add(waker.clone());
        }
        let pending = mask::pending(&thread).intersection(*self.set.lock());
        if pending.is_empty() { Events(0) } else { Events::IN }
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        if let Some(thread) = process::current() {
            thread.process().signals().readers.remove(waker);
        }
    }
}
