"""A student's session, in a real JupyterLab and a real browser, started as `make lab` starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.reader import NotJSONError

from grading.notebooks import REPOSITORY, answers, exercises, mistake, released
from kdlib.checks import catalogue

UNIT = "02_soft_targets"
TOKEN = "browser-test"
PANEL = ".jp-NotebookPanel:visible"
SCREENSHOTS = REPOSITORY / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
if browser_path is None and not os.environ.get("KDLIB_REQUIRE_BROWSER"):
    pytest.skip("no chromium on this machine: apt install chromium", allow_module_level=True)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab over a copy of the course."""

    root: Path
    port: int

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{path}?token={TOKEN}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start `make lab` on a copy, so that no committed notebook is ever written to."""
    yield from started("lab", tmp_path_factory.mktemp("lab"))


@pytest.fixture
def teach(tmp_path: Path) -> Iterator[Lab]:
    """Start `make teach` on a copy."""
    yield from started("teach", tmp_path)


def started(target: str, root: Path) -> Iterator[Lab]:
    for folder in ("notebooks", "solutions"):
        shutil.copytree(REPOSITORY / folder, root / folder)
    shutil.copy(REPOSITORY / "nbgrader_config.py", root)
    bare = root / "solutions" / UNIT / f"{UNIT}.ipynb"  # what is seen must come from this run
    notebook = nbformat.read(bare, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, bare)

    # Every cell stays in the page, also those out of sight.
    tracker = root / "settings" / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    (tracker / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KDLIB_", "MAKE"))}
    environment |= {
        "KDLIB_PROGRESS": str(root / "progress.json"),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(root / "settings"),
    }
    with (root / "lab.log").open("w") as log:
        process = subprocess.Popen(
            [
                *("make", "-C", str(REPOSITORY), target, f"PORT={port}", f"COURSE={root}"),
                f"ARGS=--no-browser --IdentityProvider.token={TOKEN}",
            ],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Lab(root, port)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(running.url("api/status"), timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"make {target} did not start:\n{(root / 'lab.log').read_text()}")
                time.sleep(0.2)
        yield running
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator:
    from playwright.sync_api import sync_playwright

    assert browser_path, "KDLIB_REQUIRE_BROWSER is set and there is no chromium"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(300_000)
        page.goto(lab.url())
        yield page
        browser.close()


def open_notebook(page, lab: Lab, path: str) -> None:
    # A workspace of its own, so that no tab of another notebook comes back.
    page.goto(lab.url(f"lab/workspaces/{path.partition('/')[0]}/tree/{path}"))
    page.locator(".jp-NotebookPanel:visible .jp-Cell").first.wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]:visible").wait_for()


def menu(page, *names: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=names[0]).first.click()
    page.locator(".lm-Menu-itemLabel").get_by_text(names[1], exact=True).click()


def save_until(page, file: Path, done: Callable[[NotebookNode], bool], seconds: float) -> None:
    """Save every few seconds until the notebook on disk is as it should be."""
    deadline = time.monotonic() + seconds
    while True:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(3000)
        try:
            notebook = nbformat.read(file, as_version=4)
        except NotJSONError:  # read while the server writes it
            continue
        if done(notebook):
            return
        assert time.monotonic() < deadline, f"{file.name} did not come to its end"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_run(notebook: NotebookNode) -> bool:
    return all(cell.execution_count for cell in code_cells(notebook))


def run(page, lab: Lab, item: str, cells, seconds: float) -> None:
    """Choose an item of the Run menu, and wait in the page until each of the cells has its number.

    What is run while the kernel is still connecting is sometimes dropped by JupyterLab without
    a word (every prompt is empty, the kernel idle); a user runs it again, and so does this.
    """
    prompts = cells.locator(".jp-InputArea-prompt")
    failed = page.locator(f"{PANEL} .jp-OutputArea-output[data-mime-type*=stderr] .ansi-red-fg")
    deadline = time.monotonic() + seconds
    said: list[str] = []
    while time.monotonic() < deadline:
        if not any("*" in text for text in said):
            menu(page, "Run", item)
            page.wait_for_timeout(5000)
        assert failed.count() == 0, failed.first.inner_text()
        said = prompts.all_inner_texts()
        if said and all(re.search(r"\d", text) for text in said):
            return
        page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / "stuck.png")
    pytest.fail(
        f"{item}: not every cell has run in {seconds:.0f} s; prompts: {said}; "
        f"dialogs: {page.locator('.jp-Dialog').all_inner_texts()}; lab.log ends:\n"
        + (lab.root / "lab.log").read_text()[-3000:]
    )


def show(page, locator, name: str) -> None:
    locator.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def nbgrader_menu(page) -> list[str]:
    page.locator(".lm-MenuBar-itemLabel", has_text="Nbgrader").first.click()
    items = page.locator(".lm-Menu-itemLabel")
    items.first.wait_for()
    listed = [text for text in items.all_inner_texts() if text]
    page.keyboard.press("Escape")
    return listed


def test_the_first_thing_one_sees_is_the_courses_home(page) -> None:
    home = page.locator(".jp-MarkdownViewer:visible")
    home.get_by_role("heading", name="Knowledge distillation, hands on").wait_for()
    begin = home.get_by_role("link", name="00 · Start here")
    assert begin.count() == 2  # where to begin, and its line of the syllabus
    page.wait_for_timeout(2000)  # a pop-up would have come by now
    assert (
        page.locator(".jp-Launcher:visible, .jp-Dialog, .jp-toast, .Toastify__toast").count() == 0
    )
    assert nbgrader_menu(page) == ["Assignment List"]
    page.screenshot(path=SCREENSHOTS / "0_home.png")


def test_file_browser_opens_at_the_notebooks(page) -> None:
    page.locator(".jp-DirListing-item").first.wait_for()
    listed = page.locator(".jp-DirListing-itemText").all_inner_texts()
    assert [name for name in listed if name[:2].isdigit()] == sorted(
        path.name for path in (REPOSITORY / "notebooks").iterdir() if path.is_dir()
    )
    page.screenshot(path=SCREENSHOTS / "1_start.png")


def test_the_home_leads_into_unit_00(page) -> None:
    page.get_by_role("link", name="00 · Start here").first.click()
    page.locator(f"{PANEL} h1", has_text="00 · Start here").wait_for()
    assert page.url.partition("?")[0].endswith("tree/notebooks/00_start_here/00_start_here.ipynb")


def test_solution_runs_and_shows_verdicts_and_figures(page, lab: Lab) -> None:
    path = f"solutions/{UNIT}/{UNIT}.ipynb"
    open_notebook(page, lab, path)
    run(page, lab, "Run All Cells", page.locator(f"{PANEL} .jp-CodeCell"), seconds=1500)
    save_until(page, lab.root / path, has_run, seconds=300)
    code = code_cells(nbformat.read(lab.root / path, as_version=4))
    kinds = [set(o.data) for c in code for o in c.outputs if o.output_type != "stream"]
    assert sum("image/png" in kind for kind in kinds) >= 3
    knobs = [kind for kind in kinds if "application/vnd.jupyter.widget-view+json" in kind]
    assert any("image/png" in kind for kind in knobs), "no picture is stored beside the knobs"
    for picture in page.locator(f"{PANEL} .jp-RenderedImage img").all():
        assert re.search(r"\d", picture.get_attribute("alt") or ""), "no alternative text"
    verdicts = page.locator(".kdlib-verdict")
    assert verdicts.count() == len(exercises(UNIT))
    for text in verdicts.all_inner_texts():
        assert "✗" not in text, text
    looked = page.locator(f"{PANEL} .jp-CodeCell", has_text="check_submission(").last
    assert f"{UNIT}.ipynb was read as saved" in looked.inner_text()
    show(page, verdicts.first, "2_solution_verdict")
    show(page, page.locator(".jp-OutputArea-output img").first, "3_solution_figure")
    show(page, page.locator(".widget-slider").first, "4_solution_slider")
    show(page, looked, "8_submission")


def test_a_wrong_answer_is_diagnosed(page, lab: Lab) -> None:
    path = f"notebooks/{UNIT}/{UNIT}.ipynb"
    name, answer_cell = next(iter(in_order().items()))
    known = catalogue()[name].mistakes[0]
    open_notebook(page, lab, path)
    editor = page.locator(f"{PANEL} .jp-CodeCell", has_text=f"# answer {name} (keep this line)")
    editor.locator(".cm-content").click()
    last_above = page.locator(f"{PANEL} .jp-CodeCell", has_text="load_teacher").first
    run(page, lab, "Run All Above Selected Cell", last_above, seconds=300)
    editor.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(mistake(name, known.name))
    page.keyboard.press("Shift+Enter")
    test = page.locator(f"{PANEL} .jp-CodeCell", has_text=f'check("{name}"')
    test.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    verdict = test.locator(".kdlib-verdict")
    verdict.wait_for()
    says = " ".join(verdict.inner_text().split())
    assert known.name in says
    assert " ".join(known.says.replace("`", "").split())[:60] in says
    show(page, verdict, "5_wrong_answer")
    save_until(
        page, lab.root / path, lambda saved: known.name in answers(saved)[answer_cell], seconds=150
    )


def test_validate_button_shows_our_message(page) -> None:
    """Goes on where the wrong answer stands."""
    name = next(iter(in_order()))
    page.locator(PANEL).get_by_text("Validate", exact=True).first.click()
    dialog = page.locator(".jp-Dialog", has_text="Validation Results")
    dialog.wait_for(timeout=600_000)
    text = " ".join(dialog.inner_text().split())
    assert "failed" in text
    assert catalogue()[name].title in text
    assert catalogue()[name].mistakes[0].name in text
    assert "Traceback" not in text
    page.screenshot(path=SCREENSHOTS / "6_validate.png")


def test_assignment_list_reads_the_exchange(page, lab: Lab) -> None:
    page.goto(lab.url("lab/workspaces/list"))
    page.locator(".jp-DirListing-item").first.wait_for()
    menu(page, "Nbgrader", "Assignment List")
    listed = page.get_by_text("There are no assignments to fetch.")
    listed.wait_for()
    assert page.get_by_text("exchange directory does not exist").count() == 0
    page.screenshot(path=SCREENSHOTS / "7_assignment_list.png")


def test_instructors_get_their_panel(page, teach: Lab) -> None:
    page.goto(teach.url())
    page.locator(".jp-MarkdownViewer:visible h1").wait_for()
    assert {"Assignment List", "Course List", "Formgrader"} <= set(nbgrader_menu(page))
    page.screenshot(path=SCREENSHOTS / "9_teach.png")


def in_order() -> dict[str, str]:
    """The unit's exercises as they stand in the notebook."""
    cells = list(answers(released(UNIT)))
    return dict(sorted(exercises(UNIT).items(), key=lambda item: cells.index(item[1])))
