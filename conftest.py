"""What every test runs with, and the arithmetics that the solution notebooks are run under."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from nbval.plugin import IPyNbCell, IPyNbFile
from xdist.scheduler import LoadScopeScheduling

PATIENCE = 60  # seconds from the end of a cell to its last output

# A processor without vector units, and one core more, round otherwise. What a notebook prints, and
# what its checks say, must not depend on that. What is stored is what the builder's machine gave
# in its native arithmetic with one thread; it is compared with what the further ones give.
ARITHMETICS = {
    "native": {"OMP_NUM_THREADS": "1"},
    "generic": {
        "OMP_NUM_THREADS": "1",
        "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
    # dask leaves MKL_NUM_THREADS=1 in the environment of a process that started its workers
    "threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
}
FURTHER = ("generic", "threads")

# Kernels and subprocesses inherit these; an arithmetic given from outside holds for the tests, too.
os.environ["KDLIB_PROFILE"] = "cpu"
os.environ["KDLIB_PROGRESS"] = "off"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test fails by the clock because the machine is busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


class Notebook(IPyNbFile):
    """A solution notebook, cell by cell, under one arithmetic, in one profile."""

    arithmetic: str
    profile: str

    def setup(self) -> None:
        """Start the kernel with the profile and the progress record that the builder gave it."""
        folder = Path(self.config._tmp_path_factory.getbasetemp())
        environment = ARITHMETICS[self.arithmetic] | {
            "KDLIB_PROFILE": self.profile,
            "KDLIB_PROGRESS": str(folder / f"progress-{self.path.stem}-{self.arithmetic}.json"),
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            super().setup()

    def collect(self) -> Iterator[IPyNbCell]:
        """Give a busy machine the time to deliver what a cell printed."""
        for cell in super().collect():
            cell.output_timeout = PATIENCE
            yield cell


class Under:
    """Collects each notebook for one arithmetic; pytest takes one collector from each plugin."""

    def __init__(self, arithmetic: str, profile: str) -> None:
        self.arithmetic, self.profile = arithmetic, profile

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> Notebook | None:
        """Give the notebook a node of its own, `solutions/.../02_soft_targets.ipynb[generic]`."""
        if file_path.suffix != ".ipynb":
            return None
        nodeid = f"{file_path.relative_to(parent.config.rootpath).as_posix()}[{self.arithmetic}]"
        notebook = Notebook.from_parent(parent, path=file_path, nodeid=nodeid)
        notebook.arithmetic, notebook.profile = self.arithmetic, self.profile
        return notebook


class Progress:
    """One line every ten seconds in place of a dot for each test: a few of them take a minute."""

    SECONDS = 10

    def __init__(self) -> None:
        self.start, self.done, self.total = time.monotonic(), 0, 0
        self.running: dict[str, float] = {}
        self.over = threading.Event()

    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Know how many there are, and begin to tell."""
        if not self.total:
            self.total = len(ids)
            threading.Thread(target=self._tell, daemon=True).start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self.running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test has ended, whatever its outcome."""
        self.running.pop(nodeid, None)
        self.done += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple | None:
        """Leave out the dots; what fails is shown as ever."""
        if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            return "passed", "", "PASSED"
        return None

    def pytest_sessionfinish(self) -> None:
        """Stop telling."""
        self.over.set()

    def _tell(self) -> None:
        while not self.over.wait(self.SECONDS):
            seconds = time.monotonic() - self.start
            now = ", ".join(test.split("/", 1)[-1] for test in list(self.running))
            print(f"{seconds:4.0f} s  {self.done} of {self.total}  now {now}", file=sys.stderr)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let an author choose an arithmetic."""
    parser.addoption(
        "--arithmetic",
        action="append",
        choices=ARITHMETICS,
        help="run the notebooks under this one, in place of generic and threads; may be repeated",
    )
    parser.addoption(
        "--profile",
        default="grade",
        choices=("grade", "cpu"),
        help="size of the notebooks' experiments: the grader's, or as they are built",
    )
    parser.addoption(
        "--stock",
        action="store_true",
        help="grade every unit with nbgrader's own autograde, in place of the first one only",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register a collector for each arithmetic, and the line of progress where workers run."""
    for arithmetic in config.option.arithmetic or FURTHER:
        under = Under(arithmetic, config.option.profile)
        config.pluginmanager.register(under, f"under-{arithmetic}")
    if config.getoption("numprocesses", None):
        config.pluginmanager.register(Progress(), "progress")


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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Give a worker a whole file (a notebook's cells run in order), or a unit to be graded."""

    class ByFileAndUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            unit = test.partition("[")[2] if file.endswith("test_pipeline.py") else ""
            return file + unit

    config.option.loadscopereorder = False
    return ByFileAndUnit(config, log)
