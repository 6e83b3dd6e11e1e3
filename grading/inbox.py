"""What was handed in, as it comes: files, folders and archives, and whose each notebook is.

Nothing is ever unpacked to disk: an archive's names are labels here, never paths.
"""

from __future__ import annotations

import re
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from grading.reading import LARGEST_FILE, Refused, read_file

MOST_MEMBERS = 5_000
LARGEST_ARCHIVE = 2 << 30  # bytes of all members together, unpacked
DEEPEST = 2  # archives in archives
IGNORED = re.compile(r"(^|/)(\.(?!\.?/)|__MACOSX/)")
COPIES = re.compile(
    r"^(?:(?:copy of|kopie von|copia de|copie de)\s+)+|(?:\s*\(\d+\)|\s*- copy|-copy\d*|-\d+)+$",
    re.IGNORECASE,
)
PLATFORMS = {  # as they name what a teacher downloads
    "moodle": re.compile(
        r"(?P<who>[^/]+?)_(?P<number>\d+)_assignsubmission_[a-z]+_?/?(?P<file>[^/]*)"
    ),
    "canvas": re.compile(
        r"(?P<who>[^\W_A-Z][^\W_A-Z.\-]*?)(?:_LATE)?_(?P<number>\d+)_\d+_(?P<file>[^/]+)"
    ),
}
PERSON = re.compile(r"(?P<who>[^/]+?)_(?P<file>\d\d_[a-z][^/]*)")  # as people do
UNIT = re.compile(r"\d\d_[a-z0-9_]+")


class Guess(NamedTuple):
    """What a file's name and the folders it lies in tell.

    Attributes:
        who: the student, or "".
        unit: or "".
        number: that the learning platform gave the student, or "".
        platform: "moodle", "canvas" or "".
        name: of the student, as it stands there.
        other: another name that stands there and may be somebody else's, or "".
        conflict: whether the platform's own names contradict each other.
    """

    who: str = ""
    unit: str = ""
    number: str = ""
    platform: str = ""
    name: str = ""
    other: str = ""
    conflict: bool = False


NOTHING = Guess()


@dataclass(frozen=True)
class Found:
    """A notebook that was handed in, or what stood in its place.

    Attributes:
        label: where it was, for people to read.
        who: the student, as far as the name tells, or "".
        unit: as far as the name tells, or "".
        content: its bytes.
        refused: why there are none, or "".
        guess: all that the names tell.
    """

    label: str
    who: str = ""
    unit: str = ""
    content: bytes = b""
    refused: str = ""
    guess: Guess = NOTHING


def find(path: Path) -> Iterator[Found]:
    """Find the notebooks in a file, a folder or an archive."""
    if path.is_symlink():
        yield Found(str(path), refused="This is a link.")
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            inner = file.relative_to(path).as_posix()
            if IGNORED.search(inner) or (file.is_dir() and not file.is_symlink()):
                continue
            yield from _file(file, inner)
    elif path.exists():
        yield from _file(path, path.name)
    else:
        yield Found(str(path), refused="There is no such file or folder.")


def _file(path: Path, label: str) -> Iterator[Found]:
    if path.suffix.lower() not in (".ipynb", ".zip"):
        return
    try:
        content = read_file(path)
    except Refused as reason:
        yield _found(label, refused=str(reason))
        return
    if path.suffix.lower() == ".zip":
        yield from _archive(content, label, 1)
    else:
        yield _found(label, content)


def _archive(content: bytes, label: str, depth: int) -> Iterator[Found]:
    """Look into an archive, which may be made to do harm."""
    try:
        archive = zipfile.ZipFile(BytesIO(content))
        members = [m for m in archive.infolist() if not m.is_dir()]
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        yield _found(label, refused=f"The archive is damaged: {error}.")
        return
    if len(members) > MOST_MEMBERS:
        words = f"The archive holds {len(members)} files; at most {MOST_MEMBERS} are taken."
        yield _found(label, refused=words)
        return
    left = LARGEST_ARCHIVE
    several = sum(member.filename.lower().endswith(".ipynb") for member in members) > 1
    for member in members:
        name = member.filename.replace("\\", "/")
        kind = PurePosixPath(name).suffix.lower()
        if IGNORED.search(name) or kind not in (".ipynb", ".zip"):
            continue
        inner = f"{label.removesuffix('.zip')}/{name}"
        try:
            with archive.open(member) as file:
                data = file.read(min(LARGEST_FILE, left) + 1)
        except Exception as error:  # encrypted, damaged, of an unknown method
            yield _found(inner, refused=f"It cannot be unpacked: {error}.")
            continue
        left -= len(data)
        if len(data) > LARGEST_FILE or left < 0:
            yield _found(inner, refused="Unpacked, it is far too large for a notebook.")
            return
        if kind == ".ipynb":
            yield _found(inner, data, hint=name if several else inner)
        elif depth < DEEPEST:
            yield from _archive(data, inner, depth + 1)
        else:
            yield _found(inner, refused="It lies in an archive in an archive in an archive.")


def _found(label: str, content: bytes = b"", refused: str = "", hint: str = "") -> Found:
    """Say whose a notebook is; an archive's own name tells nothing when it holds several."""
    told = guess(hint or label)
    if told.conflict:
        refused = refused or (
            f"Its folder says {told.who}, its own name says {told.other}. Whose is it? Take it in "
            "by itself, with --student."
        )
    return Found(label, told.who, told.unit, content, refused, told)


def people(path: Path) -> set[str]:
    """Give the students whom a learning platform's names in a file, folder or archive tell of."""
    labels = [path.name]
    if path.is_dir() and not path.is_symlink():
        labels = [file.relative_to(path).as_posix() for file in path.rglob("*")]
    elif path.suffix.lower() == ".zip" and path.is_file() and not path.is_symlink():
        try:
            with zipfile.ZipFile(path) as archive:
                labels = archive.namelist()[:MOST_MEMBERS]
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
            labels = []
    told = (guess(label.replace("\\", "/")) for label in labels)
    return {found.who for found in told if found.platform and found.who}


def guess(label: str) -> Guess:
    """Tell who, which unit and which number, from a file's name and the folders it lies in.

    In what a learning platform packed, its own name says whose a file is, and nothing else does.
    """
    parts = [part for part in label.split("/") if part not in ("", ".", "..")]
    stem = re.sub(r"\.(?:ipynb|zip)$", "", parts[-1] if parts else "", flags=re.IGNORECASE)
    clean = COPIES.sub("", stem).strip()
    folders = parts[:-1]
    unit = next((p for p in (clean, *reversed(folders)) if UNIT.fullmatch(p)), "")
    packed = [
        (platform, match, text)
        for text in (*folders, clean)
        for platform, pattern in PLATFORMS.items()
        if (match := pattern.fullmatch(text))
    ]
    if packed:
        platform, match, text = packed[0]
        file = COPIES.sub("", match["file"]).strip() or clean
        unit = unit or (UNIT.search(file) or UNIT.search(clean) or [""])[0]
        own = PERSON.fullmatch(file if text is clean else clean)
        claims = [student_id(m["who"]) for _, m, _ in packed[1:]]
        claims += [student_id(own["who"])] if own and not packed[1:] else []
        who = student_id(match["who"])
        other = next((claim for claim in claims if claim != who), "")
        conflict = any(m["number"] != match["number"] for _, m, _ in packed[1:])
        return Guess(who, unit, match["number"], platform, match["who"], other, conflict)
    folder = next((f for f in reversed(folders) if not UNIT.fullmatch(f)), "")
    if match := PERSON.fullmatch(clean):
        unit = unit or (UNIT.search(match["file"]) or [""])[0]
        return Guess(student_id(match["who"]), unit, other=student_id(folder))
    return Guess(student_id(folder), unit)


def student_id(name: str) -> str:
    """Make a name into one that a folder and the gradebook can have: "Ada Müller" -> Ada-Muller."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._@]+", "-", plain).strip("-._")[:64]
