"""NTU RGB+D text to padded arrays the way public code does it: line by line, Python loops over frames and joints.

Written for comparison from the published description of the 2s-AGCN preparation: every value of a joint goes into a
dictionary, sequences are padded to 300 frames by replay, and one protocol is made at a time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

FRAMES, JOINTS, BODIES, TRACKED = 300, 25, 2, 4
_BODY = (
    "id",
    "clipped",
    "left hand",
    "left sure",
    "right hand",
    "right sure",
    "restricted",
    "lean x",
    "lean y",
    "state",
)
_JOINT = ("x", "y", "z", "depth x", "depth y", "colour x", "colour y", "qw", "qx", "qy", "qz", "state")
_CENTER, _SPINE, _SHOULDERS = 1, (0, 1), (4, 8)


def read_records(path: str | Path) -> list[list[list[dict[str, float]]]]:
    """Frames of bodies of joints, each joint a dictionary of its twelve numbers."""
    frames = []
    with open(path) as file:
        for _ in range(int(file.readline())):
            bodies = []
            for _ in range(int(file.readline())):
                dict(zip(_BODY, map(float, file.readline().split()), strict=True))
                joints = range(int(file.readline()))
                bodies.append([dict(zip(_JOINT, map(float, file.readline().split()), strict=True)) for _ in joints])
            frames.append(bodies)
    return frames


def read_padded(path: str | Path) -> np.ndarray:
    """The two bodies that move most, as ``(M, 300, V, C)`` float32; what is missing is zero."""
    frames = read_records(path)
    data = np.zeros((TRACKED, len(frames), JOINTS, 3))
    for t, bodies in enumerate(frames):
        for m, joints in enumerate(bodies):
            for v, joint in enumerate(joints):
                if m < TRACKED and v < JOINTS:
                    data[m, t, v] = [joint["x"], joint["y"], joint["z"]]
    scores = np.array([_spread(body) for body in data])
    chosen = scores.argsort(kind="stable")[::-1][:BODIES] if len(frames) else []
    padded = np.zeros((BODIES, FRAMES, JOINTS, 3), np.float32)
    padded[:, : len(frames)] = data[chosen][:, :FRAMES]
    return padded


def _spread(body: np.ndarray) -> float:
    present = body[body.sum(axis=(1, 2)) != 0]
    return float(sum(present[:, :, axis].std() for axis in range(3))) if len(present) else 0.0


def normalize(data: np.ndarray) -> np.ndarray:
    """Replay to 300 frames, centre, spine to z, shoulders to x; one joint at a time. ``(M, 300, V, C)``, in place."""
    _replay(data)
    _center(data)
    for (start, end), axis in ((_SPINE, (0.0, 0.0, 1.0)), (_SHOULDERS, (1.0, 0.0, 0.0))):
        line = data[0, 0, end] - data[0, 0, start]
        _rotate(data, _rotation(np.cross(line, axis), _angle(line, np.array(axis))))
    return data


def _replay(data: np.ndarray) -> None:
    for m, body in enumerate(data):
        if body.sum() == 0:
            continue
        if body[0].sum() == 0:
            there = [frame.copy() for frame in body if frame.sum() != 0]
            body[:] = 0
            body[: len(there)] = there
        for t, frame in enumerate(body):
            if frame.sum() == 0 and body[t:].sum() == 0:
                repeats = math.ceil((len(body) - t) / t)
                data[m, t:] = np.concatenate([body[:t]] * repeats)[: len(body) - t]
                break


def _center(data: np.ndarray) -> None:
    center = data[0][:, _CENTER : _CENTER + 1].copy()
    for m, body in enumerate(data):
        if body.sum() != 0:
            mask = (body.sum(axis=-1) != 0).reshape(FRAMES, JOINTS, 1)
            data[m] = (body - center) * mask


def _rotate(data: np.ndarray, matrix: np.ndarray) -> None:
    for m, body in enumerate(data):
        if body.sum() == 0:
            continue
        for t, frame in enumerate(body):
            if frame.sum() == 0:
                continue
            for v, joint in enumerate(frame):
                data[m, t, v] = np.dot(matrix, joint)


def _angle(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.arccos(np.clip(np.dot(first, second) / lengths, -1.0, 1.0))) if lengths > 1e-6 else 0.0


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation matrix about an axis (Rodrigues)."""
    length = np.linalg.norm(axis)
    if length < 1e-6 or abs(angle) < 1e-6:
        return np.eye(3)
    x, y, z = axis / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def prepare(paths: list[Path]) -> np.ndarray:
    """Read and normalise files into one array ``(N, C, 300, V, M)`` float32, as a loader of such arrays expects it."""
    out: Any = np.zeros((len(paths), 3, FRAMES, JOINTS, BODIES), np.float32)
    for i, path in enumerate(paths):
        out[i] = normalize(read_padded(path)).transpose(3, 1, 2, 0)
    return out
