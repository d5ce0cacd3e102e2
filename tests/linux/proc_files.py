# /proc as programs read it: fields and lines that must be there, and what they say of processes in
# known states.
import ctypes
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

libc = ctypes.CDLL(None, use_errno=True)


def read(path):
    with open(path) as file:
        return file.read()


def status(pid="self"):
    return dict(line.split(":", 1) for line in read(f"/proc/{pid}/status").splitlines())


def stat(pid="self"):
    text = read(f"/proc/{pid}/stat")
    head, rest = text.rsplit(") ", 1)
    return [*head.split(" (", 1), *rest.split()]


def fdinfo(fd):
    return dict(
        line.split(":", 1) for line in read(f"/proc/self/fdinfo/{fd}").splitlines() if ":" in line
    )


def states():
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    while stat(child)[2] != "S":
        time.sleep(0.001)
    assert stat(child)[3] == str(os.getpid()) and stat(child)[37] == str(signal.SIGCHLD.value)
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    print("stopped", stat(child)[2], status(child)["State"].strip())
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    empty = repr(read(f"/proc/{child}/cmdline"))
    print("zombie", stat(child)[2], status(child)["State"].strip(), empty)
    assert stat(child)[1] == stat()[1] and status(child)["PPid"].strip() == str(os.getpid())
    assert str(child) in read(f"/proc/self/task/{os.getpid()}/children").split()
    os.waitpid(child, 0)
    assert not os.path.exists(f"/proc/{child}")


def fields():
    assert len(stat()) == 52
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)

    def bit(number):
        return 1 << number - 1

    found = status()
    mask = {key: int(found[key], 16) for key in ("ShdPnd", "SigBlk", "SigIgn", "SigCgt")}
    print(
        "signals",
        mask["ShdPnd"] & bit(15) != 0,
        mask["SigBlk"] & bit(15) != 0,
        mask["SigIgn"] & bit(12) != 0,
        mask["SigCgt"] & bit(10) != 0,
    )
    assert signal.sigwait([signal.SIGTERM]) == signal.SIGTERM
    wanted = (
        "Name Umask State Tgid Ngid Pid PPid TracerPid Uid Gid FDSize Groups VmPeak VmSize VmLck "
    )
    wanted += (
        "VmHWM VmRSS RssAnon VmData VmStk VmExe VmLib VmPTE VmSwap Threads SigQ SigPnd ShdPnd "
    )
    wanted += (
        "SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Cpus_allowed "
    )
    wanted += (
        "Cpus_allowed_list Mems_allowed_list voluntary_ctxt_switches nonvoluntary_ctxt_switches "
    )
    wanted += "NSpid NStgid"
    print("status lacks", [key for key in wanted.split() if key not in found])
    os.sched_setaffinity(0, [0])
    print("affinity", status()["Cpus_allowed_list"].strip())
    libc.prctl(38, 1, 0, 0, 0)
    print("privileges", status()["NoNewPrivs"].strip())
    before = stat()
    os.nice(3)
    print("nice", [int(stat()[field]) - int(before[field]) for field in (17, 18)])


def descriptors():
    epoll = select.epoll()
    readable, _ = os.pipe()
    epoll.register(readable, select.EPOLLIN)
    event, timer = libc.eventfd(5, 0), libc.timerfd_create(1, 0)
    signals = libc.signalfd(-1, (ctypes.c_ulong * 16)(0x200), 0)
    print(
        "eventfd", fdinfo(event)["eventfd-count"].strip(), "clock", fdinfo(timer)["clockid"].strip()
    )
    print("signalfd", fdinfo(signals)["sigmask"].strip())
    line = fdinfo(epoll.fileno())["tfd"].split()
    print("epoll", int(line[0]) == readable, line[1:3])
    assert fdinfo(os.pidfd_open(os.getpid()))["Pid"].strip() == str(os.getpid())
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100)
        file.flush()
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 20)
        locks = [line.split() for line in read("/proc/locks").splitlines()]
        mine = [line for line in locks if line[4] == str(os.getpid())]
        print(
            "pos",
            fdinfo(file.fileno())["pos"].strip(),
            "lock",
            [line[1:4] + line[6:] for line in mine],
        )


def memory():
    maps = read("/proc/self/maps").splitlines()
    pattern = re.compile(
        r"^[0-9a-f]+-[0-9a-f]+ [r-][w-][x-][sp] [0-9a-f]{8,} [0-9a-f]+:[0-9a-f]+ \d+ *\S*"
    )
    assert all(pattern.match(line) for line in maps)
    names = ("[heap]", "[stack]", "[vdso]", "[vvar]")
    print("named", [name for name in names if any(name in line for line in maps)])
    smaps = read("/proc/self/smaps")
    keys = set(re.findall(r"^(\w+):", smaps, re.M))
    wanted = (
        "Size Rss Pss Shared_Clean Shared_Dirty Private_Clean Private_Dirty Referenced Anonymous "
    )
    wanted += "Swap Locked VmFlags"
    print("smaps lacks", [key for key in wanted.split() if key not in keys])
    total = sum(int(size) for size in re.findall(r"^Rss: +(\d+) kB", smaps, re.M))
    rollup = read("/proc/self/smaps_rollup")
    assert "[rollup]" in rollup and abs(int(re.search(r"Rss: +(\d+)", rollup)[1]) - total) < 4096
    assert len(read("/proc/self/statm").split()) == 7


def system():
    lines = read("/proc/stat").splitlines()
    assert lines[0].startswith("cpu  ") and len(lines[0].split()) == 11
    keys = ("ctxt", "btime", "processes", "procs_running")
    print("stat", [key for key in keys if any(line.startswith(key) for line in lines)])
    up, idle = map(float, read("/proc/uptime").split())
    assert up > 0 and idle >= 0
    assert re.match(r"^\d+\.\d\d \d+\.\d\d \d+\.\d\d \d+/\d+ \d+$", read("/proc/loadavg").strip())
    for name in (
        "kernel/hostname",
        "kernel/pid_max",
        "kernel/sem",
        "kernel/shmmax",
        "kernel/msgmnb",
        "kernel/ngroups_max",
        "kernel/threads-max",
        "kernel/random/uuid",
        "kernel/cap_last_cap",
        "kernel/pty/max",
        "vm/overcommit_memory",
        "vm/max_map_count",
        "fs/file-max",
        "fs/nr_open",
        "fs/pipe-max-size",
        "fs/mqueue/msg_max",
        "net/core/somaxconn",
        "kernel/osrelease",
    ):
        assert read(f"/proc/sys/{name}").strip(), name
    for name in (
        "cpuinfo",
        "filesystems",
        "mounts",
        "version",
        "meminfo",
        "devices",
        "swaps",
        "partitions",
        "cgroups",
    ):
        assert read(f"/proc/{name}").strip(), name
    assert re.match(r"^0(-\d+)?$", read("/sys/devices/system/cpu/online").strip())
    print("node", read("/sys/devices/system/node/online").strip())
    print("ids", read("/proc/self/uid_map").split())


def others():
    child = subprocess.Popen(
        [sys.executable, "-c", "input()", "an argument"],
        stdin=subprocess.PIPE,
        env={"WORD": "of the child"},
    )
    while "argument" not in read(f"/proc/{child.pid}/cmdline"):
        time.sleep(0.001)
    has_word = "WORD=of the child" in read(f"/proc/{child.pid}/environ")
    print("cmdline", read(f"/proc/{child.pid}/cmdline").split("\0")[1:], has_word)
    other = os.fork()
    if other == 0:
        os.setgid(12345)
        os.setuid(12345)
        refused = []
        for name in ("environ", "fd", "exe", "maps", "io"):
            try:
                path = f"/proc/{child.pid}/{name}"
                os.readlink(path) if name == "exe" else os.listdir(path) if name == "fd" else read(
                    path
                )
            except PermissionError:
                refused.append(name)
        print("refused", refused, flush=True)
        assert status(child.pid)["Name"]
        os._exit(0)
    assert os.waitpid(other, 0)[1] == 0
    child.communicate(b"\n")


sys.stdout.reconfigure(line_buffering=True)
states()
descriptors()
memory()
system()
others()
fields()
