"""Python's builtins as they were when the course was imported.

A student may have assigned to `builtins.len`; a check needs the real one.
"""

from __future__ import annotations

import builtins
from contextlib import ContextDecorator

# what a notebook, a debugger or a pretty printer replaces for good reasons
_THEIRS = {"input", "print", "open", "display", "exit", "quit", "help", "breakpoint", "__import__"}
_KEPT = {name: value for name, value in vars(builtins).items() if name not in _THEIRS | {"_"}}
_MISSING = object()


class Builtins(ContextDecorator):
    """Put the builtins back for the length of a block or a call; afterwards they are as found.

    A class, and not a generator, so that it works while they are damaged.
    """

    def _recreate_cm(self) -> Builtins:
        return Builtins()

    def __enter__(self) -> Builtins:
        """Put the real ones in their places."""
        found = vars(builtins)
        self.found = {
            name: found.get(name, _MISSING)
            for name, kept in _KEPT.items()
            if found.get(name, _MISSING) is not kept
        }
        found.update({name: _KEPT[name] for name in self.found})
        return self

    def __exit__(self, *error: object) -> None:
        """Leave what was there before the block, whatever the block did."""
        now = vars(builtins)
        now.update(_KEPT)
        for name, value in self.found.items():
            if value is _MISSING:
                del now[name]
            else:
                now[name] = value
