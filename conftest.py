"""What every test and every notebook under nbval runs with."""

import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

# Notebooks that take minutes with their real model; nbval runs them as the grader does.
LONG = ("16_real_llm",)

# Kernels and subprocesses inherit these.
os.environ["KDLIB_PROFILE"] = "cpu"
os.environ["KDLIB_PROGRESS"] = "off"
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each notebook its profile, and a progress record of its own, as the builder did."""
    os.environ["KDLIB_PROFILE"] = "grade" if item.path.stem in LONG else "cpu"
    if type(item).__module__ == "nbval.plugin":
        factory = item.session.config._tmp_path_factory
        record = Path(factory.getbasetemp()) / f"progress-{item.path.stem}.json"
        os.environ["KDLIB_PROGRESS"] = str(record)
    else:
        os.environ["KDLIB_PROGRESS"] = "off"


SLOWEST_FIRST = (
    "test_grading_cheats.py",
    "test_grading_autograde.py",
    "test_pipeline.py",
    "test_browser.py",
    "test_builder.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left with it at the end."""
    items.sort(key=lambda item: item.path.name not in SLOWEST_FIRST)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Give a worker a whole file (a notebook's cells run in order), or a unit to be graded."""

    class ByFileAndUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            unit = test.partition("[")[2] if file.endswith("test_pipeline.py") else ""
            return file + unit

    config.option.loadscopereorder = False
    return ByFileAndUnit(config, log)
