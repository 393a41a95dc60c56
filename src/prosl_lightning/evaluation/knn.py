"""Nearest-neighbour evaluation: cosine, exact, nothing trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prosl_lightning.errors import UsageError

_CHUNK = 1024


def nearest(gallery: Tensor, queries: Tensor, k: int = 1) -> Tensor:
    """Rows of the k gallery features with the largest cosine to each query, nearest first.

    Args:
        gallery: (N, D), of any length.
        queries: (Q, D).
        k: Neighbours per query.

    Returns:
        (Q, k) int64.

    Raises:
        UsageError: k is not between 1 and N.
    """
    if not 1 <= k <= len(gallery):
        raise UsageError(f"k is {k}; the gallery has {len(gallery)} sequences")
    gallery = F.normalize(gallery, dim=1)
    parts = [(F.normalize(chunk, dim=1) @ gallery.T).topk(k, dim=1).indices for chunk in queries.split(_CHUNK)]
    return torch.cat(parts)


def knn_predict(gallery: Tensor, labels: Tensor, queries: Tensor, k: int = 1) -> Tensor:
    """Class of each query by majority among its k nearest gallery features; a tie goes to the nearest of the tied.

    Args:
        gallery: (N, D).
        labels: Classes of the gallery, (N,) int64.
        queries: (Q, D).
        k: Neighbours per query; the field's convention is 1.

    Returns:
        Predicted classes, (Q,) int64.
    """
    votes = labels[nearest(gallery, queries, k)]
    counts = (votes.unsqueeze(2) == votes.unsqueeze(1)).sum(dim=2)
    # argmax of equal counts: the first, i.e. nearest, wins
    leading = (counts == counts.max(dim=1, keepdim=True).values).int().argmax(dim=1)
    return votes.gather(1, leading.unsqueeze(1)).squeeze(1)


def knn_accuracy(gallery: Tensor, labels: Tensor, queries: Tensor, query_labels: Tensor, k: int = 1) -> float:
    """Share of queries whose predicted class is right, in percent."""
    return 100 * float((knn_predict(gallery, labels, queries, k) == query_labels).double().mean())
