"""The documentation: every page is reachable, every link leads somewhere. `make docs` builds it."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
MADE = {"commands.md", "generated/configuration.md"}
PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.md")
    if path.name != "README.md" and "generated" not in path.parts and path.name != "commands.md"
)


def patterns() -> list[str]:
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(":")]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "index.md"])
def test_a_page_is_in_the_index(page: str):
    name = page.removesuffix(".md")
    assert any(fnmatch.fnmatch(name, each) for each in patterns()), "add it to docs/index.md"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    text = re.sub(r"```.*?```", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path = ((DOCS / page).parent / target).resolve()
        made = path.is_relative_to(DOCS) and path.relative_to(DOCS).as_posix() in MADE
        assert made or path.exists(), f"{page} links to {target}"


def test_the_example_of_the_sdk_page_names_what_there_is():
    import occlum

    text = (DOCS / "sdk.md").read_text()
    for owner, prefix in ((occlum.Enclave, "enclave"), (occlum.Instance, "instance")):
        for name in set(re.findall(rf"\b{prefix}\.(\w+)\(", text)):
            assert hasattr(owner, name), f"{prefix}.{name}"
    for name in set(re.findall(r"\bocclum\.(\w+)", text)) - {"aio"}:
        assert hasattr(occlum, name), name
