//! Processes and threads.

use alloc::sync::Arc;

use crate::mm::AddressSpace;
use crate::sched::{self, Local};
use crate::vfs::{FileTable, FsContext};

/// A thread of a user program (a Linux task).
pub struct Thread {
    tid: u32,
    process: Arc<Process>,
    space: Arc<AddressSpace>,
    files: Arc<FileTable>,
    fs: Arc<FsContext>,
}

/// A thread group.
pub struct Process {
    pid: u32,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Thread {
    pub fn tid(&self) -> u32 {
        self.tid
    }

    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    pub fn files(&self) -> &Arc<FileTable> {
        &self.files
    }

    pub fn fs(&self) -> &Arc<FsContext> {
        &self.fs
    }
}

/// The thread this code runs for, if any.
pub fn current() -> Option<Arc<Thread>> {
    sched::local::<Thread>(Local::Thread)
}
