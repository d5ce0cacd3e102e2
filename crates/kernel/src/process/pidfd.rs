//! Process descriptors (pidfd_open(2)).

use alloc::string::String;
use alloc::sync::Arc;

use super::{Process, Thread, tree};
use crate::error::{Errno, Result, err};
use crate::sched::Wake;
use crate::vfs::file::File;
use crate::vfs::flags::{O_NONBLOCK, O_RDWR};
use crate::vfs::table::OnExec;
use crate::vfs::{Attr, Events, Kind, OpenFile};

/// Whether waiting on the descriptor (waitid) blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    Yes,
    No,
}

/// What a pidfd refers to: readable once the process has ended.
pub struct PidFile {
    process: Arc<Process>,
}

/// Opens a descriptor (closed on exec) for a process in the table of `thread`.
pub fn open(thread: &Thread, process: Arc<Process>, blocking: Blocking) -> Result<i32> {
    let mode = if blocking == Blocking::No { O_RDWR | O_NONBLOCK } else { O_RDWR };
    let file = OpenFile::new(Arc::new(PidFile { process }), mode);
    thread.files().insert(file, OnExec::Close)
}

/// The process a descriptor refers to; EBADF if it is no pidfd.
pub fn process_of(thread: &Thread, fd: i32) -> Result<(Arc<Process>, Blocking)> {
    let open = thread.files().get(fd)?;
    let file: &dyn core::any::Any = &**open.file();
    let Some(pid_file) = file.downcast_ref::<PidFile>() else {
        return err(Errno::EBADF, "not a pidfd");
    };
    let blocking = if open.flags() & O_NONBLOCK != 0 { Blocking::No } else { Blocking::Yes };
    Ok((pid_file.process.clone(), blocking))
}

impl File for PidFile {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr::anonymous(u64::from(self.process.pid()), Kind::Regular, 0o600))
    }

    fn describe(&self) -> String {
        let pid = if tree::find_process(self.process.pid()).is_some() { self.process.pid() as i32 } else { -1 };
        alloc::format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }

    fn label(&self) -> String {
        String::from("anon_inode:[pidfd]")
    }

    fn poll(&self, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.process.ended.add(waker.clone());
        }
        if tree::is_zombie(self.process.pid()) { Events::IN } else { Events(0) }
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.process.ended.remove(waker);
    }
}
