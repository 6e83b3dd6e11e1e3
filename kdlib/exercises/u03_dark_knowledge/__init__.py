"""Exercises of unit 03: dark knowledge (Hinton, Vinyals, Dean 2015, arXiv 1503.02531)."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u03_dark_knowledge.class_bias import CLASS_BIAS
from kdlib.exercises.u03_dark_knowledge.ensemble import ENSEMBLE_SOFT_TARGETS
from kdlib.exercises.u03_dark_knowledge.label_smoothing import LABEL_SMOOTHING_LOSS
from kdlib.exercises.u03_dark_knowledge.specialists import MERGE_SPECIALISTS
from kdlib.exercises.u03_dark_knowledge.transfer import TRANSFER_LOSS

EXERCISES: tuple[Exercise, ...] = (
    CLASS_BIAS,
    TRANSFER_LOSS,
    ENSEMBLE_SOFT_TARGETS,
    MERGE_SPECIALISTS,
    LABEL_SMOOTHING_LOSS,
)
