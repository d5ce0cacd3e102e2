"""``occlum-gcc`` and the other wrappers: the machine's own tools with what an enclave likes.

Unmodified programs run anyway; what the wrappers add is position independence, so that any number
of processes share the enclave without taking turns, and libraries that `occlum add` finds. What
they make runs on Linux as well. ``OCCLUM_LIBC=musl`` takes musl where there is a compiler for it,
``OCCLUM_CC``, ``OCCLUM_CXX`` and the like name another tool.

Each wrapper becomes the tool by exec, with all arguments: exit status, signals and output are its
own. Only the standard library is imported here.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from occlum.errors import Error


class ToolError(Error):
    """The tool behind a wrapper is not there."""

    exit_status = 127
    code = "tool-missing"


@dataclass(frozen=True)
class Call:
    """What to run instead of the wrapper."""

    program: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def main() -> NoReturn:
    """Entry of every wrapper; its own name says which."""
    from occlum.cli import guarded

    name = Path(sys.argv[0]).name.removeprefix("occlum-")
    sys.exit(guarded(lambda: _become(plan(name, sys.argv[1:]))))


def plan(name: str, arguments: list[str]) -> Call:
    """The call that a wrapper stands for."""
    if name not in WRAPPERS:
        raise ToolError(f"there is no occlum-{name}", hint=f"there are: {', '.join(WRAPPERS)}")
    return WRAPPERS[name](arguments)


def _become(call: Call) -> int:
    path = shutil.which(call.program)
    if path is None:
        package = _PACKAGES.get(call.program)
        raise ToolError(
            f"{call.program} is not in PATH",
            hint=f"apt install {package}" if package else "install it, or name another tool",
        )
    os.execve(path, [call.program, *call.arguments], {**os.environ, **call.environment})


_PACKAGES = {
    "gcc": "gcc", "g++": "g++", "musl-gcc": "musl-tools", "ld": "binutils", "ar": "binutils",
    "strip": "binutils", "go": "golang-go", "cargo": "cargo", "rustc": "rustc",
    "java": "openjdk-17-jre-headless", "javac": "openjdk-17-jdk-headless",
}  # fmt: skip

# Options after which gcc links nothing, or something else than a program.
_NO_PROGRAM = {"-c", "-S", "-E", "-shared", "-r", "-M", "-MM", "-fsyntax-only", "-static-pie"}


def _wants_musl() -> bool:
    return os.environ.get("OCCLUM_LIBC", "glibc") == "musl"


def _c(arguments: list[str]) -> Call:
    tool = os.environ.get("OCCLUM_CC") or ("musl-gcc" if _wants_musl() else "gcc")
    return Call(tool, _position_independent(arguments))


def _cxx(arguments: list[str]) -> Call:
    if _wants_musl() and not os.environ.get("OCCLUM_CXX"):
        raise ToolError(
            "there is no C++ compiler for musl in Debian",
            hint="OCCLUM_CXX names one; the glibc one needs no OCCLUM_LIBC",
        )
    return Call(os.environ.get("OCCLUM_CXX") or "g++", _position_independent(arguments))


def _position_independent(arguments: list[str]) -> list[str]:
    """The arguments, with what makes objects and programs position independent before them.

    Later options win, so a person's -fno-pie stays what it says.
    """
    first = ["-fPIE"]
    if _wants_musl() and "-static" in arguments:
        # musl-gcc -static-pie makes a dynamic program; -static with -pie makes what is meant.
        return [*first, *arguments]
    if "-static" in arguments and not _NO_PROGRAM & set(arguments):
        arguments = ["-static-pie" if each == "-static" else each for each in arguments]
    elif not _NO_PROGRAM & set(arguments):
        first.append("-pie")
    return [*first, *arguments]


def _plain(tool: str) -> Callable[[list[str]], Call]:
    return lambda arguments: Call(os.environ.get(f"OCCLUM_{tool.upper()}") or tool, arguments)


def _go(arguments: list[str]) -> Call:
    """-buildmode=pie links a dynamic program with the internal linker; no C compiler is needed."""
    builds = arguments[:1] and arguments[0] in ("build", "install", "run", "test")
    if builds and not any(each.startswith("-buildmode") for each in arguments):
        arguments = [arguments[0], "-buildmode=pie", *arguments[1:]]
    return Call(os.environ.get("OCCLUM_GO") or "go", arguments)


_RUST_FLAGS = "-Crelocation-model=pie"


def _cargo(arguments: list[str]) -> Call:
    flags = f"{os.environ.get('RUSTFLAGS', '')} {_RUST_FLAGS}".strip()
    return Call(os.environ.get("OCCLUM_CARGO") or "cargo", arguments, {"RUSTFLAGS": flags})


def _rustc(arguments: list[str]) -> Call:
    return Call(os.environ.get("OCCLUM_RUSTC") or "rustc", [_RUST_FLAGS, *arguments])


WRAPPERS: dict[str, Callable[[list[str]], Call]] = {
    "gcc": _c,
    "g++": _cxx,
    "ld": _plain("ld"),
    "ar": _plain("ar"),
    "strip": _plain("strip"),
    "go": _go,
    "cargo": _cargo,
    "rustc": _rustc,
    "java": _plain("java"),
    "javac": _plain("javac"),
}
