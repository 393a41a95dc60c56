"""What a centroid stands for: the sequences nearest to it, as strips of skeletons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.inspection import Strip
from prosl_lightning.errors import UsageError
from prosl_lightning.figures.samples import IntArray, embedded
from prosl_lightning.figures.sheet import STRIP_SIZE, draw_strip
from prosl_lightning.figures.style import class_name, remark, shorten
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

_FRAMES = 6
_BODIES = 2
_COLUMNS = 4
_HEAD, _FOOT = 0.5, 0.3  # inches above and below all
_GAP = 0.25  # inches between two strips
_LINE = 0.3  # inches: the title of a cluster
_MEMBERS = 2000
"""Most sequences of a cluster that are compared with its centroid; of a larger one these are drawn at random."""


class Neighbour(NamedTuple):
    """A sequence near a centroid.

    Attributes:
        name: The sequence.
        label: Its class, -1 where unknown.
        cosine: Of its key feature with the centroid.
        frames: Its frames (T, C, V, M).
    """

    name: str
    label: int
    cosine: float
    frames: NDArray[np.floating]


class Cluster(NamedTuple):
    """A cluster and what lies nearest to its centroid.

    Attributes:
        number: In the codebook.
        size: Sequences in it.
        nearest: The nearest first.
    """

    number: int
    size: int
    nearest: Sequence[Neighbour]


def nearest_to_centroids(
    module: ProSLModule, archive: Archive, rows: IntArray, clusters: Sequence[int], count: int = 3, seed: int = 0
) -> list[Cluster]:
    """The members of some clusters that are nearest to the centroid by cosine.

    Args:
        module: A trained module with a codebook.
        archive: Its data.
        rows: Archive rows of its training set, in order: those that the codebook's assignment speaks of.
        clusters: Numbers of the clusters.
        count: Sequences of each.
        seed: Of the draw from clusters of more than 2,000 sequences.

    Raises:
        UsageError: A cluster does not exist or is empty.
    """
    assignment, centroids = module.codebook.assignment.cpu().numpy(), module.codebook.centroids.float().cpu()
    found = []
    for cluster in clusters:
        if not 0 <= cluster < len(centroids):
            raise UsageError(f"there is no cluster {cluster}; the codebook has 0 to {len(centroids) - 1}")
        members = rows[assignment == cluster]
        if not len(members):
            raise UsageError(f"cluster {cluster} is empty")
        some = np.sort(np.random.default_rng(seed).permutation(members)[:_MEMBERS])
        features = embedded(module, archive, some, lambda batch: module.key_features(module.prepare(batch)))
        cosines, order = torch.sort(features @ centroids[cluster], descending=True, stable=True)
        nearest = [
            Neighbour(str(archive.names[row]), int(archive.labels[row]), float(cosine), archive.clip(row))
            for row, cosine in zip(some[order[:count].numpy()].tolist(), cosines.tolist(), strict=False)
        ]
        found.append(Cluster(int(cluster), len(members), nearest))
    return found


def nearest_figure(
    layout: SkeletonLayout,
    clusters: Sequence[Cluster],
    class_names: Sequence[str] = (),
    *,
    title: str = "",
    note: str = "",
) -> Figure:
    """For each cluster the sequences nearest to its centroid, four in a row, up to six frames of each, first to last.

    The left side of the body is blue, the right one orange, the second body paler.

    Args:
        layout: The body model.
        clusters: As :func:`nearest_to_centroids` gives them.
        class_names: Names in label order.
        title: Above all.
        note: Below all.

    Raises:
        UsageError: There is no cluster.
    """
    if not clusters:
        raise UsageError("there is no cluster to draw")
    columns = min(max(len(cluster.nearest) for cluster in clusters), _COLUMNS)
    rows = [math.ceil(len(cluster.nearest) / columns) for cluster in clusters]
    pitch = STRIP_SIZE[0] + _GAP
    width, height = pitch * columns, STRIP_SIZE[1] * sum(rows) + _LINE * len(clusters) + _HEAD + _FOOT
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, width), ylim=(0.0, height))  # in inches: no distortion
    axes.set_axis_off()
    axes.text(0.1, height - 0.12, title, va="top", fontsize=12, parse_math=False)
    top = height - _HEAD
    for cluster, lines in zip(clusters, rows, strict=True):
        axes.hlines(top, 0.1, width - 0.1, colors="0.85", linewidths=0.8)
        told = f"cluster {cluster.number}, {counted(cluster.size, 'sequence')}"
        axes.text(0.1, top - 0.07, told, va="top", fontsize=10, weight="bold")
        for place, each in enumerate(cluster.nearest):
            line, column = divmod(place, columns)
            known = [shorten(class_name(tuple(class_names), each.label), 34)] if each.label >= 0 else []
            heading = ", ".join([*known, shorten(each.name, 26), f"cosine {each.cosine:.3f}"])
            corner = np.array([column * pitch + _GAP / 2, top - _LINE - (line + 1) * STRIP_SIZE[1]])
            draw_strip(axes, layout, _strip(each), corner, heading)
        top -= _LINE + lines * STRIP_SIZE[1]
    remark(figure, note)
    return figure


def _strip(shown: Neighbour) -> Strip:
    """Frames spread evenly over those in which somebody is there, of the bodies that are there most."""
    frames = np.asarray(shown.frames, np.float32)
    there: NDArray[np.bool_] = np.asarray(frames.any(axis=(1, 2)))  # (T, M)
    times = np.flatnonzero(there.any(axis=1))
    times = times[np.linspace(0, len(times) - 1, min(_FRAMES, len(times))).round().astype(int)]
    bodies = np.sort(np.argsort(-there.sum(axis=0), kind="stable")[:_BODIES])
    return Strip(shown.name, shown.label, frames[times][..., bodies])
