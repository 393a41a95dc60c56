"""Metrics of training steps, kept on the device and read back rarely, so that logging does not slow a step down."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import torch
from torch import Tensor

# Steps that may wait to be read. Where logging is rare, one reading in so many costs nothing either.
MOST_PENDING = 1000


class Divergence(NamedTuple):
    """The first step whose loss was not finite, or that left a state that is not.

    Attributes:
        step: Its number, as Lightning counts.
        terms: Names of what was not finite.
        rows: Training rows of its batch, (N,), on the host.
        rows_before: Those of the step before; None where it is not known.
        is_latest: Whether no step followed it.
        of_state: Whether it is the state, and `terms` names what of it.
    """

    step: int
    terms: tuple[str, ...]
    rows: Tensor
    rows_before: Tensor | None
    is_latest: bool
    of_state: bool = False


class _Step(NamedTuple):
    number: int
    values: Tensor
    rows: Tensor


class TrainingLog:
    """Collects the metrics of an epoch without a host synchronisation per step, and measures its speed."""

    def __init__(self) -> None:
        self._not_finite: list[tuple[_Step, tuple[str, ...]]] = []
        self.start()

    def start(self) -> None:
        """Begin an epoch; losses in a row that were not finite are counted over its beginning."""
        self.latest: dict[str, float] = {}
        self._names: tuple[str, ...] = ()
        self._pending: list[_Step] = []
        self._before: _Step | None = None  # the last whose loss was finite
        self._last: _Step | None = None
        self._sum: list[float] = []
        self._steps = self._samples = 0
        self._began = time.perf_counter()

    def __len__(self) -> int:
        """Number of steps that wait to be read."""
        return len(self._pending)

    def add(self, step: int, metrics: dict[str, Tensor], index: Tensor) -> None:
        """Add one step's scalars; all steps of an epoch must bring the same names, `loss` among them.

        Args:
            step: Its number, as Lightning counts.
            metrics: Scalars by name.
            index: Training rows of its batch, (N,).
        """
        if not self._names:
            self._names = tuple(metrics)
            self._sum = [0.0] * len(metrics)
        with torch.no_grad():
            values = torch.stack(list(metrics.values())).float()
        # Copied: a captured step writes the rows of every batch to the same place.
        self._pending.append(_Step(step, values, index.detach().clone()))
        self._samples += len(index)

    def read(self, patience: int = 1) -> Divergence | None:
        """Bring everything added since the last reading to the host, in one transfer.

        Args:
            patience: How many losses in a row must not be finite; those that are fewer are left out of the means.

        Returns:
            The first of them, or None.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return None
        # From here on in Python: for a few numbers a step its arithmetic, in doubles too, is far cheaper than torch's.
        rows = torch.stack([step.values for step in pending]).tolist()
        self.latest = dict(zip(self._names, rows[-1], strict=True))
        loss = self._names.index("loss")
        self._last = pending[-1]
        for step, row in zip(pending, rows, strict=True):
            if math.isfinite(row[loss]):
                self._sum = [total + value for total, value in zip(self._sum, row, strict=True)]
                self._steps += 1
                self._not_finite, self._before = [], step
                continue
            terms = tuple(name for name, value in zip(self._names, row, strict=True) if not math.isfinite(value))
            self._not_finite.append((step, terms))
            if len(self._not_finite) >= patience:
                return self._divergence(is_latest=step is pending[-1])
        return None

    def finish(self) -> dict[str, float]:
        """Means over the steps read and `samples_per_second` of this process; empty where there was no step."""
        if not self._steps:
            return {}
        means = dict(zip(self._names, (total / self._steps for total in self._sum), strict=True))
        # Asked after the reading, which waits for the device.
        means["samples_per_second"] = self._samples / (time.perf_counter() - self._began)
        return means

    def without_finite_loss(self) -> Divergence | None:
        """The first step in a row that is not finite, where the epoch had steps but not one with a finite loss."""
        return self._divergence(is_latest=False) if self._not_finite and self._last and not self._steps else None

    def last_batch(self, broken: str) -> Divergence | None:
        """The step read last, as one after which what is called `broken` is not finite."""
        step = self._last
        return step and Divergence(step.number, (broken,), step.rows.cpu(), None, True, of_state=True)

    def _divergence(self, is_latest: bool) -> Divergence:
        first, terms = self._not_finite[0]
        before = None if self._before is None else self._before.rows.cpu()
        is_only, self._not_finite = len(self._not_finite) == 1, []
        return Divergence(first.number, terms, first.rows.cpu(), before, is_latest and is_only)
