"""What an exercise is made of: probes, criteria, known mistakes, and variants of the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from kdlib.checks.record import Record

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """One situation that an answer is put into.

    Attributes:
        name: short, unique in the exercise.
        about: what the student is told about it, as it fits after "On": "8 rows of 10 classes".
        make: builds the arguments, in the order of the stub's signature, from a seeded generator.
        gradients: names of arguments whose gradient is recorded (the result's sum is
            differentiated).
        run: how to use the answer where a plain call is not enough (a training step, a class);
            gets the answer and the arguments and returns plain data.
        sizes: named quantities, such as {"the number of classes": 10}; when a wrong value is off
            by a factor made of them, the student is told which.
        atol: how far an entry may be off, besides a 1e-5th of the largest one: more than the
            default where a right answer may compute in float32.
        leaves: names of arguments on which a right answer may leave traces (values, gradients,
            modes, hooks). What the reference leaves behind is allowed without being named.
    """

    name: str
    about: str
    make: Callable[[torch.Generator], Arguments]
    gradients: tuple[str, ...] = ()
    run: Callable[[Callable, Arguments], Any] | None = None
    sizes: Mapping[str, float] = field(default_factory=dict)
    atol: float = 1e-8
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mistake:
    """A named wrong answer, and the words for someone who gave it.

    Attributes:
        name: short, unique in the exercise, in the field's terms.
        answer: the wrong implementation; it is observed on the same probes as the student's.
        says: what went wrong and what to think about; never the expected value or the solution.
        seen_in: the public thread where the same bug stood, if there is one, as it fits after "The
            same bug stood in"; ", as a question" at its end where somebody only asked about it.
    """

    name: str
    answer: Callable
    says: str
    seen_in: str = ""


@dataclass(frozen=True)
class Clue:
    """What can be said of a group of wrong answers.

    Attributes:
        name: short, as it fits after "Looks like:".
        says: what went wrong and what to think about.
    """

    name: str
    says: str


@dataclass(frozen=True, eq=False)
class Variant:
    """A wrong answer that nobody wrote: the reference, changed by a rule.

    Variants are tried after the known mistakes, while time is left. Where several agree with the
    student, only the clues that all of them begin with are true of the student for certain, and the
    last of these is said.

    Attributes:
        answer: the wrong implementation.
        clues: from the general ("the mean runs over the wrong set") to the particular ("the mean
            runs over the classes, too").
    """

    answer: Callable
    clues: tuple[Clue, ...]


@dataclass(frozen=True)
class Evidence:
    """What a criterion looks at: the student's record and the reference's on the same probes."""

    student: Record
    expected: Record
    probes: Mapping[str, Probe]

    def value(self, probe: str, key: str = "value") -> Any:
        """Give a field of the student's observation on `probe`, or None when there is none."""
        return self.student[probe].fields().get(key)


@dataclass(frozen=True)
class Criterion:
    """One thing that a right answer does, and the points for it.

    Attributes:
        name: as it fits after a tick: "the gradient".
        points: what it is worth.
        test: returns None when satisfied, else one or two sentences in the student's own numbers.
        main: whether it looks at what the exercise is about. The others (an error is raised,
            nothing is disturbed, a law that zeros obey, too) count once a main criterion holds.
    """

    name: str
    points: float
    test: Callable[[Evidence], str | None]
    main: bool = True


@dataclass(frozen=True, eq=False)
class Exercise:
    """Everything the engine knows about one exercise.

    Attributes:
        id: unit and name: "02.kd_loss". The name is that of the function in the stub.
        title: a few words.
        reference: the implementation in kdlib, or a callable of the same signature.
        probes: the situations, simplest first.
        criteria: what is tested, with points.
        mistakes: known wrong answers.
        minutes: how long a student should need.
        difficulty: 1 to 3.
        seals: further exercises whose references may not be called.
        forbids: names of torch functions that may not be called.
        random: True when a right answer draws random numbers without a seed.
        seconds: time limit for one probe.
        variants: gives further wrong answers when it is called, which happens only when the known
            mistakes leave something unexplained.
    """

    id: str
    title: str
    reference: Callable
    probes: tuple[Probe, ...]
    criteria: tuple[Criterion, ...]
    mistakes: tuple[Mistake, ...]
    minutes: int
    difficulty: int
    seals: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    random: bool = False
    seconds: float = 2.0
    variants: Callable[[], Iterable[Variant]] = tuple

    def __post_init__(self) -> None:
        """Refuse an exercise that contradicts itself."""
        for what, names in (
            ("probe", [p.name for p in self.probes]),
            ("mistake", [m.name for m in self.mistakes]),
            ("criterion", [c.name for c in self.criteria]),
        ):
            if not names or len(set(names)) != len(names):
                raise ValueError(f"{self.id}: needs {what} names that are unique, got {names}")
        if not any(criterion.main for criterion in self.criteria):
            raise ValueError(f"{self.id}: needs a criterion that is a main one")
        if self.difficulty not in (1, 2, 3):
            raise ValueError(f"{self.id}: difficulty must be 1, 2 or 3, got {self.difficulty}")

    @property
    def name(self) -> str:
        """The name of the function or class that the student writes."""
        return self.id.split(".", 1)[1]

    @property
    def points(self) -> float:
        """The points of all criteria together."""
        return sum(criterion.points for criterion in self.criteria)
