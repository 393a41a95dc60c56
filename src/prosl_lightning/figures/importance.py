"""Figure 6: semantic coefficients as the colours of the joints, of a data set, of clusters, classes or sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from prosl_lightning.errors import UsageError
from prosl_lightning.figures.skeletons import Array, default_pose, draw_skeleton, seen_from_front
from prosl_lightning.figures.style import heading, remark
from prosl_lightning.skeleton import SkeletonLayout

_NAMED = 5
_NAMED_SMALL = 3
_LABEL = "semantic coefficient, relative to the body's largest"


class Body(NamedTuple):
    """One body of a figure of many.

    Attributes:
        title: Above it.
        importance: Semantic coefficient of each joint (Eq. 6), (V,).
        pose: Joint positions (V, 3); None draws a standing body.
    """

    title: str
    importance: ArrayLike
    pose: ArrayLike | None = None


def joint_importance_figure(
    layout: SkeletonLayout, importance: ArrayLike, pose: ArrayLike | None = None, title: str = "", note: str = ""
) -> Figure:
    """A skeleton whose joints are coloured by their semantic coefficient; arguments of :func:`draw_joint_importance`.

    Args:
        layout: The body model.
        importance: Semantic coefficient of each joint (Eq. 6), (V,).
        pose: Joint positions (V, 3) to draw; None draws a standing body.
        title: Line above the drawing.
        note: Line below it.
    """
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    draw_joint_importance(figure.add_subplot(), layout, importance, pose, "\n".join(wrap(title, 60)))
    remark(figure, note)
    return figure


def importance_grid_figure(
    layout: SkeletonLayout, bodies: Sequence[Body], title: str = "", note: str = "", columns: int = 6
) -> Figure:
    """Many bodies side by side, each with colours relative to its own largest coefficient, its three largest named.

    Args:
        layout: The body model.
        bodies: What to draw.
        title: Above all.
        note: Below all.
        columns: Most bodies in a row.

    Raises:
        UsageError: There is no body.
    """
    if not bodies:
        raise UsageError("there is no body to draw")
    lines = math.ceil(len(bodies) / columns)
    columns = math.ceil(len(bodies) / lines)  # rows of about equal length
    figure = Figure(figsize=(max(2.15 * columns + 0.9, 4.5), 3.1 * lines + 0.7), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    places = [_points(layout, body.pose) for body in bodies]
    half = 0.54 * np.max([np.ptp(points, axis=0) for points in places], axis=0)  # one scale for all
    dots: Any = None
    for axes, body, points in zip(grid.flat, bodies, places, strict=False):
        values = _relative(layout, body.importance)
        dots = draw_skeleton(axes, layout, points, values, size=62)
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
        axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
        axes.set_title(body.title, fontsize=8.5, parse_math=False)
        named = [layout.joints[joint].replace("_", " ") for joint in np.argsort(values)[::-1][:_NAMED_SMALL]]
        axes.text(
            0.5, -0.02, "\n".join(named), transform=axes.transAxes, ha="center", va="top", fontsize=7.5, color="0.3",
            parse_math=False,
        )  # fmt: skip
    for axes in grid.flat[len(bodies) :]:
        axes.set_axis_off()
    figure.colorbar(dots, ax=grid, shrink=min(1.0, 1.1 / lines), aspect=30, pad=0.02).set_label(_LABEL, fontsize=8)
    heading(figure, title, 11)
    remark(figure, note)
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
    values, points = _relative(layout, importance), _points(layout, pose)
    dots = draw_skeleton(axes, layout, points, values)
    _name_joints(axes, layout, values, points)
    axes.set_title(title or "Which joints carry the action", fontsize=11, parse_math=False)
    bar = axes.get_figure().colorbar(dots, ax=axes, shrink=0.75)  # type: ignore[union-attr]
    bar.set_label(_LABEL, fontsize=9)


def _relative(layout: SkeletonLayout, importance: ArrayLike) -> Array:
    """Coefficients relative to the largest: only their proportions mean something."""
    values = np.asarray(importance, dtype=np.float64)
    if values.shape != (layout.num_joints,):
        raise UsageError(f"importance has shape {values.shape}; layout '{layout.name}' needs ({layout.num_joints},)")
    return np.clip(values / max(float(values.max()), 1e-12), 0, 1)


def _points(layout: SkeletonLayout, pose: ArrayLike | None) -> Array:
    return default_pose(layout) if pose is None else seen_from_front(layout, pose)


def _name_joints(axes: Axes, layout: SkeletonLayout, values: Array, points: Array) -> None:
    """Write the names of the most important joints beside them, away from the body and from each other."""
    middle, span = points[:, 0].mean(), np.ptp(points[:, 1]) or 1.0
    strongest = sorted(np.argsort(values)[::-1][:_NAMED], key=lambda joint: points[joint, 1])
    axes.set_xlim(points[:, 0].min() - 0.36 * span, points[:, 0].max() + 0.36 * span)  # room for the names
    lowest = {side: -np.inf for side in (False, True)}
    for joint in strongest:
        right = bool(points[joint, 0] >= middle)
        height = lowest[right] = max(points[joint, 1], lowest[right] + 0.055 * span)
        edge = points[:, 0].max() if right else points[:, 0].min()
        axes.annotate(
            layout.joints[joint].replace("_", " "), points[joint], (edge + (0.06 if right else -0.06) * span, height),
            ha="left" if right else "right", va="center", fontsize=10, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.8},
        )  # fmt: skip
