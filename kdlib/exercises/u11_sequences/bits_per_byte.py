"""11.bits_per_byte."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from kdlib import evaluation
from kdlib.checks.criteria import law, main, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.exercises.u11_sequences.inputs import right_padded


def _text(lengths: tuple[int, ...], width: int, vocabulary: int, one: bool = False, even=False):
    """Build logits, targets that end in EOS (the last token), mask, and the tokens' bytes."""

    def make(g: torch.Generator) -> Arguments:
        eos = vocabulary - 1
        logits = draw(g, len(lengths), width, vocabulary) * (0 if even else 1)
        targets = torch.randint(eos, (len(lengths), width), generator=g)
        for row, length in zip(targets, lengths, strict=True):
            row[max(length - 1, 0) :] = eos
        size = torch.arange(vocabulary) % 4 + 1
        size = torch.ones(vocabulary, dtype=torch.long) if one else size
        size[eos] = 0
        return {
            "logits": logits,
            "targets": targets,
            "mask": right_padded(lengths, width),
            "token_bytes": size,
        }

    return make


def _bpb(rule):
    """Assemble a wrong measure from `rule(nats of every token, their bytes, mask)`."""

    def wrong(logits, targets, mask, token_bytes):
        if not int(token_bytes[targets[mask]].sum()):
            raise ValueError("no byte")
        nats = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        return float(rule(nats, token_bytes[targets].double(), mask))

    return wrong


def _bits(nats):
    return nats / math.log(2)


def _row_ratios(nats, size, mask):
    return ((_bits(nats) * mask).sum(1) / (size * mask).sum(1).clamp(min=1)).mean()


def _unguarded(logits, targets, mask, token_bytes):
    y = targets[mask]
    nats = F.cross_entropy(logits[mask], y, reduction="sum")
    return (nats / math.log(2) / token_bytes[y].sum()).item()


def _uniform(evidence: Evidence) -> str | None:
    seen = float(evidence.value("uniform"))
    if abs(seen - 3 * 14 / 12) < 1e-9:  # 14 tokens of log2(8) bits for 12 bytes
        return None
    return (
        f"A model that finds all 8 tokens equally probable needs 3 bits for each of the 14 tokens, "
        f"and the text has 12 bytes; you get {seen:.4g}."
    )


BITS_PER_BYTE = Exercise(
    id="11.bits_per_byte",
    title="Bits per byte",
    reference=evaluation.bits_per_byte,
    probes=(
        Probe("plain", "3 rows of 6, 3 and 5 valid tokens", _text((6, 3, 5), 6, 10)),
        Probe("other", "2 rows of 7 and 4 valid tokens", _text((7, 4), 8, 6)),
        Probe(
            "uniform",
            "a model that knows nothing, tokens of one byte",
            _text((9, 5), 9, 8, one=True, even=True),
        ),
        Probe("no bytes", "targets that are EOS alone", _text((1, 1), 3, 5)),
    ),
    criteria=(
        matches("the value", 1.5, "plain", "other"),
        main(law("what can be counted by hand", 0.5, ("uniform",), _uniform)),
        rejects("a text without bytes is refused", 0.25, "no bytes"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "nats instead of bits",
            _bpb(lambda nats, size, mask: nats[mask].sum() / size[mask].sum()),
            "Your result is in nats. How many bits does a nat have?",
        ),
        Mistake(
            "bits per token",
            _bpb(lambda nats, size, mask: _bits(nats)[mask].mean()),
            "You divide by the number of tokens. Double the length of the tokens and that number "
            "doubles too, while the model knows no more and no less about the text.",
        ),
        Mistake(
            "mean of the rows' ratios",
            _bpb(_row_ratios),
            "You average the ratios of the rows. The code length of a text is one sum, divided by "
            "one number of bytes.",
        ),
        Mistake(
            "the padding's bits count",
            _bpb(lambda nats, size, mask: _bits(nats).sum() / size[mask].sum()),
            "The bits of the padding are in your sum, although nobody has to transmit it.",
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
            "no bytes, no error",
            _unguarded,
            "A text without bytes gives a division by zero. Raise a ValueError that says so.",
        ),
    ),
    minutes=10,
    difficulty=1,
)
