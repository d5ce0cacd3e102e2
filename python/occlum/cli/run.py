"""``occlum run``: becomes the host program, which loads the enclave and runs one program in it.

This is the path that counts in milliseconds, so it reads its few options itself and imports only
the standard library. The process is replaced by exec: the host program gives signals, terminal and
exit status to the program by itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from occlum import instance, toolchain
from occlum.errors import Error, UsageError

USAGE = "occlum run PROG [ARGS]..."
LOG_LEVELS = ("off", "error", "warn", "info", "debug", "trace")
NOT_STARTED = 127


def run(arguments: list[str]) -> NoReturn:
    """Run the program named by the command line; does not return."""
    program = _program(arguments)
    level = log_level()
    here = instance.find(Path.cwd())
    if not here.build.is_complete():
        raise Error(
            f"{here.root} is not built",
            hint="occlum build",
            exit_status=NOT_STARTED,
            code="not-built",
        )
    warn_if_stale(here)

    host = str(toolchain.host())
    command = [host, "run", "--build-dir", str(here.build.root), "--log-level", level, "--"]
    if os.environ.get("OCCLUM_REPORT_UNSUPPORTED", "") not in ("", "0"):
        command.insert(-1, "--report-unsupported")
    command += program
    here.hold_lock()
    # Sources of hostfs mounts are relative to the instance.
    os.chdir(here.root)
    sys.stdout.flush()
    os.execv(host, command)


def _program(arguments: list[str]) -> list[str]:
    """What follows the options."""
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    elif arguments and arguments[0].startswith("-"):
        raise UsageError(f"occlum run has no option {arguments[0]}", hint=USAGE)
    if not arguments:
        raise UsageError("occlum run: no program is named", hint=USAGE)
    if not arguments[0].startswith("/"):
        raise Error(
            f"{arguments[0]} is not an absolute path in the image",
            hint=f"for example: occlum run /bin/{os.path.basename(arguments[0])}",
            exit_status=NOT_STARTED,
            code="program-path",
        )
    return arguments


def log_level() -> str:
    """What ``OCCLUM_LOG_LEVEL`` asks for."""
    level = os.environ.get("OCCLUM_LOG_LEVEL", "off") or "off"
    if level not in LOG_LEVELS:
        raise UsageError(f'OCCLUM_LOG_LEVEL is "{level}"; expected one of {", ".join(LOG_LEVELS)}')
    return level


def warn_if_stale(here: instance.Instance) -> None:
    """Tell a person who changed the configuration and forgot to build."""
    if here.config.stat().st_mtime_ns > here.build.record.stat().st_mtime_ns:
        print(
            "warning: Occlum.json changed after the last build, which is what runs\n"
            "hint: occlum build",
            file=sys.stderr,
        )
