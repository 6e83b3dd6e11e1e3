"""Other places for the work and for the grades: a dask cluster, a PostgreSQL gradebook."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from grading import pool
from grading.autograde import Settings, autograde
from grading.cluster import DaskPool
from grading.outcome import Job
from grading.sandbox import Limits
from tests import tiny_unit as tiny
from tests.test_grading_cheats import sandbox_works

SANDBOXED = sandbox_works()


def jobs(count: int) -> list[Job]:
    release = tiny.released().decode()
    template = nbformat.reads(release, as_version=4)
    content = nbformat.writes(tiny.fill(template, tiny.RIGHT)).encode()
    seeds = {name.replace("-", ".", 1): 11 for name in tiny.POINTS}
    return [
        Job(tiny.UNIT, f"s{n}", f"k{n}", content, release, seeds, Limits(), SANDBOXED)
        for n in range(count)
    ]


def test_a_dask_worker_is_killed_half_way_and_no_job_is_lost() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        dask = DaskPool(cluster.scheduler_address)
        points = {}
        for outcome in dask.run(jobs(6)):
            points[outcome.student] = outcome.points
            if len(points) == 2:
                victim = next(iter(cluster.workers.values()))
                os.kill(victim.pid, 9)
        dask.close()
    assert points == {f"s{n}": 7.0 for n in range(6)}


def test_a_worker_process_that_dies_is_replaced() -> None:
    local = pool.LocalPool(1)
    outcomes = []
    for outcome in local.run(jobs(3)):
        outcomes.append(outcome)
        if len(outcomes) == 1:
            (worker,) = local.workers.values()
            worker.kill()
    local.close()
    assert sorted((o.student, o.points) for o in outcomes) == [(f"s{n}", 7.0) for n in range(3)]


def test_a_job_that_cannot_be_done_fails_alone() -> None:
    first, bad, last = jobs(3)
    bad = Job(**{**bad.__dict__, "release": "not a notebook"})
    local = pool.LocalPool(1)
    outcomes = {o.student: o for o in local.run([first, bad, last])}
    local.close()
    assert {name: o.status for name, o in outcomes.items()} == {
        "s0": "graded",
        "s1": "failed",
        "s2": "graded",
    }


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database on a server that only this test knows."""
    pytest.importorskip("psycopg2")
    if not all(map(shutil.which, ("initdb", "pg_ctl"))):
        pytest.skip("no PostgreSQL server here")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/kdpg-XXXXXX"], text=True).strip())
    as_user: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "nobody")
        as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    data, quiet = str(folder / "data"), {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/tmp"}
    subprocess.run([*as_user, "initdb", "-D", data, "-U", "kd", "-A", "trust"], **quiet)
    options = f"-c listen_addresses='' -k {folder} -F"
    log = str(folder / "log")
    subprocess.run(
        [*as_user, "pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start"], **quiet
    )
    yield f"postgresql+psycopg2://kd@/postgres?host={folder}"
    subprocess.run([*as_user, "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
    shutil.rmtree(folder)


def test_a_gradebook_in_postgresql(postgresql: str, tmp_path: Path) -> None:
    from nbgrader.api import Gradebook

    course = tiny.make_course(tmp_path / "course")
    course.nbgrader(
        "generate_assignment", tiny.UNIT, "--force", f"--CourseDirectory.db_url={postgresql}"
    )
    template = nbformat.reads(tiny.released().decode(), as_version=4)
    course.submit("ada", tiny.UNIT, tiny.fill(template, tiny.RIGHT))
    settings = Settings(jobs=1, sandboxed=SANDBOXED, db=postgresql)
    assert autograde(course.root, [tiny.UNIT], settings).graded == 1
    assert autograde(course.root, [tiny.UNIT], settings).unchanged == 1
    with Gradebook(postgresql) as gradebook:
        (submission,) = gradebook.assignment_submissions(tiny.UNIT)
        assert (submission.student.id, submission.score) == ("ada", 7.0)
    assert course.scores(tiny.UNIT) == {}
