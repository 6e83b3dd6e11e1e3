"""Records as text: what is observed arrives unchanged, and nothing else is taken for a record."""

from __future__ import annotations

import base64
import json
import math

import pytest
import torch

from grading.judging import judged
from kdlib.checks import catalogue, wire
from kdlib.checks.judge import judge
from kdlib.checks.observe import observe
from kdlib.checks.record import Observation, Opaque, same

ACCURACY = catalogue()["00.accuracy"]
SEEN = {
    "status": "returned",
    "value": None,
    "gradients": {},
    "changed": [],
    "left": [],
    "steady": True,
    "echoes": False,
    "error": "",
    "error_type": "",
    "where": "",
    "seconds": 0.1,
}


def record(**more: object) -> str:
    """A well-formed record of 00.accuracy, but for what is given."""
    return json.dumps({"probes": {p.name: SEEN | more for p in ACCURACY.probes}})


@pytest.mark.parametrize("exercise", catalogue().values(), ids=lambda e: e.id)
def test_the_verdict_is_the_same_over_the_wire(exercise) -> None:
    for answer in (exercise.reference, exercise.mistakes[0].answer):
        seen = observe(exercise, answer, 3, is_reference=answer is exercise.reference)
        sent, problem = judged(exercise, wire.encode(seen), 3)
        assert problem == ""
        assert sent == judge(exercise, seen, 3)


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(2, 3).to(torch.bfloat16),
        torch.tensor([True, False]),
        torch.arange(6).reshape(2, 3).t(),
        torch.empty(0, 3),
        torch.tensor(float("nan")),
        float("inf"),
        -(2**63),
        "text",
        [1, [2.5, None]],
        {"a": {"b": [torch.ones(2)]}},
    ],
)
def test_plain_data_arrives_as_it_was(value) -> None:
    seen = {p.name: Observation(value=value) for p in ACCURACY.probes}
    arrived = wire.decode(ACCURACY, wire.encode(seen))
    for name, observation in arrived.items():
        have, want = observation.fields(), seen[name].fields()
        assert have.keys() == want.keys()
        assert all(same(have[key], want[key], rtol=0.0, atol=0.0) for key in have)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(5_000_000), torch.ones(2, dtype=torch.complex64), 2**64, "x" * 3000, Opaque("X")],
)
def test_what_is_too_much_arrives_as_a_name(value) -> None:
    seen = {p.name: Observation(value=value) for p in ACCURACY.probes}
    text = wire.encode(seen)
    assert len(text) < 10_000
    assert all(type(o.value) is Opaque for o in wire.decode(ACCURACY, text).values())


def tensor(**more: object) -> dict:
    data = base64.b64encode(b"\0" * 8).decode()
    return {"tensor": "float32", "shape": [2], "data": data} | more


nested: list = []
for _ in range(50):
    nested = [nested]

BAD = {
    "no text": b"{}",
    "not JSON": "{",
    "a list": "[]",
    "nothing": "{}",
    "too long": " " * (wire.MOST_TEXT + 1),
    "too deep for JSON": "[" * 200_000,
    "other probes": json.dumps({"probes": {"x": SEEN}}),
    "a probe too few": json.dumps({"probes": {ACCURACY.probes[0].name: SEEN}}),
    "an unknown status": record(status="perfect"),
    "steady is a number": record(steady=1),
    "a gradient is a string": record(gradients={"x": "y"}),
    "changed is a string": record(changed="logits"),
    "left is a string": record(left="logits"),
    "echoes is a number": record(echoes=1),
    "an error of megabytes": record(error="x" * 10_000),
    "nested": record(value=nested),
    "very many numbers": record(value=list(range(wire.MOST_ITEMS + 1))),
    "an unknown type": record(value=tensor(tensor="object")),
    "too few bytes": record(value=tensor(shape=[3])),
    "a huge shape": record(value=tensor(shape=[1 << 40, 1 << 40])),
    "a negative shape": record(value=tensor(shape=[-2])),
    "many dimensions": record(value=tensor(shape=[1] * 100)),
    "no base64": record(value=tensor(data="?")),
    "bytes are a list": record(value=tensor(data=[0])),
}


@pytest.mark.parametrize("name", BAD)
def test_everything_else_is_refused(name: str) -> None:
    with pytest.raises(wire.BadRecord):
        wire.decode(ACCURACY, BAD[name])
    verdict, problem = judged(ACCURACY, BAD[name], 0)
    assert verdict.points == 0
    assert "bad record" in problem


@pytest.mark.parametrize("value", [math.nan, 2**70, -1e308, tensor(), {"dict": {}}, {"what": 1}])
def test_odd_values_are_judged_and_earn_nothing_for_the_value(value) -> None:
    verdict, _ = judged(ACCURACY, record(value=value), 0)
    assert verdict.points < 1


def test_true_in_a_tensor_is_one() -> None:
    data = base64.b64encode(bytes([2, 0])).decode()
    text = record(value=tensor(tensor="bool", data=data))
    (first, *_) = wire.decode(ACCURACY, text).values()
    assert first.value.tolist() == [True, False]
