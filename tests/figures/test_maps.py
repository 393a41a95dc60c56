"""Maps of features: the same sequences everywhere, and an index that speaks of the features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from sklearn.metrics import davies_bouldin_score

from prosl_lightning.data.archive import Archive
from prosl_lightning.errors import MissingExtraError, UsageError
from prosl_lightning.figures import maps
from prosl_lightning.figures.maps import FeatureMap, feature_map, map_figure
from prosl_lightning.figures.samples import choose_part, embedded, measured_importance
from prosl_lightning.figures.style import MOST_CLASSES, class_style

LONG = tuple(f"class {n}: a rather long description of an action" for n in range(60))


def _clouds(count=4, per_class=8):
    labels = np.repeat(np.arange(count), per_class)
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 16, generator=draw)[labels] * 3 + torch.randn(len(labels), 16, generator=draw), labels


def test_the_index_is_of_the_unit_features_and_the_layout_follows_the_seed():
    features, labels = _clouds()
    one, two = (feature_map(features * scale, labels, "a") for scale in (1.0, 8.0))
    unit = torch.nn.functional.normalize(features, dim=1).numpy()
    assert one.davies_bouldin == pytest.approx(davies_bouldin_score(unit, labels))
    np.testing.assert_array_equal(one.points, two.points)
    apart = np.linalg.norm(one.points[:, None] - one.points[None], axis=-1)
    same = labels[:, None] == labels[None]
    assert apart[same].mean() < 0.5 * apart[~same].mean()


def test_unlabelled_sequences_are_grey_and_no_part_of_the_index():
    features, labels = _clouds()
    partly = np.where(np.arange(len(labels)) % 3 == 0, -1, labels)
    known = partly >= 0
    shown = feature_map(features, partly)
    unit = torch.nn.functional.normalize(features, dim=1).numpy()
    assert shown.davies_bouldin == pytest.approx(davies_bouldin_score(unit[known], labels[known]))
    axes = map_figure([("", [shown])], partly, ("a", "b", "c", "d")).axes[0]
    grey = axes.collections[-1]
    assert to_hex(grey.get_facecolor()[0]) == "#9a9a9a"
    np.testing.assert_array_equal(grey.get_offsets(), shown.points[~known])
    nothing = feature_map(features, np.full(len(labels), -1))
    assert math.isnan(nothing.davies_bouldin)
    figure = map_figure([("", [nothing])], np.full(len(labels), -1))
    assert "DBI" not in figure.axes[0].get_title() + figure.get_supxlabel()


def test_every_panel_shows_the_same_sequences_in_the_same_colours(legible):
    count = MOST_CLASSES
    labels = np.repeat(np.arange(0, 60, 60 / count).astype(int)[:count], 3)
    draw = np.random.default_rng(0)
    titles, names = (
        ("1 epoch", "450 epochs, with codebook"),
        ("HiCo-LSTM", "ProSL (HiCo-LSTM, hidden_size 64, num_layers 1, projection_size 128) bone"),
    )
    rows = [(name, [FeatureMap(t, draw.normal(size=(len(labels), 2)), 2.5) for t in titles]) for name in names]
    figure = map_figure(rows, labels, LONG, note="96 of 5,000 sequences")
    for axes, (_, shown) in zip(figure.axes, [(n, m) for n, maps_ in rows for m in maps_], strict=True):
        assert len(axes.collections) == count
        for place, (label, dots) in enumerate(zip(np.unique(labels), axes.collections, strict=True)):
            np.testing.assert_array_equal(dots.get_offsets(), shown.points[labels == label])
            assert to_hex(dots.get_facecolor()[0]) == class_style(place)[0].lower()
        assert axes.get_title() == shown.title + "\nDBI 2.50"
        low, high = axes.get_xlim()
        assert high - low == pytest.approx(np.diff(axes.get_ylim())[0])  # distances mean the same in both directions
    assert len({class_style(place) for place in range(count)}) == count
    texts = legible(figure)
    assert sum(text.startswith("class ") for text in texts) == count
    assert "96 of 5,000 sequences" in figure.get_supxlabel()


def test_one_narrow_panel_is_legible(legible):
    features, labels = _clouds()
    figure = map_figure([("", [feature_map(features, labels, "250 epochs")])], labels, ("a", "b", "c", "d"), note="n")
    assert {"a", "b", "c", "d"} < set(legible(figure))


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), LONG[:MOST_CLASSES]])
@pytest.mark.parametrize("count", [1, 2])
def test_a_long_name_beside_a_single_column_is_legible(legible, names, count):
    labels, draw = np.repeat(np.arange(len(names)), 3), np.random.default_rng(0)
    methods = ("ProSL (HiCo-LSTM, hidden_size 64, num_layers 1, projection_size 128) bone", "HiCo-LSTM, num_layers 1")
    rows = [(name, [FeatureMap("450 epochs", draw.normal(size=(len(labels), 2)), 2.5)]) for name in methods[:count]]
    figure = map_figure(rows, labels, names, note="nw-ucla, x-view, test side: 96 of 5,000 sequences, 32 of 60 classes")
    texts = legible(figure)
    assert {" ".join(text.split()) for text in texts} >= set(methods[:count])


def test_what_cannot_be_drawn_is_said(monkeypatch):
    features, labels = _clouds()
    with pytest.raises(UsageError, match="at least 4 sequences, found 3"):
        feature_map(features[:3], labels[:3])
    with pytest.raises(UsageError, match="method is 'pca'; it must be tsne or umap"):
        feature_map(features, labels, method="pca")
    monkeypatch.setattr(maps, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"umap-learn is not installed: pip install 'prosl-lightning\[umap\]'"):
        feature_map(features, labels, method="umap")


def test_part_of_a_data_set_is_even_repeatable_and_told():
    labels = np.repeat(np.arange(10), 20)
    labels[::7] = -1
    rows = np.arange(20, 200)
    part = choose_part(labels, rows, classes=4, per_class=5, seed=3)
    assert np.unique(part.labels).tolist() == [1, 4, 6, 9]  # spread over the nine that occur
    assert np.bincount(part.labels).max() == 5
    assert np.isin(part.rows, rows).all()
    np.testing.assert_array_equal(part.labels, labels[part.rows])
    assert part.note == "20 of 180 sequences, 4 of 9 classes"
    np.testing.assert_array_equal(choose_part(labels, rows, classes=4, per_class=5, seed=3).rows, part.rows)
    assert choose_part(labels, rows, classes=[2], per_class=100).note.endswith("1 of 9 classes")
    with pytest.raises(UsageError, match="class 0 has no sequence here; there are 1, 2"):
        choose_part(labels, rows, classes=[0])
    with pytest.raises(UsageError, match="no sequence to choose from"):
        choose_part(labels, rows[:0])
    nothing = choose_part(np.full(50, -1), np.arange(50), classes=3, per_class=5)
    assert len(nothing.rows) == 15
    assert nothing.note == "15 of 50 sequences, without labels"
    assert choose_part(labels % 3, np.arange(9), per_class=9).note == ""
    assert choose_part(np.full(50, -1), np.arange(50)).note == "all 50 sequences, without labels"


def test_features_and_importance_are_those_of_the_rows_in_their_order(tiny_archive, tiny_module):
    archive = Archive.open(tiny_archive)
    rows = np.array([3, 17, 40])
    features = embedded(tiny_module, archive, rows)
    for place, row in enumerate(rows):
        torch.testing.assert_close(features[place], embedded(tiny_module, archive, np.array([row]))[0])
    importance = measured_importance(tiny_module, archive, rows)
    assert importance.shape == (3, 25)
    assert (importance > -1e-15).all()
    np.testing.assert_allclose(importance[1], measured_importance(tiny_module, archive, rows[1:2])[0], rtol=1e-3)
    np.testing.assert_array_equal(importance, measured_importance(tiny_module, archive, rows.tolist()))
    torch.testing.assert_close(features, embedded(tiny_module, archive, rows.tolist()))
