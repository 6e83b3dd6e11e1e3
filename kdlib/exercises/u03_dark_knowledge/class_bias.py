"""03.class_bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdlib import losses as dark_knowledge
from kdlib.checks.criteria import law, rejects, tidy
from kdlib.checks.exercise import Arguments, Criterion, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw, number
from kdlib.checks.words import explain, trouble

NEAR = 3e-6  # the contract asks for 1e-6; rounding may add to that


def _students(
    low: float,
    high: float,
    share: float | None = None,
    rows: tuple[int, int] = (12, 40),
    classes: tuple[int, int] = (3, 7),
    offset: float = 0.0,
    dtype: torch.dtype = torch.float64,
):
    """Logits of a student that finds a class improbable by about `low` to `high`."""

    def make(g: torch.Generator) -> Arguments:
        n, c = between(g, *rows), between(g, *classes)
        index = between(g, 0, c - 1)
        logits = draw(g, c, n, scale=2.0).T + offset  # not contiguous
        logits[:, index] -= low + (high - low) * torch.rand(1, generator=g, dtype=torch.float64)
        chosen = number(g, 0.08, 0.6) if share is None else share
        return {"logits": logits.to(dtype), "class_index": index, "share": chosen}

    return make


def _with_share_reached(g: torch.Generator) -> Arguments:
    """Logits whose class has its share already."""
    made = _students(1.0, 3.0)(g)
    made["logits"][:, made["class_index"]] += dark_knowledge.class_bias(*made.values())
    return made


def _closely(name: str, points: float, *probes: str) -> Criterion:
    """The bias is the reference's, to the probe's `atol`, however large it is."""

    def test(evidence: Evidence) -> str | None:
        for name in probes:
            probe, seen = evidence.probes[name], evidence.student[name]
            want = evidence.expected[name].value
            if problem := trouble(seen, probe) or explain(seen.value, want, "value", probe):
                return problem
            if not abs(float(seen.value) - want) <= probe.atol:
                return (
                    f"On {probe.about}, your bias is right to a few digits only. "
                    "When does your search end?"
                )
        return None

    return Criterion(name, points, test)


def _is_plain_number(answer, a: Arguments) -> float | None:
    """Give 1 for a Python float, 0 for anything else, None for nothing."""
    found = answer(a["logits"], a["class_index"], a["share"])
    return None if found is None else float(type(found) is float)


def _nothing_to_correct(evidence: Evidence) -> str | None:
    seen = float(evidence.value("share reached"))
    if abs(seen) <= NEAR:
        return None
    return (
        f"On logits whose class has its share already, you return {seen:.4g}. "
        "Where nothing is wrong, nothing is to be added."
    )


def _plain(evidence: Evidence) -> str | None:
    if evidence.value("kind") == 1.0:
        return None
    return "You return something else than a Python float. `.item()` makes one of a tensor."


def _inside(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share must lie inside (0, 1), got {share}")


def _bisect(measure, low=-200.0, high=200.0, rounds=200):
    """Assemble a wrong answer: the bias at which `measure(logits, class, bias)` is the share."""

    def wrong(logits, class_index, share):
        _inside(share)
        a, b = low, high
        for _ in range(rounds):
            middle = (a + b) / 2
            if measure(logits.double(), class_index, middle) < share:
                a = middle
            else:
                b = middle
        return (a + b) / 2

    return wrong


def _shifted(logits: Tensor, c: int, bias: float) -> Tensor:
    moved = logits.clone()
    moved[:, c] += bias
    return moved


def _mean_probability(logits, c, bias):
    return _shifted(logits, c, bias).softmax(-1)[:, c].mean().item()


def _predicted_share(logits, c, bias):
    return (_shifted(logits, c, bias).argmax(-1) == c).double().mean().item()


def _log_ratio(logits, class_index, share):
    _inside(share)
    return math.log(share / logits.softmax(-1)[:, class_index].mean().item())


def _log_odds_ratio(logits, class_index, share):
    _inside(share)
    mean = logits.softmax(-1)[:, class_index].mean().item()
    return math.log(share / (1 - share)) - math.log(mean / (1 - mean))


def _mean_log_odds(logits, class_index, share):
    _inside(share)
    lead = torch.logit(logits.double().softmax(-1)[:, class_index]).mean().item()
    return math.log(share / (1 - share)) - lead


_right = _bisect(_mean_probability)


def _of_the_paper(logits, class_index, share):
    _inside(share)
    return 3.5


def _sign(logits, class_index, share):
    return -_right(logits, class_index, share)


def _all_but_the_class(logits, class_index, share):
    return _right(logits, class_index, 1 - share)


def _as_factor(logits, class_index, share):
    return math.exp(_right(logits, class_index, share))


def _as_tensor(logits, class_index, share):
    return torch.tensor(_right(logits, class_index, share), dtype=torch.float64)


def _in_place(logits, class_index, share):
    found = _right(logits, class_index, share)
    logits[:, class_index] += found
    return found


def _any_share(logits, class_index, share):
    return _right(logits, class_index, min(max(share, 1e-9), 1 - 1e-9))


CLASS_BIAS = Exercise(
    id="03.class_bias",
    title="The bias of a class never seen",
    reference=dark_knowledge.class_bias,
    probes=(
        Probe("plain", "a class that is too improbable", _students(2.0, 4.0), atol=NEAR),
        Probe(
            "too probable",
            "a class that is too probable",
            _students(-5.0, -3.0, classes=(2, 4)),
            atol=NEAR,
        ),
        Probe("one row", "a single row", _students(0.0, 3.0, rows=(1, 1)), atol=NEAR),
        Probe(
            "far",
            "a class whose logits are 30 to 60 below the others",
            _students(30.0, 60.0),
            atol=NEAR,
        ),
        Probe(
            "float32",
            "float32 logits around 1000",
            _students(1.0, 3.0, offset=1000.0, dtype=torch.float32),
            atol=1e-3,
        ),
        Probe("share reached", "logits whose class has its share already", _with_share_reached),
        Probe("kind", "any logits", _students(1.0, 3.0), run=_is_plain_number),
        Probe("no share", "a share of 0", _students(1.0, 3.0, 0.0)),
        Probe("below 0", "a share of -0.3", _students(1.0, 3.0, -0.3)),
        Probe("all", "a share of 1", _students(1.0, 3.0, 1.0)),
        Probe("above 1", "a share of 1.2", _students(1.0, 3.0, 1.2)),
    ),
    criteria=(
        _closely("the bias", 1.5, "plain", "too probable", "one row", "float32"),
        _closely("a class far below the others", 0.75, "far"),
        law(
            "nothing to add where the share is right", 0.5, ("share reached",), _nothing_to_correct
        ),
        law("a plain number", 0.25, ("kind",), _plain),
        rejects(
            "shares that cannot be are refused",
            0.5,
            *("no share", "below 0", "all", "above 1"),
            given=True,
        ),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "one step of log ratio",
            _log_ratio,
            "You add log(share / mean probability). That would be right if every probability grew "
            "by the same factor. But a softmax saturates: rows near 1 already cannot grow. "
            "Put your bias in and look at the mean again.",
        ),
        Mistake(
            "one step of log odds",
            _log_odds_ratio,
            "You compare the log-odds of the share with those of the mean probability. For a "
            "single row that is exact; for many rows the mean of probabilities is not the "
            "probability at the mean. Put your bias in and look at the mean again.",
        ),
        Mistake(
            "mean of the log-odds",
            _mean_log_odds,
            "You moved the average log-odds to that of the share. What has to come out right is "
            "the average probability, after the softmax.",
        ),
        Mistake(
            "the paper's number",
            _of_the_paper,
            "You return 3.5 whatever the student says. That was the bias of one student, of 3s, on "
            "MNIST. Yours follows from the logits and the share.",
        ),
        Mistake(
            "share of predictions",
            _bisect(_predicted_share),
            "You made the share of rows that are predicted as the class right. That is a step "
            "function of the bias, and on few rows many biases do. The exercise asks for the mean "
            "probability.",
        ),
        Mistake(
            "sign turned round",
            _sign,
            "Your bias makes the class still less probable. Which way must its logit move when "
            "the mean probability is below the share?",
            "tensorflow/recommenders #219",
        ),
        Mistake(
            "everything but the class",
            _all_but_the_class,
            "With your bias the class gets all but the share. Check what your search compares.",
        ),
        Mistake(
            "a factor instead of a bias",
            _as_factor,
            "You return what the class's odds are multiplied by. What is added to the logit is "
            "its logarithm.",
        ),
        Mistake(
            "search between -10 and 10",
            _bisect(_mean_probability, -10.0, 10.0),
            "Right where the answer lies between -10 and 10. A class that was never a target may "
            "have logits far lower: let the interval follow from the logits, or make it wide.",
        ),
        Mistake(
            "too few halvings",
            _bisect(_mean_probability, rounds=12),
            "The search is right and stops too early: from an interval of 400, twelve halvings "
            "leave a tenth of a logit.",
        ),
        Mistake(
            "a tensor",
            _as_tensor,
            "You return a tensor. The exercise asks for a plain Python number.",
        ),
        Mistake(
            "logits changed in place",
            _in_place,
            "The bias is right, and the caller's logits have been changed by it: whoever adds it "
            "now adds it twice.",
        ),
        Mistake(
            "any share is taken",
            _any_share,
            "A share of 0 would need a bias of minus infinity, and 1.2 is no share. Raise a "
            "ValueError that says what was given.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
