"""Run the first code cell of every notebook in an empty directory, as Colab would.

The cell is run as it stands. Only git is told to find the repository, and the tag of the version,
in this checkout, so that it is this commit which is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = """
import sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_cell(sys.stdin.read()).raise_error()
from kdlib import check
"""


def git_finds_this_checkout(folder: Path) -> dict[str, str]:
    """Clone the checkout, tag it with its version, and give the environment that points there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    mirror = folder / "mirror.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, mirror], check=True)
    tag = ["git", "-C", mirror, "tag", "--force", f"v{project['version']}", "HEAD"]
    subprocess.run(tag, check=True, stdout=subprocess.DEVNULL)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{mirror}.insteadOf",
        "GIT_CONFIG_VALUE_0": project["urls"]["Repository"],
    }


def main() -> None:
    """Install and import with each notebook's own first cell."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | git_finds_this_checkout(Path(scratch))
        for path in sorted((ROOT / "notebooks").glob("*/*.ipynb")):
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            first = next("".join(c["source"]) for c in cells if c["cell_type"] == "code")
            with tempfile.TemporaryDirectory() as empty:
                subprocess.run(
                    [sys.executable, "-c", RUN],
                    input=first,
                    text=True,
                    cwd=empty,
                    env=environment,
                    check=True,
                )
            print(f"{path.stem}: its first cell installs kdlib", flush=True)
            uninstall = [sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "kdlib"]
            subprocess.run(uninstall, check=True)


if __name__ == "__main__":
    main()
