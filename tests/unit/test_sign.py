"""SIGSTRUCT: the vectors, signing, and an RSA of Python's own as the judge."""

import datetime
import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from occlum import sign
from occlum.errors import Error, VerificationError
from occlum.sign import Feature, Identity, SigStruct
from occlum.sign.key import KeyFileError

VECTORS = Path(__file__).parent.parent / "vectors" / "sgx"


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(public_exponent=3, key_size=3072)


@pytest.fixture(params=["sig1.sigstruct.bin", "le_prod_css.bin"])
def vector(request) -> bytes:
    return (VECTORS / request.param).read_bytes()


def judge(sigstruct: bytes) -> None:
    """Verifies a SIGSTRUCT with nothing of ours."""
    n = int.from_bytes(sigstruct[128:512], "little")
    s = int.from_bytes(sigstruct[516:900], "little")
    assert int.from_bytes(sigstruct[512:516], "little") == 3
    assert int.from_bytes(sigstruct[1040:1424], "little") == s * s // n
    q1 = s * s // n
    assert int.from_bytes(sigstruct[1424:1808], "little") == (s**3 - q1 * s * n) // n
    message = sigstruct[:128] + sigstruct[900:1028]
    public = rsa.RSAPublicNumbers(3, n).public_key()
    public.verify(sigstruct[516:900][::-1], message, padding.PKCS1v15(), hashes.SHA256())


def test_vectors_verify(vector):
    judge(vector)
    sigstruct = SigStruct.parse(vector)
    sigstruct.verify()
    assert bytes(sigstruct) == vector
    assert sigstruct.mrsigner == hashlib.sha256(vector[128:512]).digest()
    assert sigstruct.mrenclave == vector[960:992]
    assert sigstruct.signed_bytes == vector[:128] + vector[900:1028]


def test_every_changed_signed_byte_is_refused(vector):
    for at in [*range(128), *range(900, 1028)]:
        changed = bytearray(vector)
        changed[at] ^= 0x01
        with pytest.raises(VerificationError):
            SigStruct.parse(bytes(changed)).verify()


@given(at=st.integers(0, 1807), flip=st.integers(1, 255))
def test_any_changed_byte_is_refused(at, flip):
    changed = bytearray((VECTORS / "sig1.sigstruct.bin").read_bytes())
    changed[at] ^= flip
    with pytest.raises(VerificationError):
        SigStruct.parse(bytes(changed)).verify()


def test_another_size_is_refused(vector):
    for wrong in (b"", vector[:-1], vector + b"\0"):
        with pytest.raises(VerificationError, match="1808 bytes"):
            SigStruct.parse(wrong)


def test_signing_fills_every_field(key):
    identity = Identity(
        product_id=0x1122,
        version_number=0x3344,
        enable_kss=True,
        family_id=0x0123456789ABCDEF_FEDCBA9876543210,
        ext_prod_id=5,
    )
    raw = sign.sign_enclave(b"m" * 32, identity, key, datetime.date(2026, 11, 22))
    judge(raw)
    sigstruct = SigStruct.parse(raw)
    sigstruct.verify()
    assert (sigstruct.isv_prod_id, sigstruct.isv_svn) == (0x1122, 0x3344)
    assert (sigstruct.date, sigstruct.vendor, sigstruct.mrenclave) == (0x20261122, 0, b"m" * 32)
    assert sigstruct.family_id == bytes.fromhex("1032547698badcfeefcdab8967452301")
    assert sigstruct.ext_prod_id == (5).to_bytes(16, "little")
    assert sigstruct.mrsigner == sign.mrsigner(key.public_key())
    assert (sigstruct.miscselect, sigstruct.misc_mask) == (1, 0xFFFFFFFF)


def test_only_a_debuggable_enclave_may_be_loaded_with_debug():
    open_one = sign.unsigned_sigstruct(bytes(32), Identity(debuggable=True))
    closed = sign.unsigned_sigstruct(bytes(32), Identity(debuggable=False))
    assert (open_one.attributes, open_one.attribute_mask) == (0b110, (1 << 64) - 3)
    assert (closed.attributes, closed.attribute_mask) == (0b100, (1 << 64) - 1)


@pytest.mark.parametrize(
    ("pkru", "amx", "value", "free"),
    [
        (Feature.OFF, Feature.OFF, 0xE7, 0xE4),
        (Feature.REQUIRED, Feature.OFF, 0x2E7, 0xE4),
        (Feature.IF_AVAILABLE, Feature.IF_AVAILABLE, 0x602E7, 0x602E4),
    ],
)
def test_vector_states_are_the_cpus_choice_and_others_the_configurations(pkru, amx, value, free):
    sigstruct = sign.unsigned_sigstruct(bytes(32), Identity(pkru=pkru, amx=amx))
    assert (sigstruct.xfrm, sigstruct.xfrm_mask) == (value, ~free & ((1 << 64) - 1))


@pytest.mark.parametrize(
    "wrong",
    [{"product_id": -1}, {"product_id": 65536}, {"version_number": 65536}, {"family_id": 1}],
)
def test_an_impossible_identity_is_refused(wrong):
    with pytest.raises(Error):
        Identity(**wrong)


def test_a_foreign_signature_is_refused(key):
    unsigned = sign.unsigned_sigstruct(bytes(32), Identity())
    signature = key.sign(b"something else", padding.PKCS1v15(), hashes.SHA256())[::-1]
    modulus = key.public_key().public_numbers().n.to_bytes(384, "little")
    with pytest.raises(VerificationError, match="does not verify"):
        unsigned.attach(modulus, signature)


def test_a_signature_made_by_openssl_can_be_attached(tmp_path):
    pem, message = tmp_path / "key.pem", tmp_path / "message"
    subprocess.run(
        ["openssl", "genrsa", "-3", "-out", pem, "3072"], check=True, capture_output=True
    )
    unsigned = sign.unsigned_sigstruct(bytes(32), Identity())
    message.write_bytes(unsigned.signed_bytes)
    made = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", pem, message], check=True, capture_output=True
    )
    modulus = sign.load_key(pem).public_key().public_numbers().n.to_bytes(384, "little")
    judge(bytes(unsigned.attach(modulus, made.stdout[::-1])))


def test_a_debug_key_is_private_and_never_replaces_a_file(tmp_path):
    path = tmp_path / "key.pem"
    made = sign.generate_debug_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sign.load_key(path).private_numbers() == made.private_numbers()
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="File exists"):
        sign.generate_debug_key(path)
    assert path.read_bytes() == before


def _pem(key, encryption=None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"no key at all", "not a private key in PEM format"),
        (lambda: _pem(ec.generate_private_key(ec.SECP256R1())), "not an RSA key"),
        (lambda: _pem(rsa.generate_private_key(3, 2048)), "has 2048 bits; SGX takes 3072"),
        (lambda: _pem(rsa.generate_private_key(65537, 3072)), "public exponent 65537"),
    ],
)
def test_a_key_that_sgx_does_not_take_is_refused_with_a_hint(tmp_path, content, message):
    path = tmp_path / "key.pem"
    path.write_bytes(content())
    with pytest.raises(KeyFileError, match=message) as raised:
        sign.load_key(path)
    assert raised.value.hint == "make one with: openssl genrsa -3 -out key.pem 3072"


def test_a_key_with_a_passphrase_or_no_file_is_refused(tmp_path, key):
    path = tmp_path / "key.pem"
    with pytest.raises(KeyFileError, match="No such file"):
        sign.load_key(path)
    path.write_bytes(_pem(key, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(KeyFileError, match="passphrase"):
        sign.load_key(path)
