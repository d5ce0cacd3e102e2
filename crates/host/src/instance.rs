//! Everything the threads of a running enclave share.

use crate::args::Run;
use crate::counters::Counters;
use crate::cpu::enclave::Enclave;
use crate::error::Error;
use crate::memory::Mapping;
use crate::ocall::files::Files;
use crate::ocall::park::Parking;
use crate::ocall::time::Clock;
use crate::profile::Profile;
use crate::requests::Requests;
use crate::sys;
use crate::ticker::Ticker;
use occlum_abi::boot::{HOST_INFO_VERSION, HostInfo, RunRequest};
use occlum_abi::ocall::SharedPage;
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

/// Bytes of one vCPU's staging buffer. Untouched parts cost nothing.
const STAGING_SIZE: usize = 1 << 20;

pub struct Instance {
    pub enclave: Arc<Enclave>,
    pub vcpus: usize,
    pub parking: Parking,
    pub files: Files,
    pub clock: Clock,
    pub ticker: Ticker,
    pub requests: Requests,
    /// Where the trace goes.
    pub trace: Option<File>,
    pub profile: Option<Profile>,
    /// By vCPU.
    pub counters: Vec<Counters>,
    image: Mapping,
    request: Vec<u8>,
    shared: Mapping,
    staging: Mapping,
}

impl Instance {
    /// `clock` was started before the enclave was loaded, so that it knows the counter's pace by now.
    pub fn new(
        enclave: Arc<Enclave>,
        image: Mapping,
        mut run: Run,
        clock: Clock,
    ) -> Result<Instance, Error> {
        let vcpus = usable_processors().min(enclave.tcs_count());
        let system = |what| move |errno| Error::System { what, errno };
        let instance = Instance {
            vcpus,
            enclave,
            image,
            parking: Parking::new(vcpus).map_err(system("epoll or eventfd"))?,
            shared: Mapping::anonymous(size_of::<SharedPage>()).map_err(system("mmap"))?,
            staging: Mapping::anonymous(STAGING_SIZE * vcpus).map_err(system("mmap"))?,
            files: Files::default(),
            ticker: Ticker::default(),
            requests: Requests::default(),
            trace: run.trace.take().map(File::from),
            profile: run.profile.take().map(File::from).map(Profile::new),
            request: request(run)?,
            counters: std::iter::repeat_with(Counters::default)
                .take(vcpus)
                .collect(),
            clock,
        };
        instance.ticker.set_asleep(instance.shared());
        instance.clock.publish(instance.shared());
        Ok(instance)
    }

    /// The page that both sides read and write.
    pub fn shared(&self) -> &SharedPage {
        // SAFETY: a mapping of that size, zeroed, aligned to a page; all fields are atomics.
        unsafe { &*self.shared.pointer(0).cast::<SharedPage>() }
    }

    /// What the kernel is told at its first entry.
    pub fn host_info(&self) -> HostInfo {
        let (xfrm, xsave_size) = self.enclave.extended_state();
        let (hwcap, hwcap2) = sys::hwcap();
        HostInfo {
            version: HOST_INFO_VERSION,
            vcpus: self.vcpus as u32,
            shared: self.shared.address() as u64,
            staging: self.staging.address() as u64,
            staging_size: STAGING_SIZE as u64,
            image: self.image.address() as u64,
            image_size: self.image.size() as u64,
            request: self.request.as_ptr() as u64,
            request_size: self.request.len() as u64,
            xfrm,
            xsave_size,
            hwcap,
            hwcap2,
        }
    }

    /// The part of a vCPU's staging buffer that an ocall's argument names. For that vCPU's thread, which
    /// uses one part at a time.
    #[expect(
        clippy::mut_from_ref,
        reason = "shared memory, handed out to one user at a time"
    )]
    pub fn staging(&self, vcpu: usize, address: u64, len: u64) -> Result<&mut [u8], Errno> {
        let part = self.staging_part(vcpu, address, len).ok_or(Errno::FAULT)?;
        // SAFETY: inside the mapping. Only the vCPU that makes the call uses its buffer, and it waits;
        // a call takes one part at a time. What a hostile enclave does to it meanwhile may change bytes,
        // which have no meaning to the host but to be copied.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.staging.pointer(part.start), part.len()) })
    }

    /// All of a vCPU's staging buffer.
    pub fn whole_staging(&self, vcpu: usize) -> Result<&mut [u8], Errno> {
        let start = self.staging.address() + vcpu * STAGING_SIZE;
        self.staging(vcpu, start as u64, STAGING_SIZE as u64)
    }

    fn staging_part(&self, vcpu: usize, address: u64, len: u64) -> Option<Range<usize>> {
        let buffer = vcpu * STAGING_SIZE..(vcpu + 1) * STAGING_SIZE;
        let start = usize::try_from(address)
            .ok()?
            .checked_sub(self.staging.address())?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (start >= buffer.start && end <= buffer.end).then_some(start..end)
    }
}

fn usable_processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn request(run: Run) -> Result<Vec<u8>, Error> {
    let request = RunRequest {
        path: run.program,
        args: run.arguments,
        env: std::env::vars_os()
            .map(|(name, value)| variable(name.into_vec(), value.into_vec()))
            .collect(),
        log_level: run.log_level,
        hostname: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        // A file that isn't there is like an empty one.
        resolv_conf: std::fs::read("/etc/resolv.conf").unwrap_or_default(),
        hosts: std::fs::read("/etc/hosts").unwrap_or_default(),
        observation: run.observation,
    };
    postcard::to_allocvec(&request)
        .map_err(|error| Error::Usage(format!("the request can't be encoded: {error}")))
}

fn variable(mut name: Vec<u8>, value: Vec<u8>) -> Vec<u8> {
    name.push(b'=');
    name.extend(value);
    name
}
