//! A host that lies: the host program of this crate, with one lie put in. A test double; not shipped.
//!
//! `lying-host LIE run --build-dir DIR ...` does what `occlum-host run` does but for the lie;
//! `lying-host lies` names the lies it knows. What the kernel must answer to each stands in
//! `tests/hostile/test_hostile.py`.
//!
//! - [`lie`]: where a lie can be put in, and all of them by name
//! - [`handover`]: about what the kernel is told at its first entry
//! - [`answer`]: about the result of a call
//! - [`refusal`]: permissions it does not change
//! - [`world`]: about memory both sides see: the clock, the image, buffers
//! - [`entry`]: about when and with which registers the enclave is entered
//! - [`vcpu`]: the loop of one virtual CPU, as in the library, with the places for lies

mod answer;
mod entry;
mod handover;
mod lie;
mod refusal;
mod vcpu;
mod world;

use lie::Lie;
use occlum_host::error::{EXIT_STATUS, Error};
use occlum_host::instance::Instance;
use occlum_host::ocall::time::Clock;
use occlum_host::{args, loader};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_STATUS as u8)
        }
    }
}

fn run() -> Result<(), Error> {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next().unwrap_or_default();
    if name == "lies" {
        lie::names().for_each(|name| println!("{name}"));
        return Ok(());
    }
    let lie = find(&name)?;
    let clock = Clock::start();
    let run = args::parse(arguments)?;
    let enclave = loader::load_enclave(&run.build_dir)?;
    let image = loader::map_image(&run.build_dir)?;
    let build_dir = run.build_dir.clone();
    let instance = Arc::new(Instance::new(enclave, image, run, clock)?);
    lie.prepare(&instance, &build_dir);
    Ok(vcpu::run_all(&instance, &lie)?)
}

fn find(name: &OsString) -> Result<Arc<dyn Lie>, Error> {
    let known = name.to_str().and_then(lie::find);
    known.ok_or_else(|| Error::Usage(format!("there is no lie {}", name.display())))
}
