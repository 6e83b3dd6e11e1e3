"""05.standardise."""

from __future__ import annotations

import torch

from kdlib.checks.criteria import law, matches, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.checks.words import explain
from kdlib.exercises.u05_logit_structure.inputs import Number, pick
from kdlib.losses import structure as logits

EPS = 1e-7
CONSTANT = 2  # the row of equal logits


def _rows(
    rows: Number,
    classes: Number,
    factor: float = 1.0,
    shift: float = 0.0,
    strided: bool = False,
    dtype: torch.dtype = torch.float64,
):
    def make(g: torch.Generator) -> Arguments:
        n = pick(g, rows)
        z = draw(g, n, pick(g, classes))
        # rows of different spread and mean, so that no other axis gives the same numbers
        z = z * torch.arange(1, n + 1, dtype=z.dtype)[:, None] + torch.arange(n)[:, None]
        z = (factor * z + shift).to(dtype)
        return {"logits": z.T.contiguous().T if strided else z}

    return make


def _one_constant_row(g: torch.Generator) -> Arguments:
    z = draw(g, pick(g, (3, 7)), pick(g, (4, 12)))
    z[CONSTANT] = draw(g, 1)
    return {"logits": z}


def _weighed(answer, arguments: Arguments):
    """Differentiate a weighted sum: the plain sum of a standardised row is zero."""
    z = arguments["logits"].requires_grad_(True)
    out = answer(z)
    if not isinstance(out, torch.Tensor) or out.shape != z.shape or not out.requires_grad:
        return {"value": out, "gradient of logits": None}
    weights = torch.linspace(-1.0, 2.0, out.numel(), dtype=z.dtype).view_as(out).sin()
    (gradient,) = torch.autograd.grad((weights * out).sum(), z)
    return {"value": out, "gradient of logits": gradient}


AFFINE = ("plain", "scaled", "scaled down", "shifted")


def _affine(evidence: Evidence) -> str | None:
    plain = evidence.value("plain")
    for probe, what in (
        ("scaled", "multiplied by 4"),
        ("scaled down", "multiplied by 0.01"),
        ("shifted", "raised by 30"),
    ):
        off = (evidence.value(probe) - plain).abs().max().item()
        if off > 1e-4:
            return (
                f"When all logits are {what}, an entry of your result moves by {off:.4g}. "
                "Scale and offset are what standardising is to remove."
            )
    return None


def _unit(evidence: Evidence) -> str | None:
    z = evidence.value("plain")
    mean, variance = z.mean(-1).abs().max().item(), z.var(-1)
    if mean > 1e-6:
        return f"A row of your result has mean {mean:.4g}. It should be zero."
    worst = variance[(variance - 1).abs().argmax()].item()
    if abs(worst - 1) > 1e-4:
        return (
            f"A row of your result has variance {worst:.4g} (with C - 1 in the denominator). "
            "It should be one."
        )
    return None


def _finite(evidence: Evidence) -> str | None:
    """Look at the gradient with a constant row in the batch: that row's own need only be finite."""
    probe = evidence.probes["constant, gradient"]
    seen = evidence.value(probe.name, "gradient of logits")
    right = evidence.expected[probe.name].fields()["gradient of logits"]
    if not seen.isfinite().all():
        bad = (~seen.isfinite()).any(-1).nonzero().flatten().tolist()
        return (
            f"On {probe.about}, your gradient of logits is not finite in "
            f"{'rows' if len(bad) > 1 else 'row'} {', '.join(map(str, bad))}."
        )
    others = [row for row in range(len(seen)) if row != CONSTANT]
    return explain(seen[others], right[others], "gradient of the other rows", probe)


def _safe(z, dim=-1, **how):
    return (z - z.mean(dim, keepdim=True)) / (z.std(dim, keepdim=True, **how) + EPS)


def _in_numpy(z):
    rows = z.detach().numpy()
    return torch.from_numpy(
        (rows - rows.mean(-1, keepdims=True)) / (rows.std(-1, keepdims=True) + EPS)
    )


STANDARDISE = Exercise(
    id="05.standardise",
    title="Mean zero, deviation one",
    reference=logits.standardise,
    probes=(
        Probe("plain", "6 rows of 5 classes", _rows(6, 5)),
        Probe("other", "3 rows of 9 classes", _rows(3, 9)),
        Probe("scaled", "the 6 rows multiplied by 4", _rows(6, 5, factor=4.0)),
        Probe("shifted", "the 6 rows raised by 30", _rows(6, 5, shift=30.0)),
        Probe("scaled down", "the 6 rows multiplied by 0.01", _rows(6, 5, factor=0.01)),
        Probe("one row", "a single row", _rows(1, (3, 9))),
        Probe("two classes", "rows of 2 classes", _rows((2, 6), 2)),
        Probe(
            "by columns", "rows that lie in memory by columns", _rows((3, 7), (8, 12), strided=True)
        ),
        Probe(
            "float32",
            "float32 rows in the thousands",
            _rows((3, 7), (3, 6), factor=1000.0, dtype=torch.float32),
            atol=1e-4,
        ),
        Probe(
            "small",
            "float32 rows of thousandths",
            _rows((3, 7), (3, 6), factor=0.0004, dtype=torch.float32),
            atol=1e-3,
        ),
        Probe("gradient", "6 rows of 5 classes", _rows(6, 5), run=_weighed),
        Probe("constant", "a batch with one constant row", _one_constant_row),
        Probe(
            "constant, gradient", "a batch with one constant row", _one_constant_row, run=_weighed
        ),
    ),
    criteria=(
        matches(
            "the value",
            1.0,
            "plain",
            "other",
            "one row",
            "two classes",
            "by columns",
            "float32",
            "small",
        ),
        law("each row has mean zero and variance one", 0.5, ("plain",), _unit),
        law("scale and offset are gone", 0.5, AFFINE, _affine),
        matches("the gradient", 0.5, "gradient", keys=("gradient of logits",)),
        matches("a constant row gives zeros", 0.5, "constant"),
        law("a constant row has a gradient", 0.25, ("constant, gradient",), _finite),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "biased standard deviation",
            lambda z: _safe(z, unbiased=False),
            "You divide by the root of the mean square: C in the denominator. The authors' code "
            "uses C - 1, and with few classes that is another temperature.",
        ),
        Mistake(
            "in NumPy",
            _in_numpy,
            "NumPy's `std` has C in the denominator, PyTorch's C - 1. And a detour through NumPy "
            "cuts the graph, so that no gradient arrives.",
        ),
        Mistake(
            "over the batch",
            lambda z: _safe(z, 0),
            "You standardise each class over the batch. Then what one image's target is depends "
            "on its neighbours in the batch. Which dimension holds one image's logits?",
            "sunshangquan/logit-standardization-KD #7, as a question",
        ),
        Mistake(
            "over the whole batch at once",
            lambda z: (z - z.mean()) / (z.std() + EPS),
            "You use one mean and one deviation for the whole batch. Each row has its own.",
        ),
        Mistake(
            "not centred",
            lambda z: z / (z.std(-1, keepdim=True) + EPS),
            "You divide without subtracting the mean. A softmax would not notice; the contract "
            "does.",
        ),
        Mistake(
            "divided by the variance",
            lambda z: (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True) + EPS),
            "You divide by the variance. Double the logits and see what becomes of the result.",
        ),
        Mistake(
            "divided by the length",
            lambda z: torch.nn.functional.normalize(z - z.mean(-1, keepdim=True), dim=-1, eps=EPS),
            "You divide by the length of the row, which grows with the number of classes; the "
            "deviation does not.",
        ),
        Mistake(
            "no epsilon",
            lambda z: (z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True),
            "A row of equal logits gives 0/0, which is NaN. A student whose last layer starts at "
            "zero begins with such rows.",
        ),
        Mistake(
            "a large epsilon",
            lambda z: (z - z.mean(-1, keepdim=True)) / (z.std(-1, keepdim=True) + 1.0),
            "The number that you add in the denominator is large enough to be felt. It is there "
            "for constant rows alone.",
        ),
        Mistake(
            "root of a variance of zero",
            lambda z: (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True).sqrt() + EPS),
            "The value is right, but the gradient of a square root at zero is infinite, so one "
            "constant row makes the gradient NaN. `std` has that case covered.",
        ),
        Mistake(
            "deviation taken for a constant",
            lambda z: (z - z.mean(-1, keepdim=True)) / (z.std(-1, keepdim=True).detach() + EPS),
            "Mean right, value right, gradient wrong: the deviation is detached, but it depends "
            "on the logits. With it detached the student can still feel a pull on its scale.",
        ),
        Mistake(
            "softmax first",
            lambda z: _safe(z.softmax(-1)),
            "You standardise probabilities. It is the logits that are standardised; the softmax "
            "comes later.",
        ),
    ),
    minutes=8,
    difficulty=1,
)
