"""What a check gives back: points, messages, diagnoses; readable as text and as HTML."""

from __future__ import annotations

import html
import os
import re
import textwrap
from dataclasses import dataclass

from kdlib.checks.pristine import Builtins

LATER = "What is ticked here counts once a part of the result is right."
REST = "That explains a part. What else is wrong has another cause."


@dataclass(frozen=True)
class Result:
    """One criterion: passed or not, and why not; `counts` says whether a pass earns its points."""

    name: str
    points: float
    passed: bool
    message: str
    counts: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """A known mistake that reproduces the student's record.

    Attributes:
        name: of the mistake.
        says: what to think about.
        seen_in: the public thread where the same bug stood; ", as a question" at its end says
            that somebody only asked about it there.
        whole: whether it explains, with the others, everything that is wrong.
    """

    name: str
    says: str
    seen_in: str
    whole: bool = True

    @property
    def heading(self) -> str:
        """How it is announced: with less confidence when something else is wrong, too."""
        return f"{'Looks like' if self.whole else 'In part'}: {self.name}."

    @property
    def elsewhere(self) -> str:
        """Where the same was met in public, as a sentence; empty when nowhere is known."""
        where = self.seen_in.removesuffix(", as a question")
        if not where:
            return ""
        asked = where != self.seen_in
        return f"{'Somebody asked about the same' if asked else 'The same bug stood'} in {where}."


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check.

    Attributes:
        exercise_id: such as "02.kd_loss".
        title: of the exercise.
        results: one for each criterion.
        diagnoses: known mistakes, the one that explains most first.
        started: False while the stub still raises NotImplementedError everywhere.
        seed: of the probe inputs.
        note: said instead of the criteria when the answer could not be run at all.
    """

    exercise_id: str
    title: str
    results: tuple[Result, ...]
    diagnoses: tuple[Diagnosis, ...]
    started: bool = True
    seed: int = 0
    note: str = ""

    @property
    def points(self) -> float:
        """Points earned."""
        return sum(result.points for result in self.results if result.passed and result.counts)

    @property
    def max_points(self) -> float:
        """Points there are."""
        return sum(result.points for result in self.results)

    @property
    def passed(self) -> bool:
        """Full marks."""
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def waiting(self) -> bool:
        """Whether a criterion is met that does not count yet."""
        return any(result.passed and not result.counts for result in self.results)

    @property
    def headline(self) -> str:
        """Name, title and score in one line."""
        score = f"{self.points:g} of {self.max_points:g} points"
        return f"{self.exercise_id} · {self.title}: {score}"

    @Builtins()
    def __str__(self) -> str:
        """Write the verdict as plain text, at most 88 columns wide."""
        lines = [self.headline]
        if not self.started:
            lines.append("  not started: the stub still raises NotImplementedError")
            return "\n".join(lines)
        if self.note:
            lines.append(f"  {self.note}")
        for result in self.results if not self.note else ():
            mark = "✓" if result.passed else "✗"
            text = f"{result.name}: {result.message}" if result.message else result.name
            lines += _wrap(text, f"  {mark} ", "    ")
        if self.waiting:
            lines.append(f"  {LATER}")
        for diagnosis in self.diagnoses:
            text = f"{diagnosis.heading} {_text(diagnosis.says)}"
            if diagnosis.elsewhere:
                text += f" {diagnosis.elsewhere}"
            lines += ["", *_wrap(text, "  → ", "    ")]
        if self.diagnoses and not self.diagnoses[0].whole:
            lines += ["", f"  {REST}"]
        return "\n".join(lines)

    __repr__ = __str__

    @Builtins()
    def to_html(self) -> str:
        """Write the verdict as a small HTML block that fits JupyterLab's light and dark themes."""
        colour = "#009E73" if self.passed else "#D55E00" if self.started else "#0072B2"
        parts = [f"<div style='font-weight:600'>{_html(self.headline)}</div>"]
        if not self.started:
            parts.append("<div>Not started: the stub still raises NotImplementedError.</div>")
        if self.note:
            parts.append(f"<div>{_html(self.note)}</div>")
        if self.started and not self.note:
            items = "".join(
                f"<div style='margin:2px 0'><span style='color:"
                f"{'#009E73' if r.passed else '#D55E00'};font-weight:700'>"
                f"{'✓' if r.passed else '✗'}</span> {_html(r.name)}"
                f"{': ' + _html(r.message) if r.message else ''}</div>"
                for r in self.results
            )
            parts.append(f"<div style='margin-top:4px'>{items}</div>")
        if self.waiting:
            parts.append(f"<div style='margin-top:4px'>{LATER}</div>")
        for d in self.diagnoses:
            seen = f"<div style='opacity:.75'>{_html(d.elsewhere)}</div>" if d.elsewhere else ""
            parts.append(
                "<div style='margin-top:6px;padding:6px 8px;background:rgba(213,94,0,.10)'>"
                f"<b>{_html(d.heading)}</b> {_html(d.says)}{seen}</div>"
            )
        if self.diagnoses and not self.diagnoses[0].whole:
            parts.append(f"<div style='margin-top:6px'>{REST}</div>")
        return (
            f"<div class='kdlib-verdict' style='border-left:4px solid {colour};padding:6px 12px;"
            f"max-width:760px;line-height:1.45'>{''.join(parts)}</div>"
        )

    @Builtins()
    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        """Give both forms; under nbgrader the text is the number of points, which it reads."""
        text = f"{self.points:g}" if execution() else str(self)
        return {"text/plain": text, "text/html": self.to_html()}


class CheckFailed(AssertionError):
    """Raised under `nbgrader validate` when an answer does not earn full marks."""

    def _render_traceback_(self) -> list[str]:
        """Show the verdict and none of our frames (IPython asks for this)."""
        return [f"CheckFailed: {self}"]


def execution() -> str:
    """Say what nbgrader is doing: 'autograde', 'validate', or '' outside of it."""
    return os.environ.get("NBGRADER_EXECUTION", "")


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        82 if execution() == "validate" else 88,  # validate indents, and cuts at 87
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _text(message: str) -> str:
    return message.replace("`", "")


def _html(message: str) -> str:
    """Escape, and set `code` in code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(message, quote=False))
