"""Exercises of unit 13: reasoning traces, what verifies them, and what learns from them."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u13_reasoning_traces.pass_at_k import PASS_AT_K
from kdlib.exercises.u13_reasoning_traces.rejection_sample import REJECTION_SAMPLE
from kdlib.exercises.u13_reasoning_traces.sft_loss import SFT_LOSS
from kdlib.exercises.u13_reasoning_traces.step_by_step_loss import STEP_BY_STEP_LOSS
from kdlib.exercises.u13_reasoning_traces.verify import VERIFY

EXERCISES: tuple[Exercise, ...] = (
    SFT_LOSS,
    VERIFY,
    REJECTION_SAMPLE,
    PASS_AT_K,
    STEP_BY_STEP_LOSS,
)
