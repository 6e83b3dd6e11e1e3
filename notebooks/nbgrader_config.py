"""In this folder (a terminal, the assignment list of JupyterLab) the settings are the course's."""

from pathlib import Path

load_subconfig("nbgrader_config.py", path=str(Path(__file__).resolve().parents[1]))  # noqa: F821
