"""Exercises of unit 02: soft targets (Hinton, Vinyals, Dean 2015, arXiv 1503.02531)."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u02_soft_targets.distill_step import DISTILL_STEP
from kdlib.exercises.u02_soft_targets.kd_gradient import KD_GRADIENT
from kdlib.exercises.u02_soft_targets.kd_loss import KD_LOSS
from kdlib.exercises.u02_soft_targets.logit_matching import LOGIT_MATCHING
from kdlib.exercises.u02_soft_targets.near_misses import NEAR_MISSES
from kdlib.exercises.u02_soft_targets.teacher_cache import TEACHER_CACHE

EXERCISES: tuple[Exercise, ...] = (
    NEAR_MISSES,
    KD_LOSS,
    KD_GRADIENT,
    LOGIT_MATCHING,
    DISTILL_STEP,
    TEACHER_CACHE,
)
