"""`occlum profile`: where time goes, by program and function."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from conftest import Instance, MakeInstance

pytestmark = pytest.mark.enclave

SOURCE = """
#include <time.h>
#include <unistd.h>
volatile unsigned sink;
__attribute__((noinline)) void busy(void) { for (int i = 0; i < 1000000; i++) sink += i; }
int main(void) {
    struct timespec now, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    end.tv_sec += 1;
    do { busy(); clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now); } while (now.tv_sec < end.tv_sec);
    return 5;
}
"""
PROGRAM = "/usr/local/bin/spinner"


@pytest.fixture(scope="module")
def built(make_instance: MakeInstance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    directory = tmp_path_factory.mktemp("spinner")
    (directory / "spinner.c").write_text(SOURCE)
    command = ["gcc", "-O1", "-o", directory / "spinner", directory / "spinner.c"]
    subprocess.run(command, check=True)
    return make_instance("profile", directory / "spinner")


def test_the_busy_function_is_at_the_top(built: Instance):
    done = built.occlum("profile", PROGRAM)
    assert done.returncode == 5
    first = done.stderr.decode().splitlines()[1]
    assert re.fullmatch(r" *[\d.]+% +spinner +spinner +busy", first)


def test_the_flame_graph_is_svg_with_the_functions(built: Instance, tmp_path: Path):
    path = tmp_path / "flames.svg"
    assert built.occlum("profile", "-o", path, PROGRAM).returncode == 5
    titles = [
        title.text or "" for title in ET.parse(path).iter("{http://www.w3.org/2000/svg}title")
    ]
    assert any(title.startswith("busy: ") for title in titles)
