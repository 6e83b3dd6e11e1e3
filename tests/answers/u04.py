"""Right answers to unit 04 that look different from the reference and from each other."""

import copy
import functools
import math
import statistics
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special, stats
from torch import nn
from torch.optim import AdamW

from kdlib.losses import kd_loss, kl_divergence
from kdlib.museum import batches


def _shapes(a, b):
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")


def fidelity_torch(student_logits, teacher_logits):
    _shapes(student_logits, teacher_logits)
    same = student_logits.argmax(-1) == teacher_logits.argmax(-1)
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    kl = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return same.double().mean().item(), kl.item()


def fidelity_library(student_logits, teacher_logits):
    kl = kl_divergence(teacher_logits, student_logits).mean().item()
    top = torch.stack([student_logits, teacher_logits]).max(-1).indices
    return float((top[0] == top[1]).float().double().mean()), kl


def fidelity_loop(student_logits, teacher_logits):
    _shapes(student_logits, teacher_logits)
    same, total = 0, 0.0
    for z, v in zip(student_logits, teacher_logits, strict=True):
        same += int(z.argmax() == v.argmax())
        log_p, log_q = v - v.logsumexp(0), z - z.logsumexp(0)
        total += (log_p.exp() * (log_p - log_q)).sum().item()
    return same / len(student_logits), total / len(student_logits)


def fidelity_cross_entropy(student_logits, teacher_logits):
    _shapes(student_logits, teacher_logits)
    p = teacher_logits.softmax(-1)
    cross = F.cross_entropy(student_logits, p)
    entropy = torch.special.entr(p).sum(-1).mean()
    hits = torch.eq(student_logits.argmax(1), teacher_logits.argmax(1)).sum().item()
    return [hits / p.shape[0], (cross - entropy).item()]


def fidelity_numpy(student_logits, teacher_logits):
    _shapes(student_logits, teacher_logits)
    z, v = student_logits.detach().numpy(), teacher_logits.detach().numpy()
    log_q, log_p = special.log_softmax(z, axis=1), special.log_softmax(v, axis=1)
    kl = np.sum(np.exp(log_p) * (log_p - log_q), axis=1)
    return np.mean(z.argmax(1) == v.argmax(1)).item(), kl.mean().item()


def fidelity_cumulant(student_logits, teacher_logits):
    """KL = log E_p exp(d) - E_p d with d the difference of the logits."""
    _shapes(student_logits, teacher_logits)
    log_p = teacher_logits.log_softmax(1)
    d = student_logits - teacher_logits
    kl = torch.logsumexp(log_p + d, 1) - torch.einsum("nc,nc->n", log_p.exp(), d)
    apart = torch.count_nonzero(student_logits.max(1)[1] - teacher_logits.max(1)[1])
    return 1 - apart.item() / len(d), kl.double().mean().item()


def fidelity_double_inside(student_logits, teacher_logits):
    if tuple(student_logits.size()) != tuple(teacher_logits.size()):
        raise ValueError("student and teacher answered different questions")
    both = torch.stack([student_logits, teacher_logits]).to(torch.float64)
    log_q, log_p = F.log_softmax(both, dim=-1)
    same = torch.eq(*both.argmax(dim=-1))
    kl = nn.KLDivLoss(reduction="batchmean", log_target=True)(log_q, log_p)
    return same.sum() / same.numel(), kl


class _FidelitySum:
    """Adds up row after row."""

    def __init__(self):
        self.rows, self.same, self.kl = 0, 0, 0.0

    def add(self, z, v):
        p = v.softmax(0)
        self.rows += 1
        self.same += z.topk(1).indices.item() == v.topk(1).indices.item()
        self.kl += (torch.special.xlogy(p, p) - p * z.log_softmax(0)).sum().item()


def fidelity_sum(student_logits, teacher_logits):
    _shapes(student_logits, teacher_logits)
    found = _FidelitySum()
    for z, v in zip(student_logits, teacher_logits, strict=True):
        found.add(z, v)
    return found.same / found.rows, found.kl / found.rows


def ece_masks(logits, targets, bins=15):
    confidence, predicted = logits.softmax(-1).max(-1)
    right = (predicted == targets).to(confidence.dtype)
    total = 0.0
    for b in range(bins):
        rows = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if rows.any():
            gap = (right[rows].mean() - confidence[rows].mean()).abs().item()
            total += rows.sum().item() / len(targets) * gap
    return total


def ece_bucketize(logits, targets, bins=15):
    confidence, predicted = logits.softmax(-1).max(-1)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)
    index = torch.bucketize(confidence, edges[1:-1])
    surplus = confidence - (predicted == targets).to(confidence.dtype)
    sums = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, index, surplus)
    return (sums.abs().sum() / len(targets)).item()


def ece_numpy(logits, targets, bins=15):
    z = logits.numpy() - logits.numpy().max(1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    confidence, right = p.max(1), p.argmax(1) == targets.numpy()
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, right, bins) - np.bincount(index, confidence, bins)
    return float(np.abs(gaps).sum() / len(right))


def ece_dict(logits, targets, bins=15):
    found = {}
    for row, y in zip(logits.softmax(1).tolist(), targets.tolist(), strict=True):
        sure = max(row)
        entry = found.setdefault(min(bins, max(1, math.ceil(sure * bins))), [0.0, 0.0])
        entry[0] += sure
        entry[1] += row.index(sure) == y
    return sum(abs(right - sure) for sure, right in found.values()) / len(targets)


def ece_one_hot(logits, targets, bins=15):
    """A matrix that says which row lies in which bin."""
    confidence, predicted = F.softmax(logits, dim=1).max(dim=1)
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    inside = F.one_hot(index, bins).to(confidence.dtype)  # (N, bins)
    gap = (predicted == targets).to(confidence.dtype) - confidence
    return (gap @ inside).abs().sum().div(len(gap)).item()


def ece_sorted(logits, targets, bins=15):
    """Sort the rows by confidence and cut the row of gaps at the edges."""
    confidence, predicted = logits.double().softmax(1).max(1)
    confidence, order = confidence.sort()
    gaps = torch.eq(predicted, targets)[order].double() - confidence
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    cuts = torch.searchsorted(confidence, edges, right=True).tolist()
    return sum(abs(part.sum().item()) for part in gaps.tensor_split(cuts)) / len(gaps)


def ece_bin_means(logits, targets, bins=15):
    p = logits.softmax(-1)
    sure = p.amax(-1)
    right = p.argmax(-1) == targets
    total, before = 0.0, torch.zeros_like(right)
    for b in range(1, bins + 1):
        up_to_here = sure <= b / bins if b < bins else torch.ones_like(right)
        rows = (up_to_here & ~before).nonzero().flatten()
        before = up_to_here
        if len(rows) > 0:
            accuracy = right[rows].double().mean().item()
            total += len(rows) / len(sure) * abs(accuracy - sure[rows].double().mean().item())
    return total


def ece_scipy(logits, targets, bins=15):
    p = special.softmax(logits.detach().numpy(), axis=1)
    sure, hits = p.max(axis=1), p.argmax(axis=1) == targets.numpy()
    index = np.digitize(sure, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    sums = np.zeros(bins)
    np.add.at(sums, index, hits - sure)
    return np.linalg.norm(sums, ord=1) / len(sure)


def _pairs(a, b):
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"needs at least 2 pairs, got {len(a)} and {len(b)} numbers")


def interval_torch(a, b, confidence=0.95):
    _pairs(a, b)
    d = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std().item() / math.sqrt(len(d))
    return d.mean().item(), d.mean().item() - half, d.mean().item() + half


def interval_float32(a, b, confidence=0.95):
    """Accuracies are float32 as a rule, and nobody reads the sixth digit."""
    _pairs(a, b)
    d = torch.tensor(a) - torch.tensor(b)
    half = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * d.std() / math.sqrt(len(d))
    return d.mean(), d.mean() - half, d.mean() + half


def interval_scipy(a, b, confidence=0.95):
    _pairs(a, b)
    d = np.subtract(a, b)
    low, high = stats.t.interval(confidence, len(d) - 1, loc=d.mean(), scale=stats.sem(d))
    return d.mean(), low, high


def interval_test(a, b, confidence=0.95):
    _pairs(a, b)
    low, high = stats.ttest_rel(a, b).confidence_interval(confidence)
    return (low + high) / 2, low, high


def interval_plain(a, b, confidence=0.95):
    _pairs(a, b)
    n, d = len(a), [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(d) / n
    variance = sum((x - mean) ** 2 for x in d) / (n - 1)
    half = -stats.t.ppf((1 - confidence) / 2, n - 1) * (variance / n) ** 0.5
    return [mean, mean - half, mean + half]


def interval_statistics(a, b, confidence=0.95):
    """The standard library for the mean and the deviation."""
    _pairs(a, b)
    d = [x - y for x, y in zip(a, b, strict=True)]
    mean = statistics.fmean(d)
    half = stats.t.isf((1 - confidence) / 2, len(d) - 1) * statistics.stdev(d) / len(d) ** 0.5
    return mean, mean - half, mean + half


def interval_frozen(a, b, confidence=0.95):
    """A t distribution with a place and a scale of its own."""
    if len(a) < 2 or len(a) != len(b):
        raise ValueError("an interval needs pairs, and two of them at least")
    d = np.array(a, dtype=float) - np.array(b, dtype=float)
    t = stats.t(df=d.size - 1, loc=d.mean(), scale=d.std(ddof=1) / np.sqrt(d.size))
    tail = (1 - confidence) / 2
    return float(d.mean()), float(t.ppf(tail)), float(t.ppf(1 - tail))


def interval_one_sample(a, b, confidence=0.95):
    _pairs(a, b)
    found = stats.ttest_1samp([x - y for x, y in zip(a, b, strict=True)], popmean=0.0)
    interval = found.confidence_interval(confidence_level=confidence)
    mean = torch.tensor(a, dtype=torch.float64).sub(torch.tensor(b, dtype=torch.float64)).mean()
    return mean.item(), interval.low, interval.high


def mixup_plain(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    shape = (-1,) + (1,) * (inputs.dim() - 1)
    w = weight.reshape(shape).to(inputs.dtype)
    view = w * inputs + (1 - w) * inputs[order]
    teacher.eval()
    student.train()
    with torch.no_grad():
        p = (teacher(view) / temperature).softmax(-1)
    log_q = (student(view) / temperature).log_softmax(-1)
    loss = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def mixup_lerp(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    view = torch.stack(
        [
            torch.lerp(inputs[j], inputs[i], w)
            for i, (j, w) in enumerate(zip(order, weight, strict=True))
        ]
    )
    student.train()
    with torch.no_grad():
        target = teacher.eval()(view)
    z = student(view)
    loss = temperature**2 * kl_divergence(target, z, temperature).mean()
    student.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss)


def mixup_kd_loss(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    flat = inputs.flatten(1)
    view = torch.einsum("b,bd->bd", weight, flat) + (1 - weight)[:, None] * flat[order]
    view = view.view_as(inputs)
    student.train()
    teacher.eval()
    with torch.inference_mode():
        v = teacher(view)
    v = v.clone()
    optimizer.zero_grad()
    y = torch.zeros(len(view), dtype=torch.long)
    loss = kd_loss(student(view), v, y, temperature, alpha=1.0)
    loss.backward()
    optimizer.step()
    return loss.item()


def mixup_clone(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    w = weight.view(len(weight), *[1] * (inputs.ndim - 1))
    view = inputs.clone().mul_(w).add_((1 - w) * inputs[order])
    teacher.train(False)
    student.train(True)
    v = torch.no_grad()(teacher)(view) / temperature
    z = student(view) / temperature
    loss = (v.softmax(1) * (v.log_softmax(1) - z.log_softmax(1))).sum(1).mean()
    loss = loss * temperature**2
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach().item()


def mixup_matrix(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    """The blend as a matrix product with (B, B) weights."""
    rows = len(inputs)
    w = weight.to(inputs.dtype)
    blend = torch.diag(w) + torch.diag(1 - w) @ F.one_hot(order, rows).to(inputs.dtype)
    view = (blend @ inputs.reshape(rows, -1)).reshape(inputs.shape)
    with torch.no_grad():
        log_p = F.log_softmax(teacher.eval()(view) / temperature, dim=1)
    log_q = F.log_softmax(student.train()(view) / temperature, dim=1)
    loss = F.kl_div(log_q, log_p, reduction="sum", log_target=True) * temperature**2 / rows
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def mixup_closure(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    w = weight[(...,) + (None,) * (inputs.dim() - 1)].to(inputs.dtype)
    partner = inputs.index_select(0, order)
    view = partner + w * (inputs - partner)
    student.train(), teacher.eval()
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        v = teacher(view)
    finally:
        torch.set_grad_enabled(before)

    def closure():
        optimizer.zero_grad()
        loss = temperature**2 * kl_divergence(v, student(view), temperature).mean()
        loss.backward()
        return loss

    return float(optimizer.step(closure))


def mixup_rows(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    pairs = zip(inputs, inputs[order], weight.tolist(), strict=True)
    view = torch.stack([w * x + (1 - w) * y for x, y, w in pairs])
    teacher.train(mode=False)
    with torch.autograd.no_grad():
        v = teacher(view)
    student.train(mode=True)
    optimizer.zero_grad()
    total = 0.0
    for row, target in zip(student(view), v, strict=True):
        log_p, log_q = ((x / temperature).log_softmax(0) for x in (target, row))
        total = total + torch.dot(log_p.exp(), log_p - log_q)
    loss = total * temperature * temperature / len(view)
    loss.backward()
    optimizer.step()
    return loss.item()


def mixup_teacher_put_back(student, teacher, inputs, order, weight, optimizer, temperature=1.0):
    """The teacher leaves in the mode in which it came."""
    w = weight.view(-1, *(1 for _ in inputs.shape[1:]))
    view = torch.lerp(inputs[order], inputs, w.expand_as(inputs).to(inputs.dtype))
    mode = teacher.training
    try:
        with torch.no_grad():
            p = teacher.eval()(view).div(temperature).softmax(dim=-1)
    finally:
        teacher.train(mode)
    student.train()
    z = student(view) / temperature
    gain = F.cross_entropy(z, p) - torch.special.entr(p).sum() / len(p)
    loss = temperature**2 * gain
    student.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def _one(soft, student, teacher, images, labels, steps, seed):
    """Train as exhibit 1 does, with this soft term."""
    optimizer = AdamW(student.parameters(), 2e-3)
    T, alpha = 2.0, 0.5
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        z = student(images[rows])
        with torch.no_grad():
            v = teacher(images[rows])
        loss = alpha * T * T * soft(z / T, v / T)
        loss = loss + (1 - alpha) * F.cross_entropy(z, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batchmean(z, v):
    return F.kl_div(z.log_softmax(1), v.log_softmax(1), reduction="batchmean", log_target=True)


def _summed(z, v):
    total = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="sum")
    return total / z.shape[0]


def _mean_times_classes(z, v):
    mean = F.kl_div(z.log_softmax(1), v.log_softmax(1), reduction="mean", log_target=True)
    return mean * z.shape[1]


def _by_rows(z, v):
    return F.kl_div(z.log_softmax(1), v.softmax(1), reduction="none").sum(dim=1).mean()


def batchmean(student, teacher, images, labels, steps, seed=0):
    _one(_batchmean, student, teacher, images, labels, steps, seed)


def sum_over_rows(student, teacher, images, labels, steps, seed=0):
    _one(_summed, student, teacher, images, labels, steps, seed)


def mean_times_classes(student, teacher, images, labels, steps, seed=0):
    _one(_mean_times_classes, student, teacher, images, labels, steps, seed)


def row_by_row(student, teacher, images, labels, steps, seed=0):
    _one(_by_rows, student, teacher, images, labels, steps, seed)


def one_kd_loss(student, teacher, images, labels, steps, seed=0):
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            v = teacher(images[rows])
        loss = kd_loss(student(images[rows]), v, labels[rows], temperature=2.0, alpha=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def one_soft_cross_entropy(student, teacher, images, labels, steps, seed=0):
    """Without the teacher's entropy: a constant has no gradient."""
    optimizer = AdamW(student.parameters(), lr=2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            p = teacher.eval()(images[rows]).div(2.0).softmax(dim=1)
        z = student(images[rows])
        loss = 0.5 * 4.0 * F.cross_entropy(z / 2.0, p) + 0.5 * F.cross_entropy(z, labels[rows])
        student.zero_grad()
        loss.backward()
        optimizer.step()


def one_asked_in_advance(student, teacher, images, labels, steps, seed=0):
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()
    with torch.no_grad():
        known = torch.cat([teacher(part) for part in images.split(16)])
    for rows in batches(len(images), steps, seed):
        z, y = student(images[rows]), labels[rows]
        soft = kl_divergence(known[rows], z, 2.0)
        hard = -z.log_softmax(1)[torch.arange(len(y)), y]
        loss = (2.0 * soft + 0.5 * hard).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def one_gradient_by_hand(student, teacher, images, labels, steps, seed=0):
    """The gradient at the logits, and autograd from there on."""
    optimizer = AdamW(student.parameters(), 2e-3)
    T, alpha = 2.0, 0.5
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        z = student(images[rows])
        with torch.no_grad():
            v = teacher(images[rows])
            soft = T * ((z / T).softmax(1) - (v / T).softmax(1))
            hard = z.softmax(1) - F.one_hot(labels[rows], z.shape[1])
        optimizer.zero_grad()
        z.backward((alpha * soft + (1 - alpha) * hard) / len(z))
        optimizer.step()


def _two(prepare, target, student, teacher, images, labels, epochs, seed):
    """Train as exhibit 2 does: `prepare` before the epochs, `target` of a batch."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()
    with torch.no_grad():
        known = prepare(teacher, images)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(32):
            with torch.no_grad():
                v = target(known, teacher, images, rows) / 2
            z = student(images[rows]) / 2
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * 4 * soft + 0.1 * F.cross_entropy(2 * z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def cache_dict(student, teacher, images, labels, epochs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()

    def loader():
        return torch.randperm(len(images), generator=generator).split(32)

    known = {}
    with torch.no_grad():
        for rows in loader():
            known.update(zip(rows.tolist(), teacher(images[rows]), strict=True))
    for _ in range(epochs):
        for rows in loader():
            z = student(images[rows])
            v = torch.stack([known[i] for i in rows.tolist()])
            loss = kd_loss(z, v, labels[rows], 2.0, 0.9)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def cache_by_index(student, teacher, images, labels, epochs, seed=0):
    _two(
        lambda t, x: t(x),
        lambda known, t, x, rows: known[rows],
        student,
        teacher,
        images,
        labels,
        epochs,
        seed,
    )


def no_cache(student, teacher, images, labels, epochs, seed=0):
    _two(
        lambda t, x: None,
        lambda known, t, x, rows: t(x[rows]),
        student,
        teacher,
        images,
        labels,
        epochs,
        seed,
    )


def cache_of_single_rows(student, teacher, images, labels, epochs, seed=0):
    _two(
        lambda t, x: [t(row[None])[0] for row in x],
        lambda known, t, x, rows: torch.stack([known[i] for i in rows]),
        student,
        teacher,
        images,
        labels,
        epochs,
        seed,
    )


def two_memo(student, teacher, images, labels, epochs, seed=0):
    """Asks about an image when it first needs it, and remembers."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()

    @functools.cache
    @torch.no_grad()
    def ask(index):
        return teacher(images[index : index + 1])[0]

    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(32):
            v = torch.stack([ask(i) for i in rows.tolist()])
            loss = kd_loss(student(images[rows]), v, labels[rows], 2.0, 0.9)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def two_embedding(student, teacher, images, labels, epochs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(student.parameters(), lr=2e-3)
    student.train()
    teacher.eval()
    with torch.no_grad():
        table = nn.Embedding.from_pretrained(torch.cat([teacher(x) for x in images.split(7)]))
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            z, v = student(images[rows]), table(rows)
            log_q, p = (z / 2).log_softmax(1), (v / 2).softmax(1)
            soft = F.kl_div(log_q, p, reduction="sum") / len(rows)
            loss = 3.6 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            optimizer.step()


def two_data_loader(student, teacher, images, labels, epochs, seed=0):
    """The teacher's answer travels with its image."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    with torch.no_grad():
        answers = torch.cat([teacher.eval()(x) for x in images.split(32)])
    data = torch.utils.data.TensorDataset(images, answers, labels)
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, generator=generator)
    for _ in range(epochs):
        for x, v, y in loader:
            z = student(x)
            soft = kl_divergence(v, z, 2.0).mean()
            loss = 0.9 * 4 * soft + 0.1 * F.cross_entropy(z, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def two_written_by_index(student, teacher, images, labels, epochs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()

    def loader():
        return torch.randperm(len(images), generator=generator).split(32)

    known = None
    for rows in loader():
        with torch.no_grad():
            v = teacher(images[rows])
        known = v.new_empty(len(images), v.shape[1]) if known is None else known
        known[rows] = v
    for rows in chain.from_iterable(loader() for _ in range(epochs)):
        z = student(images[rows])
        p, log_q = (known[rows] / 2).softmax(1), (z / 2).log_softmax(1)
        soft = (torch.special.xlogy(p, p) - p * log_q).sum(1).mean()
        loss = 0.9 * 4 * soft + 0.1 * F.nll_loss(z.log_softmax(1), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _three(soft, student, teacher, images, labels, steps, seed):
    optimizer = AdamW(student.parameters(), 2e-3)
    history = []
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            v = teacher(images[rows])
        z = student(images[rows])
        soft_loss = soft(z / 3.0, v / 3.0)
        loss = 0.9 * 9.0 * soft_loss + 0.1 * F.cross_entropy(z, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(soft_loss.item())
    return history


def log_softmax_of_output(student, teacher, images, labels, steps, seed=0):
    return _three(
        lambda z, v: F.kl_div(z.log_softmax(-1), v.softmax(-1), reduction="batchmean"),
        student,
        teacher,
        images,
        labels,
        steps,
        seed,
    )


def log_target(student, teacher, images, labels, steps, seed=0):
    return _three(_batchmean, student, teacher, images, labels, steps, seed)


def by_hand(student, teacher, images, labels, steps, seed=0):
    return _three(
        lambda z, v: (v.softmax(1) * (v.log_softmax(1) - z.log_softmax(1))).sum(1).mean(),
        student,
        teacher,
        images,
        labels,
        steps,
        seed,
    )


def library(student, teacher, images, labels, steps, seed=0):
    return _three(
        lambda z, v: kl_divergence(v, z).mean(), student, teacher, images, labels, steps, seed
    )


def three_module(student, teacher, images, labels, steps, seed=0):
    optimizer = AdamW(student.parameters(), 2e-3)
    criterion, history = nn.KLDivLoss(reduction="batchmean"), []
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            p = F.softmax(teacher(images[rows]) / 3.0, dim=-1)
        output = student(images[rows])
        soft = criterion(F.log_softmax(output / 3.0, dim=-1), p)
        loss = 0.9 * 9.0 * soft + 0.1 * F.cross_entropy(output, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history += [float(soft.detach())]
    return history


def three_kept_as_tensors(student, teacher, images, labels, steps, seed=0):
    """Only at the end do the losses become numbers."""
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    teacher.eval()
    found = []
    for rows in batches(len(images), steps, seed):
        z = student(images[rows])
        v = torch.no_grad()(teacher)(images[rows])
        loss = kd_loss(z, v, labels[rows], temperature=3.0, alpha=0.9)
        found.append(kl_divergence(v, z.detach(), 3.0).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.stack(found).tolist()


def three_cross_entropies(student, teacher, images, labels, steps, seed=0):
    """The KL as the cross-entropy less the entropy."""
    optimizer = AdamW(student.parameters(), 2e-3)
    history = []
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            v = teacher(images[rows]) / 3.0
            p = v.softmax(-1)
            entropy = F.cross_entropy(v, p)
        output = student(images[rows])
        soft_loss = F.cross_entropy(output / 3.0, p) - entropy
        label_loss = F.cross_entropy(output, labels[rows])
        optimizer.zero_grad()
        (8.1 * soft_loss + 0.1 * label_loss).backward()
        optimizer.step()
        history.append(soft_loss.item())
    return history


def three_rows(student, teacher, images, labels, steps, seed=0):
    optimizer = AdamW(student.parameters(), 2e-3)
    history = [0.0] * steps
    student.train()
    teacher.eval()
    for step, rows in enumerate(batches(len(images), steps, seed)):
        with torch.no_grad():
            targets = [v.div(3.0).log_softmax(0) for v in teacher(images[rows])]
        output = student(images[rows])
        soft = 0.0
        for z, log_p in zip(output, targets, strict=True):
            soft = soft + (log_p.exp() @ (log_p - (z / 3.0).log_softmax(0))) / len(rows)
        hard = F.nll_loss(output.log_softmax(1), labels[rows])
        optimizer.zero_grad()
        torch.add(hard * 0.1, soft, alpha=8.1).backward()
        optimizer.step()
        history[step] = soft.item()
    return history


def _four(modes, ask, student, teacher, images, labels, epochs, seed):
    optimizer = AdamW(student.parameters(), 2e-3)
    steps, accuracy = -(-len(images) // 32), []
    teacher.eval()
    for epoch in range(epochs):
        modes(student, teacher)
        for rows in batches(len(images), steps, seed + epoch):
            with torch.no_grad():
                v = ask(teacher, images[rows])
            z = student(images[rows])
            soft = F.kl_div(z.log_softmax(1), v.softmax(1), reduction="batchmean")
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        student.eval()
        with torch.no_grad():
            hits = student(images).argmax(1) == labels
        accuracy.append(hits.double().mean().item())
    return accuracy


def _pair_train(student, teacher):
    pair = nn.ModuleList([student, teacher])
    pair.train()
    teacher.eval()


def _student_train(student, teacher):
    student.train()


def _both_modes(student, teacher):
    for network, mode in ((student, True), (teacher, False)):
        network.train(mode)


def _every_module(student, teacher):
    for part in teacher.modules():
        part.training = False
    student.train()


def _always_eval(teacher, x):
    return teacher.eval()(x)


def student_only(student, teacher, images, labels, epochs, seed=0):
    return _four(
        _student_train,
        lambda teacher, x: teacher(x),
        student,
        teacher,
        images,
        labels,
        epochs,
        seed,
    )


def pair_then_teacher(student, teacher, images, labels, epochs, seed=0):
    return _four(
        _pair_train, lambda teacher, x: teacher(x), student, teacher, images, labels, epochs, seed
    )


def both_modes(student, teacher, images, labels, epochs, seed=0):
    return _four(
        _both_modes, lambda teacher, x: teacher(x), student, teacher, images, labels, epochs, seed
    )


def every_module(student, teacher, images, labels, epochs, seed=0):
    return _four(
        _every_module, lambda teacher, x: teacher(x), student, teacher, images, labels, epochs, seed
    )


def eval_at_each_question(student, teacher, images, labels, epochs, seed=0):
    return _four(_student_train, _always_eval, student, teacher, images, labels, epochs, seed)


@contextmanager
def _mode(network, training):
    before = network.training
    network.train(training)
    try:
        yield network
    finally:
        network.train(before)


def four_context_manager(student, teacher, images, labels, epochs, seed=0):
    teacher.eval()
    optimizer = AdamW(student.parameters(), 2e-3)
    steps, found = -(-len(images) // 32), []
    for epoch in range(epochs):
        with _mode(student, True):
            for rows in batches(len(images), steps, seed + epoch):
                with torch.no_grad():
                    v = teacher(images[rows])
                loss = kd_loss(student(images[rows]), v, labels[rows], temperature=1.0, alpha=0.9)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with _mode(student, False), torch.no_grad():
            found.append(float((student(images).argmax(1) == labels).double().mean()))
    return found


def four_asked_in_advance(student, teacher, images, labels, epochs, seed=0):
    with torch.no_grad():
        p = torch.cat([teacher.eval()(x) for x in images.split(32)]).softmax(1)
    optimizer = AdamW(student.parameters(), 2e-3)
    steps, found = -(-len(images) // 32), []
    for epoch in range(epochs):
        student.train()
        for rows in batches(len(images), steps, seed + epoch):
            z = student(images[rows])
            soft = F.kl_div(z.log_softmax(1), p[rows], reduction="batchmean")
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        student.eval()
        hits = sum(
            (student(x).argmax(1) == y).sum().item()
            for x, y in zip(images.split(32), labels.split(32), strict=True)
        )
        found.append(hits / len(images))
    return found


def four_library(student, teacher, images, labels, epochs, seed=0):
    from kdlib.evaluation import accuracy, predict

    pair = nn.ModuleDict({"student": student, "teacher": teacher})
    optimizer = AdamW(pair["student"].parameters(), 2e-3)
    steps, found = -(-len(images) // 32), []
    for epoch in range(epochs):
        for rows in batches(len(images), steps, seed + epoch):
            pair.train()
            z = pair["student"](images[rows])
            pair.eval()
            with torch.no_grad():
                v = pair["teacher"](images[rows])
            soft = kl_divergence(v, z).mean()
            loss = 0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(accuracy(predict(student, images), labels))
    return found


def four_two_epoch_functions(student, teacher, images, labels, epochs, seed=0):
    optimizer = AdamW(student.parameters(), 2e-3)

    def train(epoch):
        student.train()
        teacher.eval()
        for rows in batches(len(images), math.ceil(len(images) / 32), seed + epoch):
            z, v = student(images[rows]), torch.no_grad()(teacher)(images[rows])
            soft = (v.softmax(1) * (v.log_softmax(1) - z.log_softmax(1))).sum() / len(rows)
            optimizer.zero_grad()
            (0.9 * soft + 0.1 * F.cross_entropy(z, labels[rows])).backward()
            optimizer.step()

    @torch.no_grad()
    def measure():
        return student.eval()(images).max(dim=1)[1].eq(labels).double().mean().item()

    found = []
    for epoch in range(epochs):
        train(epoch)
        found.append(measure())
    return found


def _five(predict, student, teacher, images, held_out, steps, seed):
    T = 3.0
    teacher.eval()
    with torch.no_grad():
        soft_labels = (teacher(images) / T).softmax(dim=1)
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        loss = T * T * F.cross_entropy(student(images[rows]) / T, soft_labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return predict(student, held_out)


def _eval_and_no_grad(student, x):
    student.eval()
    with torch.no_grad():
        return student(x)


def _library(student, x):
    from kdlib.evaluation import predict

    return predict(student, x, 5)


def _copied(student, x):
    return copy.deepcopy(student).eval()(x).detach()


def _row_by_row(student, x):
    student.eval()
    return torch.cat([student(row[None]).detach() for row in x])


def eval_and_no_grad(student, teacher, images, held_out, steps, seed=0):
    return _five(_eval_and_no_grad, student, teacher, images, held_out, steps, seed)


def kdlib_predict(student, teacher, images, held_out, steps, seed=0):
    return _five(_library, student, teacher, images, held_out, steps, seed)


def a_copy(student, teacher, images, held_out, steps, seed=0):
    return _five(_copied, student, teacher, images, held_out, steps, seed)


def row_by_row_predictions(student, teacher, images, held_out, steps, seed=0):
    return _five(_row_by_row, student, teacher, images, held_out, steps, seed)


def five_kl(student, teacher, images, held_out, steps, seed=0):
    """The KL in place of the cross-entropy: the difference is a constant."""
    T = 3.0
    teacher.eval()
    with torch.no_grad():
        log_p = torch.cat([teacher(x) / T for x in images.split(16)]).log_softmax(1)
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        log_q = (student(images[rows]) / T).log_softmax(dim=1)
        loss = T * T * F.kl_div(log_q, log_p[rows], reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():
        return student(held_out)


def five_asked_each_time(student, teacher, images, held_out, steps, seed=0):
    optimizer = AdamW(student.parameters(), 2e-3)
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            v = teacher.eval()(images[rows])
        loss = 9.0 * kl_divergence(v, student.train()(images[rows]), 3.0).mean()
        student.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        logits = student.eval()(held_out)
    return logits.clone()


def five_gradient_by_hand(student, teacher, images, held_out, steps, seed=0):
    """The gradient of T^2 CE at the logits is T (q - p)."""
    T = 3.0
    with torch.no_grad():
        p = torch.softmax(teacher.eval()(images) / T, dim=1)
    optimizer = AdamW(student.parameters(), 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        z = student(images[rows])
        optimizer.zero_grad()
        z.backward(T * (z.detach().div(T).softmax(1) - p[rows]) / len(rows))
        optimizer.step()
    student.eval()
    return torch.cat([student(x).detach() for x in held_out.split(8)])


def five_named_apart(student, teacher, images, held_out, steps, seed=0):
    """Two functions, each of which knows one network."""

    @torch.no_grad()
    def ask(network, x):
        network.eval()
        return network(x)

    def learn(network, targets):
        optimizer = AdamW(network.parameters(), 2e-3)
        network.train()
        for rows in batches(len(images), steps, seed):
            log_q = torch.log_softmax(network(images[rows]) / 3.0, dim=1)
            loss = -9.0 * (targets[rows] * log_q).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    learn(student, (ask(teacher, images) / 3.0).softmax(dim=1))
    return ask(student, held_out)


def _six(build, clear, apply, student, teacher, hint, images, labels, steps, seed):
    optimizers = build(student, hint)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            target = teacher.features(images[rows])
        features = student.features(images[rows])
        label_loss = F.cross_entropy(student.head(features), labels[rows])
        loss = label_loss + 10.0 * hint(features, target)
        clear(optimizers, student, hint)
        loss.backward()
        apply(optimizers)


def _clear_all(optimizers, student, hint):
    for optimizer in optimizers:
        optimizer.zero_grad()


def _clear_modules(optimizers, student, hint):
    student.zero_grad()
    hint.zero_grad()


def _apply_all(optimizers):
    for optimizer in optimizers:
        optimizer.step()


def _joined(s, h):
    return [AdamW([*s.parameters(), *h.parameters()], 2e-3)]


def _groups(s, h):
    return [AdamW([{"params": s.parameters()}, {"params": h.parameters()}], lr=2e-3)]


def _two_optimizers(s, h):
    return [AdamW(m.parameters(), 2e-3) for m in (s, h)]


def _module_list(s, h):
    return [AdamW(nn.ModuleList([h, s]).parameters(), lr=2e-3)]


def _added(s, h):
    optimizer = AdamW(s.parameters(), 2e-3)
    optimizer.add_param_group({"params": list(h.parameters())})
    return [optimizer]


def one_list(student, teacher, hint, images, labels, steps, seed=0):
    _six(_joined, _clear_all, _apply_all, student, teacher, hint, images, labels, steps, seed)


def two_groups(student, teacher, hint, images, labels, steps, seed=0):
    _six(_groups, _clear_modules, _apply_all, student, teacher, hint, images, labels, steps, seed)


def two_optimizers(student, teacher, hint, images, labels, steps, seed=0):
    _six(
        _two_optimizers, _clear_all, _apply_all, student, teacher, hint, images, labels, steps, seed
    )


def module_list(student, teacher, hint, images, labels, steps, seed=0):
    _six(_module_list, _clear_all, _apply_all, student, teacher, hint, images, labels, steps, seed)


def group_added(student, teacher, hint, images, labels, steps, seed=0):
    _six(_added, _clear_modules, _apply_all, student, teacher, hint, images, labels, steps, seed)


def six_chain(student, teacher, hint, images, labels, steps, seed=0):
    optimizer = AdamW(chain(student.parameters(), hint.parameters()), lr=2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        x, y = images[rows], labels[rows]
        features = student.features(x)
        target = torch.no_grad()(teacher.features)(x)
        nats = -student.head(features).log_softmax(1).gather(1, y[:, None]).mean()
        optimizer.zero_grad()
        (nats + 10.0 * hint(features, target)).backward()
        optimizer.step()


def six_two_backwards(student, teacher, hint, images, labels, steps, seed=0):
    """The gradients of the two losses add up by themselves."""
    both = nn.ModuleDict({"student": student, "hint": hint})
    optimizer = AdamW(both.parameters(), 2e-3)
    student.train()
    teacher.eval()
    for rows in batches(len(images), steps, seed):
        features = student.features(images[rows])
        optimizer.zero_grad()
        F.cross_entropy(student.head(features), labels[rows]).backward(retain_graph=True)
        with torch.no_grad():
            target = teacher.features(images[rows])
        (10.0 * hint(features, target)).backward()
        optimizer.step()


def six_known_in_advance(student, teacher, hint, images, labels, steps, seed=0):
    teacher.eval()
    with torch.no_grad():
        targets = torch.cat([teacher.features(x) for x in images.split(16)])
    optimizer = AdamW(list({id(p): p for m in (student, hint) for p in m.parameters()}.values()))
    optimizer.param_groups[0]["lr"] = 2e-3
    student.train()
    for rows in batches(len(images), steps, seed):

        def closure(rows=rows):
            optimizer.zero_grad()
            features = student.features(images[rows])
            loss = F.cross_entropy(student.head(features), labels[rows])
            loss = loss + 10.0 * hint(features, targets[rows])
            loss.backward()
            return loss

        optimizer.step(closure)


def six_autograd_grad(student, teacher, hint, images, labels, steps, seed=0):
    """Gradients put where the optimiser looks for them."""
    learned = [p for p in [*student.parameters(), *hint.parameters()] if p.requires_grad]
    optimizer = AdamW(learned, 2e-3)
    student.train()
    for rows in batches(len(images), steps, seed):
        with torch.no_grad():
            target = teacher.eval().features(images[rows])
        features = student.features(images[rows])
        loss = F.cross_entropy(student.head(features), labels[rows]) + 10.0 * hint(features, target)
        for p, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
            p.grad = gradient
        optimizer.step()


ANSWERS = {
    "04.fidelity": [
        fidelity_torch,
        fidelity_library,
        fidelity_loop,
        fidelity_cross_entropy,
        fidelity_numpy,
        fidelity_cumulant,
        fidelity_double_inside,
        fidelity_sum,
    ],
    "04.ece": [
        ece_masks,
        ece_bucketize,
        ece_numpy,
        ece_dict,
        ece_one_hot,
        ece_sorted,
        ece_bin_means,
        ece_scipy,
    ],
    "04.paired_interval": [
        interval_torch,
        interval_float32,
        interval_scipy,
        interval_test,
        interval_plain,
        interval_statistics,
        interval_frozen,
        interval_one_sample,
    ],
    "04.mixup_step": [
        mixup_plain,
        mixup_lerp,
        mixup_kd_loss,
        mixup_clone,
        mixup_matrix,
        mixup_closure,
        mixup_rows,
        mixup_teacher_put_back,
    ],
    "04.exhibit_1": [
        batchmean,
        sum_over_rows,
        mean_times_classes,
        row_by_row,
        one_kd_loss,
        one_soft_cross_entropy,
        one_asked_in_advance,
        one_gradient_by_hand,
    ],
    "04.exhibit_2": [
        cache_dict,
        cache_by_index,
        no_cache,
        cache_of_single_rows,
        two_memo,
        two_embedding,
        two_data_loader,
        two_written_by_index,
    ],
    "04.exhibit_3": [
        log_softmax_of_output,
        log_target,
        by_hand,
        library,
        three_module,
        three_kept_as_tensors,
        three_cross_entropies,
        three_rows,
    ],
    "04.exhibit_4": [
        student_only,
        pair_then_teacher,
        both_modes,
        every_module,
        eval_at_each_question,
        four_context_manager,
        four_asked_in_advance,
        four_library,
        four_two_epoch_functions,
    ],
    "04.exhibit_5": [
        eval_and_no_grad,
        kdlib_predict,
        a_copy,
        row_by_row_predictions,
        five_kl,
        five_asked_each_time,
        five_gradient_by_hand,
        five_named_apart,
    ],
    "04.exhibit_6": [
        one_list,
        two_groups,
        two_optimizers,
        module_list,
        group_added,
        six_chain,
        six_two_backwards,
        six_known_in_advance,
        six_autograd_grad,
    ],
}

_BATCHES = "the museum gives `batches`; which rows a step takes is not the exhibit's subject"

EQUIVALENT = {
    "04.fidelity": {
        "roles exchanged @ def agreement(*": "agreement is symmetric",
        "arguments exchanged @ *agreement(teacher_logits, student_logits)*": (
            "agreement is symmetric"
        ),
        "not converted @ *": "a tensor of one number is a number here",
        "a check left out @ require_same_shape(*": "the divergence refuses two shapes, too",
        "an exception without what was given @ *": (
            "the contract asks for a ValueError, not for its words"
        ),
        "half precision @ *(top[0] == top[1]).half()*": "zeros and ones are exact in half",
        "divided by another number of entries @ *": "a vector has as many entries as rows",
        "not copied @ if tuple(*": "torch compares sizes, too",
        "not detached @ z, v = *": "the logits of the contract carry no graph",
        "rounded to whole numbers @ both = *": "float32 is near enough",
        "the wrong way round @ apart = *": "a difference is zero in both directions",
    },
    "04.ece": {
        "a bound left out @ *": "no confidence is above one, or zero",
        "* @ if bins < 1:*": "the contract does not ask for this check",
        "* @ raise ValueError(f'bins must*": "the contract does not ask for this check",
        "a check left out @ require_*": "the contract does not ask for this check",
        "* @ index = *": "bins numbered otherwise, or a bound that no confidence reaches",
        "* @ edges = *": "an edge in float32 is near enough, and one at zero does not matter",
        "* @ for b in range(*": "one bin more, which is empty",
        "at the boundary @ up_to_here = *": "no confidence is above one",
        "an argument not passed on @ inside = *": "empty bins at the end do not matter",
        "mask one column off @  => inside = *": "all bins count alike",
        "another default @ def reliability_bins(*": "the number of bins is passed on",
        "another number @ gap = *": "an empty bin has the weight zero",
        "arguments exchanged @ return Bins(*": "a gap has no sign",
        "the wrong way round @ *": "a gap has no sign",
        "divided by another number of entries @ *": "a vector has as many entries as rows",
        "half precision @ *": "zeros and ones are exact in half",
        "not converted @ *": "a tensor of one number, or float32, is a number here",
        "not detached @ p = *": "the logits of the contract carry no graph",
        "two steps exchanged @ *": "the two do not depend on each other",
    },
    "04.mixup_step": {
        "a check left out @ *": "the contract does not ask for this check",
        "* @ for name, given in *": "the contract does not ask for this check",
        "* @ if ((weight < 0) | (weight > 1)).any():*": "the contract does not ask for this check",
        "*exception* @ raise ValueError(f'*": "the contract does not ask for this check",
        "* @ want = *": "the contract does not ask for this check",
        "only the first @  => break": "the contract does not ask for this check",
        "* @ teacher.train(mode)*": "the teacher's mode after the step is left open",
        "one thing for the other @ mode = *": "the teacher's mode after the step is left open",
        "cleared up only when all goes well @ *": "the contract does not speak of errors",
        "not copied @ *": "what is computed from it is an ordinary tensor",
        "a step left out @ v = v.clone()*": "what is computed from it is an ordinary tensor",
        "* @ *zero_grad(set_to_none=True)*": "nothing or zero",
        "an argument not passed on @ student.train(mode=True)*": "True is the default",
        "arguments exchanged @ total = *": "a dot product is symmetric",
        "cut off from the gradient @ *": "the inputs learn nothing",
        "divided by another number of entries @ *": "a vector has as many entries as rows",
        "half precision @  => order = *": "the rows of a batch are fewer than 2,049",
        "left in another state @ *": "the step sets the mode itself before it calls the network",
        "the other mode @ *": "the same in other words",
        "two steps exchanged @ *": "the two do not depend on each other",
        "logarithm of a softmax @ *": "the exercise gives the loss",
        "not converted @ *": "of the inputs' type already, or a number",
        "not detached @ *": "a number",
    },
    "04.exhibit_1": {
        "* @ if len(queue) < min(batch_size, n):*": _BATCHES,
        "* @ generator, queue = *": _BATCHES,
        "* @ queue = *": _BATCHES,
        "another default @ def batches(*": _BATCHES,
        "an argument ignored @  => batch_size = 32": _BATCHES,
        "a factor left out @ loss = alpha * T * T *": "alpha is a half and T is two",
        "a term left out @ *(1 - alpha)*": "alpha is a half",
        "an argument ignored @  => seed = 0": "behind the only line that uses it",
        "divided by another number of entries @ *": "a vector has as many entries as rows",
        "logarithm of a softmax @ *": "the exhibit is about weights; logits are small",
        "not detached @ with torch.no_grad():*": "the contract does not speak of a graph",
        "one more or one less @ known = *": "in chunks of any size",
        "two steps exchanged @ *": "the two do not depend on each other",
    },
    "04.paired_interval": {
        "a check left out @ _pairs(*": "`statistics` and a strict zip refuse them, too",
        "an argument not passed on @ d = np.array(*": "NumPy sees by itself that they are floats",
        "another number @ found = stats.ttest_1samp(*": "mean and interval do not depend on it",
        "* @ if not 0 < confidence < 1: => *": "the contract does not ask for it",
        "a check left out @ if not 0 < confidence < 1:*": "the contract does not ask for it",
        "* @ raise ValueError(f'confidence must lie*": "the contract does not ask for it",
        "an exception without what was given @ *at least 2 pairs*": (
            "the contract asks for a ValueError, not for its words"
        ),
        "an exception without what was given @ *must be pairs*": (
            "the contract asks for a ValueError, not for its words"
        ),
        "a check left out @ if len(a) != len(b):*": "a strict zip refuses the two lengths, too",
        "divided by another number of entries @ *": "a vector has as many entries as rows",
        "one thing for the other @ return Interval(*": "a fourth number is not asked for",
        "an argument not passed on @ *torch.tensor(*": "float32 is forgiven",
        "rounded to whole numbers @ *float32*": "float32 is forgiven",
        "not converted @ *": "a tensor of one number is a number here",
        "the wrong way round @ variance = sum(*": "a square has no sign",
    },
}
