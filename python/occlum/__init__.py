"""Occlum: run unmodified Linux programs inside an Intel SGX enclave.

The command line is ``occlum.cli``; what it does is done by ``occlum.config`` (``Occlum.json``),
``occlum.image`` (programs into an image, an image into an enclave), ``occlum.elf`` (analysis of
programs) and ``occlum.sign`` (SIGSTRUCT). Every failure is an ``occlum.errors.Error``.
"""

__version__ = "0.1.0"
