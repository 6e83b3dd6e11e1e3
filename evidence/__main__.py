"""`python -m evidence [NAME]`: regenerate the stored results, one module for each set of claims."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time

import evidence


def main() -> None:
    """Run the modules that are named, or all of them."""
    known = sorted(
        m.name for m in pkgutil.iter_modules(evidence.__path__) if not m.name.startswith("_")
    )
    wanted = [name for name in sys.argv[1:] if name != "all"] or known
    if unknown := sorted(set(wanted) - set(known)):
        raise SystemExit(f"no evidence named {', '.join(unknown)}; there are {', '.join(known)}")
    for name in wanted:
        start = time.perf_counter()
        print(f"{name} ...", flush=True)
        importlib.import_module(f"evidence.{name}").main()
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
