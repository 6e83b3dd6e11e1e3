"""The two commands, and that what they install is what the course needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from course.markers import Project
from course.publish import readme
from grading.notebooks import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SERVER_EXTENSIONS = ("assignment_list", "course_list", "formgrader", "validate_assignment")


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, check=True)
    return re.sub(r"\x1b\[\d+m", "", done.stdout + done.stderr)


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split()
    told = [
        line.split()[1] for line in run("make", "--no-print-directory", "help").splitlines() if line
    ]
    assert sorted(told) == sorted(phony)


def test_nbgraders_server_extensions_are_on() -> None:
    listed = run(sys.executable, "-m", "jupyter", "server", "extension", "list")
    for name in SERVER_EXTENSIONS:
        assert re.search(rf"nbgrader\.server_extensions\.{name} +enabled", listed), listed


def test_nbgraders_and_the_sliders_lab_extensions_are_on() -> None:
    listed = run(sys.executable, "-m", "jupyter", "labextension", "list")
    for name in ("@jupyter/nbgrader", "@jupyter-widgets/jupyterlab-manager"):
        assert re.search(rf"{name} v[\d.]+ +enabled +OK", listed), listed


def test_the_address_stands_where_it_is_known_and_nowhere_else() -> None:
    """README says what pyproject.toml says; until then there is no badge and no clone line."""
    project = Project.read(REPOSITORY)
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert text == readme(text, project)
    searched = subprocess.run(
        ["git", "grep", "-lF", project.repository or "colab-badge", "--", ":!course", ":!tests"],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
    )
    named = {path.split("/")[0] for path in searched.stdout.split()}
    built = {"notebooks", "pyproject.toml", "README.md", "solutions"}
    assert named <= (built if project.repository else set())


def test_dependencies_are_listed_once() -> None:
    environment = (REPOSITORY / "environment.yml").read_text(encoding="utf-8")
    names = {
        re.split(r"[<>=\[]", requirement)[0]
        for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
        for requirement in group
    }
    assert {name for name in names if re.search(rf"\b{name}\b", environment)} == set()


def test_the_wheel_holds_kdlib_with_its_data_and_the_grader_and_nothing_else(
    tmp_path: Path,
) -> None:
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, f"--wheel-dir={tmp_path}", ".")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("kdlib/assets/manifest.json"))
    assert {name.split("/")[0] for name in names} == {
        "grading",
        "kdlib",
        f"kdlib-{PROJECT['version']}.dist-info",
    }
    assert manifest
    tracked = run("git", "ls-files", "kdlib/assets").split()
    assert set(tracked) <= set(names)
