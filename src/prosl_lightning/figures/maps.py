"""Figure 5: maps of the features by t-SNE or UMAP, with the Davies-Bouldin index of the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from textwrap import wrap
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.manifold import TSNE
from torch import Tensor

from prosl_lightning.errors import MissingExtraError, UsageError
from prosl_lightning.evaluation.clusters import separation
from prosl_lightning.figures.style import GREY, class_name, class_style, remark, shorten

Method = Literal["tsne", "umap"]
_TITLES = {"tsne": "t-SNE", "umap": "UMAP"}
_SMALLEST, _ALONE, _LARGEST = 2.7, 3.4, 4.6  # inches: side of a panel, of one in a row


class FeatureMap(NamedTuple):
    """A map of features.

    Attributes:
        title: Which encoder or epoch it is.
        points: One point a sequence, (N, 2).
        davies_bouldin: Index of the classes among the features themselves, not on the map; NaN without classes.
    """

    title: str
    points: NDArray[np.float64]
    davies_bouldin: float


def feature_map(
    features: Tensor, labels: ArrayLike, title: str = "", *, method: Method = "tsne", seed: int = 0
) -> FeatureMap:
    """Lay features out in the plane by their cosines.

    Args:
        features: (N, D), of any length.
        labels: Class of each, (N,), -1 where unknown; they enter the Davies-Bouldin index only.
        title: Of the panel.
        method: `tsne`, or `umap` where it is installed.
        seed: Of the layout.

    Raises:
        MissingExtraError: UMAP is not installed.
        UsageError: There are fewer than four features.
    """
    if len(features) < 4:
        raise UsageError(f"a map needs at least 4 sequences, found {len(features)}")
    unit = F.normalize(features.detach().float(), dim=1).cpu()
    classes = torch.as_tensor(np.asarray(labels, np.int64))
    index = separation(unit[classes >= 0], classes[classes >= 0])[0] if bool((classes >= 0).any()) else math.nan
    return FeatureMap(title, _layout(unit.numpy(), method, seed), index)


def check_method(method: Method) -> None:
    """Refuse a method that cannot be used, before any work.

    Raises:
        MissingExtraError: UMAP is not installed.
        UsageError: It is unknown.
    """
    if method not in _TITLES:
        raise UsageError(f"method is '{method}'; it must be {' or '.join(_TITLES)}")
    if method == "umap" and find_spec("umap") is None:
        raise MissingExtraError("umap-learn", "umap")


def _layout(unit: NDArray[np.float32], method: Method, seed: int) -> NDArray[np.float64]:
    check_method(method)
    if method == "umap":
        from umap import UMAP  # type: ignore[import-not-found]

        points = UMAP(n_neighbors=min(15, len(unit) - 1), metric="cosine", random_state=seed, n_jobs=1).fit_transform(
            unit
        )
    else:
        points = TSNE(perplexity=min(30, (len(unit) - 1) / 3), init="pca", random_state=seed).fit_transform(unit)
    return np.asarray(points, np.float64)


def map_figure(
    rows: Sequence[tuple[str, Sequence[FeatureMap]]],
    labels: ArrayLike,
    class_names: Sequence[str] = (),
    *,
    method: Method = "tsne",
    note: str = "",
) -> Figure:
    """Maps side by side, one row for each method, each sequence with the same colour and marker in all of them.

    Args:
        rows: Name of a row and its maps, all of the same sequences.
        labels: Class of each sequence, (N,), -1 where unknown (grey).
        class_names: Names in label order.
        method: What made the maps.
        note: Line below, e.g. :attr:`~prosl_lightning.figures.samples.Part.note`.
    """
    classes = np.asarray(labels, np.int64)
    columns, names = max(len(maps) for _, maps in rows), [_name(class_names, label) for label in np.unique(classes)]
    legend_width, legend_height = 0.068 * max(map(len, names)) + 0.6, 0.18 * len(names)
    smallest = _SMALLEST if columns > 1 else _ALONE
    side = float(np.clip(legend_height / len(rows) - 0.45, smallest, _LARGEST if columns < 3 else smallest))
    told = ["\n".join(wrap(name, int(side / 0.09))) for name, _ in rows]
    label_width = 0.19 * max(len(each.split("\n")) for each in told)
    height = max(len(rows) * (side + 0.45), legend_height) + 0.6 + 0.16 * (columns < 3)
    figure = Figure(figsize=(columns * side + 0.3 + label_width + legend_width, height), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (_, maps), name in zip(grid, rows, told, strict=True):
        line[0].set_ylabel(name, fontsize=10, parse_math=False)
        for axes, each in zip(line, maps, strict=False):
            draw_map(axes, each, classes, class_names)
        for axes in line[len(maps) :]:
            axes.set_visible(False)
    handles, _ = grid[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False, markerscale=1.4)
    for text in legend.get_texts():
        text.set_parse_math(False)
    indexed = "DBI: Davies-Bouldin index of the drawn classes among the unit features (lower is better)"
    notes = [f"{_TITLES[method]} of the features by cosine; axes have no unit", note]
    notes += [indexed] if any(not math.isnan(each.davies_bouldin) for _, maps in rows for each in maps) else []
    wide = columns * side > 9
    remark(figure, ("; " if wide else "\n").join(filter(None, notes)))
    return figure


def draw_map(axes: Axes, shown: FeatureMap, labels: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Draw one map, classes in label order, the unlabelled grey below all others."""
    size = float(np.clip(6000 / len(labels), 5, 22))
    for place, label in enumerate(np.unique(labels[labels >= 0])):
        colour, marker = class_style(place)
        _dots(axes, shown.points[labels == label], _name(class_names, label), size, color=colour, marker=marker)
    if (labels < 0).any():
        _dots(axes, shown.points[labels < 0], class_name((), -1), size, color=GREY, zorder=0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_box_aspect(1)
    # A square of the same margin on both axes keeps distances comparable in both directions.
    low, high = shown.points.min(axis=0), shown.points.max(axis=0)
    middle, half = (low + high) / 2, 0.53 * max(float((high - low).max()), 1e-9)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    index = "" if math.isnan(shown.davies_bouldin) else f"DBI {shown.davies_bouldin:.2f}"
    axes.set_title("\n".join(filter(None, [shown.title, index])), fontsize=10, parse_math=False)


def _dots(axes: Axes, points: NDArray[np.float64], name: str, size: float, **style: Any) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=size, alpha=0.75, linewidths=0, label=name, **style)


def _name(class_names: Sequence[str], label: int) -> str:
    return shorten(class_name(tuple(class_names), int(label)), 32)
