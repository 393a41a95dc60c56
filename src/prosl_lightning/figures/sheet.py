"""A sheet of skeleton strips: for each class a few frames of one sequence, to see what the data show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prosl_lightning.data.inspection import Inspection, Strip
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

Array = NDArray[np.float64]

_ROWS = 15  # strips one below the other before the next column starts
_WIDTH, _HEIGHT, _HEAD = 5.2, 1.35, 0.4  # inches: a strip, and the heading above all
_BODY, _MARGIN = 1.05, 0.06  # inches: the tallest body, and what is left below it
STRIP_SIZE = (_WIDTH, _HEIGHT)
_FRAMES = 6
_DPI = 110
_LEFT, _MIDDLE, _RIGHT = "#0072b2", "#444444", "#d55e00"  # told apart by colour-blind eyes too
_SECOND = 0.45  # how strongly the second body is drawn
_TITLE = 64  # characters


def write_sheet(inspection: Inspection, path: str | Path) -> None:
    """Draw the strips of an inspection into a PNG file.

    Raises:
        DataError: There is nobody to draw, or the file cannot be written.
    """
    if not inspection.strips:
        raise DataError(f"{inspection.path}: nobody is in any sequence, so there is nothing to draw")
    try:
        strip_sheet(inspection).savefig(path, dpi=_DPI, format="png")
    except OSError as error:
        raise DataError(f"{path}: the sheet cannot be written ({error.strerror or error})") from error


def strip_sheet(inspection: Inspection) -> Figure:
    """One strip for each class, in label order, of 180 classes at most, columns filled from top to bottom.

    A strip shows up to six frames from first to last, all in the plane of the first body's spine and shoulder line in
    its first frame (with two bodies: of its spine and the line between the two), so turns and falls are seen. The left
    side of the body is blue, the right one orange, the second body paler.
    """
    strips = inspection.strips
    columns = math.ceil(len(strips) / _ROWS)
    rows = math.ceil(len(strips) / columns)
    width, height = _WIDTH * columns, _HEIGHT * rows + _HEAD
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, width), ylim=(0.0, height))  # in inches: no distortion
    axes.set_axis_off()
    axes.text(0.06, height - 0.1, _heading(inspection), va="top", fontsize=10, weight="bold", parse_math=False)
    labels, numbers = np.unique(inspection.labels, return_counts=True)
    counts = dict(zip(labels.tolist(), numbers.tolist(), strict=True))
    for number, strip in enumerate(strips):
        column, row = divmod(number, rows)
        corner = np.array([column * _WIDTH, (rows - 1 - row) * _HEIGHT])
        draw_strip(axes, inspection.layout, strip, corner, _title(inspection, strip, counts))
    return figure


def _heading(inspection: Inspection) -> str:
    recipe = (inspection.made.get("recipe") or {}).get("normalize", "as recorded")
    sequences, name = counted(len(inspection), "sequence"), inspection.layout.name
    shown = len({strip.label for strip in inspection.strips if strip.label >= 0})
    classes = len(np.unique(inspection.labels[inspection.labels >= 0]))
    part = f", {shown} of {classes} classes" if shown < classes else ""
    return f"{inspection.path.name}: {sequences}, {name}, {recipe}{part}"


def _title(inspection: Inspection, strip: Strip, counts: Mapping[int, int]) -> str:
    if strip.label < 0:
        return strip.name[:_TITLE]
    names = inspection.class_names
    name = names[strip.label] if strip.label < len(names) else f"class {strip.label}"
    return f"{strip.label}  {name[: _TITLE - 16]}  ({counted(counts[strip.label], 'sequence')})"


def draw_strip(axes: Axes, layout: SkeletonLayout, strip: Strip, corner: Array, title: str = "") -> None:
    """Draw the frames of one strip side by side.

    Args:
        axes: Where to draw; its units are inches.
        layout: The body model.
        strip: Frames ``(K, C, V, M)``; absent bodies are zero.
        corner: Lower left corner of the strip, (2,).
        title: Line above.
    """
    points, there = project(layout, strip.frames)
    width, low, high = _extent(points, there)
    cell = _WIDTH / max(len(points), _FRAMES)
    scale = min(cell / width, _BODY / (high - low))
    places = corner + [[(number + 0.5) * cell, _MARGIN - low * scale] for number in range(len(points))]
    if points.shape[1] > 1:  # lines tell which two belong together
        edges = corner[0] + cell * np.arange(1, len(points))
        axes.vlines(edges, corner[1] + _MARGIN, corner[1] + _MARGIN + _BODY, colors="0.85", linewidths=0.6)
    sides = joint_colours(layout)
    bones, colours = np.array(layout.bones), [sides[child] for child, _ in layout.bones]
    for body in range(points.shape[1]):
        shown = (points[:, body] * scale + places[:, None])[there[:, body]]
        lines = list(shown[:, bones].reshape(-1, 2, 2))  # of all frames: from child to parent
        alpha = 1.0 if body == 0 else _SECOND
        collection = LineCollection(lines, colors=colours, linewidths=1.3, alpha=alpha, capstyle="round")
        axes.add_collection(collection, autolim=False)
    axes.text(corner[0] + 0.06, corner[1] + _HEIGHT - 0.04, title, va="top", fontsize=8, parse_math=False)


def project(layout: SkeletonLayout, frames: NDArray[np.float32]) -> tuple[Array, NDArray[np.bool_]]:
    """Look at a strip: points across and up ``(K, M, V, 2)`` with the bodies in the middle, and who is there (K, M)."""
    bodies = np.asarray(frames, dtype=np.float64).transpose(0, 3, 2, 1)  # (K, M, V, C)
    there: NDArray[np.bool_] = np.asarray(bodies.any(axis=(2, 3)))
    across, up = viewing_plane(layout, bodies, there)
    points = np.stack([bodies @ across, bodies @ up], axis=-1)
    for frame, here in zip(points, there, strict=True):
        shown = frame[here].reshape(-1, 2)
        if len(shown):
            frame[..., 0] -= (shown[:, 0].min() + shown[:, 0].max()) / 2
    return points, there


def viewing_plane(layout: SkeletonLayout, bodies: Array, there: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Unit vectors across and up, from the first frame in which the most bodies are there."""
    frame = int(np.argmax(there.sum(axis=1)))
    here = np.flatnonzero(there[frame])
    body = bodies[frame, here[0]]
    low, high = (body[list(group)].mean(axis=0) for group in layout.spine)
    up = _unit(high - low, np.array([0.0, 1.0, 0.0]))
    left, right = (body[list(group)].mean(axis=0) for group in layout.shoulders)
    line = right - left
    if len(here) > 1:
        line = bodies[frame, here[1]].mean(axis=0) - body.mean(axis=0)
    fallback = np.array([1.0, 0.0, 0.0]) if abs(up[0]) < 0.9 else np.array([0.0, 0.0, 1.0])
    across = _unit(line - up * (line @ up), fallback - up * (fallback @ up))
    return across / np.linalg.norm(across), up


def _unit(vector: Array, fallback: Array) -> Array:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-6 else fallback


def _extent(points: Array, there: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Width of a frame, and the lowest and highest point, of those who are there."""
    shown = points[there].reshape(-1, 2)
    low, high = float(shown[:, 1].min()), float(shown[:, 1].max())
    half = float(np.abs(shown[:, 0]).max())
    return max(2.3 * half, 0.5 * (high - low), 1e-6), low, max(high, low + 1e-6)


def joint_colours(layout: SkeletonLayout) -> list[str]:
    """Colour of each joint: of a mirror pair one is left, as its name says, else the one that is declared first."""
    colours = [_MIDDLE] * layout.num_joints
    declared = dict(layout.mirror_pairs or ())
    for joint, other in enumerate(layout.mirror):
        if joint != other:
            letters = zip(layout.joints[joint].lower(), layout.joints[other].lower(), strict=False)
            differs = next((pair for pair in letters if pair[0] != pair[1]), ("", ""))
            left = differs[0] == "l" if set(differs) == {"l", "r"} else joint in declared
            colours[joint] = _LEFT if left else _RIGHT
    return colours
