"""``python -m occlum``, and the ``occlum`` command."""

from __future__ import annotations

from occlum.cli import main

if __name__ == "__main__":
    main()
