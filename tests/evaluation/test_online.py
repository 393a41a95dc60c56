"""The online evaluation: what it logs, and that the training does not notice."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.evaluation.online import OnlineEvaluation
from prosl_lightning.prosl.extract import extract


class _Watch(Callback):
    """Keeps what was logged in each epoch, and the state of the global generator."""

    def __init__(self):
        self.logged, self.random = [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.random.append(torch.get_rng_state())

    def on_train_end(self, trainer, pl_module):
        self.random.append(torch.get_rng_state())
        self.last = {name: float(value) for name, value in trainer.callback_metrics.items()}


def _fit(folder, archive, options, *callbacks, epochs=2, unlabelled=0):
    pl.seed_everything(0, verbose=False)
    module, data = ProSLModule(**options), SkeletonDataModule(str(archive), batch_size=8, eval_batch_size=16)
    data.setup()
    data.archive.labels[data.train_rows[:unlabelled]] = -1
    watch = _Watch()
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[*callbacks, watch],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return module, data, watch


def test_the_training_is_bit_identical_with_and_without(tmp_path, tiny_archive, tiny_options):
    transformer = {"hidden_size": 16, "projection_size": 8, "num_heads": 2, "dropout": 0.3}
    options = tiny_options | {"base": "hico-transformer", "base_args": transformer}
    (plain, _, without), (watched, _, with_it) = (
        _fit(tmp_path, tiny_archive, options, *callbacks) for callbacks in ([], [OnlineEvaluation(1)])
    )
    assert set(with_it.last) - set(without.last) == {"online/knn", "online/linear"}
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert all(torch.equal(*states) for states in zip(without.random, with_it.random, strict=True))
    assert watched.query_encoder.training
    assert all(parameter.grad is None for parameter in watched.key_encoder.parameters())


def test_figures_are_those_of_the_split_and_the_encoder(tmp_path, tiny_archive, tiny_options):
    callback = OnlineEvaluation(2, held_out=0.25, seed=3)
    module, data, watch = _fit(tmp_path, tiny_archive, tiny_options | {"semantic": False}, callback)
    assert callback.evaluate(module.eval(), data) == pytest.approx(
        {name.removeprefix("online/"): value for name, value in watch.last.items() if name.startswith("online/")}
    )
    features, labels = extract(module, data.feature_dataloader(), module.embed, data.num_samples)
    asked = []
    inner = knn_accuracy

    def keep(*tables, k=1):
        asked.append(FeatureTables(*tables))
        return inner(*tables, k=k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prosl_lightning.evaluation.online.knn_accuracy", keep)
        callback.evaluate(module, data)
        callback.evaluate(module, data)
    assert torch.equal(asked[0].test, asked[1].test), "the split is drawn once"
    assert (len(asked[0].train), len(asked[0].test)) == (27, 9)
    both = torch.cat([asked[0].train, asked[0].test])
    assert torch.equal(both[both[:, 0].argsort()], features[features[:, 0].argsort()]), "the training set, all of it"
    assert torch.equal(torch.cat([asked[0].train_labels, asked[0].test_labels]).sort()[0], labels.sort()[0])


def test_few_sequences_are_embedded_and_unlabelled_ones_passed_over(tmp_path, tiny_archive, tiny_options):
    module, data = ProSLModule(**tiny_options).eval(), SkeletonDataModule(str(tiny_archive), eval_batch_size=16)
    data.setup()
    seen, embed = [], module.embed
    module.embed = lambda batch: (seen.append(len(batch.index)), embed(batch))[1]
    measures = OnlineEvaluation(max_sequences=10, linear=False).evaluate(module, data)
    assert (sum(seen), list(measures)) == (10, ["knn"])
    data.archive.labels[data.train_rows[::2]] = -1
    seen.clear()
    OnlineEvaluation(linear=False).evaluate(module, data)
    assert sum(seen) == data.num_samples // 2
    data.archive.labels[:] = -1
    with pytest.raises(UsageError, match="needs labels, and the training set has none"):
        OnlineEvaluation().evaluate(module, data)


def test_data_without_labels_are_refused_before_anything_is_trained(tmp_path, tiny_archive, tiny_options):
    watch = _Watch()
    with pytest.raises(UsageError, match="needs labels, and the training set has none: leave the callback out"):
        _fit(tmp_path, tiny_archive, tiny_options, OnlineEvaluation(2), watch, unlabelled=36)
    assert not watch.random, "no epoch was begun"
    _, _, watch = _fit(tmp_path, tiny_archive, tiny_options, OnlineEvaluation(2), unlabelled=34)
    assert {"online/knn", "online/linear"} <= set(watch.last), "two labels suffice, wherever they stand"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"every_n_epochs": 0}, "at least 1"), ({"held_out": 1.0}, "between 0 and 1"), ({"max_sequences": 1}, "least 2")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        OnlineEvaluation(**options)
