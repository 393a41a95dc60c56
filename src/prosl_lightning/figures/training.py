"""Figures of a training run: what the codebook looks like."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from prosl_lightning.errors import UsageError


def cluster_sizes_figure(assignment: ArrayLike, k: int, title: str = "") -> Figure:
    """Sizes of the codebook's clusters, largest first, beside the size they would have if all were equal.

    One dominant cluster, or many empty ones, is the sign of a collapsed codebook.

    Args:
        assignment: Cluster of each sample, (N,) integers from 0 to k - 1.
        k: Number of clusters.
        title: Line above the figure.

    Raises:
        UsageError: A label is not a cluster, or there is no sample.
    """
    labels = np.asarray(assignment, dtype=np.int64)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= k:
        found = "no sample" if labels.size == 0 else f"labels from {labels.min()} to {labels.max()}"
        raise UsageError(f"assignment holds {found}; {k} clusters need labels from 0 to {k - 1}")
    sizes = np.sort(np.bincount(labels, minlength=k))[::-1]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(np.arange(1, k + 1), sizes, width=0.9 if k <= 40 else 1.0, color="#0072B2")
    axes.axhline(labels.size / k, color="#D55E00", linestyle="--", label=f"equal sizes: {labels.size / k:.0f}")
    axes.set_xlim(0.4, k + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="cluster, by size", ylabel="sequences")
    axes.set_title(title or f"{k} clusters of {labels.size} sequences, {int((sizes == 0).sum())} empty")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
