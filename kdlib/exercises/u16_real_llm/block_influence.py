"""16.block_influence."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import facts, law, main, matches, rejects, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.models import pruning

ROWS = ((1, 1, 1, 1, 1), (1, 1, 1, 0, 0), (0, 1, 0, 0, 0))  # rows of 5, 3 and 1 tokens
LEFT = ((0, 0, 1, 1), (1, 1, 1, 1))  # padding on the left


def _states(
    rows: tuple = ROWS,
    states: int = 4,
    width: int = 6,
    factors: tuple[float, ...] = (),
    broken: bool = False,
    counts: bool = True,
):
    """Build hidden states that turn a little at each layer, or by `factors` only."""

    def make(g: torch.Generator) -> Arguments:
        mask = torch.tensor(rows, dtype=torch.bool)
        state = draw(g, *mask.shape, width)
        hidden = [state]
        for number in range(1, len(factors) + 1 if factors else states):
            if factors:
                state = hidden[0] * factors[number - 1]
            else:  # each layer adds less than the one before
                state = state + draw(g, *mask.shape, width, scale=4.0 / number)
            hidden.append(state)
        if broken:
            for state in hidden:
                state[~mask] = float("nan")
        return {"hidden": tuple(hidden), "mask": mask & counts}

    return make


def _awkward(g: torch.Generator) -> Arguments:
    """Draw sizes, a mask with gaps, and states that are laid out the other way."""
    rows, width, states, length = (torch.randint(2, 6, (4,), generator=g) + 1).tolist()
    mask = torch.rand(rows, length, generator=g) < 0.6
    mask[0, 0], mask[-1, -1] = True, False
    hidden = [draw(g, length, rows, width).transpose(0, 1) for _ in range(states)]
    return {"hidden": tuple(hidden), "mask": mask}


def _sizes(scale: float, offset: float):
    """Build float32 states of another size, with an offset in one feature, as in real models."""

    def make(g: torch.Generator) -> Arguments:
        made = _states(LEFT, 4, 5)(g)
        hidden = [state * scale for state in made["hidden"]]
        for state in hidden:
            state[..., 1] += offset
        return {**made, "hidden": tuple(state.float() for state in hidden)}

    return make


def _no_state(g: torch.Generator) -> Arguments:
    return {"hidden": (), "mask": torch.tensor(ROWS, dtype=torch.bool)}


def _turning(g: torch.Generator) -> Arguments:
    """Build eight layers of which each scales, and some turn every state round."""
    sizes = 0.5 + 2 * torch.rand(8, generator=g)
    signs = torch.randint(2, (8,), generator=g) * 2 - 1
    signs[3] = -signs[2]
    return _states(factors=tuple((sizes * signs).tolist()))(g)


def _untouched(answer, a: Arguments) -> dict:
    before = [state.clone() for state in a["hidden"]]
    found = answer(*a.values())
    kept = all(torch.equal(x, y) for x, y in zip(before, a["hidden"], strict=True))
    return {"value": found, "the states are as they were": kept}


def _checked(hidden, mask: Tensor) -> None:
    if len(hidden) < 2 or not bool(mask.any()):
        raise ValueError("fewer than two states, or no token")


def _cosine(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Give the cosine of each token that counts, `(N,)`."""
    return F.cosine_similarity(a[mask], b[mask], dim=-1)


def _influence(layer, pairs=pairwise, check=_checked):
    """Assemble a wrong answer from `layer(before, after, mask)`, a number for each layer."""

    def wrong(hidden, mask):
        check(hidden, mask)
        return torch.stack([layer(a, b, mask) for a, b in pairs(hidden)])

    return wrong


def _right(a, b, mask):
    return 1 - _cosine(a, b, mask).mean()


def _padding_too(a, b, mask):
    return 1 - F.cosine_similarity(a, b, dim=-1).mean()


def _flattened(a, b, mask):
    return 1 - F.cosine_similarity(a.flatten(1), b.flatten(1), dim=1).mean()


def _axis(a, b, mask):
    a, b = (torch.where(mask[..., None], x, 0.0) for x in (a, b))
    return 1 - F.cosine_similarity(a, b).mean()  # the default axis is 1


def _similarity(a, b, mask):
    return _cosine(a, b, mask).mean()


def _rows_first(a, b, mask):
    rows = [_cosine(x, y, m).mean() for x, y, m in zip(a, b, mask, strict=True) if m.any()]
    return 1 - torch.stack(rows).mean()


def _multiplied(a, b, mask):
    return 1 - (F.cosine_similarity(a, b, dim=-1) * mask).sum() / mask.sum()


def _all_positions(a, b, mask):
    return 1 - _cosine(a, b, mask).sum() / mask.numel()


def _angle(a, b, mask):
    return (_cosine(a, b, mask).clamp(-1, 1).acos() / torch.pi).mean()


def _dot(a, b, mask):
    return 1 - (a[mask] * b[mask]).sum(-1).mean()


def _last_token(a, b, mask):
    position = torch.arange(mask.shape[1]).expand_as(mask)
    last = position.masked_fill(~mask, -1).amax(1)
    row = torch.arange(len(mask))[last >= 0]
    last = last[last >= 0]
    return 1 - F.cosine_similarity(a[row, last], b[row, last], dim=-1).mean()


def _of_means(a, b, mask):
    return 1 - F.cosine_similarity(a[mask].mean(0), b[mask].mean(0), dim=-1)


def _zeroed(a, b, mask):
    """Clear the padding in the caller's own tensors."""
    a[~mask] = 0.0
    b[~mask] = 0.0
    return _right(a, b, mask)


def _from_first(hidden):
    return [(hidden[0], state) for state in hidden[1:]]


def _around(hidden):
    """Count layers like states: the first 'layer' goes from the last state to the first."""
    return [(hidden[number - 1], hidden[number]) for number in range(len(hidden))]


def _some_token(hidden, mask):
    if mask.any():
        _checked(hidden, mask)


def _scaling(evidence: Evidence) -> str | None:
    for probe in ("scaled", "turned"):
        right = evidence.expected[probe].fields()["value"]
        for found, wanted in zip(evidence.value(probe).tolist(), right.tolist(), strict=True):
            if not abs(found - wanted) < 1e-6:
                turns = wanted > 1
                what = ("only makes every state longer or shorter", "turns every state round")[
                    turns
                ]
                end = "upper" if turns else "lower"
                return (
                    f"For a layer that {what} you return {found:.4g}, which is not the {end} end "
                    "of the scale. Block influence looks at directions alone."
                )
    return None


BLOCK_INFLUENCE = Exercise(
    id="16.block_influence",
    title="Which layer turns the states",
    reference=pruning.block_influence,
    probes=(
        Probe("plain", "3 layers and rows of 5, 3 and 1 tokens", _states()),
        Probe("left", "4 layers and 2 rows padded on the left", _states(LEFT, 5, 3)),
        Probe("scaled", "layers that only scale", _states(factors=(2.0, 0.5, 7.0))),
        Probe("turned", "8 layers that scale, some of which turn every state round", _turning),
        Probe("awkward", "3 to 6 rows, tokens, features and states, with gaps", _awkward),
        Probe("small", "float32 states of a thousandth", _sizes(1e-3, 0.0), atol=1e-5),
        Probe("large", "float32 states of thousands", _sizes(1e3, 5e3), atol=1e-5),
        Probe("broken", "states with NaN in the padding", _states(broken=True)),
        Probe("lent", "states that the caller still needs", _states(states=2), run=_untouched),
        Probe("one state", "a single hidden state", _states(states=1)),
        Probe("no state", "no hidden state at all", _no_state),
        Probe("no token", "a mask that lets no token count", _states(counts=False)),
    ),
    criteria=(
        matches("the value", 1.25, "plain", "left", "awkward", "small", "large"),
        main(law("0 for scaling, 2 for turning round", 0.5, ("scaled", "turned"), _scaling)),
        matches("NaN in the padding does no harm", 0.25, "broken"),
        side(
            facts(
                "the states stay as they are",
                0.25,
                "lent",
                (
                    "the states are as they were",
                    True,
                    "You write into the hidden states. They belong to the caller, who still needs "
                    "them.",
                ),
            )
        ),
        rejects("bad input is refused", 0.5, "one state", "no state", "no token"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "padding counted",
            _influence(_padding_too),
            "Your mean runs over the padding as well. What a model computes there means nothing, "
            "and the shorter the texts are, the more of it there is. Which tokens count?",
            "peremartra/optipfair #38",
        ),
        Mistake(
            "a row as one vector",
            _influence(_flattened),
            "You make one long vector of each row and take a single cosine. Tokens with large "
            "states drown the others, and padding is a part of the vector. The equation has a "
            "cosine for every token.",
            "peremartra/optipfair #38",
        ),
        Mistake(
            "cosine along the tokens",
            _influence(_axis),
            "Your cosine runs along the tokens, feature by feature. `F.cosine_similarity` uses "
            "axis 1 unless told otherwise, and a state lies along the last one.",
        ),
        Mistake(
            "similarity instead of influence",
            _influence(_similarity),
            "You return how much the states stay the same, so the layer that does least gets the "
            "highest number, and whoever prunes by it removes the layers that matter.",
        ),
        Mistake(
            "mean of the rows' means",
            _influence(_rows_first),
            "You average each row first and then the rows, so a token of a short text counts "
            "more than a token of a long one. All tokens are worth the same here.",
        ),
        Mistake(
            "masked by multiplication",
            _influence(_multiplied),
            "You multiply by the mask, and zero times NaN is NaN. Select the tokens that count "
            "before anything is computed.",
        ),
        Mistake(
            "divided by all positions",
            _influence(_all_positions),
            "You add up the tokens that count and divide by all positions. Padding then makes "
            "every layer look more important.",
        ),
        Mistake(
            "compared with the first state",
            _influence(_right, _from_first),
            "You compare each state with the very first one. That says how far the text has come, "
            "not what this layer does. What goes into a layer is the output of the one before.",
        ),
        Mistake(
            "an angle",
            _influence(_angle),
            "You average angles, not cosines. An angle orders two tokens as a cosine does, but "
            "not two means over tokens, and its scale ends elsewhere.",
        ),
        Mistake(
            "dot product",
            _influence(_dot),
            "Your dot product is not divided by the two lengths. States grow from layer to layer, "
            "so your numbers follow their size, not their direction.",
        ),
        Mistake(
            "the last token alone",
            _influence(_last_token),
            "You look at one token of each row, the last. All the others count too.",
        ),
        Mistake(
            "cosine of the means",
            _influence(_of_means),
            "You average the states first and take one cosine of the averages. What turns one "
            "token left and another right cancels out before it is measured.",
        ),
        Mistake(
            "a number too many",
            _influence(_right, _around),
            "You return a number for each state. The states lie around the layers, so there is "
            "one more of them, and index -1 quietly compares the last state with the first.",
        ),
        Mistake(
            "states changed",
            _influence(_zeroed),
            "You clear the padding by writing into the states that you were lent. Take the tokens "
            "that count out of them instead.",
        ),
        Mistake(
            "no token passes",
            _influence(_right, check=_some_token),
            "For a mask that lets nothing count you return the mean of nothing, NaN. A list of "
            "NaN sorts into any order, and some layer is removed for no reason.",
        ),
    ),
    minutes=12,
    difficulty=1,
)
