"""SCoBo, the semantic codebook: centroids, the semantic label of every training sample, joint importance."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prosl_lightning.errors import DataError


class SemanticCodebook(nn.Module):
    """What clustering the key features found. Empty until the first build; all its state is persistent.

    The shapes depend on the data, so loading a checkpoint takes them from there.

    Attributes:
        centroids: Unit centroids, (k, D).
        assignment: Semantic label of every training sample, (num_samples,) int64.
        importance: Semantic coefficients, (V,) for the data set or (num_samples, V); empty until measured.
        epoch: Epoch it was built for, scalar int64; -1 before the first build.
    """

    centroids: Tensor
    assignment: Tensor
    importance: Tensor
    epoch: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.zeros(0, 0))
        self.register_buffer("assignment", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("importance", torch.zeros(0))
        self.register_buffer("epoch", torch.tensor(-1))

    def reset(self) -> None:
        """Forget everything: what was clustered belongs to another run."""
        self.centroids, self.importance = self.centroids.new_zeros(0, 0), self.importance.new_zeros(0)
        self.assignment, self.epoch = self.assignment.new_zeros(0), torch.full_like(self.epoch, -1)

    @property
    def is_built(self) -> bool:
        """Whether there are centroids yet."""
        return self.centroids.shape[0] > 0

    @torch.no_grad()
    def update(self, centroids: Tensor, assignment: Tensor, importance: Tensor | None = None) -> None:
        """Replace the centroids (k, D), the labels (num_samples,) and, where given, the joint importance.

        Buffers whose shape stays are written in place and keep their address, as CUDA graphs want it.
        """
        self._store("centroids", F.normalize(centroids.to(self.centroids), dim=1))
        self._store("assignment", assignment)
        if importance is not None:
            self._store("importance", importance)

    def _store(self, name: str, value: Tensor) -> None:
        buffer = getattr(self, name)
        if buffer.shape == value.shape:
            buffer.copy_(value)
        else:
            setattr(self, name, value.to(buffer, copy=True))

    def labels_of(self, index: Tensor) -> Tensor:
        """Semantic labels of training rows `index`, any shape; -1 stays -1.

        Raises:
            DataError: The codebook was never built.
        """
        if not self.is_built:
            raise DataError("the semantic codebook is empty: it is built by CodebookCallback before the semantic stage")
        # -1 would read a real row, so it is moved to row 0 first and put back afterwards.
        return torch.where(index >= 0, self.assignment[index.clamp_min(0)], -1)

    def excluded(self, anchor_index: Tensor, memory_index: Tensor) -> Tensor:
        """Which bank entries share the anchor's semantic label and so are no negatives of it (Eq. 4).

        Args:
            anchor_index: Training rows of the anchors, (N,).
            memory_index: Training rows of the bank's entries, (K,); -1 = initial noise, never excluded.

        Returns:
            (N, K) bool.
        """
        memory_labels = self.labels_of(memory_index)
        same = self.labels_of(anchor_index).unsqueeze(1) == memory_labels.unsqueeze(0)
        return same & (memory_labels >= 0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, buffer.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
