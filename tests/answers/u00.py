"""Right answers to unit 00 that look different from the reference and from each other."""

import math

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F


def _positive(temperature):
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def softmax_library(logits, temperature):
    _positive(temperature)
    return F.softmax(logits / temperature, dim=-1)


def softmax_by_hand(logits, temperature):
    _positive(temperature)
    scaled = logits / temperature
    powers = torch.exp(scaled - scaled.max(dim=-1, keepdim=True).values)
    return powers / powers.sum(dim=-1, keepdim=True)


def softmax_logsumexp(logits, temperature):
    if temperature <= 0.0:
        raise ValueError("temperature")
    return (logits / temperature - torch.logsumexp(logits / temperature, -1, keepdim=True)).exp()


def softmax_scipy(logits, temperature):
    _positive(temperature)
    return torch.from_numpy(scipy.special.softmax(logits.numpy() / temperature, axis=-1))


def softmax_module(logits, temperature):
    _positive(temperature)
    return torch.nn.Softmax(dim=-1)(logits.div(temperature))


def softmax_double_inside(logits, temperature):
    if temperature <= 0:
        raise ValueError(f"temperature = {temperature} is not positive")
    z = logits.double() / temperature
    powers = (z - z.amax(-1, keepdim=True)).exp()
    return powers.div(powers.sum(-1, keepdim=True)).to(logits.dtype)


def softmax_gaps(logits, temperature):
    """q_i = 1 / sum_j exp(z_j - z_i)."""
    _positive(temperature)
    z = logits / temperature
    gaps = z.unsqueeze(-2) - z.unsqueeze(-1)  # (..., i, j): z_j - z_i
    return torch.exp(-gaps.logsumexp(dim=-1))


def softmax_rows(logits, temperature):
    _positive(temperature)
    rows = []
    for row in logits.reshape(-1, logits.shape[-1]):
        shifted = (row - row.max()) / temperature
        rows.append(shifted.exp() / shifted.exp().sum())
    return torch.stack(rows).reshape(logits.shape)


def softmax_last_axis_first(logits, temperature):
    _positive(temperature)
    z = logits.movedim(-1, 0) / temperature
    return F.log_softmax(z, dim=0).exp().movedim(0, -1)


def accuracy_mean(logits, targets):
    return (logits.argmax(dim=-1) == targets).float().mean().item()


def accuracy_loop(logits, targets):
    right = 0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        right += row.index(max(row)) == target
    return right / len(targets)


def accuracy_topk(logits, targets):
    return (logits.topk(1).indices[:, 0] == targets).sum().item() / targets.numel()


def accuracy_numpy(logits, targets):
    return float(np.mean(np.argmax(logits.numpy(), axis=1) == targets.numpy()))


def accuracy_softmax(logits, targets):
    return torch.eq(logits.softmax(dim=1).max(dim=1)[1], targets).double().mean().item()


def accuracy_sort(logits, targets):
    order = logits.argsort(dim=1, descending=True, stable=True)
    return (order[:, 0] - targets).eq(0).to(torch.float64).mean().item()


def accuracy_confusion(logits, targets):
    """The diagonal of the confusion matrix over all of it."""
    classes = logits.shape[1]
    cells = targets * classes + logits.argmax(1)
    table = torch.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return float(table.trace() / table.sum())


def accuracy_one_hot(logits, targets):
    classes = logits.shape[1]
    hits = F.one_hot(logits.argmax(dim=1), classes) & F.one_hot(targets, classes)
    return hits.sum().item() / len(logits)


def nll_cross_entropy(logits, targets):
    return F.cross_entropy(logits, targets).item()


def nll_gather(logits, targets):
    return -logits.log_softmax(-1).gather(1, targets[:, None]).mean().item()


def nll_logsumexp(logits, targets):
    true = logits[torch.arange(len(targets)), targets]
    return float((torch.logsumexp(logits, dim=1) - true).mean())


def nll_one_hot(logits, targets):
    one_hot = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    return -(one_hot * F.log_softmax(logits, dim=1)).sum(dim=1).mean().item()


def nll_scipy(logits, targets):
    log_probs = scipy.special.log_softmax(logits.numpy(), axis=1)
    return float(-log_probs[np.arange(len(targets)), targets.numpy()].mean())


def nll_loss(logits, targets):
    return float(F.nll_loss(torch.log_softmax(logits, dim=-1), targets, reduction="sum")) / len(
        targets
    )


def nll_categorical(logits, targets):
    log_probs = torch.distributions.Categorical(logits=logits).log_prob(targets)
    return -log_probs.mean().item()


def nll_plain_python(logits, targets):
    total = 0.0
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        top = max(row)
        total += top - row[y] + math.log(math.fsum(math.exp(z - top) for z in row))
    return total / len(targets)


def nll_gaps(logits, targets):
    """-log q_y is the logsumexp of z - z_y."""
    gaps = logits.double() - logits.double().gather(1, targets.unsqueeze(1))
    return gaps.logsumexp(1).mean().item()


def fit_min(logits, targets, temperatures):
    return min(temperatures.tolist(), key=lambda t: F.cross_entropy(logits / t, targets).item())


def fit_argmin(logits, targets, temperatures):
    values = torch.tensor([nll_gather(logits / t, targets) for t in temperatures])
    return temperatures[values.argmin()].item()


def fit_broadcast(logits, targets, temperatures):
    log_probs = (logits[None] / temperatures[:, None, None]).log_softmax(-1)  # (K, N, C)
    likelihood = log_probs[:, torch.arange(len(targets)), targets].sum(dim=1)
    return float(temperatures[likelihood.argmax()])


def fit_loop(logits, targets, temperatures):
    best, lowest = None, float("inf")
    for temperature in temperatures:
        value = nll_logsumexp(logits / temperature, targets)
        if value < lowest:
            best, lowest = temperature.item(), value
    return best


def fit_sorted(logits, targets, temperatures):
    pairs = [(F.cross_entropy(logits / t, targets).item(), t.item()) for t in temperatures]
    return sorted(pairs)[0][1]


def fit_topk(logits, targets, temperatures):
    values = torch.stack([F.cross_entropy(logits / t, targets) for t in temperatures.unbind()])
    return temperatures[values.topk(1, largest=False).indices].item()


def fit_scipy(logits, targets, temperatures):
    scaled = logits.double().numpy()[None] / temperatures.double().numpy()[:, None, None]
    log_probs = scipy.special.log_softmax(scaled, axis=-1)
    nats = -log_probs[:, np.arange(len(targets)), targets.numpy()].mean(axis=1)
    return float(temperatures[int(nats.argmin())])


def fit_one_call(logits, targets, temperatures):
    """One cross-entropy over K copies of the rows."""
    copies = torch.cat([logits / t for t in temperatures])
    nats = F.cross_entropy(copies, targets.repeat(len(temperatures)), reduction="none")
    means = nats.view(len(temperatures), -1).mean(dim=1)
    return temperatures.tolist()[means.argmin()]


ANSWERS = {
    "00.softmax_with_temperature": [
        softmax_library,
        softmax_by_hand,
        softmax_logsumexp,
        softmax_scipy,
        softmax_module,
        softmax_double_inside,
        softmax_gaps,
        softmax_rows,
        softmax_last_axis_first,
    ],
    "00.accuracy": [
        accuracy_mean,
        accuracy_loop,
        accuracy_topk,
        accuracy_numpy,
        accuracy_softmax,
        accuracy_sort,
        accuracy_confusion,
        accuracy_one_hot,
    ],
    "00.nll": [
        nll_cross_entropy,
        nll_gather,
        nll_logsumexp,
        nll_one_hot,
        nll_scipy,
        nll_loss,
        nll_categorical,
        nll_plain_python,
        nll_gaps,
    ],
    "00.fit_temperature": [
        fit_min,
        fit_argmin,
        fit_broadcast,
        fit_loop,
        fit_sorted,
        fit_topk,
        fit_scipy,
        fit_one_call,
    ],
}
