//! Reads what `occlum build` made and turns it into an enclave.

use crate::cpu::enclave::{Builder, CpuError, Enclave};
use crate::error::Error;
use crate::memory::Mapping;
use occlum_sgx::sgxs::{Reader, Record};
use occlum_sgx::sigstruct::SigStruct;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

const ENCLAVE: &str = "occlum.sgxs";
const SIGSTRUCT: &str = "occlum.sigstruct";
const IMAGE: &str = "image.occ";

/// Builds the enclave and initialises it.
pub fn load_enclave(build_dir: &Path) -> Result<Arc<Enclave>, Error> {
    let path = build_dir.join(SIGSTRUCT);
    let bytes = read(&path)?;
    let sigstruct = SigStruct::parse(&bytes).map_err(|error| Error::Image {
        path,
        problem: error.to_string(),
    })?;
    let path = build_dir.join(ENCLAVE);
    let stream = read(&path)?;
    build(&stream, sigstruct).map_err(|problem| match problem {
        Problem::Stream(problem) => Error::Image { path, problem },
        Problem::Cpu(error) => Error::Cpu(error),
    })
}

/// The file-system image, for the enclave to read from.
pub fn map_image(build_dir: &Path) -> Result<Mapping, Error> {
    let path = build_dir.join(IMAGE);
    let map = || {
        let file = File::open(&path)?;
        let size = file.metadata()?.len() as usize;
        Ok(Mapping::file(&file, size)?)
    };
    map().map_err(|source| Error::File {
        path: path.clone(),
        source,
    })
}

enum Problem {
    Stream(String),
    Cpu(CpuError),
}

impl From<CpuError> for Problem {
    fn from(error: CpuError) -> Problem {
        Problem::Cpu(error)
    }
}

fn build(stream: &[u8], sigstruct: &SigStruct) -> Result<Arc<Enclave>, Problem> {
    let mut records = Reader::new(stream);
    let first = records
        .next()
        .transpose()
        .map_err(|error| Problem::Stream(error.to_string()))?;
    let Some(Record::Ecreate {
        size,
        ssa_frame_size,
    }) = first
    else {
        return Err(Problem::Stream("the stream must begin with ECREATE".into()));
    };
    let mut builder = Builder::ecreate(size, ssa_frame_size, sigstruct)?;
    for record in records {
        match record.map_err(|error| Problem::Stream(error.to_string()))? {
            Record::Eadd { offset, secinfo } => builder.eadd(offset, &secinfo)?,
            Record::Eextend { offset, data } => builder.eextend(offset, data)?,
            Record::Unmeasured { offset, data } => builder.load(offset, data)?,
            Record::Ecreate { .. } => return Err(Problem::Stream("a second ECREATE".into())),
        }
    }
    Ok(builder.einit(sigstruct)?)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File {
        path: path.into(),
        source,
    })
}
