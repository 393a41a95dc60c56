"""Cluster quality: how well k-means of the features, or the classes themselves, divide the feature space."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import davies_bouldin_score, silhouette_score
from torch import Tensor

from prosl_lightning.errors import UsageError
from prosl_lightning.prosl.diagnostics import codebook_metrics
from prosl_lightning.prosl.kmeans import REFINE_ITERATIONS, RESTARTS, kmeans

SILHOUETTE_SAMPLE = 5000
"""Sequences that the silhouette is computed on: its time grows with their square."""
CLUSTERING = {
    "algorithm": "spherical k-means",
    "seed": 0,
    "restarts": RESTARTS,
    "iterations": REFINE_ITERATIONS,
    "silhouette": f"cosine, at most {SILHOUETTE_SAMPLE} sequences",
}
"""How clusters are made and judged, for a row of results."""


def matched_accuracy(assignment: Tensor, classes: Tensor) -> float:
    """Accuracy of unsupervised classification: clusters are matched to classes one to one so that most samples agree.

    Samples of a cluster without class, or of a class without cluster, count as wrong.

    Args:
        assignment: Cluster of each sample, (N,) int64.
        classes: Class of each sample, (N,) int64.

    Returns:
        Between 0 and 1.

    Example:
        >>> matched_accuracy(torch.tensor([1, 1, 0, 0, 2]), torch.tensor([0, 0, 1, 0, 1]))
        0.6
    """
    table = (F.one_hot(assignment).double().T @ F.one_hot(classes).double()).cpu().numpy()
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / len(classes))


def separation(features: Tensor, groups: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """How far apart groups of features lie, by scikit-learn.

    Args:
        features: Unit features, (N, D).
        groups: Cluster or class of each, (N,) int64.
        seed: Of the sample that the silhouette of more than :data:`SILHOUETTE_SAMPLE` features is computed on.

    Returns:
        Davies-Bouldin index (lower is better) and mean silhouette by cosine (-1 to 1, higher is better); NaN where
        there are not at least two groups and fewer groups than features.
    """
    if not 2 <= len(groups.unique()) < len(groups):
        return math.nan, math.nan
    points, labels = features.cpu().numpy(), groups.cpu().numpy()
    sample = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:SILHOUETTE_SAMPLE].numpy()
    # A rare group may be missing in the sample.
    enough = 2 <= len(set(labels[sample].tolist())) < len(sample)
    silhouette = silhouette_score(points[sample], labels[sample], metric="cosine") if enough else math.nan
    return float(davies_bouldin_score(points, labels)), float(silhouette)


def cluster_measures(features: Tensor, classes: Tensor, num_clusters: int, *, seed: int = 0) -> dict[str, float]:
    """Cluster the features by spherical k-means and compare the clusters with the classes.

    Args:
        features: (N, D), of any length.
        classes: Class of each, (N,) int64.
        num_clusters: Number of clusters.
        seed: Of k-means.

    Returns:
        In percent `clustering accuracy` (after matching, :func:`matched_accuracy`), `NMI`, `ARI` and `pair precision`
        (pairs of one cluster that are of one class); `Davies-Bouldin index` and `silhouette (-1 to 1)` of the clusters
        and `of the classes`.

    Raises:
        UsageError: There are fewer features than clusters, or none are asked for.
    """
    if not 1 <= num_clusters <= len(features):
        raise UsageError(f"clusters is {num_clusters}; {len(features)} sequences make 1 to {len(features)} clusters")
    unit = F.normalize(features.float(), dim=1)
    assignment = kmeans(unit, num_clusters, seed=seed).assignment
    agreement = codebook_metrics(assignment, num_clusters, classes=classes)
    measures = {
        "clustering accuracy": 100 * matched_accuracy(assignment, classes),
        "NMI": 100 * agreement["nmi"],
        "ARI": 100 * agreement["ari"],
        "pair precision": 100 * agreement["pair_precision"],
    }
    for suffix, groups in (("", assignment), (" of the classes", classes)):
        index, silhouette = separation(unit, groups, seed=seed)
        measures |= {f"Davies-Bouldin index{suffix}": index, f"silhouette (-1 to 1){suffix}": silhouette}
    return measures
