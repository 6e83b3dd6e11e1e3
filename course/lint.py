"""What every unit must have; all problems at once, each with file and line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from course.markers import ANNOUNCE, MARKERS, Cell, SourceError, contracts, hints, read

MAX_SOLUTION_LINES = 15
MAX_CELL_LINES = 20
MACHINE_PATH = re.compile(r"(?<![\w.:/~])(/(home|root|Users|tmp|var|mnt)/\w|[A-Z]:\\\\?Users)")
SHOW = "plots.show"
FIGURE = re.compile(r"plots\.(figure|image_row|image_grid)|plt\.(figure|subplots)")
UNASKED = "no side effects"  # asked of every exercise, once, in unit 00
IGNORE = "nbval-ignore-output"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
# Measured on an instruction set with vectors and one without: the mean loss of a fixed network in
# float32 moves by 1e-7 of itself, a loss after 200 updates by 4e-7, after 400 by 4e-3. So five
# digits hold where nothing is trained, and two where something is.
MAX_DIGITS = 5
MAX_FLOATS = 8
FLOAT = re.compile(r"(?<!arXiv )(?<!arXiv:)(?<![\w.,])\d+\.\d+(?:e[+-]?\d+)?(?![\w.])")
LISTED = re.compile(r"[\[(][^\[\]()]*[\])]")
OBJECT = re.compile(r"\b(?:[A-Z]\w*\(\w+=|tensor\(|array\()")
# What such a name holds are whole numbers: to compare them exactly is right.
WHOLE = re.compile(r"\b(y|targets?|labels?|ids|tokens?|lengths?|rows?|argmax|len)\b")
REDUCTIONS = {"sum", "mean", "count_nonzero", "nonzero"}
# marker -> the kind of its cell and what else it may carry
ALLOWED = {
    "": (("code", "markdown"), ("tags",)),
    "exercise": (("code",), ()),
    "check": (("code",), ()),
    "hints": (("markdown",), ()),
    "expect": (("markdown",), ()),
    "written": (("markdown",), ("points", "minutes")),
    "rubric": (("markdown",), ()),
}


def lint(path: Path, catalogue: dict) -> list[str]:
    """Give every problem of one unit, as `file:line: what is wrong`, in the order of the file."""
    try:
        cells = read(path)
    except SourceError as error:
        return [str(error)]
    found = [problem for rule in RULES for problem in rule(path.stem, cells, catalogue)]
    found += [
        (1, f"{extra.name} in solutions/{path.stem}/ would be copied into the release")
        for extra in sorted(path.with_suffix("").glob("*"))
        if extra.name not in (f"{path.stem}.ipynb", ".ipynb_checkpoints")
    ]
    return [f"{path}:{line}: {what}" for line, what in sorted(set(found))]


Problems = Iterator[tuple[int, str]]


def _title(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    number = unit.split("_")[0]
    if not cells or not re.match(rf"# {number} · \S", cells[0].source):
        yield 1, f"the first cell must be markdown that starts with `# {number} · Title`"


def _markers(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    seen: dict[tuple[str, str], int] = {}
    for number, cell in enumerate(cells):
        kinds, others = ALLOWED[cell.marker]
        if cell.kind not in kinds:
            yield cell.line, f"a cell with {cell.marker}= must be a {kinds[0]} cell"
        known = {cell.marker, *others, "tags", "lines_to_next_cell"}
        known |= {"extras"} if number == 0 else set()
        for key in cell.metadata.keys() - known:
            yield cell.line, f"{key}= does not belong on this cell; markers are {MARKERS}"
        if cell.marker and (first := seen.setdefault((cell.marker, cell.id), cell.line)) != (
            cell.line
        ):
            yield cell.line, f"{cell.marker}={cell.id!r} is already on line {first}"


def _exercises(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    where = {(c.marker, c.id): c for c in cells if c.marker}
    number = unit.split("_")[0]
    named = {c.id: c.line for c in reversed(cells) if c.marker in MARKERS[:4]}
    for name, line in named.items():
        if name not in catalogue or not name.startswith(f"{number}."):
            yield line, f"kdlib.checks.catalogue() has no exercise {name!r} of unit {number}"
            continue
        if not catalogue[name].mistakes:
            yield line, f"{name} has no known mistakes"
        if not catalogue[name].points > 0:
            yield line, f"{name} has no points"
        missing = [marker for marker in MARKERS[:4] if (marker, name) not in where]
        for marker in missing:
            yield line, f"{name} has no cell with {marker}="
        if not {"exercise", "check"} & set(missing) and (
            where["exercise", name].line > where["check", name].line
        ):
            yield where["check", name].line, f"the check of {name} stands before the exercise"
    for name in catalogue:
        if name.startswith(f"{number}.") and name not in named:
            yield 1, f"the catalogue has {name}, but this unit does not"


def _cells(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    for cell in cells:
        expected = f'check("{cell.id}", {cell.id.split(".")[-1]})'
        if cell.marker == "check" and cell.source != expected:
            yield cell.line, f"a check cell must be exactly `{expected}`"
        if cell.marker == "hints" and not 2 <= len(hints(cell.source)) <= 3:
            yield cell.line, f"2 or 3 hints as bullets expected, got {len(hints(cell.source))}"
        if cell.marker == "exercise":
            yield from _solution(cell)
        elif cell.kind == "code" and (lines := _lines(cell)) > MAX_CELL_LINES:
            yield cell.line, f"a code cell of {lines} lines; at most {MAX_CELL_LINES}"
        if cell.marker and not cell.source.strip():
            yield cell.line, f"the cell with {cell.marker}={cell.id!r} is empty"
        for offset, text in enumerate(cell.source.splitlines(), 1):
            if MACHINE_PATH.search(text):
                yield cell.line + offset, "a path of somebody's machine"


def _clauses(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    """Each bullet of a contract is tested by a criterion, and each criterion is asked for."""
    for name, clauses in contracts(cells).items():
        if name not in catalogue or all(clause.criteria is None for clause in clauses):
            continue
        known = [criterion.name for criterion in catalogue[name].criteria]
        named = {c for clause in clauses for c in clause.criteria or ()}
        for clause in clauses:
            if clause.criteria is None:
                yield clause.line, f"{name}: no criterion is named for '{clause.text[:60]}'"
            for criterion in set(clause.criteria or ()) - {"-", *known}:
                yield clause.line, f"{name} has no criterion {criterion!r}; it has {known}"
        for criterion in set(known) - named - {UNASKED}:
            yield (
                clauses[0].line if clauses else 1,
                f"{name}: the criterion {criterion!r} tests what no bullet asks for",
            )


def clause_table(path: Path) -> list[str]:
    """Give the table of one unit, exercise by exercise: clause -> criteria."""
    lines = []
    for name, clauses in contracts(read(path)).items():
        lines += ["", name]
        lines += [
            line
            for clause in clauses
            for line in (f"  {clause.text}", f"      -> {'; '.join(clause.criteria or ('',))}")
        ]
    return lines


def _solution(cell: Cell) -> Problems:
    lines = [line.strip() for line in cell.source.splitlines()]
    if lines.count(BEGIN) != 1 or lines.count(END) != 1 or lines.index(BEGIN) > lines.index(END):
        yield cell.line, f"an answer cell needs one `{BEGIN}` and one `{END}`"
        return
    body = [line for line in lines[lines.index(BEGIN) + 1 : lines.index(END)] if line]
    if not 1 <= len(body) <= MAX_SOLUTION_LINES:
        yield (
            cell.line + lines.index(BEGIN) + 1,
            f"a solution of {len(body)} lines; 1 to {MAX_SOLUTION_LINES}",
        )


def _written(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    following = [*cells[1:], Cell("", "", {}, 0)]
    for cell, after in zip(cells, following, strict=True):
        if cell.marker == "written":
            if not cell.id.startswith(unit.split("_")[0] + ".") or cell.id in catalogue:
                yield cell.line, f"{cell.id!r} is not a new name of this unit"
            for key in ("points", "minutes"):
                if not isinstance(cell.metadata.get(key), int) or cell.metadata[key] < 1:
                    yield cell.line, f"{cell.id} needs {key}= with a whole number above 0"
            if (after.marker, after.id) != ("rubric", cell.id):
                yield cell.line, f'{cell.id} needs a cell with rubric="{cell.id}" right after it'
        if after.marker == "rubric" and (cell.marker, cell.id) != ("written", after.id):
            yield after.line, f"the rubric {after.id} does not follow its written answer"


def _announced(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    known = {c.id: c.line for c in cells if c.marker in ("exercise", "written")}
    said = {
        name: c.line for c in cells if c.kind == "markdown" for name in ANNOUNCE.findall(c.source)
    }
    for name in known.keys() - said.keys():
        yield known[name], f"no markdown cell announces {name} with {{{{{name}}}}}"
    for name in said.keys() - known.keys():
        yield said[name], f"{{{{{name}}}}} names no exercise or written answer of this unit"


def _compared(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    code = [c for c in cells if c.kind == "code"]
    ignored = [c for c in code if IGNORE in c.metadata.get("tags", [])]
    if 2 * len(ignored) > len(code):
        yield ignored[-1].line, f"{len(ignored)} of {len(code)} code cells are tagged {IGNORE}"


def _figures(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    for cell in cells:
        if cell.kind == "markdown" and re.search(r"!\[\s*\]\(", cell.source):
            yield cell.line, "a picture without alternative text"
        called = _calls(cell)
        made = [call for name, call in called if FIGURE.fullmatch(name)]
        shown = [call for name, call in called if name == SHOW]
        if len(made) > len(shown):
            yield cell.line, f"{len(made)} figures, of which {len(shown)} are shown by {SHOW}(alt)"
        for name, call in called:
            if name == "plt.show":
                yield cell.line + call.lineno, f"show a figure by {SHOW}(alt)"
            if name == SHOW and not _says_a_number(call):
                yield cell.line + call.lineno, "alternative text without a number of this run"


def _calls(cell: Cell) -> list[tuple[str, ast.Call]]:
    """Find the calls in a code cell, each with the name of what is called."""
    try:
        nodes = list(ast.walk(ast.parse(cell.source))) if cell.kind == "code" else []
    except SyntaxError:  # a magic
        return []
    return [(ast.unparse(node.func), node) for node in nodes if isinstance(node, ast.Call)]


def _says_a_number(call: ast.Call) -> bool:
    """Say whether a text holds a value that is put in, or a digit."""
    return any(
        isinstance(node, ast.Name)
        or (isinstance(node, ast.Constant) and re.search(r"\d", str(node.value)))
        for argument in call.args
        for node in ast.walk(argument)
    )


def _lines(cell: Cell) -> int:
    """Count the lines of a code cell, alternative texts left out."""
    texts = [call for name, call in _calls(cell) if name == SHOW]
    return len(cell.source.splitlines()) - sum(c.end_lineno - c.lineno for c in texts)


def _exact(unit: str, cells: list[Cell], catalogue: dict) -> Problems:
    """Refuse to show how many floats are exactly some number: the last bit decides it."""
    for cell in cells:
        skipped = cell.marker in ("exercise", "check") or IGNORE in cell.metadata.get("tags", [])
        if cell.kind != "code" or skipped:
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:  # a magic; the run will tell
            continue
        counted = {id(x) for call in filter(_reduces, ast.walk(tree)) for x in ast.walk(call)}
        for node in ast.walk(tree):
            if (number := _compared_exactly(node)) is None:
                continue
            if isinstance(number, float) or id(node) in counted:
                yield (
                    cell.line + node.lineno,
                    f"`{ast.unparse(node)}` counts floats that are exactly equal, which differs "
                    "from one processor to the next; use a threshold that rounding cannot reach",
                )


def _reduces(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return name in REDUCTIONS


def _compared_exactly(node: ast.AST) -> int | float | None:
    """Give the number that something is compared with by `==` or `!=`, if it may hold floats."""
    if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
        return None
    sides = (node.left, node.comparators[0])
    numbers = [x.value for x in sides if isinstance(x, ast.Constant)]
    numbers = [x for x in numbers if isinstance(x, (int, float)) and not isinstance(x, bool)]
    return numbers[0] if numbers and not WHOLE.search(ast.unparse(node)) else None


RULES = (
    _title,
    _markers,
    _exercises,
    _cells,
    _clauses,
    _written,
    _announced,
    _compared,
    _figures,
    _exact,
)


def fragile(output: str) -> str | None:
    """Say why a text cannot be the same on every processor; None if it can.

    A float has at most MAX_DIGITS significant digits, a list at most MAX_FLOATS floats, and no
    object shows its fields or a tensor its floats: those are printed rounded, one by one.
    """
    floats = FLOAT.findall(output)
    for number in floats:
        digits = number.partition("e")[0].replace(".", "").lstrip("0")
        if len(digits) > MAX_DIGITS:
            return f"{number}: more than {MAX_DIGITS} digits of a float"
    for listed in LISTED.findall(output):
        if len(FLOAT.findall(listed)) > MAX_FLOATS:
            return f"a list of more than {MAX_FLOATS} floats"
    if floats and (shown := OBJECT.search(output)):
        return f"the repr of an object with floats, {shown[0]}...)"
    return None


def fragile_outputs(unit: str, notebook: NotebookNode) -> list[str]:
    """Name the cells of an executed notebook that nbval compares and that cannot always agree."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code" or IGNORE in cell.metadata.get("tags", []):
            continue
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):  # nbval does not compare a figure's words
                continue
            text = output.get("text", "") or output.get("data", {}).get("text/plain", "")
            if why := fragile(text):
                found.append(f"{unit}: cell {cell.id} shows {why}; print what is robust")
    return found
