"""Right answers to unit 04 that look different from the reference and from each other."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
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


def _one(soft):
    """Train as exhibit 1 does, with this soft term."""

    def script(student, teacher, images, labels, steps, seed=0):
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

    return script


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


def _named(name, function):
    function.__name__ = name
    return function


def _two(prepare, target):
    """Train as exhibit 2 does: `prepare` before the epochs, `target` of a batch."""

    def script(student, teacher, images, labels, epochs, seed=0):
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

    return script


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


def _three(soft):
    def script(student, teacher, images, labels, steps, seed=0):
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

    return script


def _four(modes, ask=lambda teacher, x: teacher(x)):
    def script(student, teacher, images, labels, epochs, seed=0):
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

    return script


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


def _five(predict):
    def script(student, teacher, images, held_out, steps, seed=0):
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

    return script


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


def _six(build, clear, apply):
    def script(student, teacher, hint, images, labels, steps, seed=0):
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

    return script


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


ANSWERS = {
    "04.fidelity": [fidelity_torch, fidelity_library, fidelity_loop, fidelity_cross_entropy],
    "04.ece": [ece_masks, ece_bucketize, ece_numpy, ece_dict],
    "04.paired_interval": [
        interval_torch,
        interval_float32,
        interval_scipy,
        interval_test,
        interval_plain,
    ],
    "04.mixup_step": [mixup_plain, mixup_lerp, mixup_kd_loss, mixup_clone],
    "04.exhibit_1": [
        _named("batchmean", _one(_batchmean)),
        _named("sum_over_rows", _one(_summed)),
        _named("mean_times_classes", _one(_mean_times_classes)),
        _named("row_by_row", _one(_by_rows)),
    ],
    "04.exhibit_2": [
        cache_dict,
        _named("cache_by_index", _two(lambda t, x: t(x), lambda known, t, x, rows: known[rows])),
        _named("no_cache", _two(lambda t, x: None, lambda known, t, x, rows: t(x[rows]))),
        _named(
            "cache_of_single_rows",
            _two(
                lambda t, x: [t(row[None])[0] for row in x],
                lambda known, t, x, rows: torch.stack([known[i] for i in rows]),
            ),
        ),
    ],
    "04.exhibit_3": [
        _named(
            "log_softmax_of_output",
            _three(lambda z, v: F.kl_div(z.log_softmax(-1), v.softmax(-1), reduction="batchmean")),
        ),
        _named("log_target", _three(_batchmean)),
        _named(
            "by_hand",
            _three(
                lambda z, v: (v.softmax(1) * (v.log_softmax(1) - z.log_softmax(1))).sum(1).mean()
            ),
        ),
        _named("library", _three(lambda z, v: kl_divergence(v, z).mean())),
    ],
    "04.exhibit_4": [
        _named("student_only", _four(_student_train)),
        _named("pair_then_teacher", _four(_pair_train)),
        _named("both_modes", _four(_both_modes)),
        _named("every_module", _four(_every_module)),
        _named("eval_at_each_question", _four(_student_train, _always_eval)),
    ],
    "04.exhibit_5": [
        _named("eval_and_no_grad", _five(_eval_and_no_grad)),
        _named("kdlib_predict", _five(_library)),
        _named("a_copy", _five(_copied)),
        _named("row_by_row_predictions", _five(_row_by_row)),
    ],
    "04.exhibit_6": [
        _named("one_list", _six(_joined, _clear_all, _apply_all)),
        _named("two_groups", _six(_groups, _clear_modules, _apply_all)),
        _named("two_optimizers", _six(_two_optimizers, _clear_all, _apply_all)),
        _named("module_list", _six(_module_list, _clear_all, _apply_all)),
        _named("group_added", _six(_added, _clear_modules, _apply_all)),
    ],
}
