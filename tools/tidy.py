"""The style page as a test: what it forbids and what it limits.

    python tools/tidy.py             report every violation; exit status 1 if there is one
    python tools/tidy.py --tighten   lower the counts in tools/unsafe.txt to what is there

Limits are a ratchet. `unsafe` is allowed only in the files that `tools/unsafe.txt` lists, and a
file's count there may only fall; the few long files and functions that are right as they are stand
in `LONG_FILES` and `LONG_FUNCTIONS` with the reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNSAFE_COUNTS = ROOT / "tools" / "unsafe.txt"

MAX_FILE_LINES = 700
MAX_FUNCTION_LINES = 70

FORBIDS_UNSAFE = ("abi", "sgx", "storage", "kernel")
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager", "base"}
SOURCE_SUFFIXES = (".rs", ".py", ".pyi", ".c", ".h", ".S", ".s", ".toml", ".sh", ".md")

# path -> why it is right that it is long
LONG_FILES: dict[str, str] = {}
# path:function -> why
LONG_FUNCTIONS: dict[str, str] = {}

_UNSAFE = re.compile(r"\bunsafe\b")
_RUST_FUNCTION = re.compile(
    r"^( *)(?:pub(?:\([^)]*\))? )?(?:const |unsafe |extern \"[^\"]*\" )*fn (\w+)"
)
_PYTHON_FUNCTION = re.compile(r"^( *)(?:async )?def (\w+)")


def main() -> int:
    if sys.argv[1:] == ["--tighten"]:
        return tighten()
    files = sources()
    found = [problem for rule in RULES for problem in rule(files)]
    for problem in found:
        print(problem)
    print(f"tidy: {len(files)} files, {len(found)} violations")
    return 1 if found else 0


def sources() -> dict[str, str]:
    """Every source file under version control or about to be, by path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    names = [name for name in listed if name.endswith(SOURCE_SUFFIXES) and (ROOT / name).is_file()]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in sorted(names)}


def ascii_only(files: dict[str, str]) -> Iterator[str]:
    for name, text in files.items():
        if not text.isascii():
            line = next(n for n, each in enumerate(text.splitlines(), 1) if not each.isascii())
            yield f"{name}:{line}: not ASCII"


def names_are_concepts(files: dict[str, str]) -> Iterator[str]:
    for name in files:
        if Path(name).stem in FORBIDDEN_NAMES:
            yield f"{name}: a module is named after its concept, not {Path(name).stem}"


def unsafe_is_forbidden(files: dict[str, str]) -> Iterator[str]:
    for crate in FORBIDS_UNSAFE:
        root = f"crates/{crate}/src/lib.rs"
        if "#![forbid(unsafe_code)]" not in files.get(root, ""):
            yield f"{root}: lacks #![forbid(unsafe_code)]"


def unsafe_only_falls(files: dict[str, str]) -> Iterator[str]:
    allowed = allowed_unsafe()
    for name, count in unsafe_counts(files).items():
        limit = allowed.pop(name, 0)
        if count > limit:
            yield f"{name}: {count} uses of unsafe; {limit} are allowed (tools/unsafe.txt)"
        elif count < limit:
            yield (
                f"{name}: {count} uses of unsafe, fewer than the {limit} of tools/unsafe.txt; "
                "run tools/tidy.py --tighten"
            )
    for name in allowed:
        yield f"tools/unsafe.txt: {name} has no unsafe any more; run tools/tidy.py --tighten"


def kernel_does_not_unwrap(files: dict[str, str]) -> Iterator[str]:
    for name, text in files.items():
        if not name.startswith(("crates/kernel/src", "crates/enclave/src")):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if "#[cfg(test)]" in line:
                break
            if ".unwrap()" in line and not line.lstrip().startswith("//"):
                yield f'{name}:{number}: unwrap in the kernel; write expect("why it can\'t fail")'


def files_are_short(files: dict[str, str]) -> Iterator[str]:
    for name, text in files.items():
        lines = text.count("\n")
        if is_product(name) and lines > MAX_FILE_LINES and name not in LONG_FILES:
            yield f"{name}: {lines} lines; at most {MAX_FILE_LINES}"


def functions_are_short(files: dict[str, str]) -> Iterator[str]:
    for name, text in files.items():
        if not is_product(name):
            continue
        for function, line, length in functions(name, text):
            if length > MAX_FUNCTION_LINES and f"{name}:{function}" not in LONG_FUNCTIONS:
                yield f"{name}:{line}: {function} has {length} lines; at most {MAX_FUNCTION_LINES}"


def comments_do_not_narrate(files: dict[str, str]) -> Iterator[str]:
    for name, text in files.items():
        if not name.endswith((".rs", ".py", ".c")):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"(//|#) Now we\b", line) and "re.search" not in line:
                yield f"{name}:{number}: a comment says why, it does not narrate"


RULES = (
    ascii_only,
    names_are_concepts,
    unsafe_is_forbidden,
    unsafe_only_falls,
    kernel_does_not_unwrap,
    files_are_short,
    functions_are_short,
    comments_do_not_narrate,
)


def is_product(name: str) -> bool:
    """Whether the file is part of the product; tests may be long and need unsafe to provoke.

    Examples are test doubles.
    """
    is_test = "tests/" in name or "examples/" in name
    return name.endswith((".rs", ".py")) and not is_test


def unsafe_counts(files: dict[str, str]) -> dict[str, int]:
    """Uses of the word in code, by file."""
    counts = {}
    for name, text in files.items():
        if not is_product(name) or not name.endswith(".rs"):
            continue
        code = re.sub(r"//.*", "", text)
        code = re.sub(r"#!?\[[^\]]*unsafe[^\]]*\]", "", code)
        if count := len(_UNSAFE.findall(code)):
            counts[name] = count
    return counts


def allowed_unsafe() -> dict[str, int]:
    rows = (line.split() for line in UNSAFE_COUNTS.read_text(encoding="ascii").splitlines())
    return {row[1]: int(row[0]) for row in rows if row and row[0] != "#"}


def tighten() -> int:
    """Lower counts; never raise one or add a file."""
    now = unsafe_counts(sources())
    kept = {n: min(c, now[n]) for n, c in allowed_unsafe().items() if n in now}
    header = [line for line in UNSAFE_COUNTS.read_text().splitlines() if line.startswith("#")]
    rows = [f"{count:4} {name}" for name, count in sorted(kept.items())]
    UNSAFE_COUNTS.write_text("\n".join([*header, *rows]) + "\n", encoding="ascii")
    return 0


def functions(name: str, text: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, lines) of each function; by indentation, as the formatters leave it."""
    if name.endswith(".rs"):
        pattern, closing = _RUST_FUNCTION, "}"
    elif name.endswith(".py"):
        pattern, closing = _PYTHON_FUNCTION, None
    else:
        return
    lines = text.splitlines()
    for start, line in enumerate(lines):
        match = pattern.match(line)
        if match is None:
            continue
        end = start
        if not (closing and line.rstrip().endswith(("}", ";"))):
            end = _end(lines, start, match[1], closing)
        yield match[2], start + 1, end - start + 1


def _end(lines: list[str], start: int, indent: str, closing: str | None) -> int:
    """The last line of a function that starts with this indentation."""
    last = start
    for at in range(start + 1, len(lines)):
        line = lines[at]
        if closing is not None:
            if line.startswith(indent + closing) or line.rstrip() == indent + ");":
                return at
        elif line.strip():
            inside = line.startswith(indent + " ") or line.startswith(indent + ")")
            if not inside:
                return last
            last = at
    return last


if __name__ == "__main__":
    sys.exit(main())
