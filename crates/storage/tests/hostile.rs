//! A source that lies, and images whose checked bytes break the rules: an error with a name, never
//! other data than the writer's and never a panic.

use std::cell::Cell;
use std::fs;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use occlum_storage::image::writer::{Extras, Scan, seal, write_image};
use occlum_storage::image::{
    CacheLimits, Hash, Image, ImageError, ImageSource, Ino, Inode, LEAF_SIZE, SourceError,
};
use proptest::prelude::*;
use tempfile::TempDir;

const SUPERBLOCK_SIZE: usize = 4096;
const NODE_SIZE: usize = 4096;

#[test]
fn every_single_bit_flip_is_detected() {
    let (mut bytes, root_hash) = small_image();
    for index in 0..bytes.len() {
        for bit in 0..8 {
            bytes[index] ^= 1 << bit;
            let verdict = verify(&bytes, &root_hash);
            assert_eq!(
                verdict,
                Err(expected_error(index, bytes.len())),
                "byte {index} bit {bit}"
            );
            bytes[index] ^= 1 << bit;
        }
    }
    assert_eq!(verify(&bytes, &root_hash), Ok(()));
}

#[test]
fn every_other_length_is_refused() {
    let (bytes, root_hash) = small_image();
    for size in [0, 1, 4095, 4096, bytes.len() - 4096, bytes.len() - 1] {
        assert!(verify(&bytes[..size], &root_hash).is_err(), "{size}");
    }
    let longer = [&bytes[..], &[0]].concat();
    let expected = bytes.len() as u64;
    assert_eq!(
        verify(&longer, &root_hash),
        Err(ImageError::WrongSize {
            expected,
            found: expected + 1
        })
    );
}

#[test]
fn swapped_leaves_are_detected() {
    let (mut bytes, root_hash) = small_image();
    let (first, second) = bytes[SUPERBLOCK_SIZE..].split_at_mut(LEAF_SIZE);
    first.swap_with_slice(&mut second[..LEAF_SIZE]);
    assert_eq!(
        verify(&bytes, &root_hash),
        Err(ImageError::LeafHash { index: 0 })
    );
}

#[test]
fn another_root_hash_is_refused() {
    let (bytes, mut root_hash) = small_image();
    root_hash[31] ^= 1;
    assert_eq!(verify(&bytes, &root_hash), Err(ImageError::SuperblockHash));
}

#[test]
fn opening_reads_the_superblock_and_one_node() {
    let (bytes, root_hash) = small_image();
    let source = Counting {
        bytes: &bytes,
        reads: Cell::new(0),
    };
    let image = Image::open(&source, &root_hash).unwrap();
    assert_eq!(source.reads.get(), 2);
    image.root().unwrap();
    assert_eq!(source.reads.get(), 3);
    image.root().unwrap();
    assert_eq!(source.reads.get(), 3);
}

#[test]
fn a_source_that_changes_its_mind_is_caught_when_it_is_asked_again() {
    let (bytes, root_hash) = small_image();
    let source = Fickle {
        bytes: &bytes,
        is_honest: Cell::new(true),
    };
    let limits = CacheLimits {
        nodes: 8,
        leaves: 1,
    };
    let image = Image::open_with(&source, &root_hash, limits).unwrap();
    let file = image.inode(Ino(2)).unwrap();
    let mut buf = [0; 10];
    image.read_at(&file, 0, &mut buf).unwrap();
    source.is_honest.set(false);
    // The one cached leaf is the file's; the inode's has to be read again.
    assert!(image.read_at(&file, 0, &mut buf).is_ok());
    assert!(matches!(
        image.inode(Ino(2)),
        Err(ImageError::LeafHash { .. })
    ));
}

#[test]
fn refused_bytes_do_not_stay_in_the_callers_buffer() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/file"), vec![0x5A; LEAF_SIZE]).unwrap();
    let (mut bytes, root_hash) = build(&dir);
    bytes[SUPERBLOCK_SIZE + 5] ^= 1;
    let image = Image::open(&bytes[..], &root_hash).unwrap();
    let file = image.inode(Ino(2)).unwrap();
    let mut buf = vec![1; LEAF_SIZE];
    assert_eq!(
        image.read_at(&file, 0, &mut buf),
        Err(ImageError::LeafHash { index: 0 })
    );
    assert!(buf.iter().all(|byte| *byte == 0));
}

#[test]
fn a_source_that_fails_is_an_error() {
    let (bytes, root_hash) = small_image();
    let source = Failing {
        bytes: &bytes,
        reads_left: Cell::new(2),
    };
    let image = Image::open(&source, &root_hash).unwrap();
    assert_eq!(image.root().unwrap_err(), ImageError::Source);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Hashes right, content wild: as a broken writer would leave it.
    #[test]
    fn broken_records_never_panic(
        patches in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let (bytes, _) = small_image();
        let leaf_count = leaf_count(bytes.len());
        let mut space = bytes[SUPERBLOCK_SIZE..][..leaf_count * LEAF_SIZE].to_vec();
        // All records of this image stand in the used part of its last leaf.
        let start = (leaf_count - 1) * LEAF_SIZE;
        let table = u64::from_le_bytes(bytes[24..32].try_into().unwrap());
        let count = u32::from_le_bytes(bytes[32..36].try_into().unwrap());
        let end = table as usize + 128 * count as usize;
        for (at, value) in patches {
            space[start + at.index(end - start)] = value;
        }
        let (sealed, root_hash) = seal(&space, table, count);
        let image = Image::open(&sealed[..], &root_hash).unwrap();
        touch_everything(&image, count);
    }

    #[test]
    fn any_superblock_is_read_or_refused(table in any::<u64>(), count in any::<u32>()) {
        let (sealed, root_hash) = seal(&vec![0x11; LEAF_SIZE], table, count);
        if let Ok(image) = Image::open(&sealed[..], &root_hash) {
            prop_assert!(image.root().is_err());
        }
    }
}

/// Asks everything of every inode; what comes back does not matter.
fn touch_everything(image: &Image<&[u8]>, count: u32) {
    for ino in 1..=count {
        if let Ok(inode) = image.inode(Ino(ino)) {
            touch(image, &inode);
        }
    }
}

fn touch(image: &Image<&[u8]>, inode: &Inode) {
    let mut buf = vec![0; 3 * LEAF_SIZE];
    for offset in [
        0,
        1,
        LEAF_SIZE as u64,
        inode.size().saturating_sub(5),
        u64::MAX - 1,
    ] {
        drop(image.read_at(inode, offset, &mut buf));
    }
    drop(image.lookup(inode, b"sub"));
    drop(image.lookup(inode, b"no such name"));
    drop(image.parent(inode));
    drop(image.read_dir(inode, 0, |_| ControlFlow::Continue(())));
    drop(image.read_link(inode));
    drop(image.sites(inode));
}

fn verify(bytes: &[u8], root_hash: &Hash) -> Result<(), ImageError> {
    Image::open(bytes, root_hash)?.verify_all(|_, _| ControlFlow::Continue(()))
}

/// The error that names the block in which byte `index` stands.
fn expected_error(index: usize, size: usize) -> ImageError {
    let leaves_end = SUPERBLOCK_SIZE + leaf_count(size) * LEAF_SIZE;
    if index < SUPERBLOCK_SIZE {
        ImageError::SuperblockHash
    } else if index < leaves_end {
        ImageError::LeafHash {
            index: ((index - SUPERBLOCK_SIZE) / LEAF_SIZE) as u64,
        }
    } else {
        ImageError::NodeHash { level: 0, index: 0 }
    }
}

/// Of an image with a single tree node.
fn leaf_count(size: usize) -> usize {
    (size - SUPERBLOCK_SIZE - NODE_SIZE) / LEAF_SIZE
}

/// Two leaves: one of contents, one of records. Has a directory, a link, a hole and site tables.
fn small_image() -> (Vec<u8>, Hash) {
    static IMAGE: OnceLock<(Vec<u8>, Hash)> = OnceLock::new();
    IMAGE.get_or_init(build_small_image).clone()
}

fn build_small_image() -> (Vec<u8>, Hash) {
    let dir = TempDir::new().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("file"), b"some content").unwrap();
    fs::write(tree.join("sub/other"), b"other content").unwrap();
    std::os::unix::fs::symlink("file", tree.join("link")).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(100_000).unwrap();
    build(&dir)
}

fn build(dir: &TempDir) -> (Vec<u8>, Hash) {
    let scan = Scan::new(&dir.path().join("tree")).unwrap();
    let dest = dir.path().join("image.occ");
    let extras = Extras {
        sites: [("file".into(), vec![7; 100])].into(),
        tag: Vec::new(),
    };
    let go_on = |_, _| ControlFlow::Continue(());
    let info = write_image(&scan, &dest, &extras, go_on).unwrap();
    (fs::read(dest).unwrap(), info.root_hash)
}

struct Counting<'a> {
    bytes: &'a [u8],
    reads: Cell<u32>,
}

impl ImageSource for Counting<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.reads.set(self.reads.get() + 1);
        self.bytes.read_at(offset, buf)
    }

    fn size(&self) -> u64 {
        self.bytes.size()
    }
}

/// Flips a bit of each answer once it is not honest any more.
struct Fickle<'a> {
    bytes: &'a [u8],
    is_honest: Cell<bool>,
}

impl ImageSource for Fickle<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.bytes.read_at(offset, buf)?;
        if !self.is_honest.get() {
            buf[0] ^= 1;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.bytes.size()
    }
}

struct Failing<'a> {
    bytes: &'a [u8],
    reads_left: Cell<u32>,
}

impl ImageSource for Failing<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let left = self.reads_left.get().checked_sub(1).ok_or(SourceError)?;
        self.reads_left.set(left);
        self.bytes.read_at(offset, buf)
    }

    fn size(&self) -> u64 {
        self.bytes.size()
    }
}
