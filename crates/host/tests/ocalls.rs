//! Every call is served as `occlum_abi::ocall` says, and no argument makes the host fail.

mod probe;

use occlum_abi::boot::LogLevel;
use occlum_abi::ocall::{HostEvent, HostStat, Ocall};
use occlum_host::args::Run;
use occlum_host::cpu::Registers;
use occlum_host::instance::Instance;
use occlum_host::memory::Mapping;
use occlum_host::ocall::{self, time};
use probe::USER_PAGE;
use rustix::io::Errno;
use rustix::time::ClockId;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

const STAGING_SIZE: u64 = 1 << 20;
const POLLIN: u64 = 1;
const POLLOUT: u64 = 4;
const NO_DIRECTORY: u64 = u64::MAX;
const NEVER: u64 = u64::MAX;

/// One vCPU's view of the instance that all tests share, in turn.
struct Kernel {
    instance: Arc<Instance>,
    vcpu: usize,
    staging: u64,
}

fn turn() -> (MutexGuard<'static, ()>, Kernel) {
    static TURN: Mutex<()> = Mutex::new(());
    static INSTANCE: OnceLock<Arc<Instance>> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let instance = INSTANCE.get_or_init(|| {
        let enclave = probe::enclave();
        let run = Run {
            build_dir: PathBuf::new(),
            log_level: LogLevel::Off,
            program: "/bin/true".into(),
            arguments: Vec::new(),
            service: None,
            observation: Default::default(),
            trace: None,
            profile: None,
        };
        let image = Mapping::anonymous(4096).unwrap();
        Arc::new(Instance::new(enclave, image, run, time::Clock::start()).unwrap())
    });
    (turn, Kernel::on(instance.clone(), 0))
}

impl Kernel {
    fn on(instance: Arc<Instance>, vcpu: usize) -> Kernel {
        let staging = instance.host_info().staging + vcpu as u64 * STAGING_SIZE;
        Kernel {
            instance,
            vcpu,
            staging,
        }
    }

    fn other(&self) -> Kernel {
        Kernel::on(self.instance.clone(), 1)
    }

    fn raw(&self, number: u64, args: &[u64]) -> (i64, u64) {
        let arg = |at: usize| args.get(at).copied().unwrap_or(0);
        let out = Registers {
            rdi: number,
            rsi: arg(0),
            rdx: arg(1),
            r8: arg(2),
            r9: arg(3),
            r10: arg(4),
        };
        let entered = ocall::serve(&self.instance, self.vcpu, &out);
        (entered.rdi.cast_signed(), entered.rsi)
    }

    fn call(&self, ocall: Ocall, args: &[u64]) -> Result<u64, Errno> {
        let (value, _) = self.raw(ocall as u64, args);
        u64::try_from(value).map_err(|_| Errno::from_raw_os_error(-value as i32))
    }

    fn put(&self, bytes: &[u8]) -> [u64; 2] {
        // SAFETY: this vCPU's buffer, which nothing uses between calls.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.staging as *mut u8, bytes.len())
        };
        [self.staging, bytes.len() as u64]
    }

    fn get(&self, offset: u64, size: usize) -> Vec<u8> {
        // SAFETY: as in `put`.
        unsafe { std::slice::from_raw_parts((self.staging + offset) as *const u8, size).to_vec() }
    }

    fn events(&self, count: u64) -> Vec<(u64, u64)> {
        let bytes = self.get(0, count as usize * size_of::<HostEvent>());
        let (events, _) = bytes.as_chunks::<8>();
        let number = |bytes: &[u8]| u64::from(u32::from_ne_bytes(bytes.try_into().unwrap()));
        events
            .iter()
            .map(|event| (number(&event[..4]), number(&event[4..])))
            .collect()
    }

    fn path_call(
        &self,
        ocall: Ocall,
        directory: u64,
        path: &str,
        rest: &[u64],
    ) -> Result<u64, Errno> {
        let [address, len] = self.put(path.as_bytes());
        let mut args = vec![directory, address, len];
        args.extend(rest);
        self.call(ocall, &args)
    }

    fn open(&self, directory: u64, path: &str, flags: i32) -> Result<u64, Errno> {
        self.path_call(Ocall::Open, directory, path, &[flags as u64, 0o644])
    }
}

/// A new directory, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("occlum-host-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn fifo(&self) -> String {
        let path = self.0.join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        path.to_str().unwrap().into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn nonsense_is_an_errno() {
    let (_turn, kernel) = turn();
    for number in [15, 19, 59, 1 << 40, u64::MAX] {
        assert_eq!(kernel.raw(number, &[]), (-i64::from(libc::ENOSYS), 0));
    }
    let bad_pointers = [
        (0, 8),
        (kernel.staging - 1, 8),
        (kernel.staging, STAGING_SIZE + 1),
        (kernel.staging, u64::MAX),
        (u64::MAX, 2),
    ];
    for (address, len) in bad_pointers {
        assert_eq!(
            kernel.call(Ocall::Random, &[address, len]),
            Err(Errno::FAULT)
        );
        assert_eq!(
            kernel.call(Ocall::Open, &[NO_DIRECTORY, address, len]),
            Err(Errno::FAULT)
        );
        assert_eq!(
            kernel.call(Ocall::Log, &[1, address, len]),
            Err(Errno::FAULT)
        );
    }
    assert_eq!(
        kernel.call(Ocall::Random, &[kernel.staging + STAGING_SIZE, 8]),
        Err(Errno::FAULT),
        "another vCPU's"
    );
    for vcpu in [kernel.instance.vcpus as u64, u64::MAX] {
        assert_eq!(kernel.call(Ocall::Wake, &[vcpu]), Err(Errno::INVAL));
        assert_eq!(kernel.call(Ocall::Kick, &[vcpu]), Err(Errno::INVAL));
    }
    for fd in [3, 77, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(
            kernel.call(Ocall::Read, &[fd, kernel.staging, 1]),
            Err(Errno::BADF)
        );
        assert_eq!(kernel.call(Ocall::Close, &[fd]), Err(Errno::BADF));
        assert_eq!(
            kernel.call(Ocall::EventAdd, &[fd, POLLIN]),
            Err(Errno::BADF)
        );
    }
    assert_eq!(
        kernel.call(Ocall::Ioctl, &[0, 0x5412, kernel.staging, 100]),
        Err(Errno::NOTTY),
        "TIOCSTI"
    );
    assert_eq!(
        kernel.call(Ocall::Log, &[6, kernel.staging, 0]),
        Err(Errno::INVAL)
    );
}

#[test]
fn memory_calls_keep_to_the_enclave() {
    let (_turn, kernel) = turn();
    for (address, size, protection) in [
        (0, 4096, 1),
        (0x10_0000, 0, 1),
        (0x10_0001, 4096, 1),
        (0x10_0000, 100, 1),
        (0x10_0000, 4096, 8),
        (1 << 45, 4096, 1),
        ((1 << 45) - 4096, 8192, 1),
        (!4095, 8192, 1),
    ] {
        assert_eq!(
            kernel.call(Ocall::Protect, &[address, size, protection]),
            Err(Errno::INVAL),
            "{address:#x}"
        );
    }
    assert_eq!(
        kernel.call(Ocall::Release, &[1 << 46, 4096]),
        Err(Errno::INVAL)
    );
}

#[test]
fn pages_come_zeroed_and_go() {
    const AT: u64 = 0x2000_0000;
    const SIZE: u64 = 4 << 20;
    const POPULATE: u64 = 1 << 8;
    let (_turn, kernel) = turn();
    let byte = AT as *mut u8;
    for protection in [3, 3 | POPULATE] {
        assert_eq!(kernel.call(Ocall::Protect, &[AT, SIZE, protection]), Ok(0));
        // SAFETY: user memory of the probe, just made writable; nobody else uses it.
        unsafe {
            assert_eq!(byte.read_volatile(), 0);
            byte.write_volatile(1);
        }
        assert_eq!(kernel.call(Ocall::Protect, &[AT, SIZE, 0]), Ok(0));
        assert_eq!(kernel.call(Ocall::Protect, &[AT, SIZE, 3]), Ok(0));
        // SAFETY: as above.
        let kept = unsafe { byte.read_volatile() };
        assert_eq!(kept, 1, "PROT_NONE keeps the content");
        assert_eq!(kernel.call(Ocall::Discard, &[AT, SIZE, 3]), Ok(0));
        // SAFETY: as above.
        unsafe {
            assert_eq!(byte.read_volatile(), 0);
            byte.write_volatile(2);
        }
        assert_eq!(kernel.call(Ocall::Release, &[AT, SIZE]), Ok(0));
    }
}

#[test]
fn installed_pages_have_the_content_of_their_source() {
    const AT: u64 = 0x3000_0000;
    const READ_EXECUTE: u64 = 5;
    let (_turn, kernel) = turn();
    let source = occlum_abi::layout::KERNEL_BASE as u64;
    assert_eq!(
        kernel.call(Ocall::Install, &[AT, 4096, READ_EXECUTE, source]),
        Ok(0)
    );
    // SAFETY: a page of the probe, just made readable; nobody changes it.
    let page = unsafe { std::slice::from_raw_parts(AT as *const u8, 4096) };
    assert!(page.starts_with(probe::code()));
    assert_eq!(kernel.call(Ocall::Release, &[AT, 4096]), Ok(0));
    for bad in [0, USER_PAGE as u64, 1 << 45, !4095] {
        let refused = kernel.call(Ocall::Install, &[AT, 4096, READ_EXECUTE, bad]);
        assert_eq!(refused, Err(Errno::INVAL), "{bad:#x}");
    }
}

#[test]
fn a_wake_up_before_parking_is_kept() {
    let (_turn, kernel) = turn();
    assert_eq!(kernel.call(Ocall::Wake, &[0]), Ok(0));
    assert_eq!(kernel.call(Ocall::Park, &[NEVER]), Ok(0));
}

#[test]
fn parking_ends_at_the_deadline() {
    let (_turn, kernel) = turn();
    let deadline = time::now_ns(ClockId::Monotonic) + 5_000_000;
    assert_eq!(kernel.call(Ocall::Park, &[deadline]), Ok(0));
    assert!(time::now_ns(ClockId::Monotonic) >= deadline);
    assert_eq!(
        kernel.call(Ocall::Park, &[0]),
        Ok(0),
        "a deadline in the past"
    );
}

#[test]
fn another_vcpu_wakes_a_parked_one() {
    let (_turn, kernel) = turn();
    let other = kernel.other();
    let parked = std::thread::spawn(move || other.call(Ocall::Park, &[NEVER]));
    while kernel
        .instance
        .shared()
        .parked
        .load(std::sync::atomic::Ordering::SeqCst)
        != 2
    {
        std::thread::yield_now();
    }
    assert_eq!(kernel.call(Ocall::Wake, &[1]), Ok(0));
    assert_eq!(parked.join().unwrap(), Ok(0));
    assert_eq!(
        kernel
            .instance
            .shared()
            .parked
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );
}

#[test]
fn a_watched_descriptor_gives_one_event() {
    let (_turn, kernel) = turn();
    let scratch = Scratch::new("events");
    let fd = kernel
        .open(NO_DIRECTORY, &scratch.fifo(), libc::O_RDWR)
        .unwrap();
    assert_eq!(kernel.call(Ocall::EventAdd, &[fd, POLLIN]), Ok(0));
    assert_eq!(kernel.call(Ocall::PollEvents, &[]), Ok(0));
    let [address, len] = kernel.put(b"hello");
    assert_eq!(kernel.call(Ocall::Write, &[fd, address, len]), Ok(5));
    assert_eq!(kernel.call(Ocall::Park, &[NEVER]), Ok(1));
    assert_eq!(kernel.events(1), [(fd, POLLIN)]);
    assert_eq!(kernel.call(Ocall::PollEvents, &[]), Ok(0), "one-shot");
    assert_eq!(kernel.call(Ocall::EventAdd, &[fd, POLLIN | POLLOUT]), Ok(0));
    assert_eq!(kernel.call(Ocall::PollEvents, &[]), Ok(1));
    assert_eq!(kernel.events(1), [(fd, POLLIN | POLLOUT)]);
    assert_eq!(kernel.call(Ocall::EventAdd, &[fd, POLLIN]), Ok(0));
    assert_eq!(kernel.call(Ocall::EventRemove, &[fd]), Ok(0));
    assert_eq!(kernel.call(Ocall::PollEvents, &[]), Ok(0));
    assert_eq!(kernel.call(Ocall::Close, &[fd]), Ok(0));
}

#[test]
fn a_regular_file_is_always_ready() {
    let (_turn, kernel) = turn();
    let scratch = Scratch::new("ready");
    let path = scratch.path().join("file");
    let fd = kernel
        .open(
            NO_DIRECTORY,
            path.to_str().unwrap(),
            libc::O_RDWR | libc::O_CREAT,
        )
        .unwrap();
    assert_eq!(kernel.call(Ocall::EventAdd, &[fd, POLLIN]), Ok(0));
    assert_eq!(kernel.call(Ocall::Park, &[NEVER]), Ok(1));
    assert_eq!(kernel.events(1), [(fd, POLLIN)]);
    assert_eq!(kernel.call(Ocall::PollEvents, &[]), Ok(0));
    assert_eq!(kernel.call(Ocall::Close, &[fd]), Ok(0));
}

#[test]
fn whoever_stays_parked_polls() {
    let (_turn, kernel) = turn();
    let scratch = Scratch::new("roles");
    let fd = kernel
        .open(NO_DIRECTORY, &scratch.fifo(), libc::O_RDWR)
        .unwrap();
    let other = kernel.other();
    let parked = std::thread::spawn(move || {
        loop {
            let count = other.call(Ocall::Park, &[NEVER]).unwrap();
            if count > 0 {
                return other.events(count);
            }
        }
    });
    while kernel
        .instance
        .shared()
        .parked
        .load(std::sync::atomic::Ordering::SeqCst)
        != 2
    {
        std::thread::yield_now();
    }
    // The other parked when nothing was watched; this one polls once and goes.
    assert_eq!(kernel.call(Ocall::EventAdd, &[fd, POLLIN]), Ok(0));
    assert_eq!(
        kernel.call(Ocall::Park, &[time::now_ns(ClockId::Monotonic) + 1_000_000]),
        Ok(0)
    );
    let [address, len] = kernel.put(b"x");
    assert_eq!(kernel.call(Ocall::Write, &[fd, address, len]), Ok(1));
    assert_eq!(parked.join().unwrap(), [(fd, POLLIN)]);
    assert_eq!(kernel.call(Ocall::Close, &[fd]), Ok(0));
}

#[test]
fn wake_ups_leave_nothing_behind() {
    const WAKES: usize = 20_000;
    let (_turn, kernel) = turn();
    let scratch = Scratch::new("wakes");
    let fd = kernel
        .open(NO_DIRECTORY, &scratch.fifo(), libc::O_RDWR)
        .unwrap();
    assert_eq!(kernel.call(Ocall::EventAdd, &[fd, POLLIN]), Ok(0));
    let other = kernel.other();
    let waker = std::thread::spawn(move || {
        for _ in 0..WAKES {
            assert_eq!(other.call(Ocall::Wake, &[0]), Ok(0));
        }
    });
    while !waker.is_finished() {
        let deadline = time::now_ns(ClockId::Monotonic) + 1_000_000;
        assert_eq!(kernel.call(Ocall::Park, &[deadline]), Ok(0));
    }
    waker.join().unwrap();
    let deadline = time::now_ns(ClockId::Monotonic) + 10_000_000;
    let mut early = 0;
    while time::now_ns(ClockId::Monotonic) < deadline {
        assert_eq!(kernel.call(Ocall::Park, &[deadline]), Ok(0));
        early += 1;
    }
    assert!(early <= 3, "parking returned {early} times");
    assert_eq!(kernel.call(Ocall::Close, &[fd]), Ok(0));
}

#[test]
fn reading_and_writing_do_not_block() {
    let (_turn, kernel) = turn();
    let scratch = Scratch::new("nonblocking");
    let fd = kernel
        .open(NO_DIRECTORY, &scratch.fifo(), libc::O_RDWR)
        .unwrap();
    assert_eq!(
        kernel.call(Ocall::Read, &[fd, kernel.staging, 10]),
        Err(Errno::AGAIN)
    );
    let mut written = 0;
    loop {
        match kernel.call(Ocall::Write, &[fd, kernel.staging, 50_000]) {
            Ok(taken) => written += taken,
            Err(errno) => break assert_eq!(errno, Errno::AGAIN),
        }
    }
    assert!(written >= 50_000);
    assert_eq!(
        kernel.call(Ocall::Read, &[fd, kernel.staging, 100_000]),
        Ok(written)
    );
    assert_eq!(kernel.call(Ocall::Close, &[fd]), Ok(0));
}

#[test]
fn the_ticker_wakes_who_can_help() {
    let (_turn, kernel) = turn();
    let shared = kernel.instance.shared();
    let other = kernel.other();
    assert_eq!(
        shared
            .ticker_asleep
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
    let parked = std::thread::spawn(move || other.call(Ocall::Park, &[NEVER]));
    shared.want_tick[0].store(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(kernel.call(Ocall::StartTicker, &[]), Ok(0));
    assert_eq!(parked.join().unwrap(), Ok(0));
    shared.want_tick[0].store(0, std::sync::atomic::Ordering::SeqCst);
    while shared
        .ticker_asleep
        .load(std::sync::atomic::Ordering::SeqCst)
        == 0
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn no_path_leads_out_of_its_directory() {
    let (_turn, kernel) = turn();
    let scratch = Scratch::new("beneath");
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("inner")).unwrap();
    fs::write(scratch.path().join("secret"), "secret").unwrap();
    symlink("../secret", root.join("up")).unwrap();
    symlink(scratch.path(), root.join("absolute")).unwrap();
    let directory = kernel
        .open(NO_DIRECTORY, root.to_str().unwrap(), libc::O_DIRECTORY)
        .unwrap();
    for path in [
        "../secret",
        "inner/../../secret",
        "/etc/passwd",
        "up",
        "absolute/secret",
        "absolute/new",
        "..",
    ] {
        let flags = libc::O_RDWR | libc::O_CREAT;
        assert!(kernel.open(directory, path, flags).is_err(), "{path}");
    }
    for path in [
        "../secret",
        "absolute/secret",
        "inner/../../secret",
        "..",
        "inner/..",
        "",
    ] {
        assert!(
            kernel
                .path_call(Ocall::Unlink, directory, path, &[0])
                .is_err(),
            "{path}"
        );
        assert!(
            kernel
                .path_call(Ocall::Mkdir, directory, path, &[0o700])
                .is_err(),
            "{path}"
        );
        assert!(
            kernel
                .path_call(Ocall::Chmod, directory, "up", &[0])
                .is_err(),
            "{path}"
        );
        assert!(
            kernel
                .path_call(Ocall::Rename, directory, &format!("inner\0{path}"), &[0])
                .is_err(),
            "{path}"
        );
        assert!(
            kernel
                .path_call(Ocall::Link, directory, &format!("{path}\0new"), &[])
                .is_err(),
            "{path}"
        );
    }
    assert_eq!(
        fs::read_to_string(scratch.path().join("secret")).unwrap(),
        "secret"
    );
    assert_eq!(kernel.call(Ocall::Close, &[directory]), Ok(0));
}

#[test]
fn files_are_made_changed_and_listed() {
    let (_turn, kernel) = turn();
    let scratch = Scratch::new("files");
    let directory = kernel
        .open(
            NO_DIRECTORY,
            scratch.path().to_str().unwrap(),
            libc::O_DIRECTORY,
        )
        .unwrap();
    assert_eq!(
        kernel.path_call(Ocall::Mkdir, directory, "d", &[0o750]),
        Ok(0)
    );
    let file = kernel
        .open(
            directory,
            "d/a",
            libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        )
        .unwrap();
    let [address, len] = kernel.put(b"content");
    assert_eq!(kernel.call(Ocall::WriteAt, &[file, 3, address, len]), Ok(7));
    assert_eq!(
        kernel.call(Ocall::ReadAt, &[file, 3, kernel.staging, 100]),
        Ok(7)
    );
    assert_eq!(kernel.get(0, 7), b"content");
    assert_eq!(kernel.call(Ocall::Truncate, &[file, 5]), Ok(0));
    assert_eq!(kernel.call(Ocall::Sync, &[file, 1]), Ok(0));
    assert_eq!(kernel.call(Ocall::StatFs, &[file, kernel.staging]), Ok(0));
    assert_eq!(kernel.call(Ocall::Fstat, &[file, kernel.staging]), Ok(0));
    // SAFETY: plain numbers, just written.
    let stat = unsafe { (kernel.staging as *const HostStat).read() };
    assert_eq!((stat.size, stat.mode & 0o7777, stat.nlink), (5, 0o644, 1));
    assert_eq!(kernel.call(Ocall::Close, &[file]), Ok(0));

    assert_eq!(
        kernel.path_call(Ocall::Chmod, directory, "d/a", &[0o600]),
        Ok(0)
    );
    assert_eq!(
        fs::metadata(scratch.path().join("d/a"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o600
    );
    assert_eq!(
        kernel.path_call(Ocall::Symlink, directory, "target\0d/link", &[]),
        Ok(0)
    );
    let out = kernel.staging + 4096;
    assert_eq!(
        kernel.path_call(Ocall::ReadLink, directory, "d/link", &[out, 3]),
        Ok(3)
    );
    assert_eq!(kernel.get(4096, 3), b"tar");
    assert_eq!(
        kernel.path_call(Ocall::Stat, directory, "d/link", &[out]),
        Ok(0)
    );
    assert_eq!(
        kernel.path_call(Ocall::Link, directory, "d/a\0d/b", &[]),
        Ok(0)
    );
    assert_eq!(
        kernel.path_call(Ocall::Rename, directory, "d/b\0d/c", &[1]),
        Ok(0)
    );
    assert_eq!(
        kernel.path_call(Ocall::Rename, directory, "d/a\0d/c", &[1]),
        Err(Errno::EXIST),
        "RENAME_NOREPLACE"
    );
    assert_eq!(
        names(&kernel, directory, "d"),
        [".", "..", "a", "c", "link"]
    );
    assert_eq!(
        kernel.path_call(Ocall::Unlink, directory, "d", &[0]),
        Err(Errno::ISDIR)
    );
    for name in ["d/a", "d/c", "d/link"] {
        assert_eq!(
            kernel.path_call(Ocall::Unlink, directory, name, &[0]),
            Ok(0)
        );
    }
    assert_eq!(
        kernel.path_call(Ocall::Unlink, directory, "d", &[0x200]),
        Ok(0)
    );
    assert_eq!(kernel.call(Ocall::Close, &[directory]), Ok(0));
}

/// Lists with a buffer for about one entry at a time, by cookies.
fn names(kernel: &Kernel, directory: u64, path: &str) -> Vec<String> {
    let fd = kernel.open(directory, path, libc::O_DIRECTORY).unwrap();
    let mut names = Vec::new();
    let mut cookie = 0;
    loop {
        let (size, next) = kernel.raw(Ocall::ReadDir as u64, &[fd, kernel.staging, 48, cookie]);
        if size == 0 {
            break;
        }
        let mut entries = &kernel.get(0, usize::try_from(size).unwrap())[..];
        while !entries.is_empty() {
            let len = usize::from(u16::from_ne_bytes([entries[16], entries[17]]));
            let name = entries[19..len].split(|byte| *byte == 0).next().unwrap();
            names.push(String::from_utf8_lossy(name).into_owned());
            entries = &entries[len..];
        }
        cookie = next;
    }
    assert_eq!(kernel.call(Ocall::Close, &[fd]), Ok(0));
    names.sort();
    names
}

#[test]
fn times_can_be_set_one_by_one() {
    const UTIME_OMIT: i64 = 0x3FFF_FFFE;
    let (_turn, kernel) = turn();
    let scratch = Scratch::new("times");
    fs::write(scratch.path().join("f"), "").unwrap();
    let directory = kernel
        .open(
            NO_DIRECTORY,
            scratch.path().to_str().unwrap(),
            libc::O_DIRECTORY,
        )
        .unwrap();
    let times: Vec<u8> = [0, UTIME_OMIT, 1_000_000_000, 5]
        .iter()
        .flat_map(|value: &i64| value.to_ne_bytes())
        .collect();
    let at = kernel.staging + 4096;
    // SAFETY: this vCPU's buffer.
    unsafe { std::ptr::copy_nonoverlapping(times.as_ptr(), at as *mut u8, times.len()) };
    assert_eq!(
        kernel.path_call(Ocall::Utimes, directory, "f", &[at]),
        Ok(0)
    );
    let modified = fs::metadata(scratch.path().join("f"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(
        modified.duration_since(std::time::UNIX_EPOCH).unwrap(),
        Duration::new(1_000_000_000, 5)
    );
    assert_eq!(kernel.call(Ocall::Close, &[directory]), Ok(0));
}
