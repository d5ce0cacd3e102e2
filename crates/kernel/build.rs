//! Builds the vDSO (`vdso/`) with the C compiler that also links Rust programs. The result is part of
//! the measured kernel, so nothing about the machine or the directory may get into it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const FLAGS: &[&str] = &[
    "-shared",
    "-fPIC",
    "-O2",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-m64",
    "-mno-sse",
    "-mno-mmx",
    "-fcf-protection=none",
    "-fno-stack-protector",
    "-fno-ident",
    "-fno-omit-frame-pointer",
    "-foptimize-sibling-calls",
    "-fasynchronous-unwind-tables",
    "-nostdlib",
    "-nostartfiles",
    "-s",
    "-Wl,-soname=linux-vdso.so.1",
    "-Wl,--hash-style=both",
    "-Wl,--build-id=none",
    "-Wl,-Bsymbolic",
    "-Wl,--eh-frame-hdr",
    "-Wl,-z,noexecstack",
    "-Wl,-z,max-page-size=4096",
];

fn main() {
    println!("cargo:rerun-if-changed=vdso");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CC");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("vdso.so");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(FLAGS)
        .args(["-Wl,--version-script=vdso/vdso.map", "-Wl,-T,vdso/vdso.lds", "vdso/vdso.c", "-o"])
        .arg(&out)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} could not build the vDSO: {status}", compiler.display()),
        Err(error) => panic!("the C compiler {} can't be run: {error}", compiler.display()),
    }
}
