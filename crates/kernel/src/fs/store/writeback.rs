//! When what is dirty goes to the store, and the store to the disk.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use occlum_enclave::log;
use spin::Once;

use super::data::Then;
use super::{Node, Shared};
use crate::error::{Errno, Result, err};
use crate::fs::cache;
use crate::sched::wait::WaitQueue;
use crate::sched::{self, SpinLock, timer};

/// What was written is on the disk after this time at the latest, whether or not somebody asked for it.
const PERIOD_NS: u64 = 5_000_000_000;

/// Stores with something dirty.
static WAITING: SpinLock<Vec<Weak<Shared>>> = SpinLock::new(Vec::new());
static WORK: WaitQueue = WaitQueue::new();
static TASK: Once<()> = Once::new();

impl Shared {
    /// `node` has something to write.
    pub(super) fn add_dirty(self: &Arc<Shared>, node: Arc<Node>) {
        let number = self.next_dirty.fetch_add(1, Ordering::Relaxed);
        let is_first = {
            let mut dirty = self.dirty.lock();
            dirty.insert(number, node);
            dirty.len() == 1
        };
        if is_first {
            WAITING.lock().push(Arc::downgrade(self));
            TASK.call_once(start);
            WORK.wake_one();
        }
    }

    /// Lets a writer help while too much waits to be written.
    pub(super) fn throttle(&self, node: &Node) -> Result<()> {
        let bytes = self.dirty_pages.load(Ordering::Relaxed).max(0) as usize * 4096;
        if bytes <= cache::dirty_limit() {
            return Ok(());
        }
        // Who writes that much does not read it soon.
        node.write_back_data(if cache::is_small() { Then::Keep } else { Then::Drop })?;
        let bytes = self.dirty_pages.load(Ordering::Relaxed).max(0) as usize * 4096;
        if bytes > cache::dirty_limit() / 2 { self.write_back() } else { Ok(()) }
    }

    /// Everything dirty goes to the store. The first error is told when all were tried.
    pub(super) fn write_back(&self) -> Result<()> {
        let dirty = core::mem::take(&mut *self.dirty.lock());
        let mut result = Ok(());
        for node in dirty.into_values() {
            // Only this list knows it, and no name leads to it: what was written is gone.
            if Arc::strong_count(&node) == 1 && node.is_abandoned() {
                node.data.forget(self);
                continue;
            }
            if let Err(error) = node.write_back() {
                result = Err(error);
            }
        }
        result
    }

    pub(super) fn sync(&self) -> Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        let written = self.write_back();
        self.with(|store| store.sync())?;
        written
    }

    /// ENOSPC unless the store has room for `size` more bytes.
    pub(super) fn check_room(&self, size: u64) -> Result<()> {
        let stat = self.with(|store| Ok(store.statfs()))?;
        let waiting = self.dirty_pages.load(Ordering::Relaxed).max(0) as u64;
        if size.div_ceil(4096) > stat.free_blocks.saturating_sub(waiting) {
            return err(Errno::ENOSPC, "the store has no room for it");
        }
        Ok(())
    }
}

fn start() {
    match sched::spawn(String::from("write-back"), Box::new(write_back_for_ever)) {
        Ok(task) => {
            sched::unpark(&task);
        }
        // fsync and the end of the instance still write.
        Err(error) => log!(Warn, "no write-back task: {error:?}"),
    }
}

fn write_back_for_ever() {
    loop {
        let some = || (!WAITING.lock().is_empty()).then_some(());
        // Nothing ends this wait but work.
        if WORK.wait_until(None, false, some).is_err() {
            return;
        }
        pause(PERIOD_NS);
        let stores = core::mem::take(&mut *WAITING.lock());
        for store in stores.iter().filter_map(Weak::upgrade) {
            if let Err(error) = store.sync() {
                log!(Error, "what was written in the background is not on the disk: {error:?}");
            }
        }
    }
}

fn pause(ns: u64) {
    let never = WaitQueue::new();
    let deadline = timer::now_ns() + ns;
    // Only the deadline ends it.
    let _ = never.wait_until(Some(deadline), false, || None::<()>);
}
