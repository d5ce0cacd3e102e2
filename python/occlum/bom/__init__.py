"""Bills of material: YAML files that say what an image consists of.

`occlum.bom.document` reads one with all it includes, `occlum.bom.copying` brings a tree to what it
says. The schema is the published one; wildcards, ``${BOM_DIR}`` and the report of stale files are
ours.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from occlum.errors import Error

TEMPLATES = Path(__file__).parent / "templates"
"""BOM files that others may include, and what they copy."""


class Exit(IntEnum):
    """Exit statuses of ``copy_bom``: the published ones, -1 to -7 as a shell sees them."""

    MISSING_FILE = 255
    COPY_FILE = 254
    BAD_BOM = 253
    MAKE_DIRECTORY = 252
    LINK = 251
    COPY_DIRECTORY = 250
    HASH = 249
    LIBRARY = 248


class BomError(Error):
    """What a BOM asks for can't be done; ``exit_status`` is one of `Exit`."""

    code = "bom-invalid"
