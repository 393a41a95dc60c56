"""What the verbs that train classifiers share: where the rate drops, and streams that are trained side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from prosl_lightning import ProSLModule
from prosl_lightning.commands.classify import milestones_of, train_heads
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.evaluation.fusion import fuse
from prosl_lightning.evaluation.linear import LINEAR, LinearEvaluation, linear_evaluation


def test_milestones_that_are_not_given_are_such_as_may_be_given():
    assert [milestones_of(epochs, None) for epochs in (1, 2, 3, 4, 80)] == [(), (1,), (1, 2), (2, 3), (50, 70)]
    for epochs in range(1, 100):
        usual = milestones_of(epochs, None)
        assert milestones_of(epochs, usual) == usual
    with pytest.raises(UsageError, match="must ascend and lie between 1 and 1"):
        milestones_of(2, (1, 1))


def test_streams_side_by_side_are_trained_as_alone_and_their_fusion_is_judged_after_each_epoch(tiny_options):
    draw, module = torch.Generator().manual_seed(0), ProSLModule(**tiny_options)
    width, labels = module.query_encoder.feature_size, torch.arange(60) % 3
    means = torch.randn(3, width, generator=draw)
    streams = []
    for _ in range(2):
        features = 0.3 * means[labels] + torch.randn(60, width, generator=draw)
        streams.append(FeatureTables(features[:30], labels[:30], features[30:], labels[30:]))
    recipe = replace(LINEAR, epochs=7, milestones=(5,), batch_size=8)
    shares = [0.6, 0.4]

    def classifiers(epochs: int) -> list[LinearEvaluation]:
        return [LinearEvaluation(module, "abc", recipe=replace(recipe, epochs=epochs), seed=2) for _ in streams]

    one, two, fused = train_heads(classifiers(7), streams, shares)
    for outcome, tables in zip((one, two), streams, strict=True):
        alone = linear_evaluation(tables, 3, epochs=7, milestones=(5,), batch_size=8, seed=2)
        assert torch.equal(outcome.logits, alone.classifier(tables.test))
        assert outcome.best == alone.best_accuracy
    assert torch.equal(fused.logits, fuse([one.logits, two.logits], shares))

    accuracies = []
    for epochs in range(1, 8):  # a training that ends there
        logits = train_heads(classifiers(epochs), streams, shares)[-1].logits
        accuracies.append(100 * float((logits.argmax(dim=1) == labels[30:]).double().mean()))
    assert fused.best == max(accuracies)
    assert len(train_heads(classifiers(2)[:1], streams[:1])) == 1
