//! A process in numbers: /proc/PID/stat, statm and status. A zombie has no thread left to ask.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

use occlum_enclave::vcpu;

use crate::error::Result;
use crate::fs::pty::pair;
use crate::mm::SpaceUsage;
use crate::process::credentials::Ids;
use crate::process::thread::Name;
use crate::process::{Process, Resource, Thread, usage};
use crate::signal::action::{SIG_DFL, SIG_IGN};
use crate::signal::{SigSet, Signal};
use crate::vfs::special::makedev;

/// `comm` without its padding.
pub fn name_of(name: &Name) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

fn state_of(process: &Process, thread: Option<&Thread>) -> (char, &'static str) {
    let Some(thread) = thread else { return ('Z', "zombie") };
    if process.signals().lock().stop.is_some() {
        ('T', "stopped")
    } else if thread.is_sleeping() {
        ('S', "sleeping")
    } else {
        ('R', "running")
    }
}

/// Device number and foreground group of the controlling terminal.
fn terminal(process: &Process) -> (u64, i64) {
    const PTS_MAJOR: u32 = 136;
    match pair::of_session(process.sid()) {
        Some(pair) => (makedev(PTS_MAJOR, pair.index), pair.with(|state| i64::from(state.ownership.foreground))),
        None => (0, -1),
    }
}

/// Ignored and caught signals.
fn dispositions(process: &Process) -> (SigSet, SigSet) {
    let actions = process.signals().dispositions();
    let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
    for signal in (1..=i32::from(Signal::MAX)).filter_map(Signal::new) {
        match actions.get(signal).handler {
            SIG_DFL => {}
            SIG_IGN => ignored.insert(signal),
            _ => caught.insert(signal),
        }
    }
    (ignored, caught)
}

/// Priority as the kernel shows it, nice value, real-time priority, policy.
fn priorities(thread: Option<&Thread>) -> (i64, i64, u64, u64) {
    let Some(thread) = thread else { return (20, 0, 0, 0) };
    let nice = i64::from(thread.nice.load(Ordering::Relaxed));
    let packed = thread.policy.load(Ordering::Relaxed);
    let (policy, real_time) = (packed & 0xff, packed >> 32);
    let shown = if real_time > 0 { -1 - real_time as i64 } else { 20 + nice };
    (shown, nice, real_time, policy)
}

/// /proc/PID/stat: 52 fields, proc_pid_stat(5).
pub fn stat(process: &Process, thread: Option<&Thread>) -> Result<Vec<u8>> {
    let space = thread.map_or_else(SpaceUsage::default, |thread| thread.space().usage());
    let (used, children) = (process.usage(), process.children_usage());
    let program = process.program();
    let (terminal, foreground) = terminal(process);
    let (priority, nice, real_time, policy) = priorities(thread);
    let (ignored, caught) = dispositions(process);
    let classic = |set: SigSet| set.0 & 0x7fff_ffff;
    let pending = process.signals().lock().pending.set();
    let blocked = thread.map_or(SigSet::EMPTY, |thread| thread.signals().blocked());
    let id = thread.map_or(process.pid(), |thread| thread.tid());
    let ticks = usage::ns_to_ticks;
    let mut text = format!("{id} ({}) {}", name_of(&process_name(process, thread)), state_of(process, thread).0);
    let _ = write!(
        text,
        " {} {} {} {terminal} {foreground} 4194304 {} {} {} {} {} {} {} {} {priority} {nice} {} 0 {} {} {} {}",
        process.ppid(),
        process.pgid(),
        process.sid(),
        used.minor_faults,
        children.minor_faults,
        used.major_faults,
        children.major_faults,
        ticks(used.user_ns()),
        ticks(used.system_ns),
        ticks(children.user_ns()),
        ticks(children.system_ns),
        process.thread_count(),
        ticks(process.start_ns()),
        space.mapped,
        space.resident / 4096,
        process.limit(Resource::RSS).soft,
    );
    let _ = write!(
        text,
        " 1 1 {} 0 0 {} {} {} {} 0 0 0 {} {} {real_time} {policy} 0 0 0 0 0 0 {} {} {} {} 0",
        program.stack,
        classic(pending),
        classic(blocked),
        classic(ignored),
        classic(caught),
        process.exit_signal(),
        thread.map_or(0, |thread| thread.last_vcpu()),
        program.args.0,
        program.args.1,
        program.env.0,
        program.env.1,
    );
    text.push('\n');
    Ok(text.into_bytes())
}

fn process_name(process: &Process, thread: Option<&Thread>) -> Name {
    thread.map_or_else(|| process.name(), |thread| thread.name())
}

pub fn statm(thread: &Thread) -> Result<Vec<u8>> {
    let space = thread.space().usage();
    let pages = |bytes: usize| bytes / 4096;
    let (mapped, resident) = (pages(space.mapped), pages(space.resident));
    let (code, data) = (pages(space.text), pages(space.data + space.stack));
    Ok(format!("{mapped} {resident} 0 {code} 0 {data} 0\n").into_bytes())
}

pub fn status(process: &Process, thread: Option<&Thread>) -> Result<Vec<u8>> {
    let (letter, word) = state_of(process, thread);
    let mut text = String::new();
    let id = thread.map_or(process.pid(), |thread| thread.tid());
    let _ = writeln!(text, "Name:\t{}", name_of(&process_name(process, thread)));
    if let Some(thread) = thread {
        let _ = writeln!(text, "Umask:\t{:04o}", thread.fs().umask());
    }
    let _ = writeln!(
        text,
        "State:\t{letter} ({word})\nTgid:\t{}\nNgid:\t0\nPid:\t{id}\nPPid:\t{}\nTracerPid:\t0",
        process.pid(),
        process.ppid()
    );
    append_ids(&mut text, process, thread, id);
    if let Some(thread) = thread {
        append_memory(&mut text, thread);
    }
    append_signals(&mut text, process, thread);
    if let Some(thread) = thread {
        append_rights(&mut text, thread);
    }
    let used = thread.map_or_else(|| process.usage(), |thread| thread.usage());
    let _ = writeln!(
        text,
        "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}",
        used.switches.saturating_sub(used.preemptions),
        used.preemptions
    );
    Ok(text.into_bytes())
}

fn append_ids(text: &mut String, process: &Process, thread: Option<&Thread>, id: u32) {
    let shown = |ids: Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.fs);
    let (user, group, groups, slots) = match thread {
        None => (Ids::all(process.real_uid()), Ids::all(0), String::new(), 0),
        Some(thread) => {
            let who = thread.credentials();
            let groups = who.groups.iter().map(|group| format!("{group} ")).collect();
            (who.user, who.group, groups, thread.files().capacity())
        }
    };
    let _ = writeln!(
        text,
        "Uid:\t{}\nGid:\t{}\nFDSize:\t{slots}\nGroups:\t{groups} \nNStgid:\t{}\nNSpid:\t{id}\n\
         NSpgid:\t{}\nNSsid:\t{}\nKthread:\t0",
        shown(user),
        shown(group),
        process.pid(),
        process.pgid(),
        process.sid()
    );
}

fn append_memory(text: &mut String, thread: &Thread) {
    let space = thread.space().usage();
    let rows = [
        ("VmPeak", space.mapped),
        ("VmSize", space.mapped),
        ("VmLck", space.locked),
        ("VmPin", 0),
        ("VmHWM", space.resident),
        ("VmRSS", space.resident),
        ("RssAnon", space.resident),
        ("RssFile", 0),
        ("RssShmem", 0),
        ("VmData", space.data),
        ("VmStk", space.stack),
        ("VmExe", space.text),
        ("VmLib", 0),
        ("VmPTE", 0),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ];
    for (name, bytes) in rows {
        let _ = writeln!(text, "{name}:\t{:>8} kB", bytes / 1024);
    }
    let huge = u32::from(!thread.process().no_huge_pages.load(Ordering::Relaxed));
    let _ = writeln!(text, "CoreDumping:\t0\nTHP_enabled:\t{huge}");
}

fn append_signals(text: &mut String, process: &Process, thread: Option<&Thread>) {
    let (ignored, caught) = dispositions(process);
    let (shared, queued) = {
        let shared = process.signals().lock();
        (shared.pending.set(), shared.pending.len())
    };
    let (own, blocked) = thread.map_or((SigSet::EMPTY, SigSet::EMPTY), |thread| {
        (thread.signals().private.lock().set(), thread.signals().blocked())
    });
    let limit = process.limit(Resource::SIGPENDING).soft;
    let _ = writeln!(text, "Threads:\t{}\nSigQ:\t{queued}/{limit}", process.thread_count());
    for (name, set) in
        [("SigPnd", own), ("ShdPnd", shared), ("SigBlk", blocked), ("SigIgn", ignored), ("SigCgt", caught)]
    {
        let _ = writeln!(text, "{name}:\t{:016x}", set.0);
    }
}

fn append_rights(text: &mut String, thread: &Thread) {
    let who = thread.credentials();
    for (name, set) in [
        ("CapInh", who.inheritable),
        ("CapPrm", who.permitted),
        ("CapEff", who.effective),
        ("CapBnd", who.bounding),
        ("CapAmb", who.ambient),
    ] {
        let _ = writeln!(text, "{name}:\t{set:016x}");
    }
    let all = if vcpu::count() >= 64 { u64::MAX } else { (1 << vcpu::count()) - 1 };
    let allowed = thread.affinity.load(Ordering::Relaxed) & all;
    let _ = writeln!(
        text,
        "NoNewPrivs:\t{}\nSeccomp:\t0\nSeccomp_filters:\t0\nCpus_allowed:\t{allowed:x}\n\
         Cpus_allowed_list:\t{}\nMems_allowed:\t1\nMems_allowed_list:\t0",
        u32::from(thread.no_new_privs.load(Ordering::Relaxed)),
        list(allowed)
    );
}

/// Bits as ranges: "0-3,6".
pub fn list(bits: u64) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < 64 {
        if bits >> at & 1 == 0 {
            at += 1;
            continue;
        }
        let run = (bits >> at).trailing_ones();
        let comma = if text.is_empty() { "" } else { "," };
        let _ = match run {
            1 => write!(text, "{comma}{at}"),
            _ => write!(text, "{comma}{at}-{}", at + run - 1),
        };
        at += run;
    }
    text
}
