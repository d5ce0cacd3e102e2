//! The encrypted store beside plain files of the same directory's file system, in turn in one run.
//!
//!     cargo bench -p occlum-storage --bench store [-- MEGABYTES FILES [DIRECTORY]]
//!
//! Both write through the page cache of the host and sync at the end, or as said. This measures
//! the store alone: no enclave, no kernel's cache above it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use occlum_storage::store::{FileDisk, Leave, NewInode, Options, ROOT, Seed, Store, Time};

const MIB: usize = 1 << 20;
const FILE: NewInode<'static> = NewInode {
    mode: 0o100644,
    uid: 0,
    gid: 0,
    rdev: 0,
    target: &[],
};
const DIRECTORY: NewInode<'static> = NewInode {
    mode: 0o040755,
    ..FILE
};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    let size = number(0).unwrap_or(256) * MIB;
    let files = number(1).unwrap_or(20_000);
    let place = words.get(2).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(place).expect("temporary directory");
    println!(
        "{:<46} {:>10} {:>10} {:>8}",
        "what", "native", "ours", "ratio"
    );
    bench_data(dir.path(), size);
    bench_files(dir.path(), files);
}

fn row(what: &str, native: f64, ours: f64) {
    println!(
        "{what:<46} {native:>10.1} {ours:>10.1} {:>8.2}",
        ours / native
    );
}

fn per_second(count: f64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    count / start.elapsed().as_secs_f64()
}

fn new_store(path: &Path) -> Store<FileDisk> {
    let disk = FileDisk::create(path).expect("a new file");
    let seed = Seed(core::array::from_fn(|at| at as u8));
    Store::format(disk, &[7; 32], &seed, &Options::default(), Time::default()).expect("format")
}

fn bench_data(dir: &Path, size: usize) {
    let native_path = dir.join("native");
    let native = File::create(&native_path).expect("create");
    let mut store = new_store(&dir.join("store"));
    let ino = store
        .create(ROOT, b"file", &FILE, Time::default())
        .expect("create");
    let data: Vec<u8> = (0..MIB).map(|at| (at * 7) as u8).collect();
    let count = size / MIB;

    let plain = per_second(count as f64, || {
        for at in 0..count {
            native
                .write_all_at(&data, (at * MIB) as u64)
                .expect("write");
        }
        native.sync_data().expect("sync");
    });
    let ours = per_second(count as f64, || {
        for at in 0..count {
            store
                .write_at(ino, (at * MIB) as u64, &data, Time::default())
                .expect("write");
        }
        store.sync().expect("sync");
    });
    row("sequential write of 1 MiB, sync, MiB/s", plain, ours);

    let native = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&native_path)
        .expect("open");
    let mut buf = vec![0; MIB];
    let plain = per_second(count as f64, || {
        for at in 0..count {
            native
                .read_exact_at(&mut buf, (at * MIB) as u64)
                .expect("read");
        }
    });
    let ours = per_second(count as f64, || {
        for at in 0..count {
            store
                .read_at(ino, (at * MIB) as u64, &mut buf)
                .expect("read");
        }
    });
    row("sequential read of 1 MiB, MiB/s", plain, ours);
    bench_random(&native, &mut store, ino, (size / 4096) as u64);
}

fn bench_random(native: &File, store: &mut Store<FileDisk>, ino: u64, blocks: u64) {
    let mut buf = vec![3; 4096];
    let reads = 50_000;
    let mut random = Random(1);
    let plain = per_second(f64::from(reads), || {
        for _ in 0..reads {
            native
                .read_exact_at(&mut buf, random.below(blocks) * 4096)
                .expect("read");
        }
    });
    let ours = per_second(f64::from(reads), || {
        for _ in 0..reads {
            store
                .read_at(ino, random.below(blocks) * 4096, &mut buf)
                .expect("read");
        }
    });
    row("random read of 4 KiB, 1/s", plain, ours);
    for (writes, every) in [(50_000, u32::MAX), (20_000, 32), (500, 1)] {
        let plain = per_second(f64::from(writes), || {
            for nth in 1..=writes {
                native
                    .write_all_at(&buf, random.below(blocks) * 4096)
                    .expect("write");
                if nth % every == 0 {
                    native.sync_data().expect("sync");
                }
            }
            native.sync_data().expect("sync");
        });
        let ours = per_second(f64::from(writes), || {
            for nth in 1..=writes {
                let offset = random.below(blocks) * 4096;
                store
                    .write_at(ino, offset, &buf, Time::default())
                    .expect("write");
                if nth % every == 0 {
                    store.sync().expect("sync");
                }
            }
            store.sync().expect("sync");
        });
        let when = match every {
            u32::MAX => "sync at the end".to_string(),
            every => format!("sync every {every}"),
        };
        row(&format!("random write of 4 KiB, {when}, 1/s"), plain, ours);
    }
}

fn bench_files(dir: &Path, count: usize) {
    let native = dir.join("files");
    fs::create_dir(&native).expect("mkdir");
    let mut store = new_store(&dir.join("store2"));
    let inside = store
        .create(ROOT, b"files", &DIRECTORY, Time::default())
        .expect("mkdir");
    let data = [9; 1024];
    let number = count as f64;
    let name = |at: usize| format!("file-{at}");

    let plain = per_second(number, || {
        for at in 0..count {
            fs::write(native.join(name(at)), data).expect("write");
        }
    });
    let ours = per_second(number, || {
        for at in 0..count {
            let name = name(at);
            let ino = store
                .create(inside, name.as_bytes(), &FILE, Time::default())
                .expect("create");
            store
                .write_at(ino, 0, &data, Time::default())
                .expect("write");
        }
    });
    row("create files of 1 KiB, 1/s", plain, ours);
    let plain = per_second(1.0, || {
        File::open(dir).expect("open").sync_all().expect("sync")
    });
    let ours = per_second(1.0, || store.sync().expect("sync"));
    row("sync them, 1/s", plain, ours);
    let plain = per_second(number, || {
        for at in 0..count {
            fs::metadata(native.join(name(at))).expect("stat");
        }
    });
    let ours = per_second(number, || {
        for at in 0..count {
            let entry = store.lookup(inside, name(at).as_bytes()).expect("lookup");
            store.stat(entry.expect("it is there").ino).expect("stat");
        }
    });
    row("stat them, 1/s", plain, ours);
    let plain = per_second(number, || {
        for at in 0..count {
            fs::remove_file(native.join(name(at))).expect("unlink");
        }
    });
    let ours = per_second(number, || {
        for at in 0..count {
            let name = name(at);
            let gone = store
                .unlink(inside, name.as_bytes(), Leave::Nothing, Time::default())
                .expect("unlink");
            store.release(gone.ino).expect("release");
        }
    });
    row("unlink them, 1/s", plain, ours);
}
