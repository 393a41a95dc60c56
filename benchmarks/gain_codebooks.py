"""A codebook for `gain.py` that the library does not build: of true classes."""

from __future__ import annotations

import torch
from torch import Tensor

from prosl_lightning.prosl.callback import CodebookCallback
from prosl_lightning.prosl.diagnostics import pair_precision
from prosl_lightning.prosl.kmeans import Clustering
from prosl_lightning.prosl.shared_clusters import means_of
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
