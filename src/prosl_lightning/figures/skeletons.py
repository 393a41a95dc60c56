"""Figures of a body: which joints carry the meaning of an action."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout

Array = NDArray[np.float64]

_COLOURS = "cividis"  # even steps of lightness, for colour-blind eyes and for grey print
_NAMED = 5

# A standing body: joint name without its side -> (outward, up); on the middle line outward is 0.
_STANDING = {
    "head": (0.0, 1.65), "neck": (0.0, 1.5), "nose": (0.0, 1.62), "eye": (0.04, 1.67), "ear": (0.08, 1.64),
    "spine_shoulder": (0.0, 1.4), "shoulder_center": (0.0, 1.4), "spine_mid": (0.0, 1.15), "spine": (0.0, 1.1),
    "torso": (0.0, 1.15), "spine_base": (0.0, 0.92), "hip_center": (0.0, 0.92), "shoulder": (0.2, 1.36),
    "elbow": (0.32, 1.12), "wrist": (0.42, 0.9), "hand": (0.45, 0.81), "hand_tip": (0.49, 0.72), "thumb": (0.38, 0.76),
    "hip": (0.1, 0.86), "knee": (0.13, 0.48), "ankle": (0.15, 0.1), "foot": (0.21, 0.03),
}  # fmt: skip


def joint_importance_figure(
    layout: SkeletonLayout, importance: ArrayLike, pose: ArrayLike | None = None, title: str = ""
) -> Figure:
    """A skeleton whose joints are coloured by their semantic coefficient; arguments of :func:`draw_joint_importance`.

    Returns:
        A figure of its own.
    """
    figure = Figure(figsize=(5, 6), layout="constrained")
    draw_joint_importance(figure.add_subplot(), layout, importance, pose, title)
    return figure


def draw_joint_importance(
    axes: Axes, layout: SkeletonLayout, importance: ArrayLike, pose: ArrayLike | None = None, title: str = ""
) -> None:
    """Draw a skeleton whose joints are coloured by their semantic coefficient, the five largest named.

    Args:
        axes: Where to draw.
        layout: The body model.
        importance: Semantic coefficient of each joint (Eq. 6), (V,).
        pose: Joint positions (V, 3) to draw, upright and with the body's left side on the left; None draws a standing
            body, or the tree of joints where the layout's joint names are not the usual ones.
        title: Line above the drawing.

    Raises:
        UsageError: `importance` or `pose` has another number of joints than the layout.
    """
    values = np.asarray(importance, dtype=np.float64)
    if values.shape != (layout.num_joints,):
        raise UsageError(f"importance has shape {values.shape}; layout '{layout.name}' needs ({layout.num_joints},)")
    values = values / max(float(values.max()), 1e-12)  # only their proportions mean something
    points = _upright(layout, pose) if pose is not None else default_pose(layout)
    for child, parent in layout.bones:
        x, y = points[[child, parent]].T
        axes.plot(x, y, color="0.75", linewidth=3, zorder=1, solid_capstyle="round", clip_on=False)
    dots = axes.scatter(
        points[:, 0], points[:, 1], c=values, cmap=_COLOURS, vmin=0, vmax=1, s=140, edgecolors="black", linewidths=0.8,
        zorder=2, clip_on=False,
    )  # fmt: skip
    _name_joints(axes, layout, values, points)
    axes.set_aspect("equal")
    axes.margins(0.12, 0.04)
    axes.set_axis_off()
    axes.set_title(title or "Which joints carry the action")
    label = "semantic coefficient, relative to the largest"
    axes.get_figure().colorbar(dots, ax=axes, shrink=0.6, label=label)  # type: ignore[union-attr]


def _name_joints(axes: Axes, layout: SkeletonLayout, values: Array, points: Array) -> None:
    """Write the names of the most important joints beside them, away from the body and from each other."""
    middle, span = points[:, 0].mean(), np.ptp(points[:, 1]) or 1.0
    strongest = sorted(np.argsort(values)[::-1][:_NAMED], key=lambda joint: points[joint, 1])
    lowest = {side: -np.inf for side in (False, True)}
    for joint in strongest:
        right = bool(points[joint, 0] >= middle)
        height = lowest[right] = max(points[joint, 1], lowest[right] + 0.055 * span)
        edge = points[:, 0].max() if right else points[:, 0].min()
        axes.annotate(
            layout.joints[joint].replace("_", " "), points[joint], (edge + (0.06 if right else -0.06) * span, height),
            ha="left" if right else "right", va="center", fontsize=10,
            arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.8},
        )  # fmt: skip


def default_pose(layout: SkeletonLayout) -> Array:
    """Positions (V, 2) for drawing a layout without data: a standing body, or the tree of its joints."""
    points = np.zeros((layout.num_joints, 2))
    for joint, name in enumerate(layout.joints):
        side = -1 if name.startswith("left_") else 1
        place = _STANDING.get(name.removeprefix("left_").removeprefix("right_"))
        if place is None:
            return _tree(layout)
        points[joint] = side * place[0], place[1]
    return points


def _tree(layout: SkeletonLayout) -> Array:
    """Root on top, one level for each step away from it, leaves evenly side by side, parents above their children."""
    children: dict[int, list[int]] = {}
    for child, parent in layout.bones:
        children.setdefault(parent, []).append(child)
    points, leaves = np.zeros((layout.num_joints, 2)), 0

    def place(joint: int, depth: int) -> None:
        nonlocal leaves
        below = children.get(joint, [])
        for child in below:
            place(child, depth + 1)
        points[joint] = np.mean([points[child, 0] for child in below]) if below else leaves, -depth
        leaves += not below

    for joint, parent in enumerate(layout.parents):
        if joint == parent:
            place(joint, 0)
    return points


def _upright(layout: SkeletonLayout, pose: ArrayLike) -> Array:
    """Project a pose on the plane of shoulder line and spine, so that it is upright in any frame of reference."""
    joints = np.asarray(pose, dtype=np.float64)
    if joints.shape != (layout.num_joints, 3):
        raise UsageError(f"pose has shape {joints.shape}; layout '{layout.name}' needs ({layout.num_joints}, 3)")
    low, high = (joints[list(group)].mean(axis=0) for group in layout.spine)
    left, right = (joints[list(group)].mean(axis=0) for group in layout.shoulders)
    up = (high - low) / max(float(np.linalg.norm(high - low)), 1e-9)
    across = right - left - up * ((right - left) @ up)
    across /= max(float(np.linalg.norm(across)), 1e-9)
    return np.stack([joints @ across, joints @ up], axis=1)
