"""Wrong answers to unit 03, written from the notebook's text."""

import math

import torch
import torch.nn.functional as F

from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _share(share):
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}")


def _positive(temperature):
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def _raised(logits, class_index, b):
    return logits + b * F.one_hot(torch.tensor(class_index), logits.shape[-1])


def _bisect(mean, share, low, high, rounds):
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < share else (low, middle)
    return (low + high) / 2


def _mean_probability(logits, class_index):
    z = logits.double()
    return lambda b: _raised(z, class_index, b).softmax(-1)[:, class_index].mean().item()


@wrong("03.class_bias", "searches between -20 and 20", "a class may lie 30 or more below")
def narrow(logits, class_index, share):
    _share(share)
    return _bisect(_mean_probability(logits, class_index), share, -20.0, 20.0, 100)


@wrong("03.class_bias", "searches from zero up", "the class may have too much already")
def only_upwards(logits, class_index, share):
    _share(share)
    return _bisect(_mean_probability(logits, class_index), share, 0.0, 1000.0, 100)


@wrong("03.class_bias", "twenty rounds of bisection", "to 1e-6 or better")
def twenty_rounds(logits, class_index, share):
    _share(share)
    return _bisect(_mean_probability(logits, class_index), share, -100.0, 100.0, 20)


@wrong("03.class_bias", "closed form from the mean probability", "the mean of softmaxes")
def closed_form(logits, class_index, share):
    _share(share)
    p = logits.double().softmax(-1)[:, class_index].mean().item()
    return math.log(share / (1 - share)) - math.log(p / (1 - p))


@wrong("03.class_bias", "share of rows that the class wins", "its share of the probability")
def share_of_predictions(logits, class_index, share):
    _share(share)
    z = logits.double()

    def won(b):
        return (_raised(z, class_index, b).argmax(-1) == class_index).double().mean().item()

    return _bisect(won, share, -1000.0, 1000.0, 100)


@wrong(
    "03.class_bias", "adds to the column and takes it off again", "logits is the same afterwards"
)
def in_the_callers_logits(logits, class_index, share):
    _share(share)
    low, high = -1000.0, 1000.0
    for _ in range(100):
        middle = (low + high) / 2
        logits[:, class_index] += middle
        mean = logits.softmax(-1)[:, class_index].mean().item()
        logits[:, class_index] -= middle
        low, high = (middle, high) if mean < share else (low, middle)
    return (low + high) / 2


@wrong("03.class_bias", "softmax of the mean logits", "the mean over rows of the softmax")
def mean_row(logits, class_index, share):
    _share(share)
    z = logits.double().mean(0, keepdim=True)
    return _bisect(_mean_probability(z, class_index), share, -1000.0, 1000.0, 100)


@wrong("03.class_bias", "zero and one are allowed", "a share not inside (0, 1) raises")
def ends_allowed(logits, class_index, share):
    if share < 0 or share > 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    return _bisect(_mean_probability(logits, class_index), share, -1000.0, 1000.0, 100)


@wrong(
    "03.class_bias", "Newton from zero, ten steps", "right for a class 30 or more below the others"
)
def newton(logits, class_index, share):
    _share(share)
    z, b = logits.double(), 0.0
    for _ in range(10):
        p = _raised(z, class_index, b).softmax(-1)[:, class_index]
        b -= ((p.mean() - share) / ((p * (1 - p)).mean() + 1e-12)).clamp(-5, 5).item()
    return b


def _kl(v, z, temperature):
    log_p = F.log_softmax(v.detach() / temperature, -1)
    log_q = F.log_softmax(z / temperature, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong("03.transfer_loss", "ignore_index=-1 and nothing more", "a batch without labels is not NaN")
def ignore_index(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _kl(teacher_logits, student_logits, temperature).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, targets, ignore_index=-1)


@wrong("03.transfer_loss", "hard term divided by all rows", "mean over the labelled rows")
def hard_over_all_rows(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _kl(teacher_logits, student_logits, temperature).mean()
    hard = F.cross_entropy(student_logits, targets, ignore_index=-1, reduction="none").mean()
    return alpha * soft + (1 - alpha) * hard


@wrong("03.transfer_loss", "soft term on unlabelled rows alone", "mean over all rows")
def soft_where_unlabelled(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    known = targets >= 0
    kl = _kl(teacher_logits, student_logits, temperature)
    loss = student_logits.sum() * 0
    if not known.all():
        loss = loss + alpha * temperature**2 * kl[~known].mean()
    if known.any():
        loss = loss + (1 - alpha) * F.cross_entropy(student_logits[known], targets[known])
    return loss


@wrong("03.transfer_loss", "full weight without labels", "with its weight alpha")
def full_weight(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _kl(teacher_logits, student_logits, temperature).mean()
    known = targets != -1
    if not known.any():
        return soft
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits[known], targets[known])


@wrong("03.transfer_loss", "targets > 0: class 0 has no label", "-1 means no label")
def class_zero_lost(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    loss = alpha * temperature**2 * _kl(teacher_logits, student_logits, temperature).mean()
    known = targets > 0
    if known.any():
        loss = loss + (1 - alpha) * F.cross_entropy(student_logits[known], targets[known])
    return loss


@wrong("03.transfer_loss", "-1 indexes the last class", "-1 means that the row has no label")
def last_class(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _kl(teacher_logits, student_logits, temperature).mean()
    log_q = F.log_softmax(student_logits, -1)
    hard = -log_q[torch.arange(len(targets)), targets].mean()
    return alpha * soft + (1 - alpha) * hard


@wrong("03.transfer_loss", "nan_to_num of the whole loss", "without labels: the soft term")
def nothing_left(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _kl(teacher_logits, student_logits, temperature).mean()
    hard = F.cross_entropy(student_logits, targets, ignore_index=-1)
    return torch.nan_to_num(alpha * soft + (1 - alpha) * hard)


@wrong("03.transfer_loss", "takes the teacher's class where no label is", "labelled rows")
def pseudo_labels(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _kl(teacher_logits, student_logits, temperature).mean()
    y = torch.where(targets < 0, teacher_logits.argmax(-1), targets)
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, y)


@wrong("03.transfer_loss", "no T^2", "the soft term of unit 02 has T^2")
def without_t_squared(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    loss = alpha * _kl(teacher_logits, student_logits, temperature).mean()
    known = targets != -1
    if known.any():
        loss = loss + (1 - alpha) * F.cross_entropy(student_logits[known], targets[known])
    return loss


@wrong("03.transfer_loss", "weighs the soft term by the unlabelled share", "weight alpha")
def weighed_by_share(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = temperature**2 * _kl(teacher_logits, student_logits, temperature).mean()
    known = targets != -1
    loss = alpha * soft
    if known.any():
        hard = F.cross_entropy(student_logits[known], targets[known])
        loss = loss + (1 - alpha) * known.float().mean() * hard
    return loss


@wrong("03.ensemble_soft_targets", "averages logits", "the arithmetic mean of distributions")
def logits_averaged(logits, temperature=1.0):
    _positive(temperature)
    return (logits.mean(0) / temperature).softmax(-1)


@wrong("03.ensemble_soft_targets", "softens the mean", "each teacher is softened before the mean")
def softened_afterwards(logits, temperature=1.0):
    _positive(temperature)
    p = logits.softmax(-1).mean(0) ** (1 / temperature)
    return p / p.sum(-1, keepdim=True)


@wrong("03.ensemble_soft_targets", "mean over the images", "(M, N, C) -> (N, C)")
def over_images(logits, temperature=1.0):
    _positive(temperature)
    return (logits / temperature).softmax(-1).mean(1)


@wrong("03.ensemble_soft_targets", "softmax over the teachers", "classes are the last dimension")
def softmax_over_teachers(logits, temperature=1.0):
    _positive(temperature)
    p = (logits / temperature).softmax(0).mean(0)
    return p / p.sum(-1, keepdim=True)


@wrong("03.ensemble_soft_targets", "mean of log-probabilities", "the arithmetic mean")
def logs_averaged(logits, temperature=1.0):
    _positive(temperature)
    return F.log_softmax(logits / temperature, -1).mean(0).softmax(-1)


@wrong("03.ensemble_soft_targets", "returns logarithms", "average the probabilities")
def returns_logs(logits, temperature=1.0):
    _positive(temperature)
    return (logits / temperature).softmax(-1).mean(0).log()


@wrong("03.ensemble_soft_targets", "no check", "a temperature not positive raises")
def unchecked(logits, temperature=1.0):
    return (logits / temperature).softmax(-1).mean(0)


@wrong("03.ensemble_soft_targets", "median of the teachers", "the arithmetic mean")
def median(logits, temperature=1.0):
    _positive(temperature)
    p = (logits / temperature).softmax(-1).median(0).values
    return p / p.sum(-1, keepdim=True)


@wrong("03.ensemble_soft_targets", "a vote of the top classes", "the mean of distributions")
def votes(logits, temperature=1.0):
    _positive(temperature)
    p = (logits / temperature).softmax(-1)
    top = F.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype)
    return (p * top).sum(0) / (p * top).sum((0, 2))[:, None]


def _filled(q, classes, probs):
    classes = torch.as_tensor(classes)
    inside = torch.zeros(q.shape[-1], dtype=torch.bool)
    inside[classes] = True
    rest = q.masked_fill(inside, 0)
    full = rest / rest.sum(-1, keepdim=True).clamp_min(1e-30) * probs[:, -1:]
    full[:, classes] = probs[:, :-1]
    return full


@wrong("03.merge_specialists", "a single round", "right to 1e-6")
def one_round(generalist, specialists):
    models = [generalist, *(_filled(generalist, c, p) for c, p in specialists)]
    return torch.stack(models).mean(0)


@wrong("03.merge_specialists", "fills by the generalist's proportions", "in proportion to the q")
def generalist_proportions(generalist, specialists):
    q = generalist
    for _ in range(200):
        q = torch.stack([generalist, *(_filled(generalist, c, p) for c, p in specialists)]).mean(0)
    return q


@wrong("03.merge_specialists", "averages with q, not with the generalist", "average the generalist")
def forgets_the_generalist(generalist, specialists):
    q = generalist
    for _ in range(200):
        q = torch.stack([q, *(_filled(q, c, p) for c, p in specialists)]).mean(0)
    return q


@wrong("03.merge_specialists", "the dustbin spread evenly", "in proportion to the q you have")
def even_dustbin(generalist, specialists):
    models = [generalist]
    for classes, probs in specialists:
        others = generalist.shape[-1] - len(classes)
        full = (probs[:, -1:] / others).expand_as(generalist).clone()
        full[:, torch.as_tensor(classes)] = probs[:, :-1]
        models.append(full)
    return torch.stack(models).mean(0)


@wrong("03.merge_specialists", "dustbin first", "the dustbin last")
def dustbin_first(generalist, specialists):
    q = generalist
    turned = [(c, torch.cat([p[:, 1:], p[:, :1]], 1)) for c, p in specialists]
    for _ in range(200):
        q = torch.stack([generalist, *(_filled(q, c, p) for c, p in turned)]).mean(0)
    return q


@wrong("03.merge_specialists", "stops at a change of 1e-3", "right to 1e-6")
def stops_early(generalist, specialists):
    q = generalist
    for _ in range(200):
        new = torch.stack([generalist, *(_filled(q, c, p) for c, p in specialists)]).mean(0)
        if (new - q).abs().max() < 1e-3:
            break
        q = new
    return q


@wrong("03.merge_specialists", "updates q after each specialist", "average all filled models")
def one_after_another(generalist, specialists):
    q = generalist
    for _ in range(200):
        for classes, probs in specialists:
            q = (generalist + _filled(q, classes, probs)) / 2
    return q


@wrong("03.merge_specialists", "no case for an empty list", "the list may be empty")
def empty_list_fails(generalist, specialists):
    q = generalist
    for _ in range(200):
        filled = torch.stack([_filled(q, c, p) for c, p in specialists])
        q = (generalist + filled.sum(0)) / (1 + len(specialists))
    return q


@wrong("03.merge_specialists", "writes into the generalist", "change no input")
def in_place(generalist, specialists):
    q, start = generalist, generalist.clone()
    for _ in range(200):
        q[:] = torch.stack([start, *(_filled(q, c, p) for c, p in specialists)]).mean(0)
    return q


@wrong("03.merge_specialists", "scales q without leaving the classes out", "others sum to dustbin")
def dustbin_over_all(generalist, specialists):
    q = generalist
    for _ in range(200):
        models = [generalist]
        for classes, probs in specialists:
            full = q * probs[:, -1:]
            full[:, torch.as_tensor(classes)] = probs[:, :-1]
            models.append(full / full.sum(-1, keepdim=True))
        q = torch.stack(models).mean(0)
    return q


@wrong("03.merge_specialists", "the geometric mean", "average: KL(p_m || q)")
def geometric(generalist, specialists):
    q = generalist
    for _ in range(200):
        models = [generalist, *(_filled(q, c, p) for c, p in specialists)]
        q = torch.stack([m.clamp_min(1e-12).log() for m in models]).mean(0).softmax(-1)
    return q


def _smoothing(smoothing):
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be in [0, 1], got {smoothing}")


@wrong("03.label_smoothing_loss", "spreads over the C - 1 wrong classes", "1/C, the true one too")
def over_wrong_classes(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q, classes = F.log_softmax(logits, -1), logits.shape[-1]
    soft = torch.full_like(log_q, smoothing / max(classes - 1, 1))
    soft[torch.arange(len(targets)), targets] = 1 - smoothing
    return -(soft * log_q).sum(-1).mean()


@wrong("03.label_smoothing_loss", "uniform added to the whole label", "(1 - e) CE(y) + e CE(u)")
def label_kept_whole(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q = F.log_softmax(logits, -1)
    hard = -log_q[torch.arange(len(targets)), targets].mean()
    return hard - smoothing * log_q.mean()


@wrong("03.label_smoothing_loss", "KL(u || q) without log C", "the value of L")
def without_the_constant(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q = F.log_softmax(logits, -1)
    hard = -log_q[torch.arange(len(targets)), targets].mean()
    kl = -log_q.mean() - math.log(logits.shape[-1])
    return (1 - smoothing) * hard + smoothing * kl


@wrong("03.label_smoothing_loss", "sum over classes for the uniform part", "1/C to every class")
def sum_over_classes(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q = F.log_softmax(logits, -1)
    hard = -log_q[torch.arange(len(targets)), targets].mean()
    return (1 - smoothing) * hard - smoothing * log_q.sum(-1).mean()


@wrong("03.label_smoothing_loss", "the entropy of q as the penalty", "CE(u, q)")
def confidence_penalty(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q = F.log_softmax(logits, -1)
    hard = -log_q[torch.arange(len(targets)), targets].mean()
    return (1 - smoothing) * hard + smoothing * (log_q.exp() * log_q).sum(-1).mean()


@wrong("03.label_smoothing_loss", "ends refused", "outside [0, 1] raises: 0 and 1 are inside")
def ends_refused(logits, targets, smoothing=0.1):
    if not 0 < smoothing < 1:
        raise ValueError(f"smoothing must be in (0, 1), got {smoothing}")
    log_q = F.log_softmax(logits, -1)
    hard = -log_q[torch.arange(len(targets)), targets].mean()
    return (1 - smoothing) * hard - smoothing * log_q.mean()


@wrong("03.label_smoothing_loss", "weights exchanged", "epsilon belongs to the uniform teacher")
def exchanged(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q = F.log_softmax(logits, -1)
    hard = -log_q[torch.arange(len(targets)), targets].mean()
    return smoothing * hard - (1 - smoothing) * log_q.mean()


@wrong("03.label_smoothing_loss", "sum over rows", "mean over rows")
def sum_over_rows(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q = F.log_softmax(logits, -1)
    hard = -log_q[torch.arange(len(targets)), targets].sum()
    return (1 - smoothing) * hard - smoothing * log_q.mean(-1).sum()


@wrong("03.label_smoothing_loss", "log of a softmax with an epsilon", "L for a certain network")
def epsilon_in_the_log(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q = (logits.softmax(-1) + 1e-6).log()
    hard = -log_q[torch.arange(len(targets)), targets].mean()
    return (1 - smoothing) * hard - smoothing * log_q.mean()
