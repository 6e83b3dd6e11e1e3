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

    take = commands.add_parser("collect", help="take in zips, folders and single notebooks")
    take.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    take.add_argument("--unit", default="", help="of all of them (read off the notebooks)")
    take.add_argument("--student", default="", help="whose all of them are (read off the names)")

    grade = commands.add_parser("autograde", help="grade what is new or changed in submitted/")
    grade.add_argument("units", nargs="+", metavar="UNIT")
    grade.add_argument("--jobs", type=int, default=0, help="worker processes (one for each core)")
    grade.add_argument("--db", default="", help="URL of the gradebook, as nbgrader takes it")
    grade.add_argument("--force", action="store_true", help="grade what has not changed, too")
    grade.add_argument(
        "--policy", choices=("latest", "best"), default="latest", help="which attempt counts"
    )
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

    page = commands.add_parser("report", help="one HTML page: what to teach again, whom to look at")
    page.add_argument("unit", metavar="UNIT")
    page.add_argument("--to", type=Path, help="the file (reports/UNIT.html)")
    page.add_argument(
        "--pseudonyms", action="store_true", help="numbers in place of the students' names"
    )

    table = commands.add_parser("export", help="the grades as a table")
    table.add_argument("units", nargs="*", metavar="UNIT")
    table.add_argument("--format", choices=("csv", "canvas", "moodle"), default="csv")
    table.add_argument("--to", type=Path, help="the file (standard output)")
    table.add_argument("--db", default="", help="URL of the gradebook, as nbgrader takes it")
    return top


def collect(arguments: argparse.Namespace) -> int:
    """Run `kdgrade collect`."""
    from grading.collect import collect as run

    root = arguments.course.resolve()
    counts: dict[str, int] = {}
    for received in run(root, arguments.paths, arguments.unit, arguments.student):
        print(received)
        counts[received.status] = counts.get(received.status, 0) + 1
    print(", ".join(f"{n} {status}" for status, n in counts.items()) or "no notebook found")
    return 0 if counts and "refused" not in counts else 1


def report(arguments: argparse.Namespace) -> int:
    """Run `kdgrade report`."""
    from grading.report import report as run

    root = arguments.course.resolve()
    path = arguments.to or root / "reports" / f"{arguments.unit}.html"
    text = run(root, arguments.unit, arguments.pseudonyms)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    print(path)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Run `kdgrade export`."""
    from grading.export import export as run

    text = run(arguments.course.resolve(), arguments.format, arguments.units, arguments.db)
    if arguments.to:
        arguments.to.write_text(text, "utf-8")
    else:
        print(text, end="")
    return 0


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
        policy=arguments.policy,
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
    from grading.gradebook import CourseError, UnknownUnit

    arguments = parser().parse_args(argv)
    try:
        return globals()[arguments.command](arguments)
    except (CourseError, NoSandbox) as error:
        print(f"kdgrade: {error}", file=sys.stderr)
        return 1 if isinstance(error, UnknownUnit) else 2
    except KeyboardInterrupt:
        print("kdgrade: stopped; run it again and it goes on here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
