"""Classifiers on an encoder: frozen or fine-tuned, live or on stored features, kept and loaded again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.classifier import load_classifier, save_classifier
from prosl_lightning.evaluation.features import extract_tables
from prosl_lightning.evaluation.linear import LINEAR, LinearEvaluation, linear_evaluation
from prosl_lightning.evaluation.recipe import TrainingRecipe, class_names_of, new_head
from prosl_lightning.evaluation.semi import (
    FINE_TUNING,
    EpochOrder,
    SemiSupervisedEvaluation,
    fine_tune,
    labelled_loader,
    labelled_subset,
)

NAMES = ("a", "b", "c")
SHORT = TrainingRecipe(learning_rate=0.5, epochs=4, milestones=(2, 3), batch_size=16)


def _trainer(epochs: int, **options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


def _copy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.items()}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_protocols_are_those_of_the_public_code():
    assert TrainingRecipe(2.0, 80, (50, 70), 1024, None, 0.9, 0.0) == LINEAR
    assert TrainingRecipe(0.01, 80, (50, 70), 64, (0.5, 1.0), 0.9, 0.0) == FINE_TUNING
    head = new_head(4096, 60, seed=3)
    assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
    assert float(head.weight.detach().mean()) == pytest.approx(0, abs=1e-4)
    assert not head.bias.detach().any()
    assert torch.equal(head.weight, new_head(4096, 60, seed=3).weight)
    assert not torch.equal(head.weight, new_head(4096, 60, seed=4).weight)


def test_live_and_cached_linear_training_agree_and_the_encoder_stays_as_it_was(module, data):
    before, tables = _copy(module.state_dict()), extract_tables(module, data)
    live = LinearEvaluation(module, NAMES, recipe=SHORT, seed=5)
    encoder = _copy(live.backbone.state_dict())
    trainer = _trainer(SHORT.epochs)
    trainer.fit(live, labelled_loader(data, None, SHORT.batch_size, seed=5))
    assert live.training
    assert not live.backbone.training

    stored = LinearEvaluation(module, NAMES, recipe=SHORT, seed=5)
    features = TensorDataset(tables.train, tables.train_labels)
    loader = DataLoader(features, SHORT.batch_size, sampler=EpochOrder(len(features), 5))
    _trainer(SHORT.epochs).fit(stored, loader)

    cached = linear_evaluation(
        tables, 3, epochs=4, milestones=SHORT.milestones, learning_rate=0.5, batch_size=16, seed=5
    ).classifier
    assert float((cached.weight.detach() - new_head(tables.train.shape[1], 3, 5).weight.detach()).abs().max()) > 0.01
    for classifier in (live, stored):
        torch.testing.assert_close(classifier.head.weight, cached.weight, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(classifier.head.bias, cached.bias, atol=1e-6, rtol=1e-5)
        assert _same(classifier.backbone.state_dict(), encoder)
    assert _same(module.state_dict(), before)
    assert all(parameter.requires_grad for parameter in module.query_encoder.parameters())

    (found,) = trainer.test(live, data.feature_dataloader("test"), verbose=False)
    expected = 100 * float((cached(tables.test).argmax(dim=1) == tables.test_labels).double().mean())
    assert found["test/top-1"] == pytest.approx(expected, abs=1e-4)
    assert found["test/top-5"] == 100  # of three classes


class _Features(nn.Module):
    """A foreign network: passes on features that arrive as clips of 32 joints."""

    feature_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.scale * clips.flatten(1)[:, :32]


@pytest.mark.parametrize("schedule", ["constant", "stepped"])
def test_the_lightning_module_reproduces_the_public_codes_training(fixture_arrays, schedule):
    recorded = fixture_arrays("knn_linear")
    classes = len(recorded["bias_init"])
    recipe = replace(
        LINEAR, epochs=int(recorded["epochs"]), batch_size=int(recorded["batch"]),
        learning_rate=float(recorded["lr"]), milestones=tuple(recorded[f"{schedule}/milestones"].tolist()),
    )  # fmt: skip
    foreign = Backbone(_Features(), layout="kinect-v2", num_bodies=1)
    classifier = LinearEvaluation(foreign, [str(i) for i in range(classes)], recipe=recipe)
    with torch.no_grad():
        classifier.head.weight.copy_(torch.tensor(recorded["weight_init"]))
        classifier.head.bias.copy_(torch.tensor(recorded["bias_init"]))
    sets = [
        TensorDataset(torch.tensor(recorded[f"{part}_feature"]), torch.tensor(recorded[f"{part}_label"]))
        for part in ("train", "test")
    ]

    class Recorded(EpochOrder):
        def __iter__(self):
            return iter(recorded["order"][self._epoch].tolist())

    train = DataLoader(sets[0], recipe.batch_size, sampler=Recorded(len(sets[0]), 0))
    _trainer(recipe.epochs).fit(classifier, train, DataLoader(sets[1], 16))
    weight = classifier.head.weight.detach()
    np.testing.assert_allclose(weight, recorded[f"{schedule}/weight_final"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(classifier.history, recorded[f"{schedule}/test_accuracy_per_epoch"], atol=1e-4, rtol=0)
    with pytest.raises(DataError, match="load it with load_from_checkpoint"):
        Backbone.rebuild(classifier.backbone.options)


def test_fine_tuning_changes_its_own_encoder_only_and_follows_from_the_seed(module, data):
    before = _copy(module.state_dict())
    recipe = replace(FINE_TUNING, epochs=5, milestones=(4,))
    chosen = labelled_subset(data.archive.labels[data.train_rows], 0.2, seed=0)
    assert len(chosen) == 7  # less than a batch
    found = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        classifier = SemiSupervisedEvaluation(module, NAMES, recipe=recipe, seed=seed)
        found[name] = fine_tune(classifier, data, chosen, test_every=2)
        assert len(classifier.history) == 2
        tuned = dict(classifier.backbone.network.named_parameters())
        kept = [name for name, weight in module.query_encoder.named_parameters() if torch.equal(weight, tuned[name])]
        assert 0 < len(kept) < len(tuned)  # the projections are not used downstream
        assert all(name.startswith("project") for name in kept), kept
    assert _same(module.state_dict(), before)
    assert torch.equal(found["first"].logits, found["again"].logits)
    assert not torch.allclose(found["first"].logits, found["other"].logits)
    assert found["first"].labels.tolist() == data.archive.labels[data.test_rows].tolist()
    last = 100 * float((found["first"].logits.argmax(dim=1) == found["first"].labels).double().mean())
    assert found["first"].best_accuracy >= last


def test_fine_tuning_lowers_the_loss_and_tells_the_classes_with_two_bodies_from_those_with_one(module, data):
    recipe = replace(FINE_TUNING, learning_rate=0.1, epochs=12, milestones=(10,), batch_size=12)
    classifier = SemiSupervisedEvaluation(module, NAMES, recipe=recipe)

    def loss() -> float:
        batches = list(data.feature_dataloader("train"))
        logits = torch.cat([classifier.predict(batch) for batch in batches])
        return float(F.cross_entropy(logits, torch.cat([batch.label for batch in batches])))

    before = loss()
    found = fine_tune(classifier, data, np.arange(data.num_samples), test_every=12)
    assert before == pytest.approx(np.log(3), abs=0.05)
    assert loss() < 0.8 * before
    assert torch.equal(found.logits.argmax(dim=1) == 2, found.labels == 2)


def test_random_crops_train_and_the_centre_crop_tests(module, data):
    (batch,) = list(data.feature_dataloader("test"))
    backbone = SemiSupervisedEvaluation(module, NAMES).backbone
    assert backbone.min_crop_frames == module.hparams["min_crop_frames"]
    torch.testing.assert_close(backbone.prepare(batch), module.prepare(batch))
    draw = torch.Generator().manual_seed(0)
    cropped = backbone.prepare(batch, (0.5, 1.0), draw)
    assert cropped.shape == module.prepare(batch).shape
    assert not torch.allclose(cropped, module.prepare(batch))
    assert torch.equal(cropped, backbone.prepare(batch, (0.5, 1.0), torch.Generator().manual_seed(0)))
    with pytest.raises(UsageError, match="trains on sequences"):
        SemiSupervisedEvaluation(module, NAMES).training_step((torch.zeros(2, 3), torch.zeros(2).long()), 0)


def test_a_labelled_subset_is_random_or_the_same_share_of_every_class():
    labels = np.repeat([0, 1, 2, -1], [300, 90, 10, 5])
    chosen = labelled_subset(labels, 0.1, seed=1)
    assert len(chosen) == int(400 * 0.1)
    assert (np.diff(chosen) > 0).all()
    assert (labels[chosen] >= 0).all()
    assert chosen.tolist() == labelled_subset(labels, 0.1, seed=1).tolist()
    assert chosen.tolist() != labelled_subset(labels, 0.1, seed=2).tolist()
    assert labelled_subset(labels, 1.0).tolist() == list(range(400))
    shares = [np.bincount(labels[labelled_subset(labels, f, "stratified", seed=1)]).tolist() for f in (0.1, 0.01)]
    assert shares == [[30, 9, 1], [3, 1, 1]]
    for fraction in (0.0, 1.5):
        with pytest.raises(UsageError, match="must be above 0 and at most 1"):
            labelled_subset(labels, fraction)
    with pytest.raises(UsageError, match=r"fraction 0.001 of 400 labelled training sequences is none"):
        labelled_subset(labels, 0.001)


def test_class_names_are_the_archives_and_not_only_those_that_occur():
    labels = np.array([0, 1, -1])
    assert class_names_of(("x", "y", "z"), labels) == ("x", "y", "z")
    assert class_names_of((), np.array([0, 3])) == ("0", "1", "2", "3")
    with pytest.raises(DataError, match="the data have 1 classes"):
        class_names_of((), np.array([0, 0]))


def test_a_classifier_is_one_file_that_needs_nothing_else(module, data, tmp_path):
    classifier = LinearEvaluation(module, NAMES, recipe=SHORT, seed=7, data=data.recipe)
    tables = extract_tables(module, data)
    assert classifier.keep_gallery(tables.train, data.archive.names[data.train_rows], tables.train_labels)
    path = save_classifier(classifier, tmp_path / "new" / "classifier.pt")
    assert [file.name for file in path.parent.iterdir()] == ["classifier.pt"]
    again = load_classifier(path)
    (batch,) = list(data.feature_dataloader("test"))
    assert not again.training
    assert torch.equal(again.predict(batch), classifier.predict(batch))
    assert again.predict(batch).shape == (12, 3)
    assert (again.class_names, again.recipe, again.frozen, again.num_bodies) == (NAMES, SHORT, True, 2)
    assert again.layout == data.layout
    assert again.data_recipe == data.recipe
    assert again.gallery_names == data.archive.names[data.train_rows].tolist()
    assert torch.equal(again.gallery_labels, tables.train_labels)
    torch.testing.assert_close(again.gallery_features.float(), tables.train, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again.embed(batch), tables.test)


def test_lightnings_own_checkpoint_of_a_classifier_loads_too(module, data, tmp_path):
    classifier = SemiSupervisedEvaluation(module, NAMES, recipe=replace(FINE_TUNING, epochs=1))
    trainer = _trainer(1)
    trainer.fit(classifier, labelled_loader(data, range(9), 4))
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    (batch,) = list(data.feature_dataloader("test"))
    again = load_classifier(tmp_path / "tuned.ckpt")
    assert torch.equal(again.predict(batch), classifier.predict(batch))
    assert again.gallery_features is None
    assert not again.frozen


def test_a_gallery_that_is_too_large_is_left_out(module, monkeypatch):
    monkeypatch.setattr("prosl_lightning.evaluation.classifier._GALLERY_BYTES", 2 * 4 * 5)
    classifier = LinearEvaluation(module, NAMES)
    assert not classifier.keep_gallery(torch.zeros(4, 6), ["x"] * 4, torch.zeros(4).long())
    assert classifier.gallery_features is None
    assert classifier.keep_gallery(torch.zeros(4, 5), ["x"] * 4, torch.zeros(4).long())


def test_what_is_not_a_classifier_is_refused(module, tmp_path):
    with pytest.raises(DataError, match="there is no classifier"):
        load_classifier(tmp_path / "gone.pt")
    trainer = _trainer(0)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "encoder.ckpt", weights_only=True)
    with pytest.raises(DataError, match=r"encoder\.ckpt is not a classifier; `prosl linear`"):
        load_classifier(tmp_path / "encoder.ckpt")
    path = save_classifier(LinearEvaluation(module, NAMES), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut\.pt is not a complete checkpoint"):
        load_classifier(tmp_path / "cut.pt")
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["head.bias"]
    torch.save(content, path)
    with pytest.raises(DataError, match=r"whole\.pt is an incomplete classifier"):
        load_classifier(path)
    with pytest.raises(UsageError, match="needs two classes"):
        LinearEvaluation(module, ["only"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_figures(module, data, tmp_path):
    logits = {}
    recipe = replace(FINE_TUNING, epochs=2, milestones=(1,), train_crop=None)
    for device in ("cpu", "cuda"):
        frozen = LinearEvaluation(module.to(device), NAMES, recipe=SHORT)
        tables = extract_tables(module, data)
        assert tables.train.device.type == device
        frozen.head.to(device)
        linear_evaluation(tables, 3, epochs=4, learning_rate=0.5, batch_size=16, classifier=frozen.head)
        tuned = SemiSupervisedEvaluation(module, NAMES, recipe=recipe)
        fine_tune(tuned, data, np.arange(data.num_samples))  # on the GPU in both rounds
        (batch,) = list(data.feature_dataloader("test"))
        for name, classifier in (("frozen", frozen), ("tuned", tuned)):
            again = load_classifier(save_classifier(classifier, tmp_path / f"{name}.pt"))
            logits[name, device] = again.predict(batch)
    for name in ("frozen", "tuned"):
        torch.testing.assert_close(logits[name, "cpu"], logits[name, "cuda"], atol=1e-3, rtol=1e-3)
