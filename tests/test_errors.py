"""Every refusal names the argument, what was given and what was expected."""

import numpy as np
import pytest
import torch

from kdlib import errors

ROWS = torch.zeros(2, 3)


@pytest.mark.parametrize("value", [1, 0.01, 1e4, np.float32(2), np.float64(2), np.int64(2)])
def test_temperatures_of_any_number_type_pass(value):
    errors.require_temperature(value)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), np.float32(0)])
def test_temperatures_that_are_not_positive_are_refused(value):
    with pytest.raises(ValueError, match=f"temperature must be positive and finite, got {value}"):
        errors.require_temperature(value)


@pytest.mark.parametrize("value", ["4", None, True, torch.tensor(4.0)])
def test_temperatures_that_are_no_numbers_are_refused(value):
    with pytest.raises(
        TypeError, match=f"temperature must be a number, got {type(value).__name__}"
    ):
        errors.require_temperature(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_fractions(value):
    errors.require_fraction(0, "alpha")
    errors.require_fraction(1, "alpha")
    with pytest.raises(ValueError, match=f"alpha must lie between 0 and 1, got {value}"):
        errors.require_fraction(value, "alpha")


@pytest.mark.parametrize(
    ("logits", "kind", "words"),
    [
        ([1.0], TypeError, "logits must be a tensor, got list"),
        (torch.zeros(2, 3, dtype=torch.int64), ValueError, "floating point, got torch.int64"),
        (torch.tensor(1.0), ValueError, r"shape \(\.\.\., C\) with C >= 1, got \(\)"),
        (torch.zeros(2, 0), ValueError, r"got \(2, 0\)"),
        (torch.tensor([1.0, float("nan"), float("inf")]), ValueError, "got 2 NaN or infinite"),
    ],
)
def test_logits(logits, kind, words):
    errors.require_finite(torch.zeros(0, 3), "logits")  # no row is no error here
    with pytest.raises(kind, match=words):
        errors.require_finite(logits, "logits")


def test_shapes():
    errors.require_same_shape(ROWS, ROWS, ("a", "b"))
    with pytest.raises(ValueError, match=r"a and b must .* got \(2, 3\) and \(3, 2\)"):
        errors.require_same_shape(ROWS, ROWS.T, ("a", "b"))
    with pytest.raises(TypeError, match="b must be a tensor, got NoneType"):
        errors.require_same_shape(ROWS, None, ("a", "b"))


@pytest.mark.parametrize(
    ("probs", "words"),
    [
        (torch.tensor([[1.5, -0.5]]), "p must not be negative, got -0.5"),
        (torch.tensor([[0.5, 0.5], [0.5, 0.4]]), "off by 0.1"),
        (torch.tensor([[0.0, -1.0]]).log_softmax(-1), "p must not be negative"),
    ],
)
def test_probabilities(probs, words):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        errors.require_probability(torch.randn(9, 50).softmax(-1).to(dtype), "p")
    with pytest.raises(ValueError, match=words):
        errors.require_probability(probs, "p")


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.tensor([0.0, 1.0]), "dtype int64, got torch.float32"),
        (torch.tensor([0, 1, 2]), r"shape \(2,\) to fit logits of shape \(2, 3\), got \(3,\)"),
        (torch.tensor([0, 3]), r"lie in 0\.\.2, got 0\.\.3"),
        (torch.tensor([-100, 1]), r"lie in 0\.\.2, got -100\.\.1"),
    ],
)
def test_targets(targets, words):
    errors.require_targets(torch.tensor([0, 2]), ROWS)
    errors.require_targets(torch.zeros(4, 5, dtype=torch.int64), torch.zeros(4, 5, 3))
    with pytest.raises(ValueError, match=words):
        errors.require_targets(targets, ROWS)
    with pytest.raises(ValueError, match="at least one row"):
        errors.require_targets(targets.long()[:0], ROWS[:0])
