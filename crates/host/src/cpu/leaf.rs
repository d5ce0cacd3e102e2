//! ENCLU leaf functions that compute: EREPORT and EGETKEY of the simulated CPU.
//!
//! Pages need no EACCEPT or EMODPE here: a page is what the `Protect` call made it. A kernel that uses
//! them, or breaks an operand rule, has a bug, and the process ends with a sentence instead of a #GP.

use super::frame::HostThread;
use crate::sys;
use occlum_abi::layout;
use occlum_sgx::keyrequest::KeyRequest;
use occlum_sgx::keys::SimulatedCpu;
use occlum_sgx::report::TargetInfo;
use occlum_sgx::{FromBytes, IntoBytes};
use std::ptr;

const EREPORT: u32 = 0;
const EGETKEY: u32 = 1;

const REPORT_DATA_SIZE: usize = 64;

/// All simulated CPUs are one: its secrets protect nothing, so they may as well be the same
/// everywhere, and what an instance has sealed opens on any machine.
const SEED: [u8; 32] = [0; 32];

/// Why the instruction would raise #GP.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("leaf {0} is not one that this CPU has")]
    Leaf(u32),
    #[error("operand {0:#x} is misaligned or outside the enclave")]
    Operand(u64),
    #[error("{0}")]
    Ereport(#[from] occlum_sgx::keys::EreportError),
    #[error("{0}")]
    Egetkey(occlum_sgx::keys::EgetkeyError),
}

/// Called by `cpu_gate` with the operands as the enclave gave them; the result is RAX.
pub extern "C" fn leaf_function(
    thread: *const HostThread,
    leaf: u32,
    rbx: u64,
    rcx: u64,
    rdx: u64,
) -> u64 {
    // SAFETY: the block and the enclave it belongs to live while a thread is inside.
    let enclave = unsafe { &*(*thread).identity.cast::<occlum_sgx::einit::Enclave>() };
    let cpu = SimulatedCpu::new(&SEED);
    let result = match leaf {
        EREPORT => ereport(&cpu, enclave, rbx, rcx, rdx),
        EGETKEY => egetkey(&cpu, enclave, rbx, rcx),
        _ => Err(Fault::Leaf(leaf)),
    };
    result.unwrap_or_else(|fault| {
        eprintln!("error: occlum-host: the kernel's ENCLU is not legal: {fault}");
        sys::exit(crate::error::EXIT_STATUS)
    })
}

fn ereport(
    cpu: &SimulatedCpu,
    enclave: &occlum_sgx::einit::Enclave,
    target: u64,
    data: u64,
    output: u64,
) -> Result<u64, Fault> {
    let target: [u8; size_of::<TargetInfo>()] = read(target, 512)?;
    let data: [u8; REPORT_DATA_SIZE] = read(data, 128)?;
    let target = TargetInfo::ref_from_bytes(&target).map_err(|_| Fault::Leaf(EREPORT))?;
    let report = cpu.ereport(enclave, target, &data)?;
    write(output, 512, report.as_bytes())?;
    Ok(0)
}

fn egetkey(
    cpu: &SimulatedCpu,
    enclave: &occlum_sgx::einit::Enclave,
    request: u64,
    output: u64,
) -> Result<u64, Fault> {
    let request: [u8; size_of::<KeyRequest>()] = read(request, 512)?;
    let request = KeyRequest::ref_from_bytes(&request).map_err(|_| Fault::Leaf(EGETKEY))?;
    match cpu.egetkey(enclave, request) {
        Ok(key) => write(output, 16, &key).map(|()| 0),
        Err(error) => error.code().map(u64::from).ok_or(Fault::Egetkey(error)),
    }
}

fn read<const N: usize>(at: u64, align: u64) -> Result<[u8; N], Fault> {
    let at = operand(at, align, N)?;
    let mut bytes = [0; N];
    // SAFETY: inside the enclave, whose memory holds no Rust objects of the host. If it is not
    // accessible, the process ends, as the enclave's kernel would.
    unsafe { ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), N) };
    Ok(bytes)
}

fn write(at: u64, align: u64, bytes: &[u8]) -> Result<(), Fault> {
    let at = operand(at, align, bytes.len())?;
    // SAFETY: as in `read`.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
    Ok(())
}

fn operand(at: u64, align: u64, size: usize) -> Result<*mut u8, Fault> {
    let is_inside = at < (layout::ELRANGE_END - size) as u64;
    if !at.is_multiple_of(align) || !is_inside {
        return Err(Fault::Operand(at));
    }
    Ok(ptr::without_provenance_mut(at as usize))
}
