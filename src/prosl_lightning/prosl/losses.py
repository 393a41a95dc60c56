"""The losses of ProSL as pure functions, one per equation.

Features are rows of unit length unless stated otherwise. Equation numbers refer to Qin et al., "Progressive semantic
learning for unsupervised skeleton-based action recognition", Machine Learning, 2025.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

KLDirection = Literal["semantic-to-query", "query-to-semantic"]


def contrastive_loss(
    anchor: Tensor, positives: Tensor, memory: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    """InfoNCE with one or several positives; with `excluded` it is the optimised contrast of Eq. 4 and 5, else Eq. 1.

    The softmax probabilities of all positives are summed before the logarithm, as HiCo does for its clip and part
    levels. Excluded columns get a logit of minus infinity, so shapes do not depend on the codebook.

    Args:
        anchor: Query features, (N, D).
        positives: Key features of the same sequences, (N, P, D).
        memory: Features of the memory bank, (K, D).
        temperature: Divides every dot product.
        excluded: Bank entries that are no negatives of an anchor, (N, K) bool.

    Returns:
        Loss of each anchor, (N,); exactly 0 where every negative is excluded.
    """
    positive = torch.einsum("nd,npd->np", anchor, positives) / temperature
    negative = anchor @ memory.T / temperature
    if excluded is not None:
        negative = negative.masked_fill(excluded, -torch.inf)
    return torch.cat([positive, negative], dim=1).logsumexp(dim=1) - positive.logsumexp(dim=1)


class SemanticLoss(NamedTuple):
    """Result of :func:`semantic_loss`.

    Attributes:
        loss: Mean over the confident samples, scalar; 0 when there are none.
        per_sample: Loss of every sample, confident or not, (N,).
        confident: Which samples passed the outlier rule, (N,) bool.
    """

    loss: Tensor
    per_sample: Tensor
    confident: Tensor


def semantic_loss(
    features: Tensor, centroids: Tensor, labels: Tensor, temperature: float, threshold: float
) -> SemanticLoss:
    """Pull features to their semantic centroid, outliers left out (Eq. 2 and 3; Eq. 9 for the semantic branch).

    y is the softmax over the centroids of cosine / temperature. A sample is confident when y is largest at the label
    that the codebook stores for it and that value exceeds the threshold.

    Args:
        features: (N, D), of any length.
        centroids: (k, D), constants: no gradient reaches them.
        labels: Stored semantic label of each sample, (N,) int64.
        temperature: Divides every cosine.
        threshold: Smallest confidence, strictly exceeded by confident samples.
    """
    cosine = F.normalize(features, dim=-1) @ F.normalize(centroids.detach(), dim=-1).T
    log_y = F.log_softmax(cosine / temperature, dim=-1)
    best, nearest = log_y.max(dim=-1)
    confident = (nearest == labels) & (best.exp() > threshold)
    per_sample = -log_y.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    weight = confident.to(per_sample.dtype)
    return SemanticLoss((per_sample * weight).sum() / weight.sum().clamp_min(1), per_sample, confident)


def branch_kl_loss(
    semantic: Tensor, query: Tensor, memory: Tensor, temperature: float, direction: KLDirection = "semantic-to-query"
) -> Tensor:
    """Keep the semantic branch's view of the memory bank near the query branch's (Eq. 10).

    The paper writes plain dot products; as those are no probabilities, both are softmax distributions over the bank.
    The query branch is the teacher and gets no gradient.

    Args:
        semantic: Features of the semantic branch, (N, D).
        query: Features of the query branch, (N, D).
        memory: Features of the memory bank, (K, D).
        temperature: Divides every dot product.
        direction: ``semantic-to-query`` is KL(P' || P) as printed; ``query-to-semantic`` is KL(P || P').

    Returns:
        Divergence of each sample, (N,), in nats.
    """
    log_semantic = F.log_softmax(semantic @ memory.T / temperature, dim=-1)
    log_query = F.log_softmax(query.detach() @ memory.T / temperature, dim=-1)
    first, second = (log_semantic, log_query) if direction == "semantic-to-query" else (log_query, log_semantic)
    return (first.exp() * (first - second)).sum(dim=-1)


def chained_loss(teacher: Tensor, student: Tensor, positive: Tensor, memory: Tensor, temperature: float) -> Tensor:
    """Teach a stronger augmented branch the similarities that the branch before it sees.

    Cross entropy between two softmax distributions over the positive and the whole bank (HiCLR, `net/hiclr.py`). The
    teacher gets no gradient.

    Args:
        teacher: Features of the less augmented branch, (N, D).
        student: Features of the more augmented branch, (N, D).
        positive: Key features of the same sequences, (N, D).
        memory: Features of the memory bank, (K, D).
        temperature: Divides every dot product.

    Returns:
        Loss of each sample, (N,), in nats.
    """

    def logits(features: Tensor) -> Tensor:
        own = (features * positive).sum(dim=-1, keepdim=True)
        return torch.cat([own, features @ memory.T], dim=1) / temperature

    return -(logits(teacher.detach()).softmax(dim=-1) * logits(student).log_softmax(dim=-1)).sum(dim=-1)


def mean_cosine(features: Tensor) -> Tensor:
    """Mean cosine between different rows of unit features (N, D), a scalar; near 1 it is a sign of collapse."""
    return mean_cosine_of_sum(features.sum(dim=0), len(features))


def mean_cosine_of_sum(total: Tensor, count: int) -> Tensor:
    """:func:`mean_cosine` of `count` unit features whose sum is `total` (D,)."""
    if count < 2:
        return total.new_tensor(torch.nan)
    return (total.square().sum() - count) / (count * (count - 1))
