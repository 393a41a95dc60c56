"""Ranks sequences by how far their faults go beyond what is usual in the same data.

Recorded motion is never clean: bones of every sensor stretch and joints jump. So each kind of fault is made a rate (per
frame; of bones the drift itself), and a sequence is judged by how many deviations (1.4826 times the median absolute
one) its rate lies above the median of all sequences. What is usual counts nothing, whatever the sensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.faults import DRIFT, Faults

Rates = NDArray[np.float64]
Ints = NDArray[np.int64]

_MAD_TO_DEVIATION = 1.4826
_LEAST = 0.01  # a rate's smallest deviation: one fault in a hundred frames counts one where all others have none
_LEAST_DRIFT = 0.05
_SEVERE = 3.0  # deviations above which a bone drifts more than is usual
_ENOUGH = 8  # sequences in which a bone is seen, from which on it is told what is usual


@dataclass(frozen=True)
class Severity:
    """How far each sequence goes beyond the usual.

    Attributes:
        kinds: Kinds of faults.
        rates: What was found of each kind, ``(N, kinds)``: faults per frame; drift of the worst bone beyond its usual.
        usual: The median of each rate, ``(kinds,)``.
        deviations: Deviations above the usual, ``(N, kinds)``; at least 0.
    """

    kinds: tuple[str, ...]
    rates: Rates
    usual: Rates
    deviations: Rates

    @property
    def scores(self) -> Rates:
        """The sum over the kinds, ``(N,)``."""
        total: Rates = self.deviations.sum(axis=1)
        return total


def fault_counts(faults: Faults) -> dict[str, Ints]:
    """How often each fault was counted in every sequence, ``(N,)``, by its name; drifting bones apart."""
    return {
        "nonfinite values": faults.nonfinite,
        "frames without anybody": faults.empty,
        "repeated frames": faults.repeated,
        "missing joints": faults.missing.sum(axis=1),
        "stuck joints": faults.stuck.sum(axis=1),
        "jumps": faults.jumps.sum(axis=1),
    }


def severity(faults: Faults, lengths: Ints) -> Severity:
    """Compare every sequence with the others.

    Args:
        faults: What was counted, one row a sequence.
        lengths: Frames of each sequence, ``(N,)``.
    """
    counts = fault_counts(faults)
    rates = np.stack([number / lengths for number in counts.values()] + [_worst_drift(faults)], axis=1)
    usual, deviation = _usual(rates)
    least = np.array([_LEAST] * len(counts) + [_LEAST_DRIFT])
    deviations = np.maximum(rates - usual, 0.0) / np.maximum(deviation, least)
    return Severity((*counts, "drifting bones"), rates, usual, deviations)


def drifting(faults: Faults) -> NDArray[np.bool_]:
    """Which bones drift, ``(N, bones)``: above 0.25 and, where eight sequences tell it, by more than is usual."""
    drift = faults.drift.astype(np.float64)
    usual, deviation = _usual(drift)
    limit = usual + _SEVERE * np.maximum(deviation, _LEAST_DRIFT)
    limit[(~np.isnan(drift)).sum(axis=0) < _ENOUGH] = DRIFT
    found: NDArray[np.bool_] = np.nan_to_num(drift) > np.maximum(limit, DRIFT)
    return found


def _worst_drift(faults: Faults) -> Rates:
    """Drift of the bone that goes farthest beyond its usual, ``(N,)``, 0 where no bone is known."""
    drift = faults.drift.astype(np.float64)
    if drift.shape[1] == 0:
        return np.zeros(len(drift))
    worst: Rates = np.nan_to_num(drift - _usual(drift)[0]).max(axis=1)
    return np.maximum(worst, 0.0)


def _usual(values: Rates) -> tuple[Rates, Rates]:
    """Median and deviation of each column; 0 where nothing is known."""
    known = np.where(np.isnan(values).all(axis=0), 0.0, values)
    median = np.nanmedian(known, axis=0)
    return median, _MAD_TO_DEVIATION * np.nanmedian(np.abs(known - median), axis=0)
