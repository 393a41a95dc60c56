"""ProSLModule under a Trainer: stages, logs, checkpoints, resuming, other people's data modules."""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from prosl_lightning import CodebookCallback, ProSLModule, SkeletonDataModule
from prosl_lightning.errors import DataError, UsageError


def _trainer(folder: Path, epochs: int, *callbacks: Callback, **options) -> pl.Trainer:
    every = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)
    return pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=2, callbacks=[every, *callbacks],
        logger=options.pop("logger", False), **options,
    )  # fmt: skip


def _fit(folder: Path, archive: Path, options: dict, epochs: int, *callbacks, ckpt_path=None, **trainer) -> ProSLModule:
    pl.seed_everything(0, verbose=False)
    module = ProSLModule(**options)
    data = SkeletonDataModule(str(archive), batch_size=8, eval_batch_size=16)
    _trainer(folder, epochs, *callbacks, **trainer).fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module


class _Watch(Callback):
    """Remembers the stage and the codebook's state in each epoch."""

    def __init__(self):
        self.stages, self.assignments = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.stages.append(pl_module.stage)
            self.assignments.append(pl_module.codebook.assignment.clone())


def test_stages_follow_the_schedule_and_the_codebook_is_rebuilt(tmp_path, tiny_archive, tiny_options):
    watch = _Watch()
    module = _fit(tmp_path, tiny_archive, tiny_options, 4, watch)
    assert watch.stages == ["contrast", "semantic", "semantic", "semantic"]
    assert [len(assignment) for assignment in watch.assignments] == [0, 36, 36, 36]
    assert set(watch.assignments[1].tolist()) <= set(range(4))
    assert module.codebook.importance.shape == (25,)
    assert float(module.codebook.importance.min()) >= 0
    # Key encoder: a moving average, neither the query's weights nor where it began
    query, key = (torch.cat([p.flatten() for p in e.parameters()]) for e in (module.query_encoder, module.key_encoder))
    assert not torch.equal(query, key)
    assert all(not p.requires_grad for p in module.key_encoder.parameters())


@pytest.mark.parametrize("base", ["hico-gru", "hico-transformer"])
@pytest.mark.parametrize("importance", ["dataset", "sample"])
def test_a_resumed_run_is_bit_identical(tmp_path, tiny_archive, tiny_options, base, importance):
    options = tiny_options | {"base": base, "importance": importance}
    if base == "hico-transformer":
        options["base_args"] = {"hidden_size": 16, "projection_size": 8, "num_heads": 2, "dropout": 0.3}
    whole = _fit(tmp_path / "whole", tiny_archive, options, 4)
    for stop in (1, 2):  # at the end of the warm-up, and within the semantic stage
        checkpoint = tmp_path / "whole" / f"epoch={stop - 1}.ckpt"
        resumed = _fit(tmp_path / f"from{stop}", tiny_archive, options, 4, ckpt_path=checkpoint)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), (stop, name)


def test_a_resumed_run_follows_the_schedule_it_is_given(tmp_path, tiny_archive, tiny_options):
    _fit(tmp_path, tiny_archive, tiny_options, 2)
    changed = tiny_options | {"learning_rate": 0.5, "milestones": (1, 3), "weight_decay": 0.0, "sgd_momentum": 0.5}
    rates = []

    class Watch(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            group = trainer.optimizers[0].param_groups[0]
            rates.append((group["lr"], group["momentum"], group["weight_decay"]))

    _fit(tmp_path / "on", tiny_archive, changed, 4, Watch(), ckpt_path=tmp_path / "epoch=1.ckpt")
    assert rates == [(pytest.approx(0.05), 0.5, 0.0), (pytest.approx(0.005), 0.5, 0.0)]


def test_a_prolonged_run_gets_the_codebook_that_its_end_had_no_need_for(tmp_path, tiny_archive, tiny_options):
    whole = _fit(tmp_path / "whole", tiny_archive, tiny_options, 3)
    short = _fit(tmp_path / "short", tiny_archive, tiny_options, 2)
    assert int(short.codebook.epoch) == 1
    prolonged = _fit(tmp_path / "on", tiny_archive, tiny_options, 3, ckpt_path=tmp_path / "short" / "epoch=1.ckpt")
    assert int(prolonged.codebook.epoch) == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, prolonged.state_dict()[name]), name


def test_dropout_is_drawn_anew_in_each_step_and_leaves_the_global_generator_alone(tiny_archive, tiny_options):
    pl.seed_everything(0, verbose=False)
    transformer = {"base": "hico-transformer", "base_args": {"hidden_size": 16, "num_heads": 2, "dropout": 0.5}}
    module = ProSLModule(**tiny_options | transformer | {"semantic": False})
    module.trainer = pl.Trainer(logger=False, enable_checkpointing=False)
    batch = next(iter(_data(tiny_archive).train_dataloader()))
    before, banks = torch.get_rng_state(), copy.deepcopy(module.banks.state_dict())
    views = module.draw_views(batch, torch.Generator().manual_seed(0))
    module.draw_views = lambda *_: views
    losses = []
    for step in (0, 1, 0):
        module.banks.load_state_dict(banks)
        module.key_encoder.load_state_dict(module.query_encoder.state_dict())
        losses.append(float(module.training_step(batch, step).detach()))
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_checkpoints_open_with_weights_only_and_rebuild_the_module(tmp_path, tiny_archive, tiny_options):
    module = _fit(tmp_path, tiny_archive, tiny_options, 2)
    path = tmp_path / "epoch=1.ckpt"
    content = torch.load(path, weights_only=True)
    assert content["recipe"]["protocol"] == "x-sub"
    assert content["recipe"]["class_names"] == ["a", "b", "c"]
    assert content["recipe"]["layout"] == "kinect-v2"
    loaded = ProSLModule.load_from_checkpoint(path)
    for name, value in module.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_every_term_and_diagnostic_reaches_the_log(tmp_path, tiny_archive, tiny_options):
    logger = CSVLogger(tmp_path)
    _fit(tmp_path, tiny_archive, tiny_options, 3, logger=logger)
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    terms = ("clip", "part", "temporal", "spatial", "instance")
    last = [row for row in rows if row["epoch/loss"]][-1]
    total = sum(float(last[f"epoch/{name}"]) for name in (*terms, "kl", "semantic_query", "semantic_branch"))
    assert float(last["epoch/loss"]) == pytest.approx(total, rel=1e-5)
    assert float(last["epoch/contrast"]) == pytest.approx(sum(float(last[f"epoch/{name}"]) for name in terms), rel=1e-5)
    assert 0 < float(last["epoch/excluded_share"]) < 1
    assert float(last["stage"]) == 2
    assert float(last["epoch/samples_per_second"]) > 0
    steps = [row for row in rows if row["train/loss"]]
    assert len(steps) == 3 * 4 // 2
    assert {float(row["train/learning_rate"]) for row in steps} == {0.01}
    codebook = [row for row in rows if row["codebook/nmi"]]
    assert [int(row["epoch"]) for row in codebook] == [1, 2]
    assert codebook[0]["codebook/churn"] == ""  # the first has none before it
    assert 0 <= float(codebook[-1]["codebook/churn"]) <= 1
    assert float(codebook[-1]["codebook/size_max"]) >= 36 / 4


def test_the_baseline_is_one_flag(tmp_path, tiny_archive, tiny_options):
    module = _fit(tmp_path, tiny_archive, tiny_options | {"semantic": False}, 2)
    assert module.stage == "contrast"
    assert not module.codebook.is_built
    draw = torch.Generator().manual_seed(0)
    batch = next(iter(_data(tiny_archive).train_dataloader()))
    assert module.draw_views(batch, draw)[2] is None


def _data(archive: Path) -> SkeletonDataModule:
    data = SkeletonDataModule(str(archive), batch_size=8)
    data.setup()
    return data


def test_the_users_own_codebook_callback_wins(tmp_path, tiny_archive, tiny_options):
    own = CodebookCallback(backend="torch")
    _fit(tmp_path, tiny_archive, tiny_options, 2, own)
    trainer = pl.Trainer(default_root_dir=tmp_path, callbacks=[own], logger=False, enable_checkpointing=False)
    module = ProSLModule(**tiny_options)
    module.trainer = trainer
    assert not any(isinstance(callback, CodebookCallback) for callback in module.configure_callbacks())


class _Foreign(pl.LightningDataModule):
    """Someone else's data module: the contract and nothing more."""

    def __init__(self, inner: SkeletonDataModule):
        super().__init__()
        self._inner, self.num_samples = inner, inner.num_samples

    def train_dataloader(self):
        return self._inner.train_dataloader()

    def feature_dataloader(self):
        return self._inner.feature_dataloader()


def test_a_foreign_data_module_needs_only_the_contract(tmp_path, tiny_archive, tiny_options):
    module = ProSLModule(**tiny_options)
    _trainer(tmp_path, 2).fit(module, datamodule=_Foreign(_data(tiny_archive)))
    assert len(module.codebook.assignment) == 36
    with pytest.raises(UsageError, match="feature_dataloader"):
        _trainer(tmp_path, 2).fit(ProSLModule(**tiny_options), _data(tiny_archive).train_dataloader())


def test_training_starts_from_another_runs_weights(tmp_path, tiny_archive, tiny_options):
    first = _fit(tmp_path, tiny_archive, tiny_options | {"semantic": False}, 1)
    path = str(tmp_path / "epoch=0.ckpt")

    class Stop(Callback):
        def on_train_start(self, trainer, pl_module):
            self.weights = {k: v.clone() for k, v in pl_module.state_dict().items()}
            trainer.should_stop = True

    stop = Stop()
    _fit(tmp_path / "second", tiny_archive, tiny_options | {"init_from": path}, 1, stop)
    for name, value in first.query_encoder.state_dict().items():
        assert torch.equal(stop.weights[f"query_encoder.{name}"], value)
        assert torch.equal(stop.weights[f"key_encoder.{name}"], value)
    other = tiny_options | {"init_from": path, "base_args": {"hidden_size": 24, "num_layers": 1}}
    with pytest.raises(DataError, match="init_from: the encoder in .* does not fit"):
        _fit(tmp_path / "third", tiny_archive, other, 1)


def test_an_empty_confident_set_warns_once_with_the_cause(tmp_path, tiny_archive, tiny_options):
    options = tiny_options | {"confidence_threshold": 0.99}
    with pytest.warns(UserWarning, match="reaches only 0.4754; set confidence_threshold to 'relative'") as record:
        module = _fit(tmp_path, tiny_archive, options, 4)
    assert sum("no sample passed" in str(warning.message) for warning in record) == 1
    assert np.isfinite(torch.cat([p.flatten() for p in module.parameters()]).detach().numpy()).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "kinect-v1"}, "layout 'kinect-v1' .20 joints.* 'kinect-v2' .25 joints"),
        ({"num_bodies": 1}, "num_bodies=1.*num_bodies=2"),
        ({"stream": "bone"}, "stream=bone.*stream=joint"),
        ({"num_clusters": 37}, "num_clusters is 37 .* only 36"),
        ({"bank_size": 4}, "batch_size is 8, more than bank_size 4"),
    ],
)
def test_data_that_do_not_fit_the_model_are_named(tmp_path, tiny_archive, tiny_options, change, message):
    with pytest.raises((DataError, UsageError), match=message):
        _fit(tmp_path, tiny_archive, tiny_options | change, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "hico-lstn"}, "unknown base method 'hico-lstn': known are hico-lstm"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"stream": "joints"}, "stream is 'joints'; it must be one of joint, bone, motion"),
        ({"masked_joints": 25}, "masked_joints is 25; layout 'kinect-v2' allows 1 to 24"),
        ({"crop_ratio": (0.5, 0.1)}, "crop_ratio"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; it must not be negative"),
        ({"semantic_start": -1}, "semantic_start is -1"),
        ({"milestones": (-3,)}, "milestones are"),
        ({"confidence_threshold": 2.0}, "confidence_threshold is 2.0"),
        ({"confidence_threshold": "relative", "num_clusters": 3}, "'relative' cannot be reached with num_clusters 3"),
        ({"base_args": {"hiden_size": 8}}, "hiden_size"),
        ({"layout": "kinect-v3"}, "unknown layout 'kinect-v3'"),
    ],
)
def test_wrong_options_are_named(change, message):
    with pytest.raises(UsageError, match=message):
        ProSLModule(**change)


def test_a_training_set_smaller_than_a_batch_is_an_error(tmp_path, tiny_archive, tiny_options):
    data = SkeletonDataModule(str(tiny_archive), batch_size=37)
    with pytest.raises(UsageError, match="batch_size is 37 .* only 36 sequences"):
        _trainer(tmp_path, 1).fit(ProSLModule(**tiny_options | {"bank_size": 64}), datamodule=data)


def test_a_new_fit_forgets_the_codebook_of_the_last(tmp_path, tiny_archive, tiny_options):
    module = ProSLModule(**tiny_options | {"semantic_start": 0})
    fits = []
    for protocol in ("x-sub", "x-view"):
        data = SkeletonDataModule(str(tiny_archive), protocol, batch_size=8)
        _trainer(tmp_path / protocol, 1).fit(module, datamodule=data)
        fits.append(len(module.codebook.assignment))
    assert fits == [36, 24]


def test_a_checkpoint_of_other_data_is_refused_in_python_too(tmp_path, tiny_archive, tiny_options):
    _fit(tmp_path, tiny_archive, tiny_options, 2)
    data = SkeletonDataModule(str(tiny_archive), "x-view", batch_size=8)
    with pytest.raises(DataError, match="codebook is of 36 training samples, the data have 24"):
        _trainer(tmp_path / "on", 3).fit(
            ProSLModule(**tiny_options), datamodule=data, ckpt_path=tmp_path / "epoch=1.ckpt"
        )


def test_a_diverged_run_stops_after_its_epoch(tmp_path, tiny_archive, tiny_options):
    with pytest.raises(DataError, match=r"the loss is not finite in epoch \d .*lower the learning rate"):
        _fit(tmp_path, tiny_archive, tiny_options | {"semantic": False, "learning_rate": 1e6, "milestones": ()}, 4)


def test_accumulated_batches_are_logged_once_a_step(tmp_path, tiny_archive, tiny_options):
    logger = CSVLogger(tmp_path)
    _fit(tmp_path, tiny_archive, tiny_options, 2, logger=logger, accumulate_grad_batches=2)
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    steps = [row["step"] for row in rows if row["train/loss"]]
    assert len(steps) == len(set(steps)) == 2


def test_mixed_precision_trains_through_both_stages(tmp_path, tiny_archive, tiny_options):
    module = _fit(tmp_path, tiny_archive, tiny_options, 2, precision="bf16-mixed")
    assert module.stage == "semantic"
    assert all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())
    with pytest.raises(UsageError, match="precision is bf16-true; ProSLModule trains in 32-true"):
        _fit(tmp_path, tiny_archive, tiny_options, 2, precision="bf16-true")


@pytest.mark.parametrize("importance", ["dataset", "sample"])
def test_importance_is_measured_on_the_sequences_that_were_drawn(tmp_path, tiny_archive, tiny_options, importance):
    options = tiny_options | {"importance": importance, "importance_samples": 1, "semantic_start": 0}
    module = _fit(tmp_path, tiny_archive, options, 1)
    assert module.codebook.importance.shape == ((25,) if importance == "dataset" else (36, 25))
    assert bool((module.codebook.importance.amax(dim=-1) > 0).all())


def test_losses_are_float32_in_mixed_precision(tiny_archive, tiny_options):
    pl.seed_everything(0, verbose=False)
    module = ProSLModule(**tiny_options | {"semantic": False})
    batch = next(iter(_data(tiny_archive).train_dataloader()))
    query, key, _ = module.draw_views(batch, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module.losses(query, key, None, batch.index)
    assert {loss.dtype for loss in mixed.values()} == {torch.float32}
    assert {bank.features.dtype for bank in module.banks.values()} == {torch.float32}


def test_epochs_cut_short_by_max_steps_are_logged(tmp_path, tiny_archive, tiny_options):
    logger = CSVLogger(tmp_path)
    _fit(tmp_path, tiny_archive, tiny_options, 2, logger=logger, max_steps=2)
    rows = list(csv.DictReader((Path(logger.log_dir) / "metrics.csv").open()))
    assert sum(bool(row.get("epoch/loss")) for row in rows) == 1


class _Tuples(_Foreign):
    def train_dataloader(self):
        return [tuple(batch) for batch in self._inner.train_dataloader()]


def test_batches_of_another_form_are_named(tmp_path, tiny_archive, tiny_options):
    with pytest.raises(DataError, match="yields (tuple|list); ProSLModule takes SkeletonBatch"):
        _trainer(tmp_path, 1).fit(ProSLModule(**tiny_options), datamodule=_Tuples(_data(tiny_archive)))


def test_a_bank_that_remembers_the_whole_training_set_is_warned_of(tmp_path, tiny_archive, tiny_options, recwarn):
    _fit(tmp_path, tiny_archive, tiny_options | {"semantic": False, "bank_size": 35}, 1)
    told = "bank_size is 36 and the training set has 36 sequences: each meets its own last key .* e.g. 9"
    assert not [warning for warning in recwarn if "bank_size" in str(warning.message)]
    with pytest.warns(UserWarning, match=told):
        _fit(tmp_path, tiny_archive, tiny_options | {"semantic": False, "bank_size": 36}, 1)


class _Starts(CodebookCallback):
    """Notes what every clustering starts from."""

    def __init__(self, **options):
        super().__init__("torch", **options)
        self.starts = []

    def cluster(self, features, classes, num_clusters, start, seed):
        self.starts.append(start)
        return super().cluster(features, classes, num_clusters, start, seed)


def test_clusters_are_sought_anew_or_from_the_last_centroids(tmp_path, tiny_archive, tiny_options):
    warm, anew = _Starts(), _Starts(anew=True)
    _fit(tmp_path / "warm", tiny_archive, tiny_options, 4, warm)
    _fit(tmp_path / "anew", tiny_archive, tiny_options, 4, anew)
    assert [start is None for start in warm.starts] == [True, False, False]
    assert anew.starts == [None, None, None]
