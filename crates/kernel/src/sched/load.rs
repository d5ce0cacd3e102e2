//! Load averages (getloadavg(3)): how many tasks ran or wanted to, over one, five and fifteen minutes.

use core::sync::atomic::{AtomicU64, Ordering};

use super::run;

/// Averages are fixed-point numbers with so many bits behind the point, as sysinfo(2) gives them.
pub const SHIFT: u32 = 16;

/// e^(-1s/60s), e^(-1s/300s), e^(-1s/900s) with 16 bits behind the point.
const DECAY: [u64; 3] = [64453, 65318, 65463];

static AVERAGES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// To be called once a second, by one caller.
pub fn sample() {
    // The caller's own vCPU runs only for this.
    let active = (run::active_tasks() as u64) << SHIFT;
    for (average, decay) in AVERAGES.iter().zip(DECAY) {
        let old = average.load(Ordering::Relaxed);
        let one = 1u64 << SHIFT;
        average.store((old * decay + active * (one - decay)) >> SHIFT, Ordering::Relaxed);
    }
}

pub fn averages() -> [u64; 3] {
    [0, 1, 2].map(|index: usize| AVERAGES[index].load(Ordering::Relaxed))
}

/// As "0.42".
pub fn show(average: u64) -> alloc::string::String {
    let hundredths = (average * 100 + (1 << (SHIFT - 1))) >> SHIFT;
    alloc::format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
