"""Which released cells no answer depends on, as far as that can be read off the names.

A student's own cells are always run, and so is what they use. A cell of the release is left out
when it binds no name that is used later, in a cell that is run, touches no object that is used
there, and changes nothing for the whole process. Where names cannot be read off (`globals()`,
`exec`, `import *`, a cell that is no Python), everything is run.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Sequence
from dataclasses import dataclass, field

from grading.program import magic, python_of, root

DYNAMIC = frozenset(
    (
        *("exec", "eval", "compile", "globals", "locals", "vars", "setattr", "delattr"),
        *("__import__", "__builtins__", "__main__", "builtins", "gc", "importlib", "inspect"),
        *("asyncio", "concurrent", "multiprocessing", "runpy", "threading"),
    )
)
PLAIN_MAGICS = frozenset(
    ("time", "timeit", "capture", "prun", "matplotlib", "config", "pip", "conda", "precision")
)
FORGETFUL = frozenset({"contextmanager", "dataclass", "inference_mode", "no_grad", "wraps"})
ON_THE_PROCESS = re.compile(
    r"(?:set|use|enable|disable|register|filter)_|"
    r"(?:manual_seed|seed|use|simplefilter|filterwarnings|chdir|putenv|update)$"
)


@dataclass
class Names:
    """What a cell does with the names of the session.

    Attributes:
        bound: names that it binds.
        used: names that it reads, at any depth.
        imported: those of `bound` that only an import binds.
        made: name -> names that the function or class of this name reads.
        changed: names of objects and modules that it changes.
        stateful: names of functions and classes that may remember something between two calls.
        known: False when it reaches names in ways that cannot be read off.
    """

    bound: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)
    made: dict[str, set[str]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    stateful: set[str] = field(default_factory=set)
    known: bool = True


def relevant(cells: Sequence[tuple[str, bool]]) -> list[bool]:
    """Say of each cell whether it has to be run.

    Args:
        cells: source, and whether it has to be run in any case, in the order of the notebook.
    """
    names = [names_of(source) for source, _ in cells]
    if not all(n.known for n, (_, must) in zip(names, cells, strict=True) if must):
        return [True] * len(cells)
    modules = set().union(*(n.imported for n in names))
    kept = [
        must or not n.known or bool(n.changed & modules)  # what is changed there, all see
        for n, (_, must) in zip(names, cells, strict=True)
    ]
    plain = _plain(names)
    while True:
        before, needed = list(kept), set()  # needed by what is run later
        for place in reversed(range(len(cells))):
            cell = names[place]
            touched = _with_what_they_use(cell.used, names)
            kept[place] |= bool(cell.bound & needed or touched & (needed - plain))
            if kept[place]:
                needed |= touched
        if kept == before:
            return kept


def _plain(names: list[Names]) -> set[str]:
    """Give the names of modules, functions and classes that remember nothing, and of built-ins."""
    bound = set().union(*(n.bound for n in names))
    modules = set().union(*(n.imported for n in names))
    stateful = set().union(*(n.stateful | (n.changed - modules) for n in names))
    variables = set().union(*(n.bound - n.imported - set(n.made) for n in names))
    return (bound - variables - stateful) | (set(dir(builtins)) - bound)


def _with_what_they_use(found: set[str], names: list[Names]) -> set[str]:
    """Add what the functions and classes of these names read."""
    found = set(found)
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        for cell in names:
            for more in cell.made.get(name, set()) - found:
                found.add(more)
                waiting.append(more)
    return found


def names_of(source: str) -> Names:
    """Read off what a cell does with the names of the session."""
    names = Names()
    text = python_of(source)
    try:
        table = symtable.symtable(text or "", "cell", "exec")
    except (SyntaxError, ValueError, RecursionError):
        text = None
    if text is None:
        names.known = False
        return names
    for symbol in table.get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            names.bound.add(symbol.get_name())
        if symbol.is_referenced():
            names.used.add(symbol.get_name())
    for child in table.get_children():
        reads, binds = _globals(child)
        names.used |= reads
        names.bound |= binds
        names.stateful |= binds
        if child.get_type() in ("function", "class") and child.get_name() in names.bound:
            names.made.setdefault(child.get_name(), set()).update(reads)
    tree = ast.parse(text)
    assigned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _stores(n)}
    names.imported = {
        alias.asname or alias.name.partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    } - assigned
    for name in list(names.made):
        if name in assigned:
            del names.made[name]
    nodes = list(ast.walk(tree))
    shells = sum(isinstance(n, ast.Name) and n.id == "get_ipython" for n in nodes)
    names.known &= shells == sum(magic(node) is not None for node in nodes)
    for node in nodes:
        _look(node, names)
    return names


def _globals(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Give the session's names that a function or class reads, and those that it binds."""
    in_class = table.get_type() == "class"
    reads, binds = set(), set()
    for symbol in table.get_symbols():
        if symbol.is_global() or (in_class and symbol.is_referenced()):
            reads.add(symbol.get_name())
            if symbol.is_declared_global() and symbol.is_assigned():
                binds.add(symbol.get_name())
    for child in table.get_children():
        more, bound = _globals(child)
        reads, binds = reads | more, binds | bound
    return reads, binds


def _stores(node: ast.Name | ast.Attribute | ast.Subscript) -> bool:
    return isinstance(node.ctx, ast.Store | ast.Del)


def _look(node: ast.AST, names: Names) -> None:
    """Note what a node changes, and whether it hides names."""
    if called := magic(node):
        names.known &= called[0] in ("system", "getoutput") or called[1] in PLAIN_MAGICS
    elif isinstance(node, ast.Import | ast.ImportFrom):
        modules = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
        names.known &= not any(m == "*" or m.partition(".")[0] in DYNAMIC for m in modules)
    elif isinstance(node, ast.Name) and not _stores(node):
        names.known &= node.id not in DYNAMIC
    elif isinstance(node, ast.Attribute):
        names.known &= (root(node), node.attr) != ("sys", "modules")
    if isinstance(node, ast.Attribute | ast.Subscript) and _stores(node):
        names.changed.add(root(node))
    elif isinstance(node, ast.Call):
        last = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if ON_THE_PROCESS.match(last):
            names.changed.add(root(node.func))
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        _note_memory(node, names)


def _note_memory(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, names: Names) -> None:
    """Note a function or class with a place to remember something: defaults, attributes."""
    if isinstance(node, ast.ClassDef):
        places: list = [s for s in node.body if isinstance(s, ast.Assign | ast.AugAssign)]
    else:
        given = [*node.args.defaults, *node.args.kw_defaults]
        places = [d for d in given if d and not isinstance(d, ast.Constant | ast.UnaryOp)]
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if getattr(called, "attr", getattr(called, "id", "")) not in FORGETFUL:
            places.append(decorator)
    if places:
        names.stateful.add(node.name)
