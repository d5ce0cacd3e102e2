//! Random bytes for programs: ChaCha20, seeded and reseeded from the CPU's own source.

use occlum_enclave::rand;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::sched::SpinLock;

struct Generator {
    rng: ChaCha20Rng,
    /// Bytes given since the last seed.
    given: usize,
}

/// Bytes after which a new seed is drawn.
const RESEED_AFTER: usize = 1 << 20;

static GENERATOR: SpinLock<Option<Generator>> = SpinLock::new(None);

/// Fills `buf`; at most 4 KiB at a time is good manners, because a spin lock is held.
pub fn fill(buf: &mut [u8]) {
    let mut slot = GENERATOR.lock();
    if slot.as_ref().is_none_or(|generator| generator.given >= RESEED_AFTER) {
        *slot = Some(Generator { rng: ChaCha20Rng::from_seed(seed()), given: 0 });
    }
    if let Some(generator) = slot.as_mut() {
        generator.rng.fill_bytes(buf);
        generator.given += buf.len();
    }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    for part in seed.chunks_exact_mut(8) {
        part.copy_from_slice(&rand::hardware_u64().to_le_bytes());
    }
    seed
}
