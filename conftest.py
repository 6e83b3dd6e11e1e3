"""What every test and every notebook under nbval runs with."""

import os
from pathlib import Path

import pytest

# Kernels and subprocesses inherit these.
os.environ["KDLIB_PROFILE"] = "cpu"
os.environ["KDLIB_PROGRESS"] = "off"
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each notebook a progress record of its own, as the builder did when it ran it."""
    if type(item).__module__ == "nbval.plugin":
        factory = item.session.config._tmp_path_factory
        record = Path(factory.getbasetemp()) / f"progress-{item.path.stem}.json"
        os.environ["KDLIB_PROGRESS"] = str(record)
    else:
        os.environ["KDLIB_PROGRESS"] = "off"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give workers whole files (a notebook's cells run in order), but spread a unit's grading."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        unit = params.get("graded", "") if item.path.stem == "test_pipeline" else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.path.name}{unit}"))
