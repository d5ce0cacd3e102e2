"""MRENCLAVE against a computation of its own, from the SDM's words alone."""

import contextlib
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occlum import _core
from occlum.errors import Error, VerificationError
from occlum.sign import measure_sgxs

PAGE = 4096
RW = 0x203
RX = 0x205
TCS = 0x100


def ecreate(size: int, ssa_frame_size: int) -> bytes:
    return b"ECREATE\0" + struct.pack("<IQ", ssa_frame_size, size) + bytes(44)


def eadd(offset: int, flags: int) -> bytes:
    return b"EADD\0\0\0\0" + struct.pack("<QQ", offset, flags) + bytes(40)


def eextend(offset: int, data: bytes) -> bytes:
    return b"EEXTEND\0" + struct.pack("<Q", offset) + bytes(48) + data


def unmeasured(offset: int, data: bytes) -> bytes:
    return b"UNMEASRD" + struct.pack("<Q", offset) + bytes(48) + data


def measured_page(offset: int, flags: int, data: bytes) -> bytes:
    chunks = range(0, PAGE, 256)
    return eadd(offset, flags) + b"".join(
        eextend(offset + at, data[at : at + 256]) for at in chunks
    )


pages = st.lists(
    st.tuples(
        st.integers(0, 15),
        st.sampled_from([RW, RX, TCS, 0x200, 0x201, 0x207]),
        st.binary(max_size=9),
    ),
    max_size=6,
    unique_by=lambda page: page[0],
).map(sorted)


@given(pages, st.integers(1, 2**32 - 1))
def test_writer_and_measurement_agree_with_the_definition(pages, ssa_frame_size):
    writer = _core.SgxsWriter(0x10000, ssa_frame_size)
    expected = ecreate(0x10000, ssa_frame_size)
    for number, flags, content in pages:
        data = content.ljust(PAGE, b"\0")
        writer.add(number * PAGE, flags, content or b"\0")
        expected += measured_page(number * PAGE, flags, data)
    stream, mrenclave = writer.finish()
    assert stream == expected
    assert mrenclave == hashlib.sha256(expected).digest()
    assert measure_sgxs(stream) == mrenclave


@given(st.binary(min_size=256, max_size=256), st.binary(min_size=256, max_size=256))
def test_only_measured_data_counts(measured, loaded):
    hashed = ecreate(0x4000, 1) + eadd(0x1000, RW) + eextend(0x1000, measured)
    stream = hashed + unmeasured(0x1100, loaded)
    assert measure_sgxs(stream) == hashlib.sha256(hashed).digest()


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", "byte 0: the stream ends"),
        (ecreate(0x4000, 1)[:-1], "byte 0: the stream ends"),
        (ecreate(0x4000, 1) + eextend(0, bytes(255)), "byte 64: the stream ends"),
        (eadd(0, RW), "must begin with ECREATE"),
        (ecreate(0x3000, 1), "power of two"),
        (ecreate(0x4000, 1) + eadd(0x4000, RW), "page 0x4000 lies outside"),
        (ecreate(0x4000, 1) + eadd(0x1000, RW) + eadd(0, RW), "page 0x0 does not come after"),
        (ecreate(0x4000, 1) + eadd(0, 0x202), "must be readable"),
        (ecreate(0x4000, 1) + eadd(0, 0x107), "TCS with permissions"),
        (ecreate(0x4000, 1) + b"EREMOVE\0" + bytes(56), "unknown record"),
        (ecreate(0x4000, 1)[:-1] + b"\1", "reserved bytes"),
    ],
)
def test_a_stream_that_is_not_canonical_is_refused_with_its_place(stream, message):
    with pytest.raises(VerificationError, match=message):
        measure_sgxs(stream)


@given(st.integers(0, 5000), st.integers(1, 255))
def test_a_changed_byte_changes_the_measurement_or_is_refused(at, flip):
    stream = bytearray(ecreate(0x4000, 1) + measured_page(0, RX, bytes(range(256)) * 16))
    before = measure_sgxs(bytes(stream))
    stream[at % len(stream)] ^= flip
    with contextlib.suppress(VerificationError):
        assert measure_sgxs(bytes(stream)) != before


def test_the_writer_refuses_pages_out_of_order_and_use_after_finish():
    writer = _core.SgxsWriter(0x10000, 1)
    writer.add(0x2000, RX, b"\x90")
    with pytest.raises(Error, match="0x1000 does not come after"):
        writer.add(0x1000, RX, b"\x90")
    writer.finish()
    with pytest.raises(Error, match="finished"):
        writer.add(0x3000, RX, b"\x90")
    with pytest.raises(Error, match="finished"):
        writer.finish()


def test_a_tcs_page_has_its_fields_where_the_sdm_says():
    page = _core.tcs_page(ossa=0x2000, nssa=2, oentry=0x1234, ofs_base=0x5000, ogs_base=0x6000)
    fields = struct.unpack_from("<QQQIIQQQQII", page)
    assert fields == (0, 0, 0x2000, 0, 2, 0x1234, 0, 0x5000, 0x6000, 0xFFFFFFFF, 0xFFFFFFFF)
    assert page[72:] == bytes(PAGE - 72)
    with pytest.raises(Error, match="OSSA"):
        _core.tcs_page(ossa=0x2001, nssa=2, oentry=0, ofs_base=0, ogs_base=0)
