"""02.TeacherCache."""

from __future__ import annotations

import torch

from kdlib.checks.criteria import facts, matches
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import Spy, draw
from kdlib.training import step as distill


def _library(g: torch.Generator) -> Arguments:
    seed = int(torch.randint(10_000, (1,), generator=g))
    teacher = Spy(seed, 16, 0.5)
    teacher.train()
    inputs = draw(g, 37, 5, scale=1.0)
    order = torch.randperm(37, generator=g)
    return {"teacher": teacher, "inputs": inputs, "batch_size": 8, "order": order}


def _two_epochs(answer, a: Arguments) -> dict:
    """Build the cache and read it in two different shuffled orders."""
    teacher = a["teacher"]
    cache = answer(teacher, a["inputs"], a["batch_size"])
    order = a["order"]
    first = [cache[chunk] for chunk in order.split(10)]
    again = [cache[chunk] for chunk in order.flip(0).split(7)]
    return {
        "first epoch": torch.cat(first),
        "second epoch": torch.cat(again),
        "length": len(cache),
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
        Probe("two epochs", "37 inputs read in two shuffled orders", _library, run=_two_epochs),
    ),
    criteria=(
        matches(
            "each index gets its own logits",
            1.5,
            "two epochs",
            keys=("first epoch", "second epoch", "length"),
        ),
        facts(
            "the teacher runs once over the data, in eval mode",
            1.0,
            "two epochs",
            (
                "rows sent through the teacher",
                37,
                "For 37 inputs read twice, {seen} rows went through the teacher.",
            ),
            ("teacher's modes", "eval", "The teacher was called in this mode: {seen}."),
        ),
        facts(
            "nothing in it has a graph",
            0.5,
            "two epochs",
            ("gradient", False, "What the cache gives out still hangs on the teacher's graph."),
        ),
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
