"""Measures faults of recorded motion: values that are no numbers, gaps, joints that stick or jump, bones that stretch.

Lengths are judged by the *size* of the body itself, so that metres and pixels, people and hands are treated alike: the
root mean square distance of the joints from their mean, median over the track; about 0.47 m for a standing person. A
*track* is one list position of one sequence. An absent body is all zeros, and so is a missing joint, unless it is at
the origin throughout a track whose body stands there: then the data are centred on it.

* **stuck**: a rest of one joint (steps up to 1e-4 of the size) in which, in 20 frames or more, half of the joints move
  (steps above 2e-3). In centred data a joint rests relative to the centre.
* **jump**: a step longer than 0.35 of the size (16 cm), of which the mean of the steps before and after explains less
  than a quarter (the difference is more than 0.75 of its length), and which is ten deviations (1.4826 times the median
  absolute one) above the median step of that joint in that track. A fast motion is none; a joint that is elsewhere for
  one frame makes two.
* **drift** of a bone: half the span of the middle 90 % of its lengths in a track, relative to their median; a fault
  above 0.25 where it is also more than is usual of that bone in the data (:mod:`~prosl_lightning.data.severity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.skeleton import SkeletonLayout

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

STUCK_FRAMES, STILL, MOVING = 20, 1e-4, 2e-3
JUMP, ABRUPT, JUMP_DEVIATIONS = 0.35, 0.75, 10.0
DRIFT = 0.25
_MAD_TO_DEVIATION = 1.4826
_HUGE = 1e15  # no coordinate in any unit, and its square is near the largest float32
_MIN_BONE = 1e-3  # of the size; shorter ones have no length to speak of


@dataclass(frozen=True)
class Faults:
    """What :func:`measure` counted, one row a sequence.

    Attributes:
        nonfinite: Coordinates that are NaN, infinite or beyond 1e15, ``(N,)``; their bodies count as absent.
        empty: Frames without anybody, ``(N,)``.
        absent: Frames in which each list position is empty, ``(N, M)``.
        repeated: Frames in which a body that is there did not move at all, ``(N,)``, summed over bodies.
        missing: Frames in which a joint is missing though its body is there, ``(N, V)``.
        stuck: Rests of each joint while others move, ``(N, V)``.
        jumps: Jumps of each joint, ``(N, V)``.
        drift: Drift of each of ``layout.bones``, the largest over the bodies, ``(N, bones)``; NaN where unknown.
    """

    nonfinite: Ints
    empty: Ints
    absent: Ints
    repeated: Ints
    missing: Ints
    stuck: Ints
    jumps: Ints
    drift: Floats

    @classmethod
    def none(cls, num_sequences: int, num_bodies: int, layout: SkeletonLayout) -> Faults:
        """Nothing counted yet."""

        def zeros(*shape: int) -> Ints:
            return np.zeros((num_sequences, *shape), dtype=np.int64)

        joints = layout.num_joints
        drift = np.full((num_sequences, len(layout.bones)), np.nan, dtype=np.float32)
        return cls(zeros(), zeros(), zeros(num_bodies), zeros(), zeros(joints), zeros(joints), zeros(joints), drift)

    @classmethod
    def join(cls, parts: Sequence[Faults]) -> Faults:
        """One after another."""
        return cls(*(np.concatenate([getattr(part, name.name) for part in parts]) for name in fields(cls)))


def measure(frames: NDArray[Any], lengths: Ints, layout: SkeletonLayout) -> Faults:
    """Measure the faults of some sequences, which may be all frames of an archive's block.

    Args:
        frames: Coordinates ``(F, C, V, M)`` of all sequences one after another.
        lengths: Frames of each sequence, ``(N,)``.
        layout: Gives the bones.

    Returns:
        Counts, one row a sequence.
    """
    faults = Faults.none(len(lengths), frames.shape[3], layout)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    there = np.zeros((len(frames), frames.shape[3]), dtype=bool)
    for body in range(frames.shape[3]):
        with np.errstate(over="ignore"):
            points = np.ascontiguousarray(frames[..., body].transpose(1, 2, 0), dtype=np.float32)  # (C, V, F)
        finite = np.abs(points) < _HUGE  # false for NaN too
        good = finite.all(axis=(0, 1))
        if not good.all():
            np.add.at(faults.nonfinite, owner, (~finite).sum(axis=(0, 1)))
        there[:, body] = good & points.any(axis=(0, 1))
        here = np.flatnonzero(there[:, body])
        if len(here) > 0:
            _Tracks(points[:, :, here], here, owner[here]).count(faults, layout)
    np.add.at(faults.absent, owner, ~there)
    np.add.at(faults.empty, owner, ~there.any(axis=1))
    return faults


class _Tracks:
    """The tracks of one list position one after another, without the frames in which nobody is there.

    Arrays have time P last: coordinates ``(C, V, P)``, steps ``(V, P - 1)`` in units of the size, infinite where there
    is no step (between tracks, over gaps, of missing joints).
    """

    def __init__(self, points: Floats, frames: Ints, owner: Ints) -> None:
        self.points, self.owner = points, owner
        self.starts = np.flatnonzero(np.diff(owner, prepend=-1))
        self.counts = np.diff(self.starts, append=len(owner))
        self.track = np.repeat(np.arange(len(self.starts)), self.counts)
        present: Flags = np.asarray(points.any(axis=0))
        self.zero = ~present
        self.missing = self.zero.copy()
        mean = points.sum(axis=1) / present.sum(axis=0)
        squares = (points * points).sum(axis=0)
        spread = np.maximum(squares.sum(axis=0) / present.sum(axis=0) - (mean * mean).sum(axis=0), 0.0)
        self.size = _quantile(self._sorted(np.sqrt(spread)[None]), 0.5)[0]
        self.size[~(self.size > 0)] = np.nan
        self._keep_center(np.sqrt((mean * mean).sum(axis=0)))
        self.valid = (np.diff(frames) == 1) & (np.diff(owner) == 0)
        self.velocity = np.diff(points, axis=2) / self.size[self.track[1:]]
        self.steps = np.sqrt((self.velocity * self.velocity).sum(axis=0))
        self.steps[:, ~self.valid] = np.inf
        self.steps[self.missing[:, 1:] | self.missing[:, :-1]] = np.inf

    def _keep_center(self, distance: Floats) -> None:
        """A joint that is at the origin throughout is not missing where the body stands at the origin."""
        zeros = np.add.reduceat(self.missing, self.starts, axis=1, dtype=np.int64)
        near = np.add.reduceat(distance, self.starts) / self.counts < 4.0 * self.size
        self.missing &= ~((zeros == self.counts) & near)[:, self.track]

    def _sorted(self, values: Floats) -> Floats:
        """Values ``(X, P)`` as ``(X, K, T)``: the K tracks, each sorted and padded with infinity."""
        places = np.arange(self.counts.max())
        padded = values[:, np.minimum(self.starts[:, None] + places, values.shape[1] - 1)]
        padded[:, places >= self.counts[:, None]] = np.inf
        padded.sort(axis=2)
        return padded

    def count(self, faults: Faults, layout: SkeletonLayout) -> None:
        """Add what is found to the rows of the sequences the tracks belong to."""
        rows = self.owner[self.starts]
        faults.missing[rows] += np.add.reduceat(self.missing, self.starts, axis=1, dtype=np.int64).T
        at_rest = self.valid & (np.where(np.isfinite(self.steps), self.steps, 0.0).max(axis=0) == 0)
        np.add.at(faults.repeated, self.owner[1:][at_rest], 1)
        for found, (joints, times) in ((faults.stuck, self._stuck()), (faults.jumps, self._jumps())):
            np.add.at(found, (self.owner[times + 1], joints), 1)
        faults.drift[rows] = np.fmax(faults.drift[rows], self._drift(layout))

    def _stuck(self) -> tuple[Ints, Ints]:
        """Joint and first step of each rest of a joint while others move."""
        still = np.pad((self.steps <= STILL) & ~self.zero[:, 1:], ((0, 0), (1, 1)))
        others = np.isfinite(self.steps) & (self.steps > MOVING)
        moving = np.concatenate([[0], np.cumsum(2 * others.sum(axis=0) >= len(self.steps))])
        joints, first = np.nonzero(still[:, 1:] & ~still[:, :-1])
        last = np.nonzero(still[:, :-1] & ~still[:, 1:])[1]
        long = moving[last] - moving[first] >= STUCK_FRAMES
        return joints[long], first[long]

    def _jumps(self) -> tuple[Ints, Ints]:
        """Joint and step of each jump."""
        long = np.isfinite(self.steps) & (self.steps > JUMP)
        joints, times = np.nonzero(long)
        around = np.zeros((3, len(times)), dtype=np.float32)
        neighbours = np.zeros(len(times), dtype=np.float32)
        for other in (times - 1, times + 1):
            within = (other >= 0) & (other < self.steps.shape[1])
            other = np.where(within, other, times)
            within &= np.isfinite(self.steps[joints, other])
            around += np.where(within, self.velocity[:, joints, other], 0.0)
            neighbours += within
        change = self.velocity[:, joints, times] - around / np.maximum(neighbours, 1)
        abrupt = np.sqrt((change * change).sum(axis=0)) > ABRUPT * self.steps[joints, times]
        joints, times = joints[abrupt], times[abrupt]
        return self._unusual(joints, times)

    def _unusual(self, joints: Ints, times: Ints) -> tuple[Ints, Ints]:
        """Those of some steps that are far beyond the usual of their joint and track."""
        if len(joints) == 0:
            return joints, times
        pairs, which = np.unique(self.track[times + 1] * len(self.steps) + joints, return_inverse=True)
        track, joint = np.divmod(pairs, len(self.steps))
        places = np.arange(self.counts[track].max())
        window = np.minimum(self.starts[track, None] + places, self.steps.shape[1] - 1)
        steps = np.where(places < self.counts[track, None] - 1, self.steps[joint[:, None], window], np.inf)
        median = _quantile(np.sort(steps, axis=1), 0.5)
        deviation = np.where(np.isfinite(steps), np.abs(steps - median[:, None]), np.inf)
        usual = median + JUMP_DEVIATIONS * _MAD_TO_DEVIATION * _quantile(np.sort(deviation, axis=1), 0.5)
        unusual = self.steps[joints, times] > usual[which]
        return joints[unusual], times[unusual]

    def _drift(self, layout: SkeletonLayout) -> Floats:
        """Drift of each bone in each track, ``(K, bones)``."""
        child, parent = np.array(layout.bones, dtype=np.int64).reshape(-1, 2).T
        bones = self.points[:, child] - self.points[:, parent]
        lengths = np.sqrt((bones * bones).sum(axis=0))
        lengths[self.missing[child] | self.missing[parent]] = np.inf
        ordered = self._sorted(lengths)
        low, median, high = (_quantile(ordered, share) for share in (0.05, 0.5, 0.95))
        median[~(median > _MIN_BONE * self.size)] = np.nan
        drift: Floats = ((high - low) / (2.0 * median)).T
        return drift


def _quantile(ordered: Floats, share: float) -> Floats:
    """The value at a share of each row of ``(..., T)`` ascending values, infinities apart; NaN where there is none."""
    known = np.isfinite(ordered).sum(axis=-1)
    place = np.rint(share * np.maximum(known - 1, 0)).astype(np.int64)
    value: Floats = np.take_along_axis(ordered, place[..., None], axis=-1)[..., 0]
    return np.where(known > 0, value, np.nan).astype(np.float32)
