//! A disk that lies: every changed bit, every old or misplaced block is noticed when it is used.

use super::disk::{Flipped, MemoryDisk};
use super::model::{Model, Random, now, step};
use super::{KEY, format, open, options, seed};
use occlum_storage::store::{
    BLOCK, Disk, NewInode, Options, Pin, ROOT, Store, StoreError, XattrMode,
};

/// A small store with a bit of everything: its bytes at two syncs, and what it held then and at
/// first.
fn two_states() -> ([Vec<u8>; 2], [Model; 3]) {
    let mut random = Random(21);
    let mut store = format(&mut random);
    let file = NewInode {
        mode: 0o100644,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: &[],
    };
    let link = NewInode {
        mode: 0o120777,
        target: b"target",
        ..file
    };
    let ino = store.create(ROOT, b"file", &file, now(1)).unwrap();
    store.write_at(ino, 0, &[1; 9000], now(1)).unwrap();
    store.create(ROOT, b"link", &link, now(1)).unwrap();
    store
        .set_xattr(ino, b"user.x", b"value", XattrMode::Any, now(1))
        .unwrap();
    store.checkpoint().unwrap();
    let first = (store.disk().bytes(), Model::of(&mut store).unwrap());
    store.write_at(ino, 100, &[2; 5000], now(2)).unwrap();
    store.sync().unwrap();
    let second = (store.disk().bytes(), Model::of(&mut store).unwrap());
    let states = [Model::new(), first.1, second.1];
    ([first.0, second.0], states)
}

/// Opens and reads everything. What comes must be one of the states (without a pin an older one
/// is as good), or an error.
fn judge(disk: impl Disk, states: &[Model]) -> Result<(), StoreError> {
    let mut random = Random(1);
    let mut store = Store::open(disk, &KEY, &seed(&mut random), &options())?;
    let found = Model::of(&mut store)?;
    assert!(states.contains(&found), "wrong data");
    store.verify(|_, _| std::ops::ControlFlow::Continue(()))
}

#[test]
fn no_flipped_bit_gives_wrong_data() {
    let ([_, bytes], states) = two_states();
    let is_thorough = std::env::var_os("STORE_EACH_BIT").is_some();
    let mut noticed = 0;
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        // Unused blocks are all alike: a few bits there.
        let step = if block.iter().all(|byte| *byte == 0) {
            997
        } else {
            1
        };
        for place in (0..BLOCK * 8).step_by(step) {
            let flipped = Flipped {
                bytes: &bytes,
                at: number * BLOCK + place / 8,
                bit: place % 8,
            };
            noticed += usize::from(judge(flipped, &states).is_err());
        }
    }
    assert!(noticed > 4096, "{noticed} flips were noticed");
}

#[test]
fn no_block_can_stand_for_another() {
    let ([_, bytes], states) = two_states();
    let count = bytes.len() / BLOCK;
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
        let mut changed = bytes.clone();
        changed.copy_within(from * BLOCK..(from + 1) * BLOCK, to * BLOCK);
        // The two superblocks and log records may fall back to an earlier state, never to another.
        if let Err(error) = judge(MemoryDisk::with(changed), &states) {
            assert!(error.is_about_the_store(), "{error}");
        }
    }
}

#[test]
fn an_old_block_is_not_a_new_one() {
    let mut random = Random(33);
    let mut store = format(&mut random);
    let mut model = Model::new();
    let mut states = vec![model.clone()];
    let mut disks = Vec::new();
    for tick in 0..120 {
        step(&mut store, &mut model, &mut random, tick).unwrap();
        states.push(model.clone());
        if tick % 10 == 9 {
            store.sync().unwrap();
            disks.push(store.disk().bytes());
        }
    }
    let last = disks.last().unwrap();
    for old in &disks {
        for block in 0..last.len().min(old.len()) / BLOCK {
            let range = block * BLOCK..(block + 1) * BLOCK;
            if random.below(4) != 0 || last[range.clone()] == old[range.clone()] {
                continue;
            }
            let mut changed = last.clone();
            changed[range.clone()].copy_from_slice(&old[range]);
            if let Err(error) = judge(MemoryDisk::with(changed), &states) {
                assert!(error.is_about_the_store(), "{error}");
            }
        }
    }
}

#[test]
fn a_truncated_store_is_refused() {
    let ([_, bytes], states) = two_states();
    for size in (0..bytes.len()).step_by(1000) {
        // Zeros that were written ahead are not the store's yet.
        let is_harmless = bytes[size..].iter().all(|byte| *byte == 0);
        let found = judge(MemoryDisk::with(bytes[..size].to_vec()), &states);
        let all = bytes.len();
        assert!(found.is_err() || is_harmless, "{size} of {all} bytes");
    }
    assert_eq!(judge(MemoryDisk::with(bytes), &states), Ok(()));
}

#[test]
fn a_pin_refuses_what_is_older() {
    let ([first, second], _) = two_states();
    let mut random = Random(2);
    let pins = [&first, &second].map(|bytes| open(bytes.clone(), &mut random).pin());
    let mut open_pinned = |bytes: &Vec<u8>, pin: Pin| {
        let options = Options {
            pin: Some(pin),
            ..options()
        };
        let disk = MemoryDisk::with(bytes.clone());
        Store::open(disk, &KEY, &seed(&mut random), &options).map(drop)
    };
    assert_eq!(open_pinned(&first, pins[0]), Ok(()));
    assert_eq!(open_pinned(&second, pins[0]), Ok(()));
    assert_eq!(open_pinned(&second, pins[1]), Ok(()));
    let rolled_back = StoreError::RolledBack {
        pinned: pins[1].seq,
        found: pins[0].seq,
    };
    assert_eq!(open_pinned(&first, pins[1]), Err(rolled_back));
    let fork = Pin {
        tag: [0; 16],
        ..pins[1]
    };
    assert!(matches!(
        open_pinned(&second, fork),
        Err(StoreError::RolledBack { .. })
    ));
    let other = format(&mut Random(77)).pin();
    assert_eq!(open_pinned(&second, other), Err(StoreError::OtherStore));
    assert_eq!(pins[1].to_string().parse(), Ok(pins[1]));
}

#[test]
fn a_wrong_key_a_foreign_file_and_a_used_file_are_refused_by_name() {
    let ([_, bytes], _) = two_states();
    let mut random = Random(4);
    let wrong = Store::open(
        MemoryDisk::with(bytes.clone()),
        &[0; 32],
        &seed(&mut random),
        &options(),
    );
    assert_eq!(wrong.map(drop), Err(StoreError::WrongKey));
    for size in [1, 4096, 1 << 20] {
        let disk = MemoryDisk::with(vec![0; size]);
        let foreign = Store::open(&disk, &KEY, &seed(&mut random), &options());
        assert_eq!(foreign.map(drop), Err(StoreError::NotAStore));
        let time = now(1);
        let again = Store::format(&disk, &KEY, &seed(&mut random), &options(), time);
        assert_eq!(again.map(drop), Err(StoreError::NotEmptyDisk));
        assert_eq!(disk.bytes(), vec![0; size]);
    }
    let mut newer = bytes;
    newer[8] = 2;
    newer[BLOCK + 8] = 2;
    let newer = Store::open(
        MemoryDisk::with(newer),
        &KEY,
        &seed(&mut random),
        &options(),
    );
    assert_eq!(newer.map(drop), Err(StoreError::UnsupportedVersion(2)));
}
