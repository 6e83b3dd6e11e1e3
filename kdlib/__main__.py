"""`python -m kdlib progress`: how far you are."""

from __future__ import annotations

import argparse


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m kdlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("progress", help="exercise by exercise: points, tries, last result")
    parser.parse_args()
    from kdlib.notebook import progress

    print(progress.Dashboard())
    where = progress.path()
    print(f"\nrecord: {where}" if where else "\nrecord: switched off (KDLIB_PROGRESS=off)")


if __name__ == "__main__":
    main()
