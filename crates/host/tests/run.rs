//! The program as `occlum run` starts it: its exit status, and what it says when it can't.

mod probe;

use occlum_sgx::IntoBytes;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A build directory with the probe in it.
struct BuildDir(PathBuf);

impl BuildDir {
    fn new(name: &str) -> BuildDir {
        let path = std::env::temp_dir().join(format!("occlum-run-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let stream = probe::stream();
        let sigstruct = probe::sign(&stream, |_| {});
        fs::write(path.join("occlum.sgxs"), &stream).unwrap();
        fs::write(path.join("occlum.sigstruct"), sigstruct.as_bytes()).unwrap();
        fs::write(path.join("image.occ"), "image").unwrap();
        BuildDir(path)
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.0.join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    fn run(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_occlum-host"));
        command
            .args(["run", "--build-dir"])
            .arg(&self.0)
            .args(["--", "/bin/true"])
            .output()
            .unwrap()
    }

    /// Runs, expecting a refusal; gives what it said.
    fn refusal(&self) -> String {
        let output = self.run();
        assert_eq!(output.status.code(), Some(125));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("error: "), "{text}");
        text
    }
}

impl Drop for BuildDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn the_exit_status_is_the_programs() {
    let output = BuildDir::new("status").run();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stderr.is_empty());
}

#[test]
fn a_changed_page_is_refused() {
    let dir = BuildDir::new("page");
    dir.change("occlum.sgxs", |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(dir.refusal().contains("MRENCLAVE"));
}

#[test]
fn a_page_more_or_less_is_refused() {
    let dir = BuildDir::new("less");
    const PAGE_RECORDS: usize = 64 + 16 * (64 + 256);
    dir.change("occlum.sgxs", |bytes| {
        bytes.truncate(bytes.len() - PAGE_RECORDS)
    });
    assert!(dir.refusal().contains("MRENCLAVE"));
    dir.change("occlum.sgxs", |bytes| bytes.truncate(bytes.len() - 1));
    assert!(dir.refusal().contains("occlum.sgxs: byte "));
}

#[test]
fn a_changed_signature_is_refused() {
    let dir = BuildDir::new("signature");
    for at in [20, 600, 1026, 1100] {
        dir.change("occlum.sigstruct", |bytes| bytes[at] ^= 1);
        assert!(dir.refusal().contains("signature"), "byte {at}");
        dir.change("occlum.sigstruct", |bytes| bytes[at] ^= 1);
    }
    assert_eq!(dir.run().status.code(), Some(7));
}

#[test]
fn a_missing_file_is_named() {
    for file in ["occlum.sgxs", "occlum.sigstruct", "image.occ"] {
        let dir = BuildDir::new(file);
        fs::remove_file(dir.0.join(file)).unwrap();
        assert!(dir.refusal().contains(file));
    }
}

#[test]
fn too_little_address_space_is_told() {
    let dir = BuildDir::new("limit");
    let host = env!("CARGO_BIN_EXE_occlum-host");
    let script = format!(
        "ulimit -v 1000000; exec {host} run --build-dir {} /bin/true",
        dir.0.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("can't be reserved for the enclave")
    );
}
