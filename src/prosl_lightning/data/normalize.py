"""The 2s-AGCN normalisation of one sequence: choose bodies, close gaps, centre, turn to a common heading; vectorised.

Steps and order are those of 2s-AGCN (Shi et al., CVPR 2019), as HiCo and its successors use them. Which joints are the
centre, the spine and the shoulders comes from the :class:`~prosl_lightning.skeleton.SkeletonLayout`, so the same recipe
serves every body model. An absent body, frame or joint is all zeros and stays so. (The original takes "coordinates sum
to zero" for absence; coarse coordinates do that by chance, so here every coordinate must be zero.)

Nothing is scaled and nothing is cut: sequences of any length keep all their frames, which is what the crops of the
training read. The original's padding to 300 frames by replay is available through ``total_frames``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.skeleton import SkeletonLayout

FloatArray = NDArray[np.floating[Any]]
_TINY = 1e-6
_UNIT = np.eye(3)


def normalize_agcn(
    bodies: FloatArray,
    layout: SkeletonLayout,
    num_bodies: int,
    total_frames: int | None = None,
    upright: bool = False,
) -> NDArray[np.float32]:
    """Normalise one sequence: the most moving bodies, gaps closed, centred in every frame, turned upright and frontal.

    Args:
        bodies: Coordinates ``(T, B, V, C)`` = frame, list position, joint, coordinate, C = 3; absent bodies are zero.
        layout: Names the centre, spine and shoulder joints.
        num_bodies: Bodies to keep, M; where there are fewer the rest is zero.
        total_frames: Continue by replaying each body up to this many frames (the original's 300); default: as given.
        upright: Turn the shoulders about the spine only, see :func:`rotate_bodies`.

    Returns:
        ``(T, M, V, C)`` float32, in the unit of the input, most moving body first. All zero when nobody is there.
    """
    bodies = np.asarray(bodies, dtype=np.float64)
    chosen = fill_gaps(choose_bodies(bodies, num_bodies), total_frames)
    done = np.zeros((len(chosen), num_bodies, *bodies.shape[2:]), dtype=np.float32)
    if chosen.shape[1] > 0:
        done[:, : chosen.shape[1]] = rotate_bodies(center_bodies(chosen, layout), layout, upright)
    return done


def body_scores(bodies: FloatArray) -> NDArray[np.float64]:
    """How much each list position moves: standard deviations of x, y and z over its present frames and joints, summed.

    Args:
        bodies: Coordinates ``(T, B, V, C)``.

    Returns:
        Scores ``(B,)`` in the unit of the input; 0 for a position that is never occupied.
    """
    scores = np.zeros(bodies.shape[1])
    for position, frames in enumerate(_present_frames(bodies)):
        if len(frames) > 0:
            points = bodies[frames, position].reshape(-1, bodies.shape[3]).T.copy()  # (C, points) is faster to reduce
            scores[position] = points.std(axis=1).sum()
    return scores


def choose_bodies(bodies: FloatArray, num_bodies: int) -> FloatArray:
    """Keep the bodies with the highest :func:`body_scores`, highest first, equal ones as they stand.

    Args:
        bodies: Coordinates ``(T, B, V, C)`` by list position; positions are bodies, tracking ids are not used.
        num_bodies: Bodies to keep, M.

    Returns:
        ``(T, M', V, C)``, M' at most M; positions that are never occupied are left out.
    """
    occupied = [position for position, frames in enumerate(_present_frames(bodies)) if len(frames) > 0]
    if len(occupied) > 1:
        scores = body_scores(bodies)
        occupied.sort(key=lambda position: -scores[position])
    return bodies[:, occupied[:num_bodies]]


def fill_gaps(bodies: FloatArray, total_frames: int | None = None) -> FloatArray:
    """Close gaps at the start and at the end of each body's track.

    A body that is absent in frame 0 has all its present frames moved to the front (which closes inner gaps too). The
    absent frames at the end are filled by replaying the body from its start. Other inner gaps stay zero.

    Args:
        bodies: Coordinates ``(T, M, V, C)``.
        total_frames: Length of the result; never less than T.

    Returns:
        ``(T', M, V, C)`` with ``T' = max(T, total_frames)``.
    """
    length = max(len(bodies), total_frames or 0)
    if length == len(bodies) and _all_there(bodies):
        return bodies
    filled = np.zeros((length, *bodies.shape[1:]), dtype=bodies.dtype)
    for number, frames in enumerate(_present_frames(bodies)):
        if len(frames) > 0:
            track = frames if frames[0] > 0 else np.arange(frames[-1] + 1)
            filled[:, number] = bodies[np.resize(track, length), number]
    return filled


def center_bodies(bodies: FloatArray, layout: SkeletonLayout) -> FloatArray:
    """Subtract the first body's centre, frame by frame, from every present joint of every body.

    Args:
        bodies: Coordinates ``(T, M, V, C)``.
        layout: Its ``center`` joints; their mean becomes the origin.

    Returns:
        ``(T, M, V, C)``; the path through the room is gone, the distance between the bodies stays.
    """
    center = _middle(bodies[:, :1], layout.center)[:, :, None]
    centered = bodies - center
    if not _all_there(bodies):
        centered[~_present_joints(bodies)] = 0.0
    return centered


def rotate_bodies(bodies: FloatArray, layout: SkeletonLayout, upright: bool = False) -> FloatArray:
    """Turn the whole sequence: the first body's spine to +z, then its shoulder line to +x, both as in frame 0.

    The second turn takes the shortest way and may tilt the spine again: a little for somebody who faces the camera, up
    to head down for somebody who faces away. For data of people in any direction there is ``upright``.

    Args:
        bodies: Coordinates ``(T, M, V, C)``.
        layout: Its ``spine`` (lower, upper) and ``shoulders`` (left, right) joints; a zero line turns nothing.
        upright: Make the second turn about z, so that the spine stays; the shoulder line then ends above the x axis.

    Returns:
        ``(T, M, V, C)``.
    """
    turn = _UNIT
    for groups, axis in ((layout.spine, 2), (layout.shoulders, 0)):
        start, end = (_middle(bodies[0, 0], group) for group in groups)
        line = turn @ (end - start)
        if upright and axis == 0:
            line[2] = 0.0
        turn = _turn_to_axis(line, axis) @ turn
    return (bodies.reshape(-1, 3) @ turn.T).reshape(bodies.shape)


def _middle(joints: FloatArray, group: Sequence[int]) -> FloatArray:
    """Mean of some joints ``(..., V, C)``: ``(..., C)``."""
    if len(group) == 1:
        return joints[..., group[0], :]
    return joints[..., list(group), :].mean(axis=-2)


def _turn_to_axis(vector: FloatArray, axis: int) -> NDArray[np.float64]:
    """Rotation matrix (3, 3), the shortest way from a vector to a coordinate axis; identity for a zero vector."""
    length = math.sqrt(float(vector @ vector))
    if length < _TINY:
        return _UNIT
    source = vector / length
    cosine = float(source[axis])
    if cosine < -1.0 + _TINY * _TINY:  # opposite: a half turn; for the shoulders about z, so that the spine stays
        return np.diag(np.where(np.arange(3) == (axis + 2) % 3, 1.0, -1.0))
    target = _UNIT[axis]
    both = source + target
    return _UNIT - both[:, None] * both / (1.0 + cosine) + 2.0 * target[:, None] * source


def _all_there(bodies: FloatArray) -> bool:
    """Whether no x is zero: then every joint of every body is there. The usual case, and quick to see."""
    return bool(bodies[..., 0].all())


def _present_joints(bodies: FloatArray) -> NDArray[np.bool_]:
    """Which joints ``(T, B, V)`` are there: not at (0, 0, 0)."""
    there: NDArray[np.bool_] = (bodies[..., 0] != 0) | (bodies[..., 1] != 0) | (bodies[..., 2] != 0)
    return there


def _present_frames(bodies: FloatArray) -> list[NDArray[np.intp]]:
    """For each list position the ascending frames in which somebody is there."""
    if _all_there(bodies):
        return [np.arange(len(bodies))] * bodies.shape[1]
    present = np.asarray(_present_joints(bodies).any(axis=2))
    return [np.flatnonzero(present[:, position]) for position in range(bodies.shape[1])]
