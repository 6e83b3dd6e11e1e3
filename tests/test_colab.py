"""The first cell of a notebook on Colab, without Colab: only git and pip are told where to look."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from course.markers import Project

REPOSITORY = Path(__file__).resolve().parents[1]
# The tests need an address, whether the course has one yet or not.
NOT_YET = dataclasses.replace(Project.read(REPOSITORY), repository="")
PROJECT = dataclasses.replace(NOT_YET, repository="https://github.com/a/b")
RUN = """
import sys, types
{colab}
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_cell(sys.stdin.read()).raise_error()
"""
COLAB = 'sys.modules["google.colab"] = types.ModuleType("google.colab")'


def run_first_cell(
    folder: Path, colab: str, project: Project = PROJECT, **environment: str
) -> None:
    subprocess.run(
        [sys.executable, "-c", RUN.format(colab=colab)],
        input=project.bootstrap(),
        text=True,
        cwd=folder,
        env=os.environ | {"IPYTHONDIR": str(folder / ".ipython")} | environment,
        check=True,
        capture_output=True,
    )


def test_a_unit_can_ask_for_an_extra() -> None:
    assert '"kdlib[llm] @ git+' in PROJECT.bootstrap("llm")
    assert '"kdlib @ git+' in PROJECT.bootstrap()


@pytest.fixture
def mirror(tmp_path: Path) -> dict[str, str]:
    """The environment in which git finds the repository, tagged with its version, here."""
    git = tmp_path / "mirror.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", REPOSITORY, git], check=True)
    tag = ["git", "-C", git, "tag", "--force", f"v{PROJECT.version}", "HEAD"]
    subprocess.run(tag, check=True, stdout=subprocess.DEVNULL)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{git.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": PROJECT.repository,
    }


def test_on_colab_it_installs_this_version(tmp_path: Path, mirror: dict[str, str]) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    # what kdlib needs is here already; kdlib itself has to come from the repository
    pip = {"PIP_TARGET": str(site), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    pip["PIP_NO_BUILD_ISOLATION"] = "0"  # pip's way of saying: build with what is here
    run_first_cell(empty, COLAB, **mirror, **pip)
    assert (site / "kdlib" / "checks" / "__init__.py").exists()
    assert (site / f"kdlib-{PROJECT.version}.dist-info").is_dir()


def test_elsewhere_it_installs_nothing(tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    run_first_cell(empty, "", PIP_TARGET=str(site))
    assert not site.exists()


def test_without_an_address_colab_is_told_so(tmp_path: Path) -> None:
    run_first_cell(tmp_path, "", NOT_YET)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_first_cell(tmp_path, COLAB, NOT_YET)
    assert "no public address yet" in failed.value.stdout + failed.value.stderr
