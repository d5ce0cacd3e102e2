"""What must not be in the kernel's code."""

from __future__ import annotations

from collections import Counter

import pytest
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from iced_x86 import Decoder, Mnemonic

from occlum import toolchain

# They fault in an enclave (SDM vol. 3D, "Illegal instructions"), and the host answers for the first
# in a virtual machine.
FORBIDDEN = {
    Mnemonic.CPUID: "cpuid",
    Mnemonic.SYSCALL: "syscall",
    Mnemonic.SYSENTER: "sysenter",
    Mnemonic.RDTSCP: "rdtscp",
    Mnemonic.RDPMC: "rdpmc",
    Mnemonic.IN: "in",
    Mnemonic.OUT: "out",
    Mnemonic.INSB: "insb",
    Mnemonic.OUTSB: "outsb",
    Mnemonic.GETSEC: "getsec",
    Mnemonic.VMCALL: "vmcall",
}


@pytest.fixture(scope="session")
def instructions() -> Counter[int]:
    """How often each mnemonic occurs in the kernel's executable sections."""
    found: Counter[int] = Counter()
    with toolchain.kernel().open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR:
                decoder = Decoder(64, section.data(), ip=section["sh_addr"])
                found.update(instruction.mnemonic for instruction in decoder)
    return found


def test_the_kernel_has_no_instruction_that_an_enclave_has_not(
    instructions: Counter[int],
) -> None:
    assert instructions.total() > 100_000
    assert {name for mnemonic, name in FORBIDDEN.items() if instructions[mnemonic]} == set()


def test_the_decoder_finds_what_is_there(instructions: Counter[int]) -> None:
    """ENCLU for EEXIT and EGETKEY, RDRAND, XRSTOR: a decoder that lost its way finds none."""
    assert instructions[Mnemonic.ENCLU] == 2
    assert instructions[Mnemonic.RDRAND] > 0
    assert instructions[Mnemonic.XRSTOR64] > 0
