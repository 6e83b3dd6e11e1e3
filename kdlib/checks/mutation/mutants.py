"""Mutants: an answer with one small mistake in it, made from its syntax tree.

A target is a function or class with the functions of its own module that it calls. Each mutant is
compiled in a copy of that module's namespace, so that it meets neither the original nor its seal.
"""

from __future__ import annotations
import __future__

import ast
import difflib
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType, MappingProxyType, ModuleType

from kdlib.checks.mutation.trees import OPERATORS, Operator, is_guard, parameters, text

Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Mutant:
    """One change in one definition.

    Attributes:
        operator: that made it.
        before: the line or lines that it changes, as `ast.unparse` writes them.
        after: what stands there instead.
        code: of the whole target, compiled.
        target: what it was made from.
    """

    operator: Operator
    before: str
    after: str
    code: CodeType = field(repr=False)
    target: Target = field(repr=False)

    @property
    def key(self) -> str:
        """What it is called in a list of equivalent mutants; no line numbers."""
        return f"{self.operator.name} @ {self.before} => {self.after}".rstrip()

    def answer(self) -> Callable:
        """Give the mutated function or class; whatever its module's names stand for is shared."""
        return self.target.load(self.code)


class Target:
    """An answer, as something that mutants can be made from.

    Args:
        answer: a function or class, defined by name in a module whose source can be read.
        like: the reference, when the answer is another one: it says of what kind the parameters
            are where the answer is not annotated.
        constants: parameters that no gradient reaches, as the contract has it; None when it does
            not speak of gradients at all.
        skip: names of helpers that are left alone.

    Attributes:
        name: of the function or class.
        helpers: names of the module's functions that it calls and that are mutated with it.
    """

    def __init__(
        self,
        answer: Callable,
        like: Callable | None = None,
        constants: frozenset[str] | None = frozenset(),
        skip: frozenset[str] = frozenset(),
    ) -> None:
        self.module = sys.modules[answer.__module__]
        sources, self.name, self.closure = _definitions(self.module), answer.__qualname__, {}
        if "<locals>" in self.name:  # made by another function, around other values
            self.name = answer.__code__.co_name
            self.closure = dict(inspect.getclosurevars(answer).nonlocals)
            inner = ast.parse(textwrap.dedent(inspect.getsource(answer))).body[0]
            sources = {**sources, self.name: text(inner)}
        if self.name not in sources or not sources[self.name].startswith(("def", "class", "@")):
            raise ValueError(f"{self.module.__name__} does not define {answer.__qualname__}")
        own = _exercises(sources[self.name])
        main = _stripped(sources[self.name], own)
        used = {part.id for part in ast.walk(main) if isinstance(part, ast.Name)}
        self.helpers = [
            name
            for name, source in sources.items()
            if name in used - {self.name}
            and source.startswith(("def ", "@"))
            and _exercises(source) <= own
        ]
        trees = {name: _stripped(sources[name], own) for name in self.helpers}
        self.trees: dict[str, Definition] = {**trees, self.name: main}
        self.mutated = [name for name in self.trees if name not in skip]
        kinds, gives = _signature(like) if like else ({}, "")
        for tree in self.trees.values():
            own = (kinds, gives) if tree is main else ({}, "")
            annotate(tree, *own, constants)
        self.sources = {name: text(tree) for name, tree in self.trees.items()}

    def original(self) -> Callable:
        """Give the answer itself, compiled as a mutant is."""
        return self.load(_compiled(self.sources))

    def load(self, code: CodeType) -> Callable:
        """Run compiled definitions in a copy of the module's namespace."""
        namespace = vars(self.module) | self.closure
        exec(code, namespace)
        return namespace[self.name]

    def mutants(self) -> Iterator[Mutant]:
        """Make every mutant, operator by operator, each distinct source once."""
        seen = set(self.sources.values())
        for operator in OPERATORS:
            for name in reversed(self.mutated):
                for source in rewritten(self.trees[name], operator):
                    if source in seen:
                        continue
                    seen.add(source)
                    try:
                        code = _compiled({**self.sources, name: source})
                    except SyntaxError:
                        continue
                    before, after = _difference(self.sources[name], source)
                    yield Mutant(operator, before, after, code, self)


@functools.cache
def _definitions(module: ModuleType) -> dict[str, str]:
    """Give the source of each function and class of a module, by name."""
    tree = ast.parse(inspect.getsource(module))
    return {n.name: text(n) for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def _exercises(source: str) -> set[str]:
    """Name the exercises whose reference a definition is."""
    return {
        ast.literal_eval(call.args[0])
        for node in ast.walk(ast.parse(source))
        for call in getattr(node, "decorator_list", ())
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "reference"
    }


def _stripped(source: str, own: set[str]) -> Definition:
    """Parse a definition without docstrings and without its seals."""
    tree = ast.parse(source).body[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            node.decorator_list = [d for d in node.decorator_list if "reference(" not in text(d)]
    return tree


def _signature(like: Callable) -> tuple[dict[str, str], str]:
    """Give the kinds of the reference's parameters, and of what it returns."""
    given = inspect.signature(like)
    kinds = {name: str(p.annotation) for name, p in given.parameters.items()}
    return kinds, str(given.return_annotation)


def annotate(
    tree: Definition,
    kinds: Mapping[str, str] = MappingProxyType({}),
    gives: str = "",
    constants: frozenset[str] | None = frozenset(),
) -> None:
    """Let each node know what stands around it, and functions of what kind their parameters are."""
    tree.up = ast.Module([tree], [])

    def walk(node: ast.AST, function: ast.AST | None) -> None:
        node.function = function
        if isinstance(node, ast.FunctionDef):
            function = node
            own = {p.arg: text(p.annotation) for p in parameters(node) if p.annotation}
            node.kinds = {**kinds, **own}
            node.gives = text(node.returns) if node.returns else gives
            node.constants = constants
        for child in ast.iter_child_nodes(node):
            child.up = node
            walk(child, function)

    walk(tree, None)


def _slots(tree: Definition) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield `(parent, field, index, node)` of every node that operators may look at.

    Annotations, decorators, messages and calls that only refuse bad arguments are left out.
    """
    yield (tree.up, "body", 0, tree)

    def walk(node: ast.AST) -> Iterator:
        if isinstance(node, ast.JoinedStr | ast.Raise) or (
            isinstance(node, ast.Expr) and is_guard(node)
        ):
            return
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "ctx", "op", "ops"):
                continue
            for index, child in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(child, ast.AST):
                    yield (node, name, index if isinstance(value, list) else None, child)
                    yield from walk(child)

    yield from walk(tree)


def rewritten(tree: Definition, operator: Operator) -> Iterator[str]:
    """Yield a definition's source with each change that an operator makes of it."""
    for parent, name, index, node in [*_slots(tree)]:
        held = getattr(parent, name)
        for made in operator.mutate(node):
            if index is None:
                setattr(parent, name, made)
            else:
                new = made if isinstance(made, list) else [made]
                setattr(parent, name, [*held[:index], *new, *held[index + 1 :]])
            try:
                yield "\n".join(map(text, tree.up.body))
            finally:
                setattr(parent, name, held)


def _compiled(sources: dict[str, str]) -> CodeType:
    flags = __future__.annotations.compiler_flag
    return compile("\n".join(sources.values()), "<mutant>", "exec", flags, dont_inherit=True)


def _difference(old: str, new: str) -> tuple[str, str]:
    """Give the lines that differ, one line for each side."""
    one, two = ([line.strip() for line in source.splitlines()] for source in (old, new))
    changes = difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    sides = [(one[a:b], two[c:d]) for kind, a, b, c, d in changes if kind != "equal"]
    return tuple(
        "; ".join(line for part in side for line in part) for side in zip(*sides, strict=True)
    )
