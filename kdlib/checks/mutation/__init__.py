"""Mutation of answers: operators over syntax trees, the mutants they make, and their words.

`course/mutate.py` asks with them whether a check lets a small mistake pass; a check asks which
mutant of the reference does what the student's answer does.
"""

from __future__ import annotations

from kdlib.checks.mutation import algebra, flow, reductions, tensors
from kdlib.checks.mutation.mutants import Mutant, Target
from kdlib.checks.mutation.teaching import FAMILIES, variants
from kdlib.checks.mutation.trees import OPERATORS, Operator

__all__ = ["FAMILIES", "OPERATORS", "Mutant", "Operator", "Target", "variants"]

# by how often students need them; within a family as written, since sorting is stable
OPERATORS.sort(key=lambda operator: [*FAMILIES].index(operator.family))
_MODULES = (algebra, flow, reductions, tensors)
