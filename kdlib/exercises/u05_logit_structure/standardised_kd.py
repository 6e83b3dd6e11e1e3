"""05.standardised_kd."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kdlib.checks.criteria import gradients, law, matches, side, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.exercises.u05_logit_structure.inputs import batch, kl
from kdlib.losses import structure as logits


def _rescaled(teacher: float, student: float = 1.0):
    """Build the plain batch with one network's logits stretched."""

    def make(g: torch.Generator) -> Arguments:
        arguments = batch(temperature=3.0, alpha=1.0)(g)
        arguments["teacher_logits"] = teacher * arguments["teacher_logits"]
        arguments["student_logits"] = student * arguments["student_logits"]
        return arguments

    return make


def _one_flat_row(g: torch.Generator) -> Arguments:
    """Let the student find all classes of one image equally probable."""
    arguments = batch(temperature=3.0, alpha=1.0)(g)
    arguments["student_logits"][2] = 1.5
    return arguments


def _blind_to_scale(evidence: Evidence) -> str | None:
    plain = float(evidence.value("soft"))
    for probe, who in (("teacher x4", "teacher's"), ("student x4", "student's")):
        seen = float(evidence.value(probe))
        if abs(seen - plain) > 1e-4 * max(1.0, abs(plain)):
            return (
                f"With the {who} logits multiplied by 4 your soft term goes from {plain:.4g} to "
                f"{seen:.4g}. Nothing should change."
            )
    return None


def _depends_on_T(evidence: Evidence) -> str | None:
    cool, warm = float(evidence.value("soft")), float(evidence.value("warm"))
    if abs(cool / 9 - warm / 25) > 1e-6 and abs(cool - warm) > 1e-6:
        return None
    return (
        f"At T = 3 you return {cool:.4g} and at T = 5 {warm:.4g}, which is the same divergence "
        "both times, up to the factor T squared. Where does your T get lost?"
    )


def _std(z, **how):
    return (z - z.mean(-1, keepdim=True)) / (z.std(-1, keepdim=True, **how) + 1e-7)


def _div(t, s):
    return kl(t.log_softmax(-1), s.log_softmax(-1)).mean()


def _wrong(soft, hard=None, mix=None, detach=True):
    """Assemble a wrong loss from `soft(z, v, T)`, another `hard(z)` or another `mix`."""
    hard = hard or (lambda z: z)
    mix = mix or (lambda s, h, T, a: a * T**2 * s + (1 - a) * h)

    def loss(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
        teacher = teacher_logits.detach() if detach else teacher_logits
        soft_term = soft(student_logits, teacher, temperature)
        hard_term = F.cross_entropy(hard(student_logits), targets)
        return mix(soft_term, hard_term, temperature, alpha)

    return loss


def _right(z, v, T):
    return _div(_std(v) / T, _std(z) / T)


def sizes(temperature: float) -> dict[str, float]:
    """Name the sizes that a wrong factor may be made of."""
    return {"the number of rows": 7, "the number of classes": 10, "the temperature": temperature}


STANDARDISED_KD = Exercise(
    id="05.standardised_kd",
    title="Distillation on standardised logits",
    reference=logits.standardised_kd,
    probes=(
        Probe(
            "mixed",
            "7 rows of 10 classes with T = 3, alpha = 0.7",
            batch(temperature=3.0, alpha=0.7),
            gradients=("student_logits", "teacher_logits"),
        ),
        Probe(
            "soft",
            "alpha = 1 (the soft term alone), T = 3",
            batch(temperature=3.0, alpha=1.0),
            sizes=sizes(3.0),
        ),
        Probe("cold", "alpha = 1, T = 0.002", batch(temperature=0.002, alpha=1.0)),
        Probe(
            "flat", "a student that finds all classes of one image equally probable", _one_flat_row
        ),
        Probe("hard", "alpha = 0 (the hard term alone)", batch(temperature=3.0, alpha=0.0)),
        Probe("warm", "alpha = 1, T = 5", batch(temperature=5.0, alpha=1.0), sizes=sizes(5.0)),
        Probe(
            "other",
            "5 rows of 4 classes with T = 2, alpha = 0.9",
            batch(5, 4, temperature=2.0, alpha=0.9),
        ),
        Probe(
            "defaults",
            "a batch of some size, with T and alpha left out",
            batch((2, 9), (3, 12), strided=True),
            gradients=("student_logits",),
        ),
        Probe("one row", "one row of two classes", batch(1, 2, temperature=1.5, alpha=0.5)),
        Probe(
            "float32",
            "float32 logits in the thousands",
            batch((2, 9), (3, 6), 1000.0, dtype=torch.float32, temperature=(0.5, 3.0), alpha=0.4),
            atol=1e-3,
        ),
        Probe("teacher x4", "the teacher's logits times 4", _rescaled(4.0)),
        Probe("student x4", "the student's logits times 4", _rescaled(1.0, 4.0)),
    ),
    criteria=(
        matches("the soft term", 1.0, "soft", "warm", "cold", "flat"),
        matches(
            "the hard term and the mixture",
            0.5,
            "hard",
            "mixed",
            "other",
            "defaults",
            "one row",
            "float32",
        ),
        gradients(
            "the student's gradient", 0.5, "mixed", "defaults", arguments=("student_logits",)
        ),
        side(gradients("the teacher is a constant", 0.25, "mixed", arguments=("teacher_logits",))),
        law("blind to either scale", 0.5, ("soft", "teacher x4", "student x4"), _blind_to_scale),
        law("the temperature counts", 0.25, ("soft", "warm"), _depends_on_T),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "temperature before standardising",
            _wrong(lambda z, v, T: _div(_std(v / T), _std(z / T))),
            "T has no effect on your divergence: standardising undoes any division before it. "
            "In which order do the two have to come?",
        ),
        Mistake(
            "plain logits",
            _wrong(lambda z, v, T: _div(v / T, z / T)),
            "This is the plain loss of unit 02: nothing is standardised. (The authors' CTKD "
            "script had its switch the wrong way round.)",
            "sunshangquan/logit-standardization-KD #15",
        ),
        Mistake(
            "only the teacher is standardised",
            _wrong(lambda z, v, T: _div(_std(v) / T, z / T)),
            "The student's own logits have to come to the teacher's new scale. Then the student "
            "is told a scale after all: that of deviation one. Standardise both.",
        ),
        Mistake(
            "only the student is standardised",
            _wrong(lambda z, v, T: _div(v / T, _std(z) / T)),
            "The student's logits have deviation one and the teacher's do not, so the student can "
            "never agree with a teacher that is surer. Standardise both.",
        ),
        Mistake(
            "the hard term on standardised logits",
            _wrong(_right, hard=_std),
            "Your cross-entropy sees standardised logits. With their scale fixed it cannot come "
            "near zero, however good the student is. The hard term needs the logits as they are.",
        ),
        Mistake(
            "biased standard deviation",
            _wrong(lambda z, v, T: _div(_std(v, unbiased=False) / T, _std(z, unbiased=False) / T)),
            "Your deviation has C in the denominator. The authors' code uses C - 1.",
        ),
        Mistake(
            "probabilities standardised",
            _wrong(lambda z, v, T: _div(_std((v / T).softmax(-1)), _std((z / T).softmax(-1)))),
            "You take a softmax, standardise, and take another softmax. Standardise the logits.",
        ),
        Mistake(
            "mean over classes",
            _wrong(lambda z, v, T: _right(z, v, T) / z.shape[-1]),
            "Your soft term is averaged over the classes too: `F.kl_div` does that unless told "
            "otherwise.",
            "facebookresearch/deit #61 and #116, HikariTJU/LD #74",
        ),
        Mistake(
            "no T squared",
            _wrong(_right, mix=lambda s, h, T, a: a * s + (1 - a) * h),
            "The factor T squared is as necessary here as in unit 02.",
        ),
        Mistake(
            "KL the wrong way round",
            _wrong(lambda z, v, T: _div(_std(z) / T, _std(v) / T)),
            "Your divergence runs from the student to the teacher.",
        ),
        Mistake(
            "alpha the wrong way round",
            _wrong(_right, mix=lambda s, h, T, a: (1 - a) * T**2 * s + a * h),
            "Alpha weighs the hard term in your loss. In this course it weighs the soft one.",
        ),
        Mistake(
            "teacher not detached",
            _wrong(_right, detach=False),
            "A gradient arrives at the teacher's logits.",
        ),
    ),
    minutes=8,
    difficulty=1,
)
