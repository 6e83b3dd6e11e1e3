"""Build and check the units: `python -m course build`, `... lint`, `... mutate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat

from course import drawing
from course.build import execute, without_alt, without_outputs
from course.lint import clause_table, fragile_outputs, lint
from course.markers import Project, SourceError, expand, read
from course.publish import publish
from course.release import differences, guard_work, release, write

ROOT = Path(__file__).resolve().parents[1]
# Executed before figures carried alternative text: a run takes a quarter of an hour. Its source and
# the students' copy have the text; take the unit out of here when it is built again.
PICTURES_BEFORE = ("16_real_llm",)


def sources(root: Path, units: list[str]) -> list[Path]:
    """Find the sources of the units that are named, `02` or `02_soft_targets`; all by default."""
    found = sorted((root / "solutions").glob("[0-9][0-9]_*.py"))
    wanted = [Path(unit).stem for unit in units]
    for unit in wanted:
        if not any(_named(unit, path) for path in found):
            known = ", ".join(path.stem for path in found) or "none"
            raise SourceError(f"there is no unit {unit!r}; there are {known}")
    return [p for p in found if not wanted or any(_named(unit, p) for unit in wanted)]


def _named(unit: str, path: Path) -> bool:
    return path.stem == unit or path.stem.split("_")[0] == unit


def lint_all(root: Path, paths: list[Path], catalogue: dict) -> None:
    """Raise one SourceError with every problem of every unit."""
    problems = [problem for path in paths for problem in lint(path, catalogue)]
    if problems:
        problems = [problem.removeprefix(f"{root}/") for problem in problems]
        raise SourceError("\n".join(problems))


def lint_outputs(paths: list[Path]) -> None:
    """Raise one SourceError with every figure that another processor would round otherwise."""
    built = [path.with_suffix("") / f"{path.stem}.ipynb" for path in paths]
    problems = [
        problem
        for path in built
        if path.exists()
        for problem in fragile_outputs(path.stem, nbformat.read(path, as_version=4))
    ]
    if problems:
        raise SourceError("\n".join(problems))


def build(root: Path, paths: list[Path], catalogue: dict, force: bool) -> None:
    """Write the solution and the student's notebook of each unit."""
    lint_all(root, paths, catalogue)
    released = {path: root / "notebooks" / path.stem / f"{path.stem}.ipynb" for path in paths}
    for target in released.values():
        guard_work(target, force)
    project = Project.read(root)
    for path, target in released.items():
        unit = path.stem
        solution = path.with_suffix("") / f"{unit}.ipynb"
        notebook = expand(unit, read(path), catalogue, project)
        student = release(unit, notebook, root / "nbgrader_config.py")
        print(f"{unit}: running ...", flush=True)
        seconds = execute(unit, notebook)
        content = (nbformat.writes(notebook) + "\n").encode()
        write(solution, content)
        write(target, student)
        print(f"{unit}: ran in {seconds:.1f} s, {len(content) / 1000:.0f} kB", flush=True)


def check(root: Path, paths: list[Path], catalogue: dict) -> None:
    """Raise a SourceError when a committed notebook is not what its source builds."""
    lint_all(root, paths, catalogue)
    project, lines = Project.read(root), []
    for path in paths:
        unit = path.stem
        solution = path.with_suffix("") / f"{unit}.ipynb"
        target = root / "notebooks" / unit / f"{unit}.ipynb"
        missing = [file for file in (solution, target) if not file.exists()]
        if missing:
            lines += [f"{file.relative_to(root)}: missing" for file in missing]
            continue
        notebook = expand(unit, read(path), catalogue, project)
        student = release(unit, notebook, root / "nbgrader_config.py").decode()
        executed = nbformat.read(solution, as_version=4)
        stored = without_outputs(executed)
        if unit not in PICTURES_BEFORE:
            lines += without_alt(unit, executed)
        lines += differences(
            str(solution.relative_to(root)), stored, without_outputs(notebook)
        ) + differences(
            str(target.relative_to(root)), target.read_bytes().decode(errors="replace"), student
        )
    if lines:
        raise SourceError("\n".join([*lines, "Build again: make release"]))
    print(f"{len(paths)} units: what is committed is what the sources build")


def orphans(root: Path) -> list[str]:
    """Find folders of units that have no source any more."""
    return [
        f"{folder.relative_to(root)}/: there is no solutions/{folder.name}.py"
        for side in ("solutions", "notebooks")
        for folder in sorted((root / side).glob("[0-9][0-9]_*/"))
        if not (root / "solutions" / f"{folder.name}.py").exists()
    ]


def main(
    arguments: list[str] | None = None, root: Path = ROOT, catalogue: dict | None = None
) -> None:
    """Read the command line; exit with 1 and the list of problems when there are any."""
    parser = argparse.ArgumentParser(prog="python -m course", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    builds = commands.add_parser("build", help="write the executed and the released notebooks")
    builds.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    builds.add_argument("--force", action="store_true", help="replace work, keeping a copy of it")
    lints = commands.add_parser("lint", help="say what the units lack")
    mutates = commands.add_parser("mutate", help="say which small mistakes earn full marks")
    mutates.add_argument("what", nargs="*", metavar="WHAT", help="02 or 02.kd_loss; all by default")
    mutates.add_argument("--jobs", type=int, default=2, help="processes (2)")
    mutates.add_argument("--anew", action="store_true", help="do not read what was found before")
    lints.add_argument("--clauses", action="store_true", help="print each clause and its criteria")
    publishes = commands.add_parser("publish", help="write the public address everywhere")
    publishes.add_argument("url", metavar="URL", help="https://github.com/OWNER/NAME")
    commands.add_parser("draw", help="draw docs/architecture.svg from the code's imports")
    for command in (builds, lints):
        command.add_argument("units", nargs="*", metavar="UNIT", help="02 or 02_soft_targets")
    options = parser.parse_args(arguments)
    if options.command == "draw":
        (root / drawing.FILE).write_text(drawing.draw(root), encoding="utf-8")
        return
    try:
        if options.command == "mutate":
            from course.mutate import mutate

            raise SystemExit(not mutate(options.what, options.jobs, not options.anew))
        paths = sources(root, getattr(options, "units", []))
        if not paths:
            print("there is no unit in solutions/ yet")
            return
        if catalogue is None:
            from kdlib.checks import catalogue as load

            catalogue = load()
        if options.command == "publish":
            publish(root, paths, catalogue, options.url)
        elif options.command == "lint":
            if options.clauses:
                print("\n".join(line for path in paths for line in clause_table(path)))
            lint_all(root, paths, catalogue)
            lint_outputs(paths)
            if not options.units and drawing.stale(root):
                raise SourceError(f"{drawing.FILE} is stale: python -m course draw")
            print(f"{len(paths)} units: nothing to complain about")
        elif options.check:
            if not options.units and (lost := orphans(root)):
                raise SourceError("\n".join(lost))
            check(root, paths, catalogue)
        else:
            build(root, paths, catalogue, options.force)
    except SourceError as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
