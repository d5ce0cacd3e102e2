"""The enclave image: what stands at which address before the first instruction runs.

``build_enclave`` places the kernel, the boot configuration and one area for each virtual CPU, in
this order of addresses, and gives the canonical SGXS stream with its MRENCLAVE. Every page is
measured. The addresses are ``crates/abi/src/layout.rs``'s; the page-by-page description is
``docs/format/enclave.md``. Signing the result is ``occlum.sign``'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from occlum import _core
from occlum.errors import Error
from occlum.image.kernel_elf import Kernel, load_kernel

_R = _core.SECINFO_REG | _core.SECINFO_R
_RW = _R | _core.SECINFO_W


@dataclass(frozen=True)
class EnclaveImage:
    """A canonical SGXS stream and the MRENCLAVE (32 bytes) of the enclave that it builds."""

    stream: bytes
    mrenclave: bytes


@dataclass(frozen=True)
class Region:
    """Pages from ``address`` on with SECINFO ``flags``; ``data`` may end inside the last page."""

    address: int
    flags: int
    data: bytes


def build_enclave(kernel: Path, boot_config: bytes, vcpus: int) -> EnclaveImage:
    """The image of an enclave with ``vcpus`` virtual CPUs.

    ``boot_config`` is what ``_core.encode_boot_config`` gives.
    """
    writer = _core.SgxsWriter(_core.ELRANGE_SIZE, _core.SSA_FRAME_PAGES)
    room = _core.BOOT_CONFIG_BASE - _core.KERNEL_BASE
    placed = load_kernel(kernel, _core.KERNEL_BASE, room)
    for region in plan(placed, boot_config, vcpus):
        writer.add(region.address - _core.ELRANGE_BASE, region.flags, region.data)
    stream, mrenclave = writer.finish()
    return EnclaveImage(stream, mrenclave)


def plan(kernel: Kernel, boot_config: bytes, vcpus: int) -> Iterator[Region]:
    """All pages by ascending address."""
    if not 1 <= vcpus <= _core.MAX_VCPUS:
        raise Error(
            f"an enclave can't have {vcpus} virtual CPUs; expected 1 to {_core.MAX_VCPUS}",
            code="config",
        )
    yield from _kernel(kernel)
    if len(boot_config) > _core.BOOT_CONFIG_MAX:
        raise Error(f"the boot configuration has {len(boot_config)} bytes, too many", code="config")
    yield Region(_core.BOOT_CONFIG_BASE, _R, boot_config)
    for index in range(vcpus):
        base = _core.VCPU_AREA_BASE + index * _core.VCPU_AREA_STRIDE
        yield from _vcpu_area(base, kernel.entry)


def _kernel(kernel: Kernel) -> Iterator[Region]:
    for pages in kernel.pages:
        flags = _core.SECINFO_REG
        flags |= _core.SECINFO_R if pages.readable else 0
        flags |= _core.SECINFO_W if pages.writable else 0
        flags |= _core.SECINFO_X if pages.executable else 0
        yield Region(pages.address, flags, pages.data)


def _vcpu_area(base: int, entry: int) -> Iterator[Region]:
    """TCS, SSA frames, the vCPU's page and its two stacks; unmapped pages between them are guards.

    All but the TCS is zero, and measured so that it is zero for certain.
    """
    tcs = _core.tcs_page(
        ossa=base + _core.VCPU_SSA - _core.ELRANGE_BASE,
        nssa=_core.SSA_FRAMES,
        oentry=entry - _core.ELRANGE_BASE,
        # FS belongs to the user; before the first user task runs, nothing uses it.
        ofs_base=0,
        ogs_base=base + _core.VCPU_PAGE - _core.ELRANGE_BASE,
    )
    yield Region(base + _core.VCPU_TCS, _core.SECINFO_TCS, tcs)
    for offset, size in (
        (_core.VCPU_SSA, _core.SSA_FRAMES * _core.SSA_FRAME_SIZE),
        (_core.VCPU_PAGE, _core.PAGE_SIZE),
        (_core.VCPU_EXCEPTION_STACK, _core.VCPU_EXCEPTION_STACK_SIZE),
        (_core.VCPU_IDLE_STACK, _core.VCPU_IDLE_STACK_SIZE),
    ):
        yield Region(base + offset, _RW, bytes(size))
