"""The tests that the crates outside the enclave carry themselves, by cargo."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CRATES = ["occlum-abi", "occlum-sgx", "occlum-storage", "occlum-host"]
_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)


# Optimized, because `storage` and `host` hash and sign a lot; all crates at once, as the liar of
# tests/hostile is built, so that cargo builds what they share once.
@pytest.mark.timeout(900)
def test_crates(record_property: pytest.RecordProperty) -> None:
    packages = [word for crate in CRATES for word in ("--package", crate)]
    done = subprocess.run(
        ["cargo", "test", "--release", "--locked", "--no-fail-fast", *packages],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # Shown with the failure, or with -rA.
    print(done.stdout)
    assert done.returncode == 0
    counts = [[int(count) for count in groups] for groups in _RESULT.findall(done.stdout)]
    assert counts, "cargo ran no test program"
    passed, failed, ignored = map(sum, zip(*counts, strict=True))
    record_property("rust", f"{passed} passed, {ignored} ignored in {', '.join(CRATES)}")
    assert failed == 0
