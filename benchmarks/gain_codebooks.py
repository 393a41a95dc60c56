"""Codebooks for `gain.py` that the library does not build: of true classes, clustered anew, and with other streams."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prosl_lightning.prosl.callback import CodebookCallback
from prosl_lightning.prosl.diagnostics import pair_precision
from prosl_lightning.prosl.kmeans import Clustering, kmeans
from prosl_lightning.seeds import generator


class LabelCodebook(CodebookCallback):
    """A codebook of true classes, corrupted to a given pair precision: a control, never a method."""

    def __init__(self, precision: float, seed: int) -> None:
        super().__init__()
        self._precision, self._seed = precision, seed

    def cluster(
        self, features: Tensor, classes: Tensor, num_clusters: int, start: Tensor | None, seed: int
    ) -> Clustering:
        """The same labels at every build; their centroids are the means of today's features."""
        return means_of(features, corrupt(classes.cpu(), num_clusters, self._precision, self._seed), num_clusters)


class FreshCodebook(CodebookCallback):
    """k-means anew at every build, not from the last centroids: what it gets wrong differs from epoch to epoch."""

    def cluster(
        self, features: Tensor, classes: Tensor, num_clusters: int, start: Tensor | None, seed: int
    ) -> Clustering:
        """The first build's recipe every time, with that build's own seed."""
        return super().cluster(features, classes, num_clusters, None, seed)


class PeerCodebook(CodebookCallback):
    """k-means of the features beside those of other streams' encoders, which stay as they are.

    What one stream confuses another may tell apart, so the labels hold what the encoder cannot know by itself.

    Args:
        peers: Unit features of the training set by each other encoder, (N, P) each.
    """

    def __init__(self, peers: list[Tensor]) -> None:
        super().__init__()
        self._peers = peers
        self._start: Tensor | None = None

    def cluster(
        self, features: Tensor, classes: Tensor, num_clusters: int, start: Tensor | None, seed: int
    ) -> Clustering:
        """Labels from all streams; their centroids are the means of this encoder's features."""
        joined = F.normalize(torch.cat([features, *(peer.to(features) for peer in self._peers)], dim=1), dim=1)
        found = kmeans(joined, num_clusters, seed=seed, start=self._start, backend=self.backend)
        self._start = found.centroids
        return means_of(features, found.assignment, num_clusters)


def means_of(features: Tensor, assignment: Tensor, num_clusters: int) -> Clustering:
    """Given labels (N,), and the means of unit features (N, P) as their centroids."""
    assignment = assignment.to(features.device)
    sums = torch.zeros(num_clusters, features.shape[1], device=features.device).index_add_(0, assignment, features)
    centroids = F.normalize(sums, dim=1)
    return Clustering(centroids, assignment, float((features * centroids[assignment]).sum(dim=1).mean()))


def corrupt(classes: Tensor, num_clusters: int, precision: float, seed: int) -> Tensor:
    """Labels (N,) that keep the class of as many samples as needed for a pair precision; the others are at random."""
    order = torch.rand(len(classes), generator=generator("cpu", seed, 1))
    other = torch.randint(num_clusters, (len(classes),), generator=generator("cpu", seed, 2))
    low, high = 0.0, 1.0
    for _ in range(30):
        kept = (low + high) / 2
        labels = torch.where(order < kept, classes, other)
        low, high = (kept, high) if pair_precision(labels, classes) < precision else (low, kept)
    return torch.where(order < high, classes, other)
