"""Exercises of unit 07: relations (arXiv 1907.09682, 1904.05068, 1910.10699)."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u07_relations.contrastive_loss import CONTRASTIVE_LOSS
from kdlib.exercises.u07_relations.contrastive_trainer import CONTRASTIVE_TRAINER
from kdlib.exercises.u07_relations.nce_loss import NCE_LOSS
from kdlib.exercises.u07_relations.rkd_angle_loss import RKD_ANGLE_LOSS
from kdlib.exercises.u07_relations.rkd_distance_loss import RKD_DISTANCE_LOSS
from kdlib.exercises.u07_relations.sp_loss import SP_LOSS

EXERCISES: tuple[Exercise, ...] = (
    SP_LOSS,
    RKD_DISTANCE_LOSS,
    RKD_ANGLE_LOSS,
    CONTRASTIVE_LOSS,
    CONTRASTIVE_TRAINER,
    NCE_LOSS,
)
