"""Images made of real trees, looked into through Python."""

import os
import stat
from pathlib import Path

import pytest

from occlum.errors import Error, VerificationError
from occlum.image.fsimage import ElfFile, ImageReader, build_image, scan

ELF = b"\x7fELF" + bytes(100)


def no_sites(_: list[ElfFile]) -> dict[str, bytes]:
    return {}


def ignore(_done: int, _total: int) -> None:
    pass


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/prog").write_bytes(ELF)
    (root / "usr/bin/prog").chmod(0o755)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/again").symlink_to("/bin/../bin/prog")
    (root / "big").write_bytes(os.urandom(3_000_000))
    return root


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "image.occ"


def test_what_goes_in_comes_out(tree: Path, dest: Path) -> None:
    info = build_image(tree, dest, no_sites, ignore)
    reader = ImageReader(dest, info.root_hash)
    assert (info.files, info.directories, info.symlinks) == (3, 4, 2)
    assert info.image_size == dest.stat().st_size
    assert b"".join(reader.cat("/big")) == (tree / "big").read_bytes()
    assert {entry.path for entry in reader.walk()} == {
        "/" + str(path.relative_to(tree)) for path in tree.rglob("*")
    }
    prog = reader.entry("/usr/bin/prog")
    assert prog.mode == stat.S_IFREG | 0o755
    assert prog.mtime_ns == (tree / "usr/bin/prog").stat().st_mtime_ns
    reader.verify(ignore)


def test_symbolic_links_are_followed_inside_the_image(tree: Path, dest: Path) -> None:
    info = build_image(tree, dest, no_sites, ignore)
    reader = ImageReader(dest, info.root_hash)
    assert b"".join(reader.cat("/etc/again")) == ELF
    assert b"".join(reader.cat("/../../bin/prog")) == ELF
    assert reader.entry("/etc/again").target == "/bin/../bin/prog"
    assert [entry.path for entry in reader.list("/bin")] == ["/bin/prog"]


def test_a_loop_of_links_is_an_error(tree: Path, dest: Path) -> None:
    (tree / "loop").symlink_to("loop")
    build_image(tree, dest, no_sites, ignore)
    with pytest.raises(Error, match="too many levels"):
        ImageReader(dest).list("/loop")


@pytest.mark.parametrize("path", ["/none", "/usr/none/x", "/etc/passwd/x"])
def test_a_missing_file_is_named(tree: Path, dest: Path, path: str) -> None:
    build_image(tree, dest, no_sites, ignore)
    with pytest.raises(Error, match=path):
        ImageReader(dest).entry(path)


def test_a_directory_has_no_content(tree: Path, dest: Path) -> None:
    build_image(tree, dest, no_sites, ignore)
    with pytest.raises(Error, match="not a regular file"):
        list(ImageReader(dest).cat("/usr"))


def test_site_tables_are_asked_for_elf_files_and_stored(tree: Path, dest: Path) -> None:
    asked: list[ElfFile] = []

    def sites(files: list[ElfFile]) -> dict[str, bytes]:
        asked.extend(files)
        return {"usr/bin/prog": b"table"}

    build_image(tree, dest, sites, ignore)
    mtime_ns = (tree / "usr/bin/prog").stat().st_mtime_ns
    assert asked == [ElfFile("usr/bin/prog", len(ELF), mtime_ns)]
    assert ImageReader(dest).sites("/bin/prog") == b"table"
    assert ImageReader(dest).sites("/big") == b""


def test_an_unchanged_tree_is_not_built_again(tree: Path, dest: Path) -> None:
    first = build_image(tree, dest, no_sites, ignore, tag=b"1")

    def never(_: list[ElfFile]) -> dict[str, bytes]:
        raise AssertionError("built again")

    assert build_image(tree, dest, never, ignore, tag=b"1") == first
    with pytest.raises(AssertionError):
        build_image(tree, dest, never, ignore, tag=b"2")
    (tree / "big").touch()
    with pytest.raises(AssertionError):
        build_image(tree, dest, never, ignore, tag=b"1")


def test_an_image_that_moved_with_its_manifest_is_up_to_date(tree: Path, dest: Path) -> None:
    info = build_image(tree, dest, no_sites, ignore)
    moved = dest.parent / "other" / "image.occ"
    moved.parent.mkdir()
    for suffix in ("", ".manifest"):
        os.link(f"{dest}{suffix}", f"{moved}{suffix}")
    assert scan(tree).up_to_date(moved, b"") == info


def test_progress_ends_at_the_total_and_its_exception_cancels(tree: Path, dest: Path) -> None:
    heard: list[tuple[int, int]] = []
    build_image(tree, dest, no_sites, lambda done, total: heard.append((done, total)))
    assert (
        heard[-1][0]
        == heard[-1][1]
        == sum(
            path.stat().st_size
            for path in tree.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
    )
    before = dest.read_bytes()
    (tree / "more").write_bytes(b"more")

    def cancel(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_image(tree, dest, no_sites, cancel)
    assert dest.read_bytes() == before
    assert sorted(path.name for path in dest.parent.iterdir()) == [
        "image",
        "image.occ",
        "image.occ.manifest",
    ]


def test_a_changed_byte_is_refused(tree: Path, dest: Path) -> None:
    info = build_image(tree, dest, no_sites, ignore)
    content = bytearray(dest.read_bytes())
    content[100_000] ^= 1
    dest.write_bytes(content)
    reader = ImageReader(dest, info.root_hash)
    with pytest.raises(VerificationError, match=r"leaf block 5 was changed"):
        reader.verify(ignore)


def test_another_image_is_refused(tree: Path, dest: Path) -> None:
    info = build_image(tree, dest, no_sites, ignore)
    (tree / "big").unlink()
    build_image(tree, dest, no_sites, ignore)
    with pytest.raises(VerificationError, match="not the one that the root hash names"):
        ImageReader(dest, info.root_hash)


def test_what_is_no_image_is_refused(dest: Path) -> None:
    dest.write_bytes(bytes(100_000))
    with pytest.raises(VerificationError, match="not a file-system image"):
        ImageReader(dest)
    with pytest.raises(Error, match="No such file"):
        ImageReader(dest.with_name("none"))


def test_names_that_are_not_utf8_survive(tree: Path, dest: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (tree / name).write_bytes(ELF)
    (tree / "link").symlink_to(name)
    build_image(tree, dest, lambda files: {file.path: b"t" for file in files}, ignore)
    reader = ImageReader(dest)
    assert reader.sites(f"/{name}") == b"t"
    assert reader.entry("/link").target == name
