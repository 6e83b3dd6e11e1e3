"""Wrong answers to unit 01, written from the notebook's text."""

import math

import torch
import torch.nn.functional as F

from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _positive(temperature):
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def _inside(beta):
    if not 0 < beta < 1:
        raise ValueError(f"beta must be in (0, 1), got {beta}")


@wrong("01.log_softmax", "no shift", "logits in the thousands give finite numbers")
def no_shift(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    return z - z.exp().sum(-1, keepdim=True).log()


@wrong("01.log_softmax", "shifts by the maximum of the batch", "finite for each row")
def batch_maximum(logits, temperature=1.0):
    _positive(temperature)
    z = (logits - logits.max()) / temperature
    return z - z.exp().sum(-1, keepdim=True).log()


@wrong("01.log_softmax", "log of the shifted probabilities", "logits in the thousands: -inf")
def log_of_probabilities(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    e = (z - z.amax(-1, keepdim=True)).exp()
    return (e / e.sum(-1, keepdim=True)).log()


@wrong("01.log_softmax", "epsilon inside the log", "log-probabilities in the thousands are exact")
def epsilon_inside(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    e = (z - z.amax(-1, keepdim=True)).exp()
    return (e / e.sum(-1, keepdim=True) + 1e-12).log()


@wrong("01.log_softmax", "shifts before it divides, m not divided", "m = max z/T on both sides")
def shift_undivided(logits, temperature=1.0):
    _positive(temperature)
    m = logits.amax(-1, keepdim=True)
    lse = ((logits - m) / temperature).exp().sum(-1, keepdim=True).log()
    return logits / temperature - m - lse


@wrong("01.log_softmax", "divides the result by T", "log-probabilities at temperature T")
def divided_afterwards(logits, temperature=1.0):
    _positive(temperature)
    z = logits - logits.amax(-1, keepdim=True)
    return (z - z.exp().sum(-1, keepdim=True).log()) / temperature


@wrong("01.log_softmax", "in-place shift", "the caller's logits are an input")
def shift_in_place(logits, temperature=1.0):
    _positive(temperature)
    logits -= logits.amax(-1, keepdim=True)
    z = logits / temperature
    return z - z.exp().sum(-1, keepdim=True).log()


@wrong("01.log_softmax", "shifts by the mean", "logits in the thousands give finite numbers")
def mean_shift(logits, temperature=1.0):
    _positive(temperature)
    z = logits / temperature
    z = z - z.mean(-1, keepdim=True)
    return z - z.exp().sum(-1, keepdim=True).log()


@wrong("01.log_softmax", "turns a bad temperature into 1", "raises a ValueError")
def forgiving(logits, temperature=1.0):
    z = logits / (temperature if temperature > 0 else 1.0)
    z = z - z.amax(-1, keepdim=True)
    return z - z.exp().sum(-1, keepdim=True).log()


@wrong("01.soft_cross_entropy", "mean over the batch", "return (N,)")
def reduced(logits, target_probs):
    return -(target_probs * F.log_softmax(logits, -1)).sum(-1).mean()


@wrong("01.soft_cross_entropy", "mean over the classes", "-sum_i p_i log q_i")
def class_mean(logits, target_probs):
    return -(target_probs * F.log_softmax(logits, -1)).mean(-1)


@wrong("01.soft_cross_entropy", "roles exchanged", "whose logarithm: the student's")
def roles_exchanged(logits, target_probs):
    return -(logits.softmax(-1) * target_probs.clamp_min(1e-12).log()).sum(-1)


@wrong("01.soft_cross_entropy", "softmax of the target, too", "target_probs are probabilities")
def target_softmaxed(logits, target_probs):
    return -(target_probs.softmax(-1) * F.log_softmax(logits, -1)).sum(-1)


@wrong("01.soft_cross_entropy", "log(softmax)", "large logits must not give NaN")
def log_after(logits, target_probs):
    return -(target_probs * logits.softmax(-1).log()).sum(-1)


@wrong(
    "01.soft_cross_entropy",
    "log of a clamped softmax",
    "the cross-entropy of a large logit where the target is not zero",
)
def clamped_log(logits, target_probs):
    return -(target_probs * logits.softmax(-1).clamp_min(1e-8).log()).sum(-1)


@wrong("01.soft_cross_entropy", "subtracts the entropy", "H(p, q), not KL")
def kl_instead(logits, target_probs):
    entropy = -torch.xlogy(target_probs, target_probs).sum(-1)
    return -(target_probs * F.log_softmax(logits, -1)).sum(-1) - entropy


@wrong("01.soft_cross_entropy", "takes the target's argmax", "a whole distribution as the target")
def hard_targets(logits, target_probs):
    return F.cross_entropy(logits, target_probs.argmax(-1), reduction="none")


@wrong(
    "01.soft_cross_entropy", "NaN cleaned away by nan_to_num", "-sum p log q where p is not zero"
)
def cleaned(logits, target_probs):
    terms = torch.nan_to_num(target_probs * logits.softmax(-1).log(), nan=0.0, neginf=0.0)
    return -terms.sum(-1)


@wrong("01.kl_divergence", "the student's weights: reverse KL", "forward KL(p || q)")
def reverse(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    log_q = F.log_softmax(student_logits / temperature, -1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


@wrong("01.kl_divergence", "temperature on the teacher alone", "both are divided")
def teacher_only(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    log_q = F.log_softmax(student_logits, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong("01.kl_divergence", "weights at T = 1", "p is the teacher at the temperature")
def weights_at_one(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    log_q = F.log_softmax(student_logits / temperature, -1)
    return (teacher_logits.softmax(-1) * (log_p - log_q)).sum(-1)


@wrong("01.kl_divergence", "the T^2 of unit 02", "KL(p || q) without a factor")
def squared_factor(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    log_q = F.log_softmax(student_logits / temperature, -1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong("01.kl_divergence", "probabilities with an epsilon", "finite and right in the thousands")
def epsilon_ratio(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    p = (teacher_logits / temperature).softmax(-1) + 1e-10
    q = (student_logits / temperature).softmax(-1) + 1e-10
    return (p * (p / q).log()).sum(-1)


@wrong("01.kl_divergence", "F.kl_div with log_target missing", "KL(p || q)")
def log_target_missing(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    log_q = F.log_softmax(student_logits / temperature, -1)
    return F.kl_div(log_q, log_p, reduction="none").sum(-1)


@wrong("01.kl_divergence", "batchmean", "return (N,)")
def batchmean(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    log_q = F.log_softmax(student_logits / temperature, -1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@wrong("01.kl_divergence", "absolute terms so that it is never negative", "sum p (log p - log q)")
def absolute(teacher_logits, student_logits, temperature=1.0):
    _positive(temperature)
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    log_q = F.log_softmax(student_logits / temperature, -1)
    return (log_p.exp() * (log_p - log_q)).abs().sum(-1)


@wrong("01.kl_divergence", "no check of the temperature", "not positive raises a ValueError")
def unchecked(teacher_logits, student_logits, temperature=1.0):
    log_p = F.log_softmax(teacher_logits / temperature, -1)
    log_q = F.log_softmax(student_logits / temperature, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _logs(v, z):
    return F.log_softmax(v, -1), F.log_softmax(z, -1)


def _kl(log_a, log_b):
    return (log_a.exp() * (log_a - log_b)).sum(-1)


@wrong("01.generalized_jsd", "mixes the logits", "the mixture is one of probabilities")
def mixed_logits(teacher_logits, student_logits, beta):
    _inside(beta)
    log_p, log_q = _logs(teacher_logits, student_logits)
    log_m = F.log_softmax(beta * teacher_logits + (1 - beta) * student_logits, -1)
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


@wrong("01.generalized_jsd", "beta is the student's share", "beta is the teacher's share")
def student_share(teacher_logits, student_logits, beta):
    _inside(beta)
    log_q, log_p = _logs(teacher_logits, student_logits)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


@wrong("01.generalized_jsd", "mixture always at one half", "m = beta p + (1 - beta) q")
def half_mixture(teacher_logits, student_logits, beta):
    _inside(beta)
    log_p, log_q = _logs(teacher_logits, student_logits)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


@wrong("01.generalized_jsd", "KL from the mixture", "KL(p || m) and KL(q || m)")
def mixture_first(teacher_logits, student_logits, beta):
    _inside(beta)
    log_p, log_q = _logs(teacher_logits, student_logits)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * _kl(log_m, log_p) + (1 - beta) * _kl(log_m, log_q)


@wrong(
    "01.generalized_jsd", "weights exchanged, mixture right", "beta KL(p||m) + (1-beta) KL(q||m)"
)
def weights_exchanged(teacher_logits, student_logits, beta):
    _inside(beta)
    log_p, log_q = _logs(teacher_logits, student_logits)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return (1 - beta) * _kl(log_p, log_m) + beta * _kl(log_q, log_m)


@wrong("01.generalized_jsd", "the ends are allowed", "ends included, raises a ValueError")
def ends_allowed(teacher_logits, student_logits, beta):
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], got {beta}")
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    log_p, log_q = _logs(teacher_logits, student_logits)
    if beta in (0, 1):
        return torch.zeros_like(log_p[:, 0])
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return (beta * p * (log_p - log_m) + (1 - beta) * q * (log_q - log_m)).sum(-1)


@wrong("01.generalized_jsd", "logs of probabilities", "finite for logits in the thousands")
def logs_of_probabilities(teacher_logits, student_logits, beta):
    _inside(beta)
    p, q = teacher_logits.softmax(-1), student_logits.softmax(-1)
    m = beta * p + (1 - beta) * q
    return (beta * p * (p.log() - m.log()) + (1 - beta) * q * (q.log() - m.log())).sum(-1)


@wrong("01.generalized_jsd", "ValueError for beta > 1 alone", "beta outside (0, 1)")
def only_above(teacher_logits, student_logits, beta):
    if beta >= 1:
        raise ValueError(f"beta must be in (0, 1), got {beta}")
    log_p, log_q = _logs(teacher_logits, student_logits)
    p, q = log_p.exp(), log_q.exp()
    m = (beta * p + (1 - beta) * q).clamp_min(1e-30)
    return (beta * p * (log_p - m.log()) + (1 - beta) * q * (log_q - m.log())).sum(-1)


@wrong("01.generalized_jsd", "scales as the limits do", "JSD_beta, not JSD_beta / beta")
def scaled(teacher_logits, student_logits, beta):
    _inside(beta)
    log_p, log_q = _logs(teacher_logits, student_logits)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return _kl(log_p, log_m) + (1 - beta) / beta * _kl(log_q, log_m)


@wrong("01.total_variation", "no half", "no number above one")
def no_half(teacher_logits, student_logits):
    return (teacher_logits.softmax(-1) - student_logits.softmax(-1)).abs().sum(-1)


@wrong("01.total_variation", "largest difference", "half the sum of differences")
def largest_difference(teacher_logits, student_logits):
    return (teacher_logits.softmax(-1) - student_logits.softmax(-1)).abs().amax(-1)


@wrong("01.total_variation", "squares", "absolute differences")
def squares(teacher_logits, student_logits):
    return 0.5 * (teacher_logits.softmax(-1) - student_logits.softmax(-1)).square().sum(-1)


@wrong("01.total_variation", "differences of logits", "of probabilities")
def of_logits(teacher_logits, student_logits):
    return (0.5 * (teacher_logits - student_logits).abs().sum(-1)).clamp(max=1)


@wrong("01.total_variation", "clamps the plain sum to one", "half the sum")
def clamped_sum(teacher_logits, student_logits):
    d = (teacher_logits.softmax(-1) - student_logits.softmax(-1)).abs().sum(-1)
    return d.clamp(max=1.0)


@wrong("01.total_variation", "half a mean over classes", "sum over the classes")
def half_mean(teacher_logits, student_logits):
    return 0.5 * (teacher_logits.softmax(-1) - student_logits.softmax(-1)).abs().mean(-1)


@wrong("01.total_variation", "sums before the absolute value", "sum of |p - q|")
def sums_first(teacher_logits, student_logits):
    return 0.5 * (teacher_logits.softmax(-1) - student_logits.softmax(-1)).sum(-1).abs()


@wrong("01.total_variation", "softmax over the batch", "the last dimension holds the classes")
def over_the_batch(teacher_logits, student_logits):
    return 0.5 * (teacher_logits.softmax(0) - student_logits.softmax(0)).abs().sum(-1)


@wrong("01.total_variation", "rounds up to float32", "in the dtype of the input")
def half_precision(teacher_logits, student_logits):
    p, q = teacher_logits.float().softmax(-1), student_logits.float().softmax(-1)
    return 0.5 * (p - q).abs().sum(-1)
