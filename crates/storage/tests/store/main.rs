//! The encrypted store against a model: on a good disk, across power cuts, when it is full.

mod crash;
mod disk;
mod full;
mod liar;
mod model;

use disk::MemoryDisk;
use model::{Model, Random, step};
use occlum_storage::store::{KEY_SIZE, Limits, Options, Seed, Store, Time};

const KEY: [u8; KEY_SIZE] = [0x42; KEY_SIZE];

fn options() -> Options {
    Options {
        max_size: 64 << 20,
        limits: Limits {
            cached_nodes: 40,
            dirty_nodes: 30,
        },
        ..Options::default()
    }
}

fn seed(random: &mut Random) -> Seed {
    Seed(core::array::from_fn(|_| random.below(256) as u8))
}

fn format(random: &mut Random) -> Store<MemoryDisk> {
    let seed = seed(random);
    Store::format(
        MemoryDisk::default(),
        &KEY,
        &seed,
        &options(),
        Time::default(),
    )
    .unwrap()
}

fn open(bytes: Vec<u8>, random: &mut Random) -> Store<MemoryDisk> {
    Store::open(MemoryDisk::with(bytes), &KEY, &seed(random), &options()).unwrap()
}

fn verify(store: &mut Store<MemoryDisk>) {
    store
        .verify(|_, _| std::ops::ControlFlow::Continue(()))
        .unwrap();
}

#[test]
fn does_what_the_model_does() {
    for round in 1..=20 {
        let mut random = Random(round);
        let mut store = format(&mut random);
        let mut model = Model::new();
        for tick in 0..400 {
            step(&mut store, &mut model, &mut random, tick).unwrap();
            if random.below(20) == 0 {
                store.sync().unwrap();
            }
        }
        assert_eq!(Model::of(&mut store).unwrap(), model);
        verify(&mut store);
        store.sync().unwrap();
        let mut again = open(store.into_disk().bytes(), &mut random);
        assert_eq!(Model::of(&mut again).unwrap(), model);
        again.reclaim().unwrap();
        verify(&mut again);
        assert_eq!(Model::of(&mut again).unwrap(), model);
    }
}
