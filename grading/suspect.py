"""What in a submission a person should look at; it changes no points.

Only code counts: words in comments, docstrings and sentences are no signs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

from grading.program import magic, root, tree_of

MODULES = {
    "reaches into the checks": {"kdlib.checks", "kdlib.seal", "kdlib.exercises"},
    "looks at frames and closures": {"inspect", "dis", "tracemalloc", "bdb"},
    "reads files of the library": {"linecache", "pkgutil", "importlib", "zipimport", "marshal"},
    "uses threads or other contexts": {
        *("threading", "_thread", "concurrent", "multiprocessing", "contextvars", "asyncio"),
    },
    "acts on the process": {"signal", "atexit", "faulthandler", "resource"},
    "runs other programs": {"subprocess", "pty", "code", "codeop", "runpy"},
    "patches modules": {"ctypes", "cffi", "builtins", "unittest"},
    "uses the network": {"socket", "requests", "urllib", "http", "ftplib", "smtplib"},
    "traces code": {"torch.jit", "torch.fx", "torch._dynamo", "torch.utils._python_dispatch"},
}
ATTRIBUTES = {
    "looks at frames and closures": {
        *("__closure__", "cell_contents", "__wrapped__", "__code__", "__globals__", "gi_frame"),
        *("f_back", "f_locals", "f_globals", "f_code", "tb_frame", "cr_frame", "__subclasses__"),
        *("_getframe", "settrace", "setprofile", "getsource", "getclosurevars", "co_consts"),
        *("get_objects", "get_referrers", "get_referents", "_current_frames"),
        *("FunctionType", "CodeType"),
    },
    "reads files of the library": {
        *("__file__", "__path__", "__spec__", "__loader__", "__cached__", "get_data"),
    },
    "acts on the process": {"_exit", "kill", "fork", "forkpty", "killpg", "sys.exit"},
    "runs other programs": {"popen", "posix_spawn"},
    "makes values that are computed later": {
        *("__torch_function__", "__torch_dispatch__", "_make_subclass", "as_subclass"),
        *("_make_wrapper_subclass",),
    },
    "looks at the grader's surroundings": {"environ", "getenv"},
    "displays records": {"display_pub", "displayhook", "publish_display_data"},
    "reaches into the checks": {"_sealed", "SealedError", "catalogue", "verdict_of"},
}
CALLS = {
    "runs code from text": {"exec", "eval", "compile", "__import__"},
    "looks at frames and closures": {"globals", "locals", "vars"},
    "runs other programs": {"system"},
}
METHODS = {"__float__", "__int__", "__index__", "__bool__", "__array__", "__eq__", "__len__"}
NUMBERS = {"float", "int", "str", "Tensor", "ndarray", "dict", "list", "tuple"}
PATHS = re.compile(r"/proc\b|gradebook|nbgrader|kdgrade", re.IGNORECASE)
SOURCES = re.compile(r"kdlib[/\\]|site-packages|\.pyc?$|solutions?[/\\]", re.IGNORECASE)
SHELLS = {"bash", "sh", "script", "python", "python3", "perl", "ruby", "system"}


def suspicions(sources: Mapping[str, str], released: Sequence[str] = ()) -> list[str]:
    """Say what is unusual in the student's own code.

    Args:
        sources: where it stands, in words -> the code.
        released: the code cells that everybody was given.

    Returns:
        Lines such as "02.kd_loss: patches modules (ctypes)".
    """
    given = {line.strip() for cell in released for line in cell.splitlines()}
    imported: dict[str, str] = {}
    for text in (*released, *sources.values()):
        imported |= _imported(tree_of(text))
    found = []
    for where, source in sources.items():
        said: dict[str, str] = {}
        for words, what in _signs(source, given, imported, where):
            said.setdefault(words, what)
        found += [f"{where}: {words} ({what[:40]})" for words, what in said.items()]
    return found


def _signs(
    source: str, given: set[str], imported: Mapping[str, str], where: str
) -> Iterator[tuple[str, str]]:
    tree = tree_of(source)
    if tree is None:
        return
    lines = source.splitlines()
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if 0 < line <= len(lines) and lines[line - 1].strip() in given:
            continue
        yield from _sign(node, imported, prose, where)


def _imported(tree: ast.Module | None) -> dict[str, str]:
    """The names that imports bind, and the modules or objects that they stand for."""
    found = {}
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return found


def _sign(
    node: ast.AST, imported: Mapping[str, str], prose: set[int], where: str
) -> Iterator[tuple[str, str]]:
    """Give the signs of one node: words, and what they were read off."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _import(node, where)
    elif isinstance(node, ast.Attribute):
        yield from _attribute(node, imported, where)
    elif isinstance(node, ast.Call):
        yield from _call(node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
        yield from _string(node.value)
    elif isinstance(node, ast.ClassDef):
        bases = {getattr(base, "attr", getattr(base, "id", "")) for base in node.bases}
        methods = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
        methods |= {getattr(n.targets[0], "id", "") for n in node.body if isinstance(n, ast.Assign)}
        for name in sorted(methods):
            yield from _known(name, f"{node.name}.{name}")
        if methods & METHODS and bases & NUMBERS:
            yield "makes values that are computed later", f"class {node.name}"


def _import(node: ast.Import | ast.ImportFrom, where: str) -> Iterator[tuple[str, str]]:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if module == "kdlib.checks" and names == ["check"]:
            return
        if module.split(".")[0] == "kdlib" and where.partition(".")[2] in names:
            yield "names the function that it is to write", f"{module}.{where.partition('.')[2]}"
        names = [module, *(f"{module}.{name}" for name in names)]
    for name in names:
        for words, modules in MODULES.items():
            if any(name == m or name.startswith(f"{m}.") for m in modules):
                yield words, name
        yield from _known(name.rpartition(".")[2], name)


def _attribute(
    node: ast.Attribute, imported: Mapping[str, str], where: str
) -> Iterator[tuple[str, str]]:
    text = ast.unparse(node)
    first = root(node)
    whole = imported.get(first, first) + text[len(first) :] if first else text
    yield from _known(node.attr, text)
    if whole in ("sys.modules", "sys.meta_path", "sys.path_hooks"):
        yield "patches modules", text
    if whole == "sys.exit":
        yield "acts on the process", text
    for module in MODULES["traces code"] | {"kdlib.checks", "kdlib.seal", "kdlib.exercises"}:
        if whole == module:
            traced = module.startswith("torch")
            yield ("traces code" if traced else "reaches into the checks"), text
    stores = isinstance(node.ctx, ast.Store | ast.Del)
    if stores and first in imported and not whole.startswith("torch.backends."):
        yield "patches modules", text
    if not stores and node.attr == where.partition(".")[2] and first in imported:
        yield "names the function that it is to write", text
    if first == "get_ipython" or text.startswith("get_ipython()."):
        if node.attr in ("system", "getoutput", "run_line_magic", "run_cell_magic"):
            return
        yield "changes IPython", text


def _known(name: str, text: str) -> Iterator[tuple[str, str]]:
    for words, names in ATTRIBUTES.items():
        if name in names:
            yield words, text


def _call(node: ast.Call) -> Iterator[tuple[str, str]]:
    if called := magic(node):
        method, name = called
        if method in ("system", "getoutput") or name in SHELLS:
            yield "runs other programs", name
        return
    name = getattr(node.func, "id", "")
    for words, names in CALLS.items():
        if name in names or (words == "runs other programs" and _attr(node.func) in names):
            yield words, ast.unparse(node.func)
    if name in ("getattr", "setattr", "delattr", "hasattr") and len(node.args) > 1:
        what = node.args[1]
        if isinstance(what, ast.BinOp | ast.JoinedStr | ast.Call | ast.Subscript):
            yield "puts a name together", ast.unparse(what)
    if name in ("setattr", "delattr") and node.args and root(node.args[0]) in ("torch", "kdlib"):
        yield "patches modules", ast.unparse(node)


def _attr(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""


def _string(text: str) -> Iterator[tuple[str, str]]:
    """Look at a string that is used as a name or a path, not at a sentence."""
    if len(text.split()) != 1:
        return
    if PATHS.search(text):
        yield "looks at the grader's surroundings", text
    if SOURCES.search(text):
        yield "reads files of the library", text
    if text.startswith(("kdlib.checks", "kdlib.seal", "kdlib.exercises")):
        yield "reaches into the checks", text
    if "record+json" in text:
        yield "displays records", text
    if (text.startswith("__") or text.endswith("__")) and text.strip("_") and text != "__main__":
        yield "puts a name together", text
    yield from _known(text, repr(text))
