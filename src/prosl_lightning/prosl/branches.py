"""How views go through an encoder: several branches as one batch, or each alone where batches have statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Projections = dict[str, Tensor]


def has_batch_norm(encoder: nn.Module) -> bool:
    """Whether a clip's projection depends on the other clips of its batch."""
    return any(isinstance(module, _BatchNorm) for module in encoder.modules())


def project_branches(encoder: Any, views: Sequence[Tensor], *, apart: bool) -> list[Projections]:
    """Unit projections of several branches that share one encoder.

    Args:
        encoder: Offers `project`.
        views: One batch of clips (N, C, T, V, M) for each branch.
        apart: Whether each gets a forward pass of its own: with batch normalisation the statistics of one kind of
            view must not reach another. Else they go through as one batch, which is faster.

    Returns:
        For each branch, in order, its projections by name, rows of unit length.
    """
    if apart or len(views) == 1:
        return [unit_projections(encoder, view) for view in views]
    together = unit_projections(encoder, torch.cat(list(views)))
    sizes = [len(view) for view in views]
    parts = {name: projection.split(sizes) for name, projection in together.items()}
    return [{name: split[i] for name, split in parts.items()} for i in range(len(views))]


def unit_projections(encoder: Any, view: Tensor) -> Projections:
    """An encoder's projections as rows of unit length, in float32 where mixed precision made them coarser."""
    return {
        name: F.normalize(projection.to(torch.promote_types(projection.dtype, torch.float32)), dim=-1)
        for name, projection in encoder.project(view).items()
    }
