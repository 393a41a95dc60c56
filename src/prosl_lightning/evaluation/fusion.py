"""Late fusion of several streams: each has its own encoder and classifier, their raw logits are added."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from prosl_lightning.errors import UsageError


def fusion_weights(weights: Sequence[float] | None, streams: int) -> list[float]:
    """The weights, or equal ones.

    Raises:
        UsageError: Not one weight a stream, one that is negative or not finite, none above zero, or nothing to fuse.
    """
    if weights is None:
        return [1.0] * streams
    weights = list(weights)
    if streams < 2:
        raise UsageError(f"weights are {weights} for {streams} checkpoints: they are for fusing two or more")
    fit = len(weights) == streams and all(0 <= weight < math.inf for weight in weights) and any(weights)
    if not fit:
        raise UsageError(
            f"weights are {weights} for {streams} checkpoints: one each, finite, none negative, not all zero"
        )
    return weights


def fuse(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Weighted sum of the streams' raw logits, not of their probabilities.

    Args:
        logits: One (N, K) for each stream, rows in the same order.
        weights: One for each stream; equal where they are not given.

    Returns:
        (N, K).

    Raises:
        UsageError: Weights that do not fit, or streams of different sequences or classes.

    Example:
        >>> fuse([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]])], weights=[1.0, 0.5])
        tensor([[2.5000, 2.0000]])
    """
    weights = fusion_weights(weights, len(logits))
    if len({tuple(one.shape) for one in logits}) != 1:
        raise UsageError(f"streams of different sequences or classes: {[tuple(one.shape) for one in logits]}")
    return torch.stack([weight * one for weight, one in zip(weights, logits, strict=True)]).sum(dim=0)
