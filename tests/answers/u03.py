"""Right answers to unit 03 that look different from the reference and from each other."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from kdlib.losses import kl_divergence


def _share(share):
    if not 0 < share < 1:
        raise ValueError(f"share must lie inside (0, 1), got {share}")


def bias_bisection(logits, class_index, share):
    _share(share)
    low, high = -1000.0, 1000.0
    one = F.one_hot(torch.tensor(class_index), logits.shape[1])
    for _ in range(100):
        b = (low + high) / 2
        mean = (logits + b * one).softmax(-1)[:, class_index].mean()
        low, high = (b, high) if mean < share else (low, b)
    return b


def bias_brent(logits, class_index, share):
    from scipy.optimize import brentq

    _share(share)
    others = logits.double().clone()
    others[:, class_index] = -math.inf
    lead = (logits[:, class_index] - others.logsumexp(1)).numpy()
    return float(brentq(lambda b: np.mean(1 / (1 + np.exp(-lead - b))) - share, -500, 500))


def bias_fixed_point(logits, class_index, share):
    _share(share)
    z = logits.clone().double()
    total = 0.0
    for _ in range(5000):
        step = math.log(share) - math.log(z.softmax(-1)[:, class_index].mean().item())
        z[:, class_index] += step
        total += step
        if abs(step) < 1e-13:
            break
    return total


def bias_by_shrinking_steps(logits, class_index, share):
    _share(share)
    b, step = 0.0, 256.0
    while step > 1e-12:
        moved = torch.cat(
            [logits[:, :class_index], logits[:, [class_index]] + b, logits[:, class_index + 1 :]], 1
        )
        b += step if moved.softmax(1)[:, class_index].mean() < share else -step
        step /= 2
    return b


def _positive(temperature):
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def transfer_masked(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = F.kl_div(
        (student_logits / temperature).log_softmax(-1),
        (teacher_logits.detach() / temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    labelled = targets >= 0
    hard = torch.zeros_like(soft)
    if labelled.any():
        hard = F.cross_entropy(student_logits[labelled], targets[labelled])
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def transfer_ignore_index(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft = kl_divergence(teacher_logits.detach(), student_logits, temperature).mean()
    total = F.cross_entropy(student_logits, targets, ignore_index=-1, reduction="sum")
    hard = total / (targets != -1).sum().clamp_min(1)
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def transfer_weights(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    weight = (targets != -1).to(student_logits.dtype)
    log_q = student_logits.log_softmax(1)
    nll = -log_q.gather(1, targets.clamp_min(0)[:, None]).squeeze(1)
    hard = (weight * nll).sum() / max(weight.sum().item(), 1.0)
    p = (teacher_logits.detach() / temperature).softmax(1)
    log_qt = (student_logits / temperature).log_softmax(1)
    soft = (torch.special.xlogy(p, p) - p * log_qt).sum(1)
    return (alpha * temperature**2 * soft).mean() + (1 - alpha) * hard


def transfer_loop(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    soft, hard = [], []
    for z, v, y in zip(student_logits, teacher_logits.detach(), targets.tolist(), strict=True):
        log_p = (v / temperature).log_softmax(0)
        soft.append((log_p.exp() * (log_p - (z / temperature).log_softmax(0))).sum())
        if y != -1:
            hard.append(torch.logsumexp(z, 0) - z[y])
    loss = alpha * temperature**2 * sum(soft) / len(soft)
    return loss + (1 - alpha) * sum(hard) / len(hard) if hard else loss


def ensemble_mean(logits, temperature=1.0):
    _positive(temperature)
    return F.softmax(logits / temperature, dim=2).mean(0)


def ensemble_log_space(logits, temperature=1.0):
    _positive(temperature)
    log_p = (logits / temperature).log_softmax(-1)
    return (log_p.logsumexp(0) - math.log(len(logits))).exp()


def ensemble_loop(logits, temperature=1.0):
    _positive(temperature)
    total = torch.zeros_like(logits[0])
    for teacher in logits:
        total += torch.softmax(teacher / temperature, -1)
    return total / logits.shape[0]


def ensemble_numpy(logits, temperature=1.0):
    _positive(temperature)
    z = logits.numpy() / temperature
    e = np.exp(z - z.max(-1, keepdims=True))
    return torch.from_numpy(np.einsum("mnc->nc", e / e.sum(-1, keepdims=True)) / len(z))


def merge_em(generalist, specialists):
    q = generalist.clone()
    for _ in range(400):
        models = [generalist]
        for classes, p in specialists:
            inside = list(classes)
            full = q.clone()
            full[:, inside] = 0
            full = p[:, -1:] * full / full.sum(1, keepdim=True)
            full[:, inside] = p[:, :-1]
            models.append(full)
        q = torch.stack(models).mean(0)
    return q


def merge_gradient(generalist, specialists):
    """As the paper does it: descend the gradient of q's logits."""
    if not specialists:
        return generalist
    z = generalist.log().clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [z],
        max_iter=500,
        tolerance_grad=1e-13,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        q = z.softmax(-1)
        loss = -(generalist * q.log()).sum()
        for classes, p in specialists:
            outside = [c for c in range(q.shape[1]) if c not in classes]
            loss = loss - (p[:, :-1] * q[:, list(classes)].log()).sum()
            loss = loss - (p[:, -1] * q[:, outside].sum(1).log()).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return z.detach().softmax(-1)


def merge_matrices(generalist, specialists):
    """Dustbins as matrices: each class belongs to one column of each specialist."""
    classes = generalist.shape[1]
    maps = []
    for inside, p in specialists:
        column = torch.full((classes,), len(inside))
        column[list(inside)] = torch.arange(len(inside))
        maps.append((F.one_hot(column, len(inside) + 1).to(p.dtype), p))
    q = generalist
    for _ in range(400):
        ratio = sum(((p / (q @ m)) @ m.T for m, p in maps), torch.zeros_like(q))
        q = (generalist + q * ratio) / (1 + len(maps))
    return q


def merge_by_rows(generalist, specialists):
    out = []
    for n, g in enumerate(generalist.tolist()):
        q = list(g)
        for _ in range(300):
            total = list(g)
            for classes, p in specialists:
                row = p[n].tolist()
                rest = sum(q[c] for c in range(len(q)) if c not in classes)
                for c in range(len(q)):
                    mine = c in classes
                    total[c] += row[list(classes).index(c)] if mine else row[-1] * q[c] / rest
            q = [t / (1 + len(specialists)) for t in total]
        out.append(q)
    return torch.tensor(out, dtype=generalist.dtype)


def _smoothing(smoothing):
    if smoothing < 0 or smoothing > 1:
        raise ValueError(f"smoothing must lie between 0 and 1, got {smoothing}")


def smooth_targets(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    c = logits.shape[-1]
    soft = torch.full_like(logits, smoothing / c)
    soft[torch.arange(len(targets)), targets] += 1 - smoothing
    return -(soft * logits.log_softmax(-1)).sum(-1).mean()


def smooth_kl(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    log_q = F.log_softmax(logits, -1)
    u = torch.full_like(log_q, 1 / logits.shape[-1])
    kl = F.kl_div(log_q, u, reduction="batchmean")
    return (1 - smoothing) * F.nll_loss(log_q, targets) + smoothing * (
        kl + math.log(logits.shape[-1])
    )


def smooth_two_terms(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    z = logits - logits.logsumexp(-1, keepdim=True)
    label = z.gather(-1, targets[:, None]).mean()
    return -(1 - smoothing) * label - smoothing * z.mean()


def smooth_module(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    eye = torch.eye(logits.shape[-1], dtype=logits.dtype)
    mixed = torch.lerp(eye, torch.full_like(eye, 1 / len(eye)), smoothing)[targets]
    return torch.einsum("bc,bc->", mixed, -logits.log_softmax(1)) / len(targets)


ANSWERS = {
    "03.class_bias": [bias_bisection, bias_brent, bias_fixed_point, bias_by_shrinking_steps],
    "03.transfer_loss": [
        transfer_masked,
        transfer_ignore_index,
        transfer_weights,
        transfer_loop,
    ],
    "03.ensemble_soft_targets": [
        ensemble_mean,
        ensemble_log_space,
        ensemble_loop,
        ensemble_numpy,
    ],
    "03.merge_specialists": [merge_em, merge_gradient, merge_matrices, merge_by_rows],
    "03.label_smoothing_loss": [smooth_targets, smooth_kl, smooth_two_terms, smooth_module],
}
