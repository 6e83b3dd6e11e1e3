"""What a teacher's embeddings say about each other, and losses that teach a student the same.

Features are (B, ...), one row for each image, flattened to (B, D). Teacher and student may differ
in width: no loss compares a student's row with a teacher's, except where heads have brought both to
one width. The teacher's features are constants; a teacher's *embedding*, which a head has made of
them, may learn.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.errors import require_finite, require_same_shape, require_temperature
from kdlib.seal import reference

__all__ = [
    "ContrastiveTrainer",
    "MemoryBank",
    "contrastive_loss",
    "nce_loss",
    "pkt_loss",
    "relative_distances",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "sp_loss",
]


def _rows(features: Tensor, name: str) -> Tensor:
    """Give (B, D) rows, at least in float32."""
    require_finite(features, name)
    if features.dim() < 2 or len(features) == 0:
        raise ValueError(f"{name} must have shape (B, ...), got {tuple(features.shape)}")
    rows = features.flatten(1)
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def _pair(student_features: Tensor, teacher_features: Tensor) -> tuple[Tensor, Tensor]:
    """Give both batches as rows; the teacher's without its graph."""
    student = _rows(student_features, "student_features")
    teacher = _rows(teacher_features, "teacher_features").detach()
    if len(student) != len(teacher):
        raise ValueError(
            "student_features and teacher_features must have as many rows, "
            f"got {len(student)} and {len(teacher)}"
        )
    return student, teacher


def _no_scale(rows: Tensor) -> Tensor:
    """Divide by the largest entry: it cancels later, and no square is too small or too large."""
    return rows / rows.detach().abs().max().clamp_min(torch.finfo(rows.dtype).tiny)


@reference("07.sp_loss")
def sp_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Similarity-preserving distillation: the two networks' similarity matrices, compared.

    G = Z Z^T, each row divided by its L2 norm;   L = 1/B^2 ||G_t - G_s||_F^2

    Tung and Mori, ICCV 2019, arXiv 1907.09682, for one pair of layers. A row of
    zeros stays zero. Torchdistill's `SPKDLoss` divides by the L1 norm.

    Args:
        student_features: `(B, ...)`.
        teacher_features: `(B, ...)`, a constant; may be of another width.

    Returns:
        A scalar, without a unit; the same whatever the scale of either network's features.

    Raises:
        ValueError: not (B, ...), not finite, or batches that differ.
    """
    student, teacher = (
        F.normalize(z @ z.mT, dim=1)
        for z in map(_no_scale, _pair(student_features, teacher_features))
    )
    return (teacher - student).square().mean()


def relative_distances(rows: Tensor) -> Tensor:
    """All distances within a batch, over the mean distance of two different rows: (B, B).

    psi_ij = ||x_i - x_j|| / mu,   mu = mean over i != j of ||x_i - x_j||

    Park et al., CVPR 2019, arXiv 1904.05068. The diagonal is zero and has no
    part in mu. Where all rows are equal, all entries are zero. The slope at a distance of zero is
    taken as zero.

    Args:
        rows: `(B, D)`, B at least 2.

    Raises:
        ValueError: fewer than two rows.
    """
    rows = _no_scale(_rows(rows, "rows"))
    count = len(rows)
    if count < 2:
        raise ValueError(f"rows must hold at least two rows to have a distance, got {count}")
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distance.sum() / (count * (count - 1))
    return distance / torch.where(mean > 0, mean, 1.0)


@reference("07.rkd_distance_loss")
def rkd_distance_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Relational distillation, distances: who is near to whom, on each network's own scale.

    L = 1/B^2 sum_ij l(psi_ij^s, psi_ij^t),   l = smooth L1 (Huber with delta 1)

    Park et al., CVPR 2019, arXiv 1904.05068, with the mean over all B^2 entries
    as in the authors' code (the paper writes a sum over pairs). Weight in the paper's experiments
    with classification: 25.

    Args:
        student_features: `(B, ...)`, B at least 2.
        teacher_features: `(B, ...)`, a constant; may be of another width.

    Returns:
        A scalar, without a unit.

    Raises:
        ValueError: not (B, ...), not finite, fewer than two rows, or batches that differ.
    """
    student, teacher = map(relative_distances, _pair(student_features, teacher_features))
    return F.smooth_l1_loss(student, teacher)


def _cosines(rows: Tensor) -> Tensor:
    """Give the cosine at each row j of the angle from row i to row k: (B, B, B), j first."""
    rows = _no_scale(rows)
    step = rows[None] - rows[:, None]  # [j, i] points from j to i
    apart = (step != 0).any(dim=-1, keepdim=True)
    direction = torch.where(apart, F.normalize(step, dim=-1), 0.0)  # no slope where there is none
    return direction @ direction.mT


@reference("07.rkd_angle_loss")
def rkd_angle_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Relational distillation, angles: the cosine at each corner of each triangle of images.

    psi_ijk = <e_ij, e_kj>,  e_ij = (x_i - x_j) / ||x_i - x_j||
    L = 1/B^3 sum_ijk l(psi_ijk^s, psi_ijk^t),   l = smooth L1

    Park et al., CVPR 2019, arXiv 1904.05068, with the mean over all B^3 entries
    as in the authors' code. The direction between equal rows is zero, and so is its slope
    (`F.normalize` alone has one of 1e12 there). Weight in the paper's
    experiments with classification: 50. Memory grows with B^3: 64 rows are 262,144 cosines, 256
    are 16,777,216.

    Args:
        student_features: `(B, ...)`.
        teacher_features: `(B, ...)`, a constant; may be of another width.

    Returns:
        A scalar, without a unit; zero for fewer than three rows that differ.

    Raises:
        ValueError: not (B, ...), not finite, or batches that differ.
    """
    student, teacher = map(_cosines, _pair(student_features, teacher_features))
    return F.smooth_l1_loss(student, teacher)


def pkt_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Probabilistic knowledge transfer: each row's similarities to the others as a distribution.

    s_ij = (cos(x_i, x_j) + 1) / 2,   p_ij = s_ij / sum_j s_ij
    L = 1/B sum_i sum_j p_ij^t log(p_ij^t / p_ij^s)

    Passalis and Tefas, ECCV 2018, arXiv 1803.10837. The paper sums over i and j, the code that
    everybody copies takes the mean over all B^2 entries; this is the mean over rows, B times the
    latter. The diagonal, always the largest, takes part in both.

    Args:
        student_features: `(B, ...)`.
        teacher_features: `(B, ...)`, a constant; may be of another width.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: not (B, ...), not finite, or batches that differ.
    """
    tiny = 1e-7  # opposite rows have a probability of zero
    student, teacher = (
        (unit @ unit.mT + 1) / 2
        for unit in (
            F.normalize(_no_scale(x), dim=1) for x in _pair(student_features, teacher_features)
        )
    )
    q, p = (s.clamp_min(0) / s.clamp_min(0).sum(dim=1, keepdim=True) for s in (student, teacher))
    return (p * ((p + tiny) / (q + tiny)).log()).sum(dim=1).mean()


@reference("07.contrastive_loss")
def contrastive_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    temperature: float = 0.1,
    labels: Tensor | None = None,
) -> Tensor:
    """Find the teacher's view of the same image among those of the batch, and the other way round.

    S_ij = <z_i^s, z_j^t> / T on rows of length one
    L = 1/2 [ mean_i CE(S_i., i) + mean_j CE(S_.j, j) ]

    InfoNCE within a batch (van den Oord et al., arXiv 1807.03748, equation 4) between teacher and
    student, as in contrastive representation distillation (Tian et al., ICLR 2020, arXiv
    1910.10699) but without its memory bank. Other images of the same class are false negatives;
    `labels` leaves them out. Both embeddings may learn: the heads that make them do.

    Args:
        student_embeddings: `(B, D)`; need not have length one.
        teacher_embeddings: `(B, D)`.
        temperature: T; smaller is sharper.
        labels: `(B,)` class indices, or None: every other row is a negative.

    Returns:
        A scalar, in nats; log B when all similarities are equal.

    Raises:
        ValueError: shapes differ, not (B, D), not finite, a temperature that is not positive, or
            labels that are not (B,).
    """
    require_same_shape(
        student_embeddings, teacher_embeddings, ("student_embeddings", "teacher_embeddings")
    )
    require_temperature(temperature)
    student, teacher = (
        F.normalize(_rows(z, name), dim=1)
        for z, name in (
            (student_embeddings, "student_embeddings"),
            (teacher_embeddings, "teacher_embeddings"),
        )
    )
    scores = student @ teacher.mT / temperature
    if labels is not None:
        if labels.shape != scores.shape[:1]:
            raise ValueError(f"labels must be ({len(scores)},), got {tuple(labels.shape)}")
        same = labels[:, None] == labels[None]
        scores = scores.masked_fill(same.fill_diagonal_(False), -math.inf)
    own = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.mT, own)) / 2


class ContrastiveTrainer:
    """Train a student's encoder so that a head finds its images among the teacher's.

    Two encoders of different width, and a head for each that brings both to one: student encoder,
    student head and teacher head learn, the teacher's encoder is a constant. The optimiser (Adam)
    holds every parameter of the three that learns, once.

    Args:
        student: images to features `(B, D_s)`; learns.
        teacher: images to features `(B, D_t)`; a constant.
        student_head: `(B, D_s) -> (B, D)`; learns.
        teacher_head: `(B, D_t) -> (B, D)`; learns.
        temperature: of the contrastive loss.
        lr: Adam's step size.
    """

    @reference("07.ContrastiveTrainer")
    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        student_head: nn.Module,
        teacher_head: nn.Module,
        temperature: float = 0.1,
        lr: float = 2e-3,
    ) -> None:
        self.student, self.teacher = student, teacher
        self.student_head, self.teacher_head = student_head, teacher_head
        self.temperature = temperature
        learn = [p for m in (student, student_head, teacher_head) for p in m.parameters()]
        self.optimizer = torch.optim.Adam([p for p in learn if p.requires_grad], lr)

    def step(self, images: Tensor, labels: Tensor | None = None) -> float:
        """Update what learns once; give the contrastive loss before the update."""
        self.student.train()
        self.teacher.eval()
        with torch.no_grad():
            target = self.teacher(images)
        loss = contrastive_loss(
            self.student_head(self.student(images)),
            self.teacher_head(target),
            self.temperature,
            labels,
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


@reference("07.nce_loss")
def nce_loss(scores: Tensor, normaliser: float, examples: int) -> Tensor:
    """Noise-contrastive estimation: is this the image's partner, or one drawn from the data?

    u = exp(score) / Z,   h = u / (u + K/n)
    L = - mean over anchors of [ log h_0 + sum_k log(1 - h_k) ],   k = 1..K

    Tian et al., ICLR 2020, arXiv 1910.10699, as in the authors' `crd/criterion.py`, for one of its
    two anchors. In logits, h = sigmoid(score - log Z - log(K/n)): a binary classifier with a fixed
    shift, which is how it is computed here, without overflow.

    Args:
        scores: `(B, 1 + K)` similarities over the temperature; column 0 is the positive.
        normaliser: Z, positive. The authors' code sets it from its first batch and keeps it.
        examples: n, the number of images that negatives are drawn from.

    Returns:
        A scalar, in nats; a sum over K + 1 decisions.

    Raises:
        ValueError: scores not (B, 1 + K) with K at least 1 or not finite, a normaliser that is not
            positive, or examples below 1.
    """
    require_finite(scores, "scores")
    if scores.dim() != 2 or len(scores) == 0 or scores.shape[1] < 2:
        raise ValueError(f"scores must have shape (B, 1 + K), K >= 1, got {tuple(scores.shape)}")
    if not (math.isfinite(normaliser) and normaliser > 0):
        raise ValueError(f"normaliser must be positive and finite, got {normaliser}")
    if examples < 1:
        raise ValueError(f"examples must be at least 1, got {examples}")
    negatives = scores.shape[1] - 1
    logits = scores - math.log(normaliser) - math.log(negatives / examples)
    wrong = F.softplus(torch.cat([-logits[:, :1], logits[:, 1:]], dim=1))
    return wrong.sum(dim=1).mean()


class MemoryBank:
    """One half of CRD's memory: an embedding of every training image, updated as they come by.

    Tian et al., ICLR 2020, arXiv 1910.10699, after the authors' `crd/memory.py`: random unit-like
    rows to begin with, negatives drawn uniformly from **all** images, momentum .5, and a normaliser
    that is set by the first batch and kept.

    Args:
        examples: n, images in the training set.
        width: D of the embeddings.
        negatives: K, drawn for each anchor.
        temperature: T.
        momentum: how much of the old row stays.
        seed: of the initial rows and the negatives.
        avoid: True draws negatives among the *other* images only.
        freeze: False takes the normaliser anew from each batch.

    Attributes:
        rows: `(n, D)`.
        normaliser: Z in use, or None before the first call.
        latest: what Z would be, from the latest batch.
    """

    def __init__(
        self,
        examples: int,
        width: int,
        negatives: int,
        temperature: float = 0.07,
        momentum: float = 0.5,
        seed: int = 0,
        avoid: bool = False,
        freeze: bool = True,
    ) -> None:
        if not negatives >= 1 or examples < 2:
            raise ValueError(f"needs negatives >= 1 of examples >= 2, got {negatives}, {examples}")
        require_temperature(temperature)
        self.generator = torch.Generator().manual_seed(seed)
        bound = math.sqrt(3 / width)
        self.rows = (2 * torch.rand(examples, width, generator=self.generator) - 1) * bound
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.avoid, self.freeze = avoid, freeze
        self.normaliser: float | None = None
        self.latest: float | None = None

    def draw(self, index: Tensor) -> Tensor:
        """Give `(B, 1 + K)` rows to compare with: each image's own first, then its negatives."""
        n = len(self.rows)
        shape = (len(index), self.negatives)
        drawn = torch.randint(n - self.avoid, shape, generator=self.generator)
        if self.avoid:
            drawn = (index[:, None] + 1 + drawn) % n
        return torch.cat([index[:, None], drawn], dim=1)

    def loss(self, embeddings: Tensor, index: Tensor) -> Tensor:
        """Compare a batch with the bank.

        Args:
            embeddings: `(B, D)`, of the *other* network; scaled to length one here.
            index: `(B,)`, which images of the training set these are.
        """
        unit = F.normalize(embeddings, dim=1)
        scores = torch.einsum("bd,bkd->bk", unit, self.rows[self.draw(index)]) / self.temperature
        self.latest = scores.detach().exp().mean().item() * len(self.rows)
        if self.normaliser is None or not self.freeze:
            self.normaliser = self.latest
        return nce_loss(scores, self.normaliser, len(self.rows))

    @torch.no_grad()
    def update(self, embeddings: Tensor, index: Tensor) -> None:
        """Move the rows of these images towards their new embeddings."""
        new = self.momentum * self.rows[index]
        new = new + (1 - self.momentum) * F.normalize(embeddings, dim=1)
        self.rows[index] = F.normalize(new, dim=1)
