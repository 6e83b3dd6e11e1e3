"""12.reverse_kl_surrogate."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib.checks.criteria import law, matches, tidy
from kdlib.checks.exercise import Arguments, Clue, Evidence, Exercise, Mistake, Probe, Variant
from kdlib.checks.probes import between, draw
from kdlib.exercises.u12_on_policy.inputs import which_count
from kdlib.losses import mask_until_eos
from kdlib.training import all_sequences, on_policy, table_logits, token_log_probs


def written(rows: tuple[int, int] = (3, 5), padding: float | None = None, scale: float = 1.0):
    """Build log-probabilities of tokens that somebody wrote, and a mask.

    Args:
        rows: the fewest and the most of them.
        padding: the teacher's log-probability where the mask is off; an ordinary one when None.
        scale: of the log-probabilities.
    """

    def make(g: torch.Generator) -> Arguments:
        shape = between(g, *rows), between(g, 3, 6)
        mask = which_count(g, *shape)
        student, teacher = (-draw(g, *shape, scale=scale).abs() - 0.1 for _ in range(2))
        if padding is not None:
            teacher = teacher.masked_fill(~mask, padding)
        return {"student_log_probs": student, "teacher_log_probs": teacher, "mask": mask}

    return make


def _language(*sizes: tuple[int, int], scale: float = 1.0):
    """Build two tables, a student and a teacher over V tokens, the last of which ends a row.

    Args:
        *sizes: V and the length of a row; one of these pairs is drawn.
        scale: of the logits.
    """

    def make(g: torch.Generator) -> Arguments:
        V, T = sizes[between(g, 0, len(sizes) - 1)]
        prefixes = sum(V**t for t in range(T))
        tables = {name: draw(g, prefixes, V, scale=scale) for name in ("student", "teacher")}
        return {**tables, "length": T}

    return make


def _gradient(loss: object, at: Tensor) -> Tensor | None:
    """Differentiate; zeros where nothing hangs on `at`, None where nothing was returned."""
    if loss is None:
        return None
    if isinstance(loss, tuple | list | dict):
        raise TypeError(f"a {type(loss).__name__} came back where one number was expected")
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return torch.zeros_like(at)
    return torch.autograd.grad(loss, at)[0]


def _by_enumeration(answer, a: Arguments) -> Tensor | None:
    """Give the mean of the gradient over every row that the student can write."""
    table = a["student"].clone().requires_grad_(True)
    V = table.shape[1]
    rows = all_sequences(V, a["length"], V - 1)
    mask = mask_until_eos(rows, V - 1)
    log_q = token_log_probs(table_logits(table, rows), rows)
    log_p = token_log_probs(table_logits(a["teacher"], rows), rows)
    weights = (log_q * mask).sum(1).exp().detach()
    total = sum(
        w * answer(log_q[i : i + 1], log_p[i : i + 1], mask[i : i + 1])
        for i, w in enumerate(weights)
    )
    return _gradient(total, table)


def _beside_each_other(answer, a: Arguments) -> dict | None:
    """Give the gradient of a batch, and those of its rows, each called alone: `(B, T)`."""
    together = pull(answer, a)
    if together is None:
        return None
    alone = [pull(answer, {k: x[i : i + 1] for k, x in a.items()}) for i in range(len(together))]
    return {"together": together, "alone": torch.cat(alone)}


def pull(answer, a: Arguments) -> Tensor | None:
    """Give the gradient that arrives at the student's log-probabilities."""
    log_q = a["student_log_probs"].clone().requires_grad_(True)
    return _gradient(answer(log_q, a["teacher_log_probs"], a["mask"]), log_q)


def outside_of_training(answer, a: Arguments) -> dict:
    """Call with the caller's own tensors, which need no gradient; say whether a scalar comes."""
    loss = answer(*a.values())
    return {"a scalar": isinstance(loss, Tensor) and loss.dim() == 0}


def at_the_teacher(answer, a: Arguments) -> Tensor | None:
    """Give the gradient that arrives at the teacher's log-probabilities."""
    log_p = a["teacher_log_probs"].requires_grad_(True)
    loss = answer(a["student_log_probs"].clone().requires_grad_(True), log_p, a["mask"])
    if loss is None:
        return None
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return torch.zeros_like(log_p)
    found = torch.autograd.grad(loss, log_p, allow_unused=True)[0]
    return torch.zeros_like(log_p) if found is None else found


def in_the_padding(answer, a: Arguments) -> Tensor | None:
    """Count entries of the gradient: no number, not 0 in the padding, moved by the padding."""
    gradient = pull(answer, a)
    if gradient is None:
        return None
    bad = ~gradient.isfinite()
    there = (gradient != 0) & ~a["mask"] & ~bad
    row = {k: x[2:3] for k, x in a.items()}  # its first tokens count, its last ones do not
    trimmed = {k: x[row["mask"]][None] for k, x in row.items()}
    whole, short = pull(answer, row)[row["mask"]], pull(answer, trimmed)[0]
    moved = (whole - short).abs() > 1e-6 * short.abs().max()
    return torch.stack([bad.sum(), there.sum(), moved.sum()]).double()


def teacher_constant(evidence: Evidence) -> str | None:
    """Say so when a gradient arrives at the teacher."""
    if bool((evidence.value("teacher") == 0).all()):
        return None
    return (
        "A gradient arrives at teacher_log_probs. What the teacher thinks of a token is a constant."
    )


def padding_silent(evidence: Evidence) -> str | None:
    """Say so when the padding reaches the gradient."""
    bad, there, moved = evidence.value("padding").tolist()
    if bad:
        return (
            "With a teacher's log-probability of minus infinity where the mask is off, your "
            f"gradient is NaN or infinite in {bad:.0f} entries. Zero times infinity is not zero."
        )
    if there:
        return f"A gradient arrives at {there:.0f} tokens that the mask leaves out."
    if moved:
        return (
            f"Padding a row changes the gradient of {moved:.0f} of its tokens that count, though "
            "what stands there has not changed."
        )
    return None


def _mean_over_rows(evidence: Evidence) -> str | None:
    together, alone = (evidence.value("batch", key) for key in ("together", "alone"))
    rows = len(alone)
    if bool((together == 0).all()):
        return "No gradient arrives at the student's log-probabilities."
    if torch.allclose(together, alone / rows, rtol=1e-6, atol=1e-9):
        return None
    if bool((alone == 0).all()):
        return (
            "A row alone gets no gradient, and among others it gets one: what a row is marked for "
            "hangs on the rows beside it."
        )
    ratio = (together.norm() / alone.norm()).item()
    return (
        f"In a batch of {rows} rows the gradient is {ratio:.3g} times as long as those of its rows "
        "called one by one. In a mean over rows each of them would keep its own, divided by the "
        "number of rows."
    )


def _baseline(to_go: Tensor, mask: Tensor, baseline: str) -> Tensor:
    """Subtract a mean from the returns; "whitened" divides by their spread, too."""
    if baseline == "each position":
        return to_go - to_go.mean(dim=0)
    if baseline == "all entries":
        return to_go - to_go.mean()
    if baseline == "whole rows":
        return to_go - to_go[:, 0].mean()
    valid = to_go[mask]
    return (to_go - valid.mean()) / (valid.std() if baseline == "whitened" else 1.0)


def _surrogate(
    reward="to go", sign=1.0, detach=True, rows="mean", masked=True, multiply=False, baseline=""
):
    """Assemble a surrogate with one thing wrong."""

    def wrong(student_log_probs, teacher_log_probs, mask):
        log_q, log_p = student_log_probs, teacher_log_probs.detach()
        if masked and not multiply:
            log_q, log_p = log_q.masked_fill(~mask, 0.0), log_p.masked_fill(~mask, 0.0)
        cost = log_q - log_p
        if multiply:
            cost = cost * mask
        cost = cost.detach() if detach else cost
        if reward == "to go":
            cost = cost.flip(1).cumsum(1).flip(1)
        elif reward == "so far":
            cost = cost.cumsum(1)
        elif reward == "next":
            cost = cost.flip(1).cumsum(1).flip(1) - cost
        elif reward == "teacher alone":
            cost = -log_p.flip(1).cumsum(1).flip(1)
        elif reward == "estimate":
            return (log_q - log_p).sum(1).mean()
        elif reward == "never negative":
            return ((log_p - log_q).expm1() - (log_p - log_q)).sum(1).mean()
        if baseline:
            cost = _baseline(cost, mask, baseline)
        total = sign * (cost * (log_q * mask if multiply else log_q)).sum(1)
        if rows == "sum":
            return total.sum()
        if rows == "tokens":
            return (total / mask.sum(1)).mean()
        if rows == "all tokens":
            return total.sum() / mask.sum()
        return total.mean()

    return wrong


def _nothing(student_log_probs, teacher_log_probs, mask):
    return (student_log_probs - teacher_log_probs)[mask].detach().sum() / len(mask)


def _teacher_too(student_log_probs, teacher_log_probs, mask):
    log_q, log_p = (x.masked_fill(~mask, 0.0) for x in (student_log_probs, teacher_log_probs))
    cost = (log_q.detach() - log_p).flip(1).cumsum(1).flip(1)
    return (cost * log_q).sum(1).mean()


BASELINE = Clue(
    "a mean of the batch as a baseline",
    "You subtract a mean return of the batch. A baseline may not hang on the row that it is "
    "subtracted from, and each row is part of that mean. The exercise asks for the return itself.",
)

REVERSE_KL_SURROGATE = Exercise(
    id="12.reverse_kl_surrogate",
    title="The gradient of the sequence-level reverse KL",
    reference=on_policy.reverse_kl_surrogate,
    probes=(
        Probe(
            "enumeration",
            "all rows that a small student can write, each with its probability",
            _language((2, 3), (3, 3), (2, 4)),
            run=_by_enumeration,
        ),
        Probe(
            "longer",
            "all rows of a student that can write more of them",
            _language((3, 4), (4, 3), (2, 5), scale=4.0),
            run=_by_enumeration,
        ),
        Probe("teacher", "a batch of rows", written(), run=at_the_teacher),
        Probe(
            "padding",
            "a teacher's log-probability of minus infinity where the mask is off",
            written(padding=float("-inf")),
            run=in_the_padding,
        ),
        Probe("batch", "a batch, and each of its rows alone", written(), run=_beside_each_other),
        Probe("outside", "a batch outside of training", written(), run=outside_of_training),
    ),
    criteria=(
        matches("the gradient, by enumeration", 2.0, "enumeration", "longer"),
        law("a mean over rows", 0.5, ("batch",), _mean_over_rows),
        law("padding reaches no gradient", 0.5, ("padding",), padding_silent),
        law("the teacher is a constant", 0.5, ("teacher",), teacher_constant),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "the estimate itself differentiated",
            _surrogate("estimate"),
            "You differentiate the estimate log q - log p of the KL. Its *value* is right on "
            "average, but you ignored that q also decides which rows are written, and the "
            "gradient that is left has mean zero: only noise.",
            "code that Tang and Munos looked at, arXiv 2506.09477",
        ),
        Mistake(
            "the return not a constant",
            _surrogate(detach=False),
            "The gradient also runs through the return. In the score-function estimator the "
            "return is a number that multiplies the gradient of log q.",
        ),
        Mistake(
            "no look ahead",
            _surrogate("now"),
            "Each token pays for itself alone. That is the per-token loss of section 12.6: "
            "its gradient forgets that a token decides what the later ones will cost.",
            "code that Tang and Munos looked at, arXiv 2506.09477: a partial gradient",
        ),
        Mistake(
            "the past instead of the future",
            _surrogate("so far"),
            "Your sum runs over the tokens before t. What has been written cannot be blamed on "
            "the token that comes after it.",
        ),
        Mistake(
            "its own token left out",
            _surrogate("next"),
            "Your sum begins after t. The token's own cost belongs to it.",
        ),
        Mistake(
            "the student missing from the cost",
            _surrogate("teacher alone"),
            "Your cost is - log p alone. Without log q nothing rewards variety: such a student is "
            "driven to the single row that the teacher likes best.",
        ),
        Mistake(
            "sign turned round",
            _surrogate(sign=-1.0),
            "Descending along your gradient raises the KL. Costs or rewards: which of the two do "
            "you multiply by log q, and which way does the optimiser go?",
        ),
        Mistake(
            "summed over rows",
            _surrogate(rows="sum"),
            "Your loss is a sum over rows, so the gradient grows with the batch.",
        ),
        Mistake(
            "divided by each row's length",
            _surrogate(rows="tokens"),
            "You average over the tokens of a row. Long rows then count less than the student "
            "writes them, and the gradient is no longer that of the KL. (MiniLLM normalises "
            "lengths on purpose, and says so.)",
        ),
        Mistake(
            "divided by the tokens of the batch",
            _surrogate(rows="all tokens"),
            "You average over all tokens of the batch. The KL of whole rows is a sum over the "
            "tokens of a row, and a mean over rows.",
        ),
        Mistake(
            "the mean of each position as a baseline",
            _surrogate(baseline="each position"),
            "You subtract the batch's mean return at each position. A baseline may not hang on the "
            "row that it is subtracted from: each row is part of that mean, so the gradient "
            "shrinks, and a row alone gets none. Nothing is detached by mistake; the exercise asks "
            "for the return itself.",
        ),
        Mistake(
            "the mean over tokens as a baseline",
            _surrogate(baseline="tokens"),
            "You subtract the mean return of all tokens in the batch. It holds the row's own "
            "returns and what they cost later, so the gradient is no longer that of the KL. The "
            "exercise asks for the return itself.",
        ),
        Mistake(
            "returns whitened",
            _surrogate(baseline="whitened"),
            "You subtracted the mean return and divided by its spread: a habit from "
            "reinforcement learning, after which the size of the gradient says nothing about the "
            "KL any more.",
        ),
        Mistake(
            "an estimate that is never negative, differentiated",
            _surrogate("never negative"),
            "You differentiate the estimate p/q - 1 - log(p/q), which has little noise and the "
            "right mean. Its gradient is another one: on average that of the forward KL, "
            "token by token, since it does not know that q decides what is written.",
            "code that Tang and Munos looked at, arXiv 2506.09477",
        ),
        Mistake(
            "masked by multiplication",
            _surrogate(multiply=True),
            "You multiply by the mask, and in the padding the teacher's log-probability is minus "
            "infinity: zero times infinity is NaN.",
            "huggingface/trl #5594",
        ),
        Mistake(
            "padding counted",
            _surrogate(masked=False),
            "What stands after the end of a row takes part in your sum.",
        ),
        Mistake(
            "nothing left to differentiate",
            _nothing,
            "No gradient arrives at the student's log-probabilities: everything is detached.",
        ),
        Mistake(
            "gradient into the teacher",
            _teacher_too,
            "The gradient also reaches the teacher's log-probabilities through the return.",
        ),
    ),
    minutes=15,
    difficulty=3,
    variants=lambda: (
        Variant(_surrogate(baseline=of), (BASELINE,)) for of in ("all entries", "whole rows")
    ),
)
