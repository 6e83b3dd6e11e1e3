"""Exercises of unit 06: features (arXiv 1412.6550, 1612.03928, 2203.14001; Yim et al. 2017)."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u06_features.attention_loss import ATTENTION_LOSS
from kdlib.exercises.u06_features.capture_features import CAPTURE_FEATURES
from kdlib.exercises.u06_features.fsp_matrix import FSP_MATRIX
from kdlib.exercises.u06_features.hint_loss import HINT_LOSS
from kdlib.exercises.u06_features.hint_trainer import HINT_TRAINER
from kdlib.exercises.u06_features.simkd_student import SIMKD_STUDENT

EXERCISES: tuple[Exercise, ...] = (
    CAPTURE_FEATURES,
    HINT_LOSS,
    HINT_TRAINER,
    ATTENTION_LOSS,
    FSP_MATRIX,
    SIMKD_STUDENT,
)
