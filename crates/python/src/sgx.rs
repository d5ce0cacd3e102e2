//! Binding of `occlum-sgx`.
//!
//! Malformed or forged evidence raises `occlum.errors.VerificationError`; what the caller got wrong
//! in laying out an image raises `occlum.errors.Error`.

use occlum_abi::layout::PAGE_SIZE;
use occlum_sgx::attributes::{AttributeFlags, Attributes, Miscselect, Xfrm};
use occlum_sgx::secinfo::{Permissions, SecInfo};
use occlum_sgx::sgxs::{self, Content, Writer};
use occlum_sgx::sigstruct;
use occlum_sgx::tcs::Tcs;
use occlum_sgx::{FromZeros, IntoBytes};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::fmt::Display;

pyo3::import_exception!(occlum.errors, Error);
pyo3::import_exception!(occlum.errors, VerificationError);

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SigStruct>()?;
    module.add_class::<SgxsWriter>()?;
    module.add_function(wrap_pyfunction!(measure_sgxs, module)?)?;
    module.add_function(wrap_pyfunction!(tcs_page, module)?)?;
    add_constants(module)
}

/// MRENCLAVE (32 bytes) of the enclave that a canonical SGXS stream builds.
///
/// Raises VerificationError, with the byte position, for a stream that is not canonical
/// (docs/format/enclave.md).
#[pyfunction]
fn measure_sgxs<'py>(py: Python<'py>, stream: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let mrenclave = py.detach(|| sgxs::measure(stream)).map_err(refused)?;
    Ok(PyBytes::new(py, &mrenclave))
}

/// An enclave's signature structure (1808 bytes). Immutable; `bytes(it)` gives the structure.
///
/// Integers that the architecture keeps as bit fields are plain ints; big RSA numbers are
/// little-endian bytes, as in the structure.
#[pyclass(frozen, eq, module = "occlum._core")]
#[derive(PartialEq)]
struct SigStruct {
    inner: sigstruct::SigStruct,
}

#[pymethods]
impl SigStruct {
    /// An unsigned SIGSTRUCT. `date` is BCD (0x20261122); `family_id` and `ext_prod_id` have 16
    /// bytes, `mrenclave` 32.
    #[new]
    #[pyo3(signature = (*, mrenclave, date, attributes, attribute_mask, xfrm, xfrm_mask, miscselect,
        misc_mask, isv_prod_id, isv_svn, family_id, ext_prod_id))]
    #[expect(
        clippy::too_many_arguments,
        reason = "one keyword for each field of the structure"
    )]
    fn unsigned(
        mrenclave: [u8; 32],
        date: u32,
        attributes: u64,
        attribute_mask: u64,
        xfrm: u64,
        xfrm_mask: u64,
        miscselect: u32,
        misc_mask: u32,
        isv_prod_id: u16,
        isv_svn: u16,
        family_id: [u8; 16],
        ext_prod_id: [u8; 16],
    ) -> SigStruct {
        let mut inner = sigstruct::SigStruct::unsigned();
        inner.enclave_hash = mrenclave;
        inner.date = date.into();
        inner.attributes = Attributes {
            flags: attributes.into(),
            xfrm: xfrm.into(),
        };
        inner.attribute_mask = Attributes {
            flags: attribute_mask.into(),
            xfrm: xfrm_mask.into(),
        };
        inner.miscselect = miscselect.into();
        inner.misc_mask = misc_mask.into();
        inner.isv_prod_id = isv_prod_id.into();
        inner.isv_svn = isv_svn.into();
        inner.isv_family_id = family_id;
        inner.isv_ext_prod_id = ext_prod_id;
        SigStruct { inner }
    }

    /// The SIGSTRUCT in 1808 bytes. Checks size, fixed and reserved fields, not the signature.
    #[staticmethod]
    fn parse(data: &[u8]) -> PyResult<SigStruct> {
        let inner = *sigstruct::SigStruct::parse(data).map_err(refused)?;
        Ok(SigStruct { inner })
    }

    /// Raises VerificationError unless the RSA signature, Q1 and Q2 are right.
    fn verify(&self) -> PyResult<()> {
        self.inner.verify().map_err(refused)
    }

    /// A copy with this key's modulus and its signature over `signed_bytes` (RSA-3072, exponent 3,
    /// PKCS #1 v1.5, SHA-256; both 384 bytes, little-endian), and with Q1 and Q2 computed. Raises
    /// VerificationError if the signature does not verify.
    fn attach(&self, modulus: [u8; 384], signature: [u8; 384]) -> PyResult<SigStruct> {
        let inner = self.inner.attach(&modulus, &signature).map_err(refused)?;
        Ok(SigStruct { inner })
    }

    /// The 256 bytes that are signed.
    #[getter]
    fn signed_bytes(&self) -> [u8; 256] {
        self.inner.signed_bytes()
    }

    /// 0, or 0x8086 for Intel's own enclaves.
    #[getter]
    fn vendor(&self) -> u32 {
        self.inner.vendor.get()
    }

    /// BCD: 0x20261122 is 22 November 2026.
    #[getter]
    fn date(&self) -> u32 {
        self.inner.date.get()
    }

    #[getter]
    fn mrenclave(&self) -> [u8; 32] {
        self.inner.enclave_hash
    }

    /// SHA-256 of the signer's modulus.
    #[getter]
    fn mrsigner(&self) -> [u8; 32] {
        self.inner.mrsigner()
    }

    #[getter]
    fn attributes(&self) -> u64 {
        self.inner.attributes.flags.get()
    }

    #[getter]
    fn attribute_mask(&self) -> u64 {
        self.inner.attribute_mask.flags.get()
    }

    #[getter]
    fn xfrm(&self) -> u64 {
        self.inner.attributes.xfrm.get()
    }

    #[getter]
    fn xfrm_mask(&self) -> u64 {
        self.inner.attribute_mask.xfrm.get()
    }

    #[getter]
    fn miscselect(&self) -> u32 {
        self.inner.miscselect.get()
    }

    #[getter]
    fn misc_mask(&self) -> u32 {
        self.inner.misc_mask.get()
    }

    #[getter]
    fn isv_prod_id(&self) -> u16 {
        self.inner.isv_prod_id.get()
    }

    #[getter]
    fn isv_svn(&self) -> u16 {
        self.inner.isv_svn.get()
    }

    #[getter]
    fn family_id(&self) -> [u8; 16] {
        self.inner.isv_family_id
    }

    #[getter]
    fn ext_prod_id(&self) -> [u8; 16] {
        self.inner.isv_ext_prod_id
    }

    #[getter]
    fn modulus(&self) -> [u8; 384] {
        self.inner.modulus
    }

    #[getter]
    fn signature(&self) -> [u8; 384] {
        self.inner.signature
    }

    #[getter]
    fn q1(&self) -> [u8; 384] {
        self.inner.q1
    }

    #[getter]
    fn q2(&self) -> [u8; 384] {
        self.inner.q2
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.as_bytes())
    }
}

/// Writes a canonical SGXS stream and measures it on the way.
///
/// `size` is the enclave's in bytes, `ssa_frame_size` in pages.
#[pyclass(module = "occlum._core")]
struct SgxsWriter {
    /// None after `finish`.
    writer: Option<Writer>,
}

#[pymethods]
impl SgxsWriter {
    #[new]
    fn new(size: u64, ssa_frame_size: u32) -> PyResult<SgxsWriter> {
        let writer = Writer::new(size, ssa_frame_size).map_err(mistaken)?;
        Ok(SgxsWriter {
            writer: Some(writer),
        })
    }

    /// Adds pages from `offset` on, all with SECINFO `flags`. `data` is padded with zeros to whole
    /// pages; all of it is measured. Offsets ascend from call to call.
    fn add(&mut self, offset: u64, flags: u64, data: &[u8]) -> PyResult<()> {
        let writer = self
            .writer
            .as_mut()
            .ok_or_else(|| mistaken("the stream is finished"))?;
        let secinfo = SecInfo::from_flags(flags);
        for (page, offset) in data.chunks(PAGE_SIZE).zip((offset..).step_by(PAGE_SIZE)) {
            let mut padded = [0; PAGE_SIZE];
            padded[..page.len()].copy_from_slice(page);
            writer
                .page(offset, &secinfo, &padded, Content::Measured)
                .map_err(mistaken)?;
        }
        Ok(())
    }

    /// The stream and its MRENCLAVE. Nothing can be added afterwards.
    fn finish<'py>(
        &mut self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let writer = self
            .writer
            .take()
            .ok_or_else(|| mistaken("the stream is finished"))?;
        let (stream, mrenclave) = writer.finish();
        Ok((PyBytes::new(py, &stream), PyBytes::new(py, &mrenclave)))
    }
}

/// A TCS page of a 64-bit enclave. `ossa`, `oentry`, `ofs_base` and `ogs_base` are offsets from the
/// enclave's base; `nssa` counts SSA frames.
#[pyfunction]
#[pyo3(signature = (*, ossa, nssa, oentry, ofs_base, ogs_base))]
fn tcs_page(
    py: Python<'_>,
    ossa: u64,
    nssa: u32,
    oentry: u64,
    ofs_base: u64,
    ogs_base: u64,
) -> PyResult<Bound<'_, PyBytes>> {
    let mut tcs = Tcs::new_zeroed();
    tcs.ossa = ossa.into();
    tcs.nssa = nssa.into();
    tcs.oentry = oentry.into();
    tcs.ofs_base = ofs_base.into();
    tcs.ogs_base = ogs_base.into();
    tcs.fs_limit = u32::MAX.into();
    tcs.gs_limit = u32::MAX.into();
    tcs.check_eadd().map_err(mistaken)?;
    Ok(PyBytes::new(py, tcs.as_bytes()))
}

fn add_constants(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let bits = [
        ("SECINFO_R", Permissions::R.bits()),
        ("SECINFO_W", Permissions::W.bits()),
        ("SECINFO_X", Permissions::X.bits()),
        ("SECINFO_TCS", SecInfo::tcs().flags.get()),
        (
            "SECINFO_REG",
            SecInfo::reg(Permissions::empty()).flags.get(),
        ),
        ("ATTRIBUTE_DEBUG", AttributeFlags::DEBUG.bits()),
        ("ATTRIBUTE_MODE64BIT", AttributeFlags::MODE64BIT.bits()),
        ("ATTRIBUTE_KSS", AttributeFlags::KSS.bits()),
        ("XFRM_LEGACY", Xfrm::LEGACY.bits()),
        ("XFRM_AVX", Xfrm::AVX.bits()),
        ("XFRM_AVX512", Xfrm::AVX512.bits()),
        ("XFRM_PKRU", Xfrm::PKRU.bits()),
        ("XFRM_AMX", Xfrm::AMX.bits()),
        ("MISCSELECT_EXINFO", Miscselect::EXINFO.bits().into()),
    ];
    for (name, value) in bits {
        module.add(name, value)?;
    }
    Ok(())
}

/// Evidence does not hold.
fn refused(error: impl Display) -> PyErr {
    VerificationError::new_err(error.to_string())
}

/// The caller asked for something that can't be.
fn mistaken(error: impl Display) -> PyErr {
    Error::new_err(error.to_string())
}
