//! Lies about memory that both sides see while the enclave runs: the clock, the image, buffers.

use crate::lie::{Asked, Lie};
use occlum_abi::boot::HostInfo;
use occlum_abi::ocall::{Ocall, SharedPage};
use occlum_host::cpu::Registers;
use occlum_host::instance::Instance;
use occlum_host::memory::Mapping;
use rustix::mm::{self, MprotectFlags};
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A clock set anew before each entry, from a page that an honest host has filled.
struct Clock(fn(&SharedPage));

impl Lie for Clock {
    fn prepare(&self, instance: &Arc<Instance>, _build_dir: &Path) {
        (self.0)(instance.shared());
    }

    fn before_entry(&self, instance: &Arc<Instance>) {
        (self.0)(instance.shared());
    }
}

const SECOND_NS: u64 = 1_000_000_000;

fn clock(name: &str) -> Option<Clock> {
    let lie: fn(&SharedPage) = match name {
        "clock-stands-still" => |page| page.tsc_mult.store(0, Relaxed),
        "clock-being-written-for-ever" => |page| {
            page.time_seq.fetch_or(1, Relaxed);
        },
        "clock-runs-back" => |page| {
            page.monotonic_ns.fetch_sub(SECOND_NS, Relaxed);
        },
        "clock-counter-ahead" => |page| page.tsc_base.store(u64::MAX, Relaxed),
        "clock-at-the-end-of-time" => |page| {
            page.monotonic_ns.store(u64::MAX, Relaxed);
            page.realtime_ns.store(u64::MAX, Relaxed);
        },
        _ => return None,
    };
    Some(Clock(lie))
}

const CLOCKS: [&str; 5] = [
    "clock-stands-still",
    "clock-being-written-for-ever",
    "clock-runs-back",
    "clock-counter-ahead",
    "clock-at-the-end-of-time",
];

/// The image file loses all but its first page once the kernel runs.
struct Truncated {
    image: std::sync::OnceLock<std::path::PathBuf>,
}

impl Lie for Truncated {
    fn prepare(&self, _instance: &Arc<Instance>, build_dir: &Path) {
        let _ = self.image.set(build_dir.join("image.occ"));
    }

    fn answer(&self, asked: &Asked, honest: Registers) -> Registers {
        // The first is made when the image has been opened.
        if asked.call == Some(Ocall::Fstat)
            && let Some(path) = self.image.get()
        {
            let file = OpenOptions::new().write(true).open(path);
            let cut = file.and_then(|file| file.set_len(4096));
            cut.expect("the image's directory is writable");
        }
        honest
    }
}

/// `image-bit-flipped@BYTE`: a bit of the image is another one from the start.
struct Flipped {
    at: u64,
}

impl Lie for Flipped {
    fn prepare(&self, instance: &Arc<Instance>, _build_dir: &Path) {
        let info = instance.host_info();
        assert!(self.at < info.image_size, "the image is smaller");
        make_image_writable(instance);
        flip(info.image + self.at);
    }
}

/// Bits of the image change all the time.
struct Flickering;

impl Lie for Flickering {
    fn prepare(&self, instance: &Arc<Instance>, _build_dir: &Path) {
        make_image_writable(instance);
        let instance = instance.clone();
        std::thread::spawn(move || {
            occlum_host::sys::block_signals();
            flicker(&instance);
        });
    }
}

/// A bit here and there goes and comes back: a reader that looks twice sees two things.
fn flicker(instance: &Arc<Instance>) -> ! {
    let info = instance.host_info();
    for random in random_numbers() {
        let at = info.image + random % info.image_size;
        flip(at);
        (0..100).for_each(|_| std::hint::spin_loop());
        flip(at);
    }
    unreachable!("the numbers do not end");
}

/// Bits at the start of each staging buffer change all the time, where the results of calls are.
struct StagingFlickers;

impl Lie for StagingFlickers {
    fn prepare(&self, instance: &Arc<Instance>, _build_dir: &Path) {
        let info = instance.host_info();
        std::thread::spawn(move || {
            // Not the first event: one that is lost only makes the program wait.
            const CHANGED: std::ops::Range<u64> = 8..512;
            occlum_host::sys::block_signals();
            for random in random_numbers() {
                let vcpu = random % u64::from(info.vcpus);
                let at = CHANGED.start + (random >> 32) % (CHANGED.end - CHANGED.start);
                flip(info.staging + vcpu * info.staging_size + at);
            }
        });
    }
}

/// Xorshift: the same at each run.
fn random_numbers() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9E37_79B9_7F4A_7C15u64), |&last| {
        let mut next = last;
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        Some(next)
    })
}

fn make_image_writable(instance: &Arc<Instance>) {
    change_access(
        instance.host_info().image,
        instance.host_info().image_size,
        MprotectFlags::READ | MprotectFlags::WRITE,
    );
}

/// Changes one bit of a byte of the image or of a staging buffer.
fn flip(at: u64) {
    let byte: *mut u8 = std::ptr::with_exposed_provenance_mut(at as usize);
    // SAFETY: inside a mapping that is writable (the image's since `make_image_writable`). That others
    // write there at the same time is the point.
    unsafe { byte.write_volatile(byte.read_volatile() ^ 1 << (at % 8)) };
}

/// Host memory becomes inaccessible when the kernel makes its first call of a kind.
struct Vanishing {
    what: fn(&Instance) -> (u64, u64),
    at: Ocall,
}

impl Lie for Vanishing {
    fn answer(&self, asked: &Asked, honest: Registers) -> Registers {
        if asked.call == Some(self.at) {
            let (start, size) = (self.what)(asked.instance);
            change_access(start, size, MprotectFlags::empty());
        }
        honest
    }
}

/// The kernel gets a copy of the shared page, because the host goes on using its own, and loses it with
/// the first output.
struct SharedPageVanishes {
    copy: Mapping,
}

impl Lie for SharedPageVanishes {
    fn prepare(&self, instance: &Arc<Instance>, _build_dir: &Path) {
        let (from, to) = (instance.shared(), self.copy.pointer(0));
        // SAFETY: both are a page of atomics that nobody else uses yet.
        unsafe { std::ptr::copy_nonoverlapping(from, to.cast(), 1) };
    }

    fn hand_over(&self, _registers: &mut Registers, info: &mut HostInfo) {
        info.shared = self.copy.address() as u64;
    }

    fn answer(&self, asked: &Asked, honest: Registers) -> Registers {
        if asked.call == Some(Ocall::Write) {
            let page = self.copy.address() as u64;
            change_access(page, self.copy.size() as u64, MprotectFlags::empty());
        }
        honest
    }
}

fn change_access(start: u64, size: u64, access: MprotectFlags) {
    let size = (size as usize).next_multiple_of(4096);
    let start = std::ptr::without_provenance_mut(start as usize);
    // SAFETY: a mapping of this process that only the enclave, or nobody, uses from now on.
    unsafe { mm::mprotect(start, size, access) }.expect("a mapping of this process");
}

fn staging(instance: &Instance) -> (u64, u64) {
    let info = instance.host_info();
    (info.staging, info.staging_size * u64::from(info.vcpus))
}

fn image(instance: &Instance) -> (u64, u64) {
    let info = instance.host_info();
    (info.image, info.image_size)
}

const VANISHING: [(&str, Vanishing); 2] = [
    ("staging-vanishes", vanishing(staging, Ocall::Fstat)),
    ("image-vanishes", vanishing(image, Ocall::Fstat)),
];

const fn vanishing(what: fn(&Instance) -> (u64, u64), at: Ocall) -> Vanishing {
    Vanishing { what, at }
}

const FLIPPED: &str = "image-bit-flipped@";

pub fn find(name: &str) -> Option<Arc<dyn Lie>> {
    if let Some(at) = name.strip_prefix(FLIPPED) {
        let at = at.parse().ok()?;
        return Some(Arc::new(Flipped { at }));
    }
    if let Some(clock) = clock(name) {
        return Some(Arc::new(clock));
    }
    if let Some((_, lie)) = VANISHING.iter().find(|(known, _)| *known == name) {
        return Some(Arc::new(vanishing(lie.what, lie.at)));
    }
    match name {
        "shared-page-vanishes" => {
            let copy = Mapping::anonymous(size_of::<SharedPage>()).ok()?;
            Some(Arc::new(SharedPageVanishes { copy }))
        }
        "image-truncated" => Some(Arc::new(Truncated {
            image: std::sync::OnceLock::new(),
        })),
        "staging-flickers" => Some(Arc::new(StagingFlickers)),
        "image-flickers" => Some(Arc::new(Flickering)),
        _ => None,
    }
}

pub fn names() -> impl Iterator<Item = String> {
    let others = [
        "shared-page-vanishes",
        "image-bit-flipped@BYTE",
        "image-truncated",
        "image-flickers",
        "staging-flickers",
    ];
    CLOCKS
        .into_iter()
        .chain(VANISHING.iter().map(|(name, _)| *name))
        .chain(others)
        .map(String::from)
}
