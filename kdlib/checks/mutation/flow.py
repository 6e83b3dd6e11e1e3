"""Statements, loops, checks of arguments, modes, and what is remembered from call to call."""

from __future__ import annotations

import ast

from kdlib.checks.mutation.trees import (
    after_guards,
    called,
    changed,
    expression,
    is_guard,
    is_method,
    is_outer,
    operand,
    operator,
    parameters,
    renamed,
    statements,
    text,
)

# modes and flags


@operator(
    "the other mode",
    "mode",
    "A network runs in the wrong mode: train where it should be eval, or the other way round.",
)
def other_mode(node):
    if called(node) == "eval" and is_method(node):
        yield renamed(node, "train")
    if called(node) == "train" and is_method(node) and "super" not in text(node):
        yield changed(renamed(node, "eval"), args=[], keywords=[])
        if node.args:
            yield changed(node, args=[])
    if called(node) == "requires_grad_" and node.args and text(node.args[0]) == "False":
        yield changed(node, args=[])


@operator(
    "left in another state",
    "mode",
    "You leave a network or a tensor of the caller's in another state than you found it in: its "
    "mode, or whether it takes a gradient.",
)
def left_in_another_state(node):
    if not is_outer(node):
        return
    for arg in parameters(node):
        kind = text(arg.annotation) if arg.annotation else node.kinds.get(arg.arg, "")
        if kind == "nn.Module":
            for call in ("eval()", "train()", "requires_grad_(False)"):
                yield after_guards(node, f"{arg.arg}.{call}")
        elif kind == "Tensor" and arg.arg.endswith(("logits", "features", "log_probs")):
            yield after_guards(node, f"{arg.arg}.requires_grad_(True)")


# statements


@operator(
    "two steps exchanged",
    "order",
    "Two steps are done in the wrong order.",
)
def two_steps_exchanged(node):
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if not isinstance(body, list):
            continue
        for place in range(len(body) - 1):
            one, two = body[place : place + 2]
            if all(isinstance(s, ast.Expr | ast.AugAssign) for s in (one, two)):
                if not (is_guard(one) or is_guard(two)):
                    order = [*body[:place], two, one, *body[place + 2 :]]
                    yield changed(node, **{name: order})


@operator(
    "a step left out",
    "left out",
    "A step is left out.",
)
def step_left_out(node):
    if is_guard(node):
        return
    plain = isinstance(node, ast.AugAssign | ast.Delete)
    plain |= isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    plain |= isinstance(node, ast.If) and not node.orelse
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        plain |= isinstance(target, ast.Attribute | ast.Subscript) or _known_before(node)
    if plain:
        yield statements("pass")


def _known_before(assign):
    """Say whether an assignment gives a new value to a name that has one already."""
    names = {part.id for part in ast.walk(assign.targets[0]) if isinstance(part, ast.Name)}
    return any(
        isinstance(part, ast.Name) and part.id in names and isinstance(part.ctx, ast.Load)
        for part in ast.walk(assign.value)
    )


# loops


@operator(
    "the loop ends too early",
    "loop",
    "A loop misses one: it ends one too early, or begins one too late.",
)
def loop_too_short(node):
    if isinstance(node, ast.For | ast.comprehension):
        yield changed(node, iter=expression(f"list({text(node.iter)})[:-1]"))
        yield changed(node, iter=expression(f"list({text(node.iter)})[1:]"))


@operator(
    "only the first",
    "loop",
    "Only the first round of a loop counts: it is left, or the function returns, too early.",
)
def only_the_first(node):
    if isinstance(node, ast.For):
        yield changed(node, body=[*node.body, ast.Break()])
    if isinstance(node, ast.comprehension):
        yield changed(node, iter=expression(f"list({text(node.iter)})[:1]"))


@operator(
    "the loop goes on",
    "loop",
    "A loop goes on where it should stop, or stops where it should go on.",
)
def loop_goes_on(node):
    if isinstance(node, ast.Break):
        yield from (ast.Continue(), ast.Pass())
    if isinstance(node, ast.Continue):
        yield from (ast.Break(), ast.Pass())


@operator(
    "too much let through",
    "loop",
    "A filter lets too much through.",
)
def filter_left_out(node):
    if isinstance(node, ast.comprehension) and node.ifs:
        yield changed(node, ifs=[])


# checks of arguments


@operator(
    "a check left out",
    "refusal",
    "Arguments that the contract refuses are taken.",
)
def check_left_out(node):
    if isinstance(node, ast.stmt) and is_guard(node):
        yield statements("pass")


@operator(
    "another exception",
    "refusal",
    "Bad arguments are refused with another exception than the contract names.",
)
def another_exception(node):
    if isinstance(node, ast.Raise) and called(node.exc).endswith("Error"):
        yield changed(node, exc=renamed(node.exc, "ArithmeticError"))


@operator(
    "an exception without what was given",
    "refusal",
    "The exception does not say what was given.",
)
def silent_exception(node):
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        if any(isinstance(part, ast.FormattedValue) for part in ast.walk(node.exc)):
            yield changed(node, exc=changed(node.exc, args=[ast.Constant("bad argument")]))


@operator(
    "cleared up only when all goes well",
    "refusal",
    "What has to be put back is put back only if nothing goes wrong before.",
)
def not_finally(node):
    if isinstance(node, ast.Try) and node.finalbody and not node.handlers:
        yield [*node.body, *node.finalbody]
        yield node.body
    if isinstance(node, ast.Try) and node.handlers:
        yield node.body


# memory


@operator(
    "kept between calls",
    "state",
    "Something is kept from one call to the next, or shared between instances.",
)
def kept_between_calls(node):
    if is_outer(node) and isinstance(node.up, ast.Module):
        for place, part in enumerate(node.body):
            if isinstance(part, ast.Assign) and text(part.value) in _EMPTY:
                if isinstance(part.targets[0], ast.Name):
                    args = changed(
                        node.args,
                        kwonlyargs=[*node.args.kwonlyargs, ast.arg(part.targets[0].id)],
                        kw_defaults=[*node.args.kw_defaults, part.value],
                    )
                    rest = [*node.body[:place], *node.body[place + 1 :]]
                    yield changed(node, args=args, body=rest)
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        if getattr(node.value, "id", "") == "self":
            yield changed(node, value=expression("type(self)"))


_EMPTY = ("[]", "{}", "set()", "dict()", "list()")


# text


@operator(
    "another pattern",
    "text",
    "The pattern that you look for in the text takes more, or less, than it should.",
)
def another_pattern(node):
    """Loosen and tighten regular expressions, and move what is done to a string."""
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, str) and getattr(node.up, "func", None) is not None:
        if text(node.up.func).startswith("re."):
            for old, new in ((r"\.", "."), (r"\Z", ""), ("$", ""), ("^", ""), ("+", "*")):
                if old in value:
                    yield ast.Constant(value.replace(old, new, 1))
            for old, new in (("?", ""), (r"\s*", ""), (r"\d", "."), ("{3}", "+"), ("*", "+")):
                if old in value:
                    yield ast.Constant(value.replace(old, new, 1))
    methods = ("strip", "rstrip", "lstrip", "replace", "removesuffix", "removeprefix", "lower")
    if called(node) in methods and is_method(node):
        yield operand(node)
    pairs = {"rfind": "find", "rindex": "index", "rpartition": "partition", "search": "match"}
    pairs |= {"removesuffix": "rstrip", "removeprefix": "lstrip", "find": "rfind"}
    if called(node) in pairs and isinstance(node.func, ast.Attribute):
        yield renamed(node, pairs[called(node)])
    if called(node) == "fullmatch":
        yield from (renamed(node, "match"), renamed(node, "search"))
    if (
        isinstance(value, str)
        and isinstance(node.up, ast.Call)
        and called(node.up)
        in (
            "split",
            "strip",
            "rstrip",
            "endswith",
            "startswith",
        )
    ):
        yield ast.Constant(" ")
