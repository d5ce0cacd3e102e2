//! Limits that a run asks for below those of the signed configuration.
//!
//! The host's environment may lower a limit, never raise it: `OCCLUM_USER_SPACE_SIZE=512MB` and
//! `OCCLUM_MAX_NUM_OF_THREADS=100`. Nothing is lost by that: the host can withhold memory anyway.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str;

use occlum_abi::boot::ResourceLimits;

const USER_SPACE: &str = "OCCLUM_USER_SPACE_SIZE";
const THREADS: &str = "OCCLUM_MAX_NUM_OF_THREADS";
/// Programs don't start in less.
const USER_SPACE_MIN: u64 = 16 << 20;
const UNITS: [(&str, u32); 5] = [("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10), ("B", 0)];

/// Lowers the limits as the environment says; the reason if it asks for something else.
pub fn apply(limits: &mut ResourceLimits, env: &[Vec<u8>]) -> Result<(), String> {
    if let Some(text) = value(env, USER_SPACE) {
        let signed = limits.user_space_size;
        limits.user_space_size = size(text)
            .filter(|wanted| (USER_SPACE_MIN..=signed).contains(wanted))
            .ok_or_else(|| refuse(USER_SPACE, text, "16MB", &format!("{signed}B, which is signed")))?;
    }
    if let Some(text) = value(env, THREADS) {
        let signed = limits.max_threads;
        limits.max_threads = str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|wanted| (1..=signed).contains(wanted))
            .ok_or_else(|| refuse(THREADS, text, "1", &format!("{signed}, which is signed")))?;
    }
    Ok(())
}

fn value<'a>(env: &'a [Vec<u8>], name: &str) -> Option<&'a [u8]> {
    env.iter().find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// `512MB` as bytes.
fn size(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let (digits, shift) = UNITS.iter().find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn refuse(name: &str, got: &[u8], least: &str, most: &str) -> String {
    let got = String::from_utf8_lossy(got);
    format!("{name} is \"{got}\"; expected {least} to {most}")
}
