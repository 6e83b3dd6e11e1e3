"""Wrong answers to unit 04, written from the notebook's text."""

import itertools
import math

import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from kdlib.museum import batches
from tests.blind import Wrong, collector

WRONG: dict[str, list[Wrong]] = {}
wrong = collector(WRONG)


def _same_shape(a, b):
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")


def _agreement(z, v):
    return (z.argmax(-1) == v.argmax(-1)).double().mean().item()


def _kl(v, z):
    log_p, log_q = F.log_softmax(v, -1), F.log_softmax(z, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong("04.fidelity", "KL first", "in this order: the agreement, the KL")
def kl_first(student_logits, teacher_logits):
    _same_shape(student_logits, teacher_logits)
    kl = _kl(teacher_logits, student_logits).mean().item()
    return kl, _agreement(student_logits, teacher_logits)


@wrong("04.fidelity", "reverse KL", "KL(p || q), p the teacher")
def reverse_kl(student_logits, teacher_logits):
    _same_shape(student_logits, teacher_logits)
    kl = _kl(student_logits, teacher_logits).mean().item()
    return _agreement(student_logits, teacher_logits), kl


@wrong("04.fidelity", "no look at the shapes", "shapes that differ raise a ValueError")
def broadcasts(student_logits, teacher_logits):
    kl = _kl(teacher_logits, student_logits).mean().item()
    return _agreement(student_logits, teacher_logits), kl


@wrong("04.fidelity", "compares the number of rows alone", "shapes that differ: classes, too")
def rows_compared(student_logits, teacher_logits):
    if len(student_logits) != len(teacher_logits):
        raise ValueError("row counts differ")
    kl = _kl(teacher_logits, student_logits).mean().item()
    return _agreement(student_logits, teacher_logits), kl


@wrong("04.fidelity", "mean over rows and classes", "a mean over rows")
def class_mean(student_logits, teacher_logits):
    _same_shape(student_logits, teacher_logits)
    kl = _kl(teacher_logits, student_logits).mean().item() / student_logits.shape[-1]
    return _agreement(student_logits, teacher_logits), kl


@wrong("04.fidelity", "clamps probabilities at 1e-8", "logits may be in the thousands")
def clamped(student_logits, teacher_logits):
    _same_shape(student_logits, teacher_logits)
    p = teacher_logits.softmax(-1).clamp_min(1e-8)
    q = student_logits.softmax(-1).clamp_min(1e-8)
    kl = (p * (p.log() - q.log())).sum(-1).mean().item()
    return _agreement(student_logits, teacher_logits), kl


@wrong("04.fidelity", "percent", "a share between 0 and 1")
def in_percent(student_logits, teacher_logits):
    _same_shape(student_logits, teacher_logits)
    kl = _kl(teacher_logits, student_logits).mean().item()
    return 100 * _agreement(student_logits, teacher_logits), kl


@wrong("04.fidelity", "temperature 2, as in training", "at T = 1, as the student will be used")
def training_temperature(student_logits, teacher_logits):
    _same_shape(student_logits, teacher_logits)
    kl = _kl(teacher_logits / 2, student_logits / 2).mean().item()
    return _agreement(student_logits, teacher_logits), kl


@wrong("04.fidelity", "KL on rows that disagree alone", "each is a mean over rows")
def where_they_disagree(student_logits, teacher_logits):
    _same_shape(student_logits, teacher_logits)
    other = student_logits.argmax(-1) != teacher_logits.argmax(-1)
    kl = _kl(teacher_logits, student_logits)[other]
    mean = kl.mean().item() if other.any() else 0.0
    return _agreement(student_logits, teacher_logits), mean


def _confidence(logits, targets):
    confidence, predicted = logits.softmax(-1).max(-1)
    return confidence, (predicted == targets).to(confidence.dtype)


@wrong("04.ece", "left edge included, right edge not", "the right edge belongs to the bin")
def left_edge(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    total = 0.0
    for b in range(bins):
        mask = (confidence >= b / bins) & (confidence < (b + 1) / bins)
        if mask.any():
            total += mask.sum().item() * (right[mask].mean() - confidence[mask].mean()).abs().item()
    return total / len(targets)


@wrong("04.ece", "left edge included, but 1 put in the last bin", "the right edge belongs to it")
def floor_bins(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    index = (confidence * bins).floor().clamp(max=bins - 1).long()
    total = 0.0
    for b in range(bins):
        mask = index == b
        if mask.any():
            total += mask.sum().item() * (right[mask].mean() - confidence[mask].mean()).abs().item()
    return total / len(targets)


def _bins(confidence, bins):
    for b in range(bins):
        mask = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if mask.any():
            yield b, mask


@wrong("04.ece", "plain mean over bins that are not empty", "weighed by the share of predictions")
def unweighted(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    gaps = [
        (right[m].mean() - confidence[m].mean()).abs().item() for _, m in _bins(confidence, bins)
    ]
    return sum(gaps) / len(gaps)


@wrong("04.ece", "no absolute value", "|accuracy - confidence|")
def signed(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    return sum(
        m.sum().item() * (confidence[m].mean() - right[m].mean()).item()
        for _, m in _bins(confidence, bins)
    ) / len(targets)


@wrong("04.ece", "the middle of the bin for its confidence", "mean confidence in the bin")
def bin_centres(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    return sum(
        m.sum().item() * abs(right[m].mean().item() - (b + 0.5) / bins)
        for b, m in _bins(confidence, bins)
    ) / len(targets)


@wrong("04.ece", "bins between 1/C and 1", "M bins of equal width from 0")
def shifted_bins(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    low = 1 / logits.shape[-1]
    edges = [low + (1 - low) * b / bins for b in range(bins + 1)]
    total = 0.0
    for a, b in itertools.pairwise(edges):
        mask = (confidence > a) & (confidence <= b)
        if mask.any():
            total += mask.sum().item() * (right[mask].mean() - confidence[mask].mean()).abs().item()
    return total / len(targets)


@wrong("04.ece", "empty bins are NaN", "some bins are empty")
def empty_bins(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    total = 0.0
    for b in range(bins):
        mask = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        total += mask.sum().item() * (right[mask].mean() - confidence[mask].mean()).abs().item()
    return total / len(targets)


@wrong("04.ece", "always fifteen bins", "bins is the number of bins")
def always_fifteen(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    return sum(
        m.sum().item() * (right[m].mean() - confidence[m].mean()).abs().item()
        for _, m in _bins(confidence, 15)
    ) / len(targets)


@wrong("04.ece", "bins of equal numbers of rows", "bins of equal width")
def equal_mass(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    order = confidence.argsort()
    parts = [part for part in order.chunk(bins) if len(part)]
    return sum(len(p) * (right[p].mean() - confidence[p].mean()).abs().item() for p in parts) / len(
        targets
    )


@wrong("04.ece", "probability of the true class as confidence", "the largest probability")
def true_class(logits, targets, bins=15):
    _, right = _confidence(logits, targets)
    p = logits.softmax(-1)[torch.arange(len(targets)), targets]
    return sum(
        m.sum().item() * (right[m].mean() - p[m].mean()).abs().item() for _, m in _bins(p, bins)
    ) / len(targets)


@wrong("04.ece", "divides by the rows right", "|B| / N")
def divided_by_right(logits, targets, bins=15):
    confidence, right = _confidence(logits, targets)
    total = sum(
        m.sum().item() * (right[m].mean() - confidence[m].mean()).abs().item()
        for _, m in _bins(confidence, bins)
    )
    return total / max(right.sum().item(), 1)


def _pairs(a, b):
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"need two lists of one length, at least 2: {len(a)} and {len(b)}")
    return torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)


@wrong("04.paired_interval", "1.96", "Student's quantile")
def normal_quantile(a, b, confidence=0.95):
    d = _pairs(a, b)
    half = stats.norm.ppf((1 + confidence) / 2) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "ppf(confidence)", "leaves out 2.5 % on each side")
def one_sided(a, b, confidence=0.95):
    d = _pairs(a, b)
    half = stats.t.ppf(confidence, len(d) - 1) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "n degrees of freedom", "n - 1")
def n_degrees(a, b, confidence=0.95):
    d = _pairs(a, b)
    half = stats.t.ppf((1 + confidence) / 2, len(d)) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "divides by n in the deviation", "1 / (n - 1)")
def biased(a, b, confidence=0.95):
    d = _pairs(a, b)
    half = (
        stats.t.ppf((1 + confidence) / 2, len(d) - 1)
        * d.std(unbiased=False).item()
        / math.sqrt(len(d))
    )
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "spread of unpaired samples", "spread of the differences")
def unpaired(a, b, confidence=0.95):
    d = _pairs(a, b)
    x, y = (torch.tensor(v, dtype=torch.float64) for v in (a, b))
    spread = (x.var() + y.var()).sqrt().item()
    half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * spread / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "forgets the root of n", "s / sqrt(n)")
def no_root(a, b, confidence=0.95):
    d = _pairs(a, b)
    half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std().item()
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "b - a", "the mean of a - b")
def the_other_way(a, b, confidence=0.95):
    d = _pairs(b, a)
    half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "always 95 %", "confidence is an argument")
def always_95(a, b, confidence=0.95):
    d = _pairs(a, b)
    half = stats.t.ppf(0.975, len(d) - 1) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "zip cuts the longer list", "lists of two lengths raise")
def cut_to_the_shorter(a, b, confidence=0.95):
    d = torch.tensor([x - y for x, y in zip(a, b, strict=False)], dtype=torch.float64)
    if len(d) < 2:
        raise ValueError("fewer than two pairs")
    half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "one pair has an interval of zero", "fewer than two pairs raise")
def one_pair(a, b, confidence=0.95):
    if len(a) != len(b):
        raise ValueError("lists of two lengths")
    d = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    if len(d) < 2:
        return d.mean().item(), d.mean().item(), d.mean().item()
    half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


@wrong("04.paired_interval", "mean and half the width", "the mean, the lower and the upper end")
def half_width(a, b, confidence=0.95):
    d = _pairs(a, b)
    half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), -half, half


def _blend(inputs, order, weight):
    w = weight.view(-1, *[1] * (inputs.dim() - 1))
    return w * inputs + (1 - w) * inputs[order]


def _update(student, teacher, student_view, teacher_view, optimizer, temperature, factor=2):
    teacher.eval()
    student.train()
    with torch.no_grad():
        v = teacher(teacher_view)
    loss = temperature**factor * _kl(v / temperature, student(student_view) / temperature).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("04.mixup_step", "the teacher sees the images as they are", "both see the same blend")
def teacher_sees_the_image(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    view = _blend(inputs, order, weight)
    return _update(student, teacher, view, inputs, optimizer, temperature)


@wrong("04.mixup_step", "blends the teacher's answers", "the teacher sees the blend")
def answers_blended(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    teacher.eval()
    student.train()
    with torch.no_grad():
        v = teacher(inputs)
    v = weight[:, None] * v + (1 - weight[:, None]) * v[order]
    z = student(_blend(inputs, order, weight))
    loss = temperature**2 * _kl(v / temperature, z / temperature).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("04.mixup_step", "weight of the partner", "weight of the row itself")
def partners_weight(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    view = _blend(inputs, order, 1 - weight)
    return _update(student, teacher, view, view, optimizer, temperature)


@wrong("04.mixup_step", "one weight for the whole batch", "the weight of the row")
def one_weight(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    view = weight[0] * inputs + (1 - weight[0]) * inputs[order]
    return _update(student, teacher, view, view, optimizer, temperature)


@wrong("04.mixup_step", "weights shaped for images", "any number of dimensions")
def four_dimensions(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    w = weight[:, None, None, None]
    view = w * inputs + (1 - w) * inputs[order]
    return _update(student, teacher, view, view, optimizer, temperature)


@wrong("04.mixup_step", "blends in place", "inputs stays as it is")
def blends_in_place(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    w = weight.view(-1, *[1] * (inputs.dim() - 1))
    partners = inputs[order]
    inputs.mul_(w).add_((1 - w) * partners)
    return _update(student, teacher, inputs, inputs, optimizer, temperature)


@wrong("04.mixup_step", "no T^2", "T^2 KL")
def mixup_without_factor(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    view = _blend(inputs, order, weight)
    return _update(student, teacher, view, view, optimizer, temperature, factor=0)


@wrong("04.mixup_step", "draws its own partners", "order names the partner")
def own_partners(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    view = _blend(inputs, order.flip(0), weight)
    return _update(student, teacher, view, view, optimizer, temperature)


@wrong("04.mixup_step", "the networks in each other's mode", "teacher eval, student train")
def modes_exchanged(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    view = _blend(inputs, order, weight)
    teacher.train()
    student.eval()
    with torch.no_grad():
        v = teacher(view)
    loss = temperature**2 * _kl(v / temperature, student(view) / temperature).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("04.mixup_step", "a larger weight for the row itself", "w in [0, 1] as given")
def larger_half(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    view = _blend(inputs, order, torch.maximum(weight, 1 - weight))
    return _update(student, teacher, view, view, optimizer, temperature)


def _script_1(student, teacher, images, labels, steps, seed, loss_of, lr=2e-3):
    optimizer = torch.optim.AdamW(student.parameters(), lr)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        z = student(images[rows])
        with torch.no_grad():
            v = teacher(images[rows])
        log_q, log_p = F.log_softmax(z / 2, dim=1), F.log_softmax(v / 2, dim=1)
        total = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        loss = loss_of(z, total, F.cross_entropy(z, labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@wrong("04.exhibit_1", "times ten, the number of classes here", "any number of classes")
def times_ten(student, teacher, images, labels, steps, seed=0):
    def loss_of(z, total, hard):
        return 0.5 * 4 * 10 * total / z.numel() + 0.5 * hard

    _script_1(student, teacher, images, labels, steps, seed, loss_of)


@wrong("04.exhibit_1", "divides by the classes", "a mean over the rows")
def divided_by_classes(student, teacher, images, labels, steps, seed=0):
    def loss_of(z, total, hard):
        return 0.5 * 4 * total / z.shape[1] + 0.5 * hard

    _script_1(student, teacher, images, labels, steps, seed, loss_of)


@wrong("04.exhibit_1", "divides by 32", "a mean over the rows, with fewer than 32 images, too")
def divided_by_32(student, teacher, images, labels, steps, seed=0):
    def loss_of(z, total, hard):
        return 0.5 * 4 * total / 32 + 0.5 * hard

    _script_1(student, teacher, images, labels, steps, seed, loss_of)


@wrong("04.exhibit_1", "divides by nothing", "a mean over the rows")
def the_sum(student, teacher, images, labels, steps, seed=0):
    def loss_of(z, total, hard):
        return 0.5 * 4 * total + 0.5 * hard

    _script_1(student, teacher, images, labels, steps, seed, loss_of)


@wrong("04.exhibit_1", "alpha = 0.9 makes up for it", "repair the cause")
def heavier_alpha(student, teacher, images, labels, steps, seed=0):
    def loss_of(z, total, hard):
        return 0.9 * 4 * total / z.numel() + 0.1 * hard

    _script_1(student, teacher, images, labels, steps, seed, loss_of)


@wrong("04.exhibit_1", "rows right, T^2 lost on the way", "leave everything else as it is")
def factor_lost(student, teacher, images, labels, steps, seed=0):
    def loss_of(z, total, hard):
        return 0.5 * total / len(z) + 0.5 * hard

    _script_1(student, teacher, images, labels, steps, seed, loss_of)


@wrong("04.exhibit_1", "normalises the soft term to the size of the hard one", "repair the cause")
def balanced(student, teacher, images, labels, steps, seed=0):
    def loss_of(z, total, hard):
        soft = 4 * total / z.numel()
        return 0.5 * soft * (hard / soft).detach() + 0.5 * hard

    _script_1(student, teacher, images, labels, steps, seed, loss_of)


@wrong("04.exhibit_1", "ignores the seed", "leave everything else as it is")
def seed_ignored(student, teacher, images, labels, steps, seed=0):
    def loss_of(z, total, hard):
        return 0.5 * 4 * total / len(z) + 0.5 * hard

    _script_1(student, teacher, images, labels, steps, 0, loss_of)


def _epochs_2(student, images, labels, epochs, order_of, target_of):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    for epoch in range(epochs):
        for i, rows in enumerate(order_of(epoch)):
            z, v = student(images[rows]) / 2, target_of(i, rows) / 2
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * 4 * soft + 0.1 * F.cross_entropy(2 * z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _loader(images, seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda *_: torch.randperm(len(images), generator=generator).split(32)


def _ask(teacher, images):
    teacher.eval()
    with torch.no_grad():
        return teacher(images)


@wrong("04.exhibit_2", "asks in the order of the data, looks up by batch", "row i's own target")
def by_batch_number(student, teacher, images, labels, epochs, seed=0):
    student.train()
    parts = _ask(teacher, images).split(32)
    _epochs_2(student, images, labels, epochs, _loader(images, seed), lambda i, rows: parts[i])


@wrong("04.exhibit_2", "draws one order and keeps it", "shuffled anew in each epoch")
def one_order(student, teacher, images, labels, epochs, seed=0):
    student.train()
    order = _loader(images, seed)()
    answers = [_ask(teacher, images[rows]) for rows in order]
    _epochs_2(student, images, labels, epochs, lambda _: order, lambda i, rows: answers[i])


@wrong("04.exhibit_2", "reseeds the loader in each epoch", "shuffled anew in each epoch")
def reseeded(student, teacher, images, labels, epochs, seed=0):
    student.train()
    answers = _ask(teacher, images)
    _epochs_2(
        student,
        images,
        labels,
        epochs,
        lambda _: _loader(images, seed)(),
        lambda i, rows: answers[rows],
    )


@wrong("04.exhibit_2", "no shuffling at all", "the data stay shuffled")
def in_order(student, teacher, images, labels, epochs, seed=0):
    student.train()
    answers = _ask(teacher, images)
    order = torch.arange(len(images)).split(32)
    _epochs_2(student, images, labels, epochs, lambda _: order, lambda i, rows: answers[rows])


@wrong("04.exhibit_2", "joins the shuffled answers, looks up by row", "row i's own target")
def joined_shuffled(student, teacher, images, labels, epochs, seed=0):
    student.train()
    loader = _loader(images, seed)
    answers = torch.cat([_ask(teacher, images[rows]) for rows in loader()])
    _epochs_2(student, images, labels, epochs, loader, lambda i, rows: answers[rows])


@wrong("04.exhibit_2", "asks per batch, with the teacher in train mode", "the teacher's answer")
def asked_in_train_mode(student, teacher, images, labels, epochs, seed=0):
    student.train()
    teacher.train()

    def ask(_, rows):
        with torch.no_grad():
            return teacher(images[rows])

    _epochs_2(student, images, labels, epochs, _loader(images, seed), ask)


@wrong("04.exhibit_2", "sorts the rows of each batch before asking", "row i's own target")
def sorted_rows(student, teacher, images, labels, epochs, seed=0):
    student.train()
    answers = _ask(teacher, images)
    loader = _loader(images, seed)
    _epochs_2(student, images, labels, epochs, loader, lambda i, rows: answers[rows.sort().values])


@wrong("04.exhibit_2", "caches for the class of the label", "what the teacher says about row i")
def by_label(student, teacher, images, labels, epochs, seed=0):
    student.train()
    answers = _ask(teacher, images)
    table = torch.zeros_like(answers[: int(labels.max()) + 1])
    for c in labels.unique():
        table[c] = answers[labels == c].mean(0)
    _epochs_2(
        student, images, labels, epochs, _loader(images, seed), lambda i, rows: table[labels[rows]]
    )


@wrong("04.exhibit_2", "caches soft targets, and softens them again", "leave the rest as it is")
def softened_twice(student, teacher, images, labels, epochs, seed=0):
    student.train()
    answers = _ask(teacher, images).div(2).softmax(1)
    loader = _loader(images, seed)
    _epochs_2(student, images, labels, epochs, loader, lambda i, rows: answers[rows])


@wrong("04.exhibit_2", "counts epochs from one", "train for some epochs")
def one_epoch_short(student, teacher, images, labels, epochs, seed=0):
    student.train()
    answers = _ask(teacher, images)
    loader = _loader(images, seed)
    _epochs_2(student, images, labels, epochs - 1, loader, lambda i, rows: answers[rows])


def _script_3(student, teacher, images, labels, steps, seed, soft_of, logged=None):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    history = []
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            v = teacher(images[rows])
        z = student(images[rows])
        soft = soft_of(z, v)
        hard = F.cross_entropy(z, labels[rows])
        loss = 0.9 * 9.0 * soft + 0.1 * hard
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(soft.item() if logged is None else logged(soft, loss, z, v))
    return history


def _soft_3(z, v):
    return F.kl_div((z / 3).log_softmax(1), (v / 3).softmax(1), reduction="batchmean")


@wrong("04.exhibit_3", "the student without its temperature", "both at T = 3")
def student_cold(student, teacher, images, labels, steps, seed=0):
    def soft(z, v):
        return F.kl_div(z.log_softmax(1), (v / 3).softmax(1), reduction="batchmean")

    return _script_3(student, teacher, images, labels, steps, seed, soft)


@wrong("04.exhibit_3", "networks exchanged", "KL(p || q): the student is the input")
def networks_exchanged(student, teacher, images, labels, steps, seed=0):
    def soft(z, v):
        return F.kl_div((v / 3).log_softmax(1), (z / 3).softmax(1), reduction="batchmean")

    return _script_3(student, teacher, images, labels, steps, seed, soft)


@wrong("04.exhibit_3", "both lines take the student", "the teacher's soft targets")
def student_twice(student, teacher, images, labels, steps, seed=0):
    def soft(z, v):
        return F.kl_div((z / 3).log_softmax(1), (z / 3).softmax(1), reduction="batchmean")

    return _script_3(student, teacher, images, labels, steps, seed, soft)


@wrong("04.exhibit_3", "softmax for log_softmax", "log-probabilities of the student")
def no_logarithm(student, teacher, images, labels, steps, seed=0):
    def soft(z, v):
        return F.kl_div((z / 3).softmax(1), (v / 3).softmax(1), reduction="batchmean")

    return _script_3(student, teacher, images, labels, steps, seed, soft)


@wrong("04.exhibit_3", "right in the log, detached in the loss", "the student feels them")
def detached(student, teacher, images, labels, steps, seed=0):
    def soft(z, v):
        return _soft_3(z.detach(), v)

    return _script_3(student, teacher, images, labels, steps, seed, soft)


@wrong("04.exhibit_3", "logs the weighted soft loss", "the list of soft losses")
def weighted_log(student, teacher, images, labels, steps, seed=0):
    return _script_3(
        student, teacher, images, labels, steps, seed, _soft_3, lambda s, *_: 8.1 * s.item()
    )


@wrong("04.exhibit_3", "logs the whole loss", "the list of soft losses")
def whole_loss(student, teacher, images, labels, steps, seed=0):
    return _script_3(
        student, teacher, images, labels, steps, seed, _soft_3, lambda s, loss, *_: loss.item()
    )


@wrong("04.exhibit_3", "logs the soft loss after the update", "the soft loss of every step")
def logged_afterwards(student, teacher, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    history = []
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            v = teacher(images[rows])
        z = student(images[rows])
        loss = 0.9 * 9.0 * _soft_3(z, v) + 0.1 * F.cross_entropy(z, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            history.append(_soft_3(student(images[rows]), v).item())
    return history


@wrong("04.exhibit_3", "a mean over classes while at it", "leave everything else as it is")
def mean_reduction(student, teacher, images, labels, steps, seed=0):
    def soft(z, v):
        return F.kl_div((z / 3).log_softmax(1), (v / 3).softmax(1), reduction="mean")

    return _script_3(student, teacher, images, labels, steps, seed, soft)


@wrong("04.exhibit_3", "returns the mean of the history", "the list of soft losses")
def mean_of_history(student, teacher, images, labels, steps, seed=0):
    history = _script_3(student, teacher, images, labels, steps, seed, _soft_3)
    return sum(history) / len(history)


def _nothing():
    pass


def _script_4(student, teacher, images, labels, epochs, seed, before, ask, measure, done=_nothing):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    steps, accuracy = -(-len(images) // 32), []
    for epoch in range(epochs):
        before(epoch)
        for rows in batches(len(images), steps, seed + epoch):
            v = ask(images[rows])
            z = student(images[rows])
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        measure()
        accuracy.append((student(images).argmax(1) == labels).double().mean().item())
    done()
    return accuracy


def _no_grad(teacher):
    @torch.no_grad()
    def ask(x):
        return teacher(x)

    return ask


@wrong(
    "04.exhibit_4", "student.train() once, before the epochs", "the student learns in train mode"
)
def train_once(student, teacher, images, labels, epochs, seed=0):
    teacher.eval()
    student.train()
    return _script_4(
        student, teacher, images, labels, epochs, seed, lambda e: None, _no_grad(teacher),
        student.eval,
    )  # fmt: skip


@wrong("04.exhibit_4", "puts the teacher back in the first epoch alone", "teacher in eval mode")
def first_epoch_only(student, teacher, images, labels, epochs, seed=0):
    pair = nn.ModuleDict({"student": student, "teacher": teacher})

    def before(epoch):
        pair.train()
        if epoch == 0:
            teacher.eval()

    return _script_4(
        student, teacher, images, labels, epochs, seed, before, _no_grad(teacher), pair.eval
    )


@wrong("04.exhibit_4", "measures in train mode", "measured in eval mode")
def measured_in_train_mode(student, teacher, images, labels, epochs, seed=0):
    teacher.eval()
    return _script_4(
        student, teacher, images, labels, epochs, seed, lambda e: student.train(),
        _no_grad(teacher), _nothing,
    )  # fmt: skip


@wrong("04.exhibit_4", "freezes the teacher's parameters", "statistics change without a gradient")
def frozen_parameters(student, teacher, images, labels, epochs, seed=0):
    pair = nn.ModuleDict({"student": student, "teacher": teacher})
    teacher.requires_grad_(False)
    return _script_4(
        student, teacher, images, labels, epochs, seed, lambda e: pair.train(),
        _no_grad(teacher), pair.eval,
    )  # fmt: skip


@wrong("04.exhibit_4", "loads the teacher's old state at the end", "repair the cause")
def restored_at_the_end(student, teacher, images, labels, epochs, seed=0):
    pair = nn.ModuleDict({"student": student, "teacher": teacher})
    state = {k: v.clone() for k, v in teacher.state_dict().items()}
    return _script_4(
        student, teacher, images, labels, epochs, seed, lambda e: pair.train(),
        _no_grad(teacher), pair.eval, lambda: teacher.load_state_dict(state),
    )  # fmt: skip


@wrong("04.exhibit_4", "eval after asking", "the teacher is only ever called in eval mode")
def eval_too_late(student, teacher, images, labels, epochs, seed=0):
    pair = nn.ModuleDict({"student": student, "teacher": teacher})

    def ask(x):
        with torch.no_grad():
            v = teacher(x)
        teacher.eval()
        return v

    return _script_4(student, teacher, images, labels, epochs, seed, lambda e: pair.train(), ask,
                     pair.eval)  # fmt: skip


@wrong("04.exhibit_4", "both in eval mode all the time", "the student learns in train mode")
def always_eval(student, teacher, images, labels, epochs, seed=0):
    pair = nn.ModuleDict({"student": student, "teacher": teacher})
    return _script_4(
        student, teacher, images, labels, epochs, seed, lambda e: pair.eval(),
        _no_grad(teacher), pair.eval,
    )  # fmt: skip


@wrong("04.exhibit_4", "eval for BatchNorm alone, dropout stays on", "the teacher in eval mode")
def batchnorm_alone(student, teacher, images, labels, epochs, seed=0):
    pair = nn.ModuleDict({"student": student, "teacher": teacher})

    def before(_):
        pair.train()
        for module in teacher.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 0.0

    return _script_4(
        student, teacher, images, labels, epochs, seed, before, _no_grad(teacher), pair.eval
    )


@wrong("04.exhibit_4", "the same order in each epoch", "leave everything else as it is")
def same_order(student, teacher, images, labels, epochs, seed=0):
    teacher.eval()
    accuracy = []
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    for _ in range(epochs):
        student.train()
        for rows in batches(len(images), -(-len(images) // 32), seed):
            with torch.no_grad():
                v = teacher(images[rows])
            z = student(images[rows])
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        student.eval()
        accuracy.append((student(images).argmax(1) == labels).double().mean().item())
    return accuracy


def _script_5(student, teacher, images, steps, seed, soft_labels):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        loss = 9.0 * F.cross_entropy(student(images[rows]) / 3.0, soft_labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@wrong("04.exhibit_5", "divides the report by T", "at temperature 1")
def report_softened(student, teacher, images, held_out, steps, seed=0):
    soft = _ask(teacher, images).div(3).softmax(1)
    _script_5(student, teacher, images, steps, seed, soft)
    return _ask(student, held_out) / 3


@wrong("04.exhibit_5", "reports in train mode", "in eval mode")
def report_in_train_mode(student, teacher, images, held_out, steps, seed=0):
    soft = _ask(teacher, images).div(3).softmax(1)
    _script_5(student, teacher, images, steps, seed, soft)
    with torch.no_grad():
        return student(held_out)


@wrong("04.exhibit_5", "renames too early: the student labels itself", "the teacher's soft labels")
def own_labels(student, teacher, images, held_out, steps, seed=0):
    soft = _ask(student, images).div(3).softmax(1)
    _script_5(student, teacher, images, steps, seed, soft)
    return _ask(student, held_out)


@wrong("04.exhibit_5", "reports probabilities", "the logits of the held-out images")
def report_probabilities(student, teacher, images, held_out, steps, seed=0):
    soft = _ask(teacher, images).div(3).softmax(1)
    _script_5(student, teacher, images, steps, seed, soft)
    return _ask(student, held_out).softmax(1)


@wrong("04.exhibit_5", "reports on the training images", "the held-out images")
def report_on_training(student, teacher, images, held_out, steps, seed=0):
    soft = _ask(teacher, images).div(3).softmax(1)
    _script_5(student, teacher, images, steps, seed, soft)
    return _ask(student, images)


@wrong("04.exhibit_5", "reports before training", "train, then predict")
def report_before(student, teacher, images, held_out, steps, seed=0):
    report = _ask(student, held_out)
    soft = _ask(teacher, images).div(3).softmax(1)
    _script_5(student, teacher, images, steps, seed, soft)
    return report


@wrong("04.exhibit_5", "averages student and teacher", "the predictions are the student's")
def averaged_report(student, teacher, images, held_out, steps, seed=0):
    soft = _ask(teacher, images).div(3).softmax(1)
    _script_5(student, teacher, images, steps, seed, soft)
    return (_ask(student, held_out) + _ask(teacher, held_out)) / 2


@wrong("04.exhibit_5", "hardens the labels", "the teacher's soft labels")
def hard_labels(student, teacher, images, held_out, steps, seed=0):
    _script_5(student, teacher, images, steps, seed, _ask(teacher, images).argmax(1))
    return _ask(student, held_out)


@wrong("04.exhibit_5", "softens the labels at T = 1", "leave everything else as it is")
def labels_at_one(student, teacher, images, held_out, steps, seed=0):
    _script_5(student, teacher, images, steps, seed, _ask(teacher, images).softmax(1))
    return _ask(student, held_out)


def _script_6(student, teacher, hint, images, labels, steps, seed, optimizers, clear, weight=10.0):
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            target = teacher.features(images[rows])
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + weight * hint(features, target)
        clear()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


@wrong("04.exhibit_6", "the optimiser of the hint alone", "projector and student learn")
def hint_alone(student, teacher, hint, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(hint.parameters(), 2e-3)

    def clear():
        student.zero_grad()
        hint.zero_grad()

    _script_6(student, teacher, hint, images, labels, steps, seed, [optimizer], clear)


@wrong("04.exhibit_6", "clears the student's gradients alone", "the gradient of one batch")
def hint_piles_up(student, teacher, hint, images, labels, steps, seed=0):
    both = [*student.parameters(), *hint.parameters()]
    optimizer = torch.optim.AdamW(both, 2e-3)
    _script_6(student, teacher, hint, images, labels, steps, seed, [optimizer], student.zero_grad)


@wrong(
    "04.exhibit_6", "the teacher's parameters in the optimiser, too", "the teacher does not learn"
)
def everything_learns(student, teacher, hint, images, labels, steps, seed=0):
    everything = [*student.parameters(), *hint.parameters(), *teacher.parameters()]
    optimizer = torch.optim.AdamW(everything, 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + 10.0 * hint(features, teacher.features(images[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@wrong("04.exhibit_6", "SGD for the projector", "leave everything else: AdamW, 2e-3")
def projector_by_sgd(student, teacher, hint, images, labels, steps, seed=0):
    first = torch.optim.AdamW(student.parameters(), 2e-3)
    second = torch.optim.SGD(hint.parameters(), 2e-3)

    def clear():
        first.zero_grad()
        second.zero_grad()

    _script_6(student, teacher, hint, images, labels, steps, seed, [first, second], clear)


@wrong("04.exhibit_6", "a new optimiser for the hint in each step", "AdamW has a memory")
def optimiser_without_memory(student, teacher, hint, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        extra = torch.optim.AdamW(hint.parameters(), 2e-3)
        with torch.no_grad():
            target = teacher.features(images[rows])
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + 10.0 * hint(features, target)
        optimizer.zero_grad()
        extra.zero_grad()
        loss.backward()
        optimizer.step()
        extra.step()


@wrong("04.exhibit_6", "detaches the features before the hint", "the student learns from the hint")
def features_detached(student, teacher, hint, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW([*student.parameters(), *hint.parameters()], 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            target = teacher.features(images[rows])
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + 10.0 * hint(features.detach(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@wrong("04.exhibit_6", "a heavier hint", "a constant that makes up for it is no repair")
def heavier_hint(student, teacher, hint, images, labels, steps, seed=0):
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    _script_6(
        student, teacher, hint, images, labels, steps, seed, [optimizer], optimizer.zero_grad, 100.0
    )


@wrong("04.exhibit_6", "steps on the projector's weight, forgets its bias", "its parameters learn")
def weight_alone(student, teacher, hint, images, labels, steps, seed=0):
    learning = [*student.parameters(), *(p for p in hint.parameters() if p.dim() > 1)]
    optimizer = torch.optim.AdamW(learning, 2e-3)

    def clear():
        student.zero_grad()
        hint.zero_grad()

    _script_6(student, teacher, hint, images, labels, steps, seed, [optimizer], clear)


@wrong("04.exhibit_6", "fits the projector first, then freezes it", "learned with the student")
def fitted_first(student, teacher, hint, images, labels, steps, seed=0):
    teacher.eval()
    student.train()
    extra = torch.optim.AdamW(hint.parameters(), 2e-3)
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            features, target = student.features(images[rows]), teacher.features(images[rows])
        extra.zero_grad()
        hint(features, target).backward()
        extra.step()
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    _script_6(student, teacher, hint, images, labels, steps, seed, [optimizer], optimizer.zero_grad)
