"""Sums, means and the dimensions that they run along."""

from __future__ import annotations

import ast

from kdlib.checks.mutation.trees import (
    WHOLE,
    binary,
    called,
    changed,
    expression,
    integer,
    is_method,
    operand,
    operator,
    renamed,
    text,
    without_keyword,
)

FAMILY = "reduction"

REDUCTIONS = {"sum", "mean", "nansum", "nanmean"}
ALONG = REDUCTIONS | {
    *("softmax", "log_softmax", "logsumexp", "cumsum", "std", "var", "norm", "normalize"),
    *("argmax", "argmin", "amax", "amin", "max", "min", "any", "all", "prod", "sort", "flip"),
    *("cosine_similarity", "vector_norm", "gather", "scatter", "index_select", "topk"),
    *("cat", "stack", "flatten", "roll", "argsort", "squeeze", "unsqueeze", "unique"),
}
FIRST_ARGUMENT = ALONG - {"norm", "normalize", "topk", "vector_norm", "cosine_similarity", "roll"}
# never one that is the same dimension of a tensor of one or two
AROUND = {-1: -2, -2: -1, 0: 1, 1: 0, 2: 1}


@operator(
    "mean over too much",
    FAMILY,
    "Your mean runs over too much: entries that belong together in a sum, such as the classes of a "
    "row, are averaged as well, and the result is smaller by their number.",
)
def mean_over_too_much(node):
    if called(node) == "mean" and called(inner := operand(node)) == "sum":
        yield changed(node, func=changed(node.func, value=operand(inner)))
    yield from _reduction(node, "batchmean", "mean")


@operator(
    "sum for mean",
    FAMILY,
    "There is a sum where a mean is asked for, so the result grows with the number of entries.",
)
def sum_for_mean(node):
    if called(node) in ("mean", "nanmean"):
        yield renamed(node, called(node).replace("mean", "sum"))
    yield from _reduction(node, "mean", "sum")
    yield from _reduction(node, "batchmean", "sum")


@operator(
    "mean for sum",
    FAMILY,
    "There is a mean where a sum is asked for, so the result is smaller by the number of entries.",
)
def mean_for_sum(node):
    if called(node) in ("sum", "nansum") and isinstance(node.func, ast.Attribute):
        yield renamed(node, called(node).replace("sum", "mean"))
    yield from _reduction(node, "sum", "mean")


def _reduction(node, old, new):
    if isinstance(node, ast.keyword) and node.arg == "reduction":
        if getattr(node.value, "value", None) == old:
            yield changed(node, value=ast.Constant(new))
    elif called(node) in ("cross_entropy", "nll_loss", "mse_loss") and old == "mean":
        if not any(k.arg == "reduction" for k in node.keywords):
            yield changed(
                node, keywords=[*node.keywords, ast.keyword("reduction", ast.Constant(new))]
            )


@operator(
    "another dimension",
    FAMILY,
    "Something runs along another dimension than it should, such as the rows of a batch instead of "
    "the classes. Which `dim` is meant?",
)
def another_dimension(node):
    if called(node) not in ALONG or not isinstance(node.func, ast.Attribute):
        return
    for place, keyword in enumerate(node.keywords):
        if keyword.arg in ("dim", "axis"):
            for other in _others(keyword.value):
                keywords = [*node.keywords]
                keywords[place] = changed(keyword, value=other)
                yield changed(node, keywords=keywords)
    place = 0 if is_method(node) else 1
    if called(node) in FIRST_ARGUMENT and len(node.args) > place:
        for other in _others(node.args[place]):
            yield changed(node, args=[*node.args[:place], other, *node.args[place + 1 :]])


def _others(dim):
    number = integer(dim)
    if isinstance(dim, ast.Tuple) and len(dim.elts) > 1:
        yield changed(dim, elts=dim.elts[1:])
        yield changed(dim, elts=dim.elts[:-1])
    if number in AROUND:
        yield expression(str(AROUND[number]))


@operator(
    "over all entries",
    FAMILY,
    "Something that should go along one dimension goes over all entries at once.",
)
def over_all_entries(node):
    if called(node) not in REDUCTIONS | {"max", "min", "amax", "amin", "any", "all", "norm"}:
        return
    if not isinstance(node.func, ast.Attribute):
        return
    place = 0 if is_method(node) else 1
    if any(k.arg == "dim" for k in node.keywords):
        yield without_keyword(node, "dim", "keepdim")
    elif len(node.args) > place and integer(node.args[place]) is not None:
        yield without_keyword(changed(node, args=node.args[:place]), "keepdim")


@operator(
    "divided by another number of entries",
    FAMILY,
    "The sum is divided by the number of other entries than those that were summed: all of them "
    "instead of those that count, or one side of the shape instead of the other.",
)
def another_count(node):
    if binary(node, ast.Div) and called(node.right) == "sum" and operand(node.right):
        yield changed(node, right=expression(f"({text(operand(node.right))}).numel()"))
    if called(node) == "len" and not text(node.args[0]).endswith(WHOLE):
        yield expression(f"({text(node.args[0])}).numel()")
    if called(node) == "numel" and is_method(node):
        yield expression(f"len({text(operand(node))})")
    if isinstance(node, ast.Subscript) and getattr(node.value, "attr", "") == "shape":
        for other in _others(node.slice):
            yield changed(node, slice=other)


@operator(
    "reduction left out",
    FAMILY,
    "A sum or a mean is left out, so there are more entries than there should be.",
)
def reduction_left_out(node):
    if called(node) in REDUCTIONS and isinstance(node.func, ast.Attribute) and operand(node):
        yield operand(node)


@operator(
    "largest for smallest",
    FAMILY,
    "A largest value stands where the smallest is asked for, or the other way round.",
)
def largest_for_smallest(node):
    pairs = ("max", "min"), ("amax", "amin"), ("argmax", "argmin"), ("maximum", "minimum")
    pairs += (("floor", "ceil"), ("clamp_min", "clamp_max"))
    for one, other in (*pairs, *(pair[::-1] for pair in pairs)):
        if called(node) == one:
            yield renamed(node, other)
    if isinstance(node, ast.keyword) and node.arg in ("descending", "largest", "reverse"):
        yield changed(node, value=expression(f"not {text(node.value)}"))


@operator(
    "biased for unbiased",
    FAMILY,
    "The standard deviation or variance has the other denominator: n - 1 and n are mixed up.",
)
def other_denominator(node):
    if called(node) in ("std", "var", "stdev", "pstdev"):
        if called(node) in ("stdev", "pstdev"):
            yield renamed(node, {"stdev": "pstdev", "pstdev": "stdev"}[called(node)])
        elif not any(k.arg in ("unbiased", "correction", "ddof") for k in node.keywords):
            keyword = ast.keyword("correction", ast.Constant(0))
            yield changed(node, keywords=[*node.keywords, keyword])
    if isinstance(node, ast.keyword) and node.arg in ("correction", "ddof"):
        if integer(node.value) in (0, 1):
            yield changed(node, value=ast.Constant(1 - integer(node.value)))
    if isinstance(node, ast.keyword) and node.arg == "unbiased":
        yield changed(node, value=expression(f"not {text(node.value)}"))
