//! Power cuts: after one at any write the store is what it was at the last sync, or later.

use super::disk::MemoryDisk;
use super::model::{Model, Random, step};
use super::{KEY, format, open, options, seed, verify};
use occlum_storage::store::{Store, StoreError};

/// `STORE_CRASHES` says how many; a few seconds' worth if not said.
fn rounds() -> u64 {
    let said = std::env::var("STORE_CRASHES").ok();
    said.and_then(|count| count.parse().ok()).unwrap_or(200)
}

/// Random work on a disk that stops at some write. Gives the disk, and the states that may be found.
fn work_until_it_stops(
    mut store: Store<MemoryDisk>,
    mut model: Model,
    random: &mut Random,
) -> (MemoryDisk, Vec<Model>) {
    let mut allowed = vec![model.clone()];
    store.disk().stop_after(random.below(60));
    for tick in 0.. {
        if random.below(6) == 0 {
            match store.sync() {
                Ok(()) => allowed = vec![model.clone()],
                Err(StoreError::Disk | StoreError::Failed) => break,
                Err(error) => panic!("{error}"),
            }
        }
        match step(&mut store, &mut model, random, tick) {
            Ok(()) => allowed.push(model.clone()),
            Err(StoreError::Disk | StoreError::Failed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    (store.into_disk(), allowed)
}

#[test]
fn a_cut_leaves_the_last_sync_or_a_later_state() {
    for round in 1..=rounds() {
        let mut random = Random(round * 0x9e37_79b9);
        let mut store = format(&mut random);
        let mut model = Model::new();
        for cut in 0..3 {
            let (disk, allowed) = work_until_it_stops(store, model, &mut random);
            let bytes = disk.cut(&mut |bound| random.below(bound));
            store = open(bytes, &mut random);
            model = Model::of(&mut store).unwrap();
            assert!(
                allowed.contains(&model),
                "round {round}, cut {cut}: none of {} states",
                allowed.len()
            );
            verify(&mut store);
            if random.below(2) == 0 {
                store.reclaim().unwrap();
                verify(&mut store);
            }
        }
    }
}

#[test]
fn a_sync_that_returned_survives_every_cut_after_it() {
    let mut random = Random(7);
    let mut store = format(&mut random);
    let mut model = Model::new();
    for tick in 0..60 {
        step(&mut store, &mut model, &mut random, tick).unwrap();
    }
    store.sync().unwrap();
    for _ in 0..20 {
        let bytes = store.disk().cut(&mut |bound| random.below(bound));
        assert_eq!(Model::of(&mut open(bytes, &mut random)).unwrap(), model);
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    let mut random = Random(3);
    let mut store = format(&mut random);
    let mut model = Model::new();
    step(&mut store, &mut model, &mut random, 1).unwrap();
    store.disk().stop_after(0);
    while step(&mut store, &mut model, &mut random, 2).is_ok() && store.sync().is_ok() {}
    assert_eq!(store.sync(), Err(StoreError::Failed));
    assert_eq!(store.checkpoint(), Err(StoreError::Failed));
}

#[test]
fn opening_writes_nothing() {
    let mut random = Random(11);
    let (disk, _) = {
        let store = format(&mut random);
        work_until_it_stops(store, Model::new(), &mut random)
    };
    let bytes = disk.cut(&mut |bound| random.below(bound));
    let disk = MemoryDisk::with(bytes.clone());
    disk.stop_after(0);
    let mut store = Store::open(&disk, &KEY, &seed(&mut random), &options()).unwrap();
    Model::of(&mut store).unwrap();
    assert!(disk.bytes() == bytes);
}
