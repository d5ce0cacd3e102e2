//! How fast images are built and read, beside plain file operations on the same bytes in the same
//! run.
//!
//!     cargo bench -p occlum-storage [-- MEGABYTES FILES]
//!
//! A tree of FILES small files (a fifth of the bytes) and some of 20 MB, of random bytes, in the
//! page cache.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use occlum_storage::image::writer::{Extras, Scan, up_to_date, write_image};
use occlum_storage::image::{FileKind, Image, Inode};

const LARGE_FILE: usize = 20_000_000;
const BUFFER: usize = 1 << 20;
const MB: f64 = 1e6;

fn main() {
    let arguments = std::env::args().filter_map(|argument| argument.parse().ok());
    let numbers: Vec<usize> = arguments.collect();
    let megabytes = numbers.first().copied().unwrap_or(500);
    let files = numbers.get(1).copied().unwrap_or(20_000);
    let dir = tempfile::tempdir().expect("temporary directory");
    let tree = dir.path().join("tree");
    make_tree(&tree, megabytes * 1_000_000, files);
    println!(
        "{:<52} {:>10} {:>10} {:>8}",
        "what", "native", "ours", "ratio"
    );
    let image = bench_build(&tree, dir.path());
    bench_read(&tree, &image);
}

/// The image in memory, as the enclave's host maps it.
struct BuiltImage {
    bytes: Vec<u8>,
    root_hash: [u8; 32],
}

fn bench_build(tree: &Path, dir: &Path) -> BuiltImage {
    let (dest, copy) = (dir.join("image.occ"), dir.join("copy"));
    let scan = Scan::new(tree).expect("scan");
    let content = scan.content_size() as f64 / MB;
    let rounds = 3;
    let (mut native, mut ours) = (f64::INFINITY, f64::INFINITY);
    let mut root_hash = [0; 32];
    for _ in 0..rounds {
        native = native.min(seconds(|| concatenate(&scan, &copy)));
        fs::remove_file(&copy).expect("it was made");
        ours = ours.min(seconds(|| root_hash = build(tree, &dest)));
    }
    row(
        "build, MB/s (native: copy into one file, sync)",
        content / native,
        content / ours,
    );
    let check = seconds(|| {
        let scan = Scan::new(tree).expect("scan");
        up_to_date(&scan, &dest, b"").expect("nothing changed");
    });
    row("build with nothing changed, ms", f64::NAN, check * 1e3);
    let elf = seconds(|| drop(black_box(scan.elf_files().expect("readable"))));
    row("look for ELF files, ms", f64::NAN, elf * 1e3);
    let bytes = fs::read(&dest).expect("it was built");
    row(
        "image size / content size",
        1.0,
        bytes.len() as f64 / MB / content,
    );
    BuiltImage { bytes, root_hash }
}

fn bench_read(tree: &Path, built: &BuiltImage) {
    let open = || Image::open(&built.bytes[..], &built.root_hash).expect("it was just built");
    let opening = seconds(|| drop(black_box(open())));
    row("open, us", f64::NAN, opening * 1e6);

    let buffer = &mut vec![0; BUFFER][..];
    let (large, small) = (files_of(tree, "large"), files_of(tree, "small"));
    let large_size = (large.len() * LARGE_FILE) as f64 / MB;
    let native = seconds(|| large.iter().for_each(|path| read_native(path, buffer)));
    let image = open();
    let dir = find(&image, &image.root().expect("root"), "large");
    let ours = seconds(|| read_all(&image, &dir, buffer));
    row(
        "sequential read in 1 MiB, every block checked, MB/s",
        large_size / native,
        large_size / ours,
    );

    let count = small.len() as f64;
    let native = seconds(|| small.iter().for_each(|path| read_native(path, buffer)));
    let dir = find(&image, &image.root().expect("root"), "small");
    let ours = seconds(|| read_all_by_name(&image, &dir, &small, buffer));
    row(
        "small files: look up and read, us each",
        native / count * 1e6,
        ours / count * 1e6,
    );

    let hot = &small[0];
    let native = seconds(|| (0..100_000).for_each(|_| drop(black_box(fs::symlink_metadata(hot)))));
    let name = hot.file_name().expect("a file").as_encoded_bytes();
    let ours = seconds(|| {
        for _ in 0..100_000 {
            let ino = image.lookup(&dir, name).expect("readable").expect("there");
            black_box(image.inode(ino).expect("readable"));
        }
    });
    row(
        "cached look-up and attributes, ns",
        native * 1e4,
        ours * 1e4,
    );
}

fn build(tree: &Path, dest: &Path) -> [u8; 32] {
    let scan = Scan::new(tree).expect("scan");
    black_box(scan.elf_files().expect("readable"));
    let go_on = |_, _| ControlFlow::Continue(());
    write_image(&scan, dest, &Extras::default(), go_on)
        .expect("build")
        .root_hash
}

/// What any builder must do at least: read every file, write the bytes, wait for the disk.
fn concatenate(scan: &Scan, dest: &Path) {
    let mut copy = File::create(dest).expect("create");
    let mut buffer = vec![0; BUFFER];
    for inode in scan
        .inodes()
        .iter()
        .filter(|inode| inode.kind == FileKind::Regular)
    {
        let mut file = File::open(scan.source().join(&inode.path)).expect("open");
        loop {
            match file.read(&mut buffer).expect("read") {
                0 => break,
                size => copy.write_all(&buffer[..size]).expect("write"),
            }
        }
    }
    copy.sync_all().expect("sync");
}

fn read_native(path: &Path, buffer: &mut [u8]) {
    let mut file = File::open(path).expect("open");
    while file.read(buffer).expect("read") > 0 {
        black_box(&buffer);
    }
}

fn read_all(image: &Image<&[u8]>, dir: &Inode, buffer: &mut [u8]) {
    let mut inodes = Vec::new();
    let collect = |entry: occlum_storage::image::DirEntry<'_>| {
        inodes.push(entry.ino);
        ControlFlow::Continue(())
    };
    image.read_dir(dir, 0, collect).expect("readable");
    for ino in inodes {
        read_file(image, &image.inode(ino).expect("readable"), buffer);
    }
}

fn read_all_by_name(image: &Image<&[u8]>, dir: &Inode, paths: &[PathBuf], buffer: &mut [u8]) {
    for path in paths {
        let name = path.file_name().expect("a file").as_encoded_bytes();
        let ino = image.lookup(dir, name).expect("readable").expect("there");
        read_file(image, &image.inode(ino).expect("readable"), buffer);
    }
}

fn read_file(image: &Image<&[u8]>, file: &Inode, buffer: &mut [u8]) {
    let mut offset = 0;
    loop {
        match image.read_at(file, offset, buffer).expect("readable") {
            0 => break,
            size => offset += size as u64,
        }
        black_box(&buffer);
    }
}

fn find(image: &Image<&[u8]>, dir: &Inode, name: &str) -> Inode {
    let ino = image
        .lookup(dir, name.as_bytes())
        .expect("readable")
        .expect("there");
    image.inode(ino).expect("readable")
}

fn make_tree(tree: &Path, size: usize, files: usize) {
    let mut noise = blake3::Hasher::new().finalize_xof();
    let small_size = size / 5 / files.max(1);
    fs::create_dir_all(tree.join("small")).expect("create");
    fs::create_dir_all(tree.join("large")).expect("create");
    let mut add = |name: String, size: usize| {
        let mut content = vec![0; size];
        noise.fill(&mut content);
        fs::write(tree.join(name), content).expect("write");
    };
    // Sizes spread evenly around the mean.
    (0..files).for_each(|number| {
        add(
            format!("small/f{number}"),
            small_size * (number % 9 + 1) / 5,
        )
    });
    (0..size * 4 / 5 / LARGE_FILE).for_each(|number| add(format!("large/f{number}"), LARGE_FILE));
}

fn files_of(tree: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(tree.join(name)).expect("it was made");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    paths
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn row(what: &str, native: f64, ours: f64) {
    let ratio = ours / native;
    let cell = |value: f64| {
        if value.is_nan() {
            String::new()
        } else {
            format!("{value:.2}")
        }
    };
    println!(
        "{what:<52} {:>10} {:>10} {:>8}",
        cell(native),
        cell(ours),
        cell(ratio)
    );
}
