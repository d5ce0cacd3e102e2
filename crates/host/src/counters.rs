//! How often the enclave was left, and why.

use occlum_abi::ocall::Ocall;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of ocalls are below this.
const OCALLS: usize = 128;

/// Of one vCPU, which alone counts; others may look.
#[repr(align(128))]
pub struct Counters {
    ocalls: [AtomicU64; OCALLS],
    aexs: AtomicU64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            ocalls: [const { AtomicU64::new(0) }; OCALLS],
            aexs: AtomicU64::new(0),
        }
    }
}

impl Counters {
    pub fn count_ocall(&self, number: u64) {
        let counter = usize::try_from(number)
            .ok()
            .and_then(|number| self.ocalls.get(number));
        counter.into_iter().for_each(increment);
    }

    pub fn count_aex(&self) {
        increment(&self.aexs);
    }
}

/// Cheaper than an atomic addition: each counter has one writer.
fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Sums over all vCPUs, by name.
pub fn metrics(counters: &[Counters]) -> Vec<(String, u64)> {
    let sum = |of: &dyn Fn(&Counters) -> u64| counters.iter().map(of).sum::<u64>();
    let mut metrics = vec![
        ("aexs".to_owned(), sum(&|counters| load(&counters.aexs))),
        (
            "ocalls".to_owned(),
            sum(&|counters| counters.ocalls.iter().map(load).sum()),
        ),
    ];
    for number in 0..OCALLS {
        let total = sum(&|counters| load(&counters.ocalls[number]));
        if let Some(call) = Ocall::from_raw(number as u64).filter(|_| total > 0) {
            metrics.push((format!("ocalls_{call:?}"), total));
        }
    }
    metrics
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
