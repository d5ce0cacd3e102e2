"""GDB inside an enclave of the simulated CPU: loaded by ``occlum gdb``, runs in GDB's own Python.

- symbols of the kernel, and of each program and library where the kernel maps it: the host program
  calls ``occlum_debug_mapped`` for each, where a breakpoint of ours adds the file's symbols;
- a backtrace goes from the kernel's frames on to where the program entered the kernel: that is the
  caller of the function in which a thread lives. GDB does not follow a stack that is below the last
  one, so it shows that frame only;
- ``occlum-bt [TID]`` shows all frames of the program, of this or of any thread inside;
- ``info occlum-threads`` lists the threads inside, also those that no host thread runs now.

Only GDB's module and the standard library are there. Environment: ``OCCLUM_GDB_IMAGE`` is the image
directory, ``OCCLUM_GDB_KERNEL`` the kernel ELF.
"""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

import os
import re
import struct
from typing import Any

import gdb
import gdb.unwinder

KERNEL_BASE = 0x1F00_0000_0000
PAGE = 4096
LIFE = "occlum_kernel::process::user_loop::live"
TABLE = "DEBUGGED_THREADS"
SLOT = struct.Struct("<4Q")
SLOTS = 1024
STACK = 1 << 20
"""A thread's kernel stack is smaller."""
# `Regs` of crates/enclave/src/user.rs.
REGISTERS = [
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
]
KEPT = ["rbx", "rbp", "rsp", "r12", "r13", "r14", "r15", "rip"]
# They are how the simulated CPU works, not faults of anything.
SIGNALS = "SIGSEGV SIGBUS SIGILL SIGFPE SIGSYS SIGURG"


def main() -> None:
    for setting in ("pagination off", "confirm off", "breakpoint pending on"):
        gdb.execute(f"set {setting}")
    for signal in SIGNALS.split():
        gdb.execute(f"handle {signal} nostop noprint pass", to_string=True)
    kernel = os.environ["OCCLUM_GDB_KERNEL"]
    gdb.execute(f"add-symbol-file '{kernel}' -o {KERNEL_BASE:#x}", to_string=True)
    Mapped()
    gdb.unwinder.register_unwinder(None, IntoTheProgram(), replace=True)
    Threads("info occlum-threads", gdb.COMMAND_STATUS)
    Backtrace("occlum-bt", gdb.COMMAND_STACK)


def image_file(path: str) -> str:
    """The file of the image that is ``path`` inside; links are those of the image."""
    root = os.environ["OCCLUM_GDB_IMAGE"]
    found = os.path.join(root, path.lstrip("/"))
    for _ in range(40):
        if not os.path.islink(found):
            break
        target = os.readlink(found)
        above = root if target.startswith("/") else os.path.dirname(found)
        found = os.path.join(above, target.lstrip("/"))
    return found


def bias(path: str, start: int, offset: int) -> int | None:
    """What was added to the addresses in the ELF file, whose part at ``offset`` is at ``start``."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF":
            return None
        table, size, count = (
            struct.unpack_from("<Q", head, 32)[0],
            *struct.unpack_from("<2H", head, 54),
        )
        file.seek(table)
        headers = file.read(size * count)
    for at in range(0, size * count, size):
        kind, flags, part, address = struct.unpack_from("<IIQQ", headers, at)
        if kind == 1 and flags & 1 and part - part % PAGE == offset:
            return start - int(address - address % PAGE)
    return None


class Mapped(gdb.Breakpoint):
    """The host program tells that a file's code is mapped: (start, offset, path, size of path)."""

    def __init__(self) -> None:
        super().__init__("occlum_debug_mapped", internal=True)
        self.known: set[tuple[str, int]] = set()

    def stop(self) -> bool:
        frame = gdb.newest_frame()
        start, offset, path, size = (
            int(frame.read_register(r)) for r in ("rdi", "rsi", "rdx", "rcx")
        )
        name = bytes(gdb.selected_inferior().read_memory(path, size)).decode(errors="replace")
        file = image_file(name)
        if os.path.isfile(file) and (file, start) not in self.known:
            self.known.add((file, start))
            added = bias(file, start, offset)
            if added is not None:
                gdb.execute(f"add-symbol-file '{file}' -o {added:#x}", to_string=True)
        return False


def slots() -> list[tuple[int, int, int]]:
    """(tid, address of registers, address in the kernel stack) of each thread inside."""
    try:
        # Kept without a type, so that an expression could not name it.
        variables = gdb.execute(f"info variables {TABLE}", to_string=True)
        found = re.search(r"(0x[0-9a-f]+)\s+\S*" + TABLE, variables)
        if found is None:
            return []
        raw = bytes(gdb.selected_inferior().read_memory(int(found[1], 16), SLOT.size * SLOTS))
    except gdb.error:
        return []
    return [(tid, regs, stack) for state, tid, regs, stack in SLOT.iter_unpack(raw) if state]


def registers(address: int) -> dict[str, int]:
    raw = bytes(gdb.selected_inferior().read_memory(address, 8 * len(REGISTERS)))
    return dict(zip(REGISTERS, struct.unpack(f"<{len(REGISTERS)}Q", raw), strict=True))


def symbol(address: int) -> str:
    return str(gdb.execute(f"info symbol {address:#x}", to_string=True)).split("\n")[0]


class FrameId:
    def __init__(self, sp: Any, pc: Any) -> None:
        self.sp = sp
        self.pc = pc


class IntoTheProgram(gdb.unwinder.Unwinder):
    """Unwinds the function in which a thread lives to where its program was."""

    def __init__(self) -> None:
        super().__init__("occlum")
        self._is_life: dict[int, bool] = {}

    def __call__(self, pending: Any) -> Any:
        pc = int(pending.read_register("rip"))
        if not self.is_life(pc):
            return None
        sp = int(pending.read_register("rsp"))
        near = [(stack - sp, regs) for _, regs, stack in slots() if 0 <= stack - sp < STACK]
        if not near:
            return None
        saved = registers(min(near)[1])
        info = pending.create_unwind_info(
            FrameId(gdb.Value(sp).cast(U64()), gdb.Value(pc).cast(U64()))
        )
        for name in KEPT:
            info.add_saved_register(name, gdb.Value(saved[name]).cast(U64()))
        return info

    def is_life(self, pc: int) -> bool:
        if KERNEL_BASE <= pc < KERNEL_BASE + (256 << 20):
            if pc not in self._is_life:
                self._is_life[pc] = symbol(pc).startswith(LIFE)
            return self._is_life[pc]
        return False


def U64() -> Any:  # noqa: N802
    return gdb.lookup_type("unsigned long")


class Threads(gdb.Command):
    """List the threads inside the enclave: id, and where the program is."""

    def invoke(self, argument: str, from_tty: bool) -> None:
        print("  tid  where")
        for tid, regs, _ in sorted(slots()):
            rip = registers(regs)["rip"]
            print(f"{tid:5}  {rip:#x} {symbol(rip)}")


class Backtrace(gdb.Command):
    """Backtrace of the program's frames of a thread inside: occlum-bt [TID].

    Without TID: of the thread that this host thread runs.
    """

    def invoke(self, argument: str, from_tty: bool) -> None:
        place = self.find(argument)
        gdb.execute("frame 0", to_string=True)
        kept = {name: int(gdb.parse_and_eval(f"(unsigned long)${name}")) for name in KEPT}
        try:
            move_to({name: registers(place)[name] for name in KEPT})
            gdb.execute("backtrace")
        finally:
            move_to(kept)

    def find(self, argument: str) -> int:
        if argument:
            found = [regs for tid, regs, _ in slots() if tid == int(argument)]
        else:
            sp = int(gdb.newest_frame().read_register("rsp"))
            near = [(stack - sp, regs) for _, regs, stack in slots() if 0 <= stack - sp < STACK]
            found = [regs for _, regs in sorted(near)]
        if not found:
            raise gdb.GdbError("no such thread inside; info occlum-threads lists them")
        return found[0]


def move_to(values: dict[str, int]) -> None:
    """Set registers of the selected host thread, which stands still."""
    for name, value in values.items():
        gdb.execute(f"set ${name} = {value:#x}", to_string=True)


main()
