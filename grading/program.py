"""A cell as a program: IPython's own syntax made Python's, and what of it is the student's."""

from __future__ import annotations

import ast
import functools
import warnings

from IPython.core.inputtransformer2 import TransformerManager

RUN_AS_CODE = frozenset({"time", "timeit", "capture", "prun"})


@functools.lru_cache(maxsize=512)
def python_of(source: str) -> str | None:
    """Translate a cell's magics and shell lines into calls; None when that is no Python.

    What `%%time` and its like run is part of the program.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = TransformerManager().transform_cell(source)
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    bodies = [body for call in ast.walk(tree) if (body := _code_of_magic(call)) is not None]
    for body in bodies:
        inner = python_of(body)
        if inner is None:
            return None
        text += f"\n{inner}"
    return text


def tree_of(source: str) -> ast.Module | None:
    """Parse a cell; None when it is no Python."""
    text = python_of(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return None if text is None else ast.parse(text)


def magic(node: ast.AST) -> tuple[str, str] | None:
    """Tell which method of `get_ipython()` a node calls, and with which magic, if it is one."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Call)
        and isinstance(node.func.value.func, ast.Name)
        and node.func.value.func.id == "get_ipython"
    ):
        first = node.args[0] if node.args else None
        name = first.value if isinstance(first, ast.Constant) else ""
        return node.func.attr, str(name)
    return None


def _code_of_magic(node: ast.AST) -> str | None:
    found = magic(node)
    if not found or found[1] not in RUN_AS_CODE:
        return None
    texts = [a.value for a in node.args[1:] if isinstance(a, ast.Constant)]  # type: ignore[attr-defined]
    if found[0] == "run_cell_magic" and len(texts) == 2:
        return texts[1]
    return texts[0] if found[0] == "run_line_magic" and texts else None


def root(node: ast.AST) -> str:
    """Name the variable that a chain of attributes and indices starts from, or ""."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
