"""What a training log collects, when it is read, and what it says about losses that are not finite."""

from __future__ import annotations

import math

import pytest
import torch

from prosl_lightning import ProSLModule
from prosl_lightning._lightning import pl, submodule
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.prosl import module as module_under_test
from prosl_lightning.prosl.divergence import is_finite, sample_names
from prosl_lightning.prosl.training_log import TrainingLog

MixedPrecision = submodule("plugins").MixedPrecision
NAN, INF = math.nan, math.inf


def _filled(*losses: float, first: int = 0) -> TrainingLog:
    log = TrainingLog()
    for step, loss in enumerate(losses, first):
        log.add(step, {"contrast": torch.tensor(1.0), "loss": torch.tensor(loss)}, torch.tensor([step, 10 + step]))
    return log


def test_means_are_over_all_steps_whenever_they_are_read():
    log = _filled(1.0, 2.0)
    assert len(log) == 2
    assert log.read() is None
    assert len(log) == 0
    log.add(2, {"contrast": torch.tensor(4.0), "loss": torch.tensor(6.0)}, torch.tensor([7]))
    assert log.read() is None
    assert log.latest == {"contrast": 4.0, "loss": 6.0}
    means = log.finish()
    assert (means["contrast"], means["loss"]) == (2.0, 3.0)
    assert means["samples_per_second"] > 0
    assert TrainingLog().finish() == {}


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_the_first_step_that_is_not_finite_is_found_with_its_rows(value):
    found = _filled(1.0, 1.0, value, NAN, first=5).read()
    assert (found.step, found.terms, found.is_latest) == (7, ("loss",), False)
    assert found.rows.tolist() == [7, 17]
    assert found.rows_before.tolist() == [6, 16]
    assert _filled(1.0, value).read().is_latest
    assert _filled(value).read().rows_before is None


def test_the_rows_are_those_of_the_step_even_if_their_tensor_is_used_again():
    log, index = TrainingLog(), torch.tensor([3, 4])
    log.add(0, {"loss": torch.tensor(NAN)}, index)
    index.fill_(0)
    assert log.read().rows.tolist() == [3, 4]


def test_with_a_loss_scaler_only_many_in_a_row_stop():
    log = _filled(1.0, NAN, INF, 3.0, NAN)
    assert log.read(patience=3) is None
    assert log.finish()["loss"] == 2.0  # those left out by the scaler do not count
    # The row goes on over readings; its first step is the one that is named.
    for step in (5, 6):
        log.add(step, {"contrast": torch.tensor(1.0), "loss": torch.tensor(NAN)}, torch.tensor([step]))
    found = log.read(patience=3)
    assert (found.step, found.rows.tolist(), found.rows_before.tolist()) == (4, [4, 14], [3, 13])


def test_losses_in_a_row_are_counted_over_the_ends_of_epochs():
    log = _filled(1.0, NAN)
    assert log.read(patience=3) is None
    assert log.without_finite_loss() is None
    log.start()
    for step in (2, 3):
        log.add(step, {"loss": torch.tensor(NAN)}, torch.tensor([step]))
    found = log.read(patience=3)
    assert (found.step, found.rows.tolist(), found.is_latest) == (1, [1, 11], False)


def test_an_epoch_without_a_finite_loss_is_found():
    log = _filled(NAN, INF)
    assert log.read(patience=20) is None
    found = log.without_finite_loss()
    assert (found.step, found.terms, found.rows.tolist()) == (0, ("loss",), [0, 10])
    assert _filled().without_finite_loss() is None
    assert log.last_batch("weights").rows.tolist() == [1, 11]


def test_other_metrics_may_be_undefined():
    log = TrainingLog()
    log.add(0, {"loss": torch.tensor(1.0), "share": torch.tensor(NAN)}, torch.tensor([0]))
    assert log.read() is None


def test_names_are_those_of_the_training_rows(tiny_archive):
    data = SkeletonDataModule(str(tiny_archive), "x-view")
    data.setup()
    archive = Archive.open(tiny_archive)
    rows = archive.split("x-view")[0]
    assert sample_names(data, torch.tensor([0, 5])) == [archive.names[rows[0]], archive.names[rows[5]]]
    assert sample_names(object(), torch.tensor([4])) == ["row 4"]


def test_finite_means_everywhere():
    good, bad = torch.ones(3, 4), torch.ones(5)
    assert is_finite([good, bad, torch.ones(0)])
    for value in (NAN, INF, -INF):
        bad[2] = value
        assert not is_finite([good, bad])


@pytest.mark.filterwarnings("ignore")
def test_keys_that_overflow_with_a_loss_scaler_stay_out_of_the_banks(tiny_archive, tiny_options, monkeypatch):
    original, rows = module_under_test.unit_projections, []

    def overflow(encoder, view):
        keys = original(encoder, view)
        rows.append(len(view))
        broken = {name: key.clone() for name, key in keys.items()}
        if len(rows) == 2:
            for key in broken.values():
                key[0] = INF
        return broken

    monkeypatch.setattr(module_under_test, "unit_projections", overflow)
    pl.seed_everything(0, verbose=False)
    module, data = ProSLModule(**tiny_options), SkeletonDataModule(str(tiny_archive), batch_size=8)
    scaler = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", plugins=[scaler], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert len(rows) == 4
    # Only the loss of the step itself is not finite: three have gone into the means.
    assert module._training_log._steps == 3
    assert is_finite(module.banks.buffers())
