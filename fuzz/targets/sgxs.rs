//! Any bytes as an SGXS stream. What is accepted is canonical: its records, written again, are it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use occlum_sgx::sgxs::Reader;

fuzz_target!(|stream: &[u8]| {
    let Ok(records) = Reader::new(stream).collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let mut again = Vec::new();
    for record in records {
        again.extend_from_slice(&record.header());
        again.extend_from_slice(record.data().map_or(&[], |data| data));
    }
    assert_eq!(again, stream);
});
