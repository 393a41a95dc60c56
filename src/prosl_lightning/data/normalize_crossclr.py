"""The CrosSCLR normalisation of one sequence: every body on its own shoulders' middle, 50 frames, turned frontal.

Steps and order are those of CrosSCLR (Li et al., CVPR 2021), whose arrays (``frame50``) AimCLR and HiCLR use too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.normalize import FloatArray
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

NUM_FRAMES = 50
_CENTERS = ("spine_shoulder", "shoulder_center")
_SOFTENING = 1e-4


def normalize_crossclr(bodies: FloatArray, layout: SkeletonLayout, num_bodies: int) -> NDArray[np.float32]:
    """Normalise one sequence: the first bodies as listed, each centred on the middle of its shoulders, resized, turned.

    The length is the number of frames in which joint 0 of the first body is not zero; so many frames from the start are
    resized, whether or not they are the ones that counted, as in the original.

    Args:
        bodies: Coordinates ``(T, B, V, C)`` = frame, list position, joint, coordinate, C = 3; y is up; absent is zero.
        layout: Its joint ``spine_shoulder`` (the original's joint 20) or ``shoulder_center`` becomes the origin, in
            layouts without either the middle of the ``shoulders``; these also give the line that is turned.
        num_bodies: Bodies to keep, M (the original's 2).

    Returns:
        ``(50, M, V, C)`` float32, in the unit of the input.

    Raises:
        DataError: The first body is never there.
    """
    chosen = np.zeros((len(bodies), num_bodies, *bodies.shape[2:]))
    kept = min(num_bodies, bodies.shape[1])
    chosen[:, :kept] = bodies[:, :kept]
    length = int((chosen[:, 0, 0] != 0).any(axis=1).sum())
    if length == 0:
        raise DataError(f"crossclr: joint 0 ({layout.joints[0]}) of the first body is never there")
    centered = chosen - _center(chosen, layout)
    return turn_frontal(resize_frames(centered[:length], NUM_FRAMES), layout).astype(np.float32)


def resize_frames(frames: FloatArray, num_frames: int) -> FloatArray:
    """Resample along the first axis linearly: centres of frames at halves, ends held, as OpenCV resizes images.

    Args:
        frames: ``(T, ...)``.
        num_frames: Length of the result.

    Returns:
        ``(num_frames, ...)``.
    """
    places = np.clip((np.arange(num_frames) + 0.5) * (len(frames) / num_frames) - 0.5, 0, len(frames) - 1)
    before = np.minimum(places.astype(np.int64), max(len(frames) - 2, 0))
    share = (places - before).reshape(-1, *(1,) * (frames.ndim - 1))
    after: FloatArray = frames[np.minimum(before + 1, len(frames) - 1)]
    return (1.0 - share) * frames[before] + share * after


def turn_frontal(bodies: FloatArray, layout: SkeletonLayout) -> FloatArray:
    """Turn every body of every frame about y until its shoulder line has no depth.

    Two quirks of the original are kept. The angle is ``arccos(x / (n + 1e-4))``, n the length of the line in the xz
    plane, so that a trace of depth stays. And its sign is one for the whole sequence of a body, from the sum of z
    over its frames: frames whose z has the other sign are turned the wrong way, to twice their angle.

    Args:
        bodies: Coordinates ``(T, M, V, C)``, y up; absent bodies are zero and stay so.
        layout: Its ``shoulders`` are the line from left to right.

    Returns:
        ``(T, M, V, C)``.
    """
    left, right = (bodies[:, :, list(group)].mean(axis=2) for group in layout.shoulders)
    x, z = (right - left)[..., 0], (right - left)[..., 2]
    angle = np.arccos(x / (np.hypot(x, z) + _SOFTENING)) * np.where(z.sum(axis=0) >= 0, -1.0, 1.0)
    cosine, sine = np.cos(angle)[..., None], np.sin(angle)[..., None]
    turned = np.array(bodies, dtype=np.float64)
    turned[..., 0] = cosine * bodies[..., 0] - sine * bodies[..., 2]
    turned[..., 2] = sine * bodies[..., 0] + cosine * bodies[..., 2]
    return turned


def _center(bodies: FloatArray, layout: SkeletonLayout) -> NDArray[Any]:
    joints = [layout.joints.index(name) for name in _CENTERS if name in layout.joints][:1]
    if joints:
        return bodies[:, :, joints]
    middle = sum(bodies[:, :, list(group)].mean(axis=2, keepdims=True) for group in layout.shoulders)
    return np.asarray(middle) / 2
