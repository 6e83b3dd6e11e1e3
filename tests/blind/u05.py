"""Wrong answers to unit 05, written from the notebook's text."""

import torch
import torch.nn.functional as F

from kdlib.losses import structure as logits
from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _halves(z, targets):
    """Log of (target, rest) and of the distribution over the other classes."""
    rows = torch.arange(len(z))
    keep = torch.ones_like(z, dtype=torch.bool)
    keep[rows, targets] = False
    rest = z[keep].view(len(z), -1)
    pair = torch.stack([z[rows, targets], rest.logsumexp(-1)], -1)
    return pair.log_softmax(-1), rest.log_softmax(-1)


@wrong("05.split_kd", "probabilities first, then 1 - p", "as certain as it likes: no NaN")
def probabilities_first(student_logits, teacher_logits, targets, temperature=4.0):
    mask = F.one_hot(targets, student_logits.shape[-1]).bool()
    p = (teacher_logits.detach() / temperature).softmax(-1)
    q = (student_logits / temperature).softmax(-1)
    py, qy = p[mask], q[mask]
    tckd = py * (py / qy).log() + (1 - py) * ((1 - py) / (1 - qy)).log()
    hat_p = p[~mask].view(len(p), -1) / (1 - py)[:, None]
    hat_q = q[~mask].view(len(q), -1) / (1 - qy)[:, None]
    return tckd, (hat_p * (hat_p / hat_q).log()).sum(-1)


@wrong("05.split_kd", "takes 1000 off the target, then divides by T", "at a high temperature, too")
def thousand_before_t(student_logits, teacher_logits, targets, temperature=4.0):
    v, z = teacher_logits.detach(), student_logits
    bp, _ = _halves(v / temperature, targets)
    bq, _ = _halves(z / temperature, targets)
    off = 1000.0 * F.one_hot(targets, z.shape[-1])
    log_p = F.log_softmax((v - off) / temperature, -1)
    log_q = F.log_softmax((z - off) / temperature, -1)
    return _kl(bp, bq), _kl(log_p, log_q)


@wrong("05.split_kd", "the teacher's top class as target", "the target is the label")
def teachers_class(student_logits, teacher_logits, targets, temperature=4.0):
    y = teacher_logits.argmax(-1)
    bp, hp = _halves(teacher_logits.detach() / temperature, y)
    bq, hq = _halves(student_logits / temperature, y)
    return _kl(bp, bq), _kl(hp, hq)


@wrong("05.split_kd", "teacher not detached", "the teacher is a constant")
def not_detached(student_logits, teacher_logits, targets, temperature=4.0):
    bp, hp = _halves(teacher_logits / temperature, targets)
    bq, hq = _halves(student_logits / temperature, targets)
    return _kl(bp, bq), _kl(hp, hq)


@wrong("05.split_kd", "NCKD already weighed", "the identity puts the factor outside")
def weighed_nckd(student_logits, teacher_logits, targets, temperature=4.0):
    bp, hp = _halves(teacher_logits.detach() / temperature, targets)
    bq, hq = _halves(student_logits / temperature, targets)
    return _kl(bp, bq), bp[:, 1].exp() * _kl(hp, hq)


@wrong("05.split_kd", "T^2 inside", "without T^2")
def with_t_squared(student_logits, teacher_logits, targets, temperature=4.0):
    bp, hp = _halves(teacher_logits.detach() / temperature, targets)
    bq, hq = _halves(student_logits / temperature, targets)
    return temperature**2 * _kl(bp, bq), temperature**2 * _kl(hp, hq)


@wrong("05.split_kd", "the target's half of TCKD alone", "b = (p_y, 1 - p_y)")
def half_of_tckd(student_logits, teacher_logits, targets, temperature=4.0):
    bp, hp = _halves(teacher_logits.detach() / temperature, targets)
    bq, hq = _halves(student_logits / temperature, targets)
    return bp[:, 0].exp() * (bp[:, 0] - bq[:, 0]), _kl(hp, hq)


@wrong("05.split_kd", "NCKD first", "a pair: TCKD and NCKD")
def nckd_first(student_logits, teacher_logits, targets, temperature=4.0):
    bp, hp = _halves(teacher_logits.detach() / temperature, targets)
    bq, hq = _halves(student_logits / temperature, targets)
    return _kl(hp, hq), _kl(bp, bq)


@wrong("05.split_kd", "means over the batch", "each (B,)")
def batch_means(student_logits, teacher_logits, targets, temperature=4.0):
    bp, hp = _halves(teacher_logits.detach() / temperature, targets)
    bq, hq = _halves(student_logits / temperature, targets)
    return _kl(bp, bq).mean(), _kl(hp, hq).mean()


@wrong("05.split_kd", "the mean of the other logits as 'the rest'", "1 - p_y is the others' sum")
def mean_of_the_rest(student_logits, teacher_logits, targets, temperature=4.0):
    def pair(z):
        own = z.gather(1, targets[:, None])
        rest = (z.sum(-1, keepdim=True) - own) / (z.shape[-1] - 1)
        return torch.cat([own, rest], -1).log_softmax(-1)

    v, z = teacher_logits.detach() / temperature, student_logits / temperature
    return _kl(pair(v), pair(z)), _kl(_halves(v, targets)[1], _halves(z, targets)[1])


@wrong("05.dkd_loss", "alpha and beta exchanged", "alpha TCKD + beta NCKD")
def weights_exchanged(
    student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0
):
    if student_logits.shape[-1] < 3:
        raise ValueError("fewer than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return temperature**2 * (beta * tckd + alpha * nckd).mean()


@wrong("05.dkd_loss", "split at the default temperature", "temperature is an argument")
def temperature_not_passed(
    student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0
):
    if student_logits.shape[-1] < 3:
        raise ValueError("fewer than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


@wrong("05.dkd_loss", "T^2 on TCKD alone", "T^2 (alpha TCKD + beta NCKD)")
def bracket_forgotten(
    student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0
):
    if student_logits.shape[-1] < 3:
        raise ValueError("fewer than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return (temperature**2 * alpha * tckd + beta * nckd).mean()


@wrong("05.dkd_loss", "student and teacher exchanged in the call", "the student first")
def arguments_exchanged(
    student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0
):
    if student_logits.shape[-1] < 3:
        raise ValueError("fewer than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(teacher_logits, student_logits, targets, temperature)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


@wrong("05.dkd_loss", "cross-entropy added", "the soft term alone")
def with_labels(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    if student_logits.shape[-1] < 3:
        raise ValueError("fewer than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    soft = temperature**2 * (alpha * tckd + beta * nckd).mean()
    return soft + F.cross_entropy(student_logits, targets)


@wrong("05.dkd_loss", "no ValueError for two classes", "fewer than three classes raise")
def two_classes(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


@wrong("05.dkd_loss", "counts the classes in the batch's labels", "classes: C of the logits")
def classes_in_the_labels(
    student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0
):
    if len(targets.unique()) < 3:
        raise ValueError("fewer than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


@wrong("05.dkd_loss", "three classes refused, too", "fewer than three raise, three do not")
def three_refused(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    if student_logits.shape[-1] <= 3:
        raise ValueError("needs more than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


@wrong("05.dkd_loss", "the authors' defaults written in", "alpha and beta are arguments")
def constants(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    if student_logits.shape[-1] < 3:
        raise ValueError("fewer than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return temperature**2 * (tckd + 8.0 * nckd).mean()


@wrong("05.dkd_loss", "batch size from the authors' code: a sum", "a mean over the rows")
def summed(student_logits, teacher_logits, targets, temperature=4.0, alpha=1.0, beta=8.0):
    if student_logits.shape[-1] < 3:
        raise ValueError("fewer than three classes: NCKD is zero")
    tckd, nckd = logits.split_kd(student_logits, teacher_logits, targets, temperature)
    return temperature**2 * (alpha * tckd + beta * nckd).sum()


@wrong("05.standardise", "the biased deviation", "C - 1 in the denominator")
def biased(logits):
    d = logits - logits.mean(-1, keepdim=True)
    return d / (d.std(-1, keepdim=True, unbiased=False) + 1e-7)


@wrong("05.standardise", "over the batch, as BatchNorm", "in each row")
def over_the_batch(logits):
    return (logits - logits.mean(0)) / (logits.std(0) + 1e-7)


@wrong("05.standardise", "over the whole matrix", "in each row")
def over_everything(logits):
    return (logits - logits.mean()) / (logits.std() + 1e-7)


@wrong("05.standardise", "no epsilon", "a row of equal logits gives zeros")
def no_epsilon(logits):
    return (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, keepdim=True)


@wrong("05.standardise", "divides by the variance", "by the standard deviation")
def variance(logits):
    return (logits - logits.mean(-1, keepdim=True)) / (logits.var(-1, keepdim=True) + 1e-7)


@wrong("05.standardise", "statistics detached", "s(z) is a function of z: its gradient")
def statistics_detached(logits):
    mean = logits.mean(-1, keepdim=True).detach()
    std = logits.std(-1, keepdim=True).detach()
    return (logits - mean) / (std + 1e-7)


@wrong("05.standardise", "no centring", "mean zero in each row")
def scaled_only(logits):
    d = logits - logits.mean(-1, keepdim=True)
    std = (d.square().sum(-1, keepdim=True) / (d.shape[-1] - 1) + 1e-20).sqrt()
    return logits / (std + 1e-7)


@wrong("05.standardise", "an epsilon of 1e-5 under the root, from LayerNorm", "deviation one")
def layer_norm_epsilon(logits):
    d = logits - logits.mean(-1, keepdim=True)
    variance = d.square().sum(-1, keepdim=True) / (d.shape[-1] - 1)
    return d / (variance + 1e-5).sqrt()


@wrong("05.standardise", "centres the caller's logits", "a function leaves its input")
def centred_in_place(logits):
    with torch.no_grad():
        logits -= logits.mean(-1, keepdim=True)
    std = (logits.square().sum(-1, keepdim=True) / (logits.shape[-1] - 1) + 1e-20).sqrt()
    return logits / (std + 1e-7)


def _soft(z, v, temperature):
    return _kl(F.log_softmax(v.detach() / temperature, -1), F.log_softmax(z / temperature, -1))


@wrong("05.standardised_kd", "divides by T first", "one order makes T useless")
def divided_first(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    v = logits.standardise(teacher_logits.detach() / temperature)
    z = logits.standardise(student_logits / temperature)
    soft = temperature**2 * _soft(z, v, 1.0).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("05.standardised_kd", "standardises the hard term, too", "the hard term keeps the logits")
def hard_standardised(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    v, z = logits.standardise(teacher_logits), logits.standardise(student_logits)
    soft = temperature**2 * _soft(z, v, temperature).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(z, targets)


@wrong("05.standardised_kd", "standardises the teacher alone", "both: s(v) and s(z)")
def teacher_alone(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    v = logits.standardise(teacher_logits)
    soft = temperature**2 * _soft(student_logits, v, temperature).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("05.standardised_kd", "no T^2, like the library", "T^2 KL")
def without_t_squared(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    v, z = logits.standardise(teacher_logits), logits.standardise(student_logits)
    soft = _soft(z, v, temperature).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("05.standardised_kd", "alpha on the labels", "alpha weighs the soft term")
def alpha_hard(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    v, z = logits.standardise(teacher_logits), logits.standardise(student_logits)
    soft = temperature**2 * _soft(z, v, temperature).mean()
    return (1 - alpha) * soft + alpha * F.cross_entropy(student_logits, targets)


@wrong("05.standardised_kd", "teacher's gradient left on", "the teacher is a constant")
def teacher_learns(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    log_p = F.log_softmax(logits.standardise(teacher_logits) / temperature, -1)
    log_q = F.log_softmax(logits.standardise(student_logits) / temperature, -1)
    soft = temperature**2 * _kl(log_p, log_q).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("05.standardised_kd", "reverse KL", "KL(teacher || student)")
def reverse(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    log_p = F.log_softmax(logits.standardise(teacher_logits).detach() / temperature, -1)
    log_q = F.log_softmax(logits.standardise(student_logits) / temperature, -1)
    soft = temperature**2 * _kl(log_q, log_p).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("05.standardised_kd", "gives the student the teacher's scale", "s(z) with its own deviation")
def teachers_scale(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    std = teacher_logits.detach().std(-1, keepdim=True) + 1e-7
    v = teacher_logits.detach() / std
    z = student_logits / std
    soft = temperature**2 * _soft(z, v, temperature).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets)


@wrong("05.standardised_kd", "hard term at temperature T", "CE(y, q) of the logits as they are")
def hard_softened(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    v, z = logits.standardise(teacher_logits), logits.standardise(student_logits)
    soft = temperature**2 * _soft(z, v, temperature).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits / temperature, targets)


def _r(a, b, dim):
    a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    length = (a.square().sum(dim) + 1e-20).sqrt() * (b.square().sum(dim) + 1e-20).sqrt()
    return (a * b).sum(dim) / (length + 1e-8)


def _probs(student_logits, teacher_logits, temperature):
    q = (student_logits / temperature).softmax(-1)
    return q, (teacher_logits.detach() / temperature).softmax(-1)


@wrong("05.dist_loss", "beta weighs the columns", "beta the rows, gamma the columns")
def directions_exchanged(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = _probs(student_logits, teacher_logits, temperature)
    rows, columns = (1 - _r(q, p, 1)).mean(), (1 - _r(q, p, 0)).mean()
    return temperature**2 * (gamma * rows + beta * columns)


@wrong("05.dist_loss", "softmax over the batch for the columns", "one softmax, along the classes")
def two_softmaxes(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = _probs(student_logits, teacher_logits, temperature)
    qb = (student_logits / temperature).softmax(0)
    pb = (teacher_logits.detach() / temperature).softmax(0)
    rows, columns = (1 - _r(q, p, 1)).mean(), (1 - _r(qb, pb, 0)).mean()
    return temperature**2 * (beta * rows + gamma * columns)


@wrong("05.dist_loss", "correlation of logits", "P and Q are matrices of probabilities")
def of_logits(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    rows, columns = (1 - _r(z, v, 1)).mean(), (1 - _r(z, v, 0)).mean()
    return temperature**2 * (beta * rows + gamma * columns)


@wrong("05.dist_loss", "cosine, not centred", "Pearson's r")
def cosine(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = _probs(student_logits, teacher_logits, temperature)
    rows = (1 - F.cosine_similarity(q, p, dim=1)).mean()
    columns = (1 - F.cosine_similarity(q, p, dim=0)).mean()
    return temperature**2 * (beta * rows + gamma * columns)


@wrong("05.dist_loss", "no T^2", "T^2 [...]")
def dist_without_factor(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = _probs(student_logits, teacher_logits, temperature)
    return beta * (1 - _r(q, p, 1)).mean() + gamma * (1 - _r(q, p, 0)).mean()


@wrong("05.dist_loss", "sums, not means", "both parts are means")
def sums(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = _probs(student_logits, teacher_logits, temperature)
    return temperature**2 * (beta * (1 - _r(q, p, 1)).sum() + gamma * (1 - _r(q, p, 0)).sum())


@wrong("05.dist_loss", "norms with no care for zero", "the gradient must not be NaN")
def nan_gradient(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    def r(a, b, dim):
        a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
        length = a.square().sum(dim).sqrt() * b.square().sum(dim).sqrt()
        return torch.nan_to_num((a * b).sum(dim) / length)

    q, p = _probs(student_logits, teacher_logits, temperature)
    return temperature**2 * (beta * (1 - r(q, p, 1)).mean() + gamma * (1 - r(q, p, 0)).mean())


@wrong(
    "05.dist_loss", "an undecided student counts as agreeing", "their correlation counts as zero"
)
def undecided_agrees(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = _probs(student_logits, teacher_logits, temperature)

    def distance(dim):
        spread = q.var(dim, unbiased=False) > 1e-16
        return torch.where(spread, 1 - _r(q, p, dim), 0.0).mean()

    return temperature**2 * (beta * distance(1) + gamma * distance(0))


@wrong("05.dist_loss", "teacher's graph kept", "the teacher is a constant")
def graph_kept(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = (student_logits / temperature).softmax(-1), (teacher_logits / temperature).softmax(-1)
    return temperature**2 * (beta * (1 - _r(q, p, 1)).mean() + gamma * (1 - _r(q, p, 0)).mean())


@wrong("05.dist_loss", "absolute correlation", "1 - r: opposite is worse than unrelated")
def absolute(student_logits, teacher_logits, temperature=4.0, beta=1.0, gamma=1.0):
    q, p = _probs(student_logits, teacher_logits, temperature)
    rows, columns = (1 - _r(q, p, 1).abs()).mean(), (1 - _r(q, p, 0).abs()).mean()
    return temperature**2 * (beta * rows + gamma * columns)
