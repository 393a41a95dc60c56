"""Both k-means backends: quality against scikit-learn, stability, determinism, wrong input."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from prosl_lightning.errors import DataError, MissingExtraError
from prosl_lightning.prosl import kmeans as kmeans_module
from prosl_lightning.prosl.diagnostics import codebook_metrics, pair_precision
from prosl_lightning.prosl.kmeans import faiss_available, kmeans

BACKENDS = [
    "torch",
    pytest.param("faiss", marks=pytest.mark.skipif(not faiss_available(), reason="FAISS is not installed")),
]


def _mixture(count=1500, clusters=12, size=16, spread=0.6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(clusters, size, generator=draw), dim=1)
    classes = torch.randint(clusters, (count,), generator=draw)
    noise = torch.randn(count, size, generator=draw) * spread / size**0.5
    return F.normalize(centres[classes] + noise, dim=1), classes


@pytest.mark.parametrize("backend", BACKENDS)
def test_quality_reaches_scikit_learn_with_ten_restarts(backend):
    features, classes = _mixture()
    reference = KMeans(12, n_init=10, random_state=0).fit(features.numpy())
    centres = F.normalize(torch.from_numpy(reference.cluster_centers_), dim=1)
    reference_cosine = float((features * centres[torch.from_numpy(reference.labels_).long()]).sum(dim=1).mean())
    found = kmeans(features, 12, seed=0, backend=backend)
    assert found.mean_cosine >= reference_cosine - 0.002
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(12))
    assert torch.equal(found.assignment, (features @ found.centroids.T).argmax(dim=1))
    assert pair_precision(found.assignment, classes) > 0.95


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_warm_start_keeps_labels_where_they_were(backend):
    features, _ = _mixture()
    first = kmeans(features, 12, seed=0, backend=backend)
    drifted = F.normalize(
        features + 0.05 * torch.randn(features.shape, generator=torch.Generator().manual_seed(1)), dim=1
    )
    warm = kmeans(drifted, 12, seed=1, start=first.centroids, backend=backend)
    assert float((warm.assignment == first.assignment).double().mean()) > 0.97


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_seed_same_codebook(backend):
    features, _ = _mixture(400)
    first, second = (kmeans(features, 9, seed=3, backend=backend) for _ in range(2))
    assert torch.equal(first.centroids, second.centroids)
    assert torch.equal(first.assignment, second.assignment)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_cluster_stays_empty_when_points_coincide_or_a_start_is_useless(backend):
    points = F.normalize(torch.eye(4).repeat(5, 1), dim=1)
    found = kmeans(points, 4, seed=0, backend=backend)
    assert torch.bincount(found.assignment, minlength=4).tolist() == [5, 5, 5, 5]
    start = torch.eye(4)[[0, 0, 0, 1]]
    assert kmeans(points, 4, seed=0, start=start, backend=backend).mean_cosine > 0.7


def test_every_point_is_its_own_cluster_when_k_is_the_number_of_points():
    features = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert sorted(kmeans(features, 6, seed=0, backend="torch").assignment.tolist()) == list(range(6))


def test_wrong_input_is_named():
    features, _ = _mixture(10)
    with pytest.raises(DataError, match="num_clusters is 11 .* only 10"):
        kmeans(features, 11, seed=0)
    with pytest.raises(DataError, match="not finite"):
        kmeans(features * torch.nan, 2, seed=0)


def test_training_works_without_faiss_and_asking_for_it_names_the_extra(monkeypatch):
    monkeypatch.setattr(kmeans_module, "faiss_available", lambda: False)
    features, _ = _mixture(60)
    assert len(kmeans(features, 5, seed=0).centroids) == 5
    with pytest.raises(MissingExtraError, match=r"prosl-lightning\[cpu\]"):
        kmeans(features, 5, seed=0, backend="faiss")


def test_metrics_of_a_codebook_counted_by_hand():
    assignment, classes = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([4, 4, 1, 1, -1])
    metrics = codebook_metrics(assignment, 3, previous=torch.tensor([0, 0, 1, 1, 1]), classes=classes)
    assert (metrics["size_min"], metrics["size_max"], metrics["empty"]) == (0, 3, 1)
    assert metrics["churn"] == pytest.approx(0.2)
    assert metrics["pair_precision"] == pytest.approx(1 / 3)  # one of three pairs in cluster 0; cluster 1 has one known
    perfect = codebook_metrics(torch.tensor([1, 1, 0, 0]), 2, classes=torch.tensor([0, 0, 1, 1]))
    assert perfect["nmi"] == pytest.approx(1)
    assert perfect["ari"] == pytest.approx(1)


class _Faiss:
    """FAISS as `auto` sees it, built for GPUs or not."""

    def __init__(self, gpus: int) -> None:
        self.made = []
        if gpus:
            self.GpuIndexFlatIP, self.GpuIndexFlatConfig = lambda *given: given, type("Config", (), {})
            self.StandardGpuResources = lambda: self.made.append(1) or len(self.made)
            self.get_num_gpus = lambda: gpus
        self.IndexFlatIP = lambda size: ("host", size)


@pytest.mark.parametrize(
    ("installed", "gpus", "on_cpu", "on_cuda"),
    [(False, 0, False, False), (True, 0, True, False), (True, 2, True, True)],
)
def test_auto_is_faiss_only_where_it_runs_beside_the_features(monkeypatch, installed, gpus, on_cpu, on_cuda):
    monkeypatch.setattr(kmeans_module, "faiss_available", lambda: installed)
    monkeypatch.setitem(sys.modules, "faiss", _Faiss(gpus))
    found = [kmeans_module._faiss_runs_on(torch.device(name)) for name in ("cpu", "cuda:1", "meta")]
    assert found == [on_cpu, on_cuda, False]


def test_auto_follows_that_rule_and_faiss_is_taken_at_its_word(monkeypatch):
    monkeypatch.setattr(kmeans_module, "faiss_available", lambda: True)
    monkeypatch.setattr(kmeans_module, "_faiss_lloyd", lambda *_: "by faiss")
    features, start = F.normalize(torch.randn(30, 4), dim=1), torch.eye(4)
    monkeypatch.setattr(kmeans_module, "_faiss_runs_on", lambda _: False)
    assert kmeans(features, 4, seed=0, start=start, backend="auto") != "by faiss"
    assert kmeans(features, 4, seed=0, start=start, backend="faiss") == "by faiss"
    monkeypatch.setattr(kmeans_module, "_faiss_runs_on", lambda _: True)
    assert kmeans(features, 4, seed=0, start=start, backend="auto") == "by faiss"
    assert kmeans(features, 4, seed=0, start=start, backend="torch") != "by faiss"


def test_faiss_takes_its_memory_on_the_gpu_once(monkeypatch):
    faiss = _Faiss(2)
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    kmeans_module._gpu_resources.cache_clear()
    indices = [kmeans_module._faiss_index(faiss, 8, torch.device("cuda", number)) for number in (0, 1, 1)]
    kmeans_module._gpu_resources.cache_clear()
    assert [(resources, config.device) for resources, _, config in indices] == [(1, 0), (1, 1), (1, 1)]
    assert kmeans_module._faiss_index(_Faiss(0), 8, torch.device("cuda", 0)) == ("host", 8)
