"""A job and its outcome: plain data, so that they can go to another process, machine or file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from grading.sandbox import Limits


@dataclass(frozen=True)
class Job:
    """What a worker has to know to grade one submission.

    Attributes:
        unit: such as "02_soft_targets".
        student: whose it is.
        key: a hash of all that the result depends on.
        content: the submitted file; empty with `refused`, when it could not be read.
        release: the released notebook, as JSON.
        seeds: exercise -> seed of the probe inputs, drawn for this run.
        limits: what it may use.
        sandboxed: False runs it as the user who grades.
        everything: True also runs the released cells after the last check.
        refused: why the file could not even be read.
    """

    unit: str
    student: str
    key: str
    content: bytes
    release: str
    seeds: dict[str, int]
    limits: Limits = field(default_factory=Limits)
    sandboxed: bool = True
    everything: bool = False
    refused: str = ""


@dataclass
class Outcome:
    """What became of one submission.

    Attributes:
        status: "graded", "refused" (nothing to grade, `words` say why) or "failed" (our fault, or
            the machine's).
        verdicts: exercise -> points, of how many, criteria, diagnoses, words.
        notebook: executed, as JSON; "" unless graded.
        repairs: what had to be put right.
        eye: what a person should look at.
        lives: how many kernels it took.
        peak: bytes of memory that the student's processes used.
        seconds: that it took.
        file: a hash of what was handed in.
    """

    unit: str
    student: str
    key: str
    status: str
    words: str = ""
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    notebook: str = ""
    repairs: list[str] = field(default_factory=list)
    eye: list[str] = field(default_factory=list)
    lives: int = 0
    peak: int = 0
    seconds: float = 0.0
    file: str = ""

    @property
    def points(self) -> float:
        """Autograded points."""
        return sum(verdict["points"] for verdict in self.verdicts.values())

    @property
    def max_points(self) -> float:
        """Autograded points there are."""
        return sum(verdict["max_points"] for verdict in self.verdicts.values())

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def failed(job: Job, words: str) -> Outcome:
    """What a job that could not be done leaves behind."""
    return Outcome(job.unit, job.student, job.key, "failed", words)
