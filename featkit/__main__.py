"""The `featkit` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line in sys.argv; returns the exit status."""
    if sys.argv[1:] == ["--version"]:
        # Before anything is imported: scripts ask this in a loop.
        from featkit import __version__

        print(f"featkit {__version__}")
        return 0
    from featkit.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
