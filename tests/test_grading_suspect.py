"""What a person should look at is noticed, in code alone; copies are told from right answers."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from itertools import combinations

import pytest

from grading.notebooks import answers, exercises, released, solution, units
from grading.overlap import LEAST, published, shape
from grading.suspect import suspicions
from kdlib.checks import catalogue
from tests.cheats import CHEATS, TYPED_IN

WHERE = "02.kd_loss"

# Ways to the sealed reference, or around the seal, each in its shortest form.
REACHING = {
    "a thread pool": """
from concurrent.futures import ThreadPoolExecutor
def kd_loss(*a): return ThreadPoolExecutor().submit(losses.response.kd, *a).result()""",
    "a thread": "import threading\nthreading.Thread(target=print).start()",
    "an empty context": "import contextvars\nkd_loss = lambda *a: contextvars.Context().run(f, *a)",
    "a copied context": "from contextvars import copy_context\nc = copy_context()",
    "closure variables": "import inspect\nf = inspect.getclosurevars(g).nonlocals['function']",
    "a closure": "kd_loss = g.__closure__[0].cell_contents",
    "a name in two parts": 'kd_loss = getattr(g, "__clo" + "sure__")[1]',
    "a name in two parts, stored": 'n = "__clo"\nn += "sure__"\nkd_loss = getattr(g, n)[1]',
    "source from disk": "import kdlib\nsource = open(kdlib.__file__).read()",
    "source by pkgutil": "import pkgutil\nsource = pkgutil.get_data('kdlib', 'seal.py')",
    "source by importlib": "import importlib.util\ns = importlib.util.find_spec('kdlib').origin",
    "source by inspect": "from inspect import getsource\nsource = getsource(g)",
    "a compiled module": "import marshal\ncode = marshal.loads(data)",
    "code run from text": "exec(text.replace('@reference', ''))",
    "a function of a code object": "import types\nkd_loss = types.FunctionType(code, globals())",
    "a profiler": "import sys\nsys.setprofile(lambda frame, *a: frames.append(frame))",
    "a frame": "import sys\nf = sys._getframe(1).f_locals",
    "objects of the collector": "import gc\nf = [o for o in gc.get_objects() if callable(o)]",
    "a forked helper": "import os\nif os.fork() == 0: work()",
    "another process": "import multiprocessing as mp\nmp.Pool(1)",
    "the seal's variable": "import kdlib.seal as s\ns._sealed = {}",
    "observe patched": "from kdlib.checks import observe\nobserve.observe = print",
    "a lazy number": "class Lazy(float):\n    def __float__(self): return g()",
    "a lazy tensor": """
class Lazy(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None): return g()""",
    "a trace": "kd_loss = torch.jit.trace(g, (a, b))",
    "a graph": "import torch.fx\nkd_loss = torch.fx.symbolic_trace(g)",
    "a known mistake": "from kdlib.checks import catalogue",
    "the reference by name": "from kdlib.losses import kd_loss as library",
    "the reference by its module": "from kdlib import losses\nkd_loss = losses.kd_loss",
    "torch patched": "torch.allclose = lambda *a: True",
}

HARMLESS = {
    "words in comments": "x = 1  # a training signal. nbgrader, os.kill, inspect.getsource",
    "words in docstrings": 'def f():\n    """Not nbgrader; sys.exit()."""\n    return 1',
    "words in sentences": 'print("the training signal. Not for nbgrader, os.environ or /proc/1")',
    "the collector": "import gc\ngc.collect()",
    "eval mode": "model.eval()\nteacher = torch.compile(model)",
    "getattr": "layers = [getattr(model, name) for name in names]",
    "its own attributes": "model.counter = 1\nself.x = 2",
    "magics": "%matplotlib inline\n%%time\nx = 1",
    "a timer": "%%time\nx = 1",
    "the check": "from kdlib import check\nfrom kdlib.checks import check",
    "settings": "torch.backends.cudnn.deterministic = True\nplt.rcParams['font.size'] = 9",
}


@pytest.mark.parametrize("name", REACHING)
def test_reaching_for_the_reference_is_noticed(name: str) -> None:
    imports = ["import torch\nfrom kdlib import losses"]
    assert suspicions({WHERE: REACHING[name]}, imports)


@pytest.mark.parametrize("name", HARMLESS)
def test_only_code_counts(name: str) -> None:
    assert suspicions({WHERE: HARMLESS[name]}, ["import torch"]) == []


UNREMARKABLE = {  # they try nothing that is not also done by accident
    *("the restored notebook read", "a page that changes grades", "a disk filled", "not finite"),
    *("a very large record", "a very deep record", "a very long record", "a very large number"),
    *("names that are code", "output without end"),
}


@pytest.mark.parametrize("cheat", {**CHEATS, **TYPED_IN})
def test_the_cheats_are_noticed(cheat: str) -> None:
    found = suspicions({"00.accuracy": {**CHEATS, **TYPED_IN}[cheat]}, ["import torch"])
    assert bool(found) == (cheat not in UNREMARKABLE)


def written() -> dict[str, list[str]]:
    """Right answers that were written independently, and the solution, by the exercise."""
    found: dict[str, list[str]] = {}
    for unit in units():
        solved = answers(solution(unit))
        module = importlib.import_module(f"tests.answers.u{unit[:2]}")
        for name, cell in exercises(unit).items():
            # the exhibits of the museum are made by one function, whose source they share
            own = [] if "exhibit" in name else module.ANSWERS[name]
            sources = [textwrap.dedent(inspect.getsource(answer)) for answer in own]
            found[name] = [*sources, solved[cell]]
    return found


def given() -> dict[str, list[str]]:
    """The code that everybody was given, by the exercise."""
    return {
        name: [cell.source for cell in released(unit).cells if cell.cell_type == "code"]
        for unit in units()
        for name in exercises(unit)
    }


def test_right_answers_are_not_suspicious() -> None:
    released_code = given()
    for name, sources in written().items():
        for source in sources:
            assert suspicions({name: source}, released_code[name]) == []


def test_independent_right_answers_are_no_copies_of_each_other_or_of_the_library() -> None:
    released_code = given()
    pairs = 0
    library = [text.shape for text in published() if text.shape.tokens >= LEAST]
    for name, sources in written().items():
        shapes = [shape(source, released_code[name]) for source in sources]
        for one, other in combinations(shapes, 2):
            pairs += 1
            assert not one.copies(other), name
        if "exhibit" not in name:  # a repaired script of the museum is one there, too
            assert not any(s.copies(known) for s in shapes for known in library), name
    assert pairs > 500


def disguised(source: str) -> str:
    """The same with other names, other spaces, a docstring and comments."""
    for n, name in enumerate(dict.fromkeys(re.findall(r"^\s+(\w+) = ", source, re.MULTILINE))):
        source = re.sub(rf"\b{name}\b", f"other_{n}", source)
    return re.sub(r"^( +)(return|for|if)", r"\1# so\n\1\2", source, flags=re.MULTILINE)


def test_copies_in_disguise_are_found() -> None:
    released_code, found, most = given(), 0, 0
    for name, sources in written().items():
        for source in sources:
            one, other = (shape(s, released_code[name]) for s in (source, disguised(source)))
            if one.runs.total() + 11 >= LEAST:
                most += 1
                found += one.copies(other)
    assert most > 150
    assert found >= 0.95 * most


def test_a_reference_typed_in_is_found() -> None:
    library = {text.where: text for text in published()}
    module = inspect.getmodule(catalogue()["02.kd_loss"].reference)
    text = library[f"{module.__name__}: kd_loss"]
    assert any(shape(text.source).copies(known.shape) for known in published())
