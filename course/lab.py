"""JupyterLab as the course wants it: its home page first, no news, no instructor's panel."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from course import home

ROOT = Path(__file__).resolve().parents[1]
JUPYTER = ROOT / "course" / "jupyter"


def environment(teach: bool) -> dict[str, str]:
    """Give the variables that put the course's settings in front of Jupyter's own.

    What a user has chosen in JupyterLab's settings still comes first.
    """

    def ahead(variable: str, folder: Path) -> dict[str, str]:
        return {variable: os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))}

    variables = ahead("JUPYTER_PATH", JUPYTER / "share")
    return variables if teach else variables | ahead("JUPYTER_CONFIG_PATH", JUPYTER / "student")


def main(arguments: list[str] | None = None) -> None:
    """Write the home page and start JupyterLab in this process."""
    parser = argparse.ArgumentParser(prog="python -m course.lab", description=__doc__)
    parser.add_argument("--course", type=Path, default=ROOT, help="the folder of the course")
    parser.add_argument("--teach", action="store_true", help="with formgrader, for instructors")
    options, others = parser.parse_known_args(arguments)
    course = options.course.resolve()
    home.write(course)
    os.environ.update(environment(options.teach))
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        others.append("--allow-root")
    from jupyterlab.labapp import LabApp

    LabApp.launch_instance(
        [
            f"--ServerApp.root_dir={course}",
            f"--FileContentsManager.preferred_dir={course / 'notebooks'}",
            f"--LabApp.app_settings_dir={JUPYTER / 'settings'}",
            f"--LabApp.default_url=/lab/tree/notebooks/{home.FILE}",
            "--HTMLExporter.template_name=course",
            *others,
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
