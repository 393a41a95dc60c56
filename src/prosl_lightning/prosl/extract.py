"""One pass over a loader of sequences to one table of features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import DataError


def iterate(module: pl.LightningModule, loader: Iterable[SkeletonBatch]) -> Iterator[SkeletonBatch]:
    """The loader's batches on the module's device."""
    for batch in loader:
        yield module.transfer_batch_to_device(batch, module.device, 0)


@torch.no_grad()
def extract(
    module: pl.LightningModule,
    loader: Iterable[SkeletonBatch],
    embed: Callable[[SkeletonBatch], Tensor],
    num_samples: int,
) -> tuple[Tensor, Tensor]:
    """Features and labels of every sample, each in the row its `index` names.

    Args:
        module: Whose device the batches go to.
        loader: Visits every sample once.
        embed: Batch -> features (N, D).
        num_samples: Rows of the tables.

    Returns:
        Features (num_samples, D) and labels (num_samples,).

    Raises:
        DataError: The loader left samples out or named rows beyond the table.
    """
    features: Tensor | None = None
    labels = torch.full((num_samples,), -1, dtype=torch.int64, device=module.device)
    seen = torch.zeros(num_samples, dtype=torch.bool, device=module.device)
    for batch in iterate(module, loader):
        part = embed(batch)
        low, high = int(batch.index.min()), int(batch.index.max())
        if low < 0 or high >= num_samples:
            wrong = low if low < 0 else high
            raise DataError(f"a batch has index {wrong}; the {num_samples} samples have 0 to {num_samples - 1}")
        if features is None:
            features = part.new_empty(num_samples, part.shape[1])
        features[batch.index], labels[batch.index], seen[batch.index] = part, batch.label, True
    if features is None or not bool(seen.all()):
        raise DataError(f"the feature loader gave {int(seen.sum())} of {num_samples} samples; it must visit each once")
    return features, labels
