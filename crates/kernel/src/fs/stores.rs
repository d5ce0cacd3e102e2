//! Opening encrypted stores: the key, the host's file, and what to say when it can't be.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use occlum_abi::boot::{STORE_FILE, SealPolicy, StoreMount};
use occlum_enclave::log;
use occlum_storage::store::{Options, Pin, StoreError};

use super::disk::{Access, HostDisk};
use super::sealing;
use super::store::{Lower, StoreFs};
use crate::error::{Errno, Error, Result, err};

/// Why a store can't be used: a sentence and a hint.
pub type Problem = String;

/// A store of the boot configuration, under a key of the CPU.
pub fn open_sealed(mount: &StoreMount, lower: Option<Lower>) -> core::result::Result<Arc<StoreFs>, Problem> {
    let key = sealing::store_key(mount.policy)
        .map_err(|error| format!("the CPU gives no key for {}: EGETKEY says {}", mount.source, error.0))?;
    let mut options = Options { is_read_only: mount.is_read_only, ..Options::default() };
    if mount.size_limit != 0 {
        options.max_size = mount.size_limit;
    }
    if !mount.pin.is_empty() {
        let pin = mount.pin.parse::<Pin>();
        options.pin = Some(pin.map_err(|_| format!("the MAC of {} is no pin of a store", mount.source))?);
    }
    let path = format!("{}/{STORE_FILE}", mount.source);
    let disk = open_disk(&path, mount.is_read_only)?;
    StoreFs::open(disk, &key, &options, lower).map_err(|error| explain(&path, mount.policy, error))
}

/// A store that a program asks for.
#[derive(Default)]
pub struct Request<'a> {
    /// The host's.
    pub directory: &'a [u8],
    /// `None`: a key of the CPU, for all enclaves of the signer.
    pub key: Option<[u8; 32]>,
    pub pin: &'a [u8],
    pub is_read_only: bool,
}

/// Opens the store; what is wrong with it is in the log. EINVAL, EBUSY, EACCES for a wrong key, ESTALE for an older
/// store than the pin names, EIO for one that was changed.
pub fn open_requested(request: &Request<'_>, lower: Option<Lower>) -> Result<Arc<StoreFs>> {
    let text = |bytes| str::from_utf8(bytes).map_err(|_| Error::new(Errno::EINVAL, "not UTF-8"));
    let (directory, pin) = (text(request.directory)?, text(request.pin)?);
    if directory.is_empty() {
        return err(Errno::EINVAL, "no directory is named");
    }
    let mut options = Options { is_read_only: request.is_read_only, ..Options::default() };
    if !pin.is_empty() {
        options.pin = Some(pin.parse::<Pin>().map_err(|_| Error::new(Errno::EINVAL, "mac= is no pin"))?);
    }
    let key = match request.key {
        Some(key) => key,
        None => sealing::store_key(SealPolicy::Mrsigner).map_err(|_| Error::new(Errno::EIO, "EGETKEY"))?,
    };
    let access = if request.is_read_only { Access::ReadOnly } else { Access::ReadWrite };
    let disk = HostDisk::open(format!("{directory}/{STORE_FILE}").as_bytes(), access)?;
    StoreFs::open(disk, &key, &options, lower).map_err(|error| {
        log!(Error, "the store in {directory} can't be used: {error}");
        Error::new(errno_of(&error), "the store can't be used")
    })
}

fn errno_of(error: &StoreError) -> Errno {
    match error {
        StoreError::WrongKey => Errno::EACCES,
        StoreError::RolledBack { .. } | StoreError::OtherStore => Errno::ESTALE,
        StoreError::NoSpace => Errno::ENOSPC,
        StoreError::OutOfMemory => Errno::ENOMEM,
        StoreError::NotAStore | StoreError::UnsupportedVersion(_) => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

fn open_disk(path: &str, is_read_only: bool) -> core::result::Result<HostDisk, Problem> {
    let access = if is_read_only { Access::ReadOnly } else { Access::ReadWrite };
    HostDisk::open(path.as_bytes(), access).map_err(|error| match error.errno {
        Errno::EBUSY => format!(
            "the store {path} is in use by another enclave\n\
             hint: one enclave at a time; \"options\": {{\"temporary\": true}} in the layer keeps changes in memory"
        ),
        Errno::ENOENT => format!("there is no directory for the store {path}\nhint: `occlum build` makes it"),
        _ => format!("the store {path} can't be opened: {error:?}"),
    })
}

fn explain(path: &str, policy: SealPolicy, error: StoreError) -> Problem {
    let hint = match error {
        StoreError::WrongKey if policy == SealPolicy::Mrsigner => {
            "it belongs to enclaves of another signing key, product id or debug setting; if nobody needs it, \
             move it away"
        }
        StoreError::WrongKey => "it belongs to another enclave (MRENCLAVE); if nobody needs it, move it away",
        StoreError::RolledBack { .. } | StoreError::OtherStore => {
            "bring the newer store back, or change MAC in Occlum.json if this one is meant"
        }
        StoreError::NoSpace => "raise disk_size, or free space on the host",
        StoreError::Disk => "look at the host's file system",
        _ => "nothing was written to it; bring a copy back, or move it away to start with an empty store",
    };
    format!("the store {path} can't be used: {error}\nhint: {hint}")
}
