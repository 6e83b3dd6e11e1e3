"""Exercises of unit 00: one tiny function to learn the loop, then accuracy, NLL and calibration."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u00_start.accuracy import ACCURACY
from kdlib.exercises.u00_start.calibration import FIT_TEMPERATURE
from kdlib.exercises.u00_start.nll import NLL
from kdlib.exercises.u00_start.softmax import SOFTMAX

EXERCISES: tuple[Exercise, ...] = (SOFTMAX, ACCURACY, NLL, FIT_TEMPERATURE)
