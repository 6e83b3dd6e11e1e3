"""Exercises of unit 11: sequences (Kim and Rush 2016, arXiv 1606.07947)."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u11_sequences.accumulation_step import ACCUMULATION_STEP
from kdlib.exercises.u11_sequences.beam_search import BEAM_SEARCH
from kdlib.exercises.u11_sequences.bits_per_byte import BITS_PER_BYTE
from kdlib.exercises.u11_sequences.sequence_level_kd import SEQUENCE_LEVEL_KD
from kdlib.exercises.u11_sequences.shift_and_mask import SHIFT_AND_MASK
from kdlib.exercises.u11_sequences.word_level_kd import WORD_LEVEL_KD

EXERCISES: tuple[Exercise, ...] = (
    SHIFT_AND_MASK,
    BITS_PER_BYTE,
    WORD_LEVEL_KD,
    ACCUMULATION_STEP,
    BEAM_SEARCH,
    SEQUENCE_LEVEL_KD,
)
