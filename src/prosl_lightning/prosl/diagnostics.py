"""What to look at in a codebook: sizes, churn, and, for information only, agreement with the true classes."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torchmetrics.functional.clustering import adjusted_rand_score, normalized_mutual_info_score


def pair_precision(assignment: Tensor, classes: Tensor) -> float:
    """Share of same-cluster pairs of samples that are of the same class.

    Args:
        assignment: Cluster of each sample, (N,) int64.
        classes: Class of each sample, (N,) int64, not negative.

    Returns:
        Between 0 and 1; NaN where no cluster has two members.

    Example:
        >>> pair_precision(torch.tensor([0, 0, 0, 1]), torch.tensor([2, 2, 1, 1]))
        0.3333333333333333
    """
    width = int(classes.max()) + 1
    pairs = torch.bincount(assignment * width + classes, minlength=(int(assignment.max()) + 1) * width)
    table = pairs.view(-1, width).double()
    sizes = table.sum(dim=1)
    return float((table * (table - 1)).sum() / (sizes * (sizes - 1)).sum())


def codebook_metrics(
    assignment: Tensor, num_clusters: int, *, previous: Tensor | None = None, classes: Tensor | None = None
) -> dict[str, float]:
    """Numbers that describe a codebook.

    Args:
        assignment: Semantic label of each training sample, (N,) int64.
        num_clusters: Number of centroids k.
        previous: Labels of the codebook before, (N,), for the churn.
        classes: True classes, (N,), -1 where unknown; only known ones count. They never enter the training.

    Returns:
        `size_min`, `size_median`, `size_max`, `empty`; `churn` (share of samples whose label changed); `nmi`, `ari`
        and `pair_precision` where classes are known.
    """
    sizes = torch.bincount(assignment, minlength=num_clusters).double()
    metrics = {
        "size_min": float(sizes.min()),
        "size_median": float(sizes.median()),
        "size_max": float(sizes.max()),
        "empty": float((sizes == 0).sum()),
    }
    if previous is not None and len(previous) == len(assignment):
        metrics["churn"] = float((assignment != previous).double().mean())
    known = classes >= 0 if classes is not None else None
    if classes is not None and known is not None and bool(known.any()):
        found, true = assignment[known], classes[known]
        with warnings.catch_warnings():  # about a check that torchmetrics' own sparse table does not need
            warnings.filterwarnings("ignore", message="Sparse invariant checks")
            metrics["nmi"] = float(normalized_mutual_info_score(found, true))
            metrics["ari"] = float(adjusted_rand_score(found, true))
        metrics["pair_precision"] = pair_precision(found, true)
    return metrics
