"""Writes synthetic sequences as raw NTU `.skeleton` text, to try the way from raw files without the data set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.synthetic.generator import SyntheticClip, generate
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

_FIRST_ID = 72057594037927936  # 2**56: tracker ids need 64 bits
_LEAVES = (3, 15, 19, 21, 22, 23, 24)
_BODY = "%d 0 1 1 1 1 0 %.7g %.7g 2\n25\n" + ("%.7g " * 11 + "%d\n") * 25


def write_skeleton_files(folder: str | Path, *, num_samples: int, seed: int = 0, crlf: bool = False) -> list[Path]:
    """Write sequences as ``<name>.skeleton`` files, as NTU RGB+D publishes its own.

    A file holds what :func:`generate` yields for the same `num_samples` and `seed`: coordinates to seven digits, image
    positions, bone orientations, tracking states. An absent person is left out of its frame and returns with a new id.

    Args:
        folder: Where the files go; made if missing. Files of the same names are replaced.
        num_samples: How many sequences.
        seed: Of the generator.
        crlf: Whether lines end in CR LF; both occur in the data set.

    Returns:
        The files, in the order of :func:`generate`.

    Raises:
        DataError: The folder cannot be written.
        UsageError: `num_samples` or `seed` is negative.
    """
    folder = Path(folder)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for clip in generate(num_samples, seed=seed):
            path = folder / f"{clip.name}.skeleton"
            partial = path.with_suffix(".partial")
            partial.write_bytes(skeleton_text(clip, crlf=crlf).encode("ascii"))
            os.replace(partial, path)
            paths.append(path)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror or error}; choose another folder") from error
    return paths


def skeleton_text(clip: SyntheticClip, *, crlf: bool = False) -> str:
    """One sequence as the text of a `.skeleton` file."""
    rows = _columns(clip).transpose(0, 2, 1, 3).reshape(*clip.present.shape, -1)
    found_again = np.cumsum(np.diff(clip.present.astype(np.int8), axis=0, prepend=0) > 0, axis=0)
    number = (clip.setup * 1000 + clip.subject) * 1000 + clip.label * 10 + clip.camera
    ids = _FIRST_ID + number * 100 + np.arange(clip.present.shape[1]) * 50 + found_again
    lean = clip.joints[:, 20] - clip.joints[:, 0]
    parts = [f"{len(rows)}\n"]
    for frame, here in enumerate(clip.present):
        parts.append(f"{int(here.sum())}\n")
        for body in np.flatnonzero(here):
            head = (int(ids[frame, body]), float(lean[frame, body, 0]), -float(lean[frame, body, 2]))
            parts.append(_BODY % (*head, *rows[frame, body].tolist()))
    text = "".join(parts)
    return text.replace("\n", "\r\n") if crlf else text


def _columns(clip: SyntheticClip) -> NDArray[np.float64]:
    """The 12 numbers of each joint ``(T, V, M, 12)``: place, depth and colour pixel, orientation, tracking state."""
    joints = clip.joints.astype(np.float64)
    x, y, z = np.moveaxis(joints, -1, 0)
    depth = np.maximum(z, 0.1)
    columns = np.zeros((*joints.shape[:3], 12))
    columns[..., :3] = joints
    columns[..., 3], columns[..., 4] = 257.0 + 366.0 * x / depth, 207.0 - 366.0 * y / depth
    columns[..., 5], columns[..., 6] = 962.0 + (1055.0 * x + 42.0) / depth, 540.0 - 1055.0 * y / depth
    bone = joints - joints[:, list(SkeletonLayout.of("kinect-v2").parents)]
    way = bone / np.maximum(np.linalg.norm(bone, axis=-1, keepdims=True), 1e-6)
    half = np.sqrt(np.maximum(2.0 + 2.0 * way[..., 1], 1e-6))  # the shortest turn from up to the bone's direction
    turn = np.stack([half / 2.0, way[..., 2] / half, np.zeros_like(half), -way[..., 0] / half], axis=-1)
    turn[:, _LEAVES] = 0.0  # the sensor gives the ends of the limbs no orientation
    columns[..., 7:11], columns[..., 11] = turn, clip.tracking
    return columns
