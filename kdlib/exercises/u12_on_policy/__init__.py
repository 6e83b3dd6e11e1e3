"""Exercises of unit 12: divergences over tokens, and learning from the student's own text."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u12_on_policy.jsd import JSD
from kdlib.exercises.u12_on_policy.on_policy_batch import ON_POLICY_BATCH
from kdlib.exercises.u12_on_policy.per_token import PER_TOKEN_LOSS
from kdlib.exercises.u12_on_policy.skew import SKEW_KL
from kdlib.exercises.u12_on_policy.surrogate import REVERSE_KL_SURROGATE
from kdlib.exercises.u12_on_policy.taid import TAID_LOSS

EXERCISES: tuple[Exercise, ...] = (
    JSD,
    SKEW_KL,
    TAID_LOSS,
    ON_POLICY_BATCH,
    REVERSE_KL_SURROGATE,
    PER_TOKEN_LOSS,
)
