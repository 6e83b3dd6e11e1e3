"""Mutation of answers: operators over syntax trees, the mutants they make, and their words.

`course/mutate.py` asks with them whether a check lets a small mistake pass; a check asks which
mutant of the reference does what the student's answer does.
"""

from __future__ import annotations

from kdlib.checks.mutation import algebra, flow, reductions, tensors
from kdlib.checks.mutation.mutants import Mutant, Target
from kdlib.checks.mutation.suspects import free, one_by_one, suspects, words
from kdlib.checks.mutation.trees import OPERATORS, Operator

__all__ = ["OPERATORS", "Mutant", "Operator", "Target", "free", "one_by_one", "suspects", "words"]

_ORDER = {
    family: place
    for place, family in enumerate(
        (
            *("reduction", "temperature", "exchange", "gradient", "mask", "sign", "left out"),
            *("broadcast", "mode", "numerics", "argument", "off by one", "condition"),
        )
    )
}
# sorted is stable: within a family, as written
OPERATORS.sort(key=lambda operator: _ORDER.get(operator.family, len(_ORDER)))
_MODULES = (algebra, flow, reductions, tensors)
