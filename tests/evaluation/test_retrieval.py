"""Retrieval figures and the nearest-neighbour evaluation as a whole, against scikit-learn and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalMAP

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation import retrieval
from prosl_lightning.evaluation.features import FeatureTables, embedding, extract_tables, fuse_tables
from prosl_lightning.evaluation.knn import KNNEvaluation, knn_accuracy, knn_measures, knn_predict, nearest, vote
from prosl_lightning.evaluation.retrieval import mean_average_precision


def _tables(width: int = 12, seed: int = 0) -> FeatureTables:
    """Five classes, of which the gallery lacks the last and the test part the first."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, width, generator=torch.Generator().manual_seed(9))
    train_labels, test_labels = torch.arange(60) % 4, 1 + torch.arange(30) % 4
    return FeatureTables(
        centres[train_labels] + 1.5 * torch.randn(60, width, generator=draw), train_labels,
        centres[test_labels] + 1.5 * torch.randn(30, width, generator=draw), test_labels,
    )  # fmt: skip


def test_mean_average_precision_agrees_with_both_libraries(monkeypatch):
    monkeypatch.setattr(retrieval, "_CHUNK", 7)
    tables = _tables()
    found = mean_average_precision(*tables)
    scores = F.normalize(tables.test, dim=1) @ F.normalize(tables.train, dim=1).T
    relevant = tables.test_labels[:, None] == tables.train_labels
    peer = [average_precision_score(r, s) if r.any() else 0.0 for r, s in zip(relevant, scores, strict=True)]
    assert found == pytest.approx(np.mean(peer), abs=1e-6)
    index = torch.arange(30)[:, None].expand(30, 60)
    other = RetrievalMAP(empty_target_action="neg")(scores.flatten() + 1, relevant.flatten(), index.flatten())
    assert found == pytest.approx(float(other), abs=1e-6)


def test_the_error_of_float32_is_as_small_as_the_docstring_says():
    """Features of a trained encoder lie close together, which is where float32 ranks some of them in another order."""
    draw = torch.Generator().manual_seed(0)
    centre, modes = torch.rand(256, generator=draw) + 0.5, 0.06 * torch.randn(8, 256, generator=draw)
    labels, asked = torch.arange(1000) % 8, torch.arange(200) % 8
    gallery, queries = (
        centre + modes[of] + 0.1 * torch.randn(len(of), 256, generator=draw) for of in (labels, asked)
    )  # fmt: skip
    scores = F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T
    assert float(scores.min()) > 0.95, "close together"
    relevant = asked[:, None] == labels
    peer = np.mean([average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)])
    assert 100 * mean_average_precision(gallery, labels, queries, asked) == pytest.approx(100 * peer, abs=2e-3)


def test_equal_cosines_share_a_rank():
    gallery, labels = torch.eye(2)[[0, 0, 1]], torch.tensor([0, 1, 0])
    # Ranked for the first query: two rows at cosine 1, one of them relevant, then the other relevant one.
    expected = (1 / 2 + 2 / 3) / 2
    assert mean_average_precision(gallery, labels, torch.eye(2)[:1], torch.tensor([0])) == pytest.approx(expected)


def test_all_figures_of_the_evaluation():
    tables = _tables()
    measures = knn_measures(tables, k=3)
    assert list(measures) == ["top-1", "mAP", "R@1", "R@5", "R@10"]
    votes = tables.train_labels[nearest(tables.train, tables.test, 10)]
    for count in (1, 5, 10):
        hits = [label in row[:count] for row, label in zip(votes.tolist(), tables.test_labels.tolist(), strict=True)]
        assert measures[f"R@{count}"] == pytest.approx(100 * np.mean(hits))
    assert measures["top-1"] == pytest.approx(knn_accuracy(*tables, k=3))
    assert measures["R@1"] == pytest.approx(knn_accuracy(*tables, k=1))
    assert list(knn_measures(tables._replace(train=tables.train[:6], train_labels=tables.train_labels[:6]))) == [
        "top-1", "mAP", "R@1", "R@5",
    ]  # fmt: skip


def test_votes_of_equal_number_go_to_the_lowest_class():
    assert vote(torch.tensor([[4, 2, 2, 4, 1], [3, 1, 2, 0, 4], [7, 5, 5, 5, 7]])).tolist() == [2, 0, 5]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 10])
def test_predictions_are_those_of_scikit_learn_for_any_k(k):
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (300,), generator=draw)
    gallery, queries = torch.randn(300, 8, generator=draw), torch.randn(200, 8, generator=draw)
    peer = KNeighborsClassifier(k, metric="cosine").fit(gallery.numpy(), labels.numpy())
    assert knn_predict(gallery, labels, queries, k).tolist() == peer.predict(queries.numpy()).tolist()


@pytest.mark.parametrize("k", [-1, 0, 61])
def test_a_k_that_the_gallery_does_not_have_is_refused(k):
    with pytest.raises(UsageError, match=f"k is {k}; the gallery has 60"):
        knn_measures(_tables(), k)


def test_fused_cosines_are_the_weighted_mean_of_the_encoders():
    first, second = _tables(12, seed=0), _tables(20, seed=1)
    fused = fuse_tables([first, second], [0.6, 0.2])

    def cosines(tables):
        return F.normalize(tables.test, dim=1) @ F.normalize(tables.train, dim=1).T

    torch.testing.assert_close(cosines(fused), 0.75 * cosines(first) + 0.25 * cosines(second), atol=1e-6, rtol=0)
    assert torch.equal(fused.test_labels, first.test_labels)
    torch.testing.assert_close(cosines(fuse_tables([first, second], [0, 3])), cosines(second), atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="for 2 checkpoints"):
        fuse_tables([first, second], [1.0])
    with pytest.raises(DataError, match="same sequences"):
        fuse_tables([first, second._replace(train_labels=second.train_labels.flip(0))])


class _Doubled(torch.nn.Module):
    """An encoder of another project: batches of (x, y), features twice the input."""

    def embed(self, batch):
        return 2 * batch[0]


def _trainer(folder):
    return pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip


@pytest.mark.parametrize("stage", ["test", "validation"])
def test_any_encoder_is_evaluated_by_a_trainer(tmp_path, stage):
    tables = _tables()
    gallery, queries = (DataLoader(TensorDataset(*side), batch_size=13) for side in (tables[:2], tables[2:]))
    run = getattr(_trainer(tmp_path), "validate" if stage == "validation" else stage)
    module = KNNEvaluation(_Doubled(), gallery, k=3)
    for _ in range(2):  # nothing is left of an earlier run
        (logged,) = run(module, dataloaders=queries, verbose=False)
        assert logged == pytest.approx({f"{stage}/{name}": v for name, v in knn_measures(tables, 3).items()}, abs=1e-4)
    with pytest.raises(UsageError, match="no gallery"):
        run(KNNEvaluation(_Doubled()), dataloaders=queries, verbose=False)


def test_a_prosl_module_is_evaluated_on_its_data_module(tmp_path, tiny_archive, tiny_options):
    module, data = ProSLModule(**tiny_options), SkeletonDataModule(str(tiny_archive), eval_batch_size=16)
    (logged,) = _trainer(tmp_path).test(KNNEvaluation(module), datamodule=data, verbose=False)
    expected = knn_measures(extract_tables(module, data))
    assert logged == pytest.approx({f"test/{name}": value for name, value in expected.items()}, abs=1e-4)


def test_bfloat16_features_are_close_and_come_as_float32(tiny_archive, tiny_options):
    module, data = ProSLModule(**tiny_options).eval(), SkeletonDataModule(str(tiny_archive), eval_batch_size=16)
    data.setup()
    exact, coarse = (extract_tables(module, data, precision) for precision in ("float32", "bfloat16"))
    assert coarse.test.dtype == torch.float32
    difference = (coarse.test - exact.test).norm() / exact.test.norm()
    assert 1e-5 < float(difference) < 0.02
    with pytest.raises(UsageError, match="precision is 'half'; it must be float32 or bfloat16"):
        embedding(module, "half")
