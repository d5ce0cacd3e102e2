//! EGETKEY and EREPORT of the simulated CPU: every key depends on exactly what the architecture's
//! table says.

use occlum_sgx::attributes::{AttributeFlags, Attributes, Xfrm};
use occlum_sgx::einit::Enclave;
use occlum_sgx::keyrequest::{KeyName, KeyPolicy, KeyRequest};
use occlum_sgx::keys::{EgetkeyError, EreportError, ReportForged, SimulatedCpu};
use occlum_sgx::report::{Report, TargetInfo};
use occlum_sgx::secs::Secs;
use occlum_sgx::{FromBytes, FromZeros, IntoBytes};
use proptest::prelude::*;

const ALL_KEYS: [KeyName; 5] = [
    KeyName::Seal,
    KeyName::Report,
    KeyName::Provision,
    KeyName::ProvisionSeal,
    KeyName::EinitToken,
];

/// One thing a key may depend on, and a way to change it.
type Change = (&'static str, fn(&mut Enclave, &mut KeyRequest));

const CHANGES: [Change; 13] = [
    ("unmasked attribute", |e, _| {
        e.secs.attributes.flags ^= AttributeFlags::CET.bits()
    }),
    ("masked attribute", |e, _| {
        e.secs.attributes.flags ^= AttributeFlags::AEXNOTIFY.bits()
    }),
    ("DEBUG", |e, _| {
        e.secs.attributes.flags ^= AttributeFlags::DEBUG.bits()
    }),
    ("MRENCLAVE", |e, _| e.secs.mrenclave[0] ^= 1),
    ("MRSIGNER", |e, _| e.secs.mrsigner[0] ^= 1),
    ("ISVPRODID", |e, _| e.secs.isv_prod_id += 1),
    ("requested ISVSVN", |_, r| r.isv_svn -= 1),
    ("requested CPUSVN", |_, r| r.cpu_svn[3] = 0),
    ("CONFIGID", |e, _| e.secs.config_id[0] ^= 1),
    ("requested CONFIGSVN", |_, r| r.config_svn -= 1),
    ("ISVFAMILYID", |e, _| e.isv_family_id[0] ^= 1),
    ("ISVEXTPRODID", |e, _| e.isv_ext_prod_id[0] ^= 1),
    ("KEYID", |_, r| r.key_id[0] ^= 1),
];

#[test]
fn keys_depend_on_what_the_table_says() {
    let table: [(KeyName, KeyPolicy, &[&str]); 8] = [
        (
            KeyName::Seal,
            KeyPolicy::MRENCLAVE,
            &[
                "unmasked attribute",
                "DEBUG",
                "MRENCLAVE",
                "ISVPRODID",
                "requested ISVSVN",
                "requested CPUSVN",
                "KEYID",
            ],
        ),
        (
            KeyName::Seal,
            KeyPolicy::MRSIGNER,
            &[
                "unmasked attribute",
                "DEBUG",
                "MRSIGNER",
                "ISVPRODID",
                "requested ISVSVN",
                "requested CPUSVN",
                "KEYID",
            ],
        ),
        (
            KeyName::Seal,
            KeyPolicy::MRSIGNER
                .union(KeyPolicy::NOISVPRODID)
                .union(KeyPolicy::CONFIGID),
            &[
                "unmasked attribute",
                "DEBUG",
                "MRSIGNER",
                "requested ISVSVN",
                "requested CPUSVN",
                "CONFIGID",
                "requested CONFIGSVN",
                "KEYID",
            ],
        ),
        (
            KeyName::Seal,
            KeyPolicy::NOISVPRODID
                .union(KeyPolicy::ISVFAMILYID)
                .union(KeyPolicy::ISVEXTPRODID),
            &[
                "unmasked attribute",
                "DEBUG",
                "requested ISVSVN",
                "requested CPUSVN",
                "ISVFAMILYID",
                "ISVEXTPRODID",
                "KEYID",
            ],
        ),
        (
            KeyName::Report,
            KeyPolicy::all(),
            &[
                "unmasked attribute",
                "masked attribute",
                "DEBUG",
                "MRENCLAVE",
                "CONFIGID",
                "KEYID",
            ],
        ),
        (
            KeyName::Provision,
            KeyPolicy::all(),
            &[
                "unmasked attribute",
                "DEBUG",
                "MRSIGNER",
                "ISVPRODID",
                "requested ISVSVN",
                "requested CPUSVN",
            ],
        ),
        (
            KeyName::ProvisionSeal,
            KeyPolicy::CONFIGID.union(KeyPolicy::ISVFAMILYID),
            &[
                "unmasked attribute",
                "DEBUG",
                "MRSIGNER",
                "ISVPRODID",
                "requested ISVSVN",
                "requested CPUSVN",
                "CONFIGID",
                "requested CONFIGSVN",
                "ISVFAMILYID",
            ],
        ),
        (
            KeyName::EinitToken,
            KeyPolicy::empty(),
            &[
                "unmasked attribute",
                "DEBUG",
                "MRSIGNER",
                "ISVPRODID",
                "requested ISVSVN",
                "requested CPUSVN",
                "KEYID",
            ],
        ),
    ];
    for (name, policy, expected) in table {
        let changed = CHANGES
            .iter()
            .filter(|(_, change)| changes_key(name, policy, *change));
        let depends_on: Vec<&str> = changed.map(|(what, _)| *what).collect();
        assert_eq!(depends_on, expected, "{name:?} {policy:?}");
    }
}

#[test]
fn no_key_is_shared_between_cpus() {
    let cpus = [SimulatedCpu::new(&[0; 32]), SimulatedCpu::new(&[1; 32])];
    for name in ALL_KEYS {
        let [one, other] = cpus
            .each_ref()
            .map(|cpu| cpu.egetkey(&enclave(), &request(name)).unwrap());
        assert_ne!(one, other, "{name:?}");
    }
}

#[test]
fn keys_of_different_names_differ() {
    let cpu = SimulatedCpu::new(&[0; 32]);
    let mut keys: Vec<_> = ALL_KEYS
        .iter()
        .map(|name| cpu.egetkey(&enclave(), &request(*name)).unwrap())
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), ALL_KEYS.len());
}

#[test]
fn an_enclave_may_ask_for_older_keys_only() {
    type Ask = fn(&mut KeyRequest);
    let asks: [(Ask, EgetkeyError, Option<u32>); 6] = [
        (|r| r.isv_svn += 1, EgetkeyError::IsvSvn, Some(64)),
        (|r| r.config_svn += 1, EgetkeyError::IsvSvn, Some(64)),
        (|r| r.cpu_svn[15] = 2, EgetkeyError::CpuSvn, Some(32)),
        (|r| r.name.set(5), EgetkeyError::KeyName(5), Some(256)),
        (|r| r.policy.set(0x40), EgetkeyError::Reserved, None),
        (|r| r.as_mut_bytes()[511] = 1, EgetkeyError::Reserved, None),
    ];
    let cpu = SimulatedCpu::new(&[0; 32]);
    for (ask, error, code) in asks {
        let mut request = request(KeyName::Seal);
        ask(&mut request);
        assert_eq!(cpu.egetkey(&enclave(), &request), Err(error));
        assert_eq!(error.code(), code);
    }
}

#[test]
fn some_keys_need_an_attribute() {
    let cpu = SimulatedCpu::new(&[0; 32]);
    let mut plain = enclave();
    plain.secs.attributes =
        Attributes::new(AttributeFlags::INIT | AttributeFlags::KSS, Xfrm::LEGACY);
    for name in [
        KeyName::Provision,
        KeyName::ProvisionSeal,
        KeyName::EinitToken,
    ] {
        assert_eq!(
            cpu.egetkey(&plain, &request(name)),
            Err(EgetkeyError::Attribute)
        );
    }
    plain.secs.attributes = Attributes::new(AttributeFlags::INIT, Xfrm::LEGACY);
    let mut separated = request(KeyName::Seal);
    assert_eq!(cpu.egetkey(&plain, &separated), Err(EgetkeyError::NeedsKss));
    separated.config_svn.set(0);
    assert!(cpu.egetkey(&plain, &separated).is_ok());
    separated.policy.set(KeyPolicy::CONFIGID.bits());
    assert_eq!(cpu.egetkey(&plain, &separated), Err(EgetkeyError::NeedsKss));
}

#[test]
fn a_report_is_good_for_its_target_on_its_cpu_only() {
    let cpu = SimulatedCpu::new(&[0; 32]);
    let (author, mut verifier) = (enclave(), enclave());
    verifier.secs.mrenclave = [9; 32];
    let report = cpu
        .ereport(&author, &TargetInfo::of(&verifier), &[5; 64])
        .unwrap();
    assert_eq!(
        (report.mrenclave, report.report_data),
        (author.secs.mrenclave, [5; 64])
    );
    assert_eq!(cpu.verify_report(&verifier, &report), Ok(()));
    assert_eq!(cpu.verify_report(&author, &report), Err(ReportForged));
    assert_eq!(
        SimulatedCpu::new(&[1; 32]).verify_report(&verifier, &report),
        Err(ReportForged)
    );
}

#[test]
fn a_report_key_that_was_fetched_makes_the_same_mac() {
    use cmac::{Cmac, KeyInit, Mac};
    let cpu = SimulatedCpu::new(&[0; 32]);
    let report = cpu
        .ereport(&enclave(), &TargetInfo::of(&enclave()), &[5; 64])
        .unwrap();
    let mut ask = request(KeyName::Report);
    ask.key_id = report.key_id;
    let key = cpu.egetkey(&enclave(), &ask).unwrap();
    let mut mac = Cmac::<aes::Aes128>::new(&key.into());
    mac.update(&report.as_bytes()[..384]);
    mac.verify_slice(&report.mac).unwrap();
}

#[test]
fn a_target_with_reserved_bytes_is_refused() {
    for at in [48, 56, 128, 511] {
        let mut target = TargetInfo::of(&enclave());
        target.as_mut_bytes()[at] = 1;
        let refused = SimulatedCpu::new(&[0; 32]).ereport(&enclave(), &target, &[0; 64]);
        assert_eq!(refused, Err(EreportError::Reserved));
    }
}

proptest! {
    #[test]
    fn any_change_of_a_report_is_found(at in 0usize..432, flip in 1u8..) {
        let cpu = SimulatedCpu::new(&[3; 32]);
        let report = cpu.ereport(&enclave(), &TargetInfo::of(&enclave()), &[5; 64]).unwrap();
        let mut bytes = report.as_bytes().to_vec();
        bytes[at] ^= flip;
        let changed = Report::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(cpu.verify_report(&enclave(), &changed), Err(ReportForged));
    }

    #[test]
    fn any_key_request_is_answered(bytes in proptest::collection::vec(any::<u8>(), 512)) {
        let request = KeyRequest::read_from_bytes(&bytes).unwrap();
        let answer = SimulatedCpu::new(&[3; 32]).egetkey(&enclave(), &request);
        prop_assert!(answer.is_err(), "random reserved bytes were accepted");
    }
}

fn changes_key(
    name: KeyName,
    policy: KeyPolicy,
    change: fn(&mut Enclave, &mut KeyRequest),
) -> bool {
    let cpu = SimulatedCpu::new(&[7; 32]);
    let (mut enclave, mut request) = (enclave(), request(name));
    request.policy.set(policy.bits());
    let before = cpu.egetkey(&enclave, &request).unwrap();
    change(&mut enclave, &mut request);
    before != cpu.egetkey(&enclave, &request).unwrap()
}

fn enclave() -> Enclave {
    let flags = AttributeFlags::all().difference(AttributeFlags::DEBUG);
    let mut secs = Secs::new_zeroed();
    secs.attributes = Attributes::new(flags, Xfrm::LEGACY);
    secs.mrenclave = [1; 32];
    secs.mrsigner = [2; 32];
    secs.config_id = [3; 64];
    secs.isv_svn.set(4);
    secs.config_svn.set(5);
    Enclave {
        secs,
        isv_family_id: [6; 16],
        isv_ext_prod_id: [7; 16],
    }
}

/// At the enclave's own versions, under a mask that leaves out AEXNOTIFY and DEBUG.
fn request(name: KeyName) -> KeyRequest {
    let mut request = KeyRequest::new(name, KeyPolicy::MRSIGNER);
    let mask = AttributeFlags::all().difference(AttributeFlags::AEXNOTIFY | AttributeFlags::DEBUG);
    request.attribute_mask = Attributes::new(mask, Xfrm::LEGACY);
    request.cpu_svn = SimulatedCpu::new(&[0; 32]).cpu_svn();
    request.isv_svn.set(4);
    request.config_svn.set(5);
    request
}
