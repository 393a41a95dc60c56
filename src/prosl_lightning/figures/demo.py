"""The demo's one figure: features before and after training, what joints matter, and the accuracies."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from torch import Tensor
from torch.nn import functional as F

from prosl_lightning.data.archive import Archive
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.figures.importance import draw_joint_importance
from prosl_lightning.figures.style import class_style


def demo_figure(
    encoders: Sequence[tuple[str, FeatureTables]],
    archive: Archive,
    importance: Tensor,
    accuracies: Sequence[tuple[str, float, float]],
) -> Figure:
    """Four panels: a map of the test features for two encoders, joint importance, and a comparison of accuracies.

    Args:
        encoders: Two pairs of a name and its feature tables.
        archive: The data; its layout and class names label the figure.
        importance: Semantic coefficient of each joint, (V,).
        accuracies: Name, nearest-neighbour and linear accuracy in percent of each encoder.
    """
    figure = Figure(figsize=(13, 10.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1))
    for column, (name, tables) in enumerate(encoders):
        axes = figure.add_subplot(grid[0, column])
        handles = _map(axes, tables.test, tables.test_labels, archive.class_names)
        knn = next(knn for other, knn, _ in accuracies if other == name)
        axes.set_title(f"Test features, {name} encoder: 1-NN {knn:.1f} %")
    legend = figure.legend(handles=handles, loc="outside right upper", fontsize=9, title="action", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    draw_joint_importance(figure.add_subplot(grid[1, 0]), archive.layout, importance.cpu().numpy())
    _bars(figure.add_subplot(grid[1, 1]), accuracies, 100 / len(archive.class_names))
    return figure


def _map(axes: Axes, features: Tensor, labels: Tensor, names: Sequence[str]) -> list[matplotlib.artist.Artist]:
    """t-SNE by cosine of the features, one colour and marker per class."""
    points = TSNE(perplexity=min(30, len(features) / 4), init="pca", random_state=0).fit_transform(
        F.normalize(features, dim=1).cpu().numpy()
    )
    handles: list[matplotlib.artist.Artist] = []
    for label, name in enumerate(names):
        chosen = points[labels.cpu().numpy() == label]
        colour, marker = class_style(label)
        handles.append(
            axes.scatter(
                chosen[:, 0], chosen[:, 1], s=22, color=colour, marker=marker, alpha=0.75, linewidths=0, label=name
            )
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("t-SNE 1")
    axes.set_ylabel("t-SNE 2")
    return handles


def _bars(axes: Axes, accuracies: Sequence[tuple[str, float, float]], chance: float) -> None:
    place = np.arange(len(accuracies))
    for shift, measure, colour in ((-0.2, 1, "#0072B2"), (0.2, 2, "#E69F00")):
        values = [float(row[measure]) for row in accuracies]
        bars = axes.bar(place + shift, values, 0.38, color=colour, label=("1-NN", "linear")[measure - 1])
        axes.bar_label(bars, fmt="%.1f", fontsize=9, padding=2)
    axes.axhline(chance, color="0.4", linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(place, [row[0] for row in accuracies])
    axes.set_ylim(0, 105)
    axes.set_ylabel("accuracy on unseen performers (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", ncols=3)
    axes.set_title("Accuracy")
