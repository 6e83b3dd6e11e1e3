"""16.accept_draft."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib.checks.criteria import facts, law, main, matches, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.decoding import speculative

TOKENS = 9
TABLE = "table of results (one call a line, filled up with -1)"

# how a drafted token fares: its probability in the draft, in the large model, and its uniform
FATES = {
    "sure": (0.2, 0.3, 0.85),  # the large model likes it better than the draft does
    "lucky": (0.4, 0.24, 0.45),  # it likes it less, and the number is small enough
    "refused": (0.4, 0.24, 0.8),
    "never": (0.4, 0.0, 0.0),  # the large model would never say it
    "rare": (1e-30, 0.3, 0.9),  # the draft hardly ever says it
}


def _row(g: torch.Generator, token: int | None = None, probability: float = 0.0) -> Tensor:
    """Draw a distribution that gives `token` this probability."""
    weights = 0.05 + torch.rand(TOKENS, generator=g, dtype=torch.float64)
    if token is None:
        return weights / weights.sum()
    weights[token] = 0.0
    row = weights / weights.sum() * (1 - probability)
    row[token] = probability
    return row


def _draft(*fates: str, last: float | None = None, token: int | None = None):
    """Build a draft whose tokens fare as `fates` say, one after another."""

    def make(g: torch.Generator) -> Arguments:
        drafted = torch.randint(TOKENS, (len(fates),), generator=g)
        if token is not None:
            drafted[:] = token
        rows = [FATES[fate] for fate in fates]
        x = drafted.tolist()
        q = torch.stack([_row(g, t, row[0]) for t, row in zip(x, rows, strict=True)])
        p = torch.stack([_row(g, t, row[1]) for t, row in zip(x, rows, strict=True)] + [_row(g)])
        added = 0.05 + 0.9 * torch.rand((), generator=g).item() if last is None else last
        uniforms = torch.tensor([row[2] for row in rows] + [added], dtype=torch.float64)
        return {"drafted": drafted, "q": q, "p": p, "uniforms": uniforms}

    return make


def _narrow(g: torch.Generator) -> Arguments:
    """Build 5 tokens out of 3 that all stay, but for a ten-millionth, as does the added one."""
    q, p = (torch.randn(n, 3, generator=g, dtype=torch.float64).softmax(-1) for n in (5, 6))
    drafted = (q - p[:5]).argmax(-1)
    own = drafted[:, None]
    stay = (p[:5].gather(1, own) / q.gather(1, own))[:, 0]
    uniforms = torch.cat([stay, p[5].cumsum(0)[1:2]]) * (1 - 1e-7)
    return {"drafted": drafted, "q": q, "p": p, "uniforms": uniforms}


def _drafts(g: torch.Generator, cases: int = 25) -> Arguments:
    """Draw as one does when it is real: tokens from q, uniforms at random."""
    G, V = torch.randint(2, 6, (2,), generator=g).tolist()
    q = torch.randn(cases, G, V, generator=g, dtype=torch.float64).softmax(-1)
    p = torch.randn(cases, G + 1, V, generator=g, dtype=torch.float64).softmax(-1)
    drafted = torch.multinomial(q.flatten(0, 1), 1, generator=g).view(cases, G)
    uniforms = torch.rand(cases, G + 1, generator=g, dtype=torch.float64)
    return {"drafted": drafted, "q": q, "p": p, "uniforms": uniforms}


def _each(answer, a: Arguments) -> dict:
    """Try every case, and put what is returned into one table, filled with -1."""
    width = a["p"].shape[1] + 1
    table = torch.full((len(a["p"]), width), -1)
    kinds = set()
    for row, case in zip(table, zip(*a.values(), strict=True), strict=True):
        found = answer(*(x.clone() for x in case))
        n = min(len(found), width)
        row[:n] = torch.as_tensor(found)[:n]
        kinds.add(f"{found.dtype}")
    return {TABLE: table, "kind": ", ".join(sorted(kinds))}


def _four_tokens(g: torch.Generator) -> Arguments:
    """Give distributions for which a grid of uniforms is exact."""
    order = torch.randperm(4, generator=g)
    q = torch.tensor([[0.4, 0.4, 0.1, 0.1]], dtype=torch.float64)[:, order]
    p = torch.tensor([[0.2, 0.2, 0.2, 0.4], [0.5, 0.25, 0.25, 0.0]], dtype=torch.float64)
    return {"q": q, "p": torch.stack([p[0, order], p[1, torch.randperm(4, generator=g)]])}


def _enumerate(answer, a: Arguments) -> dict:
    """Sum over every drafted token and every cell of a grid of uniforms."""
    q, p = a["q"], a["p"]
    cells = (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    first, second = torch.zeros(2, 4, dtype=torch.float64)
    for x in range(4):
        for uniforms in torch.cartesian_prod(cells, cells):
            found = answer(torch.tensor([x]), q.clone(), p.clone(), uniforms.clone())
            tokens = [int(found[i]) for i in range(len(found))]
            first[tokens[0]] += q[0, x] / 16
            if len(tokens) > 1:
                second[tokens[1]] += q[0, x] / 16
    return {"first": first, "second": second / second.sum(), "p": p}


def _as_the_large_model(evidence: Evidence) -> str | None:
    p = evidence.expected["grid"].fields()["p"]
    for row, name, of in (
        (0, "first", "the first token"),
        (1, "second", "the second token, where there is one,"),
    ):
        found = evidence.value("grid", name)
        if not bool(found.isfinite().all()):
            return "No drafted token ever stays together with one of the large model's own."
        gap = found - p[row]
        worst = int(gap.abs().argmax())
        if abs(gap[worst]) > 1e-9:
            return (
                f"Over all drafted tokens and a grid of uniforms, {of} is {worst} with "
                f"probability {found[worst]:.4g}. The large model says it with {p[row, worst]:.4g}."
            )
    return None


# --- known mistakes ----------------------------------------------------------------------------


def _search(weights: Tensor, uniform: Tensor) -> Tensor:
    cumulative = weights.cumsum(0)
    found = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
    return found.clamp(max=len(weights) - 1)


def _positive_part(p: Tensor, q: Tensor, x: int) -> Tensor:
    return (p - q).clamp(min=0)


def _acceptor(
    stays=lambda u, q, p, x: u * q[x] < p[x],
    rest=_positive_part,
    search=_search,
    bonus=lambda p: p[-1],
    keep=lambda drafted, stay: drafted[:stay],
    which=lambda uniforms, stay: uniforms[-1],
    row=lambda p, t: p[t],
):
    """Assemble a wrong answer with one thing changed."""

    def wrong(drafted, q, p, uniforms):
        stay, weights = len(drafted), None
        for t, x in enumerate(drafted.tolist()):
            if not stays(uniforms[t], q[t], row(p, t), x):
                stay, weights = t, rest(row(p, t), q[t], x)
                break
        weights = bonus(p) if weights is None else weights
        added = search(weights, which(uniforms, stay))
        return torch.cat([keep(drafted, stay), added.view(1)])

    return wrong


_right = _acceptor()


def _not_normalised(weights: Tensor, uniform: Tensor) -> Tensor:
    return torch.searchsorted(weights.cumsum(0), uniform, right=True).clamp(max=len(weights) - 1)


def _not_found(weights: Tensor, uniform: Tensor) -> Tensor:
    return (weights.cumsum(0) > uniform).long().argmax()


def _from_the_left(weights: Tensor, uniform: Tensor) -> Tensor:
    cumulative = weights.cumsum(0)
    return torch.searchsorted(cumulative, uniform * cumulative[-1]).clamp(max=len(weights) - 1)


def _without(p: Tensor, q: Tensor, x: int) -> Tensor:
    return p.scatter(0, torch.tensor(x), (p[x] - q[x]).clamp(min=0))


def _goes_on(drafted, q, p, uniforms):
    """Judge every token, whatever happened to those before it."""
    kept = _right(drafted, q, p, uniforms)
    each = torch.arange(len(drafted))
    stays = uniforms[:-1] * q[each, drafted] < p[each, drafted]
    return torch.cat([drafted[stays], kept[-1:]])


def _counted(drafted, q, p, uniforms):
    """Keep as many tokens as pass, wherever the first refusal stands."""
    each = torch.arange(len(drafted))
    stay = int((uniforms[:-1] * q[each, drafted] < p[each, drafted]).sum())
    weights = p[stay] if stay == len(drafted) else (p[stay] - q[stay]).clamp(min=0)
    return torch.cat([drafted[:stay], _search(weights, uniforms[-1]).view(1)])


def _no_bonus(drafted, q, p, uniforms):
    return _right(drafted, q, p, uniforms)[: len(drafted)]


def _floats(drafted, q, p, uniforms):
    return _right(drafted, q, p, uniforms).double()


ACCEPT_DRAFT = Exercise(
    id="16.accept_draft",
    title="Keep what the large model could have said",
    reference=speculative.accept_draft,
    probes=(
        Probe(
            "all stay",
            "a draft of 4 tokens that all stay",
            _draft("lucky", "sure", "lucky", "sure"),
        ),
        Probe("narrow", "a draft of 5 tokens that stay by a very little", _narrow),
        Probe("first", "a draft whose first token is refused", _draft("refused", "sure", "lucky")),
        Probe(
            "middle",
            "a draft whose third token is refused, and the fourth would stay",
            _draft("lucky", "sure", "refused", "sure"),
        ),
        Probe("one stays", "a draft of a single token that stays", _draft("lucky")),
        Probe("one refused", "a draft of a single token that is refused", _draft("refused")),
        Probe(
            "never",
            "a drafted token that the large model gives probability 0, and a uniform of 0",
            _draft("sure", "never"),
        ),
        Probe("rare", "a drafted token that the draft gives 1e-30", _draft("rare", "refused")),
        Probe(
            "zero",
            "token 0 refused, and a last uniform of 0",
            _draft("refused", last=0.0, token=0),
        ),
        Probe("many", "25 drafts of 2 to 5 tokens", _drafts, run=_each),
        Probe("grid", "a draft of one token out of 4", _four_tokens, run=_enumerate),
    ),
    criteria=(
        matches("all stay, and one more", 0.5, "all stay", "one stays", "narrow"),
        matches("the first refusal ends it", 0.5, "first", "middle", "one refused"),
        main(law("distributed as the large model", 1.0, ("grid",), _as_the_large_model)),
        matches("many drafts", 0.5, "many", keys=(TABLE,)),
        matches("probabilities and uniforms of 0", 0.25, "never", "rare", "zero"),
        side(
            facts(
                "tokens are whole numbers",
                0.25,
                "many",
                (
                    "kind",
                    "torch.int64",
                    "Your tokens are of type {seen}. They go back into a model, whose embedding "
                    "takes whole numbers of type int64.",
                ),
            )
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the ratio the wrong way round",
            _acceptor(stays=lambda u, q, p, x: u * p[x] < q[x]),
            "You keep a token with q/p. What the draft likes too much then always stays, and what "
            "it likes too little is thrown away. Whose distribution should come out?",
        ),
        Mistake(
            "no chance in it",
            _acceptor(stays=lambda u, q, p, x: p[x] >= q[x]),
            "You keep a token only if the large model likes it at least as much as the draft does, "
            "whatever the uniform is. A token with half the draft's probability should stay half "
            "of the time.",
        ),
        Mistake(
            "q is left out",
            _acceptor(stays=lambda u, q, p, x: u < p[x]),
            "You keep a token with probability p, as if the draft had been certain of it. "
            "That fits a draft that is greedy; this one was sampled from q, so tokens that both "
            "models agree on are thrown away.",
            "SafeAILab/EAGLE #329; the reverse, a greedy draft treated as sampled, in "
            "huggingface/transformers #32867",
        ),
        Mistake(
            "compared with the most probable token",
            _acceptor(stays=lambda u, q, p, x: x == int(p.argmax())),
            "You keep a token only if it is the large model's most probable one. That is right for "
            "greedy decoding; whoever samples gets too much of the likely tokens.",
        ),
        Mistake(
            "redrawn from p",
            _acceptor(rest=lambda p, q, x: p),
            "After a refusal you draw from p. But tokens that both models like have had their "
            "chance when they were drafted, and now they get a second one. What is still missing?",
            "ShopeeLLM/Spec-RL #14, where it is meant to be so",
        ),
        Mistake(
            "only the refused token is taken out",
            _acceptor(rest=_without),
            "After a refusal you lower the refused token alone. The draft could have said any "
            "other token too, and what it would have said is covered already, for all of them.",
            "SafeAILab/EAGLE #20",
        ),
        Mistake(
            "absolute differences",
            _acceptor(rest=lambda p, q, x: (p - q).abs()),
            "After a refusal you draw from |p - q|, so also tokens of which the draft says too "
            "much already, the refused one among them.",
        ),
        Mistake(
            "the difference the wrong way round",
            _acceptor(rest=lambda p, q, x: (q - p).clamp(min=0)),
            "After a refusal you draw from what the draft says too often. Needed is what it says "
            "too rarely.",
        ),
        Mistake(
            "not normalised",
            _acceptor(search=_not_normalised),
            "What is left of p after the subtraction does not sum to one, and your uniform runs up "
            "to one. Whatever lies above the sum falls on the last token.",
        ),
        Mistake(
            "not normalised, and token 0 where nothing is found",
            _acceptor(search=_not_found),
            "What is left of p after the subtraction does not sum to one, and your uniform runs up "
            "to one. Where it is above the sum, your search finds nothing and ends at token 0.",
        ),
        Mistake(
            "softmax of the difference",
            _acceptor(rest=lambda p, q, x: (p - q).clamp(min=0).softmax(-1)),
            "You put the differences through a softmax. They are probabilities up to a factor, not "
            "logits: exp(0) is 1, and tokens with nothing left are drawn as well.",
            "huggingface/transformers #28508",
        ),
        Mistake(
            "the most probable one added",
            _acceptor(search=lambda weights, uniform: weights.argmax()),
            "The token you add is the most probable one, whatever the last uniform says. It has to "
            "be drawn, like any token of the large model.",
        ),
        Mistake(
            "on after a refusal",
            _goes_on,
            "You keep tokens that stand behind a refused one. They were drafted to follow a token "
            "that is gone, and both models judged them in that place.",
        ),
        Mistake(
            "all that pass are counted",
            _counted,
            "You count every token that passes, also those behind a refusal, and keep as many "
            "from the front. That keeps the refused token, and draws from another place's row. "
            "How many pass *before* the first refusal?",
        ),
        Mistake(
            "the refused token kept",
            _acceptor(keep=lambda drafted, stay: drafted[: stay + 1]),
            "The refused token is in your result, with the new one behind it. The new one takes "
            "its place.",
        ),
        Mistake(
            "all or nothing",
            _acceptor(keep=lambda drafted, stay: drafted[: stay if stay == len(drafted) else 0]),
            "One refusal costs you all tokens, those before it too. And the new token was made to "
            "follow those.",
        ),
        Mistake(
            "no token when all stay",
            _no_bonus,
            "When all drafted tokens stay, you add none. The large model has already said what "
            "comes next: its last row is there, and paid for.",
        ),
        Mistake(
            "the last token from the wrong row",
            _acceptor(bonus=lambda p: p[-2]),
            "When all stay, you draw the added token from the row that judged the last drafted "
            "one. What follows that token stands one row further.",
        ),
        Mistake(
            "rows one too far",
            _acceptor(row=lambda p, t: p[t + 1]),
            "You judge each drafted token by the large model's row for the place after it. The "
            "rows of q and p begin at the same place; p has one more at its end.",
            "ohdearquant/lattice #243, where the first token was never judged",
        ),
        Mistake(
            "a uniform used twice",
            _acceptor(which=lambda uniforms, stay: uniforms[stay]),
            "You draw the added token with the number that refused the drafted one. A refusal "
            "means that this number is large, so tokens at the front of the vocabulary never come.",
        ),
        Mistake(
            "a token of probability 0 stays",
            _acceptor(stays=lambda u, q, p, x: u * q[x] <= p[x]),
            "With a uniform of exactly 0, you keep a token that the large model gives probability "
            "0. `torch.rand` returns 0 at times: what then stands on the two sides of your "
            "comparison?",
            "sgl-project/sglang #35771",
        ),
        Mistake(
            "a token of probability 0 added",
            _acceptor(search=_from_the_left),
            "With a uniform of exactly 0, you add token 0 although it has nothing left. The "
            "cumulative probability has to *exceed* the uniform.",
            "pytorch/pytorch #9960",
        ),
        Mistake(
            "floating-point tokens",
            _floats,
            "You return tokens as floating-point numbers. Where do they meet something that is "
            "not a whole number?",
        ),
    ),
    minutes=20,
    difficulty=3,
)
