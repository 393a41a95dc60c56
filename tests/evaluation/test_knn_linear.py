"""Evaluation on tables of features against the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.evaluation.knn import knn_accuracy, knn_predict, nearest
from prosl_lightning.evaluation.linear import linear_evaluation


def _tables(data) -> FeatureTables:
    names = ("train_feature", "train_label", "test_feature", "test_label")
    return FeatureTables(*(torch.tensor(data[name]) for name in names))


def test_nearest_neighbour_matches_the_reference(fixture_arrays):
    data = fixture_arrays("knn_linear")
    tables = _tables(data)
    assert nearest(tables.train, tables.test)[:, 0].tolist() == data["knn/neighbour"].tolist()
    assert knn_predict(tables.train, tables.train_labels, tables.test).tolist() == data["knn/prediction"].tolist()
    accuracy = knn_accuracy(tables.train, tables.train_labels, tables.test, tables.test_labels)
    assert accuracy == pytest.approx(100 * float(data["knn/accuracy"]), abs=1e-9)


def test_majority_wins_and_a_tie_goes_to_the_lowest_class():
    gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.3], [0.0, 1.0]])
    labels = torch.tensor([5, 7, 7, 9])
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(gallery, labels, query, k=1).tolist() == [5]
    assert knn_predict(gallery, labels, query, k=2).tolist() == [5]
    assert knn_predict(gallery, labels, query, k=3).tolist() == [7]
    assert knn_predict(gallery, 9 - labels, query, k=2).tolist() == [2]  # the farther of the two
    with pytest.raises(UsageError, match="k is 5; the gallery has 4"):
        knn_predict(gallery, labels, query, k=5)


@pytest.mark.parametrize("schedule", ["constant", "stepped"])
def test_linear_training_matches_the_reference(fixture_arrays, schedule):
    data = fixture_arrays("knn_linear")
    tables = _tables(data)
    classes, width = data["weight_init"].shape
    classifier = nn.Linear(width, classes)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor(data["weight_init"]))
        classifier.bias.copy_(torch.tensor(data["bias_init"]))
    result = linear_evaluation(
        tables, classes, epochs=int(data["epochs"]), milestones=data[f"{schedule}/milestones"].tolist(),
        learning_rate=float(data["lr"]), batch_size=int(data["batch"]), classifier=classifier,
        order=lambda epoch: torch.tensor(data["order"][epoch]),
    )  # fmt: skip
    np.testing.assert_allclose(result.losses, data[f"{schedule}/loss_per_step"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(classifier.weight.detach(), data[f"{schedule}/weight_final"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(classifier.bias.detach(), data[f"{schedule}/bias_final"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(classifier(tables.test).detach(), data[f"{schedule}/test_logits"], atol=1e-4, rtol=0)
    assert result.accuracy == float(data[f"{schedule}/test_accuracy_per_epoch"][-1])
    assert result.best_accuracy == float(data[f"{schedule}/best_accuracy"])
