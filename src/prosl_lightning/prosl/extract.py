"""One pass over a loader of sequences to one table of features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import DataError
from prosl_lightning.prosl.distributed import collect_rows, gather, rank, world_size


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
        _check_index(batch.index, num_samples)
        if features is None:
            features = part.new_empty(num_samples, part.shape[1])
        features[batch.index], labels[batch.index], seen[batch.index] = part, batch.label, True
    if features is None or not bool(seen.all()):
        raise DataError(f"the feature loader gave {int(seen.sum())} of {num_samples} samples; it must visit each once")
    return features, labels


class Share(NamedTuple):
    """One process's part of the training set: features (n, D), labels (n,), training rows (n,) int64."""

    features: Tensor
    labels: Tensor
    rows: Tensor


@torch.no_grad()
def extract_share(
    module: pl.LightningModule,
    loader: Iterable[SkeletonBatch],
    embed: Callable[[SkeletonBatch], Tensor],
    num_samples: int,
) -> Share:
    """Features of the samples that fall to this process; in one process the whole table of :func:`extract`.

    Args:
        module: Whose device the batches go to.
        loader: Visits every sample once, and is the same in every process; :func:`divide` takes this process's part.
        embed: Batch -> features (N, D).
        num_samples: Samples of all processes together.

    Raises:
        DataError: The processes together did not see every sample exactly once.
    """
    if world_size() == 1:
        table = extract(module, loader, embed, num_samples)
        return Share(*table, torch.arange(num_samples, device=table[0].device))
    empty = torch.zeros(0, dtype=torch.int64, device=module.device)
    parts, labels, rows = [], [empty], [empty]
    for batch in iterate(module, divide(loader)):
        _check_index(batch.index, num_samples)
        parts.append(embed(batch))
        labels.append(batch.label)
        rows.append(batch.index)
    # A process without a single batch learns the width from the others.
    width = int(gather(torch.tensor([parts[0].shape[1] if parts else 0], device=module.device)).max())
    features = torch.cat(parts) if parts else torch.zeros(0, width, device=module.device)
    share = Share(features, torch.cat(labels), torch.cat(rows))
    seen = collect_rows(*_times_seen(share.rows), num_samples)
    if not bool((seen == 1).all()):
        raise DataError(
            f"the feature loaders of {world_size()} processes gave {int((seen > 0).sum())} of {num_samples} samples, "
            f"{int((seen > 1).sum())} of them more than once; each must visit all samples once and is divided here"
        )
    return share


def divide(loader: Iterable[Any]) -> Iterable[Any]:
    """The batches of a loader that fall to this process: consecutive ones, each read by one process only.

    An iterable that is no `DataLoader` over a map-style data set cannot be entered in its middle: every process reads
    all of it and keeps every n-th batch.
    """
    world, own = world_size(), rank()
    if world == 1:
        return loader
    if not isinstance(loader, DataLoader) or not isinstance(loader.batch_sampler, Sized):
        return islice(loader, own, None, world)
    batches = loader.batch_sampler
    count = len(batches)
    return DataLoader(
        loader.dataset,
        batch_sampler=_Slice(batches, own * count // world, (own + 1) * count // world),
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )


class _Slice:
    """Some consecutive batches of a batch sampler."""

    def __init__(self, batches: Iterable[Any], first: int, end: int) -> None:
        self._batches, self._first, self._end = batches, first, end

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._batches), self._first, self._end)

    def __len__(self) -> int:
        return self._end - self._first


def _check_index(index: Tensor, num_samples: int) -> None:
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= num_samples:
        wrong = low if low < 0 else high
        raise DataError(f"a batch has index {wrong}; the {num_samples} samples have 0 to {num_samples - 1}")


def _times_seen(rows: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = torch.unique(rows, return_counts=True)
    return found
