"""Debian packages into the image: `occlum add --deb NAME`.

The closure of dependencies is dpkg's own. A package that is installed here is taken from this
machine; one that is not is downloaded with apt-get and unpacked, without being installed. Scripts
of packages don't run; the links of update-alternatives, which they would make, come along.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from occlum.elf.file import is_elf
from occlum.errors import Error
from occlum.image.programs import Adder

Progress = Callable[[str, int, int], None]

# Only of use where packages are installed or a machine is booted.
SETUP_ONLY = frozenset(
    ("adduser", "cdebconf", "dbus", "debconf", "dpkg", "init-system-helpers", "libpam-systemd",
     "lsb-base", "passwd", "perl-openssl-defaults", "sensible-utils", "systemd", "systemd-sysv",
     "sysvinit-utils", "ucf", "udev")
)  # fmt: skip
_UNWANTED = re.compile(
    r"/usr/share/(?:doc|man|info|lintian|bug|locale|doc-base|menu|pixmaps|applications)/"
    r"|/(?:lib|usr/lib|etc)/systemd/|/etc/(?:init\.d|logrotate\.d|cron\.)|/usr/share/bash-completion/"
)
_ALTERNATIVES = Path("/var/lib/dpkg/alternatives")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?")
_FORMAT = (
    "${Package}\t${db:Status-Status}\t${Architecture}\t${Depends}, ${Pre-Depends}\t${Provides}\n"
)
TIMEOUT_S = 600


class DebianError(Error):
    """A Debian package can't be taken into the image."""

    code = "debian"


@dataclass(frozen=True)
class Package:
    """``root`` is where its files are: / when it is installed."""

    name: str
    depends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]
    root: Path


def add(adder: Adder, names: Iterable[str], progress: Progress) -> list[str]:
    """Bring packages with all they depend on into the image; returns the packages brought."""
    wanted = list(names)
    for name in wanted:
        if not _NAME.fullmatch(name):
            raise DebianError(f'"{name}" is no name of a Debian package')
    known = _installed()
    with tempfile.TemporaryDirectory(prefix="occlum-deb-") as staging:
        missing = [name for name in wanted if name not in known]
        if missing:
            known |= _downloaded(missing, Path(staging), progress)
        packages = list(_closure(wanted, known))
        for done, package in enumerate(packages):
            progress(f"adding {package.name}", done, len(packages))
            _copy(adder, package)
        _alternatives(adder)
    return [package.name for package in packages]


def _installed() -> dict[str, Package]:
    found = {}
    for line in _run(["dpkg-query", "-W", f"-f={_FORMAT}"]).splitlines():
        name, status, architecture, depends, provides = line.split("\t")
        if status == "installed" and architecture in ("amd64", "all"):
            found[name] = _package(name, depends, provides, Path("/"))
    return found


def _package(name: str, depends: str, provides: str, root: Path) -> Package:
    groups = tuple(tuple(_bare(each) for each in group.split("|")) for group in depends.split(","))
    named = tuple(_bare(each) for each in provides.split(",") if each.strip())
    return Package(name, tuple(group for group in groups if group != ("",)), named, root)


def _bare(relation: str) -> str:
    """``libc6:any (>= 2.36)`` is ``libc6``."""
    return relation.strip().partition(" ")[0].partition(":")[0]


def _closure(names: list[str], known: dict[str, Package]) -> Iterator[Package]:
    providers = {each: package for package in known.values() for each in package.provides}
    waiting = list(reversed(names))
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        package = known.get(name) or providers.get(name)
        if package is None or package.name in seen:
            continue
        seen.add(package.name)
        yield package
        for group in package.depends:
            chosen = next((each for each in group if each in known or each in providers), None)
            if chosen is not None and chosen not in SETUP_ONLY:
                waiting.append(chosen)


def _downloaded(names: list[str], staging: Path, progress: Progress) -> dict[str, Package]:
    """Packages that apt would install for these, unpacked."""
    plan = _run(["apt-get", "-s", "-q", "install", "--no-install-recommends", *names], names)
    chosen = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", plan, re.MULTILINE)
    found = {}
    for done, (name, version) in enumerate(chosen):
        progress(f"downloading {name}", done, len(chosen))
        target = staging / name.partition(":")[0]
        target.mkdir()
        _run(["apt-get", "-q", "download", f"{name}={version}"], names, cwd=target)
        archive = next(target.glob("*.deb"))
        _run(["dpkg-deb", "-x", str(archive), str(target / "root")])
        fields = {
            field: _run(["dpkg-deb", "-f", str(archive), field]).strip()
            for field in ("Package", "Depends", "Pre-Depends", "Provides")
        }
        depends = f"{fields['Depends']}, {fields['Pre-Depends']}"
        name = fields["Package"]
        found[name] = _package(name, depends, fields["Provides"], target / "root")
    return found


def _copy(adder: Adder, package: Package) -> None:
    files = []
    for path in _files(package):
        here = package.root / path.relative_to("/")
        if _UNWANTED.search(str(path)):
            continue
        if here.is_symlink() and package.root != Path("/"):
            adder.tree.link(path, str(here.readlink()))
        elif here.is_dir():
            if package.root != Path("/"):
                adder.tree.make_directory(path)
        elif here.is_file() and package.root == Path("/"):
            files.append(adder.tree.add(path))
        elif here.is_file():
            adder.tree.copy_to(here, path)
            files.append(here)
    _libraries(adder, package, files)


def _libraries(adder: Adder, package: Package, files: list[Path]) -> None:
    """The loader, and links for libraries in directories that only ld.so.cache knows."""
    if package.root != Path("/"):
        return  # Its dependencies bring what its files need.
    for file in files:
        if is_elf(file):
            adder.optional(file)


def _files(package: Package) -> list[Path]:
    if package.root != Path("/"):
        return sorted(
            Path("/") / path.relative_to(package.root) for path in package.root.rglob("*")
        )
    listed = _run(["dpkg-query", "-L", package.name]).splitlines()
    return [Path(line) for line in listed if line.startswith("/") and line != "/."]


def _alternatives(adder: Adder) -> None:
    """Links such as /usr/bin/java whose end is in the image now."""
    if not _ALTERNATIVES.is_dir():
        return
    for record in sorted(_ALTERNATIVES.iterdir()):
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines[1:]:
            link = Path(line)
            if line.startswith("/") and link.is_symlink():
                real = link.resolve()
                if real.is_file() and adder.tree.has(real) and not adder.tree.has(link):
                    adder.tree.add(link)


def _run(command: list[str], names: Iterable[str] = (), cwd: Path | None = None) -> str:
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        ).stdout  # fmt: skip
    except FileNotFoundError:
        raise DebianError(
            f"{command[0]} is not on this machine",
            hint="--deb works on Debian and what descends from it",
        ) from None
    except subprocess.CalledProcessError as problem:
        said = next((line for line in problem.stderr.splitlines() if line.startswith("E:")), "")
        raise DebianError(
            f"{' '.join(names) or command[0]}: {said.removeprefix('E: ') or problem}",
            hint="apt-get update, if the package is a new one",
        ) from None
    except subprocess.TimeoutExpired:
        raise DebianError(f"{command[0]} takes longer than {TIMEOUT_S} s") from None
