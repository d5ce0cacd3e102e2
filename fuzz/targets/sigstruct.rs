//! Any bytes as a SIGSTRUCT: fixed fields are made right, so that the arithmetic is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use occlum_sgx::sigstruct::{SIGSTRUCT_SIZE, SigStruct};
use occlum_sgx::{FromBytes, IntoBytes};

fuzz_target!(|data: &[u8]| {
    assert!(data.len() == SIGSTRUCT_SIZE || SigStruct::parse(data).is_err());
    let mut sigstruct = SigStruct::unsigned();
    let size = data.len().min(SIGSTRUCT_SIZE);
    sigstruct.as_mut_bytes()[..size].copy_from_slice(&data[..size]);
    let fixed = SigStruct::unsigned();
    for range in [0..16, 24..40, 44..128, 512..516, 908..912, 992..1008, 1028..1040] {
        sigstruct.as_mut_bytes()[range.clone()].copy_from_slice(&fixed.as_bytes()[range]);
    }
    let sigstruct = SigStruct::read_from_bytes(sigstruct.as_bytes()).expect("the size is right");
    if sigstruct.verify().is_ok() {
        let again = sigstruct.attach(&sigstruct.modulus, &sigstruct.signature);
        assert_eq!(again, Ok(sigstruct));
    }
});
