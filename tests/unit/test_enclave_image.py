"""The enclave image: a small kernel made by gcc, placed, relocated, measured, and broken."""

import io
import json
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from occlum import _core, toolchain
from occlum.errors import Error
from occlum.image.enclave import build_enclave, plan
from occlum.image.kernel_elf import KernelError, load_kernel
from occlum.sign import measure_sgxs

PAGE = 4096
BASE = 0x1F00_0000_0000
ROOM = 256 << 20

SOURCE = """
static int counter = 7;
static int *pointer = &counter;
static const char *const names[] = {"one", "two"};
static char zeros[8192];
__attribute__((visibility("hidden"))) void _start(void) {
    zeros[5000] = names[1][*pointer % 3];
    for (;;) {}
}
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.c").write_text(SOURCE)
    subprocess.run(
        [
            "gcc",
            "-O0",
            "-fPIE",
            "-ffreestanding",
            "-nostdlib",
            "-static-pie",
            "-o",
            "kernel",
            "kernel.c",
            "-Wl,--no-dynamic-linker,-z,text,-z,now,-z,relro,-z,separate-code,--build-id=none",
        ],
        cwd=folder,
        check=True,
    )
    return folder / "kernel"


@pytest.fixture(scope="module")
def placed(kernel):
    return load_kernel(kernel, BASE, ROOM)


def memory_of(placed) -> dict[int, bytes]:
    """Each page's bytes by address."""
    return {
        run.address + at: run.data[at : at + PAGE]
        for run in placed.pages
        for at in range(0, len(run.data), PAGE)
    }


def test_every_byte_is_as_the_elf_and_its_relocations_say(kernel, placed):
    elf = ELFFile(io.BytesIO(kernel.read_bytes()))
    expected: dict[int, int] = {}
    for segment in elf.iter_segments("PT_LOAD"):
        content = segment.data().ljust(segment["p_memsz"], b"\0")
        expected |= {BASE + segment["p_vaddr"] + i: byte for i, byte in enumerate(content)}
    relocations = list(elf.get_section_by_name(".rela.dyn").iter_relocations())
    assert len(relocations) >= 3
    for relocation in relocations:
        value = struct.pack("<Q", BASE + relocation["r_addend"])
        expected |= {BASE + relocation["r_offset"] + i: byte for i, byte in enumerate(value)}
    for page, data in memory_of(placed).items():
        for i, byte in enumerate(data):
            assert byte == expected.get(page + i, 0), hex(page + i)
    assert expected.keys() <= {page + i for page in memory_of(placed) for i in range(PAGE)}


def test_permissions_are_the_segments_and_relro_is_read_only(kernel, placed):
    elf = ELFFile(io.BytesIO(kernel.read_bytes()))
    (relro,) = elf.iter_segments("PT_GNU_RELRO")
    kinds = {(run.readable, run.writable, run.executable) for run in placed.pages}
    assert kinds == {(True, False, False), (True, False, True), (True, True, False)}
    for run in placed.pages:
        if run.address <= BASE + relro["p_vaddr"] < run.address + len(run.data):
            assert not run.writable
        if run.address <= placed.entry < run.address + len(run.data):
            assert run.executable


def test_the_image_holds_all_regions_in_their_places(kernel, placed):
    regions = list(plan(placed, b"config", 3))
    config = next(r for r in regions if r.data == b"config")
    assert (config.address, config.flags) == (BASE + (256 << 20), 0x201)
    tcs = [r for r in regions if r.flags == 0x100]
    assert [r.address for r in tcs] == [BASE + (512 << 20) + i * 0x20000 for i in range(3)]
    _, _, ossa, cssa, nssa, oentry, _, _, ogs = struct.unpack_from("<QQQIIQQQQ", tcs[1].data)
    assert (ossa, cssa, nssa) == (tcs[1].address + 0x1000, 0, 2)
    assert (oentry, ogs) == (placed.entry, tcs[1].address + 0xA000)
    area = [
        (r.address - tcs[0].address, len(r.data)) for r in regions if r.address > tcs[0].address
    ]
    assert area[:4] == [(0x1000, 0x8000), (0xA000, 0x1000), (0xC000, 0x4000), (0x11000, 0x8000)]


def test_building_twice_gives_the_same_measured_image(kernel):
    first, second = (build_enclave(kernel, b"config", 2) for _ in range(2))
    assert first == second
    assert measure_sgxs(first.stream) == first.mrenclave


def test_configuration_and_vcpus_change_the_measurement(kernel):
    images = [build_enclave(kernel, config, n) for config, n in ((b"a", 1), (b"b", 1), (b"a", 2))]
    assert len({image.mrenclave for image in images}) == 3


def test_too_many_or_no_vcpus_are_refused(kernel):
    for count in (0, -1, 65):
        with pytest.raises(Error, match="virtual CPUs"):
            build_enclave(kernel, b"config", count)


def test_the_installed_kernel_can_be_placed():
    try:
        path = toolchain.kernel()
    except Error as error:
        pytest.skip(f"no kernel is installed here: {error}")
    kernel = load_kernel(path, BASE, ROOM)
    assert not any(run.writable and run.executable for run in kernel.pages)
    assert measure_sgxs((image := build_enclave(path, b"config", 16)).stream) == image.mrenclave


def broken(kernel: Path, at: int, content: bytes) -> Path:
    data = bytearray(kernel.read_bytes())
    data[at : at + len(content)] = content
    path = kernel.with_name("broken")
    path.write_bytes(data)
    return path


def header_of(kernel: Path, kind: str) -> int:
    """File offset of the first program header of this kind."""
    elf = ELFFile(io.BytesIO(kernel.read_bytes()))
    kinds = [segment["p_type"] for segment in elf.iter_segments()]
    return int(elf["e_phoff"]) + kinds.index(kind) * int(elf["e_phentsize"])


@pytest.mark.parametrize(
    ("at", "content", "message"),
    [
        (0, b"not an ELF", "not a sound ELF"),
        (16, struct.pack("<H", 2), "must be an x86-64 static PIE"),
        (18, struct.pack("<H", 183), "must be an x86-64 static PIE"),
        (24, struct.pack("<Q", 0), "entry point 0x0 is not executable"),
        (24, struct.pack("<Q", 1 << 40), "is not executable"),
    ],
)
def test_a_wrong_elf_header_is_refused(kernel, at, content, message):
    with pytest.raises(KernelError, match=message):
        load_kernel(broken(kernel, at, content), BASE, ROOM)


@pytest.mark.parametrize(
    ("kind", "at", "content", "message"),
    [
        ("PT_LOAD", 4, struct.pack("<I", 7), "writable and executable"),
        ("PT_LOAD", 40, struct.pack("<Q", 1 << 50), "there is room for"),
        ("PT_LOAD", 40, struct.pack("<Q", 1), "bigger in the file than in memory"),
        ("PT_GNU_STACK", 0, struct.pack("<I", 3), "PT_INTERP"),
        ("PT_GNU_STACK", 0, struct.pack("<I", 7), "PT_TLS"),
    ],
)
def test_a_wrong_segment_is_refused(kernel, kind, at, content, message):
    with pytest.raises(KernelError, match=message):
        load_kernel(broken(kernel, header_of(kernel, kind) + at, content), BASE, ROOM)


def test_a_relocation_that_needs_a_symbol_is_refused(kernel):
    elf = ELFFile(io.BytesIO(kernel.read_bytes()))
    info = elf.get_section_by_name(".rela.dyn")["sh_offset"] + 8
    with pytest.raises(KernelError, match="relocation of type 6"):
        load_kernel(broken(kernel, info, struct.pack("<Q", 6)), BASE, ROOM)


def test_a_missing_kernel_is_refused(tmp_path):
    with pytest.raises(KernelError, match="can't be read"):
        load_kernel(tmp_path / "kernel", BASE, ROOM)


@settings(deadline=None)
@example(at=582, content=b"\x00\x80")
@given(at=st.integers(0, 700), content=st.binary(min_size=1, max_size=8))
def test_a_damaged_elf_is_placed_or_refused(kernel, at, content):
    try:
        placed = load_kernel(broken(kernel, at, content), BASE, ROOM)
    except KernelError:
        return
    assert all(len(run.data) % PAGE == 0 for run in placed.pages)


CONFIG = {
    "version": 1,
    "cpu_mode": "Simulation",
    "vcpus": 2,
    "resource_limits": {
        "user_space_size": 1 << 30,
        "kernel_heap_size": 1 << 25,
        "kernel_stack_size": 1 << 17,
        "max_threads": 300,
    },
    "process": {"stack_size": 1 << 23, "heap_size": 1 << 24},
    "entry_points": ["/bin"],
    "env": {"default": ["A=1"], "untrusted": ["LANG", "LC_*"]},
    "debuggable": True,
    "disable_log": False,
    "mounts": [
        {"target": "/", "kind": "Root"},
        {"target": "/host", "kind": {"Hostfs": {"source": "."}}},
        {"target": "/tmp", "kind": {"Ramfs": {"size_limit": 300}}},
    ],
    "image_root": list(range(32)),
    "fork_copies": "OnWrite",
    "network": {
        "outside": True,
        "host_loopback": False,
        "publish": {"These": [80, 6379]},
        "io_uring": 2,
    },
    "page_cache_size": 300,
}


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(*strings: str) -> bytes:
    return b"".join(varint(len(s)) + s.encode() for s in strings)


def test_the_boot_configuration_is_postcard_after_its_length():
    body = (
        varint(1) + varint(0) + varint(2)
        + varint(1 << 30) + varint(1 << 25) + varint(1 << 17) + varint(300)
        + varint(1 << 23) + varint(1 << 24)
        + varint(1) + text("/bin")
        + varint(1) + text("A=1") + varint(2) + text("LANG", "LC_*")
        + b"\1\0"
        + varint(3)
        + text("/") + varint(0)
        + text("/host") + varint(4) + text(".")
        + text("/tmp") + varint(1) + varint(300)
        + bytes(range(32))
        + varint(0)
        + b"\1\0" + varint(1) + varint(2) + varint(80) + varint(6379) + varint(2)
        + varint(300)
    )  # fmt: skip
    encoded = _core.encode_boot_config(json.dumps(CONFIG))
    assert encoded == struct.pack("<Q", len(body)) + body


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": None}, "invalid type: null"),
        ({"colour": "red"}, "keys that nothing reads"),
        ({"cpu_mode": "Emulation"}, "unknown variant `Emulation`"),
        ({"image_root": [1] * 31}, "invalid length 31"),
        ({"vcpus": -1}, "invalid value"),
        ({"env": {"default": ["A=" + "x" * (1 << 20)], "untrusted": []}}, "1048576 are the most"),
    ],
)
def test_a_boot_configuration_the_kernel_would_not_understand_is_refused(change, message):
    with pytest.raises(Error, match=message):
        _core.encode_boot_config(json.dumps(CONFIG | change))
