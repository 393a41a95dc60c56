"""The batch every part of the library agrees on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SkeletonBatch(NamedTuple):
    """A batch of skeleton sequences of different length.

    Attributes:
        joints: Coordinates (N, C, T, V, M) = sequence, coordinate, frame, joint, person; T is the batch's longest.
        length: True number of frames of each sequence, (N,) int64; frames beyond it are padding and never used.
        index: Position of each sequence in the training set, (N,) int64: the key to the codebook's assignment.
        label: Class of each sequence, (N,) int64, -1 where unknown. Pre-training only reads it for diagnostics.
    """

    joints: Tensor
    length: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a batch
    label: Tensor
