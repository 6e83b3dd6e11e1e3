"""Exercises of unit 01: entropy, cross-entropy, divergences."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u01_divergences.cross_entropy import SOFT_CROSS_ENTROPY
from kdlib.exercises.u01_divergences.jsd import JSD
from kdlib.exercises.u01_divergences.kl import KL
from kdlib.exercises.u01_divergences.log_softmax import LOG_SOFTMAX
from kdlib.exercises.u01_divergences.total_variation import TOTAL_VARIATION

EXERCISES: tuple[Exercise, ...] = (LOG_SOFTMAX, SOFT_CROSS_ENTROPY, KL, JSD, TOTAL_VARIATION)
