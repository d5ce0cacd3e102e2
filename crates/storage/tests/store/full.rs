//! When space is short: an error, a healthy store, and removing works.

use super::disk::MemoryDisk;
use super::model::now;
use super::{KEY, open, options, seed, verify};
use crate::model::Random;
use occlum_storage::store::{Leave, NewInode, Options, ROOT, Store, StoreError, Time};

const FILE: NewInode<'static> = NewInode {
    mode: 0o100644,
    uid: 0,
    gid: 0,
    rdev: 0,
    target: &[],
};

fn small(random: &mut Random) -> Store<MemoryDisk> {
    let options = Options {
        max_size: 4 << 20,
        ..options()
    };
    let seed = seed(random);
    Store::format(
        MemoryDisk::default(),
        &KEY,
        &seed,
        &options,
        Time::default(),
    )
    .unwrap()
}

#[test]
fn a_full_store_says_so_and_recovers() {
    let mut random = Random(5);
    let mut store = small(&mut random);
    for round in 0..5 {
        let mut count = 0;
        let last = loop {
            let name = format!("{count}");
            let made = store.create(ROOT, name.as_bytes(), &FILE, now(1));
            let done = made.and_then(|ino| store.write_at(ino, 0, &[7; 10_000], now(1)));
            match done {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
            if round % 2 == 0 {
                store.sync().unwrap();
            }
        };
        assert_eq!(last, StoreError::NoSpace);
        assert!(count > 200, "{count} files only");
        store.sync().unwrap();
        verify(&mut store);
        for number in 0..=count {
            match store.unlink(ROOT, format!("{number}").as_bytes(), Leave::Nothing, now(2)) {
                Ok(removed) => store.release(removed.ino).unwrap(),
                Err(error) => assert_eq!((error, number), (StoreError::NotFound, count)),
            }
        }
        store.sync().unwrap();
        verify(&mut store);
    }
    store.checkpoint().unwrap();
    let size = store.disk().bytes().len();
    assert!(size < 2 << 20, "an empty store has {size} bytes");
    verify(&mut open(store.into_disk().bytes(), &mut random));
}

#[test]
fn one_file_written_over_and_over_needs_its_space_once() {
    let mut random = Random(6);
    let mut store = small(&mut random);
    let ino = store.create(ROOT, b"file", &FILE, now(1)).unwrap();
    for round in 0..200 {
        let offset = random.below(500) * 4096;
        store
            .write_at(ino, offset, &[round as u8; 4096], now(1))
            .unwrap();
        if round % 3 == 0 {
            store.sync().unwrap();
        }
    }
    store.set_size(ino, 0, now(2)).unwrap();
    store.sync().unwrap();
    store.checkpoint().unwrap();
    verify(&mut store);
    assert!(store.disk().bytes().len() < 2 << 20);
}

#[test]
fn a_file_may_be_larger_than_its_store() {
    let mut random = Random(8);
    let mut store = small(&mut random);
    let ino = store.create(ROOT, b"sparse", &FILE, now(1)).unwrap();
    let far = 5 << 40;
    store.write_at(ino, far, b"end", now(1)).unwrap();
    store.write_at(ino, 0, b"start", now(1)).unwrap();
    store.sync().unwrap();
    let mut store = open(store.into_disk().bytes(), &mut random);
    let stat = store.stat(ino).unwrap();
    assert_eq!((stat.size, stat.blocks), (far + 3, 2));
    let mut buf = [1; 8];
    assert_eq!(store.read_at(ino, far - 2, &mut buf), Ok(5));
    assert_eq!(&buf[..5], b"\0\0end");
    assert_eq!(store.seek_data(ino, 4096), Ok(Some(far)));
    assert_eq!(store.seek_hole(ino, 0), Ok(Some(4096)));
    assert_eq!(store.seek_hole(ino, far), Ok(Some(far + 3)));
    assert_eq!(store.seek_hole(ino, far + 3), Ok(None));
}
