"""Figures of the codebook: sizes, purity, composition, change, and the nearest sequences."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection

from prosl_lightning.data.archive import Archive
from prosl_lightning.errors import UsageError
from prosl_lightning.figures.codebook import cluster_sizes_figure, codebook_figure, composition
from prosl_lightning.figures.nearest import Cluster, Neighbour, nearest_figure, nearest_to_centroids

LONG = tuple(f"class {n}: a rather long description of an action" for n in range(60))


def test_composition_counts_clusters_by_class_and_the_unknown_last():
    table = composition([0, 0, 2, 2, 2], [1, -1, 0, 0, 1], 3)
    np.testing.assert_array_equal(table, [[0, 1, 1], [0, 0, 0], [2, 1, 0]])
    np.testing.assert_array_equal(composition([0, 1, 1], None, 2), [[1], [2]])
    with pytest.raises(UsageError, match="2 sequences have a cluster, 1 a class"):
        composition([0, 1], [1], 2)


def test_bars_are_divided_into_the_most_frequent_class_the_rest_and_the_unknown():
    figure = cluster_sizes_figure([0, 0, 0, 0, 1, 1, 1, 1, 1], 3, classes=[0, 0, 1, -1, 2, 2, 2, 2, 2])
    (axes,) = figure.axes
    most, rest, unknown = ([bar.get_height() for bar in axes.patches[i : i + 3]] for i in (0, 3, 6))
    assert (most, rest, unknown) == ([5, 2, 0], [0, 1, 0], [0, 1, 0])
    assert [bar.get_y() for bar in axes.patches[3:6]] == [5, 2, 0]
    assert axes.get_title(loc="left").endswith("1 empty\n88 % are of their cluster's most frequent class")


def test_the_composition_has_a_row_for_each_class_and_a_column_for_each_cluster(legible):
    draw = np.random.default_rng(0)
    assignment, classes = draw.integers(0, 64, 2000), draw.integers(0, 60, 2000)
    curves = {name: ([400, 401, 402], [0.9, 0.2, 0.1]) for name in ("nmi", "pair_precision", "churn")}
    figure = codebook_figure(
        assignment, 65, classes=classes, class_names=LONG, curves=curves, title="Codebook, built after 402 epochs",
        note="nothing left out",
    )  # fmt: skip
    sizes, matrix, change = figure.axes[:3]
    table = composition(assignment, classes, 65)
    order = np.argsort(-table.sum(axis=1), kind="stable")
    shown = matrix.images[0].get_array()
    assert shown.shape == (60, 65)
    rows = [int(label.get_text().split()[1].rstrip(":")) for label in matrix.get_yticklabels()]
    assert sorted(rows) == list(range(60))
    share = table[order][:, rows].T / np.maximum(table[order].sum(axis=1), 1)
    np.testing.assert_allclose(shown, 100 * share)
    assert sizes.get_xlim() == matrix.get_xlim()  # bars stand above their columns
    heights = np.add(*([bar.get_height() for bar in sizes.patches[i : i + 65]] for i in (0, 65)))
    np.testing.assert_array_equal(heights, table[order].sum(axis=1))
    assert [line.get_ydata().tolist() for line in change.lines] == [[90, 20, 10]] * 3
    assert [str(line.get_label()).split()[0] for line in change.lines] == ["churn:", "NMI", "pairs"]  # in any log
    texts = legible(figure)
    assert sum("description" in text or "…" in text for text in texts) == 60


@pytest.mark.parametrize(("k", "every"), [(6, 1), (65, 1), (130, 2), (400, 6)])
@pytest.mark.parametrize("classes", [None, 12])
def test_bars_carry_the_numbers_of_the_codebook(legible, k, every, classes):
    draw = np.random.default_rng(0)
    assignment = draw.permutation(np.repeat(np.arange(k), draw.integers(1, 30, k)))
    labels = None if classes is None else draw.integers(0, classes, len(assignment))
    figure = codebook_figure(assignment, k, classes=labels, title="Codebook")
    axes = figure.axes[0 if classes is None else 1]
    order = np.argsort(-np.bincount(assignment), kind="stable")
    legible(figure)
    assert [label.get_text() for label in axes.get_xticklabels()] == order[::every].astype(str).tolist()
    assert axes.get_xticks().tolist() == list(range(1, k + 1, every))
    assert axes.get_xlabel().startswith("number of the cluster in the codebook, the largest first")
    assert (f"1 of {every} is numbered" in axes.get_xlabel()) == (every > 1)
    alone = cluster_sizes_figure(assignment, k)
    legible(alone)
    assert alone.axes[0].get_xticklabels()[0].get_text() == str(order[0])


def test_what_is_not_known_is_left_out(legible):
    bare = codebook_figure([0, 1, 1, 2], 4, title="Codebook", note="classes not known: give --data.root")
    assert len(bare.axes) == 1
    assert "most frequent" not in bare.axes[0].get_title(loc="left")
    assert "classes not known: give --data.root" in legible(bare)
    unlabelled = codebook_figure([0, 1, 1, 2], 4, classes=[-1] * 4)
    assert len(unlabelled.axes) == 1
    few = codebook_figure(
        [0, 1, 1, 2], 4, classes=[0, 0, -1, 1], class_names=("a", "b"), curves={"unknown": ([1], [1])}
    )
    assert [len(axes.images) for axes in few.axes[:2]] == [0, 1]


def test_nearest_sequences_are_the_nearest_members(tiny_archive, tiny_module):
    archive = Archive.open(tiny_archive)
    rows = archive.split("x-sub")[0]
    (cluster,) = nearest_to_centroids(tiny_module, archive, rows, [2], count=4)
    members = rows[np.arange(36) % 4 == 2]
    with torch.no_grad():
        joints = [torch.tensor(np.array(archive.clip(row), np.float32)) for row in members]
        cosines = []
        for clip in joints:
            batch = type("B", (), {"joints": clip.permute(1, 0, 2, 3)[None], "length": torch.tensor([len(clip)])})
            cosines.append(float(tiny_module.key_features(tiny_module.prepare(batch))[0] @ torch.eye(4, 8)[2]))
    best = np.argsort(-np.array(cosines))[:4]
    assert [each.name for each in cluster.nearest] == [archive.names[members[place]] for place in best]
    assert [each.cosine for each in cluster.nearest] == pytest.approx([cosines[place] for place in best], abs=1e-5)
    assert (cluster.number, cluster.size) == (2, 9)
    with pytest.raises(UsageError, match="there is no cluster 4; the codebook has 0 to 3"):
        nearest_to_centroids(tiny_module, archive, rows, [4])


@pytest.mark.parametrize("bodies", [1, 2])
def test_strips_stand_in_rows_of_their_cluster(legible, tiny_archive, bodies):
    archive = Archive.open(tiny_archive)
    clip = np.array(archive.clip(2), np.float32)[..., :bodies]
    nearest = [Neighbour(f"S001C001P001R001A{n:03d}", 59, 0.98765 - n / 100, clip) for n in range(3)]
    clusters = [Cluster(7, 1234, nearest), Cluster(64, 12, nearest[:2])]
    figure = nearest_figure(archive.layout, clusters, LONG, title="Nearest to the centroids", note="blue left")
    (axes,) = figure.axes
    strips = [each for each in axes.collections if isinstance(each, LineCollection) and each.get_alpha() is not None]
    assert len(strips) == 5 * bodies
    assert all(len(strip.get_segments()) == 6 * len(archive.layout.bones) for strip in strips)
    texts = legible(figure)
    assert {"cluster 7, 1234 sequences", "cluster 64, 12 sequences", "blue left"} < set(texts)
    assert sum("cosine 0.988" in text for text in texts) == 2
    low = [np.concatenate(strip.get_segments())[:, 1].min() for strip in strips]
    assert max(low[3 * bodies :]) < min(low[: 3 * bodies])  # the second cluster stands below the first
    with pytest.raises(UsageError, match="no cluster"):
        nearest_figure(archive.layout, [])


def test_many_sequences_of_a_cluster_are_wrapped(legible, tiny_archive):
    archive = Archive.open(tiny_archive)
    clip = np.array(archive.clip(2), np.float32)[..., :1]
    near = [Neighbour(f"clip{n:03d}", -1, 0.9, clip) for n in range(10)]
    figure = nearest_figure(archive.layout, [Cluster(0, 10, near), Cluster(1, 1, near[:1])], title="Nearest")
    assert figure.get_figwidth() < 22
    (axes,) = figure.axes
    strips = [each for each in axes.collections if isinstance(each, LineCollection) and each.get_alpha() is not None]
    corners = [np.concatenate(strip.get_segments()).min(axis=0) for strip in strips]
    rows = [corners[:4], corners[4:8], corners[8:10], corners[10:]]
    assert all(np.ptp([low for _, low in row]) < 1e-6 for row in rows)
    assert all(below[0][1] < above[0][1] for above, below in pairwise(rows))
    assert "cluster 1, 1 sequence" in legible(figure)
