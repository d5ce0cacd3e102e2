//! Records of a file-system image with any bytes changed under right hashes: what a broken writer,
//! or an attacker who chose the root hash, may leave. The input is a list of (offset 2, byte 1)
//! patches.
#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use occlum_storage::image::writer::{Extras, Scan, seal, write_image};
use occlum_storage::image::{Image, Ino, Inode, LEAF_SIZE};

const SUPERBLOCK_SIZE: usize = 4096;

fuzz_target!(|patches: &[u8]| {
    let base = base();
    let mut space = base.space.clone();
    for patch in patches.chunks_exact(3) {
        let offset = usize::from(patch[0]) | usize::from(patch[1]) << 8;
        let end = space.len();
        space[base.records + offset % (end - base.records)] = patch[2];
    }
    let (bytes, root_hash) = seal(&space, base.inode_table, base.inode_count);
    let image = Image::open(&bytes[..], &root_hash).expect("the superblock is right");
    for ino in 1..=base.inode_count {
        if let Ok(inode) = image.inode(Ino(ino)) {
            touch(&image, &inode);
        }
    }
});

/// A small image of every kind of file, to be changed.
struct Base {
    space: Vec<u8>,
    /// Where in `space` the leaf with all records starts.
    records: usize,
    inode_table: u64,
    inode_count: u32,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("fuzz-image-{}", std::process::id()));
        let base = build(&dir);
        fs::remove_dir_all(&dir).expect("it is ours");
        base
    })
}

fn build(dir: &Path) -> Base {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("sub")).expect("temporary directory");
    let shared = vec![1; LEAF_SIZE];
    let other = vec![2; LEAF_SIZE];
    let many_extents = [&shared[..], &other, &shared, &other, &shared, b"end"].concat();
    for (name, content) in [("many", &many_extents[..]), ("file", b"text"), ("sub/f", b"more")] {
        fs::write(tree.join(name), content).expect("temporary file");
    }
    std::os::unix::fs::symlink("file", tree.join("link")).expect("temporary link");
    let scan = Scan::new(&tree).expect("the tree is there");
    let extras = Extras { sites: [("file".into(), vec![7; 300])].into(), tag: Vec::new() };
    let dest = dir.join("image");
    write_image(&scan, &dest, &extras, |_, _| ControlFlow::Continue(())).expect("it can be written");
    let bytes = fs::read(&dest).expect("it was written");
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let leaf_count = number(16) as usize;
    Base {
        space: bytes[SUPERBLOCK_SIZE..SUPERBLOCK_SIZE + leaf_count * LEAF_SIZE].to_vec(),
        records: (leaf_count - 1) * LEAF_SIZE,
        inode_table: number(24),
        inode_count: number(32) as u32,
    }
}

/// Asks everything; only that it ends, in bounds, matters.
fn touch(image: &Image<&[u8]>, inode: &Inode) {
    let mut buf = vec![0; 3 * LEAF_SIZE];
    for offset in [0, LEAF_SIZE as u64 - 1, inode.size().saturating_sub(5), u64::MAX - 1] {
        drop(image.read_at(inode, offset, &mut buf));
    }
    drop(image.lookup(inode, b"file"));
    drop(image.parent(inode));
    drop(image.read_dir(inode, 0, |_| ControlFlow::Continue(())));
    drop(image.read_link(inode));
    drop(image.sites(inode));
}
