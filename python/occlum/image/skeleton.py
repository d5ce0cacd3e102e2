"""An empty instance: directories, a default ``Occlum.json``, and the few files of ``/etc`` that
libraries read.

The tree is merged-usr (``/bin`` is a link to ``usr/bin``, and so on) as on current distributions,
so that a program is found under either name. The files of ``/etc`` are those of the bundled BOM.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from occlum import config
from occlum.bom import TEMPLATES
from occlum.instance import Instance, InstanceError

DIRECTORIES = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "host": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr/bin": 0o755,
    "usr/lib": 0o755,
    "usr/lib64": 0o755,
    "usr/lib/x86_64-linux-gnu": 0o755,
    "usr/local/bin": 0o755,
    "usr/local/lib": 0o755,
    "usr/sbin": 0o755,
    "usr/share": 0o755,
    "var/tmp": 0o1777,
}

LINKS = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "sbin": "usr/sbin",
    "var/run": "../run",
    "etc/mtab": "../proc/self/mounts",
}


# Files that programs read and container tools put there at run time.
_ALWAYS = ("hosts", "hostname", "resolv.conf")


def create(root: Path, *, new: bool) -> Instance:
    """Make ``root`` an instance. With ``new`` it must not exist; otherwise it must not be one.

    Everything is prepared beside its place and moved there at the end, so a failure leaves nothing.
    """
    instance = Instance(root)
    if new and root.exists():
        raise InstanceError(
            f"{root} is already there", hint=f"choose another name, or: cd {root} && occlum init"
        )
    for path in (instance.config, instance.image, instance.initfs, instance.build.root):
        if path.exists():
            raise InstanceError(f"{path} is already there", hint="occlum new DIR makes a fresh one")
    parent = root.parent if new else root
    try:
        staging = Path(tempfile.mkdtemp(prefix=".occlum-new-", dir=parent))
    except OSError as problem:
        raise InstanceError(f"{parent} can't be written: {problem.strerror}") from None
    try:
        _fill(Instance(staging))
        _move(staging, root, new=new)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return instance


def is_untouched(image: Path) -> bool:
    """Whether the tree holds no file but those that `create` puts there."""
    own = {f"etc/{file.name}" for file in (TEMPLATES / "etc").iterdir()}
    for base, directories, files in os.walk(image):
        links = [name for name in directories if os.path.islink(os.path.join(base, name))]
        for name in files + links:
            path = os.path.relpath(os.path.join(base, name), image)
            if path not in own and path not in LINKS:
                return False
    return True


def add_mount_points(image: Path) -> None:
    """What the LibOS mounts over, where a tree from elsewhere lacks it."""
    for name in ("dev", "proc", "sys", "tmp", "host", "run", "root"):
        path = image / name
        if not os.path.lexists(path):
            path.mkdir(mode=DIRECTORIES[name])
            path.chmod(DIRECTORIES[name])
    etc = image / "etc"
    if etc.is_dir() and not etc.is_symlink():
        for file in sorted((TEMPLATES / "etc").iterdir()):
            if file.name in _ALWAYS and not os.path.lexists(etc / file.name):
                shutil.copyfile(file, etc / file.name)


def _fill(instance: Instance) -> None:
    for name, mode in DIRECTORIES.items():
        path = instance.image / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    for name, target in LINKS.items():
        (instance.image / name).symlink_to(target)
    for file in sorted((TEMPLATES / "etc").iterdir()):
        shutil.copyfile(file, instance.image / "etc" / file.name)
    for directory in (instance.initfs, instance.build.root, instance.run):
        directory.mkdir()
    instance.config.write_text(config.default_text(), encoding="utf-8")


def _move(staging: Path, root: Path, *, new: bool) -> None:
    if new:
        staging.chmod(0o755)
        staging.rename(root)
        return
    for entry in staging.iterdir():
        target = root / entry.name
        if target.exists():  # run/ may hold a person's data from before
            continue
        entry.rename(target)
