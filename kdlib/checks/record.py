"""What observing an answer leaves behind: plain data, never code.

A record maps each probe's name to an `Observation`. It holds tensors, numbers, strings, lists and
dicts and nothing else, so that it can be carried from the process that ran the student's code to
another one that judges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Status = Literal[
    "returned", "not implemented", "raised", "timeout", "sealed", "forbidden", "skipped"
]


@dataclass(frozen=True)
class Opaque:
    """Stands for an object that is no plain data; keeps only the name of its type."""

    type_name: str


@dataclass
class Observation:
    """What one probe showed.

    Attributes:
        status: how the call ended.
        value: what it returned, as plain data.
        gradients: of the result's sum, for each argument that the probe asks about; None where none
            arrives.
        changed: arguments whose tensors hold other numbers than before.
        left: further traces on arguments and on the process, as `footprint` names them.
        steady: whether a second call with the same inputs gave the same; looked at on one probe.
        echoes: whether a call with other inputs gave the very same; looked at on one probe.
        error: the text of the error.
        error_type: its type's name.
        where: the student's own line that led to it.
        seconds: how long the call took.
    """

    status: Status = "returned"
    value: Any = None
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    steady: bool = True
    echoes: bool = False
    error: str = ""
    error_type: str = ""
    where: str = ""
    seconds: float = 0.0

    def fields(self) -> dict[str, Any]:
        """What came back, by a readable name: the parts of the result, and its gradients."""
        if self.status != "returned":
            return {"status": f"{self.status} {self.error_type}".strip()}
        found = dict(flatten(self.value, ""))
        found.update({f"gradient of {name}": g for name, g in self.gradients.items()})
        return found

    def traces(self) -> dict[str, Any]:
        """What the call left behind, by a readable name; empty for a tidy answer."""
        found: dict[str, Any] = {f"changed {name}": True for name in self.changed}
        found.update({f"left {trace}": True for trace in self.left})
        if not self.steady:
            found["steady"] = False
        if self.echoes:
            found["echoes"] = True
        return found

    def everything(self) -> dict[str, Any]:
        """All that a right and a wrong answer may differ in."""
        return self.fields() | (self.traces() if self.status == "returned" else {})


Record = Mapping[str, Observation]


def plain(value: Any) -> Any:
    """Copy `value` into plain data; whatever is none becomes `Opaque`.

    A number, string or tensor of a class of the answer's own is copied by Python's and torch's own
    means, so that nothing of it is left to be computed later.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    for base, copy in ((int, int.__int__), (float, float.__float__), (str, str.__str__)):
        if issubclass(kind, base):
            return copy(value)
    if issubclass(kind, Tensor):
        return _bare(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str.__str__(str(key)): plain(item) for key, item in value.items()}
    return Opaque(kind.__name__)


def _bare(value: Tensor) -> Tensor | Opaque:
    """Copy the numbers of a tensor; `Opaque` where what comes back is still not torch's own."""
    base = torch._C.TensorBase
    with torch._C.DisableTorchFunction():
        copy = base.clone(base.detach(value))
    return copy if type(copy) is Tensor else Opaque(type(value).__name__)


def flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Walk nested plain data and yield `(path, leaf)`; the path of a bare value is 'value'."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flatten(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from flatten(item, f"{path}[{index}]")
    else:
        yield path or "value", value


def as_tensor(value: Any) -> Tensor | None:
    """Give a number or tensor as a tensor, anything else as None."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool | int | float):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    return None


def same(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Say whether two leaves agree: tensors within tolerance (of their size), others exactly.

    A number counts as the zero-dimensional tensor of the same value, whatever its precision.
    """
    if not isinstance(a, Tensor) and not isinstance(b, Tensor) and type(a) is type(b) and a == b:
        return True
    x, y = as_tensor(a), as_tensor(b)
    if x is None or y is None:
        return type(a) is type(b) and a == b
    if x.shape != y.shape:
        return False
    if x.dtype == y.dtype and torch.equal(x, y):
        return True
    if x.is_complex() or y.is_complex():
        return False
    x, y = x.to(torch.float64), y.to(torch.float64)
    finite = y[y.isfinite()].abs()
    scale = finite.max().item() if finite.numel() else 0.0
    close = (x - y).abs() <= atol + rtol * scale
    return bool((close | (x == y) | (x.isnan() & y.isnan())).all())
