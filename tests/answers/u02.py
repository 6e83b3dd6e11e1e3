"""Right answers to unit 02 that look different from the reference and from each other."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kdlib.losses import kd_loss


def _positive(temperature):
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


def kd_kl_div(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    soft = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.softmax(teacher_logits.detach() / temperature, dim=1),
        reduction="batchmean",
    )
    hard = F.cross_entropy(student_logits, targets)
    return alpha * temperature * temperature * soft + (1 - alpha) * hard


def kd_log_target(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    with torch.no_grad():
        log_p = (teacher_logits / temperature).log_softmax(-1)
    log_q = (student_logits / temperature).log_softmax(-1)
    soft = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1).mean()
    hard = F.nll_loss(student_logits.log_softmax(-1), targets)
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def kd_cross_entropy_minus_entropy(
    student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9
):
    _positive(temperature)
    p = F.softmax(teacher_logits.detach() / temperature, dim=-1)
    cross = F.cross_entropy(student_logits / temperature, p)
    entropy = -torch.special.xlogy(p, p).sum(-1).mean()
    hard = F.cross_entropy(student_logits, targets)
    return alpha * temperature**2 * (cross - entropy) + (1 - alpha) * hard


def kd_by_rows(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    total = student_logits.new_zeros(())
    for z, v, y in zip(student_logits, teacher_logits.detach(), targets, strict=True):
        log_q = z / temperature - torch.logsumexp(z / temperature, 0)
        log_p = v / temperature - torch.logsumexp(v / temperature, 0)
        soft = torch.einsum("c,c->", log_p.exp(), log_p - log_q)
        hard = torch.logsumexp(z, 0) - z[y]
        total = total + alpha * temperature**2 * soft + (1 - alpha) * hard
    return total / len(targets)


def gradient_closed(student_logits, teacher_logits, temperature):
    q = F.softmax(student_logits / temperature, dim=1)
    return (q - F.softmax(teacher_logits / temperature, dim=1)) / temperature


def gradient_autograd(student_logits, teacher_logits, temperature):
    z = student_logits.detach().clone().requires_grad_(True)
    log_p = (teacher_logits / temperature).log_softmax(-1)
    log_q = (z / temperature).log_softmax(-1)
    return torch.autograd.grad(F.kl_div(log_q, log_p, reduction="sum", log_target=True), z)[0]


def gradient_loop(student_logits, teacher_logits, temperature):
    rows = []
    for z, v in zip(student_logits, teacher_logits, strict=True):
        q = (z / temperature - torch.logsumexp(z / temperature, 0)).exp()
        p = (v / temperature - torch.logsumexp(v / temperature, 0)).exp()
        rows.append((q - p) / temperature)
    return torch.stack(rows)


def gradient_numpy(student_logits, teacher_logits, temperature):
    def softmax(z):
        e = np.exp(z / temperature - (z / temperature).max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    pair = (softmax(x.detach().numpy()) for x in (student_logits, teacher_logits))
    return torch.from_numpy(np.subtract(*pair) / temperature)


def limit_difference(student_logits, teacher_logits, temperature):
    d = student_logits - teacher_logits
    return (d - d.mean(dim=-1, keepdim=True)) / (d.shape[-1] * temperature**2)


def limit_each_centred(student_logits, teacher_logits, temperature):
    z = student_logits - student_logits.mean(1, keepdim=True)
    v = teacher_logits - teacher_logits.mean(1, keepdim=True)
    return (z - v) / z.size(1) / temperature / temperature


def limit_matrix(student_logits, teacher_logits, temperature):
    n = student_logits.shape[-1]
    centring = torch.eye(n, dtype=student_logits.dtype) - 1 / n
    return (student_logits - teacher_logits) @ centring / (n * temperature**2)


def limit_loop(student_logits, teacher_logits, temperature):
    rows = [
        (z - v) - (z - v).sum() / len(z)
        for z, v in zip(student_logits, teacher_logits, strict=True)
    ]
    return torch.stack(rows).div(temperature**2).div(student_logits.shape[1])


def misses_masked(logits, targets):
    rest = logits.clone()
    rest[torch.arange(len(targets)), targets] = -torch.inf
    rest = rest.softmax(-1)
    return torch.stack([rest[targets == c].mean(0) for c in range(logits.shape[1])])


def misses_loop(logits, targets):
    classes = logits.shape[1]
    table = torch.zeros(classes, classes, dtype=logits.dtype)
    for c in range(classes):
        others = [k for k in range(classes) if k != c]
        table[c, others] = logits[targets == c][:, others].softmax(-1).mean(0)
    return table


def misses_index_add(logits, targets):
    mask = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, targets[:, None], True)
    rest = torch.where(mask, -torch.inf, logits).softmax(1)
    table = torch.zeros(logits.shape[1], logits.shape[1], dtype=logits.dtype)
    table.index_add_(0, targets, rest)
    return table / torch.bincount(targets, minlength=logits.shape[1])[:, None]


def misses_log_space(logits, targets):
    one_hot = F.one_hot(targets, logits.shape[1])
    masked = logits - 1e9 * one_hot
    rest = (masked - masked.logsumexp(1, keepdim=True)).exp()
    weights = one_hot / one_hot.sum(0)
    return torch.einsum("nc,nk->ck", weights.to(rest.dtype), rest)


def step_no_grad(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    teacher.eval()
    student.train()
    with torch.no_grad():
        teacher_logits = teacher(inputs)
    loss = kd_loss(student(inputs), teacher_logits, targets, temperature, alpha)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss)


def step_inference_mode(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    with torch.inference_mode():
        frozen = teacher.eval()(inputs)
    student_logits = student.train()(inputs)
    loss = kd_by_rows(student_logits, frozen.clone(), targets, temperature, alpha)
    for parameter in student.parameters():
        parameter.grad = None
    loss.backward()
    optimizer.step()
    return loss.detach().item()


def step_decorated(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    @torch.no_grad()
    def ask():
        return teacher(inputs)

    optimizer.zero_grad()
    student.train(True)
    teacher.train(False)
    loss = kd_kl_div(student(inputs), ask(), targets, temperature, alpha)
    loss.backward()
    optimizer.step()
    return loss.item()


def step_zero_last(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    student.train()
    for module in teacher.modules():
        module.eval()
    with torch.set_grad_enabled(False):
        t = teacher(inputs)
    loss = kd_log_target(student(inputs), t, targets, temperature, alpha)
    for group in optimizer.param_groups:
        gradients = torch.autograd.grad(loss, group["params"])
        for parameter, gradient in zip(group["params"], gradients, strict=True):
            parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


class CacheTensor:
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        with torch.no_grad():
            parts = [teacher(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size)]
        self.table = torch.cat(parts)

    def __len__(self):
        return self.table.shape[0]

    def __getitem__(self, indices):
        return self.table[indices]


class CacheDict:
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.train(False)
        self.table = {}
        for chunk in torch.arange(len(inputs)).split(batch_size):
            with torch.no_grad():
                for index, row in zip(chunk.tolist(), teacher(inputs[chunk]), strict=True):
                    self.table[index] = row

    def __len__(self):
        return len(self.table)

    def __getitem__(self, indices):
        return torch.stack([self.table[i] for i in indices.tolist()])


class CacheBuffer(nn.Module):
    def __init__(self, teacher, inputs, batch_size=256):
        super().__init__()
        with torch.inference_mode():
            logits = torch.cat([teacher.eval()(x) for x in torch.split(inputs, batch_size)])
        self.register_buffer("logits", logits.clone())

    def __len__(self):
        return self.logits.size(0)

    def __getitem__(self, indices):
        return self.logits.index_select(0, indices)


class CacheNumpy:
    def __init__(self, teacher, inputs, batch_size=256):
        teacher.eval()
        loader = torch.utils.data.DataLoader(inputs, batch_size=batch_size, shuffle=False)
        self.array = np.concatenate([teacher(x).detach().numpy() for x in loader])

    def __len__(self):
        return len(self.array)

    def __getitem__(self, indices):
        return torch.from_numpy(self.array[indices.numpy()])


ANSWERS = {
    "02.near_misses": [misses_masked, misses_loop, misses_index_add, misses_log_space],
    "02.kd_loss": [
        kd_kl_div,
        kd_log_target,
        kd_cross_entropy_minus_entropy,
        kd_by_rows,
    ],
    "02.kd_gradient": [gradient_closed, gradient_autograd, gradient_loop, gradient_numpy],
    "02.logit_matching_gradient": [
        limit_difference,
        limit_each_centred,
        limit_matrix,
        limit_loop,
    ],
    "02.distill_step": [step_no_grad, step_inference_mode, step_decorated, step_zero_last],
    "02.TeacherCache": [CacheTensor, CacheDict, CacheBuffer, CacheNumpy],
}
