"""How faithful a student is to its teacher."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kdlib.errors import require_same_shape
from kdlib.seal import reference

__all__ = ["Fidelity", "agreement", "fidelity", "predictive_kl"]


class Fidelity(NamedTuple):
    """How faithful a student is: share of equal predictions, and predictive KL in nats."""

    agreement: float
    predictive_kl: float


@reference("04.fidelity")
def fidelity(student_logits: Tensor, teacher_logits: Tensor) -> Fidelity:
    """Give both numbers of Stanton et al. 2021 (arXiv 2106.05945): agreement and predictive KL.

    A = mean_n [argmax q_n = argmax p_n],   D = mean_n KL(p_n || q_n)   at T = 1

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`.

    Raises:
        ValueError: shapes differ, or logits are not finite.
    """
    return Fidelity(
        agreement(student_logits, teacher_logits), predictive_kl(teacher_logits, student_logits)
    )


@reference("04.fidelity")
def agreement(student_logits: Tensor, teacher_logits: Tensor) -> float:
    """Share of rows on which both predict the same class (Stanton et al. 2021, arXiv 2106.05945).

    Args:
        student_logits: `(..., C)`.
        teacher_logits: `(..., C)`.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(student_logits, teacher_logits, ("student_logits", "teacher_logits"))
    return (student_logits.argmax(-1) == teacher_logits.argmax(-1)).double().mean().item()


@reference("04.fidelity")
def predictive_kl(teacher_logits: Tensor, student_logits: Tensor) -> float:
    """Mean KL(p || q) of the predictions at T = 1, in nats: the other half of fidelity.

    Args:
        teacher_logits: `(..., C)`.
        student_logits: `(..., C)`.

    Raises:
        ValueError: shapes differ, or logits are not finite.
    """
    from kdlib.losses import kl_divergence

    return kl_divergence(teacher_logits.double(), student_logits.double()).mean().item()
