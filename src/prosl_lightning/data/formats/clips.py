"""What padded clip arrays have in common: how long a clip really is, and whether it was normalised before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.skeleton import SkeletonLayout

REPLAYED_LENGTH = 300  # 2s-AGCN plays every clip again and again up to this length
_REPLAY_TOLERANCE = 1e-4  # metres; far above rounding, far below a sensor's noise
_TINY = 1e-6


def true_length(bodies: NDArray[Any]) -> int:
    """Frames of a padded clip that were recorded.

    Empty frames at the end are padding. A clip of 300 frames without any is looked at as 2s-AGCN makes it: each body
    is played from its start again and again. Then the length is the longest that a body goes without repeating itself;
    each is seen from its own first joint, since all were moved by the first body's centre after the replay.

    Args:
        bodies: Coordinates ``(T, B, V, C)``.

    Returns:
        Frames up to the last that is not padding; 0 where everything is zero.
    """
    present = np.flatnonzero((bodies != 0).reshape(len(bodies), -1).any(axis=1))
    length = int(present[-1]) + 1 if len(present) else 0
    if length != REPLAYED_LENGTH:
        return length
    with np.errstate(all="ignore"):
        there = [body for body in range(bodies.shape[1]) if (bodies[:, body] != 0).any()]
        return max(_period((bodies[:, body] - bodies[:, body, :1]).reshape(length, -1)) for body in there)


def _period(track: NDArray[Any]) -> int:
    """Shortest beginning of a track ``(T, D)`` that, played again and again, gives all of it."""
    for period in np.flatnonzero((np.abs(track[1:] - track[0]) <= _REPLAY_TOLERANCE).all(axis=1)) + 1:
        if (np.abs(track[period:] - track[:-period]) <= _REPLAY_TOLERANCE).all():
            return int(period)
    return len(track)


def is_centered(clips: Iterable[NDArray[Any]], layout: SkeletonLayout) -> bool:
    """Whether the first body's centre is at the origin in every frame: such clips were normalised before.

    Args:
        clips: Some clips ``(T, B, V, C)``.
        layout: Its ``center`` joints.
    """
    seen = False
    for bodies in clips:
        first = bodies[:, 0]
        there = (first != 0).any(axis=(1, 2))
        seen |= bool(there.any())
        with np.errstate(all="ignore"):
            centers = first[there][:, list(layout.center)].mean(axis=1)
        if not (np.abs(centers) <= _TINY).all():  # NaN is not centred
            return False
    return seen
