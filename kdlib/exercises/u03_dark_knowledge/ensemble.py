"""03.ensemble_soft_targets."""

from __future__ import annotations

import torch

from kdlib import losses as dark_knowledge
from kdlib.checks.criteria import law, main, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import draw, positive


def _teachers(members: int, rows: int, classes: int, temperature: float = 1.0, scale: float = 3.0):
    def make(g: torch.Generator) -> Arguments:
        return {
            "logits": draw(g, members, rows, classes, scale=scale),
            "temperature": temperature,
        }

    return make


def _moved(g: torch.Generator) -> Arguments:
    """The plain probe's logits, with another constant added to each member's rows."""
    made = _teachers(3, 5, 7)(g)
    made["logits"] = made["logits"] + torch.tensor([5.0, -3.0, 11.0])[:, None, None]
    return made


def _shouting(g: torch.Generator) -> Arguments:
    """Two members mildly for class 0, one wildly for class 1."""
    logits = 0.1 * draw(g, 3, 4, 5, scale=1.0)
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
        Probe("plain", "3 teachers, 5 rows of 7 classes, T = 1", _teachers(3, 5, 7)),
        Probe("warm", "4 teachers, 6 rows of 5 classes, T = 2.5", _teachers(4, 6, 5, 2.5)),
        Probe("moved", "another constant added to the logits of each teacher", _moved),
        Probe("shouting", "two calm teachers and one that is very sure", _shouting),
        Probe("one", "a single teacher, T = 4", _teachers(1, 4, 6, 4.0)),
        Probe("large", "logits in the thousands", _teachers(3, 4, 6, 1.0, 3000.0)),
        Probe("T = 0", "T = 0", _teachers(3, 5, 7, 0.0)),
    ),
    criteria=(
        matches("the value", 1.0, "plain", "moved"),
        matches("a temperature above 1", 0.75, "warm", "one"),
        main(law("rows sum to one", 0.25, ("plain",), _sums_to_one)),
        main(law("nobody outvotes the others", 0.5, ("shouting",), _nobody_outvotes)),
        matches("no overflow on large logits", 0.25, "large"),
        rejects("T = 0 is refused", 0.25, "T = 0"),
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
