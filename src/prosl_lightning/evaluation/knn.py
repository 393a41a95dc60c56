"""Nearest-neighbour evaluation: cosine, exact, nothing trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.evaluation.neighbours import TIE, Neighbours, search
from prosl_lightning.evaluation.retrieval import mean_average_precision, recall

RECALLS = (1, 5, 10)
RULES = {
    "metric": "cosine",
    "ties": f"the lowest index among cosines within {TIE:g} of the largest",
    "vote": "majority, then the lowest label",
}
"""How neighbours and classes are told, in words for a row of results."""


def nearest(gallery: Tensor, queries: Tensor, k: int = 1) -> Tensor:
    """Rows of the k gallery features with the largest cosine to each query, nearest first; see :func:`search`.

    Args:
        gallery: (N, D), of any length.
        queries: (Q, D).
        k: Neighbours per query.

    Returns:
        (Q, k) int64.

    Raises:
        UsageError: k is not between 1 and N.
    """
    return search(gallery, queries, k).index


def vote(votes: Tensor) -> Tensor:
    """Class that most of a query's neighbours have; among classes of equally many the lowest, as in scikit-learn.

    Args:
        votes: Classes of the neighbours, (Q, k) int64.

    Returns:
        (Q,) int64.

    Example:
        >>> vote(torch.tensor([[3, 1, 1], [3, 1, 2]]))
        tensor([1, 1])
    """
    count = torch.zeros_like(votes)
    for column in range(votes.shape[1]):
        count += votes == votes[:, column : column + 1]
    outvoted = count < count.amax(dim=1, keepdim=True)
    return votes.masked_fill(outvoted, torch.iinfo(votes.dtype).max).amin(dim=1)


def knn_predict(gallery: Tensor, labels: Tensor, queries: Tensor, k: int = 1) -> Tensor:
    """Class of each query by majority among its k nearest gallery features; see :func:`vote`.

    Args:
        gallery: (N, D).
        labels: Classes of the gallery, (N,) int64.
        queries: (Q, D).
        k: Neighbours per query; the field's convention is 1.

    Returns:
        Predicted classes, (Q,) int64.
    """
    return vote(labels[nearest(gallery, queries, k)])


def knn_accuracy(gallery: Tensor, labels: Tensor, queries: Tensor, query_labels: Tensor, k: int = 1) -> float:
    """Share of queries whose predicted class is right, in percent."""
    return 100 * float((knn_predict(gallery, labels, queries, k) == query_labels).double().mean())


def knn_measures(tables: FeatureTables, k: int = 1) -> dict[str, float]:
    """All figures of the nearest-neighbour evaluation, in percent.

    Args:
        tables: The training part is the gallery, the test part asks.
        k: Neighbours that vote for `top-1`.

    Returns:
        `top-1`; `mAP`, mean average precision of the whole gallery ranked by cosine; `R@1`, `R@5`, `R@10` (as far as
        the gallery reaches), share of queries with their class among so many nearest.

    Raises:
        UsageError: k is not between 1 and the size of the gallery.
    """
    if not 1 <= k <= len(tables.train):
        raise UsageError(f"k is {k}; the gallery has {len(tables.train)} sequences")
    reached = [count for count in RECALLS if count <= len(tables.train)]
    found: Neighbours = search(tables.train, tables.test, max([k, *reached]))
    votes = tables.train_labels[found.index]
    right = vote(votes[:, :k]) == tables.test_labels
    return {
        "top-1": 100 * float(right.double().mean()),
        "mAP": 100 * mean_average_precision(tables.train, tables.train_labels, tables.test, tables.test_labels),
        **{f"R@{count}": 100 * recall(votes[:, :count], tables.test_labels) for count in reached},
    }


class KNNEvaluation(pl.LightningModule):
    """Nearest-neighbour evaluation as a LightningModule: classes of queries from a labelled gallery, nothing trained.

    The gallery is the training part, the loader that is tested (or validated) asks. Logs, as `test/...` or
    `validation/...`, the figures of :func:`knn_measures`.

    Args:
        encoder: Has `embed(batch)` -> features (N, D), as :class:`ProSLModule` has.
        gallery: Loader of the training part, not augmented; where there is none, the data module's
            `feature_dataloader()`. Sequences without label (-1) are left out.
        k: Neighbours that vote.

    Example:
        Batches are :class:`SkeletonBatch`, or anything that `embed` takes and whose last entry are the labels::

            trainer.test(KNNEvaluation(module, gallery=train_loader), dataloaders=test_loader)
    """

    def __init__(self, encoder: Any, gallery: Iterable[Any] | None = None, k: int = 1) -> None:
        super().__init__()
        self.encoder, self.gallery, self.k = encoder, gallery, k
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Embed one batch of queries."""
        self.test_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Embed one batch of queries."""
        self._features.append(self.encoder.embed(batch).float())
        self._labels.append(batch[-1])

    def on_validation_epoch_end(self) -> None:
        """Log the figures."""
        self._log_measures("validation")

    def on_test_epoch_end(self) -> None:
        """Log the figures."""
        self._log_measures("test")

    def _log_measures(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise UsageError(f"KNNEvaluation runs in one process, found {self.trainer.world_size}: give devices=1")
        queries, labels = torch.cat(self._features), torch.cat(self._labels)
        self._features, self._labels = [], []
        measures = knn_measures(FeatureTables(*self._embed_gallery(), queries, labels), self.k)
        self.log_dict({f"{stage}/{name}": value for name, value in measures.items()})

    def _embed_gallery(self) -> tuple[Tensor, Tensor]:
        loader = self.gallery
        if loader is None:
            datamodule: Any = getattr(self.trainer, "datamodule", None)
            if not hasattr(datamodule, "feature_dataloader"):
                raise UsageError("KNNEvaluation has no gallery: give it the loader of the training part")
            loader = datamodule.feature_dataloader()
        features, labels = [], []
        for batch in loader:
            moved = self.transfer_batch_to_device(batch, self.device, 0)
            known = moved[-1] >= 0
            features.append(self.encoder.embed(moved).float()[known])
            labels.append(moved[-1][known])
        if not sum(map(len, labels)):
            raise DataError("the gallery of KNNEvaluation has no sequence with a label")
        return torch.cat(features), torch.cat(labels)
