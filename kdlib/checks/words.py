"""What a check says about one observation: in the student's numbers, never the expected ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kdlib.checks.diagnosis import Student
from kdlib.checks.exercise import Probe
from kdlib.checks.known import Place
from kdlib.checks.record import Observation, Opaque, as_tensor, same


def show(value: Any) -> str:
    """Write a student's value briefly: a number, or the beginning of a tensor."""
    if isinstance(value, Opaque):
        return f"an object of type {value.type_name}"
    tensor = as_tensor(value)
    if tensor is None:
        return repr(value)
    if tensor.dim() == 0:
        return f"{tensor.item():.4g}" if tensor.is_floating_point() else str(tensor.item())
    row = tensor.reshape(-1)[:4]
    numbers = ", ".join(f"{x:.4g}" if tensor.is_floating_point() else f"{x}" for x in row.tolist())
    dots = ", ..." if tensor.numel() > 4 else ""
    return f"[{numbers}{dots}] of shape {tuple(tensor.shape)}"


def trouble(seen: Observation, probe: Probe) -> str | None:
    """Say why there is nothing to compare on this probe, or give None when there is."""
    at = f" ({seen.where})" if seen.where else ""
    match seen.status:
        case "not implemented":
            return "It still raises NotImplementedError, as the stub does."
        case "timeout":
            return (
                f"On {probe.about}, it was stopped after {seen.seconds:.2g} s. "
                "Is there a loop that never ends, or one over single elements?"
            )
        case "skipped":
            return "Not tried, because an earlier call had to be stopped."
        case "sealed":
            return f"{seen.error}."
        case "forbidden":
            return (
                f"It calls `{seen.error}`{at}, which this exercise asks you to build "
                "out of simpler operations."
            )
        case "raised":
            first = seen.error.splitlines()[0] if seen.error else "no message"
            return f"On {probe.about}, it stops with {seen.error_type}: {first}{at}."
    if seen.value is None:
        return f"On {probe.about}, it returns None. Is the `return` line missing?"
    return None


def explain(seen: Any, expected: Any, key: str, probe: Probe) -> str | None:
    """Say how one field of the student's observation is wrong, or give None when it is right."""
    what = "you return" if key == "value" else f"your {key} is"
    on = f"On {probe.about}, {what}"
    if isinstance(expected, str | bool) or expected is None:
        return None if same(seen, expected) else f"{on} {show(seen)}, which is not right."
    want = as_tensor(expected)
    if want is None:
        return None
    if seen is None:
        if key.startswith("gradient"):
            return (
                f"On {probe.about}, no {key} arrives. "
                "Does `detach`, `no_grad`, `item` or NumPy cut the graph?"
            )
        if key == "value":
            return f"On {probe.about}, you return several things; a single tensor is expected."
        return f"On {probe.about}, {key} is missing from what you return."
    have = as_tensor(seen)
    if have is None:
        return f"{on} {show(seen)}; a tensor is expected."
    if have.shape != want.shape:
        return f"{on} a tensor of shape {tuple(have.shape)}; expected is {tuple(want.shape)}."
    both = isinstance(seen, Tensor) and isinstance(expected, Tensor)
    if both and want.is_floating_point() and have.dtype != want.dtype:
        return f"{on} {have.dtype}; the inputs call for {want.dtype}."
    if same(have, want, atol=probe.atol):
        return None
    if have.isnan().any() and not want.isnan().any():
        return f"{on} NaN in {int(have.isnan().sum())} of {have.numel()} entries."
    if have.isinf().any() and not want.isinf().any():
        return f"{on} infinity in {int(have.isinf().sum())} of {have.numel()} entries."
    return f"{on} {show(seen)}. {_how(have.double(), want.double(), probe.atol)}"


def _how(have: Tensor, want: Tensor, atol: float) -> str:
    if have.dim() == 0:
        if have * want < 0:
            return "The sign is wrong."
        return "That is too large." if have > want else "That is too small."
    if same(have, -want):
        return "Every sign is wrong."
    tolerance = atol + 1e-5 * want[want.isfinite()].abs().max()
    wrong = (have - want).abs() > tolerance
    first = wrong.nonzero()[0].tolist()
    return f"{int(wrong.sum())} of {have.numel()} entries are off, the first at {first}."


def once(messages: list[str]) -> list[str]:
    """Say a thing once: what repeats an earlier message, or its error, is cut short."""
    said: set[str] = set()
    short = []
    for message in messages:
        on, stops, error = message.partition("it stops with ")
        if error and error in said:
            message = f"{on}{stops}the same error."
        elif message and message in said:
            message = "As above."
        said |= {message, error}
        short.append(message)
    return short


def factor(student: Student) -> tuple[str, set[Place]]:
    """Find one constant factor, made of the probes' named sizes, that turns right into wrong.

    Covers the mixtures that no single known mistake covers, such as a mean over classes together
    with a missing T^2.

    Returns:
        Words for it, and the departures that it explains: values and gradients. Without such a
        factor, empty ones.
    """
    exercise, record = student.known.exercise, student.record
    ratios: dict[str, float] = {}
    for probe in exercise.probes:
        ratio = _ratio(student, probe, "value") if probe.sizes else None
        if ratio is not None:
            ratios[probe.name] = ratio
    if len(ratios) < 2 or any(map(math.isnan, ratios.values())):
        return "", set()
    if all(abs(ratio - 1) < 1e-4 for ratio in ratios.values()):
        return "", set()
    sizes = {probe.name: probe.sizes for probe in exercise.probes if probe.name in ratios}
    exponents = _exponents(sizes, ratios)
    if exponents is None:
        return "", set()
    up = [_power(name, e) for name, e in exponents.items() if e > 0]
    down = [_power(name, -e) for name, e in exponents.items() if e < 0]
    words = ["multiplied by " + " and ".join(up)] if up else []
    words += ["divided by " + " and ".join(down)] if down else []
    explained = set()
    for probe in exercise.probes:
        for key in record[probe.name].fields():
            ratio = _ratio(student, probe, key)
            wanted = ratios.get(probe.name, ratio)
            if ratio is not None and abs(ratio - wanted) < 1e-4 * abs(wanted):
                explained.add((probe.name, key))
    return f"Your result is the right one {', and '.join(words)}.", explained & set(student.departs)


def _ratio(student: Student, probe: Probe, key: str) -> float | None:
    """Give the one number that turns the right field into the student's.

    NaN when there is no such number, None when the two cannot be compared.
    """
    have = as_tensor(student.record[probe.name].fields().get(key))
    want = as_tensor(student.known.reference(probe).fields().get(key))
    if have is None or want is None or have.shape != want.shape or have.is_complex():
        return None
    have, want = have.double(), want.double()
    solid = want.abs() > 1e-3 * want.abs().max() if want.numel() else want.bool()
    if not solid.any() or not have.isfinite().all() or not want.isfinite().all():
        return None
    ratio = have[solid] / want[solid]
    if (ratio.max() - ratio.min()).abs() > 1e-4 * ratio.abs().max():
        return math.nan
    return ratio.mean().item()


def _exponents(
    sizes: Mapping[str, Mapping[str, float]], ratios: Mapping[str, float]
) -> dict[str, int] | None:
    """Write the ratios as products of powers of the named sizes; small powers first."""
    names = sorted({name for named in sizes.values() for name in named})
    tries = itertools.product((-2, -1, 0, 1, 2), repeat=len(names))
    for exponents in sorted(tries, key=lambda e: sum(abs(x) for x in e)):
        guesses = (
            (math.prod(sizes[p].get(n, 1.0) ** e for n, e in zip(names, exponents, strict=True)), r)
            for p, r in ratios.items()
        )
        if all(abs(guess - ratio) < 1e-4 * abs(guess) for guess, ratio in guesses):
            return dict(zip(names, exponents, strict=True))
    return None


def _power(name: str, exponent: int) -> str:
    return name if exponent == 1 else f"{name} squared"
