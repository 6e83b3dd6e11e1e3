"""Exercises of unit 05: structure in the logits (DKD, DIST, logit standardisation)."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u05_logit_structure.dist_loss import DIST_LOSS
from kdlib.exercises.u05_logit_structure.dkd_loss import DKD_LOSS
from kdlib.exercises.u05_logit_structure.split_kd import SPLIT_KD
from kdlib.exercises.u05_logit_structure.standardise import STANDARDISE
from kdlib.exercises.u05_logit_structure.standardised_kd import STANDARDISED_KD

EXERCISES: tuple[Exercise, ...] = (
    SPLIT_KD,
    DKD_LOSS,
    STANDARDISE,
    STANDARDISED_KD,
    DIST_LOSS,
)
