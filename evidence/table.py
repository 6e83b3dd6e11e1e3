"""`python -m evidence table`: write what the experiments show into the README."""

from __future__ import annotations

import re
from pathlib import Path

from kdlib.assets import FOLDER
from kdlib.evidence import load

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(?<=<!-- evidence -->\n).*?(?=<!-- /evidence -->)", re.DOTALL)


def rows() -> list[str]:
    """Make the table's rows from the stored results, in the order of the units."""
    made = ["| unit | claim | effect | over | paper |", "|---|---|---|---|---|"]
    for file in sorted((FOLDER / "evidence").glob("u*.json")):
        for row in load(file.stem)["headlines"]:
            mean, low, high = (f"{v:+.{row['places']}f}" for v in row["interval"])
            effect = f"{mean} [{low}, {high}] {row['unit']}"
            made.append(
                f"| {file.stem[1:3]} | {row['claim']} | {effect} | {row['over']} | {row['paper']} |"
            )
    return made


def main() -> None:
    """Replace the block between the markers."""
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda _: "\n".join(rows()) + "\n", text), encoding="utf-8")
