"""``occlum config suggest``: limits proposed from what one run of a program used.

The kernel logs its peaks when the first process ends (``occlum_kernel::process::programs``); this
module runs ``occlum run`` at that log level, lets its output through and reads the line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass

from occlum.config.model import Config
from occlum.config.values import UNITS, size_text
from occlum.errors import Error

_LINE = re.compile(rb"peaks: user_space (\d+) kernel_heap (\d+) threads (\d+)")
_MB = UNITS["MB"]


class SuggestError(Error):
    """Nothing can be proposed."""

    code = "config-suggest"


@dataclass(frozen=True)
class Peaks:
    """The most that was in use at once: bytes, bytes, threads."""

    user_space: int
    kernel_heap: int
    threads: int


@dataclass(frozen=True)
class Proposal:
    """One setting: its path, what was used, the value in force, the value proposed."""

    key: str
    used: str
    now: str
    proposed: str


def measure(program: list[str]) -> tuple[Peaks, int]:
    """Run a program of the instance; returns the peaks and the program's exit status."""
    with subprocess.Popen(
        [sys.executable, "-m", "occlum", "run", *program],
        env={**os.environ, "OCCLUM_LOG_LEVEL": "info"},
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None, "asked for"
        found = None
        for line in process.stderr:
            if match := _LINE.search(line):
                found = Peaks(int(match[1]), int(match[2]), int(match[3]))
            else:
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
    if found is None:
        raise SuggestError(
            "the kernel said nothing about what was used",
            hint="the program must come to its end, and metadata.disable_log must be false",
        )
    return found, process.returncode


def propose(peaks: Peaks, config: Config) -> list[Proposal]:
    """Half more than what was used, in steps that read well."""
    limits = config.resource_limits
    return [
        Proposal(
            "resource_limits.user_space_size",
            f"{peaks.user_space / _MB:.1f}MB",
            size_text(limits.user_space_size),
            size_text(max(_rounded(peaks.user_space), 32 * _MB)),
        ),
        Proposal(
            "resource_limits.kernel_space_heap_size",
            f"{peaks.kernel_heap / _MB:.1f}MB",
            size_text(limits.kernel_space_heap_size),
            size_text(max(_rounded(peaks.kernel_heap), 32 * _MB)),
        ),
        Proposal(
            "resource_limits.max_num_of_threads",
            str(peaks.threads),
            str(limits.max_num_of_threads),
            str(max(_power(peaks.threads * 2), 16)),
        ),
    ]


def _rounded(used: int) -> int:
    """Half more, as two bits of a power of two: 32, 48, 64, 96, 128 MB and so on."""
    wanted = used + used // 2
    step = 16 * _MB
    while step * 2 < wanted:
        step *= 2
    return next(size for size in (step, step * 3 // 2, step * 2) if size >= wanted)


def _power(count: int) -> int:
    return 1 << (max(count, 1) - 1).bit_length()
