//! MRENCLAVE: SHA-256 over one 64-byte record for each ECREATE, EADD and EEXTEND, the last followed
//! by the 256 bytes it measures. The records are those of an `.sgxs` stream (see [`crate::sgxs`]).

use crate::secinfo::SecInfo;
use crate::sgxs::Record;
use sha2::{Digest, Sha256};

/// An enclave's measurement while it is being built.
#[derive(Clone)]
pub struct Measurement {
    hash: Sha256,
}

impl Measurement {
    /// `size` in bytes, `ssa_frame_size` in pages. Legality is [`crate::ecreate::check`]'s business.
    pub fn ecreate(size: u64, ssa_frame_size: u32) -> Measurement {
        let mut measurement = Measurement {
            hash: Sha256::new(),
        };
        measurement.record(&Record::Ecreate {
            size,
            ssa_frame_size,
        });
        measurement
    }

    /// A page at `offset` from the enclave's base. A TCS is measured without permissions, as EADD
    /// does it.
    pub fn eadd(&mut self, offset: u64, secinfo: &SecInfo) {
        self.record(&Record::Eadd {
            offset,
            secinfo: secinfo.as_added(),
        });
    }

    /// 256 bytes at `offset`. For a TCS these are the bytes as EADD leaves them: see
    /// [`crate::tcs::Tcs::as_added`].
    pub fn eextend(&mut self, offset: u64, data: &[u8; 256]) {
        self.record(&Record::Eextend { offset, data });
    }

    /// Any record of an `.sgxs` stream but the first; one that isn't measured changes nothing.
    pub fn record(&mut self, record: &Record) {
        match record {
            Record::Unmeasured { .. } => {}
            Record::Ecreate { .. } | Record::Eadd { .. } => self.hash.update(record.header()),
            Record::Eextend { data, .. } => {
                self.hash.update(record.header());
                self.hash.update(data);
            }
        }
    }

    /// MRENCLAVE.
    pub fn finish(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}
