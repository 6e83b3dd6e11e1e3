"""03.merge_specialists."""

from __future__ import annotations

import torch

from kdlib import losses as dark_knowledge
from kdlib.checks.criteria import law, matches, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw


def _models(*known: int, rows: tuple[int, int] = (3, 6), share: int = 0, agree: bool = False):
    """Probabilities of a generalist, and of specialists for so many classes each.

    The dustbin of the last one holds at least one class; `share` classes of each specialist belong
    to the one before it, too. Its classes come as a list and in no order.
    """

    def make(g: torch.Generator) -> Arguments:
        n, wanted = between(g, *rows), sum(known) - share * max(0, len(known) - 1)
        classes = between(g, max(wanted, max(known, default=2)) + 1, max(wanted, 3) + 3)
        order, special = torch.randperm(classes, generator=g).tolist(), []
        for count in known:
            special.append(order[:count])
            order = order[count - share :]
        generalist = draw(g, n, classes, scale=1.5).softmax(-1)
        specialists = []
        for inside in special:
            outside = [c for c in range(classes) if c not in inside]
            if agree:
                parts = [generalist[:, inside], generalist[:, outside].sum(-1, keepdim=True)]
                specialists.append((tuple(inside), torch.cat(parts, dim=-1)))
            else:
                specialists.append((inside, draw(g, n, len(inside) + 1, scale=1.5).softmax(-1)))
        return {"generalist": generalist, "specialists": specialists}

    return make


def _cost(q, generalist, specialists):
    """The sum that equation 5 minimises."""
    total = (generalist * (generalist.log() - q.log())).sum(-1)
    for inside, p in specialists:
        coarse = _coarse(q, inside)
        total = total + (p * (p.log() - coarse.log())).sum(-1)
    return total


def _coarse(q, inside):
    outside = [c for c in range(q.shape[-1]) if c not in inside]
    return torch.cat([q[:, list(inside)], q[:, outside].sum(-1, keepdim=True)], dim=-1)


def _merged_and_its_cost(answer, a: Arguments) -> dict:
    merged = answer(a["generalist"], a["specialists"])
    models = [_fill(merged, inside, p, _by_q) for inside, p in a["specialists"]]
    again = torch.stack([a["generalist"], *models]).mean(0)
    return {
        "value": merged,
        "its sum of divergences": _cost(merged, a["generalist"], a["specialists"]).mean(),
        "that after another round": _cost(again, a["generalist"], a["specialists"]).mean(),
    }


def _sums_to_one(evidence: Evidence) -> str | None:
    sums = evidence.value("one").sum(-1)
    worst = sums[(sums - 1).abs().argmax()].item()
    if abs(worst - 1) < 1e-6:
        return None
    return f"One of your rows sums to {worst:.4g}."


def _smallest(evidence: Evidence) -> str | None:
    here = float(evidence.value("two", "its sum of divergences"))
    near = float(evidence.value("two", "that after another round"))
    if here <= near + 1e-5:
        return None
    return (
        f"The sum of divergences of your result is {here:.5g}. Share out the dustbins once more, "
        f"in proportion to your result, and the average has {near:.5g}: yours is not the smallest."
    )


def _fill(q, inside, p, how):
    """Spread the dustbin of one specialist with `how(q, inside)`, rows that sum to one."""
    share = how(q, inside)
    full = share * p[:, -1:]
    full[:, list(inside)] = p[:, :-1]
    return full


def _by_q(q, inside):
    rest = q.clone()
    rest[:, list(inside)] = 0
    return rest / rest.sum(-1, keepdim=True)


def _evenly(q, inside):
    rest = torch.ones_like(q)
    rest[:, list(inside)] = 0
    return rest / rest.sum(-1, keepdim=True)


def _not_normalised(q, inside):
    rest = q.clone()
    rest[:, list(inside)] = 0
    return rest


def _nothing(q, inside):
    return torch.zeros_like(q)


def _merge(how=_by_q, rounds=120, mean=None, with_generalist=True):
    """Assemble a wrong merge."""

    def merge(generalist, specialists):
        q = generalist
        for _ in range(rounds if specialists else 0):
            models = [generalist] if with_generalist else []
            models += [_fill(q, inside, p, how) for inside, p in specialists]
            q = (mean or (lambda m: m.mean(0)))(torch.stack(models))
        return q

    return merge


def _geometric(models):
    return models.clamp_min(1e-300).log().mean(0).softmax(-1)


def _only_specialists(generalist, specialists):
    q = generalist
    for inside, p in specialists:
        q = _fill(q, inside, p, _by_q)
    return q


def _pasted(generalist, specialists):
    q = generalist.clone()
    for inside, p in specialists:
        q[:, list(inside)] = p[:, :-1]
    return q / q.sum(-1, keepdim=True)


def _within_the_group(generalist, specialists):
    q = generalist.clone()
    for inside, p in specialists:
        group = q[:, list(inside)].sum(-1, keepdim=True)
        inner = p[:, :-1] / p[:, :-1].sum(-1, keepdim=True)
        q[:, list(inside)] = group * inner
    return q


def _dustbin_first(generalist, specialists):
    turned = [(inside, torch.cat([p[:, 1:], p[:, :1]], dim=-1)) for inside, p in specialists]
    return _merge()(generalist, turned)


def _in_place(generalist, specialists):
    generalist.copy_(_merge()(generalist.clone(), specialists))
    return generalist


MERGE_SPECIALISTS = Exercise(
    id="03.merge_specialists",
    title="A generalist and its specialists",
    reference=dark_knowledge.merge_specialists,
    probes=(
        Probe("one", "a specialist for three classes", _models(3)),
        Probe("one row", "one row, a specialist for a single class", _models(1, rows=(1, 1))),
        Probe(
            "two",
            "specialists for 3 and for 2 classes, one of which both know",
            _models(3, 2, share=1),
            run=_merged_and_its_cost,
        ),
        Probe("three", "three specialists", _models(2, 3, 1)),
        Probe("agree", "specialists who agree with the generalist", _models(2, 2, agree=True)),
        Probe("none", "no specialist at all", _models()),
    ),
    criteria=(
        matches("one specialist", 1.25, "one", "one row"),
        matches("two specialists that share a class", 1.0, "two", "three", keys=("value",)),
        law("rows sum to one", 0.25, ("one",), _sums_to_one),
        law("no other distribution does better", 0.5, ("two",), _smallest),
        side(matches("where all agree, and without specialists", 0.5, "agree", "none")),
        tidy(0.5),
    ),
    mistakes=(
        Mistake(
            "dustbin dropped",
            _merge(how=_nothing),
            "The classes in the dustbin get nothing from the specialist, so your rows do not sum "
            "to one. What the specialist says about its dustbin belongs to all of these classes.",
        ),
        Mistake(
            "dustbin shared evenly",
            _merge(how=_evenly),
            "You share the dustbin evenly among its classes. The specialist says nothing about who "
            "in it gets how much, so take the proportions from what you have: q.",
        ),
        Mistake(
            "proportions not normalised",
            _merge(how=_not_normalised),
            "You multiply the dustbin with q's own probabilities, which do not sum to one outside "
            "of the specialist's classes. Divide by their sum.",
        ),
        Mistake(
            "dustbins filled once",
            _merge(rounds=1),
            "Right for one specialist. With two, the dustbin of the first holds classes of the "
            "second, so after the average the proportions are no longer those you filled with. "
            "Fill and average again, each time with the newest q.",
        ),
        Mistake(
            "geometric mean",
            _merge(mean=_geometric),
            "You averaged logarithms. That minimises KL(q || p); equation 5 has the models first.",
        ),
        Mistake(
            "generalist left out of the mean",
            _merge(with_generalist=False),
            "Your mean is over the specialists alone. KL(p^g || q) is a term of the sum as well.",
        ),
        Mistake(
            "specialist overrules",
            _only_specialists,
            "The specialist's probabilities replace the generalist's. Equation 5 gives both a say.",
        ),
        Mistake(
            "pasted in and rescaled",
            _pasted,
            "You put the specialist's probabilities in place of the generalist's and rescale the "
            "rows. Equation 5 gives both a say, and the dustbin is part of what is said.",
        ),
        Mistake(
            "specialist speaks within its group only",
            _within_the_group,
            "You keep the generalist's probability of the whole group and let the specialist share "
            "it out. That ignores what its dustbin says: whether it is one of the group at all.",
        ),
        Mistake(
            "dustbin taken from the front",
            _dustbin_first,
            "You read the dustbin from the first column. It is the last.",
        ),
        Mistake(
            "generalist changed in place",
            _in_place,
            "Your result is right, and it has overwritten the generalist's probabilities. Work on "
            "a copy.",
        ),
    ),
    minutes=18,
    difficulty=3,
    seconds=6.0,  # gradient descent is a right answer, and torch.optim takes a while to load
)
