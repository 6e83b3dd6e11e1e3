"""What in a submission a person should look at; it changes no points."""

from __future__ import annotations

import re

SIGNS = (
    (r"\b(?:_sealed|sealed|SealedError|kdlib\.checks|wire\.|catalogue)\b", "reaches into the checks"),
    (r"\binspect\.getsource|__closure__|__wrapped__|cell_contents|\bgc\.get_", "looks for a reference"),
    (r"input_transformers|ast_transformers|\bget_ipython\(\)\.(?!run_line_magic|system)", "changes IPython"),
    (r"\bos\._exit|\bos\.kill|\bos\.fork|\bsignal\.|\batexit\b|\bsys\.exit", "acts on the process"),
    (r"\bsubprocess\b|\bos\.system|\bos\.popen|^\s*!|^\s*%%(?:bash|sh)", "runs other programs"),
    (r"\bctypes\b|\bsys\.modules\b|\bsetattr\(\s*(?:torch|kdlib|builtins)|\bsys\._getframe", "patches modules"),
    (r"/proc/|gradebook|nbgrader|\bos\.environ", "looks at the grader's surroundings"),
    (r"\bsocket\b|\brequests\.|urllib|\bhttp\.client", "uses the network"),
    (r"record\+json|publish_display_data|display_pub", "displays records"),
)  # fmt: skip
PATTERNS = [(re.compile(pattern, re.MULTILINE), words) for pattern, words in SIGNS]


def suspicions(sources: dict[str, str]) -> list[str]:
    """Say what is unusual in the student's own code.

    Args:
        sources: where it stands, in words -> the code, without what was released.

    Returns:
        Lines such as "02.kd_loss: patches modules (ctypes)".
    """
    found = []
    for where, source in sources.items():
        for pattern, words in PATTERNS:
            if match := pattern.search(source):
                found.append(f"{where}: {words} ({match[0].strip()[:40]})")
    return found
