"""The part of a data set that a figure shows: drawn once, so that it is the same for every encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.data.datamodule import ArchiveRows
from prosl_lightning.errors import UsageError
from prosl_lightning.prosl.extract import iterate
from prosl_lightning.prosl.importance import joint_importance
from prosl_lightning.prosl.module import ProSLModule

IntArray = NDArray[np.int64]
_BATCH = 128
# Sequences whose joints are left out in one go: V + 1 forwards each.
_IMPORTANCE_CHUNK = 16


class Part(NamedTuple):
    """Some sequences of an archive.

    Attributes:
        rows: Archive rows, (n,) int64, ascending.
        labels: Their classes, (n,) int64, -1 where unknown.
        note: Which part of how many it is, for the reader of a figure; empty where it is all.
    """

    rows: IntArray
    labels: IntArray
    note: str


def choose_part(
    labels: IntArray, rows: IntArray, *, classes: int | Sequence[int] = 10, per_class: int = 100, seed: int = 0
) -> Part:
    """Draw some sequences of some classes; where nothing is labelled, as many sequences of whatever they show.

    Args:
        labels: Class of every sequence of the archive, (N,), -1 where unknown.
        rows: Archive rows to choose from.
        classes: How many classes, spread evenly over those that occur, or which ones.
        per_class: Most sequences of a class.
        seed: Of the draw.

    Raises:
        UsageError: There is no sequence, or none of a class that is asked for.
    """
    if not len(rows):
        raise UsageError("there is no sequence to choose from")
    draw, known = np.random.default_rng(seed), rows[labels[rows] >= 0]
    if not len(known):
        count = per_class * (classes if isinstance(classes, int) else len(classes))
        chosen = np.sort(draw.permutation(rows)[:count])
        told = f"{len(chosen):,} of {len(rows):,}" if len(chosen) < len(rows) else f"all {len(rows):,}"
        return Part(chosen, np.full(len(chosen), -1), f"{told} sequences, without labels")
    present = np.unique(labels[known])
    wanted = present if isinstance(classes, int) else np.array(list(classes), np.int64)
    if isinstance(classes, int) and classes < len(present):
        wanted = present[np.linspace(0, len(present) - 1, classes).round().astype(int)]
    if missing := sorted(set(wanted.tolist()) - set(present.tolist())):
        raise UsageError(f"class {missing[0]} has no sequence here; there are {', '.join(map(str, present.tolist()))}")
    picks = [draw.permutation(known[labels[known] == label])[:per_class] for label in wanted]
    chosen = np.sort(np.concatenate(picks))
    parts = []
    if len(chosen) < len(rows):
        parts.append(f"{len(chosen):,} of {len(rows):,} sequences")
    if len(wanted) < len(present):
        parts.append(f"{len(wanted)} of {len(present)} classes")
    return Part(chosen, labels[chosen], ", ".join(parts))


def batches(archive: Archive, rows: Sequence[int] | IntArray, size: int = _BATCH) -> Iterator[SkeletonBatch]:
    """Sequences of an archive in the order of `rows`; a batch's `index` counts within them."""
    source = ArchiveRows(archive, np.asarray(rows, np.int64))
    for start in range(0, len(rows), size):
        yield source.__getitems__(range(start, min(start + size, len(rows))))


@torch.no_grad()
def embedded(
    module: ProSLModule,
    archive: Archive,
    rows: Sequence[int] | IntArray,
    embed: Callable[[SkeletonBatch], Tensor] | None = None,
) -> Tensor:
    """Features of some sequences under the fixed centre crop, (n, D) on the CPU, in the order of `rows`.

    Args:
        module: A trained module; it is put into evaluation mode.
        archive: Data that fit it.
        rows: Archive rows.
        embed: Batch -> features; the downstream features where it is not given.
    """
    module.eval()
    found = [(embed or module.embed)(batch).float().cpu() for batch in iterate(module, batches(archive, rows))]
    return torch.cat(found)


@torch.no_grad()
def measured_importance(module: ProSLModule, archive: Archive, rows: Sequence[int] | IntArray) -> NDArray[np.float64]:
    """Semantic coefficients of each joint in some sequences (Eq. 7), (n, V), measured as for the codebook.

    Args:
        module: A trained module; it is put into evaluation mode.
        archive: Data that fit it.
        rows: Archive rows; each costs V + 1 forward passes.
    """
    module.eval()

    def features(clips: Tensor) -> Tensor:
        return module.key_features(clips).double()  # the divergence of two features may be far below float32's steps

    found = [
        joint_importance(features, module.prepare(batch)).cpu().numpy()
        for batch in iterate(module, batches(archive, rows, _IMPORTANCE_CHUNK))
    ]
    return np.concatenate(found)
