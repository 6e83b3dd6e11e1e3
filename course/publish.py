"""The repository's public address: written into pyproject.toml, and from there everywhere else."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course.build import without_outputs
from course.markers import Project, SourceError, expand, read
from course.release import guard_work, release, write

ADDRESS = re.compile(r"(https://github\.com/[\w.-]+/[\w.-]+?)(?:\.git)?/?")
URLS = re.compile(r"(?:^#[^\n]*\n)*^\[project\.urls\]\n(?:Repository = [^\n]*\n)?", re.MULTILINE)
PUBLISHED = """\
# The one place that names the repository; `make publish URL=...` changes it here and, with it, the
# badges, the first cells and the README.
[project.urls]
Repository = "{address}"
"""
BLOCK = re.compile(r"(<!-- address: (\w+) -->\n).*?(<!-- /address -->)", re.DOTALL)


def readme_blocks(project: Project) -> dict[str, str]:
    """Write what README says where the address matters."""
    if not project.repository:
        return {
            "get": "```bash\n# The course has no public address yet: begin in the folder that you"
            " were given.\n"
            "make lab     # installs everything into .venv, then opens the course in JupyterLab\n"
            "make test    # style, builder, tests, and every solution notebook in two arithmetics,"
            " as CI does\n"
            "```\n",
            "colab": "**On Colab:** not yet. The notebooks can install the library there once the"
            " repository has a\npublic address (`make publish URL=...`).\n",
        }
    name = project.repository.rpartition("/")[2]
    return {
        "get": f"```bash\ngit clone {project.repository} && cd {name}\n"
        "make lab     # installs everything into .venv, then opens the course in JupyterLab\n"
        "make test    # style, builder, tests, and every solution notebook in two arithmetics,"
        " as CI does\n"
        "```\n",
        "colab": "**On Colab:** each notebook opens with a badge, and its first cell installs the"
        " library.\n",
    }


def readme(text: str, project: Project) -> str:
    """Put the blocks where README holds their place."""
    blocks = readme_blocks(project)
    return BLOCK.sub(lambda place: place[1] + blocks[place[2]] + place[3], text)


def publish(root: Path, paths: list[Path], catalogue: dict, url: str) -> None:
    """Change the address in pyproject.toml, README and all notebooks; nothing is executed.

    Raises:
        SourceError: the address is none of GitHub's, a notebook is stale, or holds somebody's work.
    """
    if not (address := ADDRESS.fullmatch(url)):
        raise SourceError(f"URL must be https://github.com/OWNER/NAME, got {url!r}")
    old = Project.read(root)
    new = Project(old.name, old.version, address[1])
    changed: dict[Path, bytes] = {}
    for path in paths:
        unit = path.stem
        solution = path.with_suffix("") / f"{unit}.ipynb"
        target = root / "notebooks" / unit / f"{unit}.ipynb"
        guard_work(target, force=False)
        cells = read(path)
        before, after = (expand(unit, cells, catalogue, project) for project in (old, new))
        executed = nbformat.read(solution, as_version=4)
        if without_outputs(executed) != without_outputs(before):
            raise SourceError(f"{unit}: build it first, it is not what its source builds")
        changed[target] = release(unit, after, root / "nbgrader_config.py")
        with_outputs(after, executed)
        changed[solution] = (nbformat.writes(after) + "\n").encode()
    project_file, page = root / "pyproject.toml", root / "README.md"
    table = PUBLISHED.format(address=new.repository)
    changed[project_file] = URLS.sub(lambda _: table, project_file.read_text("utf-8")).encode()
    changed[page] = readme(page.read_text("utf-8"), new).encode()
    for path, content in changed.items():
        write(path, content)
    print(f"{new.repository} stands in pyproject.toml, README.md and {2 * len(paths)} notebooks")


def with_outputs(notebook: NotebookNode, executed: NotebookNode) -> None:
    """Give each code cell the outputs and the number that it has in an executed notebook."""
    for cell, run in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = run.outputs, run.execution_count
