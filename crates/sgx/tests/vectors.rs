//! Real SIGSTRUCTs, one of them Intel's, must verify; with a byte changed they must not.

use occlum_sgx::attributes::{AttributeFlags, Attributes, Xfrm};
use occlum_sgx::einit::{self, EinitError};
use occlum_sgx::secs::Secs;
use occlum_sgx::sigstruct::{Field, SigStruct, SigStructError};
use occlum_sgx::{FromBytes, IntoBytes};
use proptest::prelude::*;

const SIG1: &[u8] = include_bytes!("../../../tests/vectors/sgx/sig1.sigstruct.bin");
const LE_PROD: &[u8] = include_bytes!("../../../tests/vectors/sgx/le_prod_css.bin");

#[test]
fn both_verify() {
    for vector in [SIG1, LE_PROD] {
        SigStruct::parse(vector).unwrap().verify().unwrap();
    }
}

#[test]
fn every_changed_signed_byte_is_found() {
    for vector in [SIG1, LE_PROD] {
        for at in (0..128).chain(900..1028) {
            assert!(verify_with(vector, at, 0x10).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_changed_modulus_signature_or_quotient_is_found() {
    for at in (128..512).chain(516..900).chain(1040..1808) {
        assert_eq!(
            verify_with(SIG1, at, 1),
            Err(SigStructError::Signature),
            "byte {at}"
        );
    }
}

#[test]
fn changed_fixed_fields_are_named() {
    let fields = [
        (0, Field::Header),
        (15, Field::Header),
        (16, Field::Vendor),
        (24, Field::Header2),
        (44, Field::Reserved),
        (127, Field::Reserved),
        (512, Field::Exponent),
        (908, Field::Reserved),
        (992, Field::Reserved),
        (1028, Field::Reserved),
    ];
    for (at, field) in fields {
        assert_eq!(
            verify_with(SIG1, at, 1),
            Err(SigStructError::Format(field)),
            "byte {at}"
        );
    }
}

#[test]
fn another_size_is_not_a_sigstruct() {
    for size in [0, 1807, 1809] {
        let mut bytes = SIG1.to_vec();
        bytes.resize(size, 0);
        assert_eq!(SigStruct::parse(&bytes), Err(SigStructError::Size(size)));
    }
}

#[test]
fn attaching_the_signature_rebuilds_the_vector() {
    for vector in [SIG1, LE_PROD] {
        let signed = SigStruct::parse(vector).unwrap();
        let mut unsigned = *signed;
        unsigned.modulus = [0; 384];
        unsigned.signature = [0; 384];
        unsigned.q1 = [0; 384];
        unsigned.q2 = [0; 384];
        assert_eq!(unsigned.signed_bytes(), signed.signed_bytes());
        assert_eq!(
            unsigned.attach(&signed.modulus, &signed.signature),
            Ok(*signed)
        );
        unsigned.isv_svn += 1;
        let refused = unsigned.attach(&signed.modulus, &signed.signature);
        assert_eq!(refused, Err(SigStructError::Signature));
    }
}

#[test]
fn a_signature_that_is_no_residue_is_refused() {
    let signed = SigStruct::parse(SIG1).unwrap();
    let unsigned = SigStruct::unsigned();
    for (modulus, signature) in [
        ([0; 384], [0; 384]),
        ([0; 384], signed.signature),
        (signed.modulus, signed.modulus),
        (signed.modulus, [0xFF; 384]),
        (signed.modulus, [0; 384]),
    ] {
        assert_eq!(
            unsigned.attach(&modulus, &signature),
            Err(SigStructError::Signature)
        );
    }
}

#[test]
fn einit_checks_in_the_architectural_order() {
    let sigstruct = *SigStruct::parse(SIG1).unwrap();
    let sound = secs_for(&sigstruct);
    let enclave = einit::check(&sound, &sigstruct).unwrap();
    assert!(enclave.secs.attributes.contains(AttributeFlags::INIT));
    assert_eq!(enclave.secs.mrsigner, sigstruct.mrsigner());
    assert_eq!(enclave.secs.isv_prod_id, sigstruct.isv_prod_id);

    let mut wrong = sound;
    wrong.attributes.flags ^= AttributeFlags::CET.bits();
    assert!(matches!(
        einit::check(&wrong, &sigstruct),
        Err(EinitError::Attributes { .. })
    ));
    wrong.mrenclave[0] ^= 1;
    let error = einit::check(&wrong, &sigstruct).unwrap_err();
    assert!(matches!(error, EinitError::Measurement { .. }));
    assert_eq!(error.code(), 4);

    let mut forged = sigstruct;
    forged.signature[0] ^= 1;
    assert_eq!(einit::check(&wrong, &forged).unwrap_err().code(), 8);
    let mut bytes = forged.as_bytes().to_vec();
    bytes[0] ^= 1;
    let malformed = SigStruct::read_from_bytes(&bytes).unwrap();
    assert_eq!(einit::check(&wrong, &malformed).unwrap_err().code(), 1);
}

proptest! {
    #[test]
    fn no_number_of_any_kind_signs(modulus in number(), signature in number()) {
        let refused = SigStruct::unsigned().attach(&modulus, &signature);
        prop_assert_eq!(refused, Err(SigStructError::Signature));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 1808)) {
        prop_assert!(SigStruct::parse(&bytes).is_err());
    }
}

/// RSA-3072 numbers, small ones, and some with nothing but set bits at the top.
fn number() -> impl Strategy<Value = [u8; 384]> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..=384);
    (bytes, prop_oneof![Just(0), Just(0xFF)]).prop_map(|(bytes, fill)| {
        let mut number = [fill; 384];
        number[..bytes.len()].copy_from_slice(&bytes);
        number
    })
}

/// A SECS of the enclave that `sigstruct` signs.
fn secs_for(sigstruct: &SigStruct) -> Secs {
    let attributes: Attributes = sigstruct.attributes_on(Xfrm::LEGACY);
    let mut secs = Secs::new(0, 1 << 20, 1, sigstruct.miscselect.get(), attributes);
    secs.mrenclave = sigstruct.enclave_hash;
    secs
}

fn verify_with(vector: &[u8], at: usize, flip: u8) -> Result<(), SigStructError> {
    let mut bytes = vector.to_vec();
    bytes[at] ^= flip;
    SigStruct::parse(&bytes)?.verify()
}
