//! The note beside an image that says what it was made of; the format is in `docs/format/image.md`.

use std::ffi::OsString;
use std::format;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

use super::ImageInfo;
use super::error::WriteError;
use super::output::Temporary;
use super::scan::{Scan, Stamp};
use crate::image::hash::Hash;

const FIRST_LINE: &str = "occlum-image-manifest 1";

/// What `dest` was made of, if that is what `scan` and `tag` say now and the file was not touched.
/// A missing or unreadable manifest only means that the image must be made again.
pub fn up_to_date(scan: &Scan, dest: &Path, tag: &[u8]) -> Option<ImageInfo> {
    let text = fs::read_to_string(path_of(dest)).ok()?;
    let metadata = fs::symlink_metadata(dest).ok()?;
    let info = parse(&text)?;
    let is_same = metadata.is_file()
        && metadata.size() == info.image_size
        && text == render(scan, tag, &info, mtime_ns(&metadata));
    is_same.then_some(info)
}

pub fn save(scan: &Scan, dest: &Path, tag: &[u8], info: &ImageInfo) -> Result<(), WriteError> {
    let metadata = fs::metadata(dest).map_err(WriteError::io("look at", dest))?;
    let text = render(scan, tag, info, mtime_ns(&metadata));
    let path = path_of(dest);
    let temporary = Temporary::beside(&path);
    fs::write(&temporary.path, text).map_err(WriteError::io("write", &temporary.path))?;
    fs::rename(&temporary.path, &path).map_err(WriteError::io("rename", &temporary.path))
}

fn path_of(dest: &Path) -> PathBuf {
    let mut name = OsString::from(dest);
    name.push(".manifest");
    PathBuf::from(name)
}

fn render(scan: &Scan, tag: &[u8], info: &ImageInfo, image_mtime_ns: i128) -> String {
    let fingerprint = hex(&fingerprint(scan, tag));
    let root_hash = hex(&info.root_hash);
    let ImageInfo {
        image_size,
        files,
        directories,
        symlinks,
        content_size,
        ..
    } = info;
    format!(
        "{FIRST_LINE}\nfingerprint {fingerprint}\nroot_hash {root_hash}\n\
         image_size {image_size}\nimage_mtime_ns {image_mtime_ns}\nfiles {files}\n\
         directories {directories}\nsymlinks {symlinks}\ncontent_size {content_size}\n"
    )
}

/// What the text says about the image. Whether it is well-formed to the last byte shows when it is
/// compared with a fresh one.
fn parse(text: &str) -> Option<ImageInfo> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let number = |name| field(name)?.parse().ok();
    Some(ImageInfo {
        root_hash: unhex(field("root_hash")?)?,
        image_size: number("image_size")?,
        files: number("files")?,
        directories: number("directories")?,
        symlinks: number("symlinks")?,
        content_size: number("content_size")?,
    })
}

fn fingerprint(scan: &Scan, tag: &[u8]) -> Hash {
    let mut bytes = Vec::new();
    put(&mut bytes, tag);
    for inode in scan.inodes() {
        put(&mut bytes, inode.path.as_os_str().as_bytes());
        put(&mut bytes, &inode.mode.to_le_bytes());
        put_stamp(&mut bytes, &inode.stamp);
        // Names of hard links stand in no path.
        for (name, ino) in &inode.children {
            put(&mut bytes, name.as_bytes());
            put(&mut bytes, &ino.0.to_le_bytes());
        }
    }
    *blake3::hash(&bytes).as_bytes()
}

fn put_stamp(bytes: &mut Vec<u8>, stamp: &Stamp) {
    let times = [stamp.mtime.0, stamp.mtime.1, stamp.ctime.0, stamp.ctime.1];
    let numbers = [stamp.device, stamp.inode, stamp.size];
    for value in numbers.into_iter().chain(times.map(i64::cast_unsigned)) {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
}

/// With its length, so that neighbours can't be confused.
fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
    bytes.extend_from_slice(field);
}

fn mtime_ns(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}
