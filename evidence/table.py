"""`python -m evidence table`: write what the experiments show into docs/RESULTS.md and the README.

docs/RESULTS.md has every headline; the README has the first one of each experiment.
"""

from __future__ import annotations

import re
from pathlib import Path

from kdlib.assets import FOLDER
from kdlib.evidence import load

ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "docs" / "RESULTS.md"
BLOCK = re.compile(r"(?<=<!-- evidence -->\n).*?(?=<!-- /evidence -->)", re.DOTALL)
HEAD = """# What the experiments show

Made by `python -m evidence table` from `kdlib/assets/evidence/`. Mean paired differences with 95 %
intervals. `python -m evidence uNN_name` runs an experiment again; `make evidence` runs all of them.

"""


def rows(first_only: bool = False) -> list[str]:
    """Make the table's rows from the stored results, in the order of the units."""
    made = ["| unit | claim | effect | over | paper |", "|---|---|---|---|---|"]
    for file in sorted((FOLDER / "evidence").glob("u*.json")):
        headlines = load(file.stem)["headlines"]
        for row in headlines[:1] if first_only else headlines:
            mean, low, high = (f"{v:+.{row['places']}f}" for v in row["interval"])
            effect = f"{mean} [{low}, {high}] {row['unit']}"
            made.append(
                f"| {file.stem[1:3]} | {row['claim']} | {effect} | {row['over']} | {row['paper']} |"
            )
    return made


def pages() -> dict[Path, str]:
    """Give both pages as they ought to be."""
    readme = README.read_text(encoding="utf-8")
    short = "\n".join(rows(first_only=True)) + "\n"
    return {
        README: BLOCK.sub(lambda _: short, readme),
        RESULTS: HEAD + "\n".join(rows()) + "\n",
    }


def main() -> None:
    """Write both pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
