"""Right answers to unit 02 that look different from the reference and from each other."""

import copy

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


def kd_cumulant(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    """KL = log E_p exp(d) - E_p d; and -log q_y is the logsumexp of z - z_y."""
    _positive(temperature)
    v = teacher_logits.detach()
    log_p = (v / temperature).log_softmax(1)
    d = (student_logits - v) / temperature
    soft = torch.logsumexp(log_p + d, dim=1) - torch.linalg.vecdot(log_p.exp(), d)
    hard = (student_logits - student_logits.gather(1, targets[:, None])).logsumexp(dim=1)
    return torch.mean(alpha * temperature**2 * soft + (1 - alpha) * hard)


def kd_modules(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    _positive(temperature)
    log_softmax, softmax = nn.LogSoftmax(dim=-1), nn.Softmax(dim=-1)
    target = softmax(teacher_logits / temperature).detach()
    soft = nn.KLDivLoss(reduction="sum")(log_softmax(student_logits / temperature), target)
    hard = nn.CrossEntropyLoss()(student_logits, targets)
    return torch.lerp(hard, soft / len(targets) * temperature**2, alpha)


def kd_double_inside(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    if temperature <= 0:
        raise ValueError(f"the temperature was {temperature}; it has to be above zero")
    z = student_logits.double()
    with torch.no_grad():
        log_p = F.log_softmax(teacher_logits.double() / temperature, dim=1)
    log_q = F.log_softmax(z / temperature, dim=1)
    soft = torch.einsum("bc,bc->", log_p.exp(), log_p - log_q)
    one_hot = F.one_hot(targets, z.shape[1]).double()
    hard = -torch.einsum("bc,bc->", one_hot, F.log_softmax(z, dim=1))
    loss = (alpha * temperature**2 * soft + (1 - alpha) * hard) / z.shape[0]
    return loss.to(student_logits.dtype)


class _BadTemperature(ValueError):
    pass


def kd_own_error(student_logits, teacher_logits, targets, temperature=4.0, alpha=0.9):
    """The error is a ValueError with a name of its own."""
    if not temperature > 0:
        raise _BadTemperature(f"temperature={temperature}")
    p = torch.softmax(teacher_logits.detach().div(temperature), dim=1)
    log_q = torch.log_softmax(student_logits.div(temperature), dim=1)
    rows = torch.special.xlogy(p, p).sum(dim=1) - p.mul(log_q).sum(dim=1)
    hard = F.cross_entropy(student_logits, targets, reduction="none")
    return rows.mul(alpha * temperature**2).add(hard, alpha=1 - alpha).mean(dim=0)


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


def gradient_vmap(student_logits, teacher_logits, temperature):
    """torch.func differentiates the KL of one row, for all rows at once."""

    def kl(z, v):
        log_q, log_p = (z / temperature).log_softmax(0), (v / temperature).log_softmax(0)
        return (log_p.exp() * (log_p - log_q)).sum()

    return torch.func.vmap(torch.func.grad(kl))(student_logits, teacher_logits)


def gradient_backward(student_logits, teacher_logits, temperature):
    z = nn.Parameter(student_logits.detach().clone())
    p = F.softmax(teacher_logits.detach() / temperature, dim=-1)
    with torch.enable_grad():
        F.cross_entropy(z / temperature, p, reduction="sum").backward()
    return z.grad


def gradient_softmax_jacobian(student_logits, teacher_logits, temperature):
    """The chain rule written out: dKL/dq = -p / q, dq_j/dz_i = q_j (1[i = j] - q_i) / T."""
    q = torch.softmax(student_logits.double() / temperature, dim=1)
    p = torch.softmax(teacher_logits.double() / temperature, dim=1)
    identity = torch.eye(q.shape[1], dtype=q.dtype)
    # (p_j / q_j) q_j is p_j, also where q_j is zero in floating point
    rows = torch.einsum("bj,bji->bi", p, identity - q[:, None, :])
    return (-rows / temperature).to(student_logits.dtype)


def gradient_stacked(student_logits, teacher_logits, temperature):
    both = torch.stack([teacher_logits, student_logits]).div(temperature)
    return both.softmax(dim=-1).diff(dim=0).squeeze(0) / temperature


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


def limit_pairs(student_logits, teacher_logits, temperature):
    """The mean over j of d_i - d_j is d_i less its mean."""
    d = student_logits - teacher_logits
    gaps = d.unsqueeze(2) - d.unsqueeze(1)  # (B, i, j)
    return gaps.mean(dim=2).mul(1 / (d.shape[1] * temperature**2))


def limit_autograd(student_logits, teacher_logits, temperature):
    """The gradient of half the squared length of the centred difference."""
    with torch.enable_grad():
        z = student_logits.detach().clone().requires_grad_()
        d = z - teacher_logits.detach()
        d = d - d.mean(1, keepdim=True)
        (gradient,) = torch.autograd.grad(0.5 * d.square().sum(), z)
    return gradient / (z.shape[1] * temperature**2)


def limit_numpy(student_logits, teacher_logits, temperature):
    d = student_logits.detach().double().numpy() - teacher_logits.detach().double().numpy()
    d = d - d.mean(axis=1, keepdims=True)
    return torch.from_numpy(d / d.shape[1] / temperature**2).to(student_logits.dtype)


def limit_einsum(student_logits, teacher_logits, temperature):
    z, v, n = student_logits, teacher_logits, student_logits.shape[1]
    mean = torch.einsum("bc->b", z - v) / n
    return torch.sub(z, v).sub(mean[:, None]) / float(n * temperature * temperature)


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


def misses_without_the_column(logits, targets):
    """Leave the true class out of each row, then put a zero in its place."""
    classes = logits.shape[1]
    others = torch.arange(classes - 1).expand(len(logits), -1)
    others = others + (others >= targets[:, None]).long()
    shares = logits.gather(1, others).softmax(dim=1)
    rest = torch.zeros_like(logits).scatter(1, others, shares)
    return torch.stack([rest[targets == c].sum(0) / (targets == c).sum() for c in range(classes)])


def misses_scatter_mean(logits, targets):
    rest = logits.scatter(1, targets.unsqueeze(1), float("-inf")).log_softmax(1).exp()
    index = targets.unsqueeze(1).expand_as(rest)
    table = logits.new_zeros(logits.shape[1], logits.shape[1])
    return table.scatter_reduce(0, index, rest, reduce="mean", include_self=False)


def misses_sorted(logits, targets):
    order = torch.sort(targets).indices
    z = logits[order].clone()
    z[torch.arange(len(z)), targets[order]] = -float("inf")
    counts = torch.bincount(targets, minlength=logits.shape[1]).tolist()
    return torch.stack([part.mean(dim=0) for part in z.softmax(-1).split(counts)])


def misses_numpy(logits, targets):
    z, y = logits.detach().numpy().astype(np.float64), targets.numpy()
    z[np.arange(len(y)), y] = -np.inf
    e = np.exp(z - z.max(axis=1, keepdims=True))
    shares = e / e.sum(axis=1, keepdims=True)
    table = np.zeros((z.shape[1], z.shape[1]))
    np.add.at(table, y, shares)
    return torch.from_numpy(table / np.bincount(y)[:, None]).to(logits.dtype)


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
        gradients = torch.autograd.grad(loss, group["params"], retain_graph=True)
        for parameter, gradient in zip(group["params"], gradients, strict=True):
            parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def step_closure(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    """The optimiser asks for the loss itself."""
    student.train()
    teacher.eval()
    with torch.no_grad():
        teacher_logits = teacher(inputs)

    def closure():
        optimizer.zero_grad()
        loss = kd_loss(student(inputs), teacher_logits, targets, temperature, alpha)
        loss.backward()
        return loss

    return optimizer.step(closure).item()


def step_teacher_put_back(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    """The teacher leaves in the mode in which it came."""
    modes = [(module, module.training) for module in teacher.modules()]
    teacher.eval()
    try:
        with torch.no_grad():
            teacher_logits = teacher(inputs)
    finally:
        for module, mode in modes:
            module.training = mode
    student.train()
    loss = kd_loss(
        student_logits=student(inputs),
        teacher_logits=teacher_logits,
        targets=targets,
        temperature=temperature,
        alpha=alpha,
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def step_no_grad_function(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    teacher.eval()
    teacher_logits = torch.no_grad()(teacher.forward)(inputs)
    optimizer.zero_grad()
    student_logits = student.train()(inputs)
    loss = kd_double_inside(student_logits, teacher_logits, targets, temperature, alpha)
    torch.autograd.backward(loss)
    optimizer.step()
    return float(loss.detach())


def step_gradient_of_logits(
    student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9
):
    """The gradient at the logits from equation 2 by hand, autograd for the network alone."""
    student.train()
    teacher.eval()
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        v = teacher(inputs)
    finally:
        torch.set_grad_enabled(before)
    z = student(inputs)
    soft = gradient_closed(z.detach(), v, temperature) * temperature**2
    hard = z.detach().softmax(1) - F.one_hot(targets, z.shape[1])
    optimizer.zero_grad()
    z.backward((alpha * soft + (1 - alpha) * hard) / len(z))
    loss = kd_loss(z.detach(), v, targets, temperature, alpha)
    optimizer.step()
    return loss.item()


def step_copied_teacher(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    """Asks a copy, so that nothing about the teacher can change."""
    frozen = copy.deepcopy(teacher).eval()
    with torch.no_grad():
        teacher_logits = frozen(inputs)
    student.train()
    loss = kd_loss(student(inputs), teacher_logits, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def step_flags_put_back(student, teacher, inputs, targets, optimizer, temperature=4.0, alpha=0.9):
    """Where nothing requires gradient autograd records no graph."""
    flags = [p.requires_grad for p in teacher.parameters()]
    try:
        teacher_logits = teacher.eval().requires_grad_(False)(inputs)
    finally:
        for parameter, flag in zip(teacher.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
    student.train()
    loss = kd_loss(student(inputs), teacher_logits, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
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


class CacheChunks:
    """Keeps the chunks as they came and finds a row by division."""

    def __init__(self, teacher, inputs, batch_size=256):
        self.size, self.count, self.chunks = batch_size, len(inputs), []
        teacher.eval()
        with torch.no_grad():
            for start in range(0, len(inputs), batch_size):
                self.chunks.append(teacher(inputs[start : start + batch_size]))

    def __len__(self):
        return self.count

    def __getitem__(self, indices):
        places = (divmod(i, self.size) for i in indices.tolist())
        return torch.stack([self.chunks[chunk][row] for chunk, row in places])


class CacheEmbedding:
    def __init__(self, teacher, inputs, batch_size=256):
        was = teacher.training
        teacher.eval()
        try:
            with torch.no_grad():
                logits = torch.vstack([teacher(x) for x in inputs.split(batch_size)])
        finally:
            teacher.train(was)
        self.table = nn.Embedding.from_pretrained(logits, freeze=True)

    def __len__(self):
        return self.table.num_embeddings

    def __getitem__(self, indices):
        return self.table(indices)


class CacheDataset(torch.utils.data.TensorDataset):
    @torch.no_grad()
    def __init__(self, teacher, inputs, batch_size=256):
        chunks = -(-len(inputs) // batch_size)
        teacher.train(False)
        rows = [teacher(inputs[batch_size * i : batch_size * (i + 1)]) for i in range(chunks)]
        super().__init__(torch.cat(rows, dim=0))

    def __getitem__(self, indices):
        return super().__getitem__(indices)[0]


class CachePreallocated:
    def __init__(self, teacher, inputs, batch_size=256):
        self.logits = None
        teacher.eval()
        with torch.autograd.grad_mode.set_grad_enabled(False):
            for start in range(0, len(inputs), batch_size):
                part = teacher(inputs[start : start + batch_size])
                if self.logits is None:
                    self.logits = part.new_empty(len(inputs), part.shape[1])
                self.logits[start : start + len(part)] = part

    def __len__(self):
        return self.logits.shape[0]

    def __getitem__(self, indices):
        index = indices[:, None].expand(-1, self.logits.shape[1])
        return self.logits.gather(0, index)


class CacheCopiedTeacher:
    """Asks a frozen copy; the teacher itself is not touched."""

    def __init__(self, teacher, inputs, batch_size=256):
        frozen = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.logits = torch.cat([frozen(x) for x in inputs.split(batch_size)])

    def __len__(self):
        return len(self.logits)

    def __getitem__(self, indices):
        return self.logits[indices]


ANSWERS = {
    "02.near_misses": [
        misses_masked,
        misses_loop,
        misses_index_add,
        misses_log_space,
        misses_without_the_column,
        misses_scatter_mean,
        misses_sorted,
        misses_numpy,
    ],
    "02.kd_loss": [
        kd_kl_div,
        kd_log_target,
        kd_cross_entropy_minus_entropy,
        kd_by_rows,
        kd_cumulant,
        kd_modules,
        kd_double_inside,
        kd_own_error,
    ],
    "02.kd_gradient": [
        gradient_closed,
        gradient_autograd,
        gradient_loop,
        gradient_numpy,
        gradient_vmap,
        gradient_backward,
        gradient_softmax_jacobian,
        gradient_stacked,
    ],
    "02.logit_matching_gradient": [
        limit_difference,
        limit_each_centred,
        limit_matrix,
        limit_loop,
        limit_pairs,
        limit_autograd,
        limit_numpy,
        limit_einsum,
    ],
    "02.distill_step": [
        step_no_grad,
        step_inference_mode,
        step_decorated,
        step_zero_last,
        step_closure,
        step_teacher_put_back,
        step_no_grad_function,
        step_gradient_of_logits,
        step_copied_teacher,
        step_flags_put_back,
    ],
    "02.TeacherCache": [
        CacheTensor,
        CacheDict,
        CacheBuffer,
        CacheNumpy,
        CacheChunks,
        CacheEmbedding,
        CacheDataset,
        CachePreallocated,
        CacheCopiedTeacher,
    ],
}

_UNASKED = "the contract does not ask for this check"
_LEAF = "what is asked for does not depend on whether the inputs take a gradient"
_OWN = "nothing is changed in place"
_EVERY = "every class is among the targets"

EQUIVALENT = {
    "02.near_misses": {
        "a check left out @ *": _UNASKED,
        "* @ missing = *": _UNASKED,
        "* @ raise ValueError(f'targets must contain every class*": _UNASKED,
        "an argument not passed on @ *one_hot(targets*": _EVERY,
        "an argument not passed on @ *bincount(targets*": _EVERY,
        "another number @ masked = *": "any number does that no logit comes near",
        "not converted @ others = *": "a truth value counts as 0 or 1",
        "logarithm of a softmax @ *.exp()*": "exp takes the logarithm back, also that of zero",
        "not copied @ z = logits[order]*": "rows that an index tensor picks are a copy",
        "not detached @ z, y = *": "the logits of the contract carry no graph",
        "rounded to whole numbers @ z, y = *": "float32 is near enough",
    },
    "02.kd_loss": {
        "not converted @ rows = *": "float16 is not in the contract",
        "a check left out @ require_same_shape(*": "the divergence refuses two shapes, too",
        "a check left out @ require_temperature(*": "the divergence refuses it, too",
        "a check left out @ require_*": _UNASKED,
        "arguments exchanged @ soft = *vecdot(*": "a dot product is symmetric",
        "dimension not kept @ *": "the mean of all sums is the sum of the means",
        "over all entries @ return rows.*": "a vector has one dimension",
    },
    "02.kd_gradient": {
        "a check left out @ require_*": _UNASKED,
        "not detached @ pair = *": "the logits of the contract carry no graph",
        "not detached @ p = *": "the logits of the contract carry no graph",
        "not detached @ z = *": _LEAF,
        "not copied @ z = *": _OWN,
        "logarithm of a softmax @ log_p = *": "the gradient of log p meets its exponential alone",
        "logarithm of a softmax @ log_q, log_p = *v / temperature).softmax(0).log())": (
            "of log p, the gradient meets its exponential alone"
        ),
        "an argument not passed on @ identity = *": "zeros and ones are exact in float32",
    },
    "02.logit_matching_gradient": {
        "a check left out @ require_*": _UNASKED,
        "divided by another number of entries @ rows = *": "a vector has as many entries as rows",
        "not detached @ *": "the logits of the contract carry no graph",
        "the wrong way round @ d = *": "a square has no sign",
        "not copied @ z = *": _OWN,
        "not converted @ d = *": "the other operand makes it float64",
        "not converted @ return torch.sub(*": "a whole number divides as well",
    },
    "02.distill_step": {
        "a check left out @ *ositive(temperature)*": _UNASKED,
        "a check left out @ if temperature *": _UNASKED,
        "* @ raise ValueError(f'the temperature was*": _UNASKED,
        "* @ if temperature <= 0:*": _UNASKED,
        "another default @ def kd_*": "temperature and alpha are passed on",
        "logarithm of a softmax @ *": "the exercise gives the loss",
        "not converted @ *": "the networks' logits are float64 already",
        "not detached @ *": "a number, or a teacher's logits without a graph",
        "cut off from the gradient @ return (q - *": "a gradient by hand carries no graph",
        "left in another state @ *": "the step sets the mode itself before it calls the network",
        "the other mode @ *": "the same in other words",
        "two steps exchanged @ *": "the two do not depend on each other",
        "a step left out @ optimizer.zero_grad()*": "each step writes the gradients anew",
        "an argument not passed on @ optimizer.zero_grad(*": "nothing or zero",
        "the other truth value @ optimizer.zero_grad(*": "nothing or zero",
        "changed in place @ log_p = *": "the teacher's logits are the step's own",
        "not copied @ frozen = *": "the teacher's mode after the step is left open",
        "not copied @ loss = kd_by_rows(*": "what is computed from it is an ordinary tensor",
        "cleared up only when all goes well @ *": "the contract does not speak of errors",
        "* @ modes = *": "the teacher's mode after the step is left open",
        "* @ for module, mode in modes:*": "the teacher's mode after the step is left open",
        "* @ *module.training = mode*": "the teacher's mode after the step is left open",
        "only the first @  => break": "`eval` reaches every module below",
        "the loop ends too early @ for module in teacher.modules()*": "`eval` reaches all below",
        "the loop ends too early @ for module, mode in modes*": "its mode afterwards is left open",
    },
    "02.TeacherCache": {
        "* @ if len(inputs) == 0:*": "the contract does not speak of no inputs",
        "another exception @ *": _UNASKED,
        "an exception without what was given @ *": _UNASKED,
        "* @ if indices.numel() and *": "no index of the contract is out of range, no batch empty",
        "cut off from the gradient @ return self._logits*": "the table carries no graph",
        "the other mode @ *": "the same in other words, or left as the contract leaves open",
        "not copied @ self.register_buffer(*": "rows picked by index are ordinary copies",
        "an argument not passed on @ loader = *": "False is the default",
        "an argument not passed on @ self.table = *": "True is the default",
        "not detached @ with torch.no_grad():*": "the embedding's table is a leaf without a graph",
        "a step left out @ teacher.train(was)*": "the mode that it leaves behind is left open",
        "cleared up only when all goes well @ *": "the mode that it leaves behind is left open",
        "kept between calls @ self.logits = None*": "the table itself is the instance's",
    },
}
