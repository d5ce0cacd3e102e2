//! Programs that no other program starts.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use occlum_enclave::user::UserContext;

use super::limits::Limits;
use super::load::Image;
use super::thread::{Inherited, to_name};
use super::programs::Program;
use super::{Process, Thread, ThreadState, exec, programs, stack, tree, user_loop};
use crate::error::Result;
use crate::signal::Dispositions;
use crate::vfs::{FileTable, FsContext};

/// Starts a program as a child of init, leader of a session of its own, for the request `program.number`.
/// Runs in a kernel task.
pub fn start(
    request: exec::Request,
    files: Arc<FileTable>,
    fs: Arc<FsContext>,
    limits: Limits,
    program: Program,
) -> Result<u32> {
    let exec::Request { path, name, args, env } = request;
    let stack_limit = limits.get(super::Resource::STACK).soft;
    let inherited = Inherited::initial(to_name(exec::base_name(&name)));
    let credentials = inherited.credentials.clone();
    let image = Image::find(&fs, &credentials.identity(), path, &name, args)?;
    stack::check_size(&image.args, &env, stack_limit)?;

    let pid = tree::new_id()?;
    let process = Arc::new(Process::new(pid, Arc::new(Dispositions::default()), limits));
    let prepared = exec::prepare(&process, &image, &name, &env, &credentials)?;
    process.set_program(prepared.program);
    process.has_executed.store(true, Ordering::Relaxed);

    let state = Arc::new(ThreadState::new(pid, process.clone(), inherited));
    let thread = Thread::new(state, prepared.space, files, fs);
    tree::reserve_thread()?;
    process.add_thread(thread.clone())?;
    tree::insert_process(process, thread.clone(), tree::INIT);
    programs::add(pid, program);
    let mut context = UserContext::new();
    exec::enter(&mut context, prepared.start, prepared.sp);
    user_loop::start(thread, context)?;
    Ok(pid)
}

