"""The course's home page: one line for each unit, whatever else is missing or damaged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course import home
from course.lab import environment
from grading.notebooks import REPOSITORY
from kdlib.checks import catalogue

UNITS = sorted(path.name for path in (REPOSITORY / "notebooks").glob("[0-9][0-9]_*/"))


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course folder of the test's own, and a reader who has done nothing."""
    monkeypatch.setenv("KDLIB_PROGRESS", str(tmp_path / "progress.json"))
    shutil.copytree(REPOSITORY / "notebooks", tmp_path / "notebooks")
    return tmp_path


def lines(course: Path) -> dict[str, list[str]]:
    """The page's table: the number of a unit -> its cells."""
    text = home.write(course).read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| [")]
    return {row[0].strip()[1:3]: [cell.strip() for cell in row] for row in rows}


def test_every_unit_has_a_link_what_it_gives_minutes_and_points(course: Path) -> None:
    found = lines(course)
    assert list(found) == [unit[:2] for unit in UNITS]
    for unit, row in zip(UNITS, found.values(), strict=True):
        assert row[0].endswith(f"]({unit}/{unit}.ipynb)")
        assert all(row[1:]), row
        points = sum(e.points for e in catalogue().values() if e.id.startswith(unit[:2]))
        assert row[4] == f"0 of {points:g}"
        assert 30 <= int(row[3]) <= 180


def test_a_new_reader_begins_and_a_known_one_goes_on(course: Path) -> None:
    first = home.write(course).read_text(encoding="utf-8")
    assert f"**Begin with [00 · Start here]({home.FIRST}/{home.FIRST}.ipynb)**" in first
    unit = [e for e in catalogue().values() if e.id.startswith("00.")]
    record = {e.id: {"best": e.points, "of": e.points} for e in unit}
    (course / "progress.json").write_text(json.dumps(record))
    second = home.write(course).read_text(encoding="utf-8")
    assert "**Go on with [01 · " in second
    done = sum(e.points for e in unit)
    assert lines(course)["00"][4] == f"{done:g} of {done:g}"


@pytest.mark.parametrize("record", ["{", "[]", '{"00.nll": {"best": "much"}, "x": {}}', "off"])
def test_a_record_that_cannot_be_read_counts_as_none(
    course: Path, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    if record == "off":
        monkeypatch.setenv("KDLIB_PROGRESS", "off")
    (course / "progress.json").write_text(record)
    assert {row[4].split()[0] for row in lines(course).values()} == {"0"}


def test_a_damaged_notebook_keeps_its_line(course: Path) -> None:
    (course / "notebooks" / UNITS[1] / f"{UNITS[1]}.ipynb").write_text("{")
    shutil.rmtree(course / "notebooks" / UNITS[-1])
    found = lines(course)
    assert list(found) == [unit[:2] for unit in UNITS[:-1]]
    assert found["01"][3:] == ["", ""]


def test_the_readme_lists_every_unit() -> None:
    table = home.syllabus((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert {unit[:2] for unit in UNITS} <= {n for n, row in table.items() if row[0][0] != "*"}


def test_writing_it_does_not_import_torch() -> None:
    code = (
        "import sys; from course import lab, home; home._progress(); print('torch' in sys.modules)"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_students_get_no_instructors_panel() -> None:
    assert "JUPYTER_CONFIG_PATH" in environment(teach=False)
    assert "JUPYTER_CONFIG_PATH" not in environment(teach=True)
