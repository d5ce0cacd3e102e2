//! The enclave's linear range (ELRANGE), fixed at build time and measured.
//!
//! ```text
//! 0x0000_0000_0000  +--------------------------------------------------+ ELRANGE_BASE
//!                   | never mapped (NULL)                              |
//! 0x0000_0001_0000  +--------------------------------------------------+ USER_BASE
//!                   | user range: fixed-address programs low, the rest |
//!                   | anywhere; addresses are unique across processes  |
//! 0x1F00_0000_0000  +--------------------------------------------------+ KERNEL_BASE
//!                   | kernel ELF (text, rodata, data)                  |
//!       +256 MiB    | measured boot configuration (read-only)          |
//!       +512 MiB    | vCPU areas: TCS, SSA, per-vCPU page, stacks      |
//!       +4 GiB      | kernel heap                                      |
//!       +128 GiB    | kernel stacks, each with a guard page            |
//!       +512 GiB    | kernel pages (page cache, file data)             |
//! 0x2000_0000_0000  +--------------------------------------------------+ ELRANGE_END
//! ```
//!
//! The base is 0 because fixed-address programs (ET_EXEC, linked at 0x400000) must lie inside the
//! enclave; the host program lives above `ELRANGE_END`.

pub const PAGE_SIZE: usize = 4096;

pub const ELRANGE_BASE: usize = 0;
pub const ELRANGE_SIZE: usize = 0x2000_0000_0000;
pub const ELRANGE_END: usize = ELRANGE_BASE + ELRANGE_SIZE;

/// First address a program may map (Linux's `vm.mmap_min_addr`).
pub const USER_BASE: usize = 0x1_0000;
pub const USER_END: usize = KERNEL_BASE;

pub const KERNEL_BASE: usize = 0x1F00_0000_0000;
pub const BOOT_CONFIG_BASE: usize = KERNEL_BASE + (256 << 20);
/// Bytes the boot configuration may take: an 8-byte little-endian length, then postcard.
pub const BOOT_CONFIG_MAX: usize = 1 << 20;

/// vCPU areas stand at a fixed stride; all offsets below are inside one area.
pub const VCPU_AREA_BASE: usize = KERNEL_BASE + (512 << 20);
pub const VCPU_AREA_STRIDE: usize = 0x2_0000;
pub const MAX_VCPUS: usize = 64;

/// Thread Control Structure: one page.
pub const VCPU_TCS: usize = 0x0000;
/// State Save Area: `SSA_FRAMES` frames of `SSA_FRAME_PAGES` pages.
pub const VCPU_SSA: usize = 0x1000;
pub const SSA_FRAMES: usize = 2;
pub const SSA_FRAME_PAGES: usize = 4;
pub const SSA_FRAME_SIZE: usize = SSA_FRAME_PAGES * PAGE_SIZE;
/// The vCPU's own page; the TCS's OGSBASE points here.
pub const VCPU_PAGE: usize = 0xA000;
/// Stack of the exception handler (entered with CSSA = 1); its guard page lies below.
pub const VCPU_EXCEPTION_STACK: usize = 0xC000;
pub const VCPU_EXCEPTION_STACK_SIZE: usize = 0x4000;
/// Stack on which the vCPU starts and idles; its guard page lies below.
pub const VCPU_IDLE_STACK: usize = 0x1_1000;
pub const VCPU_IDLE_STACK_SIZE: usize = 0x8000;

pub const KERNEL_HEAP_BASE: usize = KERNEL_BASE + (4 << 30);
pub const KERNEL_HEAP_END: usize = KERNEL_BASE + (64 << 30);
pub const KERNEL_STACKS_BASE: usize = KERNEL_BASE + (128 << 30);
pub const KERNEL_STACKS_END: usize = KERNEL_BASE + (512 << 30);
pub const KERNEL_PAGES_BASE: usize = KERNEL_BASE + (512 << 30);
pub const KERNEL_PAGES_END: usize = ELRANGE_END;

/// Where the software CPU answers ENCLU: code outside the enclave at a fixed, architectural
/// address, so that the kernel holds no host pointer. EAX selects the leaf, RBX/RCX/RDX are the
/// leaf's operands, as for the instruction. EEXIT does not return; other leaves return by RET.
pub const SIM_ENCLU_GATE: usize = ELRANGE_END + 0x1000;

/// Offset in the TCS page (reserved bytes) where the software CPU keeps its hidden thread state.
/// The kernel neither reads nor writes it.
pub const SIM_TCS_HIDDEN: usize = 4088;

/// Offsets in the per-vCPU page (GS-relative) that code outside the kernel's Rust depends on.
pub mod vcpu_page {
    /// The vCPU's number, for the vDSO's getcpu.
    pub const INDEX: usize = 0x8;
    /// Entry of a patched system-call site: `jmp *%gs:SYSCALL_ENTRY`.
    pub const SYSCALL_ENTRY: usize = 0x10;
    /// Entry of a patched `cpuid`: `jmp *%gs:CPUID_ENTRY`.
    pub const CPUID_ENTRY: usize = 0x18;
}

const _: () = assert!(VCPU_SSA + SSA_FRAMES * SSA_FRAME_SIZE < VCPU_PAGE);
const _: () = assert!(VCPU_IDLE_STACK + VCPU_IDLE_STACK_SIZE < VCPU_AREA_STRIDE);
const _: () = assert!(ELRANGE_SIZE.is_power_of_two());
