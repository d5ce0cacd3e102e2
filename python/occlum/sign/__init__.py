"""Signing an enclave: who signs, what is signed, and with which key.

``sign_enclave`` makes the SIGSTRUCT that EINIT demands; ``occlum.sign.key`` has the keys and
``occlum.sign.policy`` decides what an enclave may be created with. A key that never leaves its
device signs like this::

    unsigned = unsigned_sigstruct(mrenclave, identity)
    signature = device.sign(unsigned.signed_bytes)      # RSA-3072, e = 3, PKCS #1 v1.5, SHA-256
    sigstruct = unsigned.attach(modulus, signature)     # both little-endian, 384 bytes

Reading goes through ``SigStruct.parse`` and ``verify``, which raise ``VerificationError``. The byte
formats are in ``docs/format/enclave.md``.
"""

from __future__ import annotations

import datetime
import hashlib

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from occlum._core import SigStruct, measure_sgxs
from occlum.sign.key import generate_debug_key, load_key, modulus_of
from occlum.sign.policy import Feature, Identity, unsigned_sigstruct
from occlum.sign.signer import KeySigner, Signer, signer

__all__ = [
    "Feature",
    "Identity",
    "SigStruct",
    "Signer",
    "generate_debug_key",
    "load_key",
    "measure_sgxs",
    "mrsigner",
    "sign_enclave",
    "signer",
    "unsigned_sigstruct",
]


def sign_enclave(
    mrenclave: bytes,
    identity: Identity,
    key: RSAPrivateKey | Signer,
    date: datetime.date | None = None,
) -> bytes:
    """The SIGSTRUCT (1808 bytes) of an enclave, dated today unless ``date`` says otherwise."""
    by = KeySigner(key) if isinstance(key, RSAPrivateKey) else key
    unsigned = unsigned_sigstruct(mrenclave, identity, date)
    signature = by.sign(unsigned.signed_bytes)
    return bytes(unsigned.attach(modulus_of(by.public_key), signature))


def mrsigner(key: RSAPublicKey) -> bytes:
    """MRSIGNER (32 bytes) of the enclaves that this key signs."""
    return hashlib.sha256(modulus_of(key)).digest()
