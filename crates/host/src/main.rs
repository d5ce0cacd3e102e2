//! `occlum-host`: loads an enclave and runs a program in it. Started by the `occlum` command.

use occlum_host::args;
use occlum_host::error::{EXIT_STATUS, Error};
use occlum_host::instance::Instance;
use occlum_host::ocall::time::Clock;
use occlum_host::{loader, profile, server, signals, sys, vcpu};
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
    sys::raise_descriptor_limit();
    let mut run = args::parse(std::env::args_os().skip(1))?;
    let service = run.service.take();
    let signals = match service {
        Some(_) => signals::take_ending(),
        None => signals::take_forwarded(),
    };
    let enclave = loader::load_enclave(&run.build_dir)?;
    let image = loader::map_image(&run.build_dir)?;
    let instance = Arc::new(Instance::new(enclave, image, run, clock)?);
    let for_thread = instance.clone();
    match service {
        Some(service) => {
            let grace_ms = service.grace_ms;
            let listener = server::bind(&service.socket)?;
            server::start(&instance, listener, service)?;
            spawn(move || signals::end_instance(&for_thread, &signals, grace_ms))?;
        }
        None => spawn(move || signals::forward(&for_thread, &signals))?,
    }
    if instance.profile.is_some() {
        profile::start(&instance).map_err(|_| thread_error())?;
    }
    Ok(vcpu::run_all(&instance)?)
}

/// Starts the thread that takes signals.
fn spawn(body: impl FnOnce() -> std::convert::Infallible + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new()
        .name("signals".into())
        .spawn(body);
    started.map(drop).map_err(|_| thread_error())
}

fn thread_error() -> Error {
    Error::System {
        what: "thread",
        errno: rustix::io::Errno::AGAIN,
    }
}
