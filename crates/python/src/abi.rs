//! Binding of `occlum-abi`: the enclave's layout and the boot configuration.

use occlum_abi::boot::{BOOT_CONFIG_VERSION, BootConfig};
use occlum_abi::layout;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::fmt::Display;

pyo3::import_exception!(occlum.errors, Error);

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(encode_boot_config, module)?)?;
    module.add("BOOT_CONFIG_VERSION", BOOT_CONFIG_VERSION)?;
    let addresses = [
        ("PAGE_SIZE", layout::PAGE_SIZE),
        ("ELRANGE_BASE", layout::ELRANGE_BASE),
        ("ELRANGE_SIZE", layout::ELRANGE_SIZE),
        ("KERNEL_BASE", layout::KERNEL_BASE),
        ("BOOT_CONFIG_BASE", layout::BOOT_CONFIG_BASE),
        ("BOOT_CONFIG_MAX", layout::BOOT_CONFIG_MAX),
        ("VCPU_AREA_BASE", layout::VCPU_AREA_BASE),
        ("VCPU_AREA_STRIDE", layout::VCPU_AREA_STRIDE),
        ("MAX_VCPUS", layout::MAX_VCPUS),
        ("VCPU_TCS", layout::VCPU_TCS),
        ("VCPU_SSA", layout::VCPU_SSA),
        ("SSA_FRAMES", layout::SSA_FRAMES),
        ("SSA_FRAME_PAGES", layout::SSA_FRAME_PAGES),
        ("SSA_FRAME_SIZE", layout::SSA_FRAME_SIZE),
        ("VCPU_PAGE", layout::VCPU_PAGE),
        ("VCPU_EXCEPTION_STACK", layout::VCPU_EXCEPTION_STACK),
        (
            "VCPU_EXCEPTION_STACK_SIZE",
            layout::VCPU_EXCEPTION_STACK_SIZE,
        ),
        ("VCPU_IDLE_STACK", layout::VCPU_IDLE_STACK),
        ("VCPU_IDLE_STACK_SIZE", layout::VCPU_IDLE_STACK_SIZE),
    ];
    for (name, value) in addresses {
        module.add(name, value)?;
    }
    Ok(())
}

/// The measured boot configuration from JSON: an 8-byte little-endian length, then postcard
/// (docs/format/enclave.md lists the keys). A key that is missing or unknown is an Error.
#[pyfunction]
fn encode_boot_config<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyBytes>> {
    let config: BootConfig = serde_json::from_str(json).map_err(boot_config)?;
    let given: serde_json::Value = serde_json::from_str(json).map_err(boot_config)?;
    let understood = serde_json::to_value(&config).map_err(boot_config)?;
    if given != understood {
        return Err(boot_config(format!(
            "it has keys that nothing reads; understood is {understood}"
        )));
    }
    let body = postcard::to_allocvec(&config).map_err(boot_config)?;
    let mut encoded = (body.len() as u64).to_le_bytes().to_vec();
    encoded.extend_from_slice(&body);
    if encoded.len() > layout::BOOT_CONFIG_MAX {
        let max = layout::BOOT_CONFIG_MAX;
        return Err(boot_config(format!(
            "it has {} bytes; {max} are the most",
            encoded.len()
        )));
    }
    Ok(PyBytes::new(py, &encoded))
}

fn boot_config(error: impl Display) -> PyErr {
    Error::new_err(format!("the boot configuration can't be encoded: {error}"))
}
