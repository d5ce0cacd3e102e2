//! Permissions of program memory that the host refuses to change, as one that runs out of memory does:
//! `pages-refused-once@N`, `pages-refused-from@N`. Whether it changed them all the same is for the kernel
//! not to know; here it did.

use crate::lie::{Asked, Lie};
use occlum_abi::layout::KERNEL_BASE;
use occlum_abi::ocall::Ocall;
use occlum_host::cpu::Registers;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Refusal {
    /// How often it was asked.
    asked: AtomicU64,
    number: u64,
    often: Often,
}

#[derive(PartialEq, Eq)]
enum Often {
    Once,
    From,
}

impl Lie for Refusal {
    fn answer(&self, asked: &Asked, honest: Registers) -> Registers {
        if asked.call != Some(Ocall::Protect) || asked.args[0] >= KERNEL_BASE as u64 {
            return honest;
        }
        let count = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let is_refused = match self.often {
            Often::Once => count == self.number,
            Often::From => count >= self.number,
        };
        if !is_refused {
            return honest;
        }
        let rdi = i64::from(-libc::ENOMEM).cast_unsigned();
        Registers { rdi, ..honest }
    }
}

pub fn find(name: &str) -> Option<Arc<dyn Lie>> {
    let (name, number) = name.split_once('@')?;
    let often = match name {
        "pages-refused-once" => Often::Once,
        "pages-refused-from" => Often::From,
        _ => return None,
    };
    let number = number.parse().ok().filter(|&number| number > 0)?;
    let asked = AtomicU64::new(0);
    Some(Arc::new(Refusal {
        asked,
        number,
        often,
    }))
}

pub fn names() -> impl Iterator<Item = String> {
    ["pages-refused-once@N", "pages-refused-from@N"]
        .map(String::from)
        .into_iter()
}
