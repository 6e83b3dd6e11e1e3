"""`kdgrade collect`, `report` and `export`: what comes in, whose it is, and what goes out."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from grading import __main__ as command
from grading import inbox
from grading.collect import Attempts, collect
from grading.export import export
from grading.inbox import find, guess
from grading.outcome import Outcome
from grading.report import report
from grading.store import Store
from tests import tiny_unit as tiny

UNIT = tiny.UNIT


@pytest.fixture(scope="module")
def released() -> bytes:
    return tiny.released()


@pytest.fixture
def right(released: bytes) -> bytes:
    template = nbformat.reads(released.decode(), as_version=4)
    return json.dumps(tiny.fill(template, tiny.RIGHT)).encode()


@pytest.fixture
def root(tmp_path: Path, released: bytes) -> Path:
    """A course folder without a gradebook: collecting needs none."""
    root = tmp_path / "course"
    path = root / "notebooks" / UNIT / f"{UNIT}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_bytes(released)
    (root / "nbgrader_config.py").write_bytes(Path("nbgrader_config.py").resolve().read_bytes())
    return root


@pytest.mark.parametrize(
    ("label", "who"),
    [
        ("ada_90_tiny.ipynb", "ada"),
        ("ada/90_tiny.ipynb", "ada"),
        ("downloads/ada/90_tiny/90_tiny.ipynb", "ada"),
        ("lovelaceada_12345_678901_90_tiny-1.ipynb", "lovelaceada"),
        ("lovelaceada_LATE_12345_678901_90_tiny.ipynb", "lovelaceada"),
        ("Ada Lovelace_4711_assignsubmission_file_90_tiny.ipynb", "Ada-Lovelace"),
        ("all/Ada Lovelace_4711_assignsubmission_file_/Copy of 90_tiny.ipynb", "Ada-Lovelace"),
        ("Zoë Müller_4711_assignsubmission_file/90_tiny (1).ipynb", "Zoe-Muller"),
        ("Copy of ada_90_tiny (2).ipynb", "ada"),
        ("Copy of 90_tiny (1).ipynb", ""),
    ],
)
def test_names_of_learning_platforms(label: str, who: str) -> None:
    assert guess(label)[:2] == (who, "90_tiny")


def test_a_name_is_never_a_path() -> None:
    for label in ("../../etc/90_tiny.ipynb", "/etc/../x/90_tiny.ipynb", "..\\..\\x_90_tiny.ipynb"):
        who, *_ = guess(label.replace("\\", "/"))
        assert "/" not in who
        assert not who.startswith(".")


def test_one_line_for_each_notebook(root: Path, right: bytes, tmp_path: Path) -> None:
    inbox_folder = tmp_path / "in"
    inbox_folder.mkdir()
    damaged = right.replace(b'check(\\"00.nll\\", nll)', b"2")
    with zipfile.ZipFile(inbox_folder / "all.zip", "w") as archive:
        archive.writestr(f"ada_{UNIT}.ipynb", right)
        archive.writestr(f"bob_{UNIT}.ipynb", damaged)
        archive.writestr(f"cy_{UNIT}.ipynb", right[:2000])
        archive.writestr("__MACOSX/._x.ipynb", b"x")
        archive.writestr(f"../../../../tmp/evil_{UNIT}.ipynb", right)
    (inbox_folder / f"Copy of {UNIT}.ipynb").write_bytes(right)
    (inbox_folder / "link.ipynb").symlink_to("/etc/passwd")
    lines = {r.label.rpartition("/")[2]: r for r in collect(root, [inbox_folder])}
    statuses = {name: r.status for name, r in lines.items()}
    assert statuses == {
        f"ada_{UNIT}.ipynb": "accepted",
        f"bob_{UNIT}.ipynb": "repaired",
        f"cy_{UNIT}.ipynb": "refused",
        f"evil_{UNIT}.ipynb": "accepted",
        f"Copy of {UNIT}.ipynb": "refused",
        "link.ipynb": "refused",
    }
    assert "the check of 00.nll had been edited" in str(lines[f"bob_{UNIT}.ipynb"])
    assert "Whose is it?" in str(lines[f"Copy of {UNIT}.ipynb"])
    assert "stops in the middle" in str(lines[f"cy_{UNIT}.ipynb"])
    assert {p.name for p in (root / "submitted").iterdir()} == {"ada", "bob", "evil"}
    assert not list(tmp_path.glob("tmp"))


def test_attempts_are_kept_and_nothing_is_overwritten(
    root: Path, right: bytes, tmp_path: Path
) -> None:
    file = tmp_path / f"ada_{UNIT}.ipynb"
    second = right.replace(b"Because of", b"Owing to")
    for content in (right, second, right):
        file.write_bytes(content)
        (line,) = collect(root, [file])
    assert (line.status, line.attempt) == ("again", 1)
    attempts = Attempts(root, UNIT, "ada")
    assert attempts.contents() == [right, second]
    assert (root / "submitted" / "ada" / UNIT / f"{UNIT}.ipynb").read_bytes() == second
    assert file.read_bytes() == right
    originals = list((root / ".kdgrade" / "originals").iterdir())
    assert {path.read_bytes() for path in originals} == {right, second}


def test_what_nbgrader_collected_before_is_an_attempt_too(
    root: Path, right: bytes, tmp_path: Path
) -> None:
    there = root / "submitted" / "ada" / UNIT / f"{UNIT}.ipynb"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"from the exchange")
    file = tmp_path / f"ada_{UNIT}.ipynb"
    file.write_bytes(right)
    list(collect(root, [file]))
    assert Attempts(root, UNIT, "ada").contents() == [b"from the exchange", right]


def test_two_people_of_one_name_are_not_one_person(
    root: Path, right: bytes, tmp_path: Path
) -> None:
    for number in (4711, 4712):
        name = f"Ada Lovelace_{number}_assignsubmission_file_{UNIT}.ipynb"
        (tmp_path / name).write_bytes(right)
    first, second = collect(root, sorted(tmp_path.glob("*.ipynb")))
    assert (first.status, second.status) == ("accepted", "refused")
    assert "Another person is called Ada-Lovelace" in second.words


def test_collecting_again_mends_what_was_interrupted(
    root: Path, right: bytes, tmp_path: Path
) -> None:
    file = tmp_path / f"ada_{UNIT}.ipynb"
    file.write_bytes(right)
    list(collect(root, [file]))
    current = root / "submitted" / "ada" / UNIT / f"{UNIT}.ipynb"
    current.unlink()
    assert [line.status for line in collect(root, [file])] == ["again"]
    assert current.read_bytes() == right


def zip_of(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return content.getvalue()


def test_archives_made_to_do_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "LARGEST_FILE", 100_000)
    monkeypatch.setattr(inbox, "LARGEST_ARCHIVE", 250_000)
    monkeypatch.setattr(inbox, "MOST_MEMBERS", 10)
    bomb = b"0" * 200_000
    deep = zip_of(x__zip=zip_of(x__zip=zip_of(x__ipynb=b"{}")))
    for name, content, words in (
        ("large", zip_of(a__ipynb=bomb), "far too large"),
        ("many", zip_of(**{f"f{n}__ipynb": b"" for n in range(20)}), "20 files"),
        ("sum", zip_of(**{f"f{n}__ipynb": b"0" * 90_000 for n in range(5)}), "far too large"),
        ("deep", deep, "archive in an archive"),
        ("no", b"PK\x03\x04 not a zip", "damaged"),
    ):
        (tmp_path / f"{name}.zip").write_bytes(content)
        found = list(find(tmp_path / f"{name}.zip"))
        assert words in " ".join(f.refused for f in found), name
        assert sum(len(f.content) for f in found) <= 250_000


def outcome(student: str, points: float, **more: object) -> Outcome:
    verdict = {
        "points": points,
        "max_points": 2.0,
        "started": True,
        "note": "",
        "results": [["the fraction", 1.0, points == 2, "no"]],
        "diagnoses": [] if points == 2 else ["a sum"],
    }
    made = Outcome(UNIT, student, "k", "graded", verdicts={"00.accuracy": verdict})
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_the_report_says_what_to_teach_again(root: Path) -> None:
    store = Store(root, UNIT)
    store.keep(outcome("ada", 2.0))
    store.keep(outcome("bob", 0.5, eye=["00.accuracy: patches <b>modules</b>"]))
    store.keep(outcome("cy", 0.5, repairs=["cells were moved"]))
    store.keep(Outcome(UNIT, "di", "k", "refused", "The file is empty."))
    page = report(root, UNIT)
    for words in ("3 graded, 1 refused", "1.00 of 2", "2 (67 %)", "a sum", "cells were moved"):
        assert words in page
    assert "The file is empty." in page
    assert "<b>modules" not in page
    assert "http" not in page
    assert "<script" not in page
    assert command.main(["--course", str(root), "report", UNIT]) == 0
    assert (root / "reports" / f"{UNIT}.html").exists()


def test_export_for_a_spreadsheet_canvas_and_moodle(root: Path) -> None:
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        gradebook.add_assignment(UNIT)
        gradebook.add_notebook(UNIT, UNIT)
        gradebook.add_grade_cell("c", UNIT, UNIT, max_score=4, cell_type="code")
        for student, score in (("ada", 3.5), ("=bob", 1.0)):
            gradebook.add_student(student)
            gradebook.add_submission(UNIT, student)
            grade = gradebook.find_grade("c", UNIT, UNIT, student)
            grade.auto_score, grade.needs_manual_grade = score, False
        gradebook.db.commit()

    def rows(form: str) -> list[list[str]]:
        return list(csv.reader(io.StringIO(export(root, form, []))))

    assert rows("csv")[1:] == [
        ["'=bob", UNIT, "1", "4", "no", ""],
        ["ada", UNIT, "3.5", "4", "no", ""],
    ]
    assert rows("moodle") == [["username", UNIT], ["'=bob", "1"], ["ada", "3.5"]]
    canvas = rows("canvas")
    assert canvas[0][:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert canvas[1] == ["    Points Possible", "", "", "", "", "4"]
    assert canvas[3] == ["ada", "", "", "ada", "", "3.5"]


def moodle(who: str, number: int, file: str) -> str:
    return f"{who}_{number}_assignsubmission_file_/{file}"


def packed(folder: Path, **members: bytes) -> Path:
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_in_an_archive_the_folder_says_whose_it_is(
    root: Path, right: bytes, released: bytes, tmp_path: Path
) -> None:
    """An empty file under another's name, a name of two words, and one that is no name."""
    path = packed(
        tmp_path,
        **{
            moodle("Ada Lovelace", 201, f"{UNIT}.ipynb"): right,
            moodle("Bob", 203, f"Ada Lovelace_{UNIT}.ipynb"): released,
            moodle("Grace Hopper", 204, f"answers_{UNIT}.ipynb"): right,
            moodle("Emmy Noether", 205, f"Noether_{UNIT}.ipynb"): right,
        },
    )
    lines = {r.student: r for r in collect(root, [path])}
    assert {who: r.status for who, r in lines.items()} == {
        "Ada-Lovelace": "accepted",
        "Bob": "refused",
        "Grace-Hopper": "accepted",
        "Emmy-Noether": "accepted",
    }
    assert "say Bob and Ada-Lovelace, and both are students" in lines["Bob"].words
    assert Attempts(root, UNIT, "Ada-Lovelace").contents() == [right]


def test_two_names_of_the_platform_are_refused(root: Path, right: bytes, tmp_path: Path) -> None:
    inner = f"Ada_201_assignsubmission_file_{UNIT}.ipynb"
    (line,) = collect(root, [packed(tmp_path, **{moodle("Bob", 203, inner): right})])
    assert line.status == "refused"
    assert "Its folder says Bob, its own name says Ada" in line.words


def test_a_later_and_worse_attempt_is_warned_of(
    root: Path, right: bytes, released: bytes, tmp_path: Path
) -> None:
    file = tmp_path / f"ada_{UNIT}.ipynb"
    for content in (right, released):
        file.write_bytes(content)
        (line,) = collect(root, [file])
    words = "attempt 2 answers 0 questions, attempt 1 answered 4"
    assert words in str(line)
    Store(root, UNIT).keep(outcome("ada", 0.0))
    assert words in report(root, UNIT)


def test_the_same_name_with_another_number_is_another_person_also_later(
    root: Path, right: bytes, tmp_path: Path
) -> None:
    for number, status in ((201, "accepted"), (202, "refused"), (201, "again")):
        path = packed(tmp_path, **{moodle("Ada", number, f"{UNIT}.ipynb"): right})
        (line,) = collect(root, [path])
        assert line.status == status


def test_what_was_refused_is_in_the_report_and_the_export(
    root: Path, right: bytes, tmp_path: Path
) -> None:
    (tmp_path / f"cy_{UNIT}.ipynb").write_bytes(right[:2000])
    (tmp_path / f"Copy of {UNIT}.ipynb").write_bytes(right)
    assert {r.status for r in collect(root, sorted(tmp_path.glob("*.ipynb")))} == {"refused"}
    graded_by_hand(root, {})
    page, table = report(root, UNIT), export(root, "csv", [])
    for text in (page, table):
        assert "stops in the middle" in text
        assert "Whose is it?" in text
    assert f"cy,{UNIT},,4,," in table

    (tmp_path / f"cy_{UNIT}.ipynb").write_bytes(right)
    list(collect(root, [tmp_path / f"cy_{UNIT}.ipynb"]))
    assert "stops in the middle" not in export(root, "csv", [])


def test_a_unit_that_was_not_generated_is_named(
    root: Path, right: bytes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = right.replace(b"answer 00.", b"answer 05.").replace(b'"00-', b'"05-')
    (tmp_path / "ada_x.ipynb").write_bytes(other)
    (line,) = collect(root, [tmp_path / "ada_x.ipynb"], student="ada")
    assert "unit 05, which was not generated here yet" in line.words
    graded_by_hand(root, {})
    for command_line in (["report", "77_no"], ["export", "77_no"], ["collect", "--unit", "77_no"]):
        paths = [str(tmp_path)] if command_line[0] == "collect" else []
        assert command.main(["--course", str(root), *command_line, *paths]) == 1
        assert UNIT in capsys.readouterr().err


def graded_by_hand(root: Path, scores: dict[str, float]) -> None:
    """A gradebook with these autograded points."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        gradebook.add_assignment(UNIT)
        gradebook.add_notebook(UNIT, UNIT)
        gradebook.add_grade_cell("c", UNIT, UNIT, max_score=4, cell_type="code")
        for student, score in scores.items():
            gradebook.add_student(student)
            gradebook.add_submission(UNIT, student)
            grade = gradebook.find_grade("c", UNIT, UNIT, student)
            grade.auto_score, grade.needs_manual_grade = score, False
        gradebook.db.commit()


def test_canvas_gets_its_own_ids_back(root: Path, right: bytes, tmp_path: Path) -> None:
    """Names as Canvas packs them: NAME, LATE, its user's id, the file's id, the file's name."""
    names = (f"lovelaceada_12345_678901_{UNIT}.ipynb", f"hoppergrace_LATE_12346_7_{UNIT}-1.ipynb")
    list(collect(root, [packed(tmp_path, **dict.fromkeys(names, right))]))
    graded_by_hand(root, {"lovelaceada": 4.0, "hoppergrace": 2.0, "ada": 1.0})
    rows = list(csv.reader(io.StringIO(export(root, "canvas", [UNIT]))))
    assert rows[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", UNIT]
    assert rows[2:] == [
        ["ada", "", "", "ada", "", "1"],
        ["hoppergrace", "12346", "", "", "", "2"],
        ["lovelaceada", "12345", "", "", "", "4"],
    ]


def test_moodle_gets_its_grading_worksheet_back(root: Path, right: bytes, tmp_path: Path) -> None:
    """The columns without which mod/assign/feedback/offline refuses a file, and its identifiers."""
    list(collect(root, [packed(tmp_path, **{moodle("Zoë Müller", 4711, f"{UNIT}.ipynb"): right})]))
    graded_by_hand(root, {"Zoe-Muller": 3.5})
    (row,) = csv.DictReader(io.StringIO(export(root, "moodle", [UNIT])))
    assert row == {
        "Identifier": "Participant 4711",
        "Full name": "Zoë Müller",
        "Grade": "3.5",
        "Maximum grade": "4",
        "Last modified (grade)": "-",
    }


COPIED = """# answer 00.nll (keep this line)
def nll(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets):
        biggest = row.max()
        shifted = row - biggest
        normaliser = shifted.exp().sum().log()
        total = total + normaliser - shifted[target]
    return float(total / len(targets))"""


def test_overlaps_stand_side_by_side_and_names_can_be_left_out(root: Path, released: bytes) -> None:
    template = nbformat.reads(released.decode(), as_version=4)
    renamed = COPIED.replace("total", "s").replace("biggest", "m").replace("shifted", "z")
    hidden = "exec('''" + COPIED.replace("nll", "helper") + "''')\nnll = helper"
    for student, answer in {
        "ada": COPIED,
        "bob": renamed,
        "cy": tiny.RIGHT[tiny.NLL],
        "di": tiny.RIGHT[tiny.NLL],
        "eve": hidden,
    }.items():
        notebook = tiny.fill(template, tiny.RIGHT | {tiny.NLL: answer})
        made = outcome(student, 2.0, notebook=nbformat.writes(notebook))
        Store(root, UNIT).keep(made)
    page = report(root, UNIT)
    overlaps = page.partition("<h2>Overlaps (1)</h2>")[2]
    assert "<th>ada, 00.nll</th><th>bob, 00.nll</th>" in overlaps
    assert "eve, 00.nll" in overlaps
    assert "cy" not in overlaps
    assert "<mark>    for row, target in zip(logits, targets):</mark>" in overlaps

    page = report(root, UNIT, pseudonyms=True)
    assert "ada" not in page.replace("shadow", "")
    assert re.search(r"<th>student [1-5], 00\.nll</th>", page)
