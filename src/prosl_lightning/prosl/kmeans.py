"""Spherical k-means with two backends and one recipe.

A first build tries several short restarts on a part of the points and refines the best to convergence; a later build
starts from the last centroids and takes a few iterations, so that cluster labels stay what they were.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prosl_lightning.errors import DataError, MissingExtraError
from prosl_lightning.seeds import generator

Backend = Literal["auto", "faiss", "torch"]

RESTARTS = 10
RESTART_ITERATIONS = 8
RESTART_POINTS = 16_000
REFINE_ITERATIONS = 60
WARM_ITERATIONS = 5
_CHUNK = 65_536


class Clustering(NamedTuple):
    """Result of :func:`kmeans`: unit centroids (k, D), nearest centroid of each point (N,), their mean cosine."""

    centroids: Tensor
    assignment: Tensor
    mean_cosine: float


def faiss_available() -> bool:
    """Whether FAISS is installed; it is imported only when it is used."""
    return importlib.util.find_spec("faiss") is not None


def kmeans(
    features: Tensor, num_clusters: int, *, seed: int, start: Tensor | None = None, backend: Backend = "auto"
) -> Clustering:
    """Cluster unit features by cosine.

    Args:
        features: (N, D), rows of unit length, on any device.
        num_clusters: Number of centroids k.
        seed: Same seed, features and machine: same result.
        start: Centroids (k, D) to start from; None makes the restarts of a first build.
        backend: ``faiss``, ``torch`` (runs where the features are), or ``auto``: FAISS where installed.

    Raises:
        DataError: More clusters than points, or features that are not finite.
        MissingExtraError: FAISS was asked for and is not installed.
    """
    if num_clusters > len(features):
        raise DataError(f"num_clusters is {num_clusters} but there are only {len(features)} training samples")
    if not bool(torch.isfinite(features).all()):
        raise DataError("the features to cluster are not finite: the encoder has diverged (lower the learning rate)")
    if backend == "faiss" and not faiss_available():
        raise MissingExtraError("faiss", "cpu")
    features = features.detach().float()
    run = _faiss_lloyd if backend != "torch" and faiss_available() else _torch_lloyd
    if start is not None and start.shape == (num_clusters, features.shape[1]):
        return run(features, start.to(features), WARM_ITERATIONS)
    draw = generator("cpu", seed)
    part = features[torch.randperm(len(features), generator=draw)[:RESTART_POINTS].to(features.device)]
    best: Clustering | None = None
    for restart in range(RESTARTS):
        first = _plus_plus(part, num_clusters, generator(features.device, seed, restart))
        found = run(part, first, RESTART_ITERATIONS)
        if best is None or found.mean_cosine > best.mean_cosine:
            best = found
    assert best is not None
    return run(features, best.centroids, REFINE_ITERATIONS)


def _plus_plus(points: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Greedy k-means++: of a few candidates drawn far from the centroids so far, keep the one that helps most."""
    candidates = 2 + int(math.log(count))
    first = torch.randint(len(points), (1,), generator=draw, device=points.device)
    chosen = [points[first]]
    distance = 1 - points @ points[first].squeeze(0)
    for _ in range(count - 1):
        # Rounding can push a distance below 0; a floor keeps the weights valid when points coincide.
        drawn = torch.multinomial(distance.clamp_min(1e-12), candidates, replacement=True, generator=draw)
        closer = torch.minimum(distance, 1 - points[drawn] @ points.T)
        best = closer.sum(dim=1).argmin()
        distance = closer[best]
        chosen.append(points[drawn[best]].unsqueeze(0))
    return torch.cat(chosen)


def _nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Largest cosine of each point and the centroid it belongs to, in chunks so that memory stays flat."""
    parts = [(chunk @ centroids.T).max(dim=1) for chunk in points.split(_CHUNK)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _torch_lloyd(points: Tensor, centroids: Tensor, iterations: int) -> Clustering:
    previous: Tensor | None = None
    for _ in range(iterations):
        cosine, assignment = _nearest(points, centroids)
        if previous is not None and bool((assignment == previous).all()):
            break
        previous = assignment
        centroids = F.normalize(_cluster_sums(points, assignment, cosine, len(centroids)), dim=1)
    cosine, assignment = _nearest(points, centroids)
    return Clustering(centroids, assignment, float(cosine.mean()))


def _cluster_sums(points: Tensor, assignment: Tensor, cosine: Tensor, count: int) -> Tensor:
    """Sum of each cluster's points; an empty cluster gets the point that is farthest from its centroid."""
    if points.is_cuda:  # index_add_ adds in no fixed order there; the product is deterministic
        sums = F.one_hot(assignment, count).to(points.dtype).T @ points
    else:
        sums = points.new_zeros(count, points.shape[1]).index_add_(0, assignment, points)
    empty = torch.bincount(assignment, minlength=count) == 0
    farthest = cosine.argsort()[:count]
    rank = (empty.cumsum(0) - 1).clamp_min(0)
    return torch.where(empty.unsqueeze(1), points[farthest[rank.clamp_max(len(farthest) - 1)]], sums)


def _faiss_lloyd(points: Tensor, centroids: Tensor, iterations: int) -> Clustering:
    """FAISS on the points' own GPU where FAISS was built for one, else on the CPU."""
    import faiss

    data = points.cpu().numpy()
    size, count = data.shape[1], len(centroids)
    options = faiss.ClusteringParameters()
    options.niter, options.spherical = iterations, True
    # FAISS would silently train on 256 points per centroid and complain about fewer than 39.
    options.max_points_per_centroid, options.min_points_per_centroid = len(data), 1
    clustering = faiss.Clustering(size, count, options)
    faiss.copy_array_to_vector(centroids.cpu().numpy().ravel(), clustering.centroids)
    index = _faiss_index(faiss, size, points.device)
    clustering.train(data, index)
    found = faiss.vector_float_to_array(clustering.centroids).reshape(count, size)
    result = F.normalize(torch.from_numpy(found.copy()), dim=1).to(points.device)
    cosine, assignment = _nearest(points, result)
    return Clustering(result, assignment, float(cosine.mean()))


def _faiss_index(faiss: Any, size: int, device: torch.device) -> Any:
    if device.type == "cuda" and hasattr(faiss, "GpuIndexFlatIP") and faiss.get_num_gpus() > 0:
        config = faiss.GpuIndexFlatConfig()
        config.device = device.index or 0  # the rank's own GPU: faiss.Kmeans(gpu=True) would take all of them
        return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), size, config)
    return faiss.IndexFlatIP(size)
