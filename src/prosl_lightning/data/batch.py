"""The batch every part of the library agrees on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SkeletonBatch(NamedTuple):
    """A batch of skeleton sequences of different length.

    Attributes:
        joints: Coordinates, (N, C, T, V, M) = sequence, coordinate, frame, joint, person; T is the longest of the batch.
        length: True number of frames of each sequence, (N,) int64; frames beyond it are padding and never used.
        index: Row of each sequence in the training archive, (N,) int64: the key to the codebook's assignment.
        label: Class of each sequence, (N,) int64, -1 where unknown. Pre-training only reads it for diagnostics.
    """

    joints: Tensor
    length: Tensor
    index: Tensor
    label: Tensor
