//! With the feature `wheel`: builds the kernel ELF and the host program into `$OUT_DIR/_bin`, from
//! where maturin packs them beside the extension module.
//!
//! Both are built by an inner cargo with target directories of their own: the kernel has other
//! flags and another profile, and the outer cargo holds the lock on its own target directory.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    if env::var_os("CARGO_FEATURE_WHEEL").is_none() {
        println!("cargo:rerun-if-changed=build.rs");
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets this"));
    let crates = manifest.parent().expect("this crate lies in crates/");
    let bin = out.join("_bin");
    fs::create_dir_all(&bin).expect("OUT_DIR is writable");

    for name in ["abi", "sgx", "storage", "enclave", "kernel", "boot", "host"] {
        watch(&crates.join(name));
    }
    println!("cargo:rerun-if-changed=build.rs");

    build(
        &Program {
            dir: crates.join("boot"),
            binary: "occlum-kernel",
            rustflags: kernel_flags(crates),
        },
        &out.join("kernel"),
        &bin,
    );
    build(
        &Program {
            dir: crates.join("host"),
            binary: "occlum-host",
            rustflags: String::new(),
        },
        &out.join("host"),
        &bin,
    );
}

struct Program {
    dir: PathBuf,
    binary: &'static str,
    rustflags: String,
}

/// The kernel's flags, with source paths mapped to fixed names: panic messages hold file names,
/// and MRENCLAVE must not depend on where the sources lie.
fn kernel_flags(crates: &Path) -> String {
    let listed = fs::read_to_string(crates.join("boot/rustflags.txt"))
        .expect("crates/boot/rustflags.txt holds the kernel's flags");
    let mut flags: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
    flags.push(format!("--remap-path-prefix={}=occlum", crates.display()));
    let cargo_home =
        env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
    if let Ok(home) = cargo_home {
        flags.push(format!("--remap-path-prefix={home}=cargo"));
    }
    // The separator cargo itself uses for CARGO_ENCODED_RUSTFLAGS; a path may hold a blank.
    flags.join("\x1f")
}

fn build(program: &Program, target_dir: &Path, bin: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "--bin",
            program.binary,
        ])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(&program.dir);
    clear_outer_cargo(&mut cargo);
    if !program.rustflags.is_empty() {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", &program.rustflags);
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(
        status.success(),
        "building {} failed: {status}",
        program.binary
    );

    let built = target_dir.join(TARGET).join("release").join(program.binary);
    fs::copy(&built, bin.join(program.binary)).expect("the built program can be copied");
}

/// The outer cargo's settings for *this* crate must not reach the inner build.
fn clear_outer_cargo(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let outer =
            text.starts_with("CARGO_") && text != "CARGO_HOME" && text != "CARGO_NET_OFFLINE";
        let steers = [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "TARGET",
            "OUT_DIR",
            "PROFILE",
            "HOST",
        ];
        if outer || steers.contains(&&*text) {
            command.env_remove(&name);
        }
    }
}

/// Names each source file of a crate to cargo, but not a `target` directory inside it.
fn watch(krate: &Path) {
    for name in [
        "src",
        "Cargo.toml",
        "Cargo.lock",
        "build.rs",
        "rustflags.txt",
        "patches",
    ] {
        let path = krate.join(name);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}
