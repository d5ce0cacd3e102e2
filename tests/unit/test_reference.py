"""What is generated from the commands: shells and man accept it, and nothing is left out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from occlum.cli import reference, verbs


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_its_completion(shell: str, tmp_path: Path):
    text = reference.completion(shell)
    for verb in verbs.summaries():
        assert verb in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(text)
    subprocess.run([shell, "-n", script], check=True)


def complete(tmp_path: Path, *words: str) -> list[str]:
    script = tmp_path / "script"
    script.write_text(reference.completion("bash"))
    line = " ".join(f"'{word}'" for word in words)
    command = (
        f". {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _occlum; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_bash_completes_verbs_options_and_subcommands(tmp_path: Path):
    assert "build" in complete(tmp_path, "occlum", "bu")
    assert "--sign-key" in complete(tmp_path, "occlum", "build", "--si")
    assert "check" in complete(tmp_path, "occlum", "config", "ch")


def test_every_command_has_a_manual_page_that_groff_accepts(tmp_path: Path):
    assert reference.write_manual(tmp_path) == len(list(tmp_path.iterdir()))
    pages = reference.manual_pages()
    assert {f"occlum-{verb}.1" for verb in verbs.summaries()} <= set(pages)
    assert "copy_bom.1" in pages
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    for page in sorted(tmp_path.iterdir()):
        done = subprocess.run(
            ["groff", "-ww", "-man", "-Tascii", page], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""


def test_the_reference_page_has_every_command():
    text = reference.markdown()
    for entry in reference.entries():
        assert f"\n## {entry.name}\n" in text
