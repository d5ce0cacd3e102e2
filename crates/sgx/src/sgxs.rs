//! The `.sgxs` stream: an enclave image as the records that its measurement is computed over.
//!
//! ```text
//! 0           8                 16                                       64            320
//! +-----------+-----------------+----------------------------------------+
//! | ECREATE\0 | SSAFRAMESIZE u32, SIZE u64 (at 12), zeros                |
//! | EADD\0... | offset          | SECINFO[0..48]                         |
//! | EEXTEND\0 | offset          | zeros                                  | 256 bytes   |
//! | UNMEASRD  | offset          | zeros                                  | 256 bytes   |
//! +-----------+-----------------+----------------------------------------+-------------+
//! ```
//!
//! Without its UNMEASRD records (data that is loaded but not measured) the stream is exactly the
//! input of the SHA-256 that gives MRENCLAVE. A stream is *canonical*, and only such are accepted, if
//! - it begins with its only ECREATE, and ends after a whole record;
//! - pages follow each other at strictly ascending offsets, inside the enclave;
//! - an EADD is followed by that page's chunks and no other's, at strictly ascending offsets;
//! - all zeros above are zero, and SECINFO is one that EADD would accept and measure unchanged.
//!
//! A page's chunks that don't occur are zero and not measured.

use crate::measure::Measurement;
use crate::secinfo::{PageType, SecInfo, SecInfoError};
use crate::{CHUNK_SIZE, PAGE_SIZE};
use alloc::vec::Vec;
use zerocopy::{FromBytes, IntoBytes};

const HEADER_SIZE: usize = 64;
const ECREATE: &[u8; 8] = b"ECREATE\0";
const EADD: &[u8; 8] = b"EADD\0\0\0\0";
const EEXTEND: &[u8; 8] = b"EEXTEND\0";
const UNMEASURED: &[u8; 8] = b"UNMEASRD";
/// Bytes of SECINFO that a record holds; the rest are reserved.
const SECINFO_MEASURED: usize = 48;

/// One step in building an enclave. Offsets are from the enclave's base, `size` is in bytes,
/// `ssa_frame_size` in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Ecreate { size: u64, ssa_frame_size: u32 },
    Eadd { offset: u64, secinfo: SecInfo },
    Eextend { offset: u64, data: &'a [u8; 256] },
    Unmeasured { offset: u64, data: &'a [u8; 256] },
}

/// What is wrong with a stream, and at which byte of it the record at fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {position}: {problem}")]
pub struct SgxsError {
    pub position: usize,
    pub problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the stream ends inside a record")]
    Truncated,
    #[error("unknown record {0:02x?}")]
    UnknownTag([u8; 8]),
    #[error("reserved bytes of the record are not zero")]
    Reserved,
    #[error("the stream must begin with ECREATE")]
    NoEcreate,
    #[error("a second ECREATE")]
    SecondEcreate,
    #[error("ECREATE.SIZE is {0:#x}; it must be a power of two and at least 8192")]
    EnclaveSize(u64),
    #[error("ECREATE.SSAFRAMESIZE is 0 pages")]
    SsaFrameSize,
    #[error("EADD: {0}")]
    SecInfo(SecInfoError),
    #[error("EADD of a TCS with permissions; it is measured without")]
    TcsPermissions,
    #[error("offset {0:#x} is not aligned")]
    Misaligned(u64),
    #[error("page {0:#x} lies outside the enclave")]
    OutsideEnclave(u64),
    #[error("page {0:#x} does not come after the page before it")]
    PageOrder(u64),
    #[error("data at {0:#x} does not belong to the page added last")]
    OutsidePage(u64),
    #[error("data at {0:#x} does not come after the data before it")]
    ChunkOrder(u64),
}

impl<'a> Record<'a> {
    /// The record's 64 bytes; the data of the last two kinds follows them in a stream.
    pub fn header(&self) -> [u8; HEADER_SIZE] {
        let mut header = [0; HEADER_SIZE];
        header[..8].copy_from_slice(self.tag());
        match self {
            Record::Ecreate {
                size,
                ssa_frame_size,
            } => {
                header[8..12].copy_from_slice(&ssa_frame_size.to_le_bytes());
                header[12..20].copy_from_slice(&size.to_le_bytes());
            }
            Record::Eadd { offset, secinfo } => {
                header[8..16].copy_from_slice(&offset.to_le_bytes());
                header[16..].copy_from_slice(&secinfo.as_bytes()[..SECINFO_MEASURED]);
            }
            Record::Eextend { offset, .. } | Record::Unmeasured { offset, .. } => {
                header[8..16].copy_from_slice(&offset.to_le_bytes());
            }
        }
        header
    }

    /// The data that follows the header.
    pub fn data(&self) -> Option<&'a [u8; 256]> {
        match self {
            Record::Ecreate { .. } | Record::Eadd { .. } => None,
            Record::Eextend { data, .. } | Record::Unmeasured { data, .. } => Some(data),
        }
    }

    fn tag(&self) -> &'static [u8; 8] {
        match self {
            Record::Ecreate { .. } => ECREATE,
            Record::Eadd { .. } => EADD,
            Record::Eextend { .. } => EEXTEND,
            Record::Unmeasured { .. } => UNMEASURED,
        }
    }
}

/// The records of a canonical stream, borrowed from its bytes. After an error it ends.
#[derive(Clone)]
pub struct Reader<'a> {
    stream: &'a [u8],
    position: usize,
    order: Order,
    is_broken: bool,
}

impl<'a> Reader<'a> {
    pub fn new(stream: &'a [u8]) -> Reader<'a> {
        Reader {
            stream,
            position: 0,
            order: Order::default(),
            is_broken: false,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, SgxsError> {
        let position = self.position;
        self.read_record()
            .map_err(|problem| SgxsError { position, problem })
    }

    fn read_record(&mut self) -> Result<Record<'a>, Problem> {
        let header: &[u8; HEADER_SIZE] = self.take()?;
        let tag: [u8; 8] = field(header, 0);
        let record = match &tag {
            ECREATE => Record::Ecreate {
                size: u64::from_le_bytes(field(header, 12)),
                ssa_frame_size: u32::from_le_bytes(field(header, 8)),
            },
            EADD => Record::Eadd {
                offset: u64::from_le_bytes(field(header, 8)),
                secinfo: secinfo(header),
            },
            EEXTEND => Record::Eextend {
                offset: u64::from_le_bytes(field(header, 8)),
                data: self.take()?,
            },
            UNMEASURED => Record::Unmeasured {
                offset: u64::from_le_bytes(field(header, 8)),
                data: self.take()?,
            },
            _ => return Err(Problem::UnknownTag(tag)),
        };
        if record.header() != *header {
            return Err(Problem::Reserved);
        }
        self.order.admit(&record)?;
        Ok(record)
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], Problem> {
        let rest = &self.stream[self.position..];
        let taken = rest.first_chunk().ok_or(Problem::Truncated)?;
        self.position += N;
        Ok(taken)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Record<'a>, SgxsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_at_end = self.position == self.stream.len() && self.position > 0;
        if self.is_broken || is_at_end {
            return None;
        }
        let record = self.read();
        self.is_broken = record.is_err();
        Some(record)
    }
}

/// MRENCLAVE of the enclave that a canonical stream builds.
pub fn measure(stream: &[u8]) -> Result<[u8; 32], SgxsError> {
    let mut measurement = None;
    for record in Reader::new(stream) {
        match (record?, &mut measurement) {
            (
                Record::Ecreate {
                    size,
                    ssa_frame_size,
                },
                _,
            ) => {
                measurement = Some(Measurement::ecreate(size, ssa_frame_size));
            }
            (record, Some(measurement)) => measurement.record(&record),
            (_, None) => break,
        }
    }
    let missing = SgxsError {
        position: 0,
        problem: Problem::NoEcreate,
    };
    Ok(measurement.ok_or(missing)?.finish())
}

/// Writes a canonical stream page by page, and measures it on the way.
pub struct Writer {
    stream: Vec<u8>,
    order: Order,
    measurement: Measurement,
}

/// Whether a page's content is part of MRENCLAVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Measured,
    Unmeasured,
}

impl Writer {
    /// `size` in bytes, `ssa_frame_size` in pages.
    pub fn new(size: u64, ssa_frame_size: u32) -> Result<Writer, Problem> {
        let record = Record::Ecreate {
            size,
            ssa_frame_size,
        };
        let mut order = Order::default();
        order.admit(&record)?;
        Ok(Writer {
            stream: record.header().to_vec(),
            order,
            measurement: Measurement::ecreate(size, ssa_frame_size),
        })
    }

    /// Adds one page; pages come at ascending offsets. Of a TCS, `data` is what EADD leaves.
    pub fn page(
        &mut self,
        offset: u64,
        secinfo: &SecInfo,
        data: &[u8; 4096],
        content: Content,
    ) -> Result<(), Problem> {
        self.record(&Record::Eadd {
            offset,
            secinfo: *secinfo,
        })?;
        let (chunks, _) = data.as_chunks::<256>();
        for (data, offset) in chunks.iter().zip((offset..).step_by(CHUNK_SIZE as usize)) {
            match content {
                Content::Measured => self.record(&Record::Eextend { offset, data })?,
                Content::Unmeasured => self.record(&Record::Unmeasured { offset, data })?,
            }
        }
        Ok(())
    }

    /// The stream and its MRENCLAVE.
    pub fn finish(self) -> (Vec<u8>, [u8; 32]) {
        (self.stream, self.measurement.finish())
    }

    fn record(&mut self, record: &Record) -> Result<(), Problem> {
        self.order.admit(record)?;
        self.measurement.record(record);
        self.stream.extend_from_slice(&record.header());
        if let Some(data) = record.data() {
            self.stream.extend_from_slice(data);
        }
        Ok(())
    }
}

/// What came before, to judge whether the next record may follow.
#[derive(Clone, Copy, Default)]
struct Order {
    /// 0 before ECREATE.
    enclave_size: u64,
    page: Option<u64>,
    chunk: Option<u64>,
}

impl Order {
    fn admit(&mut self, record: &Record) -> Result<(), Problem> {
        match *record {
            Record::Ecreate {
                size,
                ssa_frame_size,
            } => self.admit_ecreate(size, ssa_frame_size),
            _ if self.enclave_size == 0 => Err(Problem::NoEcreate),
            Record::Eadd { offset, secinfo } => self.admit_page(offset, &secinfo),
            Record::Eextend { offset, .. } | Record::Unmeasured { offset, .. } => {
                self.admit_chunk(offset)
            }
        }
    }

    fn admit_ecreate(&mut self, size: u64, ssa_frame_size: u32) -> Result<(), Problem> {
        if self.enclave_size != 0 {
            return Err(Problem::SecondEcreate);
        }
        if !size.is_power_of_two() || size < 2 * PAGE_SIZE {
            return Err(Problem::EnclaveSize(size));
        }
        if ssa_frame_size == 0 {
            return Err(Problem::SsaFrameSize);
        }
        self.enclave_size = size;
        Ok(())
    }

    fn admit_page(&mut self, offset: u64, secinfo: &SecInfo) -> Result<(), Problem> {
        secinfo.check_eadd().map_err(Problem::SecInfo)?;
        if secinfo.page_type() == Some(PageType::Tcs) && !secinfo.permissions().is_empty() {
            return Err(Problem::TcsPermissions);
        }
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Problem::Misaligned(offset));
        }
        if offset >= self.enclave_size {
            return Err(Problem::OutsideEnclave(offset));
        }
        if self.page.is_some_and(|before| offset <= before) {
            return Err(Problem::PageOrder(offset));
        }
        self.page = Some(offset);
        self.chunk = None;
        Ok(())
    }

    fn admit_chunk(&mut self, offset: u64) -> Result<(), Problem> {
        if !offset.is_multiple_of(CHUNK_SIZE) {
            return Err(Problem::Misaligned(offset));
        }
        if self.page != Some(offset & !(PAGE_SIZE - 1)) {
            return Err(Problem::OutsidePage(offset));
        }
        if self.chunk.is_some_and(|before| offset <= before) {
            return Err(Problem::ChunkOrder(offset));
        }
        self.chunk = Some(offset);
        Ok(())
    }
}

fn secinfo(header: &[u8; HEADER_SIZE]) -> SecInfo {
    let mut bytes = [0; size_of::<SecInfo>()];
    bytes[..SECINFO_MEASURED].copy_from_slice(&header[16..]);
    SecInfo::read_from_bytes(&bytes).expect("the array has the structure's size")
}

fn field<const N: usize>(header: &[u8; HEADER_SIZE], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&header[at..at + N]);
    field
}
