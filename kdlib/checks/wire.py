"""A record as text: how what `observe` wrote leaves the process that ran the student's code.

The text is JSON in which a tensor is its type, its shape and its bytes. Nothing in it is code, and
`decode` takes nothing on trust: the sender may be a student's program.
"""

from __future__ import annotations

import base64
import builtins
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from kdlib.checks.exercise import Exercise
from kdlib.checks.observe import observe
from kdlib.checks.record import Observation, Opaque, Status
from kdlib.checks.shadow import shadowed

MIME = "application/vnd.kdlib.record+json"
MOST_TEXT = 16_000_000  # characters of a whole record
MOST_STRING = 2_000
MOST_DEPTH = 12
MOST_ITEMS = 20_000
MOST_DIMENSIONS = 16
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    )
}
STATUSES = frozenset(get_args(Status))


class BadRecord(ValueError):
    """The text is not a record of this exercise; the message says why."""


def publish(exercise_id: str, answer: Callable[[], Any], seed: int) -> None:
    """Observe an answer and display its record; the grader runs this where the student's code runs.

    Args:
        exercise_id: such as "02.kd_loss".
        answer: gives the student's function when called, so that a missing name is noticed here.
        seed: of the probe inputs.
    """
    from IPython.display import display

    from kdlib.checks import catalogue

    exercise = catalogue()[exercise_id]
    try:
        found = answer()
    except NameError:
        text = json.dumps({"problem": "missing"})
    else:
        try:
            names = shadowed(found)
            text = encode(observe(exercise, found, seed), names) if callable(found) else ""
            problem, kind = "not callable", type(found).__name__
        except Exception as error:  # a result that observing itself stumbles over
            text, problem, kind = "", "not observed", type(error).__name__
        text = text or json.dumps({"problem": problem, "type": kind[:MOST_STRING]})
    display({MIME: text, "text/plain": ""}, raw=True)


def encode(record: Mapping[str, Observation], names: Sequence[str] = ()) -> str:
    """Write a record as text; what is too large or too deep becomes `Opaque`.

    Args:
        record: what `observe` wrote down.
        names: built-ins that the answer uses and that the notebook has replaced.
    """
    probes = {}
    for name, seen in record.items():
        probes[name] = {
            "status": seen.status,
            "value": _pack(seen.value),
            "gradients": {k: _pack(v) for k, v in seen.gradients.items()},
            "changed": [str(name)[:MOST_STRING] for name in seen.changed],
            "left": [str(trace)[:MOST_STRING] for trace in seen.left],
            "steady": bool(seen.steady),
            "echoes": bool(seen.echoes),
            "error": str(seen.error)[:MOST_STRING],
            "error_type": str(seen.error_type)[:MOST_STRING],
            "where": str(seen.where)[:MOST_STRING],
            "seconds": float(seen.seconds),
        }
    return json.dumps({"probes": probes, "shadowed": list(names)})


def shadowed_in(text: Any) -> list[str]:
    """Read off a record which built-ins the notebook has replaced; nothing when it is none."""
    try:
        names = json.loads(text)["shadowed"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    known = set(dir(builtins))
    listed = names if isinstance(names, list) else []
    return [name for name in listed[:20] if isinstance(name, str) and name in known]


def decode(exercise: Exercise, text: Any) -> dict[str, Observation] | str:
    """Read a record of `exercise`.

    Args:
        exercise: whose probes the record has to have, each once.
        text: what `publish` displayed, or whatever was sent in its place.

    Returns:
        The record, or "missing", "not callable: TYPE" or "not observed: ERROR" when there is none.

    Raises:
        BadRecord: it is anything else.
    """
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        raise BadRecord("the record is no text, or too long")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord("the record is not JSON") from error
    data = _dict(data)
    if "problem" in data:
        problem, kind = _string(data["problem"]), _string(data.get("type", ""))
        return f"{problem}: {kind}" if kind else problem
    probes = _dict(data.get("probes"))
    if set(probes) != {probe.name for probe in exercise.probes}:
        raise BadRecord("the record's probes are not those of the exercise")
    budget = [MOST_ITEMS]
    return {p.name: _observation(_dict(probes[p.name]), budget) for p in exercise.probes}


def _observation(data: dict, budget: list[int]) -> Observation:
    if data.get("status") not in STATUSES:
        raise BadRecord("an observation has no known status")
    if not all(type(data.get(key)) is bool for key in ("steady", "echoes")):
        raise BadRecord("'steady' or 'echoes' is neither true nor false")
    gradients = {_string(k): _unpack(v, budget) for k, v in _dict(data.get("gradients")).items()}
    if not all(g is None or isinstance(g, Tensor) for g in gradients.values()):
        raise BadRecord("a gradient is no tensor")
    traces = {key: data.get(key) for key in ("changed", "left")}
    for key, value in traces.items():
        if not isinstance(value, list) or len(value) > 100:
            raise BadRecord(f"{key!r} is no short list")
    seconds = data.get("seconds")
    return Observation(
        status=data["status"],
        value=_unpack(data.get("value"), budget),
        gradients=gradients,
        changed=[_string(name) for name in traces["changed"]],
        left=[_string(trace) for trace in traces["left"]],
        steady=data["steady"],
        echoes=data["echoes"],
        error=_string(data.get("error")),
        error_type=_string(data.get("error_type")),
        where=_string(data.get("where")),
        seconds=seconds if isinstance(seconds, float) and math.isfinite(seconds) else 0.0,
    )


def _pack(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if depth > MOST_DEPTH:
        return _opaque("nested")
    if isinstance(value, Tensor):
        return _pack_tensor(value)
    if isinstance(value, int | float):
        exact = int if isinstance(value, int) else float
        small = exact is float or -(2**63) <= int(value) < 2**63
        return exact(value) if small else _opaque("very large int")
    if isinstance(value, str):
        return str(value) if len(value) <= MOST_STRING else _opaque("long string")
    if isinstance(value, list):
        return [_pack(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {"dict": {k: _pack(item, depth + 1) for k, item in value.items()}}
    return _opaque(getattr(value, "type_name", type(value).__name__))


def _pack_tensor(value: Tensor) -> Any:
    name = str(value.dtype).removeprefix("torch.")
    if name not in DTYPES or value.layout != torch.strided or value.is_meta:
        return _opaque(f"{name} tensor")
    if value.numel() * value.element_size() > MOST_TEXT // 4:
        return _opaque(f"tensor of shape {tuple(value.shape)}")
    base = torch._C.TensorBase  # whatever the answer made of torch.Tensor's methods
    flat = base.reshape(base.contiguous(base.cpu(base.detach(value))), (-1,))
    raw = base.numpy(base.view(flat, torch.uint8)).tobytes() if flat.numel() else b""
    return {"tensor": name, "shape": list(value.shape), "data": base64.b64encode(raw).decode()}


def _opaque(type_name: str) -> dict:
    return {"opaque": str(type_name)[:MOST_STRING]}


def _unpack(data: Any, budget: list[int], depth: int = 0) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > MOST_DEPTH + 1:
        raise BadRecord("the record holds too many things, or too deeply nested ones")
    if data is None or isinstance(data, bool | float):
        return data
    if isinstance(data, int):
        return data if -(2**63) <= data < 2**63 else Opaque("very large int")
    if isinstance(data, str):
        return _string(data)
    if isinstance(data, list):
        return [_unpack(item, budget, depth + 1) for item in data]
    if "tensor" in data:
        return _unpack_tensor(data)
    if "dict" in data:
        items = _dict(data["dict"]).items()
        return {_string(key): _unpack(item, budget, depth + 1) for key, item in items}
    return Opaque(_string(data.get("opaque")))


def _unpack_tensor(data: dict) -> Tensor:
    dtype, shape = DTYPES.get(_string(data["tensor"])), data.get("shape")
    if dtype is None or not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        raise BadRecord("a tensor has no known type or shape")
    if not all(type(n) is int and 0 <= n <= MOST_TEXT for n in shape):
        raise BadRecord("a tensor's shape is not made of sizes")
    try:
        raw = base64.b64decode(data.get("data"), validate=True)
    except (TypeError, ValueError) as error:
        raise BadRecord("a tensor's bytes are not base64") from error
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise BadRecord("a tensor's bytes do not fit its shape")
    if not raw:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:
        raw = bytes(map(bool, raw))
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)


def _dict(data: Any) -> dict:
    if not isinstance(data, dict):
        raise BadRecord("a part of the record is no mapping")
    return data


def _string(data: Any) -> str:
    if not isinstance(data, str) or len(data) > MOST_STRING:
        raise BadRecord("a part of the record is no short string")
    return data.encode("utf-8", "replace").decode("utf-8")  # half a character is none
