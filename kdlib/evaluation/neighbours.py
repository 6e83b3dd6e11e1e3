"""How good an embedding is, asked of its nearest neighbours: no classifier is trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.errors import require_finite

__all__ = ["knn_accuracy", "precision_at_k"]


def _units(embeddings: Tensor, name: str, targets: Tensor) -> Tensor:
    require_finite(embeddings, name)
    if embeddings.dim() != 2 or len(embeddings) != len(targets):
        raise ValueError(
            f"{name} must have shape ({len(targets)}, D), one row for each target, "
            f"got {tuple(embeddings.shape)}"
        )
    return F.normalize(embeddings, dim=1)


def knn_accuracy(
    queries: Tensor, targets: Tensor, gallery: Tensor, gallery_targets: Tensor, k: int = 5
) -> float:
    """Share of queries whose k nearest gallery rows vote for their class.

    Nearest by cosine similarity; of classes with as many votes the one of smaller index wins.

    Args:
        queries: `(N, D)`.
        targets: `(N,)`, their classes.
        gallery: `(M, D)`, embeddings whose class is known; none of the queries.
        gallery_targets: `(M,)`.
        k: neighbours that vote, at most M.

    Returns:
        A fraction between 0 and 1.

    Raises:
        ValueError: shapes that do not fit, or k outside 1..M.
    """
    queries = _units(queries, "queries", targets)
    gallery = _units(gallery, "gallery", gallery_targets)
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must lie in 1..{len(gallery)}, got {k}")
    classes = int(max(targets.max(), gallery_targets.max())) + 1
    right = 0
    for chunk, y in zip(queries.split(1000), targets.split(1000), strict=True):
        nearest = (chunk @ gallery.T).topk(k, dim=1).indices
        votes = F.one_hot(gallery_targets[nearest], classes).sum(dim=1)
        right += int((votes.argmax(dim=1) == y).sum())
    return right / len(targets)


def precision_at_k(embeddings: Tensor, targets: Tensor, k: int = 10) -> float:
    """Retrieval: the share of an image's k nearest other images that are of its class.

    Args:
        embeddings: `(N, D)`; each row is a query once, among the N - 1 others.
        targets: `(N,)`.
        k: how many are retrieved, at most N - 1.

    Returns:
        A fraction between 0 and 1, the mean over queries.

    Raises:
        ValueError: shapes that do not fit, or k outside 1..N - 1.
    """
    rows = _units(embeddings, "embeddings", targets)
    if not 1 <= k <= len(rows) - 1:
        raise ValueError(f"k must lie in 1..{len(rows) - 1}, got {k}")
    similarity = (rows @ rows.T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(k, dim=1).indices
    return (targets[nearest] == targets[:, None]).float().mean().item()
