"""12.per_token_loss."""

from __future__ import annotations

import torch

from kdlib.checks.criteria import law, matches, tidy
from kdlib.checks.exercise import Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u12_on_policy.surrogate import (
    at_the_teacher,
    in_the_padding,
    outside_of_training,
    padding_silent,
    pull,
    teacher_constant,
    written,
)
from kdlib.training import on_policy


def _direction(evidence: Evidence) -> str | None:
    gradient = evidence.value("one token").item()
    if gradient > 0:
        return None
    if gradient == 0:
        return "No gradient arrives at the student's log-probabilities."
    return (
        "The student gives a token more probability than the teacher does, and a step along your "
        "gradient would raise it further."
    )


def _too_sure(g: torch.Generator) -> dict:
    log_q, more = (-0.1 - torch.rand(1, 1, generator=g, dtype=torch.float64) for _ in range(2))
    mask = torch.ones(1, 1, dtype=torch.bool)
    return {"student_log_probs": log_q, "teacher_log_probs": log_q + more, "mask": mask}


def _loss(
    sign=1.0, detach=True, swap=False, over="tokens", look="now", masked="first", weight=None
):
    """Assemble a per-token loss with one thing wrong."""

    def wrong(student_log_probs, teacher_log_probs, mask):
        log_q, log_p = student_log_probs, teacher_log_probs.detach()
        if masked == "first":
            log_q, log_p = log_q.masked_fill(~mask, 0.0), log_p.masked_fill(~mask, 0.0)
        advantage = log_p - log_q
        if masked == "multiply":
            advantage = advantage * mask
        advantage = advantage.detach() if detach else advantage
        if look == "ahead":
            advantage = advantage.flip(1).cumsum(1).flip(1)
        if weight == "constant":
            return -(log_p - log_q).sum() / mask.sum()
        if weight == "never negative":
            return ((log_p - log_q).expm1() - (log_p - log_q)).sum() / mask.sum()
        if weight in ("whitened", "baseline"):
            valid = advantage[mask]
            spread = valid.std() if weight == "whitened" else 1.0
            advantage = torch.where(mask, (advantage - valid.mean()) / spread, 0.0)
        if weight == "teacher":
            advantage = log_p
        terms = -sign * advantage * (log_q * mask if masked == "multiply" else log_q)
        if over == "row means":
            return (terms.sum(1) / mask.sum(1)).mean()
        count = {"tokens": mask.sum(), "half": mask.sum() / 2}
        number = {**count, "rows": len(mask), "all": mask.numel(), "sum": 1}[over]
        return terms.sum() / number

    return wrong


def _teacher_too(student_log_probs, teacher_log_probs, mask):
    log_q, log_p = student_log_probs[mask], teacher_log_probs[mask]
    return -((log_p - log_q.detach()) * log_q).mean()


def _nothing(student_log_probs, teacher_log_probs, mask):
    log_q = student_log_probs[mask].detach()
    return -((teacher_log_probs[mask].detach() - log_q) * log_q).mean()


PER_TOKEN_LOSS = Exercise(
    id="12.per_token_loss",
    title="The per-token on-policy loss",
    reference=on_policy.per_token_loss,
    probes=(
        Probe("plain", "the gradient of a batch", written(), run=pull),
        Probe("other", "the gradient of a larger batch", written((6, 8), scale=6.0), run=pull),
        Probe(
            "one token",
            "one token that the student likes better than the teacher does",
            _too_sure,
            run=pull,
        ),
        Probe("outside", "a batch outside of training", written(), run=outside_of_training),
        Probe("teacher", "a batch of rows", written(), run=at_the_teacher),
        Probe(
            "padding",
            "a teacher's log-probability of minus infinity where the mask is off",
            written(padding=float("-inf")),
            run=in_the_padding,
        ),
    ),
    criteria=(
        matches("the student's gradient", 1.5, "plain", "other"),
        law("what the teacher finds unlikely gets less likely", 0.25, ("one token",), _direction),
        law("the teacher is a constant", 0.5, ("teacher",), teacher_constant),
        law("padding reaches no gradient", 0.5, ("padding",), padding_silent),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the advantage not a constant",
            _loss(detach=False),
            "The gradient also runs through the advantage. It is a mark that the token gets, not "
            "something to be differentiated.",
        ),
        Mistake(
            "sign turned round",
            _loss(sign=-1.0),
            "A step along your gradient makes what the teacher dislikes more likely. An "
            "advantage is to be raised; a loss is to be lowered.",
        ),
        Mistake(
            "the estimate itself differentiated",
            _loss(weight="constant"),
            "You differentiate log q - log p itself. Every token then gets the same push, "
            "whatever the teacher thinks of it, and on average the push is zero.",
            "code that Tang and Munos looked at, arXiv 2506.09477",
        ),
        Mistake(
            "looking ahead",
            _loss(look="ahead"),
            "Each token is marked for all that follows. That is the sequence-level gradient of "
            "section 12.5; here the discount is 0.",
        ),
        Mistake(
            "the teacher's log-probability as the advantage",
            _loss(weight="teacher"),
            "Your mark is log p alone. The entropy is missing: such a student is driven to the "
            "single token that the teacher likes best.",
        ),
        Mistake(
            "an estimate that is never negative, differentiated",
            _loss(weight="never negative"),
            "You differentiate the estimate p/q - 1 - log(p/q), which has little noise and the "
            "right mean. Its gradient is another one: on average that of the forward KL.",
            "code that Tang and Munos looked at, arXiv 2506.09477",
        ),
        Mistake(
            "a square without its half",
            _loss(over="half"),
            "Your gradient is twice as long as it should be: the square of a difference has twice "
            "the difference for its slope.",
        ),
        Mistake(
            "advantages whitened",
            _loss(weight="whitened"),
            "You subtracted the batch's mean advantage and divided by its spread. That is a habit "
            "from reinforcement learning; it changes the size of every step with the batch, "
            "and a student that is nearly right gets marks as large as one that knows nothing.",
        ),
        Mistake(
            "the batch's mean as a baseline",
            _loss(weight="baseline"),
            "You subtracted the batch's mean advantage. Then some tokens are always praised, "
            "however bad the batch, and a token alone gets no gradient at all. Nothing is "
            "detached by mistake; the exercise asks for the advantage itself.",
        ),
        Mistake(
            "a mean for each row first",
            _loss(over="row means"),
            "You averaged over each row's tokens, and then over rows. A token of a short row then "
            "weighs more than one of a long row; in a mean over tokens all weigh the same.",
        ),
        Mistake(
            "divided by the rows",
            _loss(over="rows"),
            "You divided by the number of rows, so long rows count more.",
            "neuralmagic/sparseml #592, in another loss",
        ),
        Mistake(
            "divided by the padding too",
            _loss(over="all"),
            "You divided by all entries of the tensor. The more padding, the smaller your loss.",
        ),
        Mistake(
            "summed",
            _loss(over="sum"),
            "Your loss is a sum. It grows with the batch and with the length of its rows.",
        ),
        Mistake(
            "masked by multiplication",
            _loss(masked="multiply"),
            "You multiply by the mask, and in the padding the teacher's log-probability is minus "
            "infinity: zero times infinity is NaN.",
            "huggingface/trl #5594",
        ),
        Mistake(
            "padding counted",
            _loss(masked="never"),
            "What stands after the end of a row takes part in your sum.",
        ),
        Mistake(
            "gradient into the teacher",
            _teacher_too,
            "A gradient arrives at the teacher's log-probabilities.",
        ),
        Mistake(
            "nothing left to differentiate",
            _nothing,
            "No gradient arrives at the student's log-probabilities: everything is detached.",
        ),
    ),
    minutes=10,
    difficulty=2,
)
