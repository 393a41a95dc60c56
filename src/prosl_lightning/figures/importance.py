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
_CLEAR = 0.03  # of the body's height: how far the line to a name keeps from other joints
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
    figure.colorbar(dots, ax=grid, shrink=min(1.0, 1.1 / lines), aspect=30, pad=0.02 + 0.06 / columns).set_label(
        _LABEL, fontsize=8
    )
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
    largest = float(values.max())  # of a nearly collapsed encoder as small as 1e-13, and yet a proportion
    return np.clip(values / (largest if largest > 0 else 1.0), 0, 1)


def _points(layout: SkeletonLayout, pose: ArrayLike | None) -> Array:
    return default_pose(layout) if pose is None else seen_from_front(layout, pose)


def _name_joints(axes: Axes, layout: SkeletonLayout, values: Array, points: Array) -> None:
    """Write the names of the most important joints beside the body, with lines that keep off other joints."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = float(high[1] - low[1]) or 1.0
    axes.set_xlim(low[0] - 0.36 * span, high[0] + 0.36 * span)  # room for the names
    lines: list[tuple[Array, Array]] = []
    for joint in sorted(np.argsort(values)[::-1][:_NAMED], key=lambda joint: points[joint, 1]):
        end = _free_place(points, int(joint), lines, span)
        lines.append((points[joint], end))
        axes.annotate(
            layout.joints[joint].replace("_", " "), tuple(points[joint]), tuple(end),
            ha="left" if end[0] > high[0] else "right", va="center", fontsize=10, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.8},
        )  # fmt: skip


def _free_place(points: Array, joint: int, lines: Sequence[tuple[Array, Array]], span: float) -> Array:
    """Where a joint's name stands, (2,): near, off earlier names, its line touching few joints and earlier lines."""
    start, low, high = points[joint], points.min(axis=0), points.max(axis=0)
    others = np.delete(points, joint, axis=0)
    best, found = (math.inf, math.inf), start
    for side, edge in enumerate((low[0] - 0.06 * span, high[0] + 0.06 * span)):
        away = 0.3 * span * (side != (start[0] >= points[:, 0].mean()))  # rather on its own side
        for height in start[1] + 0.0275 * span * np.arange(-40, 41):
            end = np.array([edge, height])
            taken = any(other[0] == edge and abs(other[1] - height) < 0.0549 * span for _, other in lines)
            if taken or not low[1] - 0.01 * span <= height <= high[1] + 0.01 * span:
                continue
            touched = int(np.sum(_distances(others, start, end) < _CLEAR * span))
            touched += sum(_cross(start, end, *line) for line in lines)
            if (cost := (float(touched), abs(height - start[1]) + away)) < best:
                best, found = cost, end
    return found


def _distances(points: Array, start: Array, end: Array) -> Array:
    """Distance of points (n, 2) from the line between two points, (n,)."""
    along = end - start
    share = np.clip((points - start) @ along / max(float(along @ along), 1e-12), 0, 1)
    return np.asarray(np.linalg.norm(points - start - share[:, None] * along, axis=1), np.float64)


def _cross(start: Array, end: Array, other: Array, last: Array) -> bool:
    def turn(a: Array, b: Array, c: Array) -> float:
        return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    return (
        turn(start, end, other) * turn(start, end, last) < 0 and turn(other, last, start) * turn(other, last, end) < 0
    )
