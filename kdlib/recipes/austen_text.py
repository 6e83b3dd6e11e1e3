"""Make `austen.txt.xz` from Debian's r-cran-janeaustenr (the novels are in the public domain).

Without R: the package's `Rdata.rdb` holds compressed R objects one after another, each string in it
is a type byte, a length and its bytes. Line breaks inside paragraphs become spaces.
"""

from __future__ import annotations

import argparse
import lzma
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from kdlib.assets import FOLDER, register

DEBIAN = Path("/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")


def objects(raw: bytes) -> Iterator[bytes]:
    """Unpack the objects of an R database file: a length (4 bytes), then a zlib stream."""
    at = 0
    while at < len(raw):
        (size,) = struct.unpack(">I", raw[at : at + 4])
        stream = zlib.decompressobj()
        found = stream.decompress(raw[at + 4 :])
        if len(found) != size:
            raise ValueError(f"an object of {size} bytes unpacks to {len(found)}")
        yield found
        at = len(raw) - len(stream.unused_data)


def lines(found: bytes) -> Iterator[str]:
    """Find the strings of a serialised R object: flags that end in type 9, length, bytes."""
    at = 0
    for match in re.finditer(rb"\x00[\x00-\xff][\x00-\xff]\x09(.{4})", found, re.DOTALL):
        (size,) = struct.unpack(">i", match.group(1))
        if match.start() >= at and 0 <= size < 300:
            at = match.end() + size
            yield found[match.end() : at].decode("utf-8")


def clean(text: str) -> str:
    """Put each paragraph on one line and squeeze spaces."""
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
    return re.sub(r"\n{2,}", "\n", re.sub(" +", " ", text))


def main() -> None:
    """Write the file and its manifest entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=DEBIAN, help="Rdata.rdb, or plain text")
    file = parser.parse_args().file
    if file.suffix == ".rdb":
        texts = ["\n".join(lines(found)) for found in objects(file.read_bytes())]
        text = "\n\n".join(t for t in texts if len(t) > 100_000)
    else:
        text = file.read_text(encoding="utf-8")
    name = "austen.txt.xz"
    (FOLDER / name).write_bytes(
        lzma.compress(clean(text).encode("utf-8"), preset=9 | lzma.PRESET_EXTREME)
    )
    register(
        name,
        licence="public domain",
        source="six novels of Jane Austen, from Debian's r-cran-janeaustenr 1.0.0 (package: MIT)",
        recipe="python -m kdlib.recipes.austen_text",
    )
    print(f"{name}: {(FOLDER / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
