"""Files that ship with kdlib, each with its SHA-256, licence and recipe in `manifest.json`."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).parent


def manifest() -> dict[str, dict]:
    """Read the manifest: file name -> sha256, bytes, licence, source, recipe."""
    return json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


@functools.cache
def verified(name: str) -> Path:
    """Give the path of a shipped file after checking its SHA-256.

    Raises:
        FileNotFoundError: the file is not there, or is not in the manifest.
        ValueError: it is there and damaged.
    """
    entry, file = manifest().get(name), FOLDER / name
    if entry is None:
        raise FileNotFoundError(f"no shipped file {name!r}; there are {sorted(manifest())}")
    if not file.exists():
        raise FileNotFoundError(f"{name} is missing from kdlib; install kdlib again")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != entry["sha256"]:
        raise ValueError(
            f"{name} is damaged (SHA-256 {digest[:12]}..., expected {entry['sha256'][:12]}...); "
            "install kdlib again"
        )
    return file


def register(name: str, *, licence: str, source: str, recipe: str, **facts: object) -> None:
    """Enter a freshly made file into the manifest (used by the recipes)."""
    file = FOLDER / "manifest.json"
    entries = manifest() if file.exists() else {}
    data = (FOLDER / name).read_bytes()
    entries[name] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "licence": licence,
        "source": source,
        "recipe": recipe,
        **facts,
    }
    file.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
