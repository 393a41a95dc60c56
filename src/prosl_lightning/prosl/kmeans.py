"""Spherical k-means with two backends and one recipe.

A first build tries several short restarts on a part of the points and refines the best to convergence; a later build
starts from the last centroids and takes a few iterations, so that cluster labels stay what they were. Points may be
divided over processes: each keeps its own, and they add up sums and sizes of the clusters.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prosl_lightning.errors import DataError, MissingExtraError, UsageError
from prosl_lightning.prosl.distributed import all_reduce_sum, broadcast, collect_rows, gather, rank, world_size
from prosl_lightning.seeds import generator

Backend = Literal["auto", "faiss", "torch"]

RESTARTS = 10
RESTART_ITERATIONS = 8
RESTART_POINTS = 16_000
# Of these, the points that first centroids are drawn from: at least so many, and so many for each cluster.
SEED_POINTS, SEED_POINTS_PER_CLUSTER = 4_000, 20
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
    features: Tensor,
    num_clusters: int,
    *,
    seed: int,
    start: Tensor | None = None,
    backend: Backend = "auto",
    divided: bool = False,
) -> Clustering:
    """Cluster unit features by cosine.

    Args:
        features: (N, D), rows of unit length, on any device.
        num_clusters: Number of centroids k.
        seed: Same seed, features and machine: same result.
        start: Centroids (k, D) to start from; None makes the restarts of a first build.
        backend: ``torch`` (runs where the features are), ``faiss`` (on the CPU where it was not built for GPUs), or
            ``auto``: FAISS where it is installed and can run where the features are, else ``torch``.
        divided: Whether `features` are this process's part of the points, all processes calling at once. The result is
            that of one process with the parts concatenated, each process getting the assignment of its part. ``auto``
            then is ``torch``, the only backend that can.

    Raises:
        DataError: More clusters than points, or features that are not finite.
        MissingExtraError: FAISS was asked for and is not installed.
        UsageError: FAISS was asked for and the points are divided.
    """
    divided = divided and world_size() > 1
    if backend == "faiss":
        check_faiss(divided)
    total, broken = _sums(torch.stack([_count(features), (~features.sum(dim=1).isfinite()).sum()]), divided).tolist()
    if num_clusters > total:
        raise DataError(f"num_clusters is {num_clusters} but there are only {total} training samples")
    if broken:
        raise DataError("the features to cluster are not finite: the encoder has diverged (lower the learning rate)")
    features = features.detach().float()
    use_faiss = backend == "faiss" or (backend == "auto" and not divided and _faiss_runs_on(features.device))
    run = _faiss_lloyd if use_faiss else partial(_torch_lloyd, divided=divided)
    if start is not None and start.shape == (num_clusters, features.shape[1]):
        return run(features, start.to(features), WARM_ITERATIONS)
    part = _draw_part(features, total, generator("cpu", seed), divided)
    alone = _faiss_lloyd if use_faiss else _torch_lloyd
    return run(features, _best_restart(part, num_clusters, seed, alone, divided), REFINE_ITERATIONS)


def _faiss_runs_on(device: torch.device) -> bool:
    """Whether FAISS is installed and can cluster on this device; features would have to leave a GPU otherwise."""
    if not faiss_available() or device.type not in ("cpu", "cuda"):
        return False
    import faiss

    return device.type == "cpu" or _has_gpu(faiss)


def check_faiss(divided: bool) -> None:
    """Refuse FAISS where it cannot be used.

    Raises:
        UsageError: Points are divided over processes, of which FAISS knows nothing.
        MissingExtraError: It is not installed.
    """
    if divided:
        raise UsageError(
            f"the k-means backend is 'faiss', which cannot divide points over {world_size()} processes: use 'torch' or "
            "'auto'"
        )
    if not faiss_available():
        raise MissingExtraError("faiss", "cpu")


def _best_restart(
    part: Tensor, num_clusters: int, seed: int, run: Callable[[Tensor, Tensor, int], Clustering], divided: bool
) -> Tensor:
    """Centroids (k, D) of the best of several short runs on a part of the points, the processes taking turns."""
    own, world = (rank(), world_size()) if divided else (0, 1)
    best, best_restart = Clustering(part.new_zeros(num_clusters, part.shape[1]), part, -math.inf), RESTARTS
    restarts = range(own, RESTARTS, world)
    draws = [generator(part.device, seed, restart) for restart in restarts]
    few = part[: max(SEED_POINTS, SEED_POINTS_PER_CLUSTER * num_clusters)]
    for restart, first in zip(restarts, _plus_plus(few, num_clusters, draws) if draws else (), strict=True):
        found = run(part, first, RESTART_ITERATIONS)
        if found.mean_cosine > best.mean_cosine:
            best, best_restart = found, restart
    if not divided:
        return best.centroids
    score = torch.tensor([[-best.mean_cosine, best_restart]], dtype=torch.float64, device=part.device)
    scores: list[list[float]] = gather(score).tolist()
    return broadcast(best.centroids, scores.index(min(scores)))


def _count(points: Tensor) -> Tensor:
    return torch.tensor(len(points), device=points.device)


def _sums(own: Tensor, divided: bool) -> Tensor:
    return all_reduce_sum(own) if divided else own


def _draw_part(points: Tensor, total: int, draw: torch.Generator, divided: bool) -> Tensor:
    """The same random points in every process, at most as many as restarts take."""
    chosen = torch.randperm(total, generator=draw)[:RESTART_POINTS].to(points.device)
    if not divided:
        return points[chosen]
    first = int(gather(_count(points).view(1))[: rank()].sum())
    mine = (chosen >= first) & (chosen < first + len(points))
    return collect_rows(mine.nonzero().squeeze(1), points[chosen[mine] - first], len(chosen))


def _plus_plus(points: Tensor, count: int, draws: Sequence[torch.Generator]) -> Tensor:
    """Greedy k-means++, once per generator: of a few candidates drawn far from the centroids so far, keep the best.

    All go side by side, since reading the points is what takes the time.

    Returns:
        Centroids, (generators, count, D).
    """
    candidates, restarts = 2 + int(math.log(count)), torch.arange(len(draws), device=points.device)
    first = torch.cat([torch.randint(len(points), (1,), generator=draw, device=points.device) for draw in draws])
    chosen = [points[first]]
    distance = 1 - points[first] @ points.T
    for _ in range(count - 1):
        # Rounding can push a distance below 0; a floor keeps the weights valid when points coincide.
        weights = zip(distance.clamp_min(1e-12), draws, strict=True)
        drawn = torch.stack([torch.multinomial(w, candidates, replacement=True, generator=draw) for w, draw in weights])
        found = (points[drawn.flatten()] @ points.T).view(*drawn.shape, -1)
        closer = torch.minimum(distance.unsqueeze(1), 1 - found)
        best = closer.sum(dim=2).argmin(dim=1)
        distance = closer[restarts, best]
        chosen.append(points[drawn[restarts, best]])
    return torch.stack(chosen, dim=1)


def _nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Largest cosine of each point and the centroid it belongs to, in chunks so that memory stays flat."""
    parts = [(chunk @ centroids.T).max(dim=1) for chunk in points.split(_CHUNK)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _torch_lloyd(points: Tensor, centroids: Tensor, iterations: int, divided: bool = False) -> Clustering:
    previous: Tensor | None = None
    for _ in range(iterations):
        cosine, assignment = _nearest(points, centroids)
        if previous is not None and not bool(_sums((assignment != previous).sum(), divided)):
            break
        previous = assignment
        centroids = F.normalize(_cluster_sums(points, assignment, cosine, len(centroids), divided), dim=1)
    if divided:  # the last digit may depend on the machine
        broadcast(centroids)
    cosine, assignment = _nearest(points, centroids)
    mean = _sums(cosine.sum(), divided) / _sums(_count(points), divided)
    return Clustering(centroids, assignment, float(mean))


def _cluster_sums(points: Tensor, assignment: Tensor, cosine: Tensor, count: int, divided: bool) -> Tensor:
    """Sum of each cluster's points; an empty cluster gets the point that is farthest from its centroid."""
    if points.is_cuda:  # index_add_ adds in no fixed order there; the product is deterministic
        sums = F.one_hot(assignment, count).to(points.dtype).T @ points
    else:
        sums = points.new_zeros(count, points.shape[1]).index_add_(0, assignment, points)
    sizes = torch.bincount(assignment, minlength=count).to(sums.dtype)
    together = _sums(torch.cat([sums, sizes.unsqueeze(1)], dim=1), divided)
    sums, empty = together[:, :-1], together[:, -1] == 0
    if not bool(empty.any()):
        return sums
    farthest = _farthest(points, cosine, count, divided)
    which = (empty.cumsum(0) - 1).clamp(0, len(farthest) - 1)
    return torch.where(empty.unsqueeze(1), farthest[which], sums)


def _farthest(points: Tensor, cosine: Tensor, count: int, divided: bool) -> Tensor:
    """The `count` points (or all) that are farthest from their centroids, farthest first."""
    order = cosine.argsort()[:count]
    if not divided:
        return points[order]
    missing = count - len(order)  # messages are of one size; what is filled up sorts last
    found = F.pad(torch.cat([cosine[order].unsqueeze(1), points[order]], dim=1), (0, 0, 0, missing), value=torch.inf)
    together = gather(found)
    return together[together[:, 0].argsort(stable=True)[:count], 1:]


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
    if device.type == "cuda" and _has_gpu(faiss):
        config = faiss.GpuIndexFlatConfig()
        config.device = device.index or 0  # the rank's own GPU: faiss.Kmeans(gpu=True) would take all of them
        return faiss.GpuIndexFlatIP(_gpu_resources(), size, config)
    return faiss.IndexFlatIP(size)


def _has_gpu(faiss: Any) -> bool:
    return hasattr(faiss, "GpuIndexFlatIP") and faiss.get_num_gpus() > 0


@cache
def _gpu_resources() -> Any:
    """FAISS's scratch memory on the GPUs, taken once: every new one would take its own."""
    import faiss

    return faiss.StandardGpuResources()
