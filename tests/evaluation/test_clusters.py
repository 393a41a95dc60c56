"""Cluster quality against hand-made cases and scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import (
    adjusted_rand_score,
    davies_bouldin_score,
    normalized_mutual_info_score,
    silhouette_score,
)

from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation import clusters
from prosl_lightning.evaluation.clusters import cluster_measures, matched_accuracy, separation
from prosl_lightning.prosl.diagnostics import pair_precision
from prosl_lightning.prosl.kmeans import kmeans


def _mixture(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    classes = torch.arange(120) % 4
    return 5 * torch.eye(4, 8)[classes] + noise * torch.randn(120, 8, generator=draw), classes


def test_well_separated_classes_are_found():
    measures = cluster_measures(*_mixture(0.1), 4)
    for name in ("clustering accuracy", "NMI", "ARI", "pair precision"):
        assert measures[name] == pytest.approx(100), name
    assert measures["Davies-Bouldin index"] == pytest.approx(measures["Davies-Bouldin index of the classes"])
    assert measures["silhouette (-1 to 1)"] > 0.95


@pytest.mark.parametrize("count", [3, 4, 9])
def test_measures_are_those_of_scikit_learn(count):
    features, classes = _mixture(3.0)
    measures = cluster_measures(features, classes, count, seed=1)
    unit = F.normalize(features, dim=1)
    found = kmeans(unit, count, seed=1).assignment
    points, assignment, true = unit.numpy(), found.numpy(), classes.numpy()
    assert measures == pytest.approx(
        {
            "clustering accuracy": 100 * matched_accuracy(found, classes),
            "NMI": 100 * normalized_mutual_info_score(true, assignment),
            "ARI": 100 * adjusted_rand_score(true, assignment),
            "pair precision": 100 * pair_precision(found, classes),
            "Davies-Bouldin index": davies_bouldin_score(points, assignment),
            "silhouette (-1 to 1)": silhouette_score(points, assignment, metric="cosine"),
            "Davies-Bouldin index of the classes": davies_bouldin_score(points, true),
            "silhouette (-1 to 1) of the classes": silhouette_score(points, true, metric="cosine"),
        },
        rel=1e-4,
    )


def test_matching_is_one_to_one():
    classes = torch.tensor([0, 0, 0, 0, 1, 1])
    assert matched_accuracy(torch.tensor([0, 0, 1, 1, 2, 2]), classes) == pytest.approx(4 / 6)
    # Greedy matching would give class 0 to cluster 0 and leave 1 right for cluster 1.
    assert matched_accuracy(torch.tensor([0, 0, 0, 1, 0, 0]), classes) == pytest.approx(3 / 6)


def test_the_silhouette_of_many_sequences_is_that_of_a_sample(monkeypatch):
    monkeypatch.setattr(clusters, "SILHOUETTE_SAMPLE", 60)
    features, classes = _mixture(1.0)
    unit = F.normalize(features, dim=1)
    whole = silhouette_score(unit.numpy(), classes.numpy(), metric="cosine")
    first, again, other = (separation(unit, classes, seed=seed)[1] for seed in (0, 0, 1))
    assert first == again != other
    assert first == pytest.approx(whole, abs=0.1)
    assert first != pytest.approx(whole, abs=1e-6)


def test_what_cannot_be_separated_has_no_figure_and_impossible_counts_are_refused():
    features, _ = _mixture(1.0)
    assert all(math.isnan(value) for value in separation(features, torch.zeros(120, dtype=torch.int64)))
    measures = cluster_measures(features, torch.zeros(120, dtype=torch.int64), 2)
    assert math.isnan(measures["Davies-Bouldin index of the classes"])
    assert measures["pair precision"] == pytest.approx(100)
    for count in (0, 121):
        with pytest.raises(UsageError, match=f"clusters is {count}; 120 sequences make 1 to 120 clusters"):
            cluster_measures(features, torch.zeros(120, dtype=torch.int64), count)
