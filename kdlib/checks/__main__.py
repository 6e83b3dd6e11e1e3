"""`python -m kdlib.checks`: every exercise with the mistakes that it knows, as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterator

from kdlib.checks import catalogue
from kdlib.checks.judge import judge
from kdlib.checks.observe import observe


def matrix() -> Iterator[str]:
    """Run every known mistake through its check and yield the lines of the table."""
    yield "# What the checks know"
    yield ""
    yield "Made by `python -m kdlib.checks > docs/MISTAKES.md`. Each mistake was run"
    yield "through its check; the third column is the first diagnosis that came back."
    for exercise in catalogue().values():
        yield ""
        yield f"## {exercise.id}: {exercise.title} ({exercise.points:g} points)"
        yield ""
        yield "Criteria: " + ", ".join(f"{c.name} ({c.points:g})" for c in exercise.criteria) + "."
        yield ""
        yield "| mistake | earns | diagnosed as | the same bug stood in |"
        yield "|---|---|---|---|"
        for mistake in exercise.mistakes:
            verdict = judge(exercise, observe(exercise, mistake.answer))
            found = verdict.diagnoses[0].name if verdict.diagnoses else "nothing"
            row = (mistake.name, f"{verdict.points:g}", found, mistake.seen_in)
            yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    print("\n".join(matrix()))
