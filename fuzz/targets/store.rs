//! The records of an encrypted store, as a broken writer with the right key may leave them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use occlum_storage::store::parsers;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    match which % 3 {
        0 => parsers::node(rest),
        1 => parsers::superblock(rest),
        _ => parsers::log_body(rest),
    }
});
