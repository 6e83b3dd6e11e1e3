"""From a notebook to records: what one cell breaks costs that cell's question and no other.

When the kernel is lost, it is started anew, the cells up to there are run again without the one
that did it, and the rest goes on. A process can also be ended by something that an earlier cell
left behind: a thread that waits for its moment. So a question that a death took with it, and all
that are left when it is unclear who is to blame, get a kernel of their own in which no other
answer is run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from nbformat import NotebookNode

from grading.execute import Life, Lost
from grading.forkserver import ForkServer
from grading.sandbox import Limits


@dataclass(frozen=True)
class Check:
    """A check cell: which exercise, and the name of the student's function."""

    exercise_id: str
    name: str
    seed: int
    seconds: float  # that observing may take


@dataclass
class Step:
    """One code cell, in the order of the notebook.

    Attributes:
        cell: of the notebook; its outputs are filled in.
        check: what to observe, for a check cell.
        question: the exercise that an answer cell belongs to, or "".
        released: whether the cell is as it was released.
    """

    cell: NotebookNode
    check: Check | None = None
    question: str = ""
    released: bool = False


@dataclass
class Run:
    """What running a notebook gave.

    Attributes:
        records: exercise -> the text that came back, not to be trusted; None when none came.
        lost: exercise -> what its code did to the process, in words.
        lives: how many kernels it took.
        peak: bytes of memory that the processes used together, at most.
    """

    records: dict[str, Any] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    lives: int = 0
    peak: int = 0


class Replay:
    """The run of one notebook, over as many kernels as it takes."""

    def __init__(self, steps: list[Step], server: ForkServer, limits: Limits) -> None:
        self.steps, self.server, self.limits = steps, server, limits
        self.deadline = time.monotonic() + limits.total
        self.done = Run()
        self.skipped: set[int] = set()
        self.unclear: set[str] = set()  # questions that a death took with it

    async def run(self) -> Run:
        """Run the code cells, observe the answers, fill in the cells' outputs."""
        position: int | None = 0
        checks = [step for step in self.steps if step.check]
        while position is not None and position < len(self.steps):
            if self.done.lives > 2 + len(checks):
                break
            position = await self._live(position)
        for step in checks:
            assert step.check
            question = step.check.exercise_id
            open_yet = question not in self.done.records and question not in self.done.lost
            if open_yet or question in self.unclear:
                went = await self._alone(step, with_additions=True)
                if not went and any(not (s.question or s.released) for s in self.steps):
                    await self._alone(step, with_additions=False)
        return self.done

    async def _live(self, position: int) -> int | None:
        """Run one kernel as far as it gets; give the first step that is still to be done.

        None says that it is unclear what to leave out.
        """
        at = position
        try:
            async with self._life() as life:
                for at, step in enumerate(self.steps):
                    again = at < position
                    if at in self.skipped or (again and step.check):
                        continue
                    if step.check:
                        await self._observe(life, step.check)
                    else:
                        outputs = await life.run(step.cell.source)
                        step.cell.outputs = step.cell.outputs if again else outputs
            return len(self.steps)
        except Lost as lost:
            step = self.steps[at]
            question = step.check.exercise_id if step.check else step.question
            if question and question not in self.done.records:
                self.done.lost[question] = lost.why
                if lost.died:
                    self.unclear.add(question)
            self.skipped.add(at)
            blameless = at < position or (step.released and not step.check)
            return None if lost.died and blameless else max(position, at + 1)

    async def _alone(self, target: Step, with_additions: bool) -> bool:
        """Observe one answer in a kernel in which no other answer is run; say whether that went."""
        assert target.check
        question = target.check.exercise_id
        try:
            async with self._life() as life:
                for at, step in enumerate(self.steps):
                    if step is target:
                        break
                    own = step.question == question
                    addition = with_additions and not step.question and at not in self.skipped
                    if not step.check and (own or step.released or addition):
                        await life.run(step.cell.source)
                await self._observe(life, target.check)
        except Lost as lost:
            self.done.lost[question] = lost.why
            return False
        self.done.lost.pop(question, None)
        return True

    @asynccontextmanager
    async def _life(self) -> AsyncIterator[Life]:
        if time.monotonic() > self.deadline:
            raise Lost(f"the whole notebook took more than {self.limits.total:g} s")
        self.done.lives += 1
        async with Life(self.server, self.limits, self.deadline) as life:
            try:
                yield life
            finally:
                self.done.peak = max(self.done.peak, self.server.ask("poll")["peak"])

    async def _observe(self, life: Life, check: Check) -> None:
        """Observe an answer, and when there was too little time, once more."""
        arguments = (check.exercise_id, check.name, check.seed, check.seconds)
        text = await life.observe(*arguments)
        if isinstance(text, str) and '"status": "timeout"' in text:
            text = await life.observe(*arguments)
        if text is None:
            raise Lost("no result came back from it", died=True)
        self.done.records[check.exercise_id] = text
