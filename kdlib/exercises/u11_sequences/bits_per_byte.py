"""11.bits_per_byte."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from kdlib import evaluation
from kdlib.checks.criteria import facts, matches, rejects, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import between, draw
from kdlib.exercises.u11_sequences.inputs import right_padded, scattered, uneven


def _text(g: torch.Generator) -> Arguments:
    """Build rows that end in EOS, a prompt in front of some, and bytes behind them."""
    rows, width, vocabulary = between(g, 2, 4), between(g, 7, 9), between(g, 5, 10)
    eos = between(g, 0, vocabulary - 1)
    size = 1 + torch.randperm(vocabulary, generator=g) % 4
    size[eos] = 0
    lengths = uneven(g, rows, width, least=4)
    targets = torch.randint(vocabulary - 1, (rows, width), generator=g)
    targets += (targets >= eos).long()  # any token but EOS
    mask = right_padded(lengths, width)
    mask[between(g, 0, rows - 1), 0] = False  # a prompt in front of one row
    for row, length in zip(targets, lengths, strict=True):
        row[length - 1] = eos
    logits = draw(g, rows, width, vocabulary)
    return {"logits": logits, "targets": targets, "mask": mask, "token_bytes": size}


def _gaps(g: torch.Generator) -> Arguments:
    """Give a mask with gaps, and rows of which one may hold nothing that counts."""
    made = _text(g)
    made["mask"] = scattered(g, *made["mask"].shape)
    made["token_bytes"] = made["token_bytes"].clamp(min=1)
    return made


def _one_token(g: torch.Generator) -> Arguments:
    return {
        "logits": draw(g, 1, 1, 2),
        "targets": torch.zeros(1, 1, dtype=torch.long),
        "mask": torch.ones(1, 1, dtype=torch.bool),
        "token_bytes": torch.tensor([1, between(g, 2, 9)]),
    }


def _sure(g: torch.Generator) -> Arguments:
    """Give float32 logits that are hundreds apart."""
    made = _text(g)
    return {**made, "logits": (100 * made["logits"]).float()}


def _ignorant(g: torch.Generator) -> Arguments:
    """Give all tokens the same logit, in a tensor that repeats one row."""
    made = _text(g)
    rows, width, vocabulary = made["logits"].shape
    made["logits"] = draw(g, 1).expand(rows, width, vocabulary)
    return made


def _only_end(g: torch.Generator) -> Arguments:
    """Let nothing count but EOS; what does not count holds text."""
    made = _text(g)
    made["mask"] = made["token_bytes"][made["targets"]] == 0
    return made


def _nothing(g: torch.Generator) -> Arguments:
    made = _text(g)
    return {**made, "mask": made["mask"] & False}


def _kind(answer, a: Arguments) -> dict:
    bits = answer(*a.values())
    return {"bits per byte": bits, "a plain number": isinstance(bits, float)}


def _nats(logits, targets):
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def _nats_by_softmax(logits, targets):
    return -logits.softmax(-1).log().gather(-1, targets[..., None])[..., 0]


def _bpb(rule, nats=_nats, number=float):
    """Assemble a wrong measure from `rule(nats of every token, their bytes, mask)`."""

    def wrong(logits, targets, mask, token_bytes):
        if not int(token_bytes[targets[mask]].sum()):
            raise ValueError("no byte")
        return number(rule(nats(logits, targets), token_bytes[targets].double(), mask))

    return wrong


def _bits(nats):
    return nats / math.log(2)


def _right(nats, size, mask):
    return _bits(nats)[mask].sum() / size[mask].sum()


def _row_ratios(nats, size, mask):
    return ((_bits(nats) * mask).sum(1) / (size * mask).sum(1).clamp(min=1)).mean()


def _unguarded(logits, targets, mask, token_bytes):
    y = targets[mask]
    nats = F.cross_entropy(logits[mask], y, reduction="sum")
    return (nats / math.log(2) / token_bytes[y].sum()).item()


BITS_PER_BYTE = Exercise(
    id="11.bits_per_byte",
    title="Bits per byte",
    reference=evaluation.bits_per_byte,
    probes=(
        Probe("plain", "rows of several lengths", _text),
        Probe("gaps", "a mask with gaps", _gaps),
        Probe("one token", "a single token of one byte", _one_token),
        Probe("ignorant", "a model that finds all tokens equally probable", _ignorant),
        Probe("sure", "float32 logits that are hundreds apart", _sure),
        Probe("kind", "rows of several lengths", _text, run=_kind),
        Probe("no bytes", "valid targets that are EOS alone", _only_end),
        Probe("nothing", "a mask that counts nothing", _nothing),
    ),
    criteria=(
        matches("the value", 1.25, "plain", "gaps", "one token"),
        matches("what can be counted by hand", 0.25, "ignorant"),
        matches("a model that is sure and wrong", 0.25, "sure"),
        side(
            facts(
                "a plain number",
                0.25,
                "kind",
                (
                    "a plain number",
                    True,
                    "What you return is no Python float: a tensor, for one, is not.",
                ),
            )
        ),
        rejects("a text without bytes is refused", 0.25, "no bytes", "nothing"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "nats instead of bits",
            _bpb(lambda nats, size, mask: nats[mask].sum() / size[mask].sum()),
            "Your result is in nats. How many bits does a nat have?",
        ),
        Mistake(
            "nats into bits, the wrong way round",
            _bpb(lambda nats, size, mask: math.log(2) * nats[mask].sum() / size[mask].sum()),
            "You multiply where you should divide, or the other way round. Is a bit more than a "
            "nat, or less: how many nats does the toss of a coin cost?",
        ),
        Mistake(
            "bits per token",
            _bpb(lambda nats, size, mask: _bits(nats)[mask].mean()),
            "You divide by the number of tokens. Double the length of the tokens and that number "
            "doubles too, while the model knows no more and no less about the text.",
        ),
        Mistake(
            "mean bits over the sum of bytes",
            _bpb(lambda nats, size, mask: _bits(nats)[mask].mean() / size[mask].sum()),
            "Above the line stands a mean over tokens, below it a sum of bytes. What does "
            "`reduction` do unless you say otherwise?",
        ),
        Mistake(
            "mean of the rows' ratios",
            _bpb(_row_ratios),
            "You average the ratios of the rows. The code length of a text is one sum, divided by "
            "one number of bytes.",
        ),
        Mistake(
            "the mask is not used",
            _bpb(lambda nats, size, mask: _bits(nats).sum() / size.sum()),
            "You add up bits and bytes of all targets, those that do not count among them.",
        ),
        Mistake(
            "the padding's bits count",
            _bpb(lambda nats, size, mask: _bits(nats).sum() / size[mask].sum()),
            "The bits of the padding are in your sum, although nobody has to transmit it.",
        ),
        Mistake(
            "the padding's bytes count",
            _bpb(lambda nats, size, mask: _bits(nats)[mask].sum() / size.sum()),
            "The bytes of targets that do not count are below your line, and their bits are not "
            "above it.",
        ),
        Mistake(
            "EOS counts as a byte",
            _bpb(lambda nats, size, mask: _bits(nats)[mask].sum() / size[mask].clamp(min=1).sum()),
            "You count a byte for EOS, which stands for no text. `token_bytes` says what each "
            "token is worth.",
        ),
        Mistake(
            "the bits of EOS are left out",
            _bpb(lambda nats, size, mask: _bits(nats)[mask & (size > 0)].sum() / size[mask].sum()),
            "You dropped the tokens that have no bytes from the sum of bits. The end of a text has "
            "to be said too, and costs bits.",
        ),
        Mistake(
            "mean of the tokens' ratios",
            _bpb(
                lambda nats, size, mask: (_bits(nats) / size.clamp(min=1))[mask & (size > 0)].mean()
            ),
            "You divide token by token and average. That gives a token of one byte as much say as "
            "one of four.",
        ),
        Mistake(
            "logarithm of a softmax",
            _bpb(_right, nats=_nats_by_softmax),
            "Where the model is sure and wrong, the probability of what comes is zero in float32, "
            "and its logarithm is minus infinity. How do you get the logarithm without the "
            "probability?",
        ),
        Mistake(
            "a tensor is returned",
            _bpb(_right, number=lambda bits: bits),
            "The number is right, and it is a tensor. A float is asked for.",
        ),
        Mistake(
            "no bytes, no error",
            _unguarded,
            "Where no target that counts has a byte, you divide by zero. Raise a ValueError that "
            "says so, and do not let the padding's bytes hide it.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
