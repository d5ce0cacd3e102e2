"""The verbs of ``occlum``: one module each, imported when it is called.

A module ``occlum.cli.verbs.VERB`` (``-`` becomes ``_``; a Python keyword gets a ``_`` at its end)
has one click command named ``command``, whose docstring begins with the summary that stands here.
Verbs in `DIRECT` take a short way without click, because their cost is paid with every call; their
module here serves help, manual pages and completion. Nothing is imported for ``occlum --help``.
"""

from __future__ import annotations

SECTIONS: dict[str, dict[str, str]] = {
    "Instances": {
        "new": "Make a new instance in DIRECTORY, which must not exist yet.",
        "init": "Make the current directory an instance.",
        "status": "Print the state of this instance: initialized, built or running.",
    },
    "Images": {
        "add": "Copy PROGRAMS from this machine into the image, with all they need.",
        "import": "Turn SOURCE, a Docker or OCI image, into the image of this instance.",
        "build": "Build the enclave of this instance: file-system image, measurement, signature.",
        "config": "Read, change, check and size the configuration of this instance.",
        "print": "Print the measurement of the enclave, or of its signer's key.",
    },
    "Running": {
        "run": "Run PROGRAM, an absolute path in the image, with ARGUMENTS to its end.",
        "start": "Start the enclave of this instance; it stays up until occlum stop.",
        "exec": "Run PROGRAM, an absolute path in the image, in the started enclave.",
        "shell": "Run a shell in the started enclave: bash or sh, or PROGRAM.",
        "ps": "List the processes in the started enclave.",
        "kill": "Send a signal to processes in the started enclave, by their ids in occlum ps.",
        "logs": "Show what the started enclave has printed, this time and before.",
        "top": "Show live what the started enclave does: processes, CPU, memory, exits.",
        "stop": "End all programs and the started enclave.",
    },
    "Files": {
        "fs": "Look into the image and the encrypted store, check them, copy them.",
        "mount": "Show the files of this instance, image and store, at DIRECTORY until Ctrl-C.",
        "gen-image-key": "Write a new random key of 256 bits to FILE, as xx-xx-...",
    },
    "Looking inside": {
        "profile": "Run PROGRAM as occlum run does and tell where time goes in the enclave.",
        "gdb": "Run PROGRAM in an enclave of the simulated CPU under GDB.",
        "trace": "Run PROGRAM as occlum run does and print its system calls.",
    },
    "Releases": {
        "package": "Pack what running this instance needs into NAME, by default DIRECTORY.tar.gz.",
    },
    "About Occlum": {
        "doctor": "Look at this machine, and say what the absence of something means.",
        "explain": "Explain the error CODE: cause and remedy; without CODE, list all codes.",
        "completion": "Print a script that completes occlum's commands and options in SHELL.",
        "man": "Write the manual pages of all commands into DIRECTORY.",
        "version": "Print the version.",
    },
}

# verb -> (module, function of the arguments after the verb)
DIRECT = {
    "run": ("occlum.cli.run", "run"),
    "exec": ("occlum.cli.exec", "main"),
}


def summaries() -> dict[str, str]:
    """Summary of each verb, in the order of help."""
    return {name: text for verbs in SECTIONS.values() for name, text in verbs.items()}


def module_name(verb: str) -> str:
    """The module that holds the verb's command."""
    name = verb.replace("-", "_")
    if name in ("import", "global", "with"):
        name += "_"
    return f"{__name__}.{name}"


def help_text() -> str:
    """What ``occlum --help`` prints."""
    lines = [
        "Usage: occlum [OPTIONS] COMMAND [ARGS]...",
        "",
        "  Run unmodified Linux programs inside an Intel SGX enclave.",
    ]
    width = max(map(len, summaries()))
    for section, verbs in SECTIONS.items():
        lines += ["", f"{section}:"]
        lines += [f"  {name:<{width}}  {text.rstrip('.')}" for name, text in verbs.items()]
    lines += [
        "",
        "Options:",
        "  -h, --help  Show this message; occlum COMMAND --help shows one command's.",
        "  --version   Print the version.",
    ]
    return "\n".join(lines)
