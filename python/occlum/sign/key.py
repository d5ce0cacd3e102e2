"""Signing keys: RSA-3072 with exponent 3, the only kind that SGX takes.

A key file is PEM (PKCS #1 or PKCS #8) without passphrase. The big integers that go into a SIGSTRUCT
are little-endian, 384 bytes.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from occlum.errors import Error

KEY_BITS = 3072
KEY_SIZE = KEY_BITS // 8
EXPONENT = 3

_HOW_TO_MAKE = "make one with: openssl genrsa -3 -out key.pem 3072"


class KeyFileError(Error):
    """A key file can't be read, written or used."""

    code = "sign-key"


def load_key(path: Path) -> rsa.RSAPrivateKey:
    """The signing key in a PEM file."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise KeyFileError(
            f"the signing key {path} can't be read: {error.strerror}", hint=_HOW_TO_MAKE
        ) from error
    return _checked(path, _parse(path, pem))


def load_public_key(path: Path) -> rsa.RSAPublicKey:
    """The public key in a PEM file, or that of the private key in it."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"the key {path} can't be read: {error.strerror}") from error
    if b"PRIVATE KEY" in pem:
        return _checked(path, _parse(path, pem)).public_key()
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} is not a public key in PEM format") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise KeyFileError(f"the key {path} is not an RSA key", hint=_HOW_TO_MAKE)
    _check_size(path, key.key_size, key.public_numbers().e)
    return key


def verify_bytes(key: rsa.RSAPublicKey, message: bytes, signature: bytes) -> bool:
    """Whether a little-endian signature over ``message`` is one of the key."""
    try:
        key.verify(signature[::-1], message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def generate_debug_key(path: Path) -> rsa.RSAPrivateKey:
    """A new key in a new file that only its owner may read. An existing file is an error.

    For enclaves that nobody else is to trust: whoever reads the file can sign as its owner.
    """
    key = rsa.generate_private_key(public_exponent=EXPONENT, key_size=KEY_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        _write_new(path, pem)
    except OSError as error:
        raise KeyFileError(f"the signing key {path} can't be written: {error.strerror}") from error
    return key


def sign_bytes(key: rsa.RSAPrivateKey, message: bytes) -> bytes:
    """The signature over ``message``, little-endian."""
    return key.sign(message, padding.PKCS1v15(), hashes.SHA256())[::-1]


def modulus_of(key: rsa.RSAPublicKey) -> bytes:
    """The modulus, little-endian."""
    return key.public_numbers().n.to_bytes(KEY_SIZE, "little")


def _parse(path: Path, pem: bytes) -> object:
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise KeyFileError(
            f"the signing key {path} is protected by a passphrase",
            hint=f"remove it with: openssl pkey -in {path} -out key.pem",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{path} is not a private key in PEM format", hint=_HOW_TO_MAKE
        ) from error


def _checked(path: Path, key: object) -> rsa.RSAPrivateKey:
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyFileError(f"the signing key {path} is not an RSA key", hint=_HOW_TO_MAKE)
    _check_size(path, key.key_size, key.public_key().public_numbers().e)
    return key


def _check_size(path: Path, bits: int, exponent: int) -> None:
    if bits != KEY_BITS:
        raise KeyFileError(
            f"the signing key {path} has {bits} bits; SGX takes {KEY_BITS}",
            hint=_HOW_TO_MAKE,
        )
    if exponent != EXPONENT:
        raise KeyFileError(
            f"the signing key {path} has public exponent {exponent}; SGX takes {EXPONENT}",
            hint=_HOW_TO_MAKE,
        )


def _write_new(path: Path, content: bytes) -> None:
    """Creates the file, whole or not at all; never replaces one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError:
        path.unlink()
        raise
