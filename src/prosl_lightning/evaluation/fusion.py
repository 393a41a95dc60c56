"""Late fusion of several streams: each has its own encoder and classifier, their raw logits are added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prosl_lightning.errors import UsageError


def fusion_weights(weights: Sequence[float] | None, streams: int) -> list[float]:
    """The weights, or equal ones.

    Raises:
        UsageError: Not one weight a stream, a negative one, or none above zero.
    """
    weights = [1.0] * streams if weights is None else list(weights)
    if len(weights) != streams or min(weights, default=1) < 0 or max(weights, default=1) == 0:
        raise UsageError(f"weights are {weights} for {streams} checkpoints: one each, none negative, not all zero")
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
