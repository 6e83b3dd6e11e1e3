"""`kdgrade`: grading that an instructor can trust, on nbgrader's files and gradebook."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from grading.sandbox import Limits, NoSandbox

NO_SANDBOX = (
    "run students' code with no sandbox, as yourself: it can read and change whatever you can, the "
    "gradebook and the other submissions included. Only for code that you have read, or in a "
    "container that holds nothing else"
)
LIMIT_HELP = {
    "memory": "MB that all processes of a submission may use together",
    "processes": "how many processes it may have",
    "disk": "MB on each of its scratch disks",
    "output": "MB of its output that are kept",
    "cell": "seconds for one cell",
    "total": "seconds for a submission",
}


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    top = argparse.ArgumentParser(prog="kdgrade", description=__doc__)
    top.add_argument("--course", type=Path, default=Path(), help="the course folder (here)")
    commands = top.add_subparsers(dest="command", required=True)

    grade = commands.add_parser("autograde", help="grade what is new or changed in submitted/")
    grade.add_argument("units", nargs="+", metavar="UNIT")
    grade.add_argument("--jobs", type=int, default=0, help="worker processes (one for each core)")
    grade.add_argument("--db", default="", help="URL of the gradebook, as nbgrader takes it")
    grade.add_argument("--force", action="store_true", help="grade what has not changed, too")
    grade.add_argument(
        "--everything", action="store_true", help="also run the cells after the last check"
    )
    grade.add_argument("--executor", choices=("local", "dask"), default="local")
    grade.add_argument("--scheduler", default="", help="address of the dask scheduler")
    grade.add_argument("--no-sandbox", action="store_true", help=NO_SANDBOX)
    for field in fields(Limits):
        kind = type(field.default)
        text = f"{LIMIT_HELP[field.name]} ({field.default:g})"
        grade.add_argument(f"--limit-{field.name}", type=kind, default=field.default, help=text)
    return top


def autograde(arguments: argparse.Namespace) -> int:
    """Run `kdgrade autograde`."""
    from grading.autograde import Settings
    from grading.autograde import autograde as run

    if (arguments.executor == "dask") != bool(arguments.scheduler):
        raise SystemExit("kdgrade: --executor dask and --scheduler ADDRESS go together")
    limits = Limits(**{f.name: getattr(arguments, f"limit_{f.name}") for f in fields(Limits)})
    chosen = {"jobs": arguments.jobs} if arguments.jobs else {}
    settings = Settings(
        **chosen,
        sandboxed=not arguments.no_sandbox,
        everything=arguments.everything,
        force=arguments.force,
        db=arguments.db,
        scheduler=arguments.scheduler,
        limits=limits,
    )
    tally = run(arguments.course.resolve(), arguments.units, settings)
    print(
        f"{tally.graded} graded, {tally.unchanged} unchanged, "
        f"{tally.refused} refused, {tally.failed} failed"
    )
    return 1 if tally.failed else 0


def main(argv: list[str] | None = None) -> int:
    """Run a command and give its exit status."""
    from grading.gradebook import CourseError

    arguments = parser().parse_args(argv)
    try:
        return globals()[arguments.command](arguments)
    except (CourseError, NoSandbox) as error:
        print(f"kdgrade: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kdgrade: stopped; run it again and it goes on here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
