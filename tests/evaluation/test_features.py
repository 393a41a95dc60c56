"""Which sequences features are extracted of: those that have a label."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning.errors import DataError
from prosl_lightning.evaluation.features import FeatureTables, extract_tables, labelled_positions, nearly_equal
from prosl_lightning.evaluation.knn import KNNEvaluation, knn_measures
from prosl_lightning.evaluation.semi import SemiSupervisedEvaluation, fine_tune, labelled_loader


def test_sequences_without_label_train_nothing_and_must_not_be_tested(module, data):
    labels = data.archive.labels
    labels[data.train_rows[3:7]] = -1
    known = [position for position in range(36) if not 3 <= position < 7]
    assert labelled_positions(data).tolist() == known
    loader = labelled_loader(data, None, 64)
    assert sorted(torch.cat([batch.index for batch in loader]).tolist()) == known
    tables = extract_tables(module, data)
    assert tables.train_labels.tolist() == labels[data.train_rows[known]].tolist()
    assert torch.equal(tables.train[:3], module.embed(next(iter(data.feature_dataloader("train"))))[:3])
    evaluation = KNNEvaluation(module, gallery=data.feature_dataloader("train"))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.test(evaluation, data.feature_dataloader("test"), verbose=False)
    assert trainer.callback_metrics["test/top-1"] == pytest.approx(knn_measures(tables)["top-1"], abs=1e-3)
    labels[data.test_rows[:2]] = -1
    with pytest.raises(DataError, match=r"2 of the 12 test sequences have no label .*\nprepare the data with labels"):
        extract_tables(module, data)
    labels[:] = np.where(np.isin(np.arange(48), data.test_rows), 0, -1)
    with pytest.raises(DataError, match="none of the 36 training sequences has a label"):
        fine_tune(SemiSupervisedEvaluation(module, tuple("abc")), data, np.arange(3))


def test_features_that_are_nearly_all_the_same_are_told_from_others():
    draw = torch.Generator().manual_seed(0)
    spread, centre = torch.randn(2000, 16, generator=draw), torch.randn(1, 16, generator=draw)
    labels = torch.zeros(2000).long()

    def said(features: torch.Tensor) -> bool:
        return nearly_equal(FeatureTables(features, labels, features[:100], labels[:100]))

    assert said(centre + 1e-5 * spread)
    assert said(torch.zeros(2000, 16))
    assert said(torch.cat([spread[:400], centre.expand(1600, 16)])) is False, "the test sequences are told apart"
    mixed = centre.repeat(2000, 1)
    mixed[::4] = spread[::4]
    assert said(mixed)
    for features in (spread, centre + 1e-2 * spread, spread[:1]):
        assert not said(features)
