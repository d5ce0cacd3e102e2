"""The tests that the crates outside the enclave carry themselves, by cargo."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)

# Optimized: the tests of `storage` and `host` hash and sign a lot, and the liar of tests/hostile
# is built this way too.
CARGO_TEST = ["cargo", "test", "--release", "--locked", "--no-fail-fast"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("crate", ["abi", "sgx", "storage", "host"])
def test_crate(crate: str, record_property: pytest.RecordProperty) -> None:
    done = subprocess.run(
        [*CARGO_TEST, "--package", f"occlum-{crate}"],
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
    record_property("rust", f"{crate}: {passed} passed, {ignored} ignored")
    assert failed == 0
