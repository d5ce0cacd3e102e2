"""Every kind of failure of ours: its code, what causes it, what to do about it.

An `Error` carries a code; the command line prints it with the hint, ``occlum explain CODE`` prints
the entry, and ``docs/errors.md`` is generated from here by ``tools/reference.py``. A test finds
codes that no entry explains and entries that nothing raises.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One kind of failure."""

    cause: str
    remedy: str


ENTRIES: dict[str, Entry] = {
    "general": Entry(
        "A failure that has no code of its own; the message and the hint say all.",
        "Do what the hint says.",
    ),
    "usage": Entry(
        "The command line is wrong: an unknown option, a missing or superfluous argument.",
        "`occlum COMMAND --help` shows what the command takes.",
    ),
    "verification": Entry(
        "A measurement, signature or image is not what it claims to be.",
        "Build again from sources you trust; a changed `build/` is never repaired.",
    ),
    "system": Entry(
        "The system refused something: permission, room on the disk, a file that went away.",
        "The message is the system's own; `OCCLUM_LOG_LEVEL=debug` shows where it happened.",
    ),
    # Instances
    "instance": Entry(
        "The directory is no instance, is one already, or can't be written.",
        "`occlum new DIR` makes one; commands work in it and below it.",
    ),
    "instance-two-configs": Entry(
        "There are both `Occlum.json` and `Occlum.yaml`, and nobody says which counts.",
        "Keep one of them.",
    ),
    "not-built": Entry(
        "There is no finished build to run, print or package.",
        "`occlum build`",
    ),
    "not-started": Entry(
        "The command needs a started enclave, and nobody serves this instance.", "`occlum start`"
    ),
    "started-already": Entry(
        "The instance is started already; one enclave serves it.",
        "`occlum exec` runs a program in it, `occlum stop` ends it.",
    ),
    "start-failed": Entry(
        "The host program could not start the enclave.",
        "The message is its own; `occlum logs` and `occlum doctor` say more.",
    ),
    "enclave-ended": Entry(
        "The started enclave ended while a command waited for it.",
        "`occlum logs` shows its last words, `occlum start` starts another one.",
    ),
    "not-owner": Entry(
        "The instance was started by another user, whose socket is nobody else's.",
        "Be that user, or root.",
    ),
    "control": Entry(
        "The started enclave refused a request, or answered what no enclave of ours answers.",
        "The message is its own; a build of another version may still be running: `occlum stop`.",
    ),
    "no-log": Entry("The instance has not been started yet, so there is no log.", "`occlum start`"),
    "no-shell": Entry(
        "The image has neither bash nor sh.", "`occlum add /bin/bash`, then `occlum build`."
    ),
    "build-busy": Entry(
        "Another `occlum build` works on the same instance.",
        "Wait for it; the lock goes away with its process.",
    ),
    "mode-unsupported": Entry(
        "The build is for a CPU that this version can't run on.",
        "`occlum build --sgx-mode SIM`",
    ),
    "runtime-missing": Entry(
        "The kernel image or the host program is not where it should be.",
        "Unset `OCCLUM_PREFIX`, or install the package again.",
    ),
    "kernel-broken": Entry(
        "The kernel image is damaged, or was built with other flags than ours.",
        "Install the package again; `OCCLUM_PREFIX` may name a stale one.",
    ),
    # Configuration
    "config": Entry(
        "A value in the configuration can't be used; the message has file, line, got and expected.",
        "Do what the hint says; `occlum config schema` lets an editor check while you type.",
    ),
    "config-key": Entry(
        "The configuration has no such key.",
        "`occlum config get` prints all keys with their values.",
    ),
    "config-suggest": Entry(
        "A run told nothing about what it used: it did not come to its end, or logs are off.",
        "Let the program end by itself; `metadata.disable_log` must be false for it.",
    ),
    "config-write": Entry(
        "The configuration can't be written; it is as it was.",
        "Look at permissions and at the room on the disk.",
    ),
    # Images
    "image": Entry(
        "Something in `image/`, or to be put there, has a form that an image can't hold.",
        "Images hold directories, regular files and symbolic links; remove what is else.",
    ),
    "image-write": Entry(
        "A file, link or directory can't be written into the tree.",
        "Look at permissions and at the room on the disk; what is there already is whole.",
    ),
    "elf": Entry(
        "A program or library is no x86-64 ELF file, or is cut off.",
        "Copy it again, or take the file for this machine.",
    ),
    "library-missing": Entry(
        "A program needs a shared library that the loader would not find on this machine.",
        "Install the package that has it, or put it into `image/usr/lib` by hand.",
    ),
    "program-missing": Entry(
        "The program to add is not on this machine.",
        "Name it by its path, or install it; `occlum add --deb` fetches a Debian package.",
    ),
    "interpreter-missing": Entry(
        "A script's first line names an interpreter that is not on this machine.",
        "Install the interpreter, or correct the line.",
    ),
    "program-path": Entry(
        "`occlum run` got something that is no absolute path in the image.",
        "Write the path as programs inside see it, such as `/bin/ls`.",
    ),
    "python-package": Entry(
        "A Python package is not installed here, or for another version of Python.",
        "`occlum add --python requirements.txt` lets pip bring packages for the image's Python.",
    ),
    "runtime-library": Entry(
        "An interpreter could not be asked where its library is.",
        "See whether it runs outside of the enclave.",
    ),
    "python-requirements": Entry(
        "pip can't install the requirements for the Python of the image.",
        "Run pip by hand with the same file; a package may lack a wheel for this version.",
    ),
    "python-requirements-missing": Entry(
        "The requirements file is not there.", "Paths are relative to the current directory."
    ),
    "python-pip": Entry(
        "Neither the image's Python nor ours has pip.", "`apt install python3-pip`"
    ),
    "debian": Entry(
        "A Debian package is unknown, can't be downloaded, or this is no Debian.",
        "`apt-get update` knows new packages; elsewhere, name programs by their path.",
    ),
    # Bills of material
    "bom-missing": Entry(
        "A BOM, or a file or directory it names, is not there.",
        "Paths are relative to the current directory; `--include-dir` helps with included BOMs.",
    ),
    "bom-invalid": Entry(
        "A BOM breaks its schema; the message has file and line.", "`docs/bom.md` has an example."
    ),
    "bom-copy-file": Entry(
        "A file of a BOM can't be copied.", "Look at permissions and at the room on the disk."
    ),
    "bom-copy-directory": Entry(
        "A directory of a BOM can't be copied.", "Look at permissions and at the room on the disk."
    ),
    "bom-make-directory": Entry(
        "A directory of a BOM can't be made, often because a file has its name.",
        "Remove the file, or rename the directory.",
    ),
    "bom-link": Entry(
        "A link of a BOM can't be made, often because a directory has its name.",
        "Remove the directory from the tree, or the link from the BOM.",
    ),
    "bom-hash": Entry(
        "A file is not the one whose SHA-256 the BOM gives.",
        "Take the file that was meant, or correct the hash if the new one is wanted.",
    ),
    "bom-library": Entry(
        "A file that a BOM names needs a library that is not there.",
        "Install it, or write `autodep: false` if the program finds it in its own way.",
    ),
    # Container images
    "oci": Entry(
        "The archive is no container image, or a broken one.",
        "`occlum import` takes what docker save, skopeo and umoci write.",
    ),
    "oci-missing": Entry("The container image is not there.", "Look at the path."),
    "oci-digest": Entry(
        "A part of the container image is not what its digest promises.",
        "It was changed or damaged on its way; get it again.",
    ),
    "oci-hostile": Entry(
        "A layer has names that lead out of the image.",
        "Nothing was changed; don't use the image, its author means harm or has broken tools.",
    ),
    "oci-choice": Entry(
        "The archive holds several images, or none for this machine.",
        "`--reference NAME` chooses one.",
    ),
    "oci-replace": Entry(
        "`image/` holds files of yours, which the container image would replace.",
        "`--replace`, or a fresh instance.",
    ),
    "oci-write": Entry(
        "A layer can't be unpacked; `image/` is as it was.",
        "Look at permissions and at the room on the disk.",
    ),
    "oci-zstd": Entry("A layer is compressed with zstd, which is not here.", "`apt install zstd`"),
    # Signing and releases
    "sign-key": Entry(
        "A signing key can't be read, or is none that SGX takes.",
        "`openssl genrsa -3 -out key.pem 3072` makes one.",
    ),
    "sign-tool": Entry(
        "The signing tool failed, or signed with another key than `--sign-key` names.",
        "It reads what is to be signed and writes 384 bytes; try it by hand.",
    ),
    "release-debug-key": Entry(
        "`metadata.debuggable` is false, and a release is not signed with a debug key.",
        "`--sign-key` names the release's own key.",
    ),
    "package": Entry("The instance can't be packaged.", "The message says why."),
    "package-debug": Entry(
        "Simulated and debuggable builds keep nothing secret, so they are no releases.",
        "`occlum package --debug` packages one for tests.",
    ),
    "package-write": Entry(
        "The archive can't be written; nothing is left of it.",
        "Look at permissions and at the room on the disk.",
    ),
    # Tools
    "tool-missing": Entry(
        "The compiler or tool behind a wrapper is not in PATH.",
        "Install it, or name another in the environment, as `OCCLUM_CC` does for gcc.",
    ),
}
