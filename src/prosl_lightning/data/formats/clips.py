"""What clips have in common: how long a padded one really is, and whether they were normalised before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.source import Source
from prosl_lightning.skeleton import SkeletonLayout

REPLAYED_LENGTH = 300  # 2s-AGCN plays every clip again and again up to this length
NUM_LOOKED_AT = 8  # clips, to tell how all were normalised
_REPLAY_TOLERANCE = 1e-4  # metres; far above rounding, far below a sensor's noise
_TINY = 1e-6
_STRAIGHT = 0.01  # of a line's length; float16 rounds a shoulder line of 0.3 m to 0.001 of it


def last_frame(bodies: NDArray[Any]) -> int:
    """Frames of a clip ``(T, B, V, C)`` up to the last that is not all zero; 0 where everything is."""
    present = np.flatnonzero((bodies != 0).reshape(len(bodies), -1).any(axis=1))
    return int(present[-1]) + 1 if len(present) else 0


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
    length = last_frame(bodies)
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
    """Whether the first body's centre is at the origin in every frame.

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


def turned_as(clips: Iterable[NDArray[Any]], layout: SkeletonLayout) -> str:
    """By which recipe clips were turned, told from the lines in the first frame of the first body.

    After ``agcn`` every shoulder line is the x axis, and the spine of whoever faced the camera is near the z axis.
    After ``upright`` every spine is the z axis, and no shoulder line has any y.

    Args:
        clips: Some clips ``(T, B, V, C)``.
        layout: Its ``spine`` and ``shoulders``.

    Returns:
        ``agcn``, ``upright``, or nothing where neither is so.
    """
    lines: list[list[NDArray[Any]]] = []
    for bodies in clips:
        first = bodies[:, 0]
        frames = np.flatnonzero((first != 0).any(axis=(1, 2)))
        if len(frames) and np.isfinite(first[frames[0]]).all():
            lines.append([_line(first[frames[0]], *groups) for groups in (layout.spine, layout.shoulders)])
    if not lines:
        return ""
    spines, shoulders = np.array(lines, dtype=np.float64).transpose(1, 0, 2)
    known = shoulders.any(axis=1) & spines.any(axis=1)  # a line without length tells nothing
    spines, shoulders = spines[known], shoulders[known]
    frontal = (np.abs(shoulders[:, 1]) <= _STRAIGHT) & (shoulders[:, 0] > 0)
    if not known.any() or not frontal.all():
        return ""
    if (np.abs(shoulders[:, 2]) <= _STRAIGHT).all() and (spines[:, 2] > 0.5).mean() > 0.5:
        return "agcn"
    return "upright" if (np.abs(spines[:, :2]) <= _STRAIGHT).all() and (spines[:, 2] > 0).all() else ""


def _line(joints: NDArray[Any], start: Sequence[int], end: Sequence[int]) -> NDArray[np.float64]:
    """Direction from one group of joints ``(V, C)`` to another, of length 1, or 0 where they coincide."""
    line = (joints[list(end)].mean(axis=0) - joints[list(start)].mean(axis=0)).astype(np.float64)
    length = float(np.linalg.norm(line))
    return line / length if length > _TINY else np.zeros(3)


def note_normalized(source: Source, clips: Iterable[NDArray[Any]]) -> None:
    """Say in an opened source whether its coordinates were centred and turned before.

    Clips that are centred only, e.g. relative to the pelvis, are normalised as all others.

    Args:
        source: What was opened.
        clips: Some of its clips ``(T, B, V, C)``.
    """
    sample = list(clips)
    if not is_centered(sample, source.layout):
        return
    source.already = turned_as(sample, source.layout)
    if source.already:
        source.notes.append(f"the coordinates are centred and turned already, as --normalize {source.already} does it")
    else:
        source.notes.append("the coordinates are centred already, but not turned: they are normalised as all others")


def first_clips(source: Source) -> list[NDArray[Any]]:
    """The first clips of an opened source, those that can be used."""
    assert source.read is not None
    return [bodies for item in source.items[:NUM_LOOKED_AT] if (bodies := source.read(item).bodies) is not None]
