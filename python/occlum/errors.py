"""The root of every error that Occlum raises on purpose.

A message says what, where, got and expected, in one line without a final full stop; ``hint`` says
what to do about it; ``code`` names the entry of `occlum.catalogue` that explains cause and remedy.
Modules derive their own classes where a caller may want to tell them apart.
Neighbours: every other module imports this one; this one imports nothing of ours.
"""

from __future__ import annotations


class Error(Exception):
    """A failure that is explained to a person.

    ``hint``: what to do, or None. ``exit_status``: what the command line exits with.
    ``also``: further problems found at the same time, for example in the same file.
    """

    exit_status = 1
    code = "general"
    """Every error that a person sees has one of its own; see `occlum.catalogue`."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        exit_status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.also: tuple[Error, ...] = ()
        if exit_status is not None:
            self.exit_status = exit_status
        if code is not None:
            self.code = code


class UsageError(Error):
    """The command line itself is wrong."""

    exit_status = 2
    code = "usage"


class VerificationError(Error):
    """Evidence (a measurement, a signature, a report, an image) does not hold."""

    code = "verification"
