"""Where the kernel ELF and the host program are.

They travel in the wheel; ``OCCLUM_PREFIX`` names another directory that holds both.
Only the standard library is imported here: `occlum run` starts through this module.
"""

from __future__ import annotations

import os
from pathlib import Path

from occlum.errors import Error


def kernel() -> Path:
    """The kernel ELF."""
    return _program("occlum-kernel")


def host() -> Path:
    """The program that loads and enters the enclave."""
    return _program("occlum-host")


def _program(name: str) -> Path:
    prefix = os.environ.get("OCCLUM_PREFIX")
    directory = Path(prefix) if prefix else Path(__file__).parent / "_bin"
    path = directory / name
    if not path.is_file():
        raise Error(
            f"{path} is not there",
            hint="unset OCCLUM_PREFIX, or let it name a directory with occlum-kernel and "
            "occlum-host"
            if prefix
            else "install the package again: pip install .",
            code="runtime-missing",
        )
    return path
