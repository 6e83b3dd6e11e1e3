"""kdlib: the reference library and exercise checks of a hands-on course on knowledge distillation.

Importing it costs what importing torch costs; everything else is loaded where it is used.
"""

from __future__ import annotations

import torch as _torch  # noqa: F401  the one heavy import, made visible

from kdlib.checks import check

__version__ = "0.1.0"
__all__ = ["check"]
