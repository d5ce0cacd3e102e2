//! Images made from real trees and read back: what the reader shows is what lstat, readdir and read
//! show of the source.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use occlum_storage::image::writer::{Extras, ImageInfo, Scan, WriteError, up_to_date, write_image};
use occlum_storage::image::{CacheLimits, FileKind, Image, Inode, LEAF_SIZE};
use proptest::prelude::*;
use tempfile::TempDir;

#[test]
fn an_empty_directory_is_an_image() {
    let built = Built::new(|_| ());
    let image = built.open();
    let root = image.root().unwrap();
    assert_eq!(root.kind(), FileKind::Directory);
    assert_eq!(image.lookup(&root, b"anything").unwrap(), None);
    assert_eq!(image.parent(&root).unwrap(), root.ino());
    built.check();
}

#[test]
fn files_of_every_size_around_a_leaf_come_back() {
    let built = Built::new(|dir| {
        for size in [
            0,
            1,
            4095,
            4096,
            LEAF_SIZE - 1,
            LEAF_SIZE,
            LEAF_SIZE + 1,
            3 << 20,
        ] {
            fs::write(dir.join(format!("f{size}")), noise(size, size as u64)).unwrap();
        }
    });
    built.check();
}

#[test]
fn links_modes_and_times_come_back() {
    let built = Built::new(|dir| {
        fs::create_dir_all(dir.join("a/b/c")).unwrap();
        fs::write(dir.join("a/file"), b"content").unwrap();
        fs::hard_link(dir.join("a/file"), dir.join("a/b/other")).unwrap();
        symlink("../a/file", dir.join("a/b/link")).unwrap();
        fs::set_permissions(dir.join("a/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(dir.join("a/b/c"), fs::Permissions::from_mode(0o1777)).unwrap();
    });
    built.check();
    let image = built.open();
    let file = find(&image, "a/file");
    assert_eq!(file.ino(), find(&image, "a/b/other").ino());
    assert_eq!(file.nlink(), 2);
    assert_eq!(find(&image, "a").nlink(), 3);
    assert_eq!(
        image.read_link(&find(&image, "a/b/link")).unwrap(),
        b"../a/file"
    );
}

#[test]
fn a_sparse_file_costs_only_its_data() {
    let built = Built::new(|dir| {
        let file = fs::File::create(dir.join("sparse")).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 5 << 30).unwrap();
        file.set_len(8 << 30).unwrap();
    });
    assert!(built.info.image_size < 200_000, "{}", built.info.image_size);
    let image = built.open();
    let file = find(&image, "sparse");
    assert_eq!(file.size(), 8 << 30);
    let mut buf = vec![1; 100_000];
    assert_eq!(
        image.read_at(&file, (5 << 30) - 10, &mut buf).unwrap(),
        buf.len()
    );
    let mut expected = vec![0; 100_000];
    expected[10..16].copy_from_slice(b"middle");
    assert_eq!(buf, expected);
    assert_eq!(image.read_at(&file, (8 << 30) - 7, &mut buf).unwrap(), 7);
    assert_eq!(image.read_at(&file, 8 << 30, &mut buf).unwrap(), 0);
    assert_eq!(image.read_at(&file, u64::MAX, &mut buf).unwrap(), 0);
}

#[test]
fn equal_content_is_stored_once() {
    let built = Built::new(|dir| {
        let content = noise(10 * LEAF_SIZE + 100, 1);
        for number in 0..20 {
            fs::write(dir.join(format!("copy{number}")), &content).unwrap();
        }
    });
    built.check();
    assert!(built.info.image_size < 14 * LEAF_SIZE as u64);
}

#[test]
fn small_files_share_leaves() {
    let built = Built::new(|dir| {
        for number in 0..2000 {
            fs::write(dir.join(format!("f{number}")), noise(500, number)).unwrap();
        }
    });
    built.check();
    let least = 2000 * (500 + 128 + 16 + 5);
    assert!(
        built.info.image_size < least * 11 / 10,
        "{}",
        built.info.image_size
    );
}

#[test]
fn a_file_of_many_extents_comes_back() {
    let built = Built::new(|dir| {
        let shared = noise(LEAF_SIZE, 7);
        let mut content = Vec::new();
        for number in 0..100 {
            content.extend(noise(LEAF_SIZE, 1000 + number));
            content.extend(&shared);
        }
        content.extend(vec![0; 3 * LEAF_SIZE]);
        content.extend(b"end");
        fs::write(dir.join("file"), content).unwrap();
    });
    built.check();
}

#[test]
fn a_large_directory_finds_every_name_and_lists_from_any_cursor() {
    let built = Built::new(|dir| {
        for number in 0..5000 {
            fs::write(dir.join(format!("name-{number}")), b"").unwrap();
        }
    });
    let image = built.open();
    let root = image.root().unwrap();
    for number in 0..5000 {
        let name = format!("name-{number}");
        let ino = image.lookup(&root, name.as_bytes()).unwrap().unwrap();
        assert_eq!(image.inode(ino).unwrap().kind(), FileKind::Regular);
    }
    assert_eq!(image.lookup(&root, b"name-5000").unwrap(), None);
    let mut names = Vec::new();
    let mut cursor = 0;
    loop {
        let before = names.len();
        let from = cursor;
        let show = |entry: occlum_storage::image::DirEntry<'_>| {
            names.push(entry.name.to_vec());
            cursor = entry.next;
            if names.len() % 7 == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        image.read_dir(&root, from, show).unwrap();
        if names.len() == before {
            break;
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5000);
}

#[test]
fn a_tiny_cache_still_reads_everything() {
    let built = Built::new(|dir| {
        for number in 0..300 {
            fs::write(dir.join(format!("f{number}")), noise(20_000, number)).unwrap();
        }
    });
    let limits = CacheLimits {
        nodes: 1,
        leaves: 1,
    };
    let image = Image::open_with(&built.bytes[..], &built.info.root_hash, limits).unwrap();
    compare(&image, &image.root().unwrap(), &built.source());
}

#[test]
fn many_threads_read_one_image() {
    let built = Built::new(|dir| {
        for number in 0..100 {
            fs::write(dir.join(format!("f{number}")), noise(30_000, number)).unwrap();
        }
    });
    let limits = CacheLimits {
        nodes: 1,
        leaves: 3,
    };
    let image = Image::open_with(&built.bytes[..], &built.info.root_hash, limits).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| compare(&image, &image.root().unwrap(), &built.source()));
        }
    });
}

#[test]
fn fifos_and_sockets_are_named_and_not_opened() {
    let built = Built::new(|dir| {
        let status = Command::new("mkfifo")
            .arg(dir.join("fifo"))
            .status()
            .unwrap();
        assert!(status.success());
        UnixListener::bind(dir.join("socket")).unwrap();
    });
    let image = built.open();
    assert_eq!(find(&image, "fifo").kind(), FileKind::Fifo);
    assert_eq!(find(&image, "socket").kind(), FileKind::Socket);
    assert_eq!(find(&image, "socket").size(), 0);
}

#[test]
fn site_tables_belong_to_their_file() {
    let dir = TempDir::new().unwrap();
    let source = dir.path().join("tree");
    fs::create_dir(&source).unwrap();
    fs::write(
        source.join("prog"),
        [b"\x7fELF".as_slice(), &[0; 100]].concat(),
    )
    .unwrap();
    fs::write(source.join("short"), b"\x7fELF").unwrap();
    fs::write(source.join("text"), [b'x'; 100]).unwrap();
    let scan = Scan::new(&source).unwrap();
    let elf_files = scan.elf_files().unwrap();
    assert_eq!(elf_files.len(), 1);
    assert_eq!(elf_files[0].path, Path::new("prog"));
    let table = noise(50_000, 3);
    let extras = Extras {
        sites: [(PathBuf::from("prog"), table.clone())].into(),
        tag: Vec::new(),
    };
    let dest = dir.path().join("image.occ");
    let info = write_image(&scan, &dest, &extras, go_on).unwrap();
    let bytes = fs::read(&dest).unwrap();
    let image = Image::open(&bytes[..], &info.root_hash).unwrap();
    assert_eq!(image.sites(&find(&image, "prog")).unwrap(), Some(table));
    assert_eq!(image.sites(&find(&image, "text")).unwrap(), None);
}

#[test]
fn site_tables_of_unknown_files_are_refused() {
    let dir = TempDir::new().unwrap();
    let scan = Scan::new(dir.path()).unwrap();
    let extras = Extras {
        sites: [(PathBuf::from("no"), vec![1])].into(),
        tag: Vec::new(),
    };
    let result = write_image(&scan, &dir.path().join("image.occ"), &extras, go_on);
    assert!(matches!(
        result,
        Err(WriteError::SitesWithoutFile { count: 1 })
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_same_tree_gives_the_same_root_hash() {
    let fill = |dir: &Path| {
        fs::create_dir(dir.join("sub")).unwrap();
        for number in 0..200 {
            let path = dir.join(format!("sub/f{number}"));
            fs::write(&path, noise(number as usize * 300, number)).unwrap();
        }
        set_times(dir);
    };
    let (first, second) = (Built::new(fill), Built::new(fill));
    assert_eq!(first.info, second.info);
    assert_eq!(first.bytes, second.bytes);
}

#[test]
fn an_unchanged_tree_is_up_to_date_and_a_changed_one_is_not() {
    let built = Built::new(|dir| fs::write(dir.join("file"), b"one").unwrap());
    let (source, dest) = (built.source(), built.dest());
    let check = |tag: &[u8]| up_to_date(&Scan::new(&source).unwrap(), &dest, tag);
    assert_eq!(check(b""), Some(built.info.clone()));
    assert_eq!(check(b"another analysis"), None);
    fs::write(source.join("file"), b"two").unwrap();
    assert_eq!(check(b""), None);
}

#[test]
fn a_touched_image_is_not_up_to_date() {
    let built = Built::new(|_| ());
    let bytes = fs::read(built.dest()).unwrap();
    fs::write(built.dest(), &bytes).unwrap();
    assert_eq!(
        up_to_date(&Scan::new(&built.source()).unwrap(), &built.dest(), b""),
        None
    );
}

#[test]
fn a_file_that_changes_after_the_scan_is_an_error_and_the_old_image_stays() {
    let built = Built::new(|dir| fs::write(dir.join("file"), b"one").unwrap());
    let scan = Scan::new(&built.source()).unwrap();
    fs::write(built.source().join("file"), b"longer than before").unwrap();
    let result = write_image(&scan, &built.dest(), &Extras::default(), go_on);
    assert!(matches!(result, Err(WriteError::Changed { .. })));
    assert_eq!(fs::read(built.dest()).unwrap(), built.bytes);
}

#[test]
fn cancelling_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let source = dir.path().join("tree");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), noise(30 << 20, 1)).unwrap();
    let scan = Scan::new(&source).unwrap();
    let stop = |_, _| ControlFlow::Break(());
    let result = write_image(
        &scan,
        &dir.path().join("image.occ"),
        &Extras::default(),
        stop,
    );
    assert!(matches!(result, Err(WriteError::Cancelled)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_trees_come_back(tree in prop::collection::vec(file(), 0..40)) {
        let built = Built::new(|dir| {
            for (path, content) in &tree {
                let path = dir.join(path);
                // A name that is already a directory, or lies below a file, is left out.
                if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.exists() {
                    fs::write(path, content).unwrap();
                }
            }
        });
        built.check();
    }

    #[test]
    fn random_ranges_come_back(ranges in prop::collection::vec((0..400_000u64, 0..100_000usize), 1..20)) {
        let mut content = noise(5 * LEAF_SIZE, 1);
        content.extend(vec![0; 7 * LEAF_SIZE]);
        content.extend(noise(4 * LEAF_SIZE + 77, 2));
        let built = Built::new(|dir| fs::write(dir.join("file"), &content).unwrap());
        let image = built.open();
        let file = find(&image, "file");
        for (offset, size) in ranges {
            let mut buf = vec![0xAA; size];
            let got = image.read_at(&file, offset, &mut buf).unwrap();
            let start = content.len().min(offset as usize);
            let end = content.len().min(start + size);
            prop_assert_eq!(&buf[..got], &content[start..end]);
            prop_assert!(buf[got..].iter().all(|byte| *byte == 0xAA));
        }
    }
}

/// A path of up to three short names, so that they collide, and a content.
fn file() -> impl Strategy<Value = (PathBuf, Vec<u8>)> {
    let name = "[a-c]{1,2}";
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.iter().collect());
    let content = prop_oneof![
        (0..600usize, 0..5u64).prop_map(|(size, seed)| noise(size, seed)),
        (0..80_000usize, 0..5u64).prop_map(|(size, seed)| noise(size, seed)),
        (0..80_000usize).prop_map(|size| vec![0; size]),
    ];
    (path, content)
}

/// A tree, its image and what the writer said.
struct Built {
    dir: TempDir,
    bytes: Vec<u8>,
    info: ImageInfo,
}

impl Built {
    fn new(fill: impl FnOnce(&Path)) -> Built {
        let dir = TempDir::new().unwrap();
        let source = dir.path().join("tree");
        fs::create_dir(&source).unwrap();
        fill(&source);
        let dest = dir.path().join("image.occ");
        let scan = Scan::new(&source).unwrap();
        let info = write_image(&scan, &dest, &Extras::default(), go_on).unwrap();
        Built {
            bytes: fs::read(dest).unwrap(),
            dir,
            info,
        }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("image.occ")
    }

    fn open(&self) -> Image<&[u8]> {
        Image::open(&self.bytes[..], &self.info.root_hash).unwrap()
    }

    fn check(&self) {
        let image = self.open();
        compare(&image, &image.root().unwrap(), &self.source());
        image.verify_all(|_, _| ControlFlow::Continue(())).unwrap();
    }
}

/// Asserts that the inode is what stands at `path`, and so for everything below.
fn compare(image: &Image<&[u8]>, inode: &Inode, path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    assert_eq!(inode.mode(), metadata.mode(), "{path:?}");
    assert_eq!(
        inode.mtime(),
        (metadata.mtime(), metadata.mtime_nsec() as u32),
        "{path:?}"
    );
    assert_eq!((inode.uid(), inode.gid()), (0, 0));
    assert_eq!(u64::from(inode.nlink()), metadata.nlink(), "{path:?}");
    match inode.kind() {
        FileKind::Regular => {
            let mut found = vec![0; inode.size() as usize + 1];
            let size = image.read_at(inode, 0, &mut found).unwrap();
            assert!(found[..size] == fs::read(path).unwrap(), "{path:?}");
        }
        FileKind::Symlink => {
            let target = fs::read_link(path).unwrap();
            assert_eq!(
                image.read_link(inode).unwrap(),
                target.into_os_string().into_vec()
            );
        }
        FileKind::Directory => compare_directory(image, inode, path),
        kind => panic!("{path:?} is a {kind:?}"),
    }
}

fn compare_directory(image: &Image<&[u8]>, dir: &Inode, path: &Path) {
    let mut found = BTreeMap::new();
    image
        .read_dir(dir, 0, |entry| {
            found.insert(entry.name.to_vec(), (entry.ino, entry.kind));
            ControlFlow::Continue(())
        })
        .unwrap();
    let names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(found.len(), names.len(), "{path:?}");
    for name in names {
        let (ino, kind) = found[name.as_bytes()];
        assert_eq!(image.lookup(dir, name.as_bytes()).unwrap(), Some(ino));
        let inode = image.inode(ino).unwrap();
        assert_eq!(inode.kind(), kind);
        compare(image, &inode, &path.join(name));
        if kind == FileKind::Directory {
            assert_eq!(image.parent(&inode).unwrap(), dir.ino());
        }
    }
}

fn find(image: &Image<&[u8]>, path: &str) -> Inode {
    path.split('/').fold(image.root().unwrap(), |dir, name| {
        image
            .inode(image.lookup(&dir, name.as_bytes()).unwrap().unwrap())
            .unwrap()
    })
}

fn go_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Bytes that differ from those of any other seed, and have no zero leaf.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn set_times(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            set_times(&path);
        }
        set_time(&path);
    }
    set_time(dir);
}

fn set_time(path: &Path) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}
