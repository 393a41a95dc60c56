"""What the codebook holds: how large and how pure its clusters are, what they consist of, how they change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from prosl_lightning.errors import UsageError
from prosl_lightning.figures.style import BLUE, GREEN, RED, SKY, class_name, heading, open_frame, remark, shorten

IntArray = NDArray[np.int64]
Curve = tuple[ArrayLike, ArrayLike]

_BESIDE = 2.4  # inches of a figure's width beside the bars: axis, names, colour bar
_WIDE, _NARROW = 0.2, 0.11  # inches: a number of three digits, lying and upright
_CURVES = {
    "churn": ("churn: sequences that changed their cluster", RED, "o"),
    "nmi": ("NMI with the classes", BLUE, "s"),
    "pair_precision": ("pairs of a cluster that are of one class", GREEN, "^"),
}


def composition(assignment: ArrayLike, classes: ArrayLike | None, k: int) -> IntArray:
    """Sequences by cluster and class, (k, K + 1); the last column are those without a known class.

    Args:
        assignment: Cluster of each sequence, (N,), 0 to k - 1.
        classes: Class of each, (N,), -1 where unknown; None where none is known.
        k: Number of clusters.

    Raises:
        UsageError: A label is not a cluster, there is no sequence, or the two differ in length.
    """
    labels = np.asarray(assignment, np.int64)
    known = np.full(len(labels), -1) if classes is None else np.asarray(classes, np.int64)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= k:
        found = "no sample" if labels.size == 0 else f"labels from {labels.min()} to {labels.max()}"
        raise UsageError(f"assignment holds {found}; {k} clusters need labels from 0 to {k - 1}")
    if len(labels) != len(known):
        raise UsageError(f"{len(labels)} sequences have a cluster, {len(known)} a class")
    table = np.zeros((k, max(int(known.max()), -1) + 2), np.int64)
    np.add.at(table, (labels, known), 1)  # -1 is the last column
    return table


def cluster_sizes_figure(assignment: ArrayLike, k: int, title: str = "", classes: ArrayLike | None = None) -> Figure:
    """Sizes of the codebook's clusters, largest first, beside the size they would have if all were equal.

    One dominant cluster, or many empty ones, is the sign of a collapsed codebook.

    Args:
        assignment: Cluster of each sample, (N,) integers from 0 to k - 1.
        k: Number of clusters.
        title: Line above the figure.
        classes: True class of each, (N,), -1 where unknown; the part of a cluster's most frequent class is set off.

    Raises:
        UsageError: A label is not a cluster, or there is no sample.
    """
    table = composition(assignment, classes, k)
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.add_subplot()
    draw_sizes(axes, table)
    _number_clusters(axes, by_size(table))
    axes.set_title(title or _sizes_told(table), fontsize=10, loc="left", parse_math=False)
    return figure


def draw_sizes(axes: Axes, table: IntArray) -> None:
    """Draw a bar for each cluster, largest first, divided into its most frequent class and the rest.

    Args:
        axes: Where to draw.
        table: As :func:`composition` gives it.
    """
    table = table[by_size(table)]
    k, sizes = len(table), table.sum(axis=1)
    place, width = np.arange(1, k + 1), 0.85 if k <= 80 else 1.0
    if table[:, :-1].any():
        most = table[:, :-1].max(axis=1)
        rest = table[:, :-1].sum(axis=1) - most
        axes.bar(place, most, width, color=BLUE, label="its most frequent class")
        axes.bar(place, rest, width, bottom=most, color=SKY, label="other classes")
        if table[:, -1].any():
            axes.bar(place, table[:, -1], width, bottom=most + rest, color="0.8", label="class unknown")
    else:
        axes.bar(place, sizes, width, color=BLUE)
    axes.axhline(sizes.sum() / k, color=RED, linestyle="--", label=f"equal sizes: {sizes.sum() / k:.1f}")
    axes.set_xlim(0.4, k + 0.6)
    axes.set_ylim(0, 1.05 * sizes.max())
    axes.set_xticks([])
    axes.set_ylabel("sequences")
    open_frame(axes)
    axes.legend(frameon=False, loc="upper right", fontsize=9)


def codebook_figure(
    assignment: ArrayLike,
    k: int,
    *,
    classes: ArrayLike | None = None,
    class_names: Sequence[str] = (),
    curves: Mapping[str, Curve] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Sizes and purity of the clusters, what classes they consist of, and how the codebook changed.

    The parts for which nothing is known (classes, curves) are left out.

    Args:
        assignment: Cluster of each sequence, (N,).
        k: Number of clusters.
        classes: True class of each, (N,), -1 where unknown.
        class_names: Names in label order.
        curves: `churn`, `nmi`, `pair_precision` (all 0 to 1): epochs and values.
        title: Above all.
        note: Below all.

    Raises:
        UsageError: A label is not a cluster, or there is no sequence.
    """
    table = composition(assignment, classes, k)
    present = np.flatnonzero(table[:, :-1].any(axis=0))
    known = curves or {}
    drawn = {name: known[name] for name in _CURVES if name in known and np.size(known[name][0])}
    rows = 0.16 * len(present) if len(present) > 12 else 0.26 * len(present)
    heights = [2.6, *([rows + 0.3] if len(present) else []), *([2.3] if drawn else [])]
    figure = Figure(figsize=(11, sum(heights) + 1.1), layout="constrained")
    panels = iter(figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    draw_sizes(axes := next(panels), table)
    axes.set_title(_sizes_told(table), fontsize=10, loc="left")
    if len(present):
        _draw_composition(
            next(panels), table[:, present], [class_name(tuple(class_names), int(each)) for each in present]
        )
    else:
        _number_clusters(axes, by_size(table))
    if drawn:
        _draw_curves(next(panels), drawn)
    heading(figure, title)
    remark(figure, note)
    return figure


def by_size(table: IntArray) -> IntArray:
    """Clusters from the largest to the smallest, of equal ones the lower number first, (k,)."""
    return np.argsort(-table.sum(axis=1), kind="stable")


def _number_clusters(axes: Axes, order: IntArray) -> None:
    """Write the codebook's own numbers below the bars, upright where there are many, some of them where too many."""
    figure = axes.get_figure()
    room = (figure.get_figwidth() - _BESIDE) / len(order)  # type: ignore[union-attr]  # inches
    upright = room < _WIDE
    every = max(1, math.ceil(_NARROW / room)) if upright else 1
    places = np.arange(0, len(order), every)
    axes.set_xticks(places + 1, order[places].astype(str), fontsize=7, rotation=90 if upright else 0)
    some = "" if every == 1 else f"; 1 of {every} is numbered"
    axes.set_xlabel(f"number of the cluster in the codebook, the largest first{some}")


def _sizes_told(table: IntArray) -> str:
    sizes, known = table.sum(axis=1), table[:, :-1].sum()
    told = f"{len(table)} clusters of {sizes.sum():,} sequences, {int((sizes == 0).sum())} empty"
    purity = table[:, :-1].max(axis=1).sum() / known if known else 0.0
    return told + (f"\n{100 * purity:.0f} % are of their cluster's most frequent class" if known else "")


def _draw_composition(axes: Axes, table: IntArray, names: Sequence[str]) -> None:
    """Share of each class in each cluster: clusters by size, classes by the cluster in which they are strongest."""
    ordered = table[by_size(table)]
    sizes = ordered.sum(axis=1, keepdims=True)
    share = np.divide(ordered, sizes, out=np.zeros(ordered.shape), where=sizes > 0).T
    rows = np.argsort(share.argmax(axis=1), kind="stable")
    k, count = len(ordered), len(names)
    image = axes.imshow(
        100 * share[rows], cmap="Blues", vmin=0, vmax=100, aspect="auto", interpolation="nearest",
        extent=(0.5, k + 0.5, count - 0.5, -0.5),
    )  # fmt: skip
    axes.set_yticks(
        range(count), [shorten(names[row], 34) for row in rows], fontsize=8 if count <= 30 else 7, parse_math=False
    )
    axes.set_xlim(0.4, k + 0.6)
    _number_clusters(axes, by_size(table))
    axes.tick_params(axis="y", length=0)
    axes.figure.colorbar(image, ax=axes, pad=0.01, aspect=18, shrink=min(1.0, 12 / count)).set_label(
        "% of the cluster", fontsize=8
    )


def _draw_curves(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for name, (epochs, values) in curves.items():
        told, colour, marker = _CURVES[name]
        many = np.size(epochs) > 40
        axes.plot(epochs, 100 * np.asarray(values, float), color=colour, marker=None if many else marker, label=told)
    axes.set_ylim(0, 104)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epochs trained before the codebook was built")
    axes.set_ylabel("percent")
    open_frame(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
