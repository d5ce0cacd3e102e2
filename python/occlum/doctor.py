"""What this machine offers, and what the absence of each thing means: ``occlum doctor``."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from occlum import toolchain
from occlum.errors import Error

_AT_HWCAP2, _HWCAP2_FSGSBASE = 26, 1 << 1
_PR_SET_SYSCALL_USER_DISPATCH = 59
_MIN_MAP_COUNT = 65530
_MIN_FILES = 1024


class State(StrEnum):
    """``MISSING`` stops every enclave; ``LIMITED`` costs something."""

    GOOD = "good"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One look. ``means`` says what an absence costs, ``remedy`` what to do about it."""

    name: str
    state: State
    found: str
    means: str = ""
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}


def examine() -> list[Finding]:
    """Every finding."""
    return [finding for look in _LOOKS for finding in look()]


def _runtime() -> Iterator[Finding]:
    try:
        found = f"{toolchain.host()}, {toolchain.kernel().name}"
    except Error as problem:
        yield Finding("runtime", State.MISSING, str(problem), "no enclave runs", problem.hint or "")
        return
    yield Finding("runtime", State.GOOD, found)


def _machine() -> Iterator[Finding]:
    machine = platform.machine()
    good = machine == "x86_64"
    yield Finding(
        "machine", State.GOOD if good else State.MISSING, machine,
        "" if good else "SGX, and programs for it, are x86-64 only",
    )  # fmt: skip


def _kernel() -> Iterator[Finding]:
    release = platform.release()
    match = re.match(r"(\d+)\.(\d+)", release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version >= (5, 11):
        yield Finding("kernel", State.GOOD, f"Linux {release}")
    else:
        yield Finding(
            "kernel", State.MISSING, f"Linux {release}",
            "before 5.11 there is neither Syscall User Dispatch nor the SGX driver",
            "a newer kernel",
        )  # fmt: skip


def _dispatch() -> Iterator[Finding]:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.prctl(_PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0)
    if done == 0:
        yield Finding("syscall user dispatch", State.GOOD, "the kernel has it")
        return
    yield Finding(
        "syscall user dispatch", State.MISSING, f"prctl: {os.strerror(ctypes.get_errno())}",
        "in simulation, system calls that are not patched could reach the host",
        "a kernel with CONFIG_GENERIC_ENTRY; containers must allow prctl",
    )  # fmt: skip


def _fsgsbase() -> Iterator[Finding]:
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype = ctypes.c_ulong
    if getauxval(ctypes.c_ulong(_AT_HWCAP2)) & _HWCAP2_FSGSBASE:
        yield Finding("fsgsbase", State.GOOD, "user programs may use it")
        return
    yield Finding(
        "fsgsbase", State.LIMITED, "off",
        "a switch between threads costs a call to the host",
        "Linux 5.9 or newer without nofsgsbase",
    )  # fmt: skip


def _sgx() -> Iterator[Finding]:
    flags = _cpu_flags()
    cpu = "sgx" in flags
    means = "enclaves run on the simulated CPU, which protects nothing from the host"
    yield Finding(
        "sgx cpu", State.GOOD if cpu else State.LIMITED,
        "the CPU has SGX" if cpu else "the CPU has no SGX, or it is off",
        "" if cpu else means, "" if cpu else "a CPU with SGX, switched on in the firmware",
    )  # fmt: skip
    for device, use in (("/dev/sgx_enclave", "makes enclaves"), ("/dev/sgx_provision", "attests")):
        yield _device(
            device, f"nothing {use} on SGX hardware", "the kernel's SGX driver; the group sgx"
        )


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def _aesm() -> Iterator[Finding]:
    path = Path("/var/run/aesmd/aesm.socket")
    try:
        good = stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        good = False
    yield Finding(
        "aesm", State.GOOD if good else State.LIMITED, str(path) if good else "not running",
        "" if good else "no quotes for remote attestation",
        "" if good else "install sgx-aesm-service",
    )  # fmt: skip


def _fuse() -> Iterator[Finding]:
    yield _device("/dev/fuse", "occlum mount does not work", "modprobe fuse; apt install fuse3")


def _device(device: str, means: str, remedy: str) -> Finding:
    path = Path(device)
    if not path.exists():
        return Finding(device, State.LIMITED, "not there", means, remedy)
    if not os.access(path, os.R_OK | os.W_OK):
        return Finding(device, State.LIMITED, "no permission", means, remedy)
    return Finding(device, State.GOOD, "there")


def _limits() -> Iterator[Finding]:
    yield _number(
        "vm.max_map_count", _sysctl("vm/max_map_count"), _MIN_MAP_COUNT,
        "programs with many mappings get ENOMEM", "sysctl -w vm.max_map_count=1048576",
    )  # fmt: skip
    yield _number(
        "open files", _limit(resource.RLIMIT_NOFILE), _MIN_FILES,
        "programs can't hold many host files and sockets", "ulimit -n 65536",
    )  # fmt: skip
    yield _number(
        "address space", _limit(resource.RLIMIT_AS), 1 << 40,
        "the enclave's range can't be reserved", "ulimit -v unlimited",
    )  # fmt: skip
    overcommit = _sysctl("vm/overcommit_memory")
    strict = overcommit == 2
    yield Finding(
        "vm.overcommit_memory", State.LIMITED if strict else State.GOOD, str(overcommit),
        "reserving the enclave's range may be refused" if strict else "",
        "sysctl -w vm.overcommit_memory=0" if strict else "",
    )  # fmt: skip


def _number(name: str, value: int | None, least: int, means: str, remedy: str) -> Finding:
    if value is None:
        return Finding(name, State.GOOD, "unlimited")
    if value >= least:
        return Finding(name, State.GOOD, str(value))
    return Finding(name, State.LIMITED, f"{value}; at least {least} is good", means, remedy)


def _limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def _sysctl(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


_LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _machine, _kernel, _runtime, _dispatch, _fsgsbase, _sgx, _aesm, _fuse, _limits,
)  # fmt: skip
