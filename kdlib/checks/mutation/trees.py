"""Syntax trees: the operators' registry, and the few questions that they ask of a node."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Nodes = ast.AST | list[ast.stmt]
Mutate = Callable[[ast.AST], Iterator[Nodes]]

# how parameters are called whose entries are whole numbers or truth values
WHOLE = ("targets", "ids", "lengths", "labels", "tokens", "indices", "rows", "mask", "classes")
_NAMESPACES = {"torch", "F", "nn", "np", "math", "functional", "linalg", "special", "copy"}


@dataclass(frozen=True)
class Operator:
    """One kind of mistake, made in a syntax tree.

    Attributes:
        name: what is done, in a few words: "sum for mean".
        family: what it has in common with others; names that are told apart by no probe share it.
        says: to a student whose answer does the same as such a mutant.
        mutate: from a node, yields what may stand in its place; a list is a run of statements.
            Each node knows its `up`, the node around it, and its `function`.
    """

    name: str
    family: str
    says: str
    mutate: Mutate


OPERATORS: list[Operator] = []


def operator(name: str, family: str, says: str) -> Callable[[Mutate], Mutate]:
    """Enter a function into the registry; those that students need most stand first."""

    def register(mutate: Mutate) -> Mutate:
        OPERATORS.append(Operator(name, family, says, mutate))
        return mutate

    return register


def text(node: ast.AST) -> str:
    """Give the source of a node."""
    return ast.unparse(node)


def expression(source: str) -> ast.expr:
    """Give the tree of an expression."""
    return ast.parse(source, mode="eval").body


def statements(source: str) -> list[ast.stmt]:
    """Give the trees of some statements."""
    return ast.parse(source).body


def changed(node: ast.AST, **fields: Any) -> ast.AST:
    """Copy a node with other fields; the parts are shared."""
    made = copy.copy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def called(node: ast.AST) -> str:
    """Name the function or method that a call calls: `mean` of `x.mean()` and `torch.mean(x)`."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def is_method(call: ast.Call) -> bool:
    """Say whether a call is `x.f(...)`, not `f(x, ...)` or `torch.f(x, ...)`."""
    owner = getattr(call.func, "value", None)
    return owner is not None and getattr(owner, "attr", getattr(owner, "id", "")) not in _NAMESPACES


def operand(call: ast.Call) -> ast.expr | None:
    """Give what a call works on: the x of `x.f()`, `f(x)` and `torch.f(x)`."""
    if is_method(call):
        return call.func.value
    return call.args[0] if call.args else None


def renamed(call: ast.Call, name: str) -> ast.Call:
    """Copy a call with another function or method."""
    key = "attr" if isinstance(call.func, ast.Attribute) else "id"
    return changed(call, func=changed(call.func, **{key: name}))


def without_keyword(call: ast.Call, *names: str) -> ast.Call:
    """Copy a call without some of its keywords."""
    return changed(call, keywords=[k for k in call.keywords if k.arg not in names])


def integer(node: ast.AST | None) -> int | None:
    """Give the value of a whole number, signed or not; None for anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = integer(node.operand)
        return None if inner is None else -inner
    value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
    return value if type(value) is int else None


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    """Give a function's parameters, without `self`."""
    found = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [p for p in found if p.arg != "self"]


def defaults(function: ast.FunctionDef) -> dict[str, ast.expr]:
    """Give the default of each parameter that has one."""
    args = function.args
    plain = [*args.posonlyargs, *args.args]
    tail = plain[len(plain) - len(args.defaults) :]
    pairs = [*zip(tail, args.defaults, strict=True)]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return {arg.arg: value for arg, value in pairs if value is not None}


def is_outer(node: ast.AST) -> bool:
    """Say whether a node is a function or method that is not inside another one."""
    return isinstance(node, ast.FunctionDef) and isinstance(node.up, ast.Module | ast.ClassDef)


def is_guard(node: ast.AST) -> bool:
    """Say whether a statement only refuses bad arguments."""
    if isinstance(node, ast.If):
        steps = isinstance(node.body[-1], ast.Raise) and node.body[:-1]
        return not node.orelse and steps is not False and all(map(_names, steps))
    if isinstance(node, ast.For):
        return all(is_guard(s) or _names(s) for s in node.body)
    return isinstance(node, ast.Expr) and called(node.value).startswith(("require", "_"))


def _names(node: ast.AST) -> bool:
    """Say whether a statement only gives something a name, or goes on."""
    return isinstance(node, ast.Assign | ast.Continue)


def after_guards(function: ast.FunctionDef, source: str) -> ast.FunctionDef:
    """Insert statements before the first one that is no check of arguments."""
    body = function.body
    place = next((i for i, s in enumerate(body) if not is_guard(s)), len(body))
    return changed(function, body=[*body[:place], *statements(source), *body[place:]])


def is_temperature(node: ast.AST) -> bool:
    """Say whether a name is that of a temperature (T is also the length of a sequence)."""
    name = getattr(node, "id", "")
    if name == "T":
        stores = [a for a in ast.walk(node.function) if isinstance(a, ast.Assign)]
        return not any("T" in text(a.targets[0]) and "shape" in text(a.value) for a in stores)
    return name == "temperature"


def binary(node: ast.AST, *kinds: type) -> bool:
    """Say whether a node is one of these operations on two operands."""
    return isinstance(node, ast.BinOp) and isinstance(node.op, kinds)
