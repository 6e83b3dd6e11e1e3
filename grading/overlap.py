"""How much of one answer stands in another: syntax trees, without the names that a writer chooses.

An answer becomes a sequence of tokens: its syntax tree from the root down, without docstrings,
annotations and the text of messages, every local name replaced by one and the same. Two answers
overlap in the runs of `RUN` tokens that both have.

Right answers look alike when they are short, so an overlap counts by its length, too. Of the 645
pairs of independent right answers in `tests/answers` the most alike have 0.75 of their runs in
common (20 tokens) and 0.68 (66 tokens), and none is taken for a copy; copydetect, which compares
kinds of tokens and not trees, gives 0.8 and more to six of them.
"""

from __future__ import annotations

import ast
import contextlib
import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from grading.program import tree_of
from grading.sandbox import LIBRARY

RUN = 12  # tokens
SHARE = 0.8  # of the shorter one's runs
OFTEN = 100  # answers: a run that so many have says nothing of two of them
LEAST = 40  # tokens that both have
MANY, LONG = 4, 90  # so many students may have the same answer of fewer than LONG tokens
DROPPED = ("annotation", "returns", "type_comment", "decorator_list", "ctx", "type_ignores")


@dataclass(frozen=True)
class Shape:
    """An answer as far as copying is concerned.

    Attributes:
        tokens: how many there are.
        runs: hash of each run of tokens -> how often it occurs.
    """

    tokens: int
    runs: Counter[int]

    @property
    def key(self) -> frozenset:
        """The same for two answers that differ in nothing but their writers' names."""
        return frozenset(self.runs.items())

    def share(self, other: Shape) -> float:
        """Give the part of the shorter one's runs that the other has, too: 0 to 1."""
        least = min(self.runs.total(), other.runs.total())
        return (self.runs & other.runs).total() / least if least else 0.0

    def common(self, other: Shape) -> int:
        """Give the number of tokens that both have, about."""
        runs = (self.runs & other.runs).total()
        return runs + RUN - 1 if runs else 0

    def copies(self, other: Shape) -> bool:
        """Say whether the two are too much alike to have been written twice."""
        return self.common(other) >= LEAST and self.share(other) >= SHARE


def shape(source: str, given: Iterable[str] = ()) -> Shape:
    """Take the shape of some code.

    Args:
        source: an answer; code that it executes from strings counts, too.
        given: code that everybody was given, such as the stub; what it has does not count.
    """
    found = _shape_of(source)
    runs = found.runs
    for text in given:
        runs = runs - _shape_of(text).runs
    return Shape(found.tokens, runs)


@functools.lru_cache(maxsize=512)
def _shape_of(source: str) -> Shape:
    return _shape(tree_of(source))


def _shape(tree: ast.AST | None) -> Shape:
    trees = [tree, *_in_strings(tree)] if tree else []
    tokens = [token for t in trees for token in _tokens(t)]
    return Shape(len(tokens), _runs(tokens))


def _runs(tokens: list[str]) -> Counter[int]:
    return Counter(hash(tuple(tokens[n : n + RUN])) for n in range(len(tokens) - RUN + 1))


def _in_strings(tree: ast.AST) -> Iterator[ast.Module]:
    """Give the trees of the strings that are programs of more than one line."""
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in prose else None
        if isinstance(text, str) and "\n" in text:
            with contextlib.suppress(SyntaxError, ValueError, RecursionError):
                yield ast.parse(text)


def _tokens(tree: ast.AST) -> list[str]:
    local = _local_names(tree)
    found: list[str] = []

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if not isinstance(node, ast.Module):
            found.append(_name(node, local))
        for field, value in ast.iter_fields(node):
            if field in DROPPED:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    walk(child)

    walk(tree)
    return found


def _local_names(tree: ast.AST) -> set[str]:
    """The names that the writer chose: arguments, and what is assigned or defined."""
    local = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not _loads(n)}
    return local | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}


def _loads(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def _name(node: ast.AST, local: set[str]) -> str:
    kind = type(node).__name__
    match node:
        case ast.Name(id=name):
            return "v" if name in local else name
        case ast.Attribute(attr=name):
            return f".{name}"
        case ast.Constant(value=str()):
            return "text"
        case ast.Constant(value=value):
            return repr(value)
        case ast.keyword(arg=name) if name:
            return f"{name}="
        case ast.arg():
            return "arg"
    return kind


@dataclass(frozen=True)
class Text:
    """Some code, and where it stands.

    Attributes:
        owner: the student, or "" for what is published.
        where: the question, or the name of what is published.
        source: as it stands there.
        shape: of it.
    """

    owner: str
    where: str
    source: str
    shape: Shape

    def __lt__(self, other: Text) -> bool:
        """Published code first, then the students by their names."""
        return (self.owner, self.where) < (other.owner, other.where)


def groups(texts: Iterable[Text], class_size: int) -> list[list[Text]]:
    """Find the code that was not written independently: lists of two or more, the longest first.

    Args:
        texts: of all students, and what is published.
        class_size: how many students there are; short code that a tenth of them has says nothing.
    """
    same: dict[frozenset, list[Text]] = defaultdict(list)
    for text in texts:
        if text.shape.runs.total() + RUN - 1 >= LEAST:
            same[text.shape.key].append(text)
    kinds = [found[0].shape for found in same.values()]
    parent = list(range(len(kinds)))

    def top(n: int) -> int:
        while parent[n] != n:
            n = parent[n]
        return n

    for a, b in _candidates(kinds):
        if top(a) != top(b) and kinds[a].copies(kinds[b]):
            parent[top(a)] = top(b)
    found: dict[int, list[Text]] = defaultdict(list)
    for n, alike in enumerate(same.values()):
        found[top(n)] += alike
    alike = [sorted(group) for group in found.values() if _is_telling(group, class_size)]
    return sorted(alike, key=lambda group: -max(text.shape.tokens for text in group))


def _is_telling(group: list[Text], class_size: int) -> bool:
    """Say whether a group is worth a look: two writers, and not what many write, being short."""
    owners = {text.owner for text in group}
    students = owners - {""}
    common = len(students) >= max(MANY, class_size / 10)
    short = max(text.shape.tokens for text in group) < LONG
    return len(owners) > 1 and bool(students) and not (common and short)


def _candidates(kinds: list[Shape]) -> set[tuple[int, int]]:
    """Give the pairs that have a run in common which not everybody has."""
    places: dict[int, list[int]] = defaultdict(list)
    for n, kind in enumerate(kinds):
        for run in kind.runs:
            places[run].append(n)
    telling = (found for found in places.values() if len(found) <= OFTEN)
    return {pair for found in telling for pair in combinations(found, 2)}


@functools.cache
def published() -> tuple[Text, ...]:
    """Every function and class of kdlib: references, their relatives, known mistakes."""
    return tuple(text for path in sorted(LIBRARY.rglob("*.py")) for text in _definitions(path))


def _definitions(path: Path) -> Iterator[Text]:
    source = path.read_text("utf-8")
    lines = source.splitlines()
    module = ".".join(("kdlib", *path.relative_to(LIBRARY).with_suffix("").parts))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            code = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            yield Text("", f"{module}: {node.name}", code, _shape(node))
