//! Open files on their way from one process to another (SCM_RIGHTS).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::sched::SpinLock;
use crate::vfs::OpenFile;

/// Files that nobody received are closed one after the other: a socket whose queue holds a socket whose
/// queue holds ... must not be dropped recursively, the kernel stack is small.
static ABANDONED: SpinLock<Vec<Arc<OpenFile>>> = SpinLock::new(Vec::new());
static IS_CLOSING: AtomicBool = AtomicBool::new(false);

/// Open files that travel with a message.
#[derive(Clone, Default)]
pub struct Rights(Vec<Arc<OpenFile>>);

impl Rights {
    pub fn new(files: Vec<Arc<OpenFile>>) -> Rights {
        Rights(files)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn files(&self) -> &[Arc<OpenFile>] {
        &self.0
    }

    /// Takes over the files of `other`.
    pub fn append(&mut self, other: &mut Rights) {
        self.0.append(&mut other.0);
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            close_later(core::mem::take(&mut self.0));
        }
    }
}

/// Closes files, those found in their queues included, without recursion.
fn close_later(files: Vec<Arc<OpenFile>>) {
    ABANDONED.lock().extend(files);
    while !ABANDONED.lock().is_empty() && !IS_CLOSING.swap(true, Ordering::AcqRel) {
        loop {
            let file = ABANDONED.lock().pop();
            let Some(file) = file else { break };
            drop(file);
        }
        IS_CLOSING.store(false, Ordering::Release);
    }
}
