"""`kdgrade report`: one page that shows in a minute what to teach again, and who needs a look."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from grading.outcome import Outcome
from grading.store import Store
from kdlib.checks import catalogue

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark }
h2 { margin-top: 2rem } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884;
  vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { display: inline-block; height: .8em; background: #0072B2 }
.warn .bar { background: #D55E00 } small { opacity: .75 }
"""


@dataclass
class Line:
    """What became of one exercise in the whole class."""

    earned: float = 0.0
    full: int = 0
    nothing: int = 0
    not_started: int = 0
    criteria: Counter[str] = field(default_factory=Counter)
    mistakes: Counter[str] = field(default_factory=Counter)


def report(root: Path, unit: str) -> str:
    """Write the page of one unit from the stored outcomes."""
    outcomes = list(Store(root, unit).outcomes())
    graded = [outcome for outcome in outcomes if outcome.status == "graded"]
    parts = [f"<h1>{_text(unit)}</h1>", _summary(outcomes)]
    if graded:
        parts += [_distribution(graded), *_exercises(graded)]
    parts += [
        _people("Needs a person's eye", [(o.student, o.eye) for o in graded if o.eye]),
        _people("Refused", [(o.student, [o.words]) for o in outcomes if o.status == "refused"]),
        _people("Failed", [(o.student, [o.words]) for o in outcomes if o.status == "failed"]),
        _people("Repaired", [(o.student, o.repairs) for o in graded if o.repairs]),
    ]
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{_text(unit)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _summary(outcomes: list[Outcome]) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    points = sorted(outcome.points for outcome in outcomes if outcome.status == "graded")
    words = f"{counts['graded']} graded, {counts['refused']} refused, {counts['failed']} failed."
    if points:
        most = max(outcome.max_points for outcome in outcomes)
        mean, median = sum(points) / len(points), points[len(points) // 2]
        words += f" Autograded points: mean {mean:.1f}, median {median:g}, of {most:g}."
    return f"<p>{words}</p>"


def _distribution(graded: list[Outcome]) -> str:
    """Count the students in each tenth of the points."""
    tenths = Counter(min(9, int(10 * o.points / (o.max_points or 1))) for o in graded)
    rows = "".join(
        f"<tr><td class='n'>{10 * n} to {10 * n + 10} %</td><td class='n'>{tenths[n]}</td>"
        f"<td style='width:70%'>{_bar(tenths[n] / len(graded))}</td></tr>"
        for n in range(10)
    )
    return f"<h2>Distribution</h2><table>{rows}</table>"


def _lines(graded: list[Outcome]) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for outcome in graded:
        for name, verdict in outcome.verdicts.items():
            line = lines.setdefault(name, Line())
            line.earned += verdict["points"]
            line.full += verdict["points"] == verdict["max_points"]
            line.nothing += verdict["points"] == 0
            line.not_started += not verdict["started"]
            if verdict["started"] and not verdict["note"]:
                line.criteria.update(n for n, _, passed, _ in verdict["results"] if not passed)
            line.mistakes.update(verdict["diagnoses"])
    return lines


def _exercises(graded: list[Outcome]) -> list[str]:
    """Make the tables of exercises, of criteria that failed, and of known mistakes."""
    exercises, count = catalogue(), len(graded)
    rows, details, mistakes = [], [], []
    for name, line in _lines(graded).items():
        most = exercises[name].points
        rows.append(
            f"<tr><td>{_text(name)}<br><small>{_text(exercises[name].title)}</small></td>"
            f"<td class='n'>{line.earned / count:.2f} of {most:g}</td>"
            f"<td class='n'>{line.full}</td><td class='n'>{count - line.full}"
            f" ({100 * (count - line.full) / count:.0f} %)</td>"
            f"<td class='n'>{line.not_started}</td>"
            f"<td style='width:30%'>{_bar(line.earned / count / most)}</td></tr>"
        )
        details += [(n, name, criterion) for criterion, n in line.criteria.items()]
        mistakes += [(n, name, mistake) for mistake, n in line.mistakes.items()]
    head = "<tr><th>exercise</th><th class='n'>mean points</th><th class='n'>full marks</th>"
    head += "<th class='n'>less</th><th class='n'>not started</th><th></th></tr>"
    return [
        f"<h2>Exercises</h2><table>{head}{''.join(rows)}</table>",
        _ranked("Known mistakes: what to teach again", mistakes, count),
        _ranked("Criteria that failed", details, count),
    ]


def _ranked(title: str, rows: list[tuple[int, str, str]], count: int) -> str:
    if not rows:
        return ""
    body = "".join(
        f"<tr class='warn'><td class='n'>{n}</td><td>{_text(name)}</td><td>{_text(what)}</td>"
        f"<td style='width:30%'>{_bar(n / count)}</td></tr>"
        for n, name, what in sorted(rows, key=lambda row: (-row[0], row[1], row[2]))
    )
    return f"<h2>{title}</h2><table>{body}</table>"


def _people(title: str, rows: list[tuple[str, list[str]]]) -> str:
    if not rows:
        return ""
    body = "".join(
        f"<tr><td>{_text(who)}</td><td>{'<br>'.join(map(_text, words))}</td></tr>"
        for who, words in rows
    )
    return f"<h2>{title} ({len(rows)})</h2><table>{body}</table>"


def _bar(share: float) -> str:
    return f"<span class='bar' style='width:{100 * min(1.0, share):.1f}%'></span>"


def _text(text: str) -> str:
    return html.escape(text)
