"""Exercises of unit 16: a real language model, cut shorter, taught from a cache, and sped up."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u16_real_llm.accept_draft import ACCEPT_DRAFT
from kdlib.exercises.u16_real_llm.acceptance import ACCEPTANCE
from kdlib.exercises.u16_real_llm.block_influence import BLOCK_INFLUENCE
from kdlib.exercises.u16_real_llm.cached_kd import CACHED_KD
from kdlib.exercises.u16_real_llm.keep_layers import KEEP_LAYERS

EXERCISES: tuple[Exercise, ...] = (
    BLOCK_INFLUENCE,
    KEEP_LAYERS,
    CACHED_KD,
    ACCEPT_DRAFT,
    ACCEPTANCE,
)
