"""Keys of stores: in files, or as the simulated CPU would give them.

A key file is one line of 32 bytes in hexadecimal with dashes, ``xx-xx-...``. (Keys of 16 bytes, as
other versions of ``gen-image-key`` wrote them, are refused by their length.)
"""

from __future__ import annotations

import os
from pathlib import Path

from occlum._core import simulated_store_key
from occlum.errors import Error
from occlum.instance import Instance

KEY_SIZE = 32


def generate(path: Path) -> None:
    """Write a new random key of 256 bits to a file that must not exist."""
    text = os.urandom(KEY_SIZE).hex("-") + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Error(f"{path} exists", hint="a key is never overwritten; name a new file") from None
    except OSError as error:
        raise Error(f"{path} can't be made: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def read(path: Path) -> bytes:
    """The key in a file."""
    try:
        text = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text.replace("-", ""))
    except OSError as error:
        raise Error(f"the key {path} can't be read: {error.strerror}") from None
    except ValueError:
        raise Error(
            f"{path} is no key: expected {KEY_SIZE} bytes as xx-xx-...",
            hint="occlum gen-image-key FILE makes one",
        ) from None
    if len(key) != KEY_SIZE:
        raise Error(
            f"the key {path} has {len(key) * 8} bits; expected {KEY_SIZE * 8}",
            hint="occlum gen-image-key FILE makes one",
        )
    return key


def sealed(instance: Instance, *, mrenclave: bool = False) -> bytes:
    """The key that the simulated CPU gives to the enclave that was built here."""
    if not instance.build.is_complete():
        raise Error(f"{instance.root} is not built", hint="occlum build, or give --key FILE")
    return simulated_store_key(instance.build.sigstruct.read_bytes(), mrenclave)
