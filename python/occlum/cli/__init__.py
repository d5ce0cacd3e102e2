"""The command line."""

from __future__ import annotations


def main() -> None:
    """Entry of the ``occlum`` command."""
    import occlum

    print(f"occlum {occlum.__version__}")
