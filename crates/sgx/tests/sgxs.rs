//! The stream's reader and writer, and MRENCLAVE.

use occlum_sgx::measure::Measurement;
use occlum_sgx::secinfo::{Permissions, SecInfo, SecInfoError};
use occlum_sgx::sgxs::{self, Content, Problem, Reader, Record, SgxsError, Writer};
use proptest::prelude::*;

const RX: Permissions = Permissions::R.union(Permissions::X);

#[test]
fn what_is_written_reads_back_and_measures_alike() {
    let (stream, mrenclave) = example();
    let records: Vec<Record> = Reader::new(&stream).collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), 1 + 3 * 17);
    assert_eq!(
        records[0],
        Record::Ecreate {
            size: 0x10000,
            ssa_frame_size: 4
        }
    );
    assert_eq!(
        records[1],
        Record::Eadd {
            offset: 0,
            secinfo: SecInfo::tcs()
        }
    );
    assert!(matches!(
        records[19],
        Record::Eextend { offset: 0x2000, .. }
    ));
    assert!(matches!(
        records[51],
        Record::Unmeasured { offset: 0x5F00, .. }
    ));
    assert_eq!(sgxs::measure(&stream), Ok(mrenclave));
}

#[test]
fn a_step_by_step_measurement_agrees() {
    let (stream, mrenclave) = example();
    let mut measurement = Measurement::ecreate(0x10000, 4);
    for record in Reader::new(&stream).skip(1) {
        match record.unwrap() {
            // EADD measures a TCS without permissions, whatever it was asked to add.
            Record::Eadd { secinfo, offset } if secinfo == SecInfo::tcs() => {
                measurement.eadd(offset, &SecInfo::from_flags(0x107));
            }
            Record::Eadd { secinfo, offset } => measurement.eadd(offset, &secinfo),
            Record::Eextend { data, offset } => measurement.eextend(offset, data),
            _ => {}
        }
    }
    assert_eq!(measurement.finish(), mrenclave);
}

#[test]
fn unmeasured_data_does_not_change_the_measurement() {
    let (mut stream, mrenclave) = example();
    let last = stream.len() - 1;
    stream[last] ^= 1;
    assert_eq!(sgxs::measure(&stream), Ok(mrenclave));
}

#[test]
fn streams_that_are_not_canonical_are_refused() {
    let ecreate = ecreate(0x10000, 1);
    let page = |offset| Record::Eadd {
        offset,
        secinfo: SecInfo::reg(RX),
    };
    let chunk = |offset| Record::Eextend {
        offset,
        data: &[7; 256],
    };
    let cases: [(&[Record], Problem); 13] = [
        (&[], Problem::Truncated),
        (&[page(0)], Problem::NoEcreate),
        (&[ecreate, ecreate], Problem::SecondEcreate),
        (&[self::ecreate(0x3000, 1)], Problem::EnclaveSize(0x3000)),
        (&[self::ecreate(0x1000, 1)], Problem::EnclaveSize(0x1000)),
        (&[self::ecreate(0x10000, 0)], Problem::SsaFrameSize),
        (&[ecreate, page(0x10)], Problem::Misaligned(0x10)),
        (&[ecreate, page(0x10000)], Problem::OutsideEnclave(0x10000)),
        (
            &[ecreate, page(0x2000), page(0x1000)],
            Problem::PageOrder(0x1000),
        ),
        (
            &[ecreate, page(0x1000), page(0x1000)],
            Problem::PageOrder(0x1000),
        ),
        (&[ecreate, chunk(0)], Problem::OutsidePage(0)),
        (
            &[ecreate, page(0), chunk(0x1000)],
            Problem::OutsidePage(0x1000),
        ),
        (
            &[ecreate, page(0), chunk(0x100), chunk(0x100)],
            Problem::ChunkOrder(0x100),
        ),
    ];
    for (records, problem) in cases {
        assert_eq!(sgxs::measure(&bytes(records)).unwrap_err().problem, problem);
    }
}

#[test]
fn an_error_says_where() {
    let mut stream = bytes(&[ecreate(0x10000, 1)]);
    stream.extend_from_slice(&[b'?'; 64]);
    let problem = Problem::UnknownTag([b'?'; 8]);
    assert_eq!(
        sgxs::measure(&stream),
        Err(SgxsError {
            position: 64,
            problem
        })
    );
    let text = sgxs::measure(&stream).unwrap_err().to_string();
    assert!(text.starts_with("byte 64: unknown record"), "{text}");
}

#[test]
fn a_secinfo_that_eadd_refuses_or_changes_is_refused() {
    for (flags, problem) in [
        (0x101, Problem::TcsPermissions),
        (0x202, Problem::SecInfo(SecInfoError::WriteOnly)),
        (0x401, Problem::SecInfo(SecInfoError::PageType(4))),
        (0x209, Problem::SecInfo(SecInfoError::Reserved(0x209))),
    ] {
        let secinfo = SecInfo::from_flags(flags);
        let stream = bytes(&[ecreate(0x10000, 1), Record::Eadd { offset: 0, secinfo }]);
        assert_eq!(sgxs::measure(&stream).unwrap_err().problem, problem);
    }
}

#[test]
fn nothing_follows_an_error() {
    let stream = bytes(&[
        ecreate(0x10000, 1),
        ecreate(0x10000, 1),
        ecreate(0x10000, 1),
    ]);
    assert_eq!(Reader::new(&stream).count(), 2);
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    assert_eq!(Writer::new(0, 1).err(), Some(Problem::EnclaveSize(0)));
    let mut writer = Writer::new(0x10000, 1).unwrap();
    let secinfo = SecInfo::reg(RX);
    writer
        .page(0x2000, &secinfo, &[0; 4096], Content::Measured)
        .unwrap();
    let again = writer.page(0x2000, &secinfo, &[0; 4096], Content::Measured);
    assert_eq!(again, Err(Problem::PageOrder(0x2000)));
}

proptest! {
    #[test]
    fn reading_any_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = Reader::new(&bytes).count();
    }

    /// What the reader accepts is canonical: writing its records again gives the same bytes.
    #[test]
    fn a_mutated_stream_is_refused_or_still_canonical(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (mut stream, _) = example();
        let at = at.index(stream.len());
        stream[at] = byte;
        if let Ok(records) = Reader::new(&stream).collect::<Result<Vec<_>, _>>() {
            prop_assert_eq!(bytes(&records), stream);
        }
    }

    #[test]
    fn a_truncated_stream_is_refused_or_a_whole_number_of_records(len in any::<prop::sample::Index>()) {
        let (stream, _) = example();
        let stream = &stream[..len.index(stream.len())];
        if let Ok(records) = Reader::new(stream).collect::<Result<Vec<_>, _>>() {
            prop_assert_eq!(bytes(&records), stream);
        }
    }
}

/// A TCS page, a code page, and a data page that is not measured.
fn example() -> (Vec<u8>, [u8; 32]) {
    let mut writer = Writer::new(0x10000, 4).unwrap();
    let data = SecInfo::reg(Permissions::R | Permissions::W);
    writer
        .page(0, &SecInfo::tcs(), &[0; 4096], Content::Measured)
        .unwrap();
    writer
        .page(0x2000, &SecInfo::reg(RX), &[0x90; 4096], Content::Measured)
        .unwrap();
    writer
        .page(0x5000, &data, &[1; 4096], Content::Unmeasured)
        .unwrap();
    writer.finish()
}

fn ecreate(size: u64, ssa_frame_size: u32) -> Record<'static> {
    Record::Ecreate {
        size,
        ssa_frame_size,
    }
}

fn bytes(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(&record.header());
        bytes.extend_from_slice(record.data().map_or(&[], |data| data.as_slice()));
    }
    bytes
}
