"""Sealed is sealed in every thread and context, and what an answer returns is copied there."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kdlib.checks import catalogue, verdict_of
from kdlib.checks.record import Opaque, plain
from kdlib.evaluation import accuracy
from kdlib.seal import SealedError, sealed

LOGITS, TARGETS = torch.eye(3), torch.arange(3)


def test_in_a_pool_an_empty_context_and_a_thread() -> None:
    with ThreadPoolExecutor(1) as pool, sealed("00.accuracy"):
        with pytest.raises(SealedError):
            pool.submit(accuracy, LOGITS, TARGETS).result()
        with pytest.raises(SealedError):
            contextvars.Context().run(accuracy, LOGITS, TARGETS)
        caught = []

        def call() -> None:
            try:
                accuracy(LOGITS, TARGETS)
            except SealedError as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert len(caught) == 1
    assert accuracy(LOGITS, TARGETS) == 1


def test_seals_in_seals_are_lifted_one_by_one() -> None:
    with sealed("00.accuracy"):
        with sealed("00.accuracy", "00.nll"):
            pass
        with pytest.raises(SealedError):
            accuracy(LOGITS, TARGETS)
    assert accuracy(LOGITS, TARGETS) == 1


class LazyNumber(float):
    def __float__(self) -> float:
        raise AssertionError("computed later")

    __int__ = __repr__ = __float__


class LazyTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise AssertionError("computed later")


class Wrapper(torch.Tensor):
    """Holds no numbers; every operation is answered by Python."""

    @staticmethod
    def __new__(cls):
        return torch.Tensor._make_wrapper_subclass(cls, (2,), dtype=torch.float32)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return Wrapper()


class Text(str):
    def __str__(self) -> str:
        raise AssertionError("computed later")


@pytest.mark.parametrize(
    ("value", "copy"),
    [
        (LazyNumber(0.5), 0.5),
        (Text("x"), "x"),
        (True, True),
        ([LazyNumber(1.0), (Text("y"),)], [1.0, ["y"]]),
        ({"k": LazyNumber(2.0)}, {"k": 2.0}),
        (Wrapper(), Opaque("Wrapper")),
        (len, Opaque("builtin_function_or_method")),
    ],
    ids=["float", "str", "bool", "list", "dict", "wrapper", "function"],
)
def test_nothing_is_left_to_be_computed_later(value, copy) -> None:
    found = plain(value)
    assert found == copy
    assert type(found) is type(copy)


def test_a_tensor_of_the_answers_own_class_becomes_torchs() -> None:
    numbers = torch.tensor([1.0, 2.0])
    found = plain(torch.Tensor._make_subclass(LazyTensor, numbers))
    assert type(found) is torch.Tensor
    assert found.tolist() == [1.0, 2.0]
    parameter = plain(torch.nn.Parameter(numbers))
    assert type(parameter) is torch.Tensor
    assert not parameter.requires_grad


def test_a_shadowed_built_in_is_named() -> None:
    """As after `from torch import *`."""
    session = {"torch": torch, "sum": torch.sum, "max": max}
    code = """
def accuracy(logits, targets):
    hits = sum(int(row.argmax()) == int(t) for row, t in zip(logits, targets))
    return hits / max(1, len(targets))
"""
    exec(code, session)
    exercise = catalogue()["00.accuracy"]
    verdict = verdict_of(exercise, session["accuracy"], 0)
    assert not verdict.passed
    assert verdict.diagnoses[0].name == "a name of Python's own is taken (sum)"
    del session["sum"]
    assert verdict_of(exercise, session["accuracy"], 0).passed
