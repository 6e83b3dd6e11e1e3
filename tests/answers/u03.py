"""Right answers to unit 03 that look different from the reference and from each other."""

import bisect
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kdlib.losses import kd_loss, kl_divergence


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


def _lead(logits, class_index):
    """How far the class lies above the logsumexp of the others, in float64."""
    others = torch.cat([logits[:, :class_index], logits[:, class_index + 1 :]], dim=1).double()
    return logits[:, class_index].double() - others.logsumexp(dim=1)


def bias_newton(logits, class_index, share):
    """Newton's step where it stays inside the bracket, the middle where it does not."""
    _share(share)
    lead, low, high, b = _lead(logits, class_index), -2000.0, 2000.0, 0.0
    for _ in range(200):
        p = torch.sigmoid(lead + b)
        miss, slope = (p.mean() - share).item(), (p * (1 - p)).mean().item()
        low, high = (b, high) if miss < 0 else (low, b)
        step = b - miss / slope if slope > 0 else math.inf
        b = step if low < step < high else (low + high) / 2
    return b


def bias_grid(logits, class_index, share):
    """A grid, then a finer one between the two points where the share is crossed."""
    _share(share)
    lead = _lead(logits, class_index)
    low, high = -1000.0, 1000.0
    while high - low > 1e-10:
        grid = torch.linspace(low, high, 101, dtype=torch.float64)
        below = (torch.sigmoid(lead + grid[:, None]).mean(dim=1) < share).sum().item()
        low, high = grid[max(below - 1, 0)].item(), grid[min(below, 100)].item()
    return (low + high) / 2


def bias_bisect_module(logits, class_index, share):
    """The standard library's bisection, over numbers a billionth apart."""
    if share <= 0 or share >= 1:
        raise ValueError(f"got share={share}")
    lead = _lead(logits, class_index).numpy()

    def mean(k):
        return float(np.mean(0.5 * (1 + np.tanh((lead + k * 1e-9) / 2))))

    numbers = range(-(10**12), 10**12)
    return numbers[bisect.bisect_left(numbers, share, key=mean)] * 1e-9


def bias_root_scalar(logits, class_index, share):
    from scipy.optimize import root_scalar

    _share(share)
    mask = torch.arange(logits.shape[1]) == class_index

    def miss(b):
        moved = torch.where(mask, logits.double() + b, logits.double())
        return moved.softmax(dim=1)[:, class_index].mean().item() - share

    found = root_scalar(miss, bracket=(-900, 900), method="bisect", xtol=1e-10, maxiter=200)
    return found.root


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


def transfer_one_hot(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    """A column for 'no label', which is thrown away."""
    _positive(temperature)
    one_hot = F.one_hot(targets + 1, student_logits.shape[1] + 1)[:, 1:]
    count = one_hot.sum().clamp(min=1)
    hard = -(one_hot * student_logits.log_softmax(-1)).sum() / count
    soft = kl_divergence(teacher_logits.detach(), student_logits, temperature)
    return alpha * temperature**2 * soft.sum() / len(targets) + (1 - alpha) * hard


def transfer_two_losses(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    _positive(temperature)
    v = teacher_logits.clone().detach()
    loss = alpha * kd_loss(student_logits, v, targets.clamp(min=0), temperature, alpha=1.0)
    rows = torch.nonzero(targets + 1).flatten()
    if rows.numel() == 0:
        return loss
    hard = nn.CrossEntropyLoss(reduction="mean")
    return loss + (1 - alpha) * hard(student_logits.index_select(0, rows), targets[rows])


def transfer_double_inside(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} is not above 0")
    z, v = student_logits.double(), teacher_logits.detach().double()
    log_p, log_q = (v / temperature).log_softmax(1), (z / temperature).log_softmax(1)
    loss = alpha * temperature**2 * torch.einsum("bc,bc->b", log_p.exp(), log_p - log_q).mean()
    known = [n for n, y in enumerate(targets.tolist()) if y != -1]
    if known:
        loss = loss - (1 - alpha) * z.log_softmax(1)[known, targets[known]].mean()
    return loss.to(student_logits.dtype)


def transfer_row_weights(student_logits, teacher_logits, targets, temperature=2.0, alpha=0.9):
    """One weight for each row and term; the loss is their dot product."""
    _positive(temperature)
    nats = F.cross_entropy(student_logits, targets, ignore_index=-1, reduction="none")
    with torch.no_grad():
        p = F.softmax(teacher_logits / temperature, dim=1)
        labelled = (targets >= 0).to(nats.dtype)
        weight = F.normalize(labelled, p=1, dim=0) * (1 - alpha)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    soft = F.kl_div(log_q, p, reduction="batchmean")
    return torch.dot(weight, nats).add(soft, alpha=alpha * temperature**2)


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


def ensemble_running_mean(logits, temperature=1.0):
    _positive(temperature)
    mean = torch.softmax(logits[0] / temperature, dim=-1)
    for m, teacher in enumerate(logits[1:], start=2):
        mean = mean + (torch.softmax(teacher / temperature, dim=-1) - mean) / m
    return mean


def ensemble_matrix(logits, temperature=1.0):
    _positive(temperature)
    p = nn.Softmax(dim=2)(logits / temperature)
    weights = p.new_full((1, len(p)), 1 / len(p))
    return (weights @ p.flatten(1)).view(p.shape[1:])


def ensemble_double_inside(logits, temperature=1.0):
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature!r}")
    z = logits.double().div(temperature)
    e = (z - z.max(dim=2, keepdim=True).values).exp()
    return (e / e.sum(2, keepdim=True)).mean(0).to(logits.dtype)


def ensemble_images_first(logits, temperature=1.0):
    _positive(temperature)
    images = logits.permute(1, 0, 2).div(temperature)
    return torch.stack([image.log_softmax(1).exp().mean(0) for image in images])


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


def merge_until_still(generalist, specialists):
    """Stop when a round changes nothing any more; float64 inside."""
    start = generalist.double()
    q = start.clone()
    for _ in range(2000):
        total = start.clone()
        for classes, p in specialists:
            inside = torch.zeros(q.shape[1], dtype=torch.bool)
            inside[list(classes)] = True
            rest = torch.where(inside, 0.0, q)
            total += rest * (p[:, -1] / rest.sum(1))[:, None]
            total[:, list(classes)] += p[:, :-1].double()
        new = total / (1 + len(specialists))
        moved, q = (new - q).abs().max().item(), new
        if moved < 1e-15:
            break
    return q.to(generalist.dtype)


def merge_numpy(generalist, specialists):
    g = generalist.numpy().astype(float)
    q = g.copy()
    known = [(np.array(list(classes)), p.numpy()) for classes, p in specialists]
    for _ in range(300):
        models = [g]
        for classes, p in known:
            others = np.setdiff1d(np.arange(g.shape[1]), classes)
            filled = np.empty_like(q)
            filled[:, classes] = p[:, :-1]
            filled[:, others] = p[:, -1:] * q[:, others] / q[:, others].sum(1, keepdims=True)
            models.append(filled)
        q = np.mean(models, axis=0)
    return torch.from_numpy(q).to(generalist.dtype)


def merge_log_space(generalist, specialists):
    log_q = generalist.log()
    for _ in range(300):
        models = [generalist.log()]
        for classes, p in specialists:
            inside = torch.tensor([c in list(classes) for c in range(log_q.shape[1])])
            rest = log_q.masked_fill(inside, -math.inf).log_softmax(dim=1) + p[:, -1:].log()
            models.append(rest.index_copy(1, torch.tensor(list(classes)), p[:, :-1].log()))
        log_q = torch.stack(models).logsumexp(0) - math.log(len(models))
    return log_q.exp()


def merge_recursive(generalist, specialists, rounds=250):
    """q after n rounds is one round on q after n - 1."""
    if rounds == 0 or not specialists:
        return generalist.clone()
    q = merge_recursive(generalist, specialists, rounds - 1)
    total = generalist
    for classes, p in specialists:
        outside = [c for c in range(q.shape[1]) if c not in classes]
        share = F.normalize(q[:, outside], p=1, dim=1) * p[:, -1:]
        columns = torch.tensor([*classes, *outside])
        total = total.index_add(1, columns, torch.cat([p[:, :-1], share], dim=1))
    return total / (len(specialists) + 1)


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


def smooth_logsumexp(logits, targets, smoothing=0.1):
    """log Z less the logit that the targets expect."""
    _smoothing(smoothing)
    rows = torch.arange(len(targets))
    expected = (1 - smoothing) * logits[rows, targets] + smoothing * logits.mean(dim=1)
    return (logits.logsumexp(dim=1) - expected).mean()


def smooth_rows(logits, targets, smoothing=0.1):
    _smoothing(smoothing)
    total = 0.0
    for z, y in zip(logits, targets.tolist(), strict=True):
        nats = torch.logsumexp(z, 0) - z
        total = total + (1 - smoothing) * nats[y] + smoothing * nats.sum() / len(nats)
    return total / len(targets)


def smooth_double_inside(logits, targets, smoothing=0.1):
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing={smoothing} lies outside [0, 1]")
    z = logits.double()
    one_hot = F.one_hot(targets, z.shape[1])
    soft = (1 - smoothing) * one_hot.to(z.dtype) + smoothing / z.shape[1]
    shifted = z - z.detach().amax(1, keepdim=True)
    nats = shifted.exp().sum(1, keepdim=True).log() - shifted
    return torch.tensordot(soft, nats).div(len(z)).to(logits.dtype)


def smooth_kl_to_the_mixture(logits, targets, smoothing=0.1):
    """Cross-entropy is the KL to the smoothed label plus that label's entropy."""
    _smoothing(smoothing)
    c = logits.shape[1]
    soft = torch.full_like(logits, smoothing / c)
    soft = soft.scatter_add(1, targets[:, None], torch.full_like(logits, 1 - smoothing)[:, :1])
    log_q = nn.LogSoftmax(dim=1)(logits)
    kl = nn.KLDivLoss(reduction="batchmean")(log_q, soft)
    return kl + torch.special.entr(soft).sum() / len(soft)


ANSWERS = {
    "03.class_bias": [
        bias_bisection,
        bias_brent,
        bias_fixed_point,
        bias_by_shrinking_steps,
        bias_newton,
        bias_grid,
        bias_bisect_module,
        bias_root_scalar,
    ],
    "03.transfer_loss": [
        transfer_masked,
        transfer_ignore_index,
        transfer_weights,
        transfer_loop,
        transfer_one_hot,
        transfer_two_losses,
        transfer_double_inside,
        transfer_row_weights,
    ],
    "03.ensemble_soft_targets": [
        ensemble_mean,
        ensemble_log_space,
        ensemble_loop,
        ensemble_numpy,
        ensemble_running_mean,
        ensemble_matrix,
        ensemble_double_inside,
        ensemble_images_first,
    ],
    "03.merge_specialists": [
        merge_em,
        merge_gradient,
        merge_matrices,
        merge_by_rows,
        merge_until_still,
        merge_numpy,
        merge_log_space,
        merge_recursive,
    ],
    "03.label_smoothing_loss": [
        smooth_targets,
        smooth_kl,
        smooth_two_terms,
        smooth_module,
        smooth_logsumexp,
        smooth_rows,
        smooth_double_inside,
        smooth_kl_to_the_mixture,
    ],
}

_UNASKED = "the contract does not ask for this check"
_ROOT = "another way to the same root"
_ONE_SCALAR = "a tensor of one number is a number here"
_PRECISION = "right in the precision of the input, too"
_FINE = "less than the precision that the contract asks for"
_ROUNDS = "another way, or another number of rounds, to the same distribution"
_LISTS = "the classes index as they are, too"

EQUIVALENT = {
    "03.class_bias": {
        "a check left out @ *": _UNASKED,
        "* @ if logits.dim() != 2 or *": _UNASKED,
        "* @ if not 0 <= class_index *": _UNASKED,
        "* @ raise ValueError(f'class_index must*": _UNASKED,
        "* @ raise ValueError(f'logits must*": _UNASKED,
        "* @ low, high = *": _ROOT,
        "* @ lead, low, high, b = *": _ROOT,
        "* @ grid = *": _ROOT,
        "* @ below = *": _ROOT,
        "* @ b = step if *": _ROOT,
        "* @ b, step = *": _ROOT,
        "* @ b += step if *": _ROOT,
        "* @ step = b - *": _ROOT,
        "* @ miss, slope = *": _ROOT,
        "* @ if abs(step) < 1e-13:*": _ROOT,
        "the loop goes on @ *": _ROOT,
        "* @ while *": _ROOT,
        "* @ for _ in range(*": _ROOT,
        "* @ found = root_scalar(*": _ROOT,
        "* @ numbers = range(*": _ROOT,
        "* @ return float(brentq(*": _ROOT,
        "* @ if torch.sigmoid(lead + middle).mean() < share:*": _ROOT,
        "one thing for the other @ return (low + high) / 2*": "the two have met",
        "the wrong way round @ return moved.*": "the root is that of the negative, too",
        "two steps exchanged @ *": "the two do not depend on each other, or differ by half a step",
        "cut off from the gradient @ return logits[:, class_index]*": "a number has no graph",
        "not detached @ z = *": "a number has no graph",
        "not converted @ step = *": _ONE_SCALAR,
        "not converted @ return moved.*": _ONE_SCALAR,
        "not converted @ return float(np.mean(*": _ONE_SCALAR,
        "not converted @ *double()*": _PRECISION,
    },
    "03.transfer_loss": {
        "a check left out @ _positive(*": "the divergence refuses it, too",
        "a check left out @ require_temperature(*": "the divergence refuses it, too",
        "a check left out @ require_*": _UNASKED,
        "an exception without what was given @ *": "the contract asks for a ValueError alone",
        "arguments exchanged @ return torch.dot(*": "a dot product is symmetric",
        "divided by another number of entries @ *": "a vector has as many entries as rows",
        "not converted @ weight = *": "a truth value counts as 0 or 1",
        "not converted @ hard = *": _ONE_SCALAR,
        "not converted @ *targets.tolist()*": "a tensor of one whole number is an index, too",
        "not converted @ z, v = *": _PRECISION,
        "not copied @ v = *": "nothing is changed in place",
        "not detached @ v = *": "kd_loss detaches it",
        "one more or one less @ loss = *": "with alpha = 1 targets have no effect",
        "one more or one less @ weight = F.normalize(*": "ones add up to their number",
    },
    "03.merge_specialists": {
        "a bound left out @ rest = *": "a dustbin without any probability is not in the contract",
        "a check left out @ *": _UNASKED,
        "* @ if len(inside) != len(classes) or *": _UNASKED,
        "* @ raise ValueError(f'specialists must*": _UNASKED,
        "* @ for classes, probs in specialists:*": _UNASKED,
        "only the first @  => break": "in a loop of checks, or of a search that has ended",
        "a function left out @ log_q = *": "the rounds lead to the same from any start",
        "a function left out @ z = *": "the descent leads to the same from any start",
        "* @ moved, q = *": "rounds that change nothing, or rows that sum to one in both",
        "* @ if moved < 1e-15:*": _ROUNDS,
        "the loop goes on @ *": _ROUNDS,
        "* @ for _ in range(*": _ROUNDS,
        "another default @ *": _ROUNDS,
        "an argument ignored @  => steps = 200": _ROUNDS,
        "* @ optimizer = torch.optim.LBFGS(*": _ROUNDS,
        "* @ q = merge_recursive(*": _ROUNDS,
        "* @ if rounds == 0 or *": _ROUNDS,
        "a step left out @ if not specialists:*": "the descent stays where it starts",
        "a small number too many @ *": _FINE,
        "cut off at a bound @ *": _FINE,
        "cut off from the gradient @ *": "probabilities to learn from: no gradient is asked for",
        "not detached @ *": "probabilities to learn from: no gradient is asked for",
        "an argument not passed on @ maps.append(*": "the dustbin holds at least one class",
        "an argument not passed on @ ratio = *": "a sum begins at zero",
        "logarithm of a softmax @ *": "exp takes the logarithm back, also that of zero",
        "mask one column off @  => inside = *": "behind the lines that use it",
        "mean for sum @ loss = *": "a constant more has the same smallest place",
        "not converted @ moved, q = *": _ONE_SCALAR,
        "not converted @ row = *": _ONE_SCALAR,
        "not converted @ *": "float64 already",
        "not copied @ *(classes)*": _LISTS,
        "not copied @ *": "nothing is changed in place",
        "two steps exchanged @ *": "two terms of a sum",
    },
    "03.ensemble_soft_targets": {
        "logarithm of a softmax @ return torch.stack(*": "exp takes the logarithm back",
        "not converted @ z = *": _PRECISION,
        "* @ if logits.dim() < 2 or len(logits) == 0:*": "the contract gives the shape",
        "* @ raise ValueError(f'logits must have shape*": "the contract gives the shape",
        "a check left out @ require_finite(*": "the contract does not ask for it",
        "an exception without what was given @ raise ValueError(f'temperature*": (
            "the contract asks for a ValueError, not for its words"
        ),
        "logarithm of a softmax @ log_p = (logits / temperature).log_softmax(-1) =>*": (
            "minus infinity becomes the probability 0 again"
        ),
        "logarithm of a softmax @ return (log_p.logsumexp(0)*": (
            "minus infinity becomes the probability 0 again"
        ),
    },
    "03.label_smoothing_loss": {
        "a small number too many @ nats = *": "the sum is at least one, so it is within rounding",
        "cut off at a bound @ nats = *": "the sum is at least one",
        "arguments exchanged @ return torch.tensordot(*": "a product is symmetric",
        "dimension not kept @ *": "a mean of all differences is the difference of the means",
        "over all entries @ expected = *": "the mean of the rows' means",
        "divided by another number of entries @ *": "a vector has as many entries as rows",
        "not converted @ for z, y in *": "a tensor of one whole number is an index, too",
        "not converted @ z = *": _PRECISION,
        "not detached @ shifted = *": "the shift cancels: no gradient goes through it",
        "one more or one less @ soft = soft.scatter_add(*": "the index has one column",
        "a check left out @ require_*": "the contract asks for a check of the smoothing alone",
        "an exception without what was given @ raise ValueError(f'smoothing*": (
            "the contract asks for a ValueError, not for its words"
        ),
        "an argument not passed on @ log_q = F.log_softmax(logits, -1) =>*": (
            "of a matrix, torch takes the last dimension by itself"
        ),
    },
}
