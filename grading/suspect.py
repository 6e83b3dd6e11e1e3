"""What in a submission a person should look at; it changes no points."""

from __future__ import annotations

import re

SIGNS = {
    "reaches into the checks": r"\b(?:_?sealed|SealedError|kdlib\.checks|wire\.|catalogue)\b",
    "looks for a reference": r"\binspect\.getsource|__closure__|__wrapped__|cell_contents|\bgc\.",
    "changes IPython": r"(?:input|ast)_transformers|get_ipython\(\)\.(?!run_line_magic|system)",
    "acts on the process": r"\bos\.(?:_exit|kill|fork)|\bsignal\.|\batexit\b|\bsys\.exit",
    "runs other programs": r"\bsubprocess\b|\bos\.(?:system|popen)|^\s*!|^\s*%%(?:bash|sh)",
    "patches modules": r"\bctypes\b|\bsys\.(?:modules|_getframe)\b|\bsetattr\(\s*(?:torch|kdlib)",
    "looks at the grader's surroundings": r"/proc/|gradebook|nbgrader|\bos\.environ",
    "uses the network": r"\bsocket\b|\brequests\.|urllib|\bhttp\.client",
    "displays records": r"record\+json|publish_display_data|display_pub",
}
PATTERNS = [(re.compile(pattern, re.MULTILINE), words) for words, pattern in SIGNS.items()]


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
