"""`kdgrade report`: one page that shows in a minute what to teach again, and who needs a look."""

from __future__ import annotations

import html
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.coursedir import CourseDirectory

from grading import register
from grading.collect import Attempts, released
from grading.gradebook import UnknownUnit, read_config
from grading.outcome import Outcome
from grading.overlap import Text, groups, published, shape
from grading.store import Store
from grading.template import ANCHOR
from kdlib.checks import catalogue

MOST_OVERLAPS = 60
WORD = re.compile(r"[A-Za-z_]\w*")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark }
h2 { margin-top: 2rem } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884;
  vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { display: inline-block; height: .8em; background: #0072B2 }
.warn .bar { background: #D55E00 } small { opacity: .75 }
table.two { table-layout: fixed } pre { white-space: pre-wrap; font-size: 12px; margin: 0 }
mark { background: #E69F0055; color: inherit }
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


def report(root: Path, unit: str, pseudonyms: bool = False) -> str:
    """Write the page of one unit from the stored outcomes.

    Args:
        root: the course folder.
        unit: its name.
        pseudonyms: True gives the students numbers in place of their names.

    Raises:
        UnknownUnit: there is none of this name.
    """
    coursedir = CourseDirectory(config=read_config(root))
    release = {path.stem: path for path in released(coursedir)}
    store = Store(root, unit)
    if unit not in release and not (store.folder / "outcomes").is_dir():
        known = ", ".join(release) or "none was generated yet"
        raise UnknownUnit(f"There is no unit {unit}; there are {known}.")
    outcomes, texts = [], []
    given = _code(release[unit]) if unit in release else {}
    for outcome in store.outcomes():
        texts += _texts(outcome, given)
        outcomes.append(replace(outcome, notebook=""))
    refused = register.refusals(root, unit)
    named = {o.student for o in outcomes} | {r.student for r in refused if r.student}
    name = _names(named, pseudonyms)
    graded = [outcome for outcome in outcomes if outcome.status == "graded"]
    parts = [f"<h1>{_text(unit)}</h1>", _summary(outcomes)]
    if graded:
        parts += [_distribution(graded), *_exercises(graded)]
    door = [
        (name(r.student or "?"), [r.words if pseudonyms else f"{r.label}: {r.words}"])
        for r in refused
    ]
    worse = ((o.student, Attempts(root, unit, o.student).worse()) for o in outcomes)
    parts += [
        _people("Needs a person's eye", [(name(o.student), o.eye) for o in outcomes if o.eye]),
        _people("A later attempt with less in it", [(name(s), [w]) for s, w in worse if w]),
        _overlaps(texts, coursedir, unit, given, name, len(graded)),
        _people("Refused when collected", door),
        _people("Refused", [(name(o.student), [o.words]) for o in _with(outcomes, "refused")]),
        _people("Failed", [(name(o.student), [o.words]) for o in _with(outcomes, "failed")]),
        _people("Repaired", [(name(o.student), o.repairs) for o in graded if o.repairs]),
    ]
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{_text(unit)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _with(outcomes: list[Outcome], status: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.status == status]


def _names(students: set[str], pseudonyms: bool) -> Callable[[str], str]:
    """Give a function that names a student; pseudonyms are numbers in an order drawn anew."""
    if not pseudonyms:
        return lambda student: student
    drawn = sorted(students)
    secrets.SystemRandom().shuffle(drawn)
    numbers = {student: f"student {n}" for n, student in enumerate(drawn, 1)}
    return lambda student: numbers.get(student, "?")


def _code(path: Path) -> dict[str, str]:
    """Give the code cells of a notebook: the question, or the cell's number -> source."""
    cells = nbformat.read(path, as_version=4).cells
    return {_where(cell) or f"#{n}": cell.source for n, cell in enumerate(cells) if _is_code(cell)}


def _is_code(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool(cell["source"].strip())


def _where(cell: Mapping[str, Any]) -> str:
    """Name the question that a cell answers, or ""."""
    marked = cell["metadata"].get("nbgrader", {})
    anchor = ANCHOR.search(cell["source"])
    if anchor or not marked.get("solution"):
        return anchor[1] if anchor else ""
    return re.sub(r"^(\d\d)-(\w+)-answer$", r"\1.\2", marked["grade_id"])


def _texts(outcome: Outcome, given: Mapping[str, str]) -> Iterator[Text]:
    """Give the code that a student wrote, without what everybody was given."""
    cells = json.loads(outcome.notebook)["cells"] if outcome.notebook else []
    for cell in cells:
        source = cell["source"] = "".join(cell["source"])
        if _is_code(cell) and source not in given.values():
            where = _where(cell) or "another cell"
            yield Text(outcome.student, where, source, shape(source, given.values()))


def _overlaps(
    texts: list[Text],
    coursedir: CourseDirectory,
    unit: str,
    given: Mapping[str, str],
    name: Callable[[str], str],
    class_size: int,
) -> str:
    """Show code that was hardly written twice: two of each group side by side."""
    folder = Path(coursedir.format_path(coursedir.source_directory, ".", unit))
    solution = _code(folder / f"{unit}.ipynb") if (folder / f"{unit}.ipynb").is_file() else {}
    known = [*published()] if texts else []
    known += [
        Text("", f"the solution of {where}", source, shape(source, given.values()))
        for where, source in solution.items()
        if not where.startswith("#")
    ]
    found = groups([*texts, *known], class_size)
    parts = []
    for group in found[:MOST_OVERLAPS]:
        who = [f"{name(text.owner)}, {text.where}" if text.owner else text.where for text in group]
        left, right = next(
            ((a, b) for a, b in combinations(group, 2) if a.owner != b.owner), group[:2]
        )
        heads = "".join(f"<th>{_text(who[group.index(text)])}</th>" for text in (left, right))
        codes = "".join(f"<td><pre>{code}</pre></td>" for code in _marked(left, right))
        more = [who[n] for n, text in enumerate(group) if text not in (left, right)]
        also = f"<p>Also: {_text('; '.join(more))}.</p>" if more else ""
        common = left.shape.common(right.shape)
        parts.append(
            f"<p><b>{100 * left.shape.share(right.shape):.0f} % the same, about {common} tokens</b>"
            f"</p><table class='two'><tr>{heads}</tr><tr>{codes}</tr></table>{also}"
        )
    if not parts:
        return ""
    left_out = len(found) - MOST_OVERLAPS
    rest = f"<p>And {left_out} more, shorter ones.</p>" if left_out > 0 else ""
    said = "Names that a writer chooses are not compared. Short answers are often written twice."
    return f"<h2>Overlaps ({len(found)})</h2><p>{said}</p>{''.join(parts)}{rest}"


def _marked(left: Text, right: Text) -> list[str]:
    """Give both sources as HTML, with the lines marked that differ in nothing but names."""
    lines = [text.source.splitlines() for text in (left, right)]
    bare = [[WORD.sub("v", line).strip() for line in text] for text in lines]
    same: list[set[int]] = [set(), set()]
    for match in SequenceMatcher(None, *bare, autojunk=False).get_matching_blocks():
        same[0] |= set(range(match.a, match.a + match.size))
        same[1] |= set(range(match.b, match.b + match.size))
    return [
        "\n".join(
            f"<mark>{_text(line)}</mark>" if n in marked and line.strip() else _text(line)
            for n, line in enumerate(text)
        )
        for text, marked in zip(lines, same, strict=True)
    ]


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
