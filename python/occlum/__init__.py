"""Occlum: run unmodified Linux programs inside an Intel SGX enclave.

The command line is ``occlum.cli``; what it does is done by ``occlum.config`` (``Occlum.json``),
``occlum.image`` (programs into an image, an image into an enclave), ``occlum.elf`` (analysis of
programs) and ``occlum.sign`` (SIGSTRUCT). Every failure is an ``occlum.errors.Error``.

For programs, this module has what they need::

    instance = occlum.Instance.create("hello")
    instance.add("/bin/echo")
    instance.make()
    with occlum.Enclave.start(instance) as enclave:
        print(enclave.run(["/bin/echo", "hi"], stdout=occlum.PIPE).stdout)

``occlum.aio`` is the same for asyncio. Names are imported when they are first used: the command
line starts through this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from occlum.client import NotStartedError, ProcessInfo
    from occlum.enclave import Enclave
    from occlum.errors import Error
    from occlum.instance import Instance, InstanceError, State
    from occlum.process import DEVNULL, PIPE, STDOUT, Completed, Event, Process
    from occlum.wire import ControlError

__version__ = "0.1.0"

_HOMES = {
    "Completed": "process",
    "ControlError": "wire",
    "DEVNULL": "process",
    "Enclave": "enclave",
    "Error": "errors",
    "Event": "process",
    "Instance": "instance",
    "InstanceError": "instance",
    "NotStartedError": "client",
    "PIPE": "process",
    "Process": "process",
    "ProcessInfo": "client",
    "STDOUT": "process",
    "State": "instance",
}

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Completed",
    "ControlError",
    "Enclave",
    "Error",
    "Event",
    "Instance",
    "InstanceError",
    "NotStartedError",
    "Process",
    "ProcessInfo",
    "State",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'occlum' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"occlum.{home}"), name)
