"""How good a network is, how faithful, how calibrated, and how sure we are of a difference."""

from kdlib.evaluation.accuracy import ModelSize, accuracy, model_size, nll, pass_at_k, predict
from kdlib.evaluation.calibration import ece, fit_temperature, reliability_bins
from kdlib.evaluation.fidelity import Fidelity, agreement, fidelity, predictive_kl
from kdlib.evaluation.intervals import Interval, paired_interval
from kdlib.evaluation.near_misses import near_misses
from kdlib.evaluation.text import bits_per_byte, text_bits_per_byte

__all__ = [
    "Fidelity",
    "Interval",
    "ModelSize",
    "accuracy",
    "agreement",
    "bits_per_byte",
    "ece",
    "fidelity",
    "fit_temperature",
    "model_size",
    "near_misses",
    "nll",
    "paired_interval",
    "pass_at_k",
    "predict",
    "predictive_kl",
    "reliability_bins",
    "text_bits_per_byte",
]
