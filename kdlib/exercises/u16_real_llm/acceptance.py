"""16.acceptance."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib.checks.criteria import law, main, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import draw, positive
from kdlib.decoding import speculative

LENGTHS, OTHER = (5, 2, 3), (1, 6)


def _models(
    lengths: tuple[int, ...] = LENGTHS,
    width: int = 5,
    classes: int = 6,
    temperature: float | None = None,
    equal: bool = False,
    disjoint: bool = False,
    swapped: bool = False,
    shift: bool = False,
    broken: bool = False,
    counts: bool = True,
):
    """Build the logits of two models that agree in part, and the mask of what counts.

    The temperature is left out where it is None; the padding is to the right.
    """

    def make(g: torch.Generator) -> Arguments:
        shape = (len(lengths), width, classes)
        p, noise = draw(g, *shape, scale=1.5), draw(g, *shape, scale=1.5)
        q = p.clone() if equal else 0.5 * p + noise
        mask = torch.arange(width) < torch.tensor(lengths)[:, None]
        if disjoint:
            even = torch.arange(classes) % 2 == 0
            p, q = p + 1000.0 * even, q + 1000.0 * ~even
        if shift:
            p, q = (z + draw(g, *shape[:2], 1, scale=2000.0) for z in (p, q))
        if broken:
            p[~mask] = q[~mask] = float("nan")
        if swapped:
            p, q = q, p
        made = {
            "p_logits": p,
            "q_logits": q,
            "mask": mask if counts else torch.zeros_like(mask),
        }
        return made if temperature is None else made | {"temperature": temperature}

    return make


def _awkward(g: torch.Generator) -> Arguments:
    """Draw sizes and T, tokens that count here and there, and logits laid out the other way."""
    rows, width, classes = torch.randint(2, 6, (3,), generator=g).tolist()
    p, q = (draw(g, width, rows, classes).transpose(0, 1) for _ in "pq")
    mask = torch.rand(rows, width, generator=g) < 0.6
    mask[0, 0], mask[-1, -1] = False, True
    T = 0.3 + 3 * torch.rand((), generator=g).item()
    return {"p_logits": p, "q_logits": q, "mask": mask, "temperature": T}


def _float32(g: torch.Generator) -> Arguments:
    """Build float32 logits of a few hundred, at a temperature that suits them."""
    made = _models(OTHER, 6, 4, 150.0)(g)
    return {k: (100 * v).float() if k.endswith("logits") else v for k, v in made.items()}


def _half(g: torch.Generator) -> Arguments:
    """Build two models that are one on some of 40 tokens and never agree on the others."""
    made = _models((8,) * 5, 8, disjoint=True)(g)
    same = torch.arange(40) < torch.randint(3, 38, (), generator=g)
    same = same[torch.randperm(40, generator=g)].view(5, 8, 1)
    q = torch.where(same, made["p_logits"], made["q_logits"])
    return {**made, "q_logits": q}


def _overlap(p: Tensor, q: Tensor) -> Tensor:
    return torch.minimum(p, q).sum(-1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].mean()


def _refuse(mask: Tensor, temperature: float) -> None:
    positive(temperature)
    if not mask.any():
        raise ValueError("no token counts")


def _any_mask(mask: Tensor, temperature: float) -> None:
    positive(temperature)


def _any_temperature(mask: Tensor, temperature: float) -> None:
    _refuse(mask, 1.0)


def _acceptance(
    rule=_overlap,
    reduce=_mean,
    of_p=lambda z, T: (z / T).softmax(-1),
    of_q=lambda z, T: (z / T).softmax(-1),
    check=_refuse,
):
    """Assemble a wrong answer from a rule for a token, a mean and two ways to probabilities."""

    def wrong(p_logits, q_logits, mask, temperature=1.0):
        check(mask, temperature)
        return reduce(rule(of_p(p_logits, temperature), of_q(q_logits, temperature)), mask)

    return wrong


def _both(of, rule=_overlap):
    return _acceptance(rule, of_p=of, of_q=of)


def _agreement(p: Tensor, q: Tensor) -> Tensor:
    return (p.argmax(-1) == q.argmax(-1)).to(p.dtype)


def _rows_first(values: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([v[m].mean() for v, m in zip(values, mask, strict=True)]).mean()


def _bounded(evidence: Evidence) -> str | None:
    for probe, what in (("plain", "two models"), ("disjoint", "two models that never agree")):
        found = float(evidence.value(probe))
        if not -1e-9 <= found <= 1 + 1e-9:
            return f"For {what} you return {found:.4g}, which is no probability."
    found = float(evidence.value("equal"))
    if not abs(found - 1) <= 1e-6:
        return (
            f"For a draft that is the large model itself you return {found:.4g}. Not one of its "
            "tokens would be refused."
        )
    found = float(evidence.value("disjoint"))
    if found > 1e-6:
        return f"For two models that never agree you return {found:.4g}. No token would stay."
    found = float(evidence.value("half"))
    if not abs(found - float(evidence.expected["half"].fields()["value"])) <= 1e-6:
        return (
            "For two models that are one on some tokens, and never agree on the others, you "
            f"return {found:.4g}. That is not the share of the former."
        )
    return None


def _symmetric(evidence: Evidence) -> str | None:
    plain = float(evidence.value("warm"))
    for probe, what in (
        ("swapped", "when the two models change places"),
        ("shifted", "when a constant is added to all logits of a token"),
    ):
        other = float(evidence.value(probe))
        if not abs(plain - other) <= 1e-6:
            return (
                f"Your acceptance goes from {plain:.4g} to {other:.4g} {what}. What two "
                "distributions have in common stays the same."
            )
    return None


SIZES = {"the number of tokens that count": 10, "the size of the vocabulary": 6}

ACCEPTANCE = Exercise(
    id="16.acceptance",
    title="How much two models have in common",
    reference=speculative.acceptance,
    probes=(
        Probe(
            "plain",
            "3 rows of 5, 2 and 3 tokens, a vocabulary of 6, and no temperature given",
            _models(),
            sizes=SIZES,
        ),
        Probe(
            "warm",
            "2 rows of 1 and 6 tokens, a vocabulary of 4, at T = 2.5",
            _models(OTHER, 6, 4, 2.5),
            sizes={"the number of tokens that count": 7, "the size of the vocabulary": 4},
        ),
        Probe("cold", "the first 3 rows at T = 0.5", _models(temperature=0.5)),
        Probe("awkward", "2 to 5 rows, tokens and words, with gaps", _awkward),
        Probe("float32", "float32 logits of a few hundred, at T = 150", _float32, atol=1e-5),
        Probe("half", "two models that are one on some of 40 tokens, and never agree else", _half),
        Probe("swapped", "the 2 rows with models swapped", _models(OTHER, 6, 4, 2.5, swapped=True)),
        Probe(
            "shifted",
            "the 2 rows with constants added to their logits",
            _models(OTHER, 6, 4, 2.5, shift=True),
        ),
        Probe("equal", "a draft that is the large model itself", _models(equal=True)),
        Probe("disjoint", "two models that never agree", _models(disjoint=True)),
        Probe("broken", "rows with NaN in the logits of the padding", _models(broken=True)),
        Probe("T = 0", "a temperature of 0", _models(temperature=0.0)),
        Probe("T < 0", "a temperature of -1", _models(temperature=-1.0)),
        Probe("T a little < 0", "a temperature of -0.01", _models(temperature=-0.01)),
        Probe("no token", "a mask that lets no token count", _models(counts=False)),
    ),
    criteria=(
        matches("the value", 1.0, "plain"),
        matches("at a temperature", 0.75, "warm", "cold", "awkward", "float32"),
        main(
            law(
                "a probability, and 1 for equal models",
                0.5,
                ("plain", "equal", "disjoint", "half"),
                _bounded,
            )
        ),
        law("the two models may change places", 0.25, ("warm", "swapped", "shifted"), _symmetric),
        matches("NaN in the padding does no harm", 0.25, "broken"),
        rejects("bad input is refused", 0.5, "T = 0", "T < 0", "T a little < 0", "no token"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "maximum instead of minimum",
            _acceptance(lambda p, q: torch.maximum(p, q).sum(-1)),
            "You add up the larger of the two probabilities, and get more than 1. In common is "
            "what both have.",
        ),
        Mistake(
            "the distance itself",
            _acceptance(lambda p, q: 0.5 * (p - q).abs().sum(-1)),
            "You return the total variation distance: the probability that a token is refused.",
        ),
        Mistake(
            "one half is missing",
            _acceptance(lambda p, q: 1 - (p - q).abs().sum(-1)),
            "What one token has too much, another has too little, and you subtract it at both. "
            "Models that agree on nothing get -1.",
        ),
        Mistake(
            "minimum of the logits",
            _both(lambda z, T: z / T),
            "You take the minimum of logits and add them up. Only probabilities can be compared "
            "between two models: a constant added to the logits changes nothing but your result.",
        ),
        Mistake(
            "log-probabilities",
            _both(lambda z, T: (z / T).log_softmax(-1)),
            "You add up log-probabilities. They are in the right order, so the minimum is the "
            "right one, but their sum is no probability.",
        ),
        Mistake(
            "softmax over the tokens",
            _both(lambda z, T: (z / T).softmax(1)),
            "Your softmax runs along the text, not along the vocabulary. Over which axis does a "
            "model's distribution sum to one?",
        ),
        Mistake(
            "temperature ignored",
            _both(lambda z, T: z.softmax(-1)),
            "Your result is the same at every temperature. Both models are sampled at T.",
        ),
        Mistake(
            "the draft without temperature",
            _acceptance(of_q=lambda z, T: z.softmax(-1)),
            "You soften the large model only. Drafts are drawn at the same temperature, or the "
            "two would differ where they could agree.",
            "z-lab/dflash #74",
        ),
        Mistake(
            "two samples that agree",
            _acceptance(lambda p, q: (p * q).sum(-1)),
            "You multiply: that is how often a token drawn from one model equals a token drawn "
            "from the other. Two equal models would refuse each other most of the time.",
            "ml-explore/mlx-lm #1709, where a draft was kept by this rule",
        ),
        Mistake(
            "most probable tokens agree",
            _acceptance(_agreement),
            "You count how often the most probable tokens agree. That is the acceptance of greedy "
            "decoding; with sampling, all other tokens have their say.",
        ),
        Mistake(
            "exp of minus the KL divergence",
            _acceptance(lambda p, q: (-(p * (p / q).log()).sum(-1)).exp()),
            "You turn a KL divergence into something between 0 and 1. It is 1 for equal models "
            "and falls as they part, but it is no probability of anything here, and the models "
            "may not change places.",
        ),
        Mistake(
            "an average over the vocabulary",
            _acceptance(lambda p, q: (p / q).clamp(max=1).mean(-1)),
            "You average min(1, p/q) over the vocabulary, every token alike. Drafted tokens come "
            "from q: what the draft hardly ever says hardly counts.",
        ),
        Mistake(
            "the ratio the wrong way round",
            _acceptance(lambda p, q: (q * (q / p).clamp(max=1)).sum(-1)),
            "Under the draft you average min(1, q/p). A token is refused when the draft likes it "
            "more than the large model, not less.",
        ),
        Mistake(
            "padding counts",
            _acceptance(reduce=lambda values, mask: values.mean()),
            "Your mean runs over the padding as well, where nobody drafts.",
            "vllm-project/vllm #50518",
        ),
        Mistake(
            "divided by all positions",
            _acceptance(reduce=lambda values, mask: torch.where(mask, values, 0.0).mean()),
            "You add up the tokens that count and divide by all positions. The more padding there "
            "is, the worse the draft looks.",
        ),
        Mistake(
            "masked by multiplication",
            _acceptance(reduce=lambda values, mask: (values * mask).sum() / mask.sum()),
            "You multiply by the mask, and zero times NaN is NaN. Select what counts instead.",
        ),
        Mistake(
            "mean of the rows' means",
            _acceptance(reduce=_rows_first),
            "You average each row first and then the rows, so a token of a short row counts more "
            "than one of a long row. Here every token counts the same.",
        ),
        Mistake(
            "summed over tokens",
            _acceptance(reduce=lambda values, mask: values[mask].sum()),
            "You add up over the tokens: so many drafted tokens would stay. Asked for is the "
            "probability that one does.",
        ),
        Mistake(
            "any temperature passes",
            _acceptance(check=_any_temperature),
            "You accept temperatures that are zero or negative. At -1 the least probable token "
            "becomes the most probable one, and a plausible number comes out.",
        ),
        Mistake(
            "no token passes",
            _acceptance(check=_any_mask),
            "For a mask that lets nothing count you return the mean of nothing, NaN.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
