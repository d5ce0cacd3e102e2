//! Files between the host and the tree inside, for debuggable enclaves.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;

use occlum_abi::control::{Answer, Copy, Direction};

use crate::error::{Errno, Result, err};
use crate::fs::console::Console;
use crate::outside;
use crate::sched;
use crate::vfs::create::{self, Mode};
use crate::vfs::flags::{O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use crate::vfs::walk::Walker;
use crate::vfs::{FsContext, Identity, OpenFile, Sink, Source};

const CHUNK: usize = 64 << 10;

/// Starts a task that copies and answers.
pub fn start(number: u64, copy: Copy) -> Result<()> {
    let body = move || outside::answer(number, &run(&copy));
    let task = sched::spawn(String::from("copy"), Box::new(body))?;
    sched::unpark(&task);
    Ok(())
}

/// Gives the host's descriptor back.
pub fn close(copy: &Copy) {
    drop(Console::open_all([Some(copy.file), None, None]));
}

fn run(copy: &Copy) -> Answer {
    match try_run(copy) {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Refused {
            message: format!("{}: {error:?}", copy.path),
            hint: String::from("give an absolute path of a regular file inside the enclave"),
            code: 1,
        },
    }
}

fn try_run(copy: &Copy) -> Result<()> {
    let [console, ..] = Console::open_all([Some(copy.file), None, None]);
    let Some(console) = console else { return err(Errno::EBADF, "the host's file") };
    let outer = OpenFile::new(console, O_RDWR);
    match copy.direction {
        Direction::In { mode } => move_all(&outer, &*open(&copy.path, O_WRONLY | O_CREAT | O_TRUNC, mode)?),
        Direction::Out => move_all(&*open(&copy.path, O_RDONLY, 0)?, &outer),
    }
}

fn open(path: &str, flags: u32, mode: u32) -> Result<Arc<OpenFile>> {
    let fs = FsContext::new();
    let who = Identity::ROOT;
    let walker = Walker::new(&fs, &who, fs.cwd(), path.as_bytes().to_vec())?;
    create::open(walker, flags, Mode { bits: mode & 0o7777, umask: 0 })
}

fn move_all(from: &OpenFile, to: &OpenFile) -> Result<()> {
    let mut buf = vec![0; CHUNK];
    loop {
        let size = from.read(&mut Sink::kernel(&mut buf))?;
        if size == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < size {
            written += to.write(&mut Source::kernel(&buf[written..size]))?;
        }
    }
}
