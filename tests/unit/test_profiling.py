"""`occlum.profiling`: names and flame graphs."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from occlum.profiling import Profile, demangled, flame_graph


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("main", "main"),
        (
            "_ZN13occlum_kernel7syscall8dispatch17h0123456789abcdefE",
            "occlum_kernel::syscall::dispatch",
        ),
        ("_ZN4core3ptr17h0123456789abcdefE", "core::ptr"),
    ],
)
def test_rust_names_become_paths(mangled: str, name: str):
    assert demangled(mangled) == name


def test_a_flame_graph_has_a_box_for_each_level():
    profile = Profile()
    profile.stacks.update({("a<b", "kernel", "f"): 3, ("a<b", "a", "g"): 1})
    tree = ET.fromstring(flame_graph(profile, "a & b"))
    titles = sorted(title.text or "" for title in tree.iter("{http://www.w3.org/2000/svg}title"))
    assert titles == [
        "a: 1 samples, 25.0%",
        "a<b: 4 samples, 100.0%",
        "f: 3 samples, 75.0%",
        "g: 1 samples, 25.0%",
        "kernel: 3 samples, 75.0%",
    ]
