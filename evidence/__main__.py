"""`python -m evidence [NAME ...]`: regenerate stored results, and the README's table of them.

`python -m evidence table` writes the table alone.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time

import evidence
from evidence import table


def main() -> None:
    """Run the modules that are named, or all of them."""
    known = sorted(m.name for m in pkgutil.iter_modules(evidence.__path__) if m.name[0] == "u")
    wanted = [name for name in sys.argv[1:] if name not in ("all", "table")]
    wanted = wanted or (known if sys.argv[1:] != ["table"] else [])
    if unknown := sorted(set(wanted) - set(known)):
        raise SystemExit(f"no evidence named {', '.join(unknown)}; there are {', '.join(known)}")
    for name in wanted:
        start = time.perf_counter()
        print(f"{name} ...", flush=True)
        importlib.import_module(f"evidence.{name}").main()
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    table.main()


if __name__ == "__main__":
    main()
