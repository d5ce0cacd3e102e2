"""The C library of embedded mode, as source: ``occlum_pal.h`` and ``occlum_pal.c`` in `DIRECTORY`.

It speaks the control socket's frames (``docs/format/control.md``), as `occlum.wire` does.
"""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent
