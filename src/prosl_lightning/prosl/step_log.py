"""Metrics of training steps, kept on the device and read back rarely, so that logging does not slow a step down."""

from __future__ import annotations

import torch
from torch import Tensor


class StepLog:
    """Sums the metrics of an epoch without a host synchronisation per step."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._steps = 0

    def add(self, metrics: dict[str, Tensor]) -> Tensor:
        """Add one step's scalars; all steps between two `pop` must bring the same names.

        Returns:
            The scalars stacked in the order of `metrics`, detached, on their device.
        """
        values = torch.stack([value.detach().float() for value in metrics.values()])
        if self._sum is None:
            self._names, self._sum = tuple(metrics), torch.zeros_like(values)
        self._sum += values
        self._steps += 1
        return values

    def pop(self) -> dict[str, float]:
        """Means over the steps since the last call, and start anew; empty where there was no step."""
        means = {} if self._sum is None else dict(zip(self._names, (self._sum / self._steps).tolist(), strict=True))
        self._names, self._sum, self._steps = (), None, 0
        return means
