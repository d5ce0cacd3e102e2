//! `occlum._core`: what Python needs of the Rust crates. Conversions only, no logic.
//!
//! One file per bound crate, each with a `register` that adds its names to the module. Failures are
//! raised as the classes of `occlum.errors` and of the Python module that fronts the crate.

mod abi;
mod sgx;
mod storage;
mod store;

use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    abi::register(module)?;
    sgx::register(module)?;
    storage::register(module)?;
    store::register(module)
}
