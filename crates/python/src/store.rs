//! Binding of `occlum_storage::store`.
//!
//! What is wrong with a request raises `OSError` with its errno, what is wrong with the store
//! `occlum.errors.VerificationError` or `Error`. Times are nanoseconds since 1970.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use occlum_sgx::attributes::{AttributeFlags, Attributes};
use occlum_sgx::einit::Enclave;
use occlum_sgx::keyrequest::{KeyName, KeyPolicy, KeyRequest};
use occlum_sgx::keys::SimulatedCpu;
use occlum_sgx::secs::Secs;
use occlum_sgx::sigstruct::SigStruct;
use occlum_storage::sealing::{self, KEY_IDS};
use occlum_storage::store::{
    self, EntryKind, FileDisk, Leave, Name, NewInode, Options, Rename, SetAttr, Stat, StoreError,
    Time, XattrMode,
};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::storage::{Error, VerificationError, report};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Store>()?;
    module.add_class::<StoreStat>()?;
    module.add_function(wrap_pyfunction!(simulated_store_key, module)?)?;
    Ok(())
}

type Seed = [u8; 64];
type Key = [u8; 32];

/// An open store; `seed` is 64 fresh random bytes.
#[pyclass(frozen, module = "occlum._core")]
struct Store {
    inner: Mutex<store::Store<FileDisk>>,
}

/// As stat(2); times in nanoseconds. `origin` and `is_opaque` are the layered file system's.
#[pyclass(frozen, get_all, module = "occlum._core")]
struct StoreStat {
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    size: u64,
    blocks: u64,
    atime_ns: i128,
    mtime_ns: i128,
    ctime_ns: i128,
    rdev: u64,
    origin: u64,
    is_opaque: bool,
}

#[pymethods]
impl Store {
    #[new]
    #[pyo3(signature = (path, key, seed, *, read_only, pin=None, max_size=None))]
    fn open(
        path: PathBuf,
        key: Key,
        seed: Seed,
        read_only: bool,
        pin: Option<&str>,
        max_size: Option<u64>,
    ) -> PyResult<Store> {
        let mut options = options(max_size);
        options.is_read_only = read_only;
        let parsed = pin.map(str::parse).transpose();
        options.pin = parsed.map_err(|_| Error::new_err("a pin is 80 hex digits"))?;
        let disk = FileDisk::open(&path, read_only)?;
        let inner = store::Store::open(disk, &key, &store::Seed(seed), &options);
        Ok(Store::of(inner.map_err(raised)?))
    }

    /// Makes a store in a file that must not exist.
    #[staticmethod]
    #[pyo3(signature = (path, key, seed, max_size=None))]
    fn format(path: PathBuf, key: Key, seed: Seed, max_size: Option<u64>) -> PyResult<Store> {
        let disk = FileDisk::create(&path)?;
        let options = options(max_size);
        let inner = store::Store::format(disk, &key, &store::Seed(seed), &options, now());
        Ok(Store::of(inner.map_err(raised)?))
    }

    fn stat(&self, ino: u64) -> PyResult<StoreStat> {
        self.lock().stat(ino).map(shown).map_err(raised)
    }

    /// (inode, type as in readdir(3)) of a name, None if there is none. A whiteout is (0, 255).
    fn lookup(&self, directory: u64, name: &[u8]) -> PyResult<Option<(u64, u8)>> {
        let found = self.lock().lookup(directory, name).map_err(raised)?;
        Ok(found.map(|entry| (entry.ino, number(entry.kind))))
    }

    /// (name, inode, type) of each entry, whiteouts included.
    fn read_dir(&self, directory: u64) -> PyResult<Vec<(OsString, u64, u8)>> {
        let mut entries = Vec::new();
        let collect = |each: store::DirEntry<'_>| {
            let name = OsString::from_vec(each.name.to_vec());
            entries.push((name, each.entry.ino, number(each.entry.kind)));
            ControlFlow::Continue(())
        };
        self.lock()
            .read_dir(directory, 0, collect)
            .map_err(raised)?;
        Ok(entries)
    }

    #[pyo3(signature = (directory, name, mode, *, uid, gid, rdev=0, target=None))]
    #[expect(clippy::too_many_arguments)]
    fn create(
        &self,
        directory: u64,
        name: &[u8],
        mode: u32,
        uid: u32,
        gid: u32,
        rdev: u64,
        target: Option<&[u8]>,
    ) -> PyResult<u64> {
        let target = target.unwrap_or_default();
        let new = NewInode {
            mode,
            uid,
            gid,
            rdev,
            target,
        };
        let made = self.lock().create(directory, name, &new, now());
        made.map_err(raised)
    }

    fn link(&self, directory: u64, name: &[u8], ino: u64) -> PyResult<()> {
        let done = self.lock().link(directory, name, ino, now());
        done.map_err(raised)
    }

    /// Removes a name; what has no name any more is gone. A whiteout may stay.
    fn remove(&self, directory: u64, name: &[u8], is_dir: bool, whiteout: bool) -> PyResult<()> {
        let mut store = self.lock();
        let leave = leave(whiteout);
        let removed = match is_dir {
            true => store.rmdir(directory, name, leave, now()),
            false => store.unlink(directory, name, leave, now()),
        };
        let removed = removed.map_err(raised)?;
        match removed.nlink {
            0 => store.release(removed.ino).map_err(raised),
            _ => Ok(()),
        }
    }

    fn set_whiteout(&self, directory: u64, name: &[u8]) -> PyResult<()> {
        let done = self.lock().set_whiteout(directory, name, now());
        done.map_err(raised)
    }

    fn rename(
        &self,
        from_dir: u64,
        from_name: &[u8],
        to_dir: u64,
        to_name: &[u8],
        whiteout: bool,
    ) -> PyResult<()> {
        let mut store = self.lock();
        let [from, to] =
            [(from_dir, from_name), (to_dir, to_name)].map(|(dir, name)| Name { dir, name });
        let removed = store
            .rename(from, to, Rename::Replace, leave(whiteout), now())
            .map_err(raised)?;
        match removed {
            Some(gone) if gone.nlink == 0 => store.release(gone.ino).map_err(raised),
            _ => Ok(()),
        }
    }

    fn set_opaque(&self, ino: u64, is_opaque: bool) -> PyResult<()> {
        self.lock().set_opaque(ino, is_opaque).map_err(raised)
    }

    fn read_link(&self, ino: u64) -> PyResult<OsString> {
        let target = self.lock().read_link(ino).map_err(raised)?;
        Ok(OsString::from_vec(target))
    }

    #[pyo3(signature = (ino, *, mode=None, uid=None, gid=None, atime_ns=None, mtime_ns=None))]
    fn set_attr(
        &self,
        ino: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        atime_ns: Option<i128>,
        mtime_ns: Option<i128>,
    ) -> PyResult<()> {
        let change = SetAttr {
            mode,
            uid,
            gid,
            atime: atime_ns.map(time),
            mtime: mtime_ns.map(time),
        };
        let done = self.lock().set_attr(ino, &change, now());
        done.map_err(raised)
    }

    /// At most `size` bytes at `offset`; fewer only at the end of the file.
    fn read_at<'py>(
        &self,
        py: Python<'py>,
        ino: u64,
        offset: u64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut data = vec![0; size];
        let read = py.detach(|| self.lock().read_at(ino, offset, &mut data));
        data.truncate(read.map_err(raised)?);
        Ok(PyBytes::new(py, &data))
    }

    fn write_at(&self, py: Python<'_>, ino: u64, offset: u64, data: &[u8]) -> PyResult<()> {
        let done = py.detach(|| self.lock().write_at(ino, offset, data, now()));
        done.map_err(raised)
    }

    fn set_size(&self, ino: u64, size: u64) -> PyResult<()> {
        let done = self.lock().set_size(ino, size, now());
        done.map_err(raised)
    }

    fn xattr<'py>(&self, py: Python<'py>, ino: u64, name: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let value = self.lock().xattr(ino, name).map_err(raised)?;
        Ok(PyBytes::new(py, &value))
    }

    fn xattr_names(&self, ino: u64) -> PyResult<Vec<OsString>> {
        let names = self.lock().xattr_names(ino).map_err(raised)?;
        Ok(names
            .into_iter()
            .map(|name| OsString::from_vec(name.into()))
            .collect())
    }

    fn set_xattr(&self, ino: u64, name: &[u8], value: &[u8]) -> PyResult<()> {
        let done = self
            .lock()
            .set_xattr(ino, name, value, XattrMode::Any, now());
        done.map_err(raised)
    }

    fn remove_xattr(&self, ino: u64, name: &[u8]) -> PyResult<()> {
        let done = self.lock().remove_xattr(ino, name, now());
        done.map_err(raised)
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.lock().sync()).map_err(raised)
    }

    /// As sync; the next open has no log to replay.
    fn checkpoint(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.lock().checkpoint()).map_err(raised)
    }

    /// Deletes what an earlier mount left unlinked but open; the count.
    fn reclaim(&self) -> PyResult<u64> {
        self.lock().reclaim().map_err(raised)
    }

    /// (block size, blocks, free blocks, inodes, blocks of the file).
    fn statfs(&self) -> (u32, u64, u64, u64, u64) {
        let stat = self.lock().statfs();
        (
            stat.block_size,
            stat.blocks,
            stat.free_blocks,
            stat.inodes,
            stat.file_blocks,
        )
    }

    /// Names the last commit.
    fn pin(&self) -> String {
        self.lock().pin().to_string()
    }

    /// Reads and checks everything. `progress(done, total)` hears blocks.
    fn verify(&self, py: Python<'_>, progress: Py<PyAny>) -> PyResult<()> {
        let mut failed = None;
        let verdict = py.detach(|| {
            self.lock()
                .verify(|done, total| report(&progress, done, total, &mut failed))
        });
        failed.map_or(verdict.map_err(raised), Err)
    }

    /// Copies everything into `target`, a new store. `progress(done, total)` hears inodes.
    fn copy_into(&self, py: Python<'_>, target: &Store, progress: Py<PyAny>) -> PyResult<()> {
        let mut failed = None;
        let done = py.detach(|| {
            let copied = self.lock().copy_into(&mut target.lock(), |done, total| {
                report(&progress, done, total, &mut failed)
            });
            copied.and_then(|()| target.lock().checkpoint())
        });
        failed.map_or(done.map_err(raised), Err)
    }
}

impl Store {
    fn of(inner: store::Store<FileDisk>) -> Store {
        Store {
            inner: Mutex::new(inner),
        }
    }

    /// A panic in an operation (which would be a bug) leaves a store that refuses by itself.
    fn lock(&self) -> MutexGuard<'_, store::Store<FileDisk>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store key that the simulated CPU gives to the enclave of this SIGSTRUCT. All simulated CPUs
/// are one and keep no secret (see crates/host): this protects nothing, like simulation itself.
#[pyfunction]
fn simulated_store_key(sigstruct: &[u8], mrenclave_policy: bool) -> PyResult<Key> {
    let parsed = SigStruct::parse(sigstruct).map_err(|error| Error::new_err(error.to_string()))?;
    let enclave = enclave_of(&parsed);
    let policy = match mrenclave_policy {
        true => KeyPolicy::MRENCLAVE,
        false => KeyPolicy::MRSIGNER,
    };
    let mut halves = [[0; 16]; 2];
    for (half, id) in halves.iter_mut().zip(KEY_IDS) {
        let mut request = KeyRequest::new(KeyName::Seal, policy);
        request.key_id = *id;
        request.attribute_mask = Attributes {
            flags: (AttributeFlags::INIT | AttributeFlags::DEBUG).bits().into(),
            xfrm: 0.into(),
        };
        let key = SimulatedCpu::new(&[0; 32]).egetkey(&enclave, &request);
        *half = key.map_err(|error| Error::new_err(error.to_string()))?;
    }
    Ok(sealing::store_key(&halves))
}

fn enclave_of(sigstruct: &SigStruct) -> Enclave {
    let miscselect = sigstruct.miscselect.get();
    let mut secs = Secs::new(0, 0, 0, miscselect, sigstruct.attributes);
    secs.attributes.flags |= AttributeFlags::INIT.bits();
    secs.mrenclave = sigstruct.enclave_hash;
    secs.mrsigner = sigstruct.mrsigner();
    secs.isv_prod_id = sigstruct.isv_prod_id;
    secs.isv_svn = sigstruct.isv_svn;
    Enclave {
        secs,
        isv_family_id: sigstruct.isv_family_id,
        isv_ext_prod_id: sigstruct.isv_ext_prod_id,
    }
}

fn options(max_size: Option<u64>) -> Options {
    let default = Options::default();
    Options {
        max_size: max_size.unwrap_or(default.max_size),
        ..default
    }
}

fn number(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File(kind) => kind as u8,
        EntryKind::Whiteout => 255,
    }
}

fn leave(whiteout: bool) -> Leave {
    match whiteout {
        true => Leave::Whiteout,
        false => Leave::Nothing,
    }
}

fn shown(stat: Stat) -> StoreStat {
    let ns = |time: Time| i128::from(time.s) * 1_000_000_000 + i128::from(time.ns);
    StoreStat {
        mode: stat.mode,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        blocks: stat.blocks,
        atime_ns: ns(stat.atime),
        mtime_ns: ns(stat.mtime),
        ctime_ns: ns(stat.ctime),
        rdev: stat.rdev,
        origin: stat.origin,
        is_opaque: stat.is_opaque,
    }
}

fn time(ns: i128) -> Time {
    let second = 1_000_000_000;
    let s = i64::try_from(ns.div_euclid(second)).unwrap_or(i64::MAX);
    Time {
        s,
        ns: ns.rem_euclid(second) as u32,
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(Time::default(), |since| time(since.as_nanos() as i128))
}

fn raised(error: StoreError) -> PyErr {
    let errno = match error {
        StoreError::NotFound => 2,
        StoreError::Exists => 17,
        StoreError::NotADirectory => 20,
        StoreError::IsADirectory => 21,
        StoreError::NotEmpty => 39,
        StoreError::NotASymlink | StoreError::Invalid | StoreError::NoData => 22,
        StoreError::NameTooLong => 36,
        StoreError::FileTooLarge => 27,
        StoreError::TooManyLinks => 31,
        StoreError::NoXattr => 61,
        StoreError::XattrTooLarge => 7,
        StoreError::NoSpace => 28,
        StoreError::ReadOnly => 30,
        StoreError::OutOfMemory => 12,
        StoreError::Disk | StoreError::Failed | StoreError::NotEmptyDisk => {
            return Error::new_err(error.to_string());
        }
        _ => return VerificationError::new_err(error.to_string()),
    };
    PyOSError::new_err((errno, error.to_string()))
}
