"""Importing kdlib costs what importing torch costs: nothing heavy comes along."""

import json
import subprocess
import sys

HEAVY = {
    "IPython",
    "ipywidgets",
    "matplotlib",
    "pandas",
    "safetensors",
    "scipy",
    "sklearn",
    "torchvision",
    "tqdm",
}


def newly_loaded(code: str) -> set[str]:
    """Top-level packages that `code` loads after torch, in a fresh interpreter."""
    script = (
        "import json, sys, torch\nbefore = set(sys.modules)\n"
        f"{code}\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_nothing_but_the_standard_library_comes_with_kdlib():
    assert newly_loaded("import kdlib") - set(sys.stdlib_module_names) == {"kdlib"}


def test_every_module_loads_without_the_heavy_packages():
    rooms = "data decoding evaluation evidence losses models notebook notebook.plots training"
    names = ", ".join(f"kdlib.{room}" for room in rooms.split())
    assert not newly_loaded(f"import {names}") & HEAVY
    assert newly_loaded("import sklearn.datasets") & HEAVY  # the measurement itself works


def test_submodules_come_when_named():
    assert "kdlib" in newly_loaded(
        "import kdlib\nassert 'kdlib.losses' not in sys.modules\n"
        "assert kdlib.losses.kd_loss and kdlib.check and kdlib.__version__\n"
        "assert not hasattr(kdlib, 'nothing') and not hasattr(kdlib, '__main__')"
    )
