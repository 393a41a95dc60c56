"""Picture of a confusion matrix, legible from two classes to more than a hundred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_NUMBERS_UP_TO = 30
_LONGEST_NAME = 56


def confusion_figure(confusion: NDArray[np.int64], class_names: Sequence[str], title: str) -> Figure:
    """Rows are true, columns predicted classes; colour is the share of the true class, numbers are sequences.

    The row of a class that the test set lacks says so.

    Args:
        confusion: Sequences by true and predicted class, (K, K).
        class_names: The K names.
        title: Above the picture.
    """
    count = len(class_names)
    few = count <= _NUMBERS_UP_TO
    cell, size = (0.36, 8.0) if few else (0.17, 7.0)
    names = [name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in class_names]
    total = confusion.sum(axis=1, keepdims=True)
    rows = [name if tested else f"{name} (not tested)" for name, tested in zip(names, total[:, 0], strict=True)]
    margin = 0.6 + 0.0085 * size * max(map(len, rows))  # inches that the longest name needs
    side = max(count * cell, 2.0)
    width, height = side + margin + 1.0, side + margin + 0.8
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    share = np.divide(confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(count), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(count), rows, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted", fontsize=size + 2)
    axes.set_ylabel("true", fontsize=size + 2)
    axes.set_title(title, fontsize=size + 3, parse_math=False)
    axes.tick_params(length=0)
    # Grid lines lead the eye from a cell to its names.
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.88", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    for row, column in zip(*np.nonzero(confusion), strict=True):
        light = share[row, column] > 0.6
        axes.text(
            column, row, str(confusion[row, column]), ha="center", va="center", fontsize=size - 1 if few else 4.5,
            color="white" if light else "0.2",
        )  # fmt: skip
    bar = figure.add_axes(((margin + side + 0.15) / width, margin / height, 0.15 / width, side / height))
    figure.colorbar(image, cax=bar).set_label("percent of the true class", fontsize=size)
    bar.tick_params(labelsize=size)
    return figure
