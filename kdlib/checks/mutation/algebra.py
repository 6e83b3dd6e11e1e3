"""Temperatures, weights, signs, factors, constants, comparisons, and what stands where."""

from __future__ import annotations

import ast
from itertools import pairwise

from kdlib.checks.mutation.trees import (
    WHOLE,
    after_guards,
    binary,
    called,
    changed,
    defaults,
    expression,
    integer,
    is_outer,
    is_temperature,
    operator,
    parameters,
    text,
)

SYMMETRIC = {
    *("min", "max", "minimum", "maximum", "mse_loss", "dist", "cosine_similarity", "logaddexp"),
    *("isinstance", "getattr", "hasattr", "equal", "allclose", "Tensor", "print", "range"),
    *("eq", "ne", "isclose", "add", "mul", "logical_and", "logical_or"),
}


# temperature


@operator(
    "a temperature left out",
    "temperature",
    "Something that should be divided by the temperature is not. Is everything that is compared "
    "softened alike?",
)
def temperature_left_out(node):
    if binary(node, ast.Div) and is_temperature(node.right):
        yield node.left
    if isinstance(node, ast.Call) and not called(node).startswith("require"):
        for place, given in enumerate(node.args):
            if is_temperature(given) and place:
                args = [*node.args]
                args[place] = ast.Constant(1.0)
                yield changed(node, args=args)


@operator(
    "multiplied by the temperature",
    "temperature",
    "Something is multiplied by the temperature that should be divided by it: it gets sharper "
    "where it should get softer.",
)
def multiplied_by_temperature(node):
    if binary(node, ast.Div) and is_temperature(node.right):
        yield changed(node, op=ast.Mult())


@operator(
    "factor T squared",
    "temperature",
    "A factor of the temperature is not what it should be: T squared is missing, stands where it "
    "does not belong, or is T alone.",
)
def factor_of_temperature(node):
    power = binary(node, ast.Pow) and is_temperature(node.left)
    if power:
        yield node.left
        yield ast.Constant(1.0)
    if isinstance(node, ast.Return) and node.value and is_outer(node.function):
        name = next((p.arg for p in parameters(node.function) if p.arg == "temperature"), None)
        if name:
            yield changed(node, value=expression(f"({text(node.value)}) * {name}"))
            yield changed(node, value=expression(f"({text(node.value)}) * {name} ** 2"))


# what stands where


@operator(
    "weights exchanged",
    "exchange",
    "The weights w and 1 - w are exchanged: each part gets the other one's.",
)
def weights_exchanged(node):
    if is_outer(node):
        names = {p.arg for p in parameters(node)}
        complements = {
            part.right.id
            for part in ast.walk(node)
            if binary(part, ast.Sub)
            and isinstance(part.right, ast.Name)
            and getattr(part.left, "value", None) in (1, 1.0)
        }
        for name in sorted(names & complements):
            yield after_guards(node, f"{name} = 1 - {name}")


@operator(
    "roles exchanged",
    "exchange",
    "Two inputs play each other's role: what you do with the first belongs to the second.",
)
def roles_exchanged(node):
    if not is_outer(node) or (node.name.startswith("__") and node.name != "__init__"):
        return
    args, first = node.args.args, len(node.args.args) - len(node.args.defaults)
    for place in range(int(bool(args) and args[0].arg == "self"), first - 1):
        one, two = args[place : place + 2]
        if _kind(node, one) == _kind(node, two) != "":
            order = [*args[:place], two, one, *args[place + 2 :]]
            yield changed(node, args=changed(node.args, args=order))


@operator(
    "arguments exchanged",
    "exchange",
    "Two arguments of a call stand in each other's place. Which of them comes first?",
)
def arguments_exchanged(node):
    if not isinstance(node, ast.Call) or called(node) in SYMMETRIC:
        return
    if called(node).lstrip("_").startswith("require") or called(node).endswith("Error"):
        return
    if called(node) == "einsum" and _is_symmetric(node.args[0]):
        return
    for place in range(len(node.args) - 1):
        args = [*node.args]
        args[place : place + 2] = args[place + 1], args[place]
        if not any(isinstance(a, ast.Starred) for a in args):
            yield changed(node, args=args)


def _is_symmetric(subscripts):
    left = str(getattr(subscripts, "value", "")).split("->")[0].split(",")
    return len(set(left)) == 1


@operator(
    "one thing for the other",
    "exchange",
    "One tensor stands where another of its kind belongs: the student's for the teacher's, or "
    "p for q.",
)
def one_for_the_other(node):
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and not _only_shape(node):
        for partner in sorted(_partners(node.function).get(node.id, ())):
            yield ast.Name(partner)


def _only_shape(node):
    """Say whether nothing but a tensor's shape or type is asked for, which others may share."""
    about = ("shape", "dtype", "device", "size", "numel", "dim", "ndim", "is_floating_point")
    about += ("new_zeros", "new_ones", "new_tensor", "new_full", "new_empty")
    likes = ("len", "zeros_like", "ones_like", "empty_like", "full_like", "expand_as", "to")
    return getattr(node.up, "attr", "") in about or called(node.up) in likes


def _kind(function, arg):
    """Give the annotation of a parameter; of an answer without any, the reference's."""
    return text(arg.annotation) if arg.annotation else function.kinds.get(arg.arg, "")


def _partners(function):
    """Pair neighbouring parameters of one kind, and names that are assigned together."""
    if not isinstance(function, ast.FunctionDef):
        return {}
    if not hasattr(function, "partners"):
        known = parameters(function)
        pairs = [
            (one.arg, two.arg)
            for one, two in pairwise(known)
            if _kind(function, one) == _kind(function, two) != ""
            and one.arg.endswith(WHOLE) == two.arg.endswith(WHOLE)
        ]
        for part in ast.walk(function):
            if isinstance(part, ast.Assign | ast.For | ast.comprehension):
                target = part.targets[0] if isinstance(part, ast.Assign) else part.target
                if isinstance(target, ast.Tuple) and len(target.elts) == 2:
                    names = [getattr(e, "id", "") for e in target.elts]
                    pairs += [tuple(names)] if all(names) else []
        function.partners = {}
        for one, two in pairs:
            function.partners.setdefault(one, set()).add(two)
            function.partners.setdefault(two, set()).add(one)
    return function.partners


@operator(
    "the wrong way round",
    "sign",
    "A difference, a ratio or a product is taken the wrong way round.",
)
def wrong_way_round(node):
    if binary(node, ast.Sub, ast.Div, ast.MatMult, ast.Pow) and integer(node.right) is None:
        yield changed(node, left=node.right, right=node.left)


# signs, terms, factors


@operator(
    "sign", "sign", "A sign is wrong somewhere: something is added that should be subtracted."
)
def sign(node):
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        if not isinstance(node.operand, ast.Constant):
            yield node.operand
    if binary(node, ast.Add, ast.Sub):
        yield changed(node, op=ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
        yield changed(node, op=ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())


@operator("a term left out", "left out", "A term of a sum or a difference is left out.")
def term_left_out(node):
    if binary(node, ast.Add, ast.Sub):
        yield node.left
        yield node.right


@operator(
    "a factor left out",
    "left out",
    "A factor is left out, or what should have been divided is not.",
)
def factor_left_out(node):
    if binary(node, ast.Mult, ast.Div, ast.MatMult):
        yield node.left
    if binary(node, ast.Mult, ast.MatMult):
        yield node.right


@operator(
    "multiplied for divided",
    "algebra",
    "Something is multiplied that should be divided, or divided that should be multiplied.",
)
def multiplied_for_divided(node):
    if binary(node, ast.Mult, ast.Div):
        yield changed(node, op=ast.Div() if isinstance(node.op, ast.Mult) else ast.Mult())
    if binary(node, ast.FloorDiv):
        yield changed(node, op=ast.Div())
    if binary(node, ast.Mod):
        yield changed(node, op=ast.FloorDiv())


MAPS = {"exp", "log", "sqrt", "square", "abs", "log1p", "expm1", "softmax", "log_softmax", "cumsum"}


@operator(
    "a function left out",
    "left out",
    "A function of the equation is left out: a logarithm, an exponential, a square, a root, a "
    "softmax or a running sum.",
)
def function_left_out(node):
    if called(node) in MAPS and isinstance(node.func, ast.Attribute):
        found = node.func.value if not node.args or called(node) in _OF_DIM else None
        found = node.args[0] if _is_function(node) else found
        if found is not None:
            yield found
    if binary(node, ast.Pow) and not is_temperature(node.left):
        yield node.left


_OF_DIM = {"softmax", "log_softmax", "cumsum"}


def _is_function(node):
    return getattr(node.func.value, "id", getattr(node.func.value, "attr", "")) in (
        *("torch", "F", "nn", "np", "math", "functional", "special"),
    )


# constants


@operator(
    "another number",
    "constant",
    "A number in your answer, such as a factor or a bound, is not the one that the exercise gives.",
)
def another_number(node):
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(node.up, ast.arguments):
        return  # a default has an operator of its own
    if type(value) is float and (value != value // 1 or abs(value) > 100):
        yield from (ast.Constant(2 * value), ast.Constant(value / 2))
    elif type(value) is float:
        yield from (ast.Constant(value + 1.0), ast.Constant(value - 1.0))


@operator(
    "one more or one less",
    "off by one",
    "Something is off by one: a position, a length or a count.",
)
def off_by_one(node):
    if isinstance(node, ast.Constant) and type(node.value) is int:
        if not (_is_dimension(node) or isinstance(node.up, ast.arguments)):
            yield ast.Constant(node.value + 1)
            if node.value:
                yield ast.Constant(node.value - 1)
    if isinstance(node, ast.Slice):
        if node.lower is not None:
            yield changed(node, lower=None)
        if node.upper is not None:
            yield changed(node, upper=None)
        for end in ("lower", "upper"):
            found = getattr(node, end)
            if found is not None and integer(found) is None:
                yield changed(node, **{end: expression(f"{text(found)} + 1")})
                yield changed(node, **{end: expression(f"{text(found)} - 1")})


def _is_dimension(node):
    """Say whether a number is a `dim`, which has an operator of its own."""
    from kdlib.checks.mutation.reductions import ALONG

    while isinstance(node.up, ast.UnaryOp | ast.Tuple):
        node = node.up
    if isinstance(node.up, ast.keyword):
        return node.up.arg in ("dim", "axis")
    return called(node.up) in ALONG and node in node.up.args


@operator(
    "another default",
    "default",
    "The default of an argument is not the one in the contract.",
)
def another_default(node):
    if is_outer(node):
        for place, default in enumerate(node.args.defaults):
            value = getattr(default, "value", None)
            if type(value) in (int, float):
                others = [*node.args.defaults]
                others[place] = ast.Constant(2 * value if value else type(value)(1))
                yield changed(node, args=changed(node.args, defaults=others))


@operator(
    "an argument ignored",
    "argument",
    "One of the arguments has no effect: your answer is the same whatever is given for it.",
)
def argument_ignored(node):
    if not is_outer(node) or (node.name.startswith("__") and node.name != "__init__"):
        return
    plain, seen = defaults(node), ast.walk(node)
    used = {part.id for part in seen if isinstance(part, ast.Name)}
    for arg in parameters(node):
        kind = _kind(node, arg)
        if arg.arg not in used:
            continue
        if arg.arg in plain:
            yield after_guards(node, f"{arg.arg} = {text(plain[arg.arg])}")
        elif kind == "Tensor":
            yield after_guards(node, f"{arg.arg} = torch.zeros_like({arg.arg})")
        elif kind in ("float", "int"):
            value = {"float": "0.5", "int": "1"}[kind]
            yield after_guards(node, f"{arg.arg} = {'1.0' if 'temp' in arg.arg else value}")


@operator(
    "an argument not passed on",
    "argument",
    "An argument is not passed on to the function that needs it, so that function takes its "
    "default.",
)
def argument_not_passed_on(node):
    if not isinstance(node, ast.Call) or called(node).lstrip("_").startswith("require"):
        return
    for keyword in node.keywords:
        if keyword.arg not in ("dim", "keepdim", "reduction", "strict", "device"):
            yield changed(node, keywords=[k for k in node.keywords if k is not keyword])
    if len(node.args) > 1 and not isinstance(node.args[-1], ast.Starred):
        yield changed(node, args=node.args[:-1])


@operator(
    "the other truth value",
    "constant",
    "A switch (True or False) stands the other way.",
)
def other_truth(node):
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        if getattr(node.up, "arg", "") not in ("keepdim", "strict"):
            yield ast.Constant(not node.value)


# comparisons and conditions


_EDGE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_NOT = {
    **{ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In},
}
_METHODS = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt"}


@operator(
    "at the boundary",
    "condition",
    "A comparison treats its boundary wrongly: `<` and `<=` (or `>` and `>=`) are mixed up.",
)
def at_the_boundary(node):
    yield from _compared(node, _EDGE)
    if called(node) in _METHODS:
        yield changed(node, func=changed(node.func, attr=_METHODS[called(node)]))


@operator(
    "a condition turned round",
    "condition",
    "A condition stands the other way round: what should happen in one case happens in the other.",
)
def condition_turned_round(node):
    yield from _compared(node, _NOT)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        if not isinstance(node.test, ast.Compare | ast.UnaryOp):
            yield changed(node, test=expression(f"not ({text(node.test)})"))


def _compared(node, table):
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            if type(op) in table:
                ops = [*node.ops]
                ops[place] = table[type(op)]()
                yield changed(node, ops=ops)


@operator(
    "half a condition",
    "condition",
    "One part of a condition is missing, or `and` and `or` are mixed up.",
)
def half_a_condition(node):
    if isinstance(node, ast.BoolOp):
        for place in range(len(node.values)):
            rest = [v for i, v in enumerate(node.values) if i != place]
            yield changed(node, values=rest) if len(rest) > 1 else rest[0]
        yield changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if binary(node, ast.BitAnd, ast.BitOr):
        yield from (node.left, node.right)
        yield changed(node, op=ast.BitOr() if isinstance(node.op, ast.BitAnd) else ast.BitAnd())
    if isinstance(node, ast.Compare) and len(node.ops) == 2:
        middle = node.comparators[0]
        yield changed(node, ops=node.ops[:1], comparators=[middle])
        yield changed(node, left=middle, ops=node.ops[1:], comparators=node.comparators[1:])


@operator(
    "branches exchanged",
    "condition",
    "The two cases of a distinction are exchanged.",
)
def branches_exchanged(node):
    if isinstance(node, ast.IfExp):
        yield changed(node, body=node.orelse, orelse=node.body)
    if isinstance(node, ast.If) and node.orelse and not isinstance(node.orelse[0], ast.If):
        yield changed(node, body=node.orelse, orelse=node.body)
    if called(node) == "where" and len(node.args) == 3:
        yield changed(node, args=[node.args[0], node.args[2], node.args[1]])
