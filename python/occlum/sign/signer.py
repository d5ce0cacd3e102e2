"""Who signs: a key file, this person's debug key, or a tool that keeps the key to itself.

A tool gets the bytes to be signed on its standard input and writes the signature (RSA-3072, PKCS #1
v1.5 over SHA-256, 384 bytes, big-endian) to its standard output; the public key is in a file. With
OpenSSL, for example: ``exec openssl dgst -sha256 -sign /media/key.pem``.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from occlum.sign.key import (
    KEY_SIZE,
    KeyFileError,
    generate_debug_key,
    load_key,
    load_public_key,
    sign_bytes,
    verify_bytes,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

TOOL_TIMEOUT_S = 600


class Signer(Protocol):
    """``note`` is worth telling about the key, or None."""

    @property
    def note(self) -> str | None: ...

    @property
    def is_debug(self) -> bool: ...

    @property
    def public_key(self) -> RSAPublicKey: ...

    def sign(self, message: bytes) -> bytes:
        """The signature, 384 bytes, little-endian."""
        ...


@dataclass(frozen=True)
class KeySigner:
    """A private key in memory."""

    key: RSAPrivateKey
    note: str | None = None
    is_debug: bool = False

    @property
    def public_key(self) -> RSAPublicKey:
        return self.key.public_key()

    def sign(self, message: bytes) -> bytes:
        return sign_bytes(self.key, message)


@dataclass(frozen=True)
class ToolSigner:
    """A program that has the key."""

    tool: Path
    public_key: RSAPublicKey
    note: str | None = None
    is_debug: bool = False

    def sign(self, message: bytes) -> bytes:
        try:
            done = subprocess.run(
                [self.tool], input=message, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise KeyFileError(
                f"the signing tool {self.tool} can't be run: {problem}", code="sign-tool"
            ) from None
        if done.returncode != 0 or len(done.stdout) != KEY_SIZE:
            said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise KeyFileError(
                f"the signing tool {self.tool} ended with status {done.returncode} and "
                f"{len(done.stdout)} bytes; expected status 0 and {KEY_SIZE} bytes"
                + "".join(f": {line}" for line in said),
                hint="it reads what is to be signed and writes an RSA-3072 signature over SHA-256",
                code="sign-tool",
            )
        signature = done.stdout[::-1]
        if not verify_bytes(self.public_key, message, signature):
            raise KeyFileError(
                f"the signature of {self.tool} is not one of the key that --sign-key names",
                hint="--sign-key takes the public half of the tool's key",
                code="sign-tool",
            )
        return signature


def signer(key: Path | None, tool: Path | None) -> Signer:
    """The signer that was asked for; without a key, this person's debug key, made on first use."""
    if tool is not None:
        if key is None:
            raise KeyFileError(
                "--sign-tool needs the public key of the tool",
                hint="--sign-key PUBLIC.pem beside it",
                code="sign-tool",
            )
        return ToolSigner(tool, load_public_key(key))
    path = debug_key_path()
    if key is None:
        note = f"signed with the debug key {path}; use --sign-key for a release"
        return KeySigner(_debug_key(path), note, is_debug=True)
    is_debug = path.is_file() and path.samefile(key) if key.exists() else False
    return KeySigner(load_key(key), is_debug=is_debug)


def debug_key_path() -> Path:
    """Where this person's debug key is."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local/share") / "occlum/debug-key.pem"


def _debug_key(path: Path) -> RSAPrivateKey:
    if path.is_file():
        return load_key(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        generate_debug_key(mine)
        os.link(mine, path)
    except FileExistsError:
        pass  # Another build was faster; its key serves both.
    finally:
        mine.unlink(missing_ok=True)
    return load_key(path)
