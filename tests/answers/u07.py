"""Right answers to unit 07 that look different from the reference and from each other."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from kdlib.losses import contrastive_loss


def _equal_batches(a, b):
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"{a.shape[0]} rows against {b.shape[0]}")


def sp_einsum(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)

    def rows(x):
        z = x.reshape(len(x), -1)
        g = torch.einsum("id,jd->ij", z, z)
        return g / g.norm(dim=1, keepdim=True).clamp_min(1e-12)

    return F.mse_loss(rows(student_features), rows(teacher_features.detach()))


def sp_frobenius(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    s, t = student_features.flatten(1), teacher_features.detach().flatten(1)
    g, h = F.normalize(s @ s.T), F.normalize(t @ t.T)
    return torch.linalg.matrix_norm(g - h).square() / len(s) ** 2


def sp_loop(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    s, t = student_features.flatten(1), teacher_features.clone().detach().flatten(1)
    total = s.new_zeros(())
    for i in range(len(s)):
        g = torch.stack([s[i] @ s[j] for j in range(len(s))])
        h = torch.stack([t[i] @ t[j] for j in range(len(t))])
        g, h = g / g.norm().clamp_min(1e-12), h / h.norm().clamp_min(1e-12)
        total = total + ((g - h) ** 2).sum()
    return total / len(s) ** 2


def sp_columns(student_features, teacher_features):
    """G is symmetric: its columns may be normalised in place of its rows."""
    _equal_batches(student_features, teacher_features)
    s, t = (
        F.normalize(z @ z.T, p=2, dim=0)
        for z in (student_features.flatten(1), teacher_features.flatten(1).detach())
    )
    return torch.mean((s - t) ** 2)


def sp_cosines(student_features, teacher_features):
    """The lengths of rows i cancel, those of rows j do not."""
    _equal_batches(student_features, teacher_features)

    def rows(x):
        z = x.flatten(1)
        length = torch.linalg.vector_norm(z, dim=1)
        return F.normalize(F.normalize(z, dim=1) @ F.normalize(z, dim=1).T * length, dim=1)

    return (rows(teacher_features.detach()) - rows(student_features)).pow(2).mean()


def sp_no_grad(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    n = len(student_features)
    with torch.no_grad():
        t = teacher_features.reshape(n, -1)
        target = F.normalize(torch.mm(t, t.t()), dim=-1)
    s = student_features.reshape(n, -1)
    return F.mse_loss(F.normalize(torch.mm(s, s.t()), dim=-1), target, reduction="sum") / n / n


def sp_double(student_features, teacher_features):
    """Computes in float64 whatever comes."""
    _equal_batches(student_features, teacher_features)
    s, t = student_features.double().flatten(1), teacher_features.double().flatten(1).detach()
    g, h = (F.normalize((z[:, None] * z[None]).sum(-1), dim=1) for z in (s, t))
    return (g - h).square().mean().to(student_features.dtype)


def sp_expanded(student_features, teacher_features):
    """|a - b|^2 = |a|^2 + |b|^2 - 2ab; a row of length one, or zero, has square 1, or 0."""
    _equal_batches(student_features, teacher_features)
    s, t = student_features.flatten(1), teacher_features.flatten(1).detach()
    g, h = F.normalize(s @ s.T, dim=1), F.normalize(t @ t.T, dim=1)
    return ((g * g).sum() + (h * h).sum() - 2 * (g * h).sum()) / g.numel()


def _two_rows(x):
    if len(x) < 2:
        raise ValueError("needs two rows")


def distance_clamped(student_features, teacher_features):
    """As the authors' code: expand the square, clamp, take the root."""
    _equal_batches(student_features, teacher_features)
    _two_rows(student_features)

    def relative(x):
        e = x.flatten(1)
        square = e.pow(2).sum(dim=1)
        d = (square[:, None] + square[None] - 2 * e @ e.t()).clamp(min=1e-12).sqrt()
        d = d * (1 - torch.eye(len(e), dtype=d.dtype))
        return d / d[d > 0].mean()

    with torch.no_grad():
        target = relative(teacher_features)
    return F.smooth_l1_loss(relative(student_features), target)


def _safe_distance(z):
    square = (z[:, None] - z[None]).square().sum(-1)
    here = square == 0
    return torch.where(here, 0.0, torch.where(here, 1.0, square).sqrt())


def distance_where(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    _two_rows(student_features)
    psi = []
    for z in (student_features.flatten(1), teacher_features.detach().flatten(1)):
        d = _safe_distance(z)
        n = len(z)
        psi.append(d / (d.sum() / (n * n - n)).clamp_min(1e-12))
    return F.huber_loss(*psi, delta=1.0)


def distance_norm(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    _two_rows(student_features)

    def relative(z):
        z = z.reshape(len(z), -1)
        d = torch.linalg.vector_norm(z.unsqueeze(0) - z.unsqueeze(1), dim=-1)
        mean = d.masked_select(~torch.eye(len(z), dtype=torch.bool)).mean()
        return d / (mean + 1e-12)

    return nn.SmoothL1Loss()(relative(student_features), relative(teacher_features.detach()))


def distance_cdist(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    _two_rows(student_features)
    n = len(student_features)
    s, t = student_features.flatten(1), teacher_features.detach().flatten(1)
    s, t = torch.cdist(s, s), torch.cdist(t, t)
    s, t = (d * (n * (n - 1)) / d.sum().clamp_min(1e-12) for d in (s, t))
    gap = (s - t).abs()
    return torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean()


def distance_pdist(student_features, teacher_features):
    """The upper triangle alone, counted twice."""
    _equal_batches(student_features, teacher_features)
    _two_rows(student_features)
    n = len(student_features)
    s, t = (F.pdist(x.flatten(1).contiguous()) for x in (student_features, teacher_features))
    s, t = s / s.mean().clamp_min(1e-12), (t / t.mean()).detach()
    return 2 * F.smooth_l1_loss(s, t, reduction="sum") / n**2


def distance_loop(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    _two_rows(student_features)
    n = len(student_features)

    def relative(z):
        z = z.flatten(1)
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        d = torch.stack([torch.dist(z[i], z[j]) for i, j in pairs])
        return d / d.mean().clamp_min(1e-12)

    s, t = relative(student_features), relative(teacher_features.detach())
    return F.smooth_l1_loss(s, t, reduction="sum") / n**2


def distance_centred(student_features, teacher_features):
    """Distances do not change when the mean is taken off."""
    _equal_batches(student_features, teacher_features)
    _two_rows(student_features)
    psi = []
    for z in (student_features.flatten(1), teacher_features.flatten(1).detach()):
        z = z - z.mean(0)
        square = (z * z).sum(1)
        d2 = square[:, None] + square - 2 * z @ z.mT
        d = d2.clamp_min(1e-12).sqrt().masked_fill(torch.eye(len(z), dtype=torch.bool), 0.0)
        psi.append(d / (d.sum(1) / (len(z) - 1)).mean())
    return F.smooth_l1_loss(psi[0], psi[1])


def distance_scaled_first(student_features, teacher_features):
    """Divide the features by the mean distance, then measure."""
    _equal_batches(student_features, teacher_features)
    _two_rows(student_features)

    def relative(z):
        z = z.flatten(1)
        n = len(z)
        mean = _safe_distance(z).sum() / (n * (n - 1))
        return _safe_distance(z / mean.clamp_min(1e-12))

    with torch.no_grad():
        target = relative(teacher_features)
    return F.smooth_l1_loss(relative(student_features), target)


def angle_bmm(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)

    def cosines(z):
        z = z.flatten(1)
        e = F.normalize(z.unsqueeze(0) - z.unsqueeze(1), p=2, dim=2)
        return torch.bmm(e, e.transpose(1, 2)).view(-1)

    with torch.no_grad():
        target = cosines(teacher_features)
    return F.smooth_l1_loss(cosines(student_features), target)


def angle_einsum(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)

    def cosines(z):
        z = z.reshape(len(z), -1)
        e = z[:, None] - z[None]  # from j to i
        e = e / torch.linalg.vector_norm(e, dim=-1, keepdim=True).clamp_min(1e-12)
        return torch.einsum("ijd,kjd->ijk", e, e)

    return F.smooth_l1_loss(cosines(student_features), cosines(teacher_features.detach()))


def angle_loop(student_features, teacher_features):
    """One corner after the other: B x B at a time."""
    _equal_batches(student_features, teacher_features)
    s, t = student_features.flatten(1), teacher_features.flatten(1).detach()
    total = 0.0
    for corner in range(len(s)):
        a, b = (F.normalize(z - z[corner], dim=1) for z in (s, t))
        total = total + F.smooth_l1_loss(a @ a.T, b @ b.T, reduction="sum")
    return total / len(s) ** 3


def angle_cosine_similarity(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)

    def cosines(z):
        z = z.flatten(1)
        e = z[None] - z[:, None]
        return F.cosine_similarity(e[:, :, None], e[:, None], dim=-1, eps=1e-12)

    return F.huber_loss(cosines(student_features), cosines(teacher_features.detach()))


def angle_from_gram(student_features, teacher_features):
    """<x_i - x_j, x_k - x_j> from the similarity matrix of centred features."""
    _equal_batches(student_features, teacher_features)

    def cosines(z):
        z = z.flatten(1)
        z = z - z.mean(0)
        g = z @ z.T
        own = g.diagonal()
        dot = g[None] - g[:, :, None] - g[:, None] + own[:, None, None]
        square = own[:, None] + own[None] - 2 * g
        near = square <= 1e-14 * own.max()
        length = torch.where(near, torch.ones_like(square), square).sqrt()
        unit = torch.where(near, torch.zeros_like(length), 1 / length)
        return dot * unit[:, :, None] * unit[:, None]

    s, t = cosines(student_features.double()), cosines(teacher_features.double().detach())
    return F.smooth_l1_loss(s, t).to(student_features.dtype)


def angle_huber_by_hand(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    both = []
    for z in (student_features.flatten(1), teacher_features.clone().detach().flatten(1)):
        e = F.normalize(z[:, None] - z, dim=-1).transpose(0, 1)
        both.append(torch.matmul(e, e.transpose(1, 2)))
    gap = (both[0] - both[1]).abs()
    return torch.where(gap < 1, 0.5 * gap * gap, gap - 0.5).mean()


def angle_half(student_features, teacher_features):
    """Each angle appears twice, as i-j-k and k-j-i: upper triangle twice, diagonal once."""
    _equal_batches(student_features, teacher_features)
    n = len(student_features)

    def corner(z):
        e = F.normalize(z[None] - z[:, None], dim=2)
        return e @ e.mT

    s, t = corner(student_features.flatten(1)), corner(teacher_features.detach().flatten(1))
    loss = F.smooth_l1_loss(s, t, reduction="none")
    upper = torch.triu(loss, diagonal=1).sum()
    return (2 * upper + loss.diagonal(dim1=1, dim2=2).sum()) / n**3


def angle_double(student_features, teacher_features):
    _equal_batches(student_features, teacher_features)
    s, t = (
        (z[None] - z[:, None])
        for z in (student_features.double().flatten(1), teacher_features.double().flatten(1))
    )
    t = t.detach()
    s, t = (e * e.square().sum(-1, keepdim=True).clamp_min(1e-24).rsqrt() for e in (s, t))
    return F.smooth_l1_loss(s @ s.mT, t @ t.mT).to(student_features.dtype)


def _pairs(s, t, temperature):
    if s.shape != t.shape:
        raise ValueError("shapes differ")
    if not temperature > 0:
        raise ValueError("the temperature must be positive")


def contrast_log_softmax(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    _pairs(student_embeddings, teacher_embeddings, temperature)
    s, t = F.normalize(student_embeddings), F.normalize(teacher_embeddings)
    scores = (s @ t.T) / temperature
    if labels is not None:
        others = torch.eye(len(s)) == 0
        scores = scores.masked_fill((labels.unsqueeze(0) == labels.unsqueeze(1)) & others, -1e9)
    rows, columns = scores.log_softmax(1).diagonal(), scores.log_softmax(0).diagonal()
    return -(rows.mean() + columns.mean()) / 2


def contrast_logsumexp(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    _pairs(student_embeddings, teacher_embeddings, temperature)
    s, t = (
        z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)
        for z in (student_embeddings, teacher_embeddings)
    )
    scores = torch.einsum("id,jd->ij", s, t) / temperature
    allowed = torch.ones_like(scores, dtype=torch.bool)
    if labels is not None:
        allowed = labels[:, None] != labels
        allowed |= torch.eye(len(s), dtype=torch.bool)
    scores = torch.where(allowed, scores, torch.tensor(-math.inf, dtype=scores.dtype))
    both = torch.logsumexp(scores, 1) + torch.logsumexp(scores, 0)
    return (both / 2 - scores.diagonal()).mean()


def contrast_loop(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    _pairs(student_embeddings, teacher_embeddings, temperature)
    s, t = F.normalize(student_embeddings, dim=-1), F.normalize(teacher_embeddings, dim=-1)
    n, total = len(s), 0.0
    for i in range(n):
        rivals = [j for j in range(n) if j != i and (labels is None or labels[j] != labels[i])]
        keep = [i, *rivals]
        for one, many in ((s[i], t[keep]), (t[i], s[keep])):
            scores = many @ one / temperature
            total = total + scores.logsumexp(0) - scores[0]
    return total / (2 * n)


def contrast_cat(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    """Both directions in one cross-entropy of 2B rows."""
    _pairs(student_embeddings, teacher_embeddings, temperature)
    scores = F.normalize(student_embeddings, dim=1) @ F.normalize(teacher_embeddings, dim=1).T
    scores = scores / temperature
    if labels is not None:
        same = (labels[:, None] == labels[None, :]).float() - torch.eye(len(labels))
        scores = scores.masked_fill(same.bool(), float("-inf"))
    own = torch.arange(len(scores)).repeat(2)
    return F.cross_entropy(torch.cat([scores, scores.T]), own)


def contrast_one_hot(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    _pairs(student_embeddings, teacher_embeddings, temperature)
    s, t = F.normalize(student_embeddings, dim=1), F.normalize(teacher_embeddings, dim=1)
    scores = s @ (t / temperature).T
    n = len(s)
    if labels is not None:
        penalty = torch.zeros(n, n, dtype=scores.dtype)
        penalty[(labels[:, None] == labels) & ~torch.eye(n).bool()] = -1e6
        scores = scores + penalty
    target = torch.eye(n, dtype=scores.dtype)
    return 0.5 * F.cross_entropy(scores, target) + 0.5 * F.cross_entropy(scores.T, target)


def contrast_cosine(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    _pairs(student_embeddings, teacher_embeddings, temperature)
    scores = F.cosine_similarity(
        student_embeddings[:, None], teacher_embeddings[None], dim=-1, eps=1e-12
    )
    scores = scores / temperature
    own = torch.arange(len(scores))
    if labels is not None:
        hidden = labels[:, None].eq(labels[None])
        hidden[own, own] = False
        scores = scores.masked_fill(hidden, -torch.inf)
    losses = [F.nll_loss(F.log_softmax(x, dim=1), own) for x in (scores, scores.T)]
    return sum(losses) / len(losses)


def contrast_max_off(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    """exp and log by hand, with the largest score taken off."""
    _pairs(student_embeddings, teacher_embeddings, temperature)
    s, t = F.normalize(student_embeddings, dim=1), F.normalize(teacher_embeddings, dim=1)
    keep = torch.ones(len(s), len(s), dtype=torch.bool)
    if labels is not None:
        keep = (labels[:, None] != labels[None]) | torch.eye(len(s), dtype=torch.bool)

    def one(scores, keep):
        scores = scores.masked_fill(~keep, -math.inf)
        scores = scores - scores.detach().amax(1, keepdim=True)
        return (scores.exp().sum(1).log() - scores.diagonal()).mean()

    scores = s @ t.mT / temperature
    return (one(scores, keep) + one(scores.mT, keep.mT)) / 2


def contrast_double(student_embeddings, teacher_embeddings, temperature=0.1, labels=None):
    _pairs(student_embeddings, teacher_embeddings, temperature)
    s, t = F.normalize(student_embeddings.double()), F.normalize(teacher_embeddings.double())
    scores = torch.tensordot(s, t, dims=([1], [1])) / temperature
    if labels is not None:
        same = torch.tensor([[bool(a == b) for b in labels] for a in labels])
        scores = scores.masked_fill(same.fill_diagonal_(False), -torch.inf)
    own = torch.arange(len(s))
    loss = torch.stack([F.cross_entropy(scores, own), F.cross_entropy(scores.T, own)]).mean()
    return loss.to(student_embeddings.dtype)


class TrainerModuleList:
    def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
        self.student, self.teacher = student, teacher
        self.heads, self.temperature = (student_head, teacher_head), temperature
        learn = nn.ModuleList([student, student_head, teacher_head])
        self.optimizer = torch.optim.Adam(learn.parameters(), lr=lr)

    def step(self, images, labels=None):
        self.student.train(), self.teacher.eval()
        self.optimizer.zero_grad()
        with torch.no_grad():
            theirs = self.teacher(images)
        z = self.heads[0](self.student(images)), self.heads[1](theirs)
        loss = contrastive_loss(*z, self.temperature, labels)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class TrainerGroups:
    def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
        self.parts, self.tau = (student, teacher, student_head, teacher_head), temperature
        self.optimizer = torch.optim.Adam([{"params": list(student.parameters())}], lr)
        for head in (student_head, teacher_head):
            self.optimizer.add_param_group({"params": list(head.parameters())})

    def step(self, images, labels=None):
        student, teacher, student_head, teacher_head = self.parts
        teacher.train(False)
        student.train(True)
        with torch.inference_mode():
            target = teacher(images)
        loss = contrast_cat(
            student_head(student(images)), teacher_head(target.clone()), self.tau, labels
        )
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        loss.backward()
        self.optimizer.step()
        return loss.item()


class TrainerDetached:
    """Freezes the teacher for good and detaches what it says."""

    def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
        self.teacher = teacher.requires_grad_(False).eval()
        self.student = nn.Sequential(student, student_head)
        self.head, self.tau = teacher_head, temperature
        parameters = {*self.student.parameters(), *teacher_head.parameters()}
        self.optimizer = torch.optim.Adam(sorted(parameters, key=id), lr)

    @torch.no_grad()
    def ask(self, images):
        return self.teacher.eval()(images)

    def step(self, images, labels=None):
        self.student.train()
        target = self.head(self.ask(images))
        loss = contrast_loop(self.student(images), target, self.tau, labels)
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.optimizer.step()
        return loss.detach().item()


class TrainerGrad:
    """Asks autograd for the gradients and enters them by hand."""

    def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
        self.s, self.t, self.hs, self.ht = student, teacher, student_head, teacher_head
        self.temperature = temperature
        self.learn = [p for m in (self.s, self.hs, self.ht) for p in m.parameters()]
        self.optimizer = torch.optim.Adam(self.learn, lr=lr)

    def step(self, images, labels=None):
        self.t.eval()
        self.s.train()
        with torch.set_grad_enabled(False):
            theirs = self.t(images)
        z = self.hs(self.s(images))
        loss = contrast_log_softmax(z, self.ht(theirs), self.temperature, labels)
        for p, g in zip(self.learn, torch.autograd.grad(loss, self.learn), strict=True):
            p.grad = g
        self.optimizer.step()
        return loss.item()


class TrainerFilter:
    def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
        self.networks = {"s": student, "t": teacher, "hs": student_head, "ht": teacher_head}
        self.temperature = temperature
        named = [
            p
            for name, network in self.networks.items()
            for p in network.parameters()
            if name != "t" and p.requires_grad
        ]
        self.optimizer = torch.optim.Adam(named, lr)

    def embed(self, images):
        n = self.networks
        n["s"].train(mode=True)
        n["t"].train(mode=False)
        with torch.no_grad():
            target = n["t"](images)
        return n["hs"](n["s"](images)), n["ht"](target)

    def step(self, images, labels=None):
        loss = contrastive_loss(*self.embed(images), self.temperature, labels=labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class TrainerClosure:
    """Lets the optimiser call the loss."""

    def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
        self.args = student, teacher, student_head, teacher_head
        self.temperature = temperature
        self.optimizer = torch.optim.Adam(
            [*student.parameters(), *student_head.parameters(), *teacher_head.parameters()], lr
        )

    def step(self, images, labels=None):
        student, teacher, student_head, teacher_head = self.args
        student.train()
        teacher.eval()

        def closure():
            self.optimizer.zero_grad()
            with torch.no_grad():
                theirs = teacher(images)
            a, b = student_head(student(images)), teacher_head(theirs)
            loss = contrast_logsumexp(a, b, self.temperature, labels)
            loss.backward()
            return loss

        return self.optimizer.step(closure).item()


class TrainerModule(nn.Module):
    """A module of its own; the teacher hides in a tuple."""

    def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
        super().__init__()
        self.student, self.student_head = student, student_head
        self.teacher_head, self.hidden = teacher_head, (teacher,)
        self.temperature = temperature
        self.optimizer = torch.optim.Adam(self.parameters(), lr)

    def step(self, images, labels=None):
        self.train()
        teacher = self.hidden[0].eval()
        with torch.no_grad():
            features = teacher(images)
        s, t = self.student_head(self.student(images)), self.teacher_head(features)
        loss = contrast_one_hot(s, t, self.temperature, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class TrainerFunctional:
    """Adam from the library, all parameters in one list, cleared after the step."""

    def __init__(self, student, teacher, student_head, teacher_head, temperature=0.1, lr=2e-3):
        parts = student, student_head, teacher_head
        self.optimizer = torch.optim.Adam([w for part in parts for w in part.parameters()], lr=lr)
        self.mine = lambda x: student_head(student.train()(x))
        self.theirs = lambda x: teacher_head(torch.no_grad()(teacher.eval())(x))
        self.temperature = temperature

    def step(self, images, labels=None):
        loss = contrastive_loss(self.mine(images), self.theirs(images), self.temperature, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def _nce_input(scores, normaliser):
    if normaliser <= 0:
        raise ValueError("the normaliser must be positive")
    if scores.shape[-1] < 2:
        raise ValueError("no negatives")
    return scores.shape[1] - 1


def nce_logsigmoid(scores, normaliser, examples):
    k = _nce_input(scores, normaliser)
    logits = scores - math.log(normaliser * k / examples)
    won = F.logsigmoid(logits[:, 0])
    lost = F.logsigmoid(-logits[:, 1:]).sum(dim=1)
    return -(won + lost).mean()


def nce_bce(scores, normaliser, examples):
    k = _nce_input(scores, normaliser)
    logits = scores - math.log(normaliser) + math.log(examples) - math.log(k)
    target = torch.zeros_like(logits)
    target[:, 0] = 1
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    return loss / len(scores)


def nce_logaddexp(scores, normaliser, examples):
    """log(u + K/n) without leaving logarithms."""
    k = _nce_input(scores, normaliser)
    log_u = scores - math.log(normaliser)
    log_noise = torch.full_like(log_u, math.log(k / examples))
    total = torch.logaddexp(log_u, log_noise)
    loss = (total - log_u)[:, 0] + (total - log_noise)[:, 1:].sum(1)
    return loss.mean()


def nce_multilabel(scores, normaliser, examples):
    k = _nce_input(scores, normaliser)
    partner = torch.zeros_like(scores)
    partner[:, 0] = 1
    logits = scores - math.log(k * normaliser / examples)
    return (k + 1) * F.multilabel_soft_margin_loss(logits, partner)


def nce_two_classes(scores, normaliser, examples):
    """A softmax over partner and noise, for each candidate."""
    k = _nce_input(scores, normaliser)
    log_u = scores - math.log(normaliser)
    noise = torch.full_like(log_u, math.log(k / examples))
    both = torch.stack([noise, log_u], dim=-1)
    partner = torch.zeros(scores.shape, dtype=torch.long)
    partner[:, 0] = 1
    loss = F.cross_entropy(both.reshape(-1, 2), partner.reshape(-1), reduction="none")
    return loss.reshape(scores.shape).sum(1).mean()


def nce_loop(scores, normaliser, examples):
    k = _nce_input(scores, normaliser)
    shift = math.log(normaliser) + math.log(k / examples)
    rows = []
    for row in scores:
        loss = F.softplus(shift - row[0])
        for score in row[1:]:
            loss = loss + F.softplus(score - shift)
        rows.append(loss)
    return torch.stack(rows).mean()


def nce_by_hand(scores, normaliser, examples):
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    k = _nce_input(scores, normaliser)
    x = scores - math.log(normaliser * k / examples)
    x = torch.cat([-x[:, :1], x[:, 1:]], dim=1)
    return (x.clamp_min(0) + torch.log1p(torch.exp(-x.abs()))).sum() / len(scores)


def nce_double(scores, normaliser, examples):
    """In float64 and with exp, where the scores allow it: clamped far out."""
    k = _nce_input(scores, normaliser)
    logits = scores.double() - math.log(normaliser) - math.log(k / examples)
    sign = torch.ones_like(logits)
    sign[:, 1:] = -1
    loss = -F.logsigmoid(sign * logits)
    return loss.sum(dim=-1).mean(dim=0).to(scores.dtype)


ANSWERS = {
    "07.sp_loss": [
        sp_einsum,
        sp_frobenius,
        sp_loop,
        sp_columns,
        sp_cosines,
        sp_no_grad,
        sp_double,
        sp_expanded,
    ],
    "07.rkd_distance_loss": [
        distance_clamped,
        distance_where,
        distance_norm,
        distance_cdist,
        distance_pdist,
        distance_loop,
        distance_centred,
        distance_scaled_first,
    ],
    "07.rkd_angle_loss": [
        angle_bmm,
        angle_einsum,
        angle_loop,
        angle_cosine_similarity,
        angle_from_gram,
        angle_huber_by_hand,
        angle_half,
        angle_double,
    ],
    "07.contrastive_loss": [
        contrast_log_softmax,
        contrast_logsumexp,
        contrast_loop,
        contrast_cat,
        contrast_one_hot,
        contrast_cosine,
        contrast_max_off,
        contrast_double,
    ],
    "07.ContrastiveTrainer": [
        TrainerModuleList,
        TrainerGroups,
        TrainerDetached,
        TrainerGrad,
        TrainerFilter,
        TrainerClosure,
        TrainerModule,
        TrainerFunctional,
    ],
    "07.nce_loss": [
        nce_logsigmoid,
        nce_bce,
        nce_logaddexp,
        nce_multilabel,
        nce_two_classes,
        nce_loop,
        nce_by_hand,
        nce_double,
    ],
}

_SYMMETRIC = "G is symmetric, and a squared norm does not see a transpose"
_FLOOR = "a floor under lengths: any small number does"
_WORDS = "the check asks for the error, not for its words"
_LOG = "the logarithm of zero, or of less, raises the ValueError"
_EVEN = "the loss is even in the difference, and each pair or triple comes in both orders"
_BROADCAST = "the missing dimension is added by broadcasting, or the order of triples changed"
_SLOPE = "the contract asks for a finite slope between equal rows, not for which"
_BOTH = "both directions count alike"
_UNSAID = "the contract does not speak of it"
_CANCELS = "a factor on the features cancels in the normalisation"

EQUIVALENT = {
    "07.sp_loss": {
        "another dimension @ *": _SYMMETRIC,
        "dimension not kept @ return g / g.norm(*": _SYMMETRIC,
        "the wrong way round @ *": "the difference is squared, the product of two rows symmetric",
        "not detached @ return rows / rows.detach().abs().max()*": _CANCELS,
        "a factor left out @ return rows / rows.detach()*": _CANCELS,
        "a function left out @ return rows / rows.detach()*": _CANCELS,
        "a bound left out @ return rows / rows.detach()*": "the batch is not zero everywhere",
        "another number @ *clamp_min(1e-12)*": _FLOOR,
        "an exception without what was given @ *": _WORDS,
        "not copied @ *": "nothing is changed in place",
        "an argument not passed on @ *p=2*": "2 is the default",
        "mean for sum @ g, h = *": _CANCELS,
        "broadcast the other way @ *": "the missing dimension is added by broadcasting",
        "not converted @ *": "float64 is more than the contract asks for",
    },
    "07.nce_loss": {
        "* @ if scores.dim() != 2 or len(scores) == 0 or scores.shape[1] < 2:*": _LOG,
        "* @ if not (math.isfinite(normaliser) and normaliser > 0):*": _LOG,
        "* @ if examples < 1:*": "the contract does not speak of examples below one",
        "a check left out @ require_finite(*": "the contract does not speak of NaN",
        "another exception @ raise ValueError(f'examples*": "the contract does not speak of it",
        "an exception without what was given @ *": _WORDS,
        "dimension not kept @ lost = *": "a mean over all sums of two vectors' entries is the same",
        "* @ if scores.shape[-1] < 2:*": _LOG,
        "* @ if normaliser <= 0:*": _LOG,
        "over all entries @ return loss.sum(dim=-1).mean(dim=0)*": "one dimension is left",
        "not converted @ *": "float64 is more than the contract asks for",
    },
    "07.rkd_distance_loss": {
        "arguments exchanged @ *": _EVEN,
        "the wrong way round @ *": _EVEN,
        "a step left out @ rows = _no_scale*": _CANCELS,
        "mean for sum @ square = *": _CANCELS,
        "* @ z = z - z.mean(0)*": "distances do not move with the origin",
        "a step left out @ z = z.flatten(1)*": "torch.dist takes any shape",
        "an argument not passed on @ *": "the default does as well here",
        "another number @ *": _FLOOR,
        "sign @ return d / (mean + 1e-12)*": _FLOOR,
        "an exception without what was given @ *": _WORDS,
        "broadcast the other way @ *": _BROADCAST,
        "at the boundary @ *": "the two pieces of the Huber loss meet at one",
        "another dimension @ psi.append*": "distances are symmetric",
    },
    "07.rkd_angle_loss": {
        "* @ apart = *": _SLOPE,
        "mask left out @ direction = *": _SLOPE,
        "mask left out @ unit = *": _SLOPE,
        "multiplied by the mask @ direction = *": "zero times a finite number",
        "arguments exchanged @ *": _EVEN,
        "the wrong way round @ *": _EVEN,
        "not transposed @ e = *": _EVEN,
        "one more or one less @ e = *": _EVEN,
        "a step left out @ rows = _no_scale*": _CANCELS,
        "* @ z = z - z.mean(0)*": "directions do not move with the origin",
        "* @ near = square*": _FLOOR,
        "another number @ *": _FLOOR,
        "an argument not passed on @ *": "the default does as well here",
        "an exception without what was given @ *": _WORDS,
        "broadcast the other way @ *": _BROADCAST,
        "at the boundary @ *": "the two pieces of the Huber loss meet at one",
        "not copied @ *": "nothing is changed in place",
        "not converted @ *": "float64 is more than the contract asks for",
    },
    "07.contrastive_loss": {
        "* @ if features.dim() < 2 or len(features) == 0:*": _UNSAID,
        "* @ if labels.shape != scores.shape[:1]:*": _UNSAID,
        "a check left out @ require_finite(*": _UNSAID,
        "another exception @ *": _UNSAID,
        "an exception without what was given @ *": _WORDS,
        "roles exchanged @ *": _BOTH,
        "arguments exchanged @ *": _BOTH,
        "another dimension @ losses = *": _BOTH,
        "one thing for the other @ *_rows(z, z)*": "a name that is said in errors alone",
        "broadcast the other way @ *": _BROADCAST,
        "half precision @ *": "half precision is not asked for, or of zeros and ones",
        "not converted @ *": "half precision is not asked for, or Python's booleans do as well",
        "another number @ *": "a floor under lengths, or a score so low that exp gives zero",
        "an argument not passed on @ *": "the default does as well here",
        "the wrong way round @ same = *": "-1 is as true as 1",
        "* @ scores = scores - scores.detach().amax(1*": "any number taken off a row cancels",
        "mask* @ *": "what is taken off a row cancels",
        "not transposed @ return (one(scores, keep)*": "labels agree in both directions",
        "a small number too many @ *": "the sum is at least one",
        "cut off at a bound @ *": "the sum is at least one",
        "changed in place @ scores = *": "a tensor of the answer's own",
    },
    "07.ContrastiveTrainer": {
        "arguments exchanged @ *": _BOTH,
        "left in another state @ *": "each step sets the modes anew, whatever the last one left",
        "a small number too many @ *": "the contract names no default; a floor under lengths",
        "another default @ *": "the contract names no default",
        "too much let through @ *": "every parameter of the probes learns",
        "half a condition @ *": "every parameter of the probes learns",
        "two steps exchanged @ *": "neither needs what the other does",
        "not detached @ *": "a number has no graph",
        "the wrong way round @ *": "-1 is as true as 1",
        "broadcast the other way @ *": _BROADCAST,
        "the other mode @ *": "the same in other words, or set anew in each step",
        "not copied @ *": "the list is used once",
        "half precision @ *": "zeros and ones",
        "a check left out @ *": _UNSAID,
        "logarithm of a softmax @ *": "the scores of the probes are small",
        "an argument not passed on @ *": "the default does as well here",
        "the other truth value @ *": "set anew in each step",
        "another number @ *": "a floor under lengths, or a score so low that exp gives zero",
        "a bound left out @ *": "no embedding of the probes is zero",
    },
}
