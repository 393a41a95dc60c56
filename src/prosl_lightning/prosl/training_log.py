"""Metrics of training steps, kept on the device and read back rarely, so that logging does not slow a step down."""

from __future__ import annotations

import time

import torch
from torch import Tensor


class TrainingLog:
    """Sums the metrics of an epoch without a host synchronisation per step, and measures its speed."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin an epoch."""
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._steps = self._samples = 0
        self._began = time.perf_counter()

    def add(self, metrics: dict[str, Tensor], num_samples: int) -> Tensor:
        """Add one step's scalars; all steps of an epoch must bring the same names.

        Args:
            metrics: Scalars by name.
            num_samples: Training sequences of the step.

        Returns:
            The scalars stacked in the order of `metrics`, detached, on their device.
        """
        values = torch.stack([value.detach().float() for value in metrics.values()])
        if self._sum is None:
            self._names, self._sum = tuple(metrics), torch.zeros_like(values)
        self._sum += values
        self._steps += 1
        self._samples += num_samples
        return values

    def finish(self) -> dict[str, float]:
        """Means over the steps and `samples_per_second` of this process; empty where there was no step."""
        if self._sum is None:
            return {}
        means = dict(zip(self._names, (self._sum / self._steps).tolist(), strict=True))
        # Read after the means, which wait for the device.
        means["samples_per_second"] = self._samples / (time.perf_counter() - self._began)
        return means
