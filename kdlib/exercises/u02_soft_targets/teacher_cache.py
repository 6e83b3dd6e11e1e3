"""02.TeacherCache."""

from __future__ import annotations

import torch

from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import Spy, between, draw
from kdlib.training import step as distill


def _library(rows: int, **rest):
    def make(g: torch.Generator) -> Arguments:
        seed = between(g, 0, 10_000)
        teacher, other = Spy(seed, 16, 0.5), Spy(seed + 1, 7, 0.5)
        teacher.train()
        return {
            "teacher": teacher,
            "inputs": draw(g, rows, 5, scale=1.0),
            **rest,
            "other teacher": other,
            "order": torch.randperm(rows, generator=g),
        }

    return make


def _two_epochs(answer, a: Arguments) -> dict:
    """Build the cache and another one, and read the first in two different shuffled orders."""
    teacher, inputs, order = a["teacher"], a["inputs"], a["order"]
    cache = answer(teacher, inputs, *([a["batch_size"]] if "batch_size" in a else []))
    other = answer(a["other teacher"], inputs[:9], 4)
    tiny = answer(a["other teacher"], inputs[:1], 4)
    first = [cache[chunk] for chunk in order.split(10)]
    again = [cache[chunk] for chunk in order.flip(0).split(7)]
    return {
        "first epoch": torch.cat(first),
        "second epoch": torch.cat(again),
        "same example twice": cache[order[[1, 0, 1]]],
        "another cache": other[order.argsort()[:3] % 9],
        "a cache of one example": tiny[torch.tensor([0, 0])],
        "length": len(cache),
        "rows of each call": ", ".join(map(str, teacher.batches)),
        "rows sent through the teacher": teacher.rows,
        "teacher's modes": teacher.seen_modes,
        "gradient": any(part.requires_grad for part in first + again),
    }


class _ByPosition:
    """Hands out the batches in the order in which the teacher saw them."""

    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            self.logits = torch.cat([teacher(chunk) for chunk in inputs.split(batch_size)])
        self.next = 0

    def __len__(self):
        return len(self.logits)

    def __getitem__(self, indices):
        rows = (torch.arange(len(indices)) + self.next) % len(self.logits)
        self.next += len(indices)
        return self.logits[rows]


class _Sorted(_ByPosition):
    def __getitem__(self, indices):
        return self.logits[indices.sort().values]


class _NoCache:
    def __init__(self, teacher, inputs, batch_size=256):
        self.teacher, self.inputs = teacher.eval(), inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, indices):
        with torch.no_grad():
            return self.teacher(self.inputs[indices])


class _TrainMode(_ByPosition):
    def __init__(self, teacher, inputs, batch_size=256):
        with torch.no_grad():
            self.logits = torch.cat([teacher(chunk) for chunk in inputs.split(batch_size)])

    def __getitem__(self, indices):
        return self.logits[indices]


class _AllAtOnce(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        with torch.no_grad():
            self.logits = teacher.eval()(inputs)


class _OneByOne(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        with torch.no_grad():
            self.logits = torch.cat([teacher.eval()(row) for row in inputs.split(1)])


class _OfTheClass(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        with torch.no_grad():
            _OfTheClass.logits = torch.cat([teacher.eval()(x) for x in inputs.split(batch_size)])


class _WithGraph(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        self.logits = torch.cat([teacher(chunk) for chunk in inputs.split(batch_size)])


class _Probabilities(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            self.logits = torch.cat([teacher(c).softmax(-1) for c in inputs.split(batch_size)])


class _LastBatchDropped(_TrainMode):
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            whole = len(inputs) // batch_size * batch_size
            found = torch.cat([teacher(c) for c in inputs[:whole].split(batch_size)])
        self.logits = torch.zeros(len(inputs), found.shape[-1], dtype=found.dtype)
        self.logits[:whole] = found


TEACHER_CACHE = Exercise(
    id="02.TeacherCache",
    title="A cache of the teacher's logits",
    reference=distill.TeacherCache,
    probes=(
        Probe(
            "two epochs",
            "37 inputs, in batches of 8, read in two shuffled orders",
            _library(37, batch_size=8),
            run=_two_epochs,
        ),
        Probe("default", "300 inputs, without a batch size", _library(300), run=_two_epochs),
    ),
    criteria=(
        matches(
            "each index gets its own logits",
            1.5,
            "two epochs",
            "default",
            keys=(
                "first epoch",
                "second epoch",
                "same example twice",
                "another cache",
                "a cache of one example",
                "length",
            ),
        ),
        side(
            facts(
                "the teacher runs once over the data, in eval mode",
                0.75,
                "two epochs",
                (
                    "rows sent through the teacher",
                    37,
                    "For 37 inputs read twice, {seen} rows went through the teacher.",
                ),
                ("teacher's modes", "eval", "The teacher was called in this mode: {seen}."),
            )
        ),
        side(
            matches(
                "batch_size rows at a time",
                0.25,
                "two epochs",
                "default",
                keys=("rows of each call",),
            )
        ),
        side(
            facts(
                "nothing in it has a graph",
                0.25,
                "two epochs",
                ("gradient", False, "What the cache gives out still hangs on the teacher's graph."),
            )
        ),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "looked up by position",
            _ByPosition,
            "Your cache hands out logits in the order in which the teacher saw the images, "
            "whatever it is asked for. As soon as the data are shuffled, every image is taught "
            "with another image's soft targets. Nothing crashes.",
            "haitongli/knowledge-distillation-pytorch #4, #9, #16 and #17",
        ),
        Mistake(
            "indices sorted",
            _Sorted,
            "Right rows, wrong order: what comes back is sorted by index, while the batch is not.",
        ),
        Mistake(
            "not a cache",
            _NoCache,
            "The teacher computes its answers anew in every epoch, which is "
            "the cost that a cache is there to save.",
        ),
        Mistake(
            "all rows at once",
            _AllAtOnce,
            "The whole data set goes through the teacher in one batch, whatever `batch_size` says. "
            "What happens to the memory when it holds 60,000 images?",
        ),
        Mistake(
            "one row at a time",
            _OneByOne,
            "Each row goes through the teacher on its own. The logits are right; what is a batch "
            "for?",
        ),
        Mistake(
            "kept by the class",
            _OfTheClass,
            "The logits belong to the class, not to the instance: a second cache writes over the "
            "first one's. What does `self` stand for?",
        ),
        Mistake(
            "teacher in train mode",
            _TrainMode,
            "The logits you stored are those of a teacher with dropout on and with BatchNorm "
            "looking at the batch: a worse teacher, frozen for good.",
            "vrvlive/knowlege-distillation #2, as a question",
        ),
        Mistake(
            "the graph is cached too",
            _WithGraph,
            "The stored logits still hang on the teacher's graph, so every activation of every "
            "example stays in memory.",
        ),
        Mistake(
            "probabilities stored",
            _Probabilities,
            "You stored probabilities at T = 1. The logits can be softened to any temperature "
            "later; from probabilities the small ones are already rounded away.",
        ),
        Mistake(
            "last batch dropped",
            _LastBatchDropped,
            "The last examples have logits of zero: 37 is not a multiple of the batch size, and "
            "the remainder was never sent through the teacher.",
        ),
    ),
    minutes=15,
    difficulty=2,
)
