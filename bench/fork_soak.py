"""`make fork-soak`: the random programs of ``fork_model.c``, many seeds, both ways to track writes.

    python bench/fork_soak.py COUNT [FIRST]

Prints the seeds that end differently inside and on Linux; exit status 1 if there are any.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

OCCLUM = Path(sysconfig.get_path("scripts")) / "occlum"
SOURCE = Path(__file__).parent.parent / "tests/linux/fork_model.c"
BATCH = 500
BUILDS = {"pie": (), "no-pie": ("-no-pie",)}


def main() -> int:
    count = int(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory(prefix="occlum-soak-") as directory:
        root = Path(directory)
        programs = [compiled(root, name, flags) for name, flags in BUILDS.items()]
        instances = {edmm: built(root / f"edmm-{edmm}", programs, edmm) for edmm in "YN"}
        bad = 0
        for start in range(first, first + count, BATCH):
            seeds = (str(start), str(min(BATCH, first + count - start)))
            for program in programs:
                expected = lines([str(program), *seeds], root)
                for edmm, instance in instances.items():
                    got = lines([str(OCCLUM), "run", f"/opt/{program.name}", *seeds], instance)
                    bad += compare(f"{program.name}, EDMM {edmm}", expected, got)
            print(f"up to seed {start + int(seeds[1]) - 1}: {bad} differ", flush=True)
    return 1 if bad else 0


def compiled(root: Path, name: str, flags: tuple[str, ...]) -> Path:
    program = root / f"model-{name}"
    command = ["gcc", "-O1", "-D_GNU_SOURCE", "-pthread", *flags, "-o", str(program), str(SOURCE)]
    subprocess.run(command, check=True)
    return program


def built(instance: Path, programs: list[Path], edmm: str) -> Path:
    occlum(instance.parent, "new", str(instance))
    occlum(instance, "add", *map(str, programs))
    for program in programs:
        shutil.copy(program, instance / "image/opt")
    occlum(instance, "build", "--enable-edmm", edmm)
    return instance


def occlum(directory: Path, *arguments: str) -> None:
    subprocess.run([OCCLUM, *arguments], cwd=directory, check=True, capture_output=True)


def lines(command: list[str], directory: Path) -> list[str]:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def compare(what: str, expected: list[str], got: list[str]) -> int:
    missing = [None] * (len(expected) - len(got))
    pairs = zip(expected, [*got, *missing], strict=False)
    different = [(line, other) for line, other in pairs if line != other]
    for line, other in different:
        print(f"{what}: Linux {line!r}, inside {other!r}")
    return len(different)


if __name__ == "__main__":
    sys.exit(main())
