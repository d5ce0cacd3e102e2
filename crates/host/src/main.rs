//! `occlum-host`: loads an enclave and runs a program in it. Started by the `occlum` command.

use occlum_host::args;
use occlum_host::error::{EXIT_STATUS, Error};
use occlum_host::instance::Instance;
use occlum_host::ocall::time::Clock;
use occlum_host::{loader, vcpu};
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
    let clock = Clock::start();
    let run = args::parse(std::env::args_os().skip(1))?;
    let enclave = loader::load_enclave(&run.build_dir)?;
    let image = loader::map_image(&run.build_dir)?;
    let instance = Arc::new(Instance::new(enclave, image, run, clock)?);
    Ok(vcpu::run_all(&instance)?)
}
