"""Exercises of unit 04: did it really distil? Four measurements and a museum of six bugs."""

from kdlib.checks.exercise import Exercise
from kdlib.exercises.u04_trust.ece import ECE
from kdlib.exercises.u04_trust.exhibit_1 import EXHIBIT_1
from kdlib.exercises.u04_trust.exhibit_2 import EXHIBIT_2
from kdlib.exercises.u04_trust.exhibit_3 import EXHIBIT_3
from kdlib.exercises.u04_trust.exhibit_4 import EXHIBIT_4
from kdlib.exercises.u04_trust.exhibit_5 import EXHIBIT_5
from kdlib.exercises.u04_trust.exhibit_6 import EXHIBIT_6
from kdlib.exercises.u04_trust.fidelity import FIDELITY
from kdlib.exercises.u04_trust.mixup_step import MIXUP_STEP
from kdlib.exercises.u04_trust.paired_interval import PAIRED_INTERVAL

EXERCISES: tuple[Exercise, ...] = (
    FIDELITY,
    ECE,
    PAIRED_INTERVAL,
    MIXUP_STEP,
    EXHIBIT_1,
    EXHIBIT_2,
    EXHIBIT_3,
    EXHIBIT_4,
    EXHIBIT_5,
    EXHIBIT_6,
)
