"""Mutation testing of the checks: does a small mistake earn full marks?

Mutants of the reference and of each right answer (`tests/answers`) go through the exercise's
criteria with several seeds. A mutant that passes with all of them is a survivor: it is either
killed by a new probe or criterion, or listed as equivalent with its reason, in the `EQUIVALENT` of
`tests/answers/uNN.py`:

    EQUIVALENT = {"02.kd_loss": {"sign @ a + b => a - b": "b is zero here"}}

The key is the mutant's, as the tool prints it; `*` stands for anything. A key that fits no
survivor is refused.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import multiprocessing
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from course.markers import SourceError
from kdlib.checks import catalogue
from kdlib.checks.exercise import Evidence, Exercise
from kdlib.checks.judge import judge
from kdlib.checks.known import known
from kdlib.checks.mutation import Mutant, Target
from kdlib.checks.observe import observe, observe_probe
from kdlib.checks.record import Observation, Record, same

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "mutate"
SEEDS = (0, 1)
FRESH = (2, 3)  # where a survivor is compared with what it was made from


@dataclass
class Survivor:
    """A mutant with full marks.

    Attributes:
        of: the answer that it was made from.
        key: what it is listed under.
        before: the line that was changed.
        after: what stands there now.
        differs: the field of the record in which it differs from that answer, on fresh seeds;
            empty when it agrees bit for bit, which is no proof that it is equivalent.
    """

    of: str
    key: str
    before: str
    after: str
    differs: str = ""


@dataclass
class Report:
    """What mutation testing found out about one exercise."""

    exercise: str
    made: int = 0
    killed: int = 0
    lucky: int = 0
    survivors: list[Survivor] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        """Give the score in one line."""
        lucky = f" ({self.lucky} of them not by every seed)" if self.lucky else ""
        return (
            f"{self.exercise}: {self.made} mutants, {self.killed} killed{lucky}, "
            f"{len(self.survivors)} with full marks, {self.seconds:.1f} s"
        )


class OneByOne(Mapping[str, Observation]):
    """A record that runs a probe when somebody looks at it: the first failing criterion ends it."""

    def __init__(self, exercise: Exercise, answer: Callable, seed: int) -> None:
        self.exercise, self.answer, self.seed = exercise, answer, seed
        self.probes = {probe.name: probe for probe in exercise.probes}
        self.seen: dict[str, Observation] = {}

    def __getitem__(self, name: str) -> Observation:
        if name not in self.seen:
            first = name == self.exercise.probes[0].name  # the one that `observe` runs again
            self.seen[name] = observe_probe(
                self.exercise, self.probes[name], self.answer, self.seed, again=first
            )
        return self.seen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.probes)

    def __len__(self) -> int:
        return len(self.probes)


class Bench:
    """One exercise, ready to judge many answers quickly."""

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        # mutants of the reference may call what the reference calls
        self.free = replace(exercise, id=f"{exercise.id} (free)", seals=(), forbids=())
        self.probes = {probe.name: probe for probe in exercise.probes}
        self.expected = {seed: _expected(exercise, seed) for seed in SEEDS}
        self.constants = _constants(exercise, self.expected[SEEDS[0]])

    def passes(self, answer: Callable, seed: int, sealed: bool = True) -> bool:
        """Say whether an answer earns full marks, with as few probes as possible."""
        place = self.exercise if sealed else self.free
        record = OneByOne(place, answer, seed)
        evidence = Evidence(record, self.expected[seed], self.probes)
        if any(criterion.test(evidence) for criterion in self.exercise.criteria):
            return False
        return judge(self.exercise, dict(record), seed).passed

    def records(self, answer: Callable, sealed: bool = True) -> list[Record]:
        """Observe an answer on fresh seeds."""
        return [observe(self.exercise if sealed else self.free, answer, seed) for seed in FRESH]


def _expected(exercise: Exercise, seed: int) -> Record:
    """Give the reference's record, on the first probe called as often as an answer.

    That other inputs give the same share of hits, say, happens to right answers, too.
    """
    about, first = known(exercise, seed), exercise.probes[0]
    return {probe.name: about.reference(probe, probe is first) for probe in exercise.probes}


def differs(one: list[Record], two: list[Record]) -> str:
    """Name the first field in which records differ in any bit, or nothing."""
    for first, second in zip(one, two, strict=True):
        for name in first:
            a, b = first[name].fields(), second[name].fields()
            for key in a | b:
                if key not in a or key not in b or not same(a[key], b[key], 0.0, 0.0):
                    return f"{key} on {name!r}"
            if first[name].error != second[name].error:
                return f"the message on {name!r}"
    return ""


def _constants(exercise: Exercise, expected: Record) -> frozenset[str] | None:
    """Name the arguments whose gradient is looked at and has to be none."""
    seen = [pair for o in expected.values() for pair in o.gradients.items()]
    if not seen and not any(probe.run for probe in exercise.probes):
        return None
    return frozenset(n for n, g in seen if g is None) - {n for n, g in seen if g is not None}


def examine(exercise: Exercise, answers: list[Callable]) -> Report:
    """Run every mutant of the reference and of the right answers through the exercise's criteria.

    Args:
        exercise: that is tested.
        answers: right ones, besides the reference.

    Returns:
        The report; what is listed as equivalent counts as a survivor still.
    """
    start, report, bench = time.perf_counter(), Report(exercise.id), Bench(exercise)
    done: set[str] = set()
    for answer in (exercise.reference, *answers):
        sealed = answer is not exercise.reference
        name = answer.__name__ if sealed else "reference"
        try:
            target = Target(answer, exercise.reference, bench.constants, frozenset(done))
            original = target.original()
            if not all(bench.passes(original, seed, sealed) for seed in SEEDS):
                raise ValueError("does not pass its check when it is compiled on its own")
        except Exception as error:
            report.problems.append(f"{exercise.id}: {name}: {error}")
            continue
        done |= set(target.helpers)
        records = bench.records(original, sealed)
        for mutant in target.mutants():
            report.made += 1
            passed = _passed(bench, mutant, sealed)
            if passed < len(SEEDS):
                report.killed, report.lucky = report.killed + 1, report.lucky + bool(passed)
                continue
            where = differs(records, bench.records(mutant.answer(), sealed))
            report.survivors.append(Survivor(name, mutant.key, mutant.before, mutant.after, where))
        if not bench.passes(original, SEEDS[0], sealed):
            report.problems.append(f"{exercise.id}: {name}: a mutant changed what others rely on")
    report.seconds = time.perf_counter() - start
    return report


def _passed(bench: Bench, mutant: Mutant, sealed: bool) -> int:
    """Count the seeds, in their order, with which a mutant earns full marks."""
    try:
        answer = mutant.answer()
    except Exception:
        return 0
    for count, seed in enumerate(SEEDS):
        if not bench.passes(answer, seed, sealed):
            return count
    return len(SEEDS)


def shown(survivors: list[Survivor]) -> str:
    """Show survivors of one key as a diff."""
    first = survivors[0]
    differs = dict.fromkeys(s.differs for s in survivors if s.differs)
    where = f"differs in {', '.join(differs)}" if differs else "bit for bit as the original"
    of = dict.fromkeys(s.of for s in survivors)
    lines = [f"{first.key.split(' @ ')[0]} · {', '.join(of)} · {where}"]
    lines += [f"  - {first.before}"] if first.before else []
    lines += [f"  + {first.after}"] if first.after else []
    return "\n".join([*lines, f"  {first.key!r}"])


# the list of equivalent mutants


def unexplained(report: Report, equivalent: Mapping[str, str]) -> tuple[list[Survivor], list[str]]:
    """Split off what is listed as equivalent.

    Returns:
        The survivors that no key fits, and the keys that fit no survivor.
    """
    keys = {key: re.compile(re.escape(key).replace(r"\*", ".*"), re.DOTALL) for key in equivalent}
    open_, used = [], set()
    for survivor in report.survivors:
        fitting = {key for key, pattern in keys.items() if pattern.fullmatch(survivor.key)}
        used |= fitting
        if not fitting:
            open_.append(survivor)
    return open_, [key for key in equivalent if key not in used]


# the cache


def fingerprint(exercise: Exercise, answers: list[Callable]) -> str:
    """Hash all that a report depends on: the exercise, the engine, this tool, and the answers.

    Of kdlib, whole modules with what they import; of the right answers, the definitions alone, so
    that another exercise's answers may change.
    """
    ours = [(n, m) for n, m in sys.modules.items() if n.startswith("kdlib.")]
    homes = [n for n, m in ours if any(value is exercise for value in vars(m).values())]
    home = max(homes, key=len)  # the unit holds it, too, under a shorter name
    parts = [f"{sys.version} {torch.__version__} {SEEDS} {FRESH}"]
    parts += sorted(map(_source, _closure({__name__, exercise.reference.__module__, home})))
    parts += [source for answer in answers for source in _needed(answer)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def _source(module: str) -> str:
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


def _closure(modules: set[str]) -> set[str]:
    """Add every module of ours that is imported, and so on."""
    found: set[str] = set()
    while new := modules - found:
        found |= new
        modules = {name for module in new for name in _imports(module)}
    return found


@functools.cache
def _imports(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {
        name for name in names if name.startswith(("kdlib.", "course.")) and name in sys.modules
    }


def _needed(answer: Callable) -> list[str]:
    """Give the definitions that an answer is made of, and the rest of its module but the lists."""
    tree = ast.parse(inspect.getsource(sys.modules[answer.__module__]))
    named = {node.name: node for node in tree.body if hasattr(node, "name")}
    todo, found = {answer.__qualname__.split(".")[0]}, set()
    while new := todo & named.keys() - found:
        found |= new
        walked = (part for name in new for part in ast.walk(named[name]))
        todo = {part.id for part in walked if isinstance(part, ast.Name)}
    lists = ("ANSWERS", "EQUIVALENT")
    rest = [n for n in tree.body if not hasattr(n, "name") and not ast.unparse(n).startswith(lists)]
    return [ast.unparse(node) for node in (*rest, *(named[name] for name in sorted(found)))]


# all of it


def right_answers(unit: str) -> tuple[dict[str, list[Callable]], dict[str, dict[str, str]]]:
    """Give the right answers of a unit, and what it lists as equivalent, by exercise."""
    module = importlib.import_module(f"tests.answers.u{unit}")
    return module.ANSWERS, getattr(module, "EQUIVALENT", {})


def report_on(exercise_id: str, cached: bool = True) -> Report:
    """Examine one exercise, or read what was found when all of its parts were the same."""
    exercise = catalogue()[exercise_id]
    answers = right_answers(exercise_id[:2])[0][exercise_id]
    key, file = fingerprint(exercise, answers), CACHE / f"{exercise_id}.json"
    if cached and file.exists():
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored.pop("key") == key:
            survivors = [Survivor(**fields) for fields in stored.pop("survivors")]
            return Report(**stored, survivors=survivors)
    report = examine(exercise, answers)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"key": key, **asdict(report)}, indent=1), encoding="utf-8")
    return report


def mutate(wanted: list[str], jobs: int = 2, cached: bool = True) -> bool:
    """Examine units (`02`) or exercises (`02.kd_loss`), all by default, and print what is found.

    Returns:
        True when each survivor is explained and nothing else is amiss.
    """
    ids = [i for i in catalogue() if not wanted or {i, i[:2]} & set(wanted)]
    if unknown := [w for w in wanted if not any(w in (i, i[:2]) for i in ids)]:
        raise SourceError(f"there is no unit or exercise {unknown[0]!r}")
    reports, left = [], 0
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _quietly) as pool:
        for report in pool.map(functools.partial(report_on, cached=cached), ids):
            equivalent = right_answers(report.exercise[:2])[1].get(report.exercise, {})
            survivors, stale = unexplained(report, equivalent)
            problems = [*report.problems, *(f"no survivor fits {key!r}" for key in stale)]
            print(f"{report}: {len(report.survivors) - len(survivors)} of them equivalent")
            for key in dict.fromkeys(s.key for s in survivors):
                print(f"\n{shown([s for s in survivors if s.key == key])}")
            for problem in problems:
                print(f"\n{problem}")
            print(flush=True)
            reports.append(report)
            left += len(survivors) + len(problems)
    made, killed = sum(r.made for r in reports), sum(r.killed for r in reports)
    print(f"{len(ids)} exercises: {made} mutants, {killed} killed, {left} to be explained")
    return not left


def _quietly() -> None:
    """Keep a worker to one core, and from writing into the list."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
