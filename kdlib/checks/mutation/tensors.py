"""Gradient, masks, shapes, numerical range and types, and tensors that are changed in place."""

from __future__ import annotations

import ast

from kdlib.checks.mutation.trees import (
    WHOLE,
    after_guards,
    binary,
    called,
    changed,
    expression,
    is_method,
    is_outer,
    operand,
    operator,
    parameters,
    renamed,
    statements,
    text,
    without_keyword,
)

MASKS = ("mask", "valid", "counts", "inside", "keep", "real")


# gradient


@operator(
    "not detached",
    "gradient",
    "A gradient flows through something that has to be a constant.",
)
def not_detached(node):
    if called(node) == "detach" and is_method(node):
        yield operand(node)
    if isinstance(node, ast.With) and all(_stops(item) for item in node.items):
        yield node.body
    elif isinstance(node, ast.With) and any(_stops(item) for item in node.items):
        yield changed(node, items=[item for item in node.items if not _stops(item)])
    if isinstance(node, ast.FunctionDef) and any("no_grad" in text(d) for d in node.decorator_list):
        kept = [d for d in node.decorator_list if "no_grad" not in text(d)]
        yield changed(node, decorator_list=kept)


def _stops(item):
    return any(word in text(item) for word in ("no_grad", "inference_mode", "set_grad_enabled"))


@operator(
    "cut off from the gradient",
    "gradient",
    "The value is computed, but no gradient comes through: somewhere it is detached, or made into "
    "a plain number.",
)
def cut_off(node):
    if isinstance(node, ast.Return) and node.value is not None and _gives_tensor(node.function):
        yield changed(node, value=expression(f"({text(node.value)}).detach()"))
    if is_outer(node) and _gives_tensor(node):
        for arg in _floating(node):
            if arg not in node.constants:
                yield after_guards(node, f"{arg} = {arg}.detach()")


def _gives_tensor(function):
    if not isinstance(function, ast.FunctionDef) or not is_outer(function):
        return False
    if function.constants is None:
        return False
    return function.gives == "Tensor" or not function.gives


def _floating(function):
    """Name the parameters that are tensors of floating-point numbers."""
    kinds = {p.arg: text(p.annotation) if p.annotation else "" for p in parameters(function)}
    kinds = {name: kind or function.kinds.get(name, "") for name, kind in kinds.items()}
    return [n for n, kind in kinds.items() if kind == "Tensor" and not n.endswith(WHOLE)]


# masks


@operator(
    "mask left out",
    "mask",
    "What the mask leaves out is counted all the same.",
)
def mask_left_out(node):
    if isinstance(node, ast.Subscript) and _is_mask(node.slice):
        yield node.value
    if called(node) == "masked_fill" and is_method(node):
        yield operand(node)
    if called(node) == "where" and len(node.args) == 3:
        yield from (node.args[1], node.args[2])
    yield from _remade(node, "torch.ones_like({0}, dtype=torch.bool)")


@operator(
    "mask the wrong way",
    "mask",
    "The mask is used the wrong way round: you count what it leaves out.",
)
def mask_the_wrong_way(node):
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        yield node.operand
    if isinstance(node, ast.Subscript) and _is_mask(node.slice):
        yield changed(node, slice=expression(f"~{text(node.slice)}"))
    yield from _remade(node, "~{0}")


@operator(
    "mask one column off",
    "mask",
    "The mask stands one position beside the tokens that it is for.",
)
def mask_one_off(node):
    yield from _remade(node, "{0}.roll(1, -1)")
    yield from _remade(node, "{0}.roll(-1, -1)")


def _is_mask(node):
    return isinstance(node, ast.Name) and node.id in MASKS


def _remade(node, source):
    """Change a mask right after it is made, or given."""
    if isinstance(node, ast.Assign) and _is_mask(node.targets[0]):
        name = node.targets[0].id
        yield [node, *statements(f"{name} = {source.format(name)}")]
    if is_outer(node):
        for arg in parameters(node):
            if arg.arg in MASKS:
                yield after_guards(node, f"{arg.arg} = {source.format(arg.arg)}")


@operator(
    "multiplied by the mask",
    "mask",
    "You multiply by the mask where you have to choose: NaN times zero is NaN, in the value and in "
    "the gradient.",
)
def multiplied_by_mask(node):
    if called(node) == "where" and len(node.args) == 3:
        condition, kept, other = map(text, node.args)
        if other in ("0", "0.0") or "zeros" in other:
            yield expression(f"({kept}) * ({condition})")
    if isinstance(node, ast.Subscript) and _is_mask(node.slice):
        yield expression(f"({text(node.value)}) * {text(node.slice)}")


# shapes


@operator(
    "dimension not kept",
    "broadcast",
    "A reduced dimension is dropped where it has to stay (`keepdim`), or stays where it has to go, "
    "so that shapes are matched the wrong way.",
)
def not_kept(node):
    if isinstance(node, ast.Call) and any(k.arg in ("keepdim", "keepdims") for k in node.keywords):
        yield without_keyword(node, "keepdim", "keepdims")
    elif called(node) in ("sum", "mean", "amax", "logsumexp") and not _reduced_again(node):
        if not any(k.arg == "dim" for k in node.keywords):
            return
        keyword = ast.keyword("keepdim", ast.Constant(True))
        yield changed(node, keywords=[*node.keywords, keyword])


def _reduced_again(node):
    """Say whether a sum or a mean over everything that is left follows."""
    return getattr(node.up, "attr", "") in ("sum", "mean") and not getattr(node.up.up, "args", ())


@operator(
    "broadcast the other way",
    "broadcast",
    "Something is broadcast along the wrong dimension: what belongs to each row is taken for each "
    "column, or the other way round.",
)
def broadcast_the_other_way(node):
    if isinstance(node, ast.Subscript):
        index = node.slice
        if isinstance(index, ast.Tuple) and any(_is_new(e) for e in index.elts):
            yield changed(node, slice=changed(index, elts=index.elts[::-1]))
            kept = [e for e in index.elts if not _is_new(e)]
            yield changed(node, slice=changed(index, elts=kept)) if len(kept) > 1 else node.value
        elif _is_new(index):
            yield node.value
    if called(node) == "unsqueeze" and is_method(node) and len(node.args) == 1:
        other = "0" if text(node.args[0]) != "0" else "-1"
        yield changed(node, args=[expression(other)])


def _is_new(node):
    return isinstance(node, ast.Constant) and node.value is None


@operator(
    "not transposed",
    "broadcast",
    "A matrix is not transposed, or its axes are in another order than they should be.",
)
def not_transposed(node):
    if called(node) in ("transpose", "permute", "swapaxes", "movedim", "flip", "roll"):
        if is_method(node):
            yield operand(node)
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield node.value
    if called(node) in ("reshape", "view") and is_method(node) and len(node.args) == 2:
        yield changed(node, args=node.args[::-1])


# numerical range


@operator(
    "logarithm of a softmax",
    "numerics",
    "A logarithm is taken of probabilities: those that underflow to zero become minus infinity. "
    "`log_softmax` never forms them.",
)
def log_of_softmax(node):
    if called(node) == "log_softmax":
        yield expression(f"{text(renamed(node, 'softmax'))}.log()")
    if called(node) == "logsumexp" and is_method(node):
        inner = text(renamed(node, "sum")).replace(
            text(operand(node)), f"({text(operand(node))}).exp()", 1
        )
        yield expression(f"({inner}).log()")


@operator(
    "probabilities for logits",
    "numerics",
    "Something gets probabilities where it expects logits or log-probabilities, so a softmax is "
    "taken once too often or a logarithm once too few.",
)
def probabilities_for_logits(node):
    if called(node) == "log_softmax":
        yield renamed(node, "softmax")
    if called(node) == "cross_entropy" and node.args:
        yield changed(
            node, args=[expression(f"({text(node.args[0])}).softmax(-1)"), *node.args[1:]]
        )
    if called(node) == "softmax" and isinstance(node.func, ast.Attribute):
        yield renamed(node, "log_softmax")
        yield expression(f"({text(node)}).softmax(-1)")


@operator(
    "a bound left out",
    "numerics",
    "A bound against overflow, or against zero, is left out.",
)
def bound_left_out(node):
    if called(node) in ("clamp", "clamp_min", "clamp_max", "nan_to_num") and is_method(node):
        yield operand(node)
    if called(node) in ("max", "min") and isinstance(node.func, ast.Name) and len(node.args) == 2:
        yield from node.args
    if binary(node, ast.Add) and _is_tiny(node.right):
        yield node.left


@operator(
    "a small number too many",
    "numerics",
    "A small number that was added against a division or a logarithm of zero changes results that "
    "need no such help.",
)
def small_number(node):
    if _is_tiny(node):
        yield ast.Constant(1e-2)
    if called(node) == "log" and isinstance(node.func, ast.Attribute):
        inside = text(operand(node))
        if is_method(node):
            yield expression(f"(({inside}) + 1e-06).log()")
        elif "torch" in text(node.func):
            yield expression(f"torch.log(({inside}) + 1e-06)")
    if called(node) == "sqrt" and is_method(node):
        yield expression(f"(({text(operand(node))}) + 1e-06).sqrt()")


def _is_tiny(node):
    return isinstance(node, ast.Constant) and type(node.value) is float and 0 < node.value < 1e-2


@operator(
    "cut off at a bound",
    "numerics",
    "Values are cut off at a bound that the exercise does not ask for.",
)
def cut_off_at_bound(node):
    if called(node) == "log" and is_method(node):
        yield expression(f"({text(operand(node))}).clamp_min(1e-06).log()")


# types


@operator(
    "half precision",
    "type",
    "Something is computed in half precision: it keeps three digits only, and ends at 65,504.",
)
def half_precision(node):
    if is_outer(node):
        for arg in _floating(node):
            yield after_guards(node, f"{arg} = {arg}.half().to({arg}.dtype)")
    if called(node) in ("float", "double") and is_method(node) and not node.args:
        yield renamed(node, "half")


@operator(
    "rounded to whole numbers",
    "type",
    "Something is rounded to whole numbers, or to single precision, on its way.",
)
def rounded(node):
    if isinstance(node, ast.Return) and node.value is not None and is_outer(node.function):
        if node.function.gives == "Tensor":
            yield changed(node, value=expression(f"({text(node.value)}).long()"))
        elif node.function.gives == "float":
            yield changed(node, value=expression(f"round({text(node.value)})"))
    if isinstance(node, ast.Attribute) and node.attr in ("float64", "double"):
        yield changed(node, attr="float32")


@operator(
    "not converted",
    "type",
    "A type is not converted: numbers stay in low precision, or the result has another type than "
    "the contract says.",
)
def not_converted(node):
    if called(node) in ("float", "double", "long", "bool", "int", "to", "item", "tolist"):
        if is_method(node):
            yield operand(node)
        elif isinstance(node.func, ast.Name) and len(node.args) == 1:
            yield node.args[0]


# in place


@operator(
    "changed in place",
    "in place",
    "Something that the caller still needs is changed in place.",
)
def changed_in_place(node):
    methods = {ast.Add: "add_", ast.Sub: "sub_", ast.Mult: "mul_", ast.Div: "div_"}
    if isinstance(node, ast.BinOp) and type(node.op) in methods and _is_given(node.left):
        method = methods[type(node.op)]
        yield expression(f"{text(node.left)}.{method}({text(node.right)})")
    places = ("exp", "log", "clamp", "clamp_min", "masked_fill", "square", "scatter", "fill")
    if called(node) in places and is_method(node) and _is_given(operand(node)):
        yield renamed(node, f"{called(node)}_")
    if called(node) == "sorted" and len(node.args) == 1 and isinstance(node.args[0], ast.Name):
        name = text(node.args[0])
        yield expression(f"({name}.sort(), {name})[1]")


def _is_given(node):
    if not isinstance(node, ast.Name) or not isinstance(node.function, ast.FunctionDef):
        return False
    return any(p.arg == node.id for p in parameters(node.function))


@operator(
    "not copied",
    "in place",
    "Something is not copied, so that a later change reaches what the caller holds, or what was "
    "stored.",
)
def not_copied(node):
    if called(node) == "clone" and is_method(node):
        yield operand(node)
    if called(node) in ("deepcopy", "copy", "list", "dict", "tuple") and len(node.args) == 1:
        if not isinstance(node.args[0], ast.GeneratorExp):
            yield node.args[0]
    if called(node) == "copy" and is_method(node) and not node.args:
        yield operand(node)
    if called(node) == "deepcopy":
        yield expression(f"copy.copy({text(node.args[0])})")
