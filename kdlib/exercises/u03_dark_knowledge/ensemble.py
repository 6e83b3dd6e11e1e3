"""03.ensemble_soft_targets."""

from __future__ import annotations

import torch

from kdlib import losses as dark_knowledge
from kdlib.checks.criteria import law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw, number, positive


def _teachers(
    temperature: float | tuple[float, float] | None = None,
    members: tuple[int, int] = (2, 5),
    rows: tuple[int, int] = (3, 7),
    classes: tuple[int, int] = (4, 8),
    scale: float = 3.0,
    dtype: torch.dtype = torch.float64,
):
    """Logits of teachers; no temperature leaves the default."""

    def make(g: torch.Generator) -> Arguments:
        m, n, c = (between(g, *sizes) for sizes in (members, rows, classes))
        logits = draw(g, n, m, c, scale=scale).transpose(0, 1).to(dtype)  # not contiguous
        if temperature is None:
            return {"logits": logits}
        drawn = isinstance(temperature, tuple)
        return {"logits": logits, "temperature": number(g, *temperature) if drawn else temperature}

    return make


def _moved(g: torch.Generator) -> Arguments:
    """The plain probe's logits, with another constant added to each member's rows."""
    made = _teachers()(g)
    made["logits"] = made["logits"] + draw(g, len(made["logits"]), 1, 1, scale=10.0)
    return made


def _shouting(g: torch.Generator) -> Arguments:
    """Two members mildly for class 0, one wildly for class 1."""
    logits = 0.1 * draw(g, 3, between(g, 2, 5), 5, scale=1.0)
    logits[:2, :, 0] += 3.0
    logits[2, :, 1] += 40.0
    return {"logits": logits, "temperature": 1.0}


def _sums_to_one(evidence: Evidence) -> str | None:
    off = (evidence.value("plain").sum(-1) - 1).abs().max().item()
    if off < 1e-6:
        return None
    return f"One of your rows sums to {1 + off:.4g} or {1 - off:.4g}. Soft targets sum to one."


def _nobody_outvotes(evidence: Evidence) -> str | None:
    loud = evidence.value("shouting")[:, 1].max().item()
    if loud < 0.5:
        return None
    return (
        f"Two teachers favour class 0, and one is for class 1 with a logit of 40. You give class 1 "
        f"{loud:.4g}. However sure one of three teachers is, it holds a third of the vote."
    )


def _wrong(rule):
    def answer(logits, temperature=1.0):
        positive(temperature)
        return rule(logits, temperature)

    return answer


def _geometric(z, T):
    return (z / T).log_softmax(-1).mean(0).exp()


def _cooled_afterwards(z, T):
    return z.softmax(-1).mean(0).pow(1 / T)


def _log_of_mean_softened(z, T):
    return (z.softmax(-1).mean(0) / T).softmax(-1)


ENSEMBLE_SOFT_TARGETS = Exercise(
    id="03.ensemble_soft_targets",
    title="What an ensemble says",
    reference=dark_knowledge.ensemble_soft_targets,
    probes=(
        Probe("plain", "some teachers, T as it is by default", _teachers()),
        Probe("warm", "some teachers, T between 1.5 and 5", _teachers((1.5, 5.0))),
        Probe("cool", "some teachers, T = 0.5", _teachers(0.5)),
        Probe("moved", "another constant added to the logits of each teacher", _moved),
        Probe("shouting", "two calm teachers and one that is very sure", _shouting),
        Probe(
            "one",
            "a single teacher, one row of 2 classes, T = 4",
            _teachers(4.0, (1, 1), (1, 1), (2, 2)),
        ),
        Probe(
            "large",
            "float32 logits in the thousands",
            _teachers(1.0, scale=3000.0, dtype=torch.float32),
            atol=1e-6,
        ),
        Probe("T = 0", "T = 0", _teachers(0.0)),
        Probe("T < 0", "T = -1.5", _teachers(-1.5)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "moved"),
        matches("a temperature above 1", 0.75, "warm", "one", "cool"),
        law("rows sum to one", 0.25, ("plain",), _sums_to_one),
        law("nobody outvotes the others", 0.5, ("shouting",), _nobody_outvotes),
        matches("no overflow on large logits", 0.25, "large"),
        rejects("T = 0 is refused", 0.25, "T = 0", "T < 0"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "logits averaged",
            _wrong(lambda z, T: (z.mean(0) / T).softmax(-1)),
            "You averaged logits. A teacher that is very sure of itself has large logits and "
            "outvotes all others; that is a geometric mean of their probabilities. The exercise "
            "asks for the arithmetic one.",
            "ruqizhang/csgmcmc #2",
        ),
        Mistake(
            "geometric mean, not normalised",
            _wrong(_geometric),
            "You averaged log-probabilities. That is a geometric mean, and its rows do not even "
            "sum to one.",
        ),
        Mistake(
            "log-probabilities",
            _wrong(lambda z, T: (z / T).log_softmax(-1).mean(0)),
            "You return a mean of log-probabilities, numbers below zero. Soft targets are "
            "probabilities.",
        ),
        Mistake(
            "temperature after the mean",
            _wrong(lambda z, T: _normalised(_cooled_afterwards(z, T))),
            "You averaged at T = 1 and softened the mean. Soften what each teacher says, then "
            "average: the two differ wherever teachers disagree.",
        ),
        Mistake(
            "probabilities divided by T",
            _wrong(_log_of_mean_softened),
            "You put probabilities through a second softmax. Temperature divides logits.",
        ),
        Mistake(
            "temperature forgotten",
            _wrong(lambda z, T: z.softmax(-1).mean(0)),
            "The temperature has no effect on your result.",
        ),
        Mistake(
            "softmax over the teachers",
            _wrong(lambda z, T: (z / T).softmax(0).mean(0)),
            "Your softmax runs over the teachers, dimension 0. Each row of each teacher is a "
            "distribution over classes.",
        ),
        Mistake(
            "summed over teachers",
            _wrong(lambda z, T: (z / T).softmax(-1).sum(0)),
            "You added the teachers up. Your rows sum to the number of teachers.",
        ),
        Mistake(
            "majority vote",
            _wrong(lambda z, T: _votes(z)),
            "You counted votes. That keeps each teacher's first choice and drops the rest of what "
            "it says, and the rest is the dark knowledge.",
        ),
        Mistake(
            "the best teacher only",
            _wrong(lambda z, T: _surest(z, T)),
            "In each row you take the teacher that is surest. Being sure is not being right.",
        ),
        Mistake(
            "exp without subtracting the maximum",
            _wrong(lambda z, T: ((z / T).exp() / (z / T).exp().sum(-1, keepdim=True)).mean(0)),
            "Right for small logits, but `exp` of a number in the thousands is infinite.",
        ),
        Mistake(
            "any temperature is taken",
            lambda logits, temperature=1.0: (logits / temperature).softmax(-1).mean(0),
            "T = 0 divides by zero. Raise a ValueError that says what was given.",
        ),
    ),
    minutes=8,
    difficulty=1,
)


def _normalised(p):
    return p / p.sum(-1, keepdim=True)


def _votes(z):
    return torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z.dtype).mean(0)


def _surest(z, T):
    p = (z / T).softmax(-1)
    best = p.max(-1).values.argmax(0)
    return p[best, torch.arange(p.shape[1])]
