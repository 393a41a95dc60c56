"""A body seen from its front: where its joints are drawn, and each joint in a colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout

Array = NDArray[np.float64]

COLOURS = "Blues"
"""Deeper is more, by lightness alone: for colour-blind eyes and for grey print."""

# A standing body: joint name without its side -> (outward, up); on the middle line outward is 0.
_STANDING = {
    "head_tip": (0.0, 1.77), "head": (0.0, 1.65), "neck": (0.0, 1.5), "nose": (0.0, 1.62), "eye": (0.04, 1.67),
    "ear": (0.08, 1.64), "spine_shoulder": (0.0, 1.4), "shoulder_center": (0.0, 1.4), "chest": (0.0, 1.28),
    "collar": (0.08, 1.4), "spine_mid": (0.0, 1.15), "spine": (0.0, 1.1), "torso": (0.0, 1.15),
    "spine_base": (0.0, 0.92), "hip_center": (0.0, 0.92), "hips": (0.0, 0.92), "waist": (0.0, 0.92),
    "shoulder": (0.2, 1.36), "elbow": (0.32, 1.12), "wrist": (0.42, 0.9), "hand": (0.45, 0.81),
    "hand_tip": (0.49, 0.72), "thumb": (0.36, 0.74), "hip": (0.1, 0.86), "knee": (0.13, 0.48), "ankle": (0.15, 0.1),
    "foot": (0.21, 0.03), "toes": (0.21, 0.03),
}  # fmt: skip


def draw_skeleton(
    axes: Axes, layout: SkeletonLayout, points: Array, values: Array, *, size: float = 140, **style: Any
) -> Any:
    """Draw a body with coloured joints; a larger value is a deeper colour and a larger dot.

    Args:
        axes: Where to draw; its frame is taken away.
        layout: The body model.
        points: Positions across and up, (V, 2).
        values: Of each joint, 0 to 1, (V,).
        size: Area of the largest dot, square points.
        **style: Of the dots.

    Returns:
        The dots, for a colour bar.
    """
    for child, parent in layout.bones:
        x, y = points[[child, parent]].T
        width = 3 * (size / 140) ** 0.5
        axes.plot(x, y, color="0.78", linewidth=width, zorder=1, solid_capstyle="round", clip_on=False)
    order = np.argsort(values, kind="stable")  # the most important on top, where dots overlap
    dots = axes.scatter(
        points[order, 0], points[order, 1], c=values[order], cmap=COLOURS, vmin=0, vmax=1, zorder=2, clip_on=False,
        s=size * (0.35 + 0.65 * values[order]), edgecolors="black", linewidths=0.8 * (size / 140) ** 0.5, **style,
    )  # fmt: skip
    axes.set_aspect("equal")
    axes.margins(0.12, 0.04)
    axes.set_axis_off()
    return dots


def default_pose(layout: SkeletonLayout) -> Array:
    """Positions (V, 2) for drawing a layout without data: a standing body, or the tree of its joints."""
    points = np.zeros((layout.num_joints, 2))
    for joint, name in enumerate(layout.joints):
        side = -1 if name.startswith("left_") else 1
        place = _STANDING.get(_without_side(name))
        if place is None:
            return _tree(layout)
        points[joint] = side * place[0], place[1]
    return points


def can_stand(layout: SkeletonLayout) -> bool:
    """Whether :func:`default_pose` knows all joints by name, so that it is a body and no tree."""
    return all(_without_side(name) in _STANDING for name in layout.joints)


def _without_side(name: str) -> str:
    return name.removeprefix("left_").removeprefix("right_")


def _tree(layout: SkeletonLayout) -> Array:
    """Root below, one level for each step away from it, leaves evenly side by side, parents in the middle of theirs."""
    children: dict[int, list[int]] = {}
    for child, parent in layout.bones:
        children.setdefault(parent, []).append(child)
    points, leaves = np.zeros((layout.num_joints, 2)), 0

    def place(joint: int, depth: int) -> None:
        nonlocal leaves
        ends = children.get(joint, [])
        for child in ends:
            place(child, depth + 1)
        points[joint] = np.mean([points[child, 0] for child in ends]) if ends else leaves, depth
        leaves += not ends

    for joint, parent in enumerate(layout.parents):
        if joint == parent:
            place(joint, 0)
    return points


def seen_from_front(layout: SkeletonLayout, pose: ArrayLike) -> Array:
    """Project a pose on the plane of shoulder line and spine, so that it is upright in any frame of reference, (V, 2).

    Raises:
        UsageError: It is not (V, 3).
    """
    joints = np.asarray(pose, dtype=np.float64)
    if joints.shape != (layout.num_joints, 3):
        raise UsageError(f"pose has shape {joints.shape}; layout '{layout.name}' needs ({layout.num_joints}, 3)")
    low, high = (joints[list(group)].mean(axis=0) for group in layout.spine)
    left, right = (joints[list(group)].mean(axis=0) for group in layout.shoulders)
    up = (high - low) / max(float(np.linalg.norm(high - low)), 1e-9)
    across = right - left - up * ((right - left) @ up)
    across /= max(float(np.linalg.norm(across)), 1e-9)
    return np.stack([joints @ across, joints @ up], axis=1)
