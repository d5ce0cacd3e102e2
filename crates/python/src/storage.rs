//! Binding of `occlum-storage`.
//!
//! An image that does not hold raises `occlum.errors.VerificationError`; what can't be read or
//! written raises `occlum.errors.Error`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use occlum_storage::image::writer::{self, Extras, WriteError};
use occlum_storage::image::{
    self, DirEntry, Hash, ImageError, ImageSource, Ino, SourceError, claimed_root_hash,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pub use raised::{Error, VerificationError};

mod raised {
    pyo3::import_exception!(occlum.errors, Error);
    pyo3::import_exception!(occlum.errors, VerificationError);
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ImageScan>()?;
    module.add_class::<ImageInfo>()?;
    module.add_class::<Image>()?;
    module.add_class::<ImageInode>()?;
    Ok(())
}

/// A source tree as it was when it was scanned.
#[pyclass(frozen, module = "occlum._core")]
struct ImageScan {
    inner: writer::Scan,
}

#[pymethods]
impl ImageScan {
    #[new]
    fn new(py: Python<'_>, source: PathBuf) -> PyResult<ImageScan> {
        let inner = py
            .detach(|| writer::Scan::new(&source))
            .map_err(unwritten)?;
        Ok(ImageScan { inner })
    }

    /// (path relative to the source, size in bytes, mtime in ns) of each file with the ELF magic.
    fn elf_files(&self, py: Python<'_>) -> PyResult<Vec<(OsString, u64, i128)>> {
        let found = py.detach(|| self.inner.elf_files()).map_err(unwritten)?;
        let parts = |file: writer::ElfFile| (file.path.into_os_string(), file.size, file.mtime_ns);
        Ok(found.into_iter().map(parts).collect())
    }

    /// What `dest` was made of, if it is the image of this tree and this tag; else None.
    fn up_to_date(&self, py: Python<'_>, dest: PathBuf, tag: Vec<u8>) -> Option<ImageInfo> {
        let info = py.detach(|| writer::up_to_date(&self.inner, &dest, &tag));
        info.map(|inner| ImageInfo { inner })
    }

    /// Writes the image and its manifest. `sites` maps paths relative to the source to site tables;
    /// `progress(done, total)` hears bytes, and what it raises cancels and is raised here.
    fn write(
        &self,
        py: Python<'_>,
        dest: PathBuf,
        sites: HashMap<PathBuf, Vec<u8>>,
        tag: Vec<u8>,
        progress: Py<PyAny>,
    ) -> PyResult<ImageInfo> {
        let extras = Extras { sites, tag };
        let mut raised = None;
        let written = py.detach(|| {
            writer::write_image(&self.inner, &dest, &extras, |done, total| {
                report(&progress, done, total, &mut raised)
            })
        });
        match raised {
            Some(error) => Err(error),
            None => Ok(ImageInfo {
                inner: written.map_err(unwritten)?,
            }),
        }
    }
}

/// What an image was made of. Sizes in bytes.
#[pyclass(frozen, eq, module = "occlum._core")]
#[derive(PartialEq)]
struct ImageInfo {
    inner: writer::ImageInfo,
}

#[pymethods]
impl ImageInfo {
    #[getter]
    fn root_hash(&self) -> Hash {
        self.inner.root_hash
    }

    #[getter]
    fn image_size(&self) -> u64 {
        self.inner.image_size
    }

    #[getter]
    fn files(&self) -> u64 {
        self.inner.files
    }

    #[getter]
    fn directories(&self) -> u64 {
        self.inner.directories
    }

    #[getter]
    fn symlinks(&self) -> u64 {
        self.inner.symlinks
    }

    /// Bytes of all regular files.
    #[getter]
    fn content_size(&self) -> u64 {
        self.inner.content_size
    }
}

/// An image file opened for reading; each block is checked when it is used.
///
/// `root_hash` is what the image must have; without it the image's own claim is taken, which proves
/// nothing but that the image is whole.
#[pyclass(frozen, module = "occlum._core")]
struct Image {
    inner: image::Image<FileSource>,
    root_hash: Hash,
}

#[pymethods]
impl Image {
    #[new]
    #[pyo3(signature = (path, root_hash=None))]
    fn open(path: PathBuf, root_hash: Option<Hash>) -> PyResult<Image> {
        let source = FileSource::open(&path)?;
        let root_hash = match root_hash {
            Some(root_hash) => root_hash,
            None => claimed_root_hash(&source).map_err(refused)?,
        };
        let inner = image::Image::open(source, &root_hash).map_err(refused)?;
        Ok(Image { inner, root_hash })
    }

    #[getter]
    fn root_hash(&self) -> Hash {
        self.root_hash
    }

    /// The inode of this number; 1 is the root directory.
    fn inode(&self, ino: u32) -> PyResult<ImageInode> {
        let inner = self.inner.inode(Ino(ino)).map_err(refused)?;
        Ok(ImageInode { inner })
    }

    /// The inode number of a name, None if there is no such name.
    fn lookup(&self, directory: &ImageInode, name: &[u8]) -> PyResult<Option<u32>> {
        let found = self.inner.lookup(&directory.inner, name).map_err(refused)?;
        Ok(found.map(|ino| ino.0))
    }

    /// (name, inode number) of each entry, in the order of the image.
    fn read_dir(&self, directory: &ImageInode) -> PyResult<Vec<(OsString, u32)>> {
        let mut entries = Vec::new();
        let collect = |entry: DirEntry<'_>| {
            entries.push((os_string(entry.name.to_vec()), entry.ino.0));
            ControlFlow::Continue(())
        };
        self.inner
            .read_dir(&directory.inner, 0, collect)
            .map_err(refused)?;
        Ok(entries)
    }

    /// At most `size` bytes of file data at `offset`; fewer only at the end of the file.
    fn read_at<'py>(
        &self,
        py: Python<'py>,
        file: &ImageInode,
        offset: u64,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut data = vec![0; size];
        let read = py.detach(|| self.inner.read_at(&file.inner, offset, &mut data));
        data.truncate(read.map_err(refused)?);
        Ok(PyBytes::new(py, &data))
    }

    fn read_link(&self, link: &ImageInode) -> PyResult<OsString> {
        self.inner
            .read_link(&link.inner)
            .map(os_string)
            .map_err(refused)
    }

    /// The file's site table, empty if it has none.
    fn sites<'py>(&self, py: Python<'py>, file: &ImageInode) -> PyResult<Bound<'py, PyBytes>> {
        let table = self.inner.sites(&file.inner).map_err(refused)?;
        Ok(PyBytes::new(py, &table.unwrap_or_default()))
    }

    /// Reads and checks every block. `progress(done, total)` hears leaf blocks.
    fn verify(&self, py: Python<'_>, progress: Py<PyAny>) -> PyResult<()> {
        let mut raised = None;
        let verdict = py.detach(|| {
            self.inner
                .verify_all(|done, total| report(&progress, done, total, &mut raised))
        });
        match raised {
            Some(error) => Err(error),
            None => verdict.map_err(refused),
        }
    }
}

/// An inode of an image. Attributes as in stat(2).
#[pyclass(frozen, module = "occlum._core")]
struct ImageInode {
    inner: image::Inode,
}

#[pymethods]
impl ImageInode {
    #[getter]
    fn ino(&self) -> u32 {
        self.inner.ino().0
    }

    #[getter]
    fn mode(&self) -> u32 {
        self.inner.mode()
    }

    #[getter]
    fn nlink(&self) -> u32 {
        self.inner.nlink()
    }

    #[getter]
    fn uid(&self) -> u32 {
        self.inner.uid()
    }

    #[getter]
    fn gid(&self) -> u32 {
        self.inner.gid()
    }

    #[getter]
    fn size(&self) -> u64 {
        self.inner.size()
    }

    #[getter]
    fn rdev(&self) -> u64 {
        self.inner.rdev()
    }

    #[getter]
    fn mtime_ns(&self) -> i128 {
        let (seconds, nanoseconds) = self.inner.mtime();
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    }
}

/// An image in a file of the host.
struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    fn open(path: &PathBuf) -> PyResult<FileSource> {
        let failed = |error| Error::new_err(format!("can't open {}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.size();
        Ok(FileSource { file, size })
    }
}

impl ImageSource for FileSource {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.file
            .read_exact_at(buf, offset)
            .map_err(|_| SourceError)
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// Calls `progress(done, total)`. An exception, from there or by a signal, is kept and ends the
/// work.
pub fn report(
    progress: &Py<PyAny>,
    done: u64,
    total: u64,
    raised: &mut Option<PyErr>,
) -> ControlFlow<()> {
    let called = Python::attach(|py| {
        py.check_signals()?;
        progress.call1(py, (done, total)).map(drop)
    });
    match called {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *raised = Some(error);
            ControlFlow::Break(())
        }
    }
}

fn os_string(bytes: Vec<u8>) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

fn refused(error: ImageError) -> PyErr {
    match error {
        ImageError::Source
        | ImageError::NoSuchInode(_)
        | ImageError::NotADirectory(_)
        | ImageError::NotASymlink(_)
        | ImageError::OutOfMemory => Error::new_err(error.to_string()),
        _ => VerificationError::new_err(error.to_string()),
    }
}

fn unwritten(error: WriteError) -> PyErr {
    Error::new_err(error.to_string())
}
