"""The `featkit` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line in sys.argv; returns the exit status."""
    try:
        if sys.argv[1:] == ["--version"] and _print_version():
            return 0
        from featkit.cli.app import run
    except KeyboardInterrupt:
        return 130
    return run(sys.argv[1:])


def _print_version() -> bool:
    """Before anything is imported: scripts ask this in a loop. If stdout cannot be written, `run` says so."""
    from featkit import __version__

    try:
        print(f"featkit {__version__}", flush=True)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
