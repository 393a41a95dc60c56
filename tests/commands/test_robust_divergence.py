"""`prosl fit` when a loss or the state is not finite: what is told, what is kept, what never reaches a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from prosl_lightning import ProSLModule
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.archive_writer import FRAMES, HEADER_BYTES
from prosl_lightning.prosl import logged
from prosl_lightning.prosl.checkpoint_io import newest_checkpoint


def _stored(path: str | Path) -> dict:
    return torch.load(path, weights_only=True)


def _break_at(monkeypatch, epoch: int, position: int, value: float = float("nan")) -> list[torch.Tensor]:
    """Make the loss of one step `value`; gives the rows of every batch."""
    losses, seen = ProSLModule.losses, []

    def broken(self, query_view, key_view, semantic_view, index, *rest):
        seen.append(index.clone())
        metrics = losses(self, query_view, key_view, semantic_view, index, *rest)
        if self.current_epoch == epoch and self.trainer.fit_loop.epoch_loop.batch_idx == position:
            metrics |= {"loss": metrics["loss"] * value, "instance": metrics["contrast"] * value}
        return metrics

    monkeypatch.setattr(ProSLModule, "losses", broken)
    return seen


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_names_of_its_batch(fit, monkeypatch, tiny_archive, value):
    with monkeypatch.context() as patch:
        seen = _break_at(patch, epoch=1, position=1, value=value)
        result = fit("--data.batch_size", 12)
    assert result.code == 1
    assert len(seen) == 3 + 2  # not one step more
    archive = Archive.open(tiny_archive)
    names = [str(name) for name in archive.names[archive.split("x-sub")[0][seen[-1].numpy()]]]
    told, saved = result.err.strip().splitlines()
    assert told == (
        "prosl fit: error: the loss is not finite in epoch 1 (step 4: loss, instance): lower the learning rate, or "
        f"look at its samples: {', '.join(names[:10])} and 2 more"
    )
    diverged = Path("run/checkpoints/diverged.pt").resolve()
    assert saved == (
        f"state and all names: {diverged}; run/checkpoints/last.ckpt is complete: go on with a lower learning rate or "
        "repaired data and --ckpt_path last"
    )

    state = _stored("run/checkpoints/diverged.pt")
    assert state["diverged"]["names"] == names
    assert state["diverged"]["rows"].tolist() == seen[-1].tolist()
    assert state["recipe"]["protocol"] == "x-sub"
    # The state can be opened, and is that of the step: the weights are still good.
    module = ProSLModule.load_from_checkpoint("run/checkpoints/diverged.pt")
    assert all(bool(parameter.isfinite().all()) for parameter in module.parameters())

    # The last good checkpoint is what `last` means, and the run can be finished from it.
    assert _stored("run/checkpoints/last.ckpt")["epoch"] == 0
    assert newest_checkpoint(Path("run")).name == "last.ckpt"

    # What was kept of the divergence stays until the run has gone on past it.
    assert fit("--data.batch_size", 12, "--ckpt_path", "last", "--trainer.max_epochs", 1).code == 0
    assert diverged.exists()
    assert fit("--data.batch_size", 12, "--ckpt_path", "last", "--trainer.max_epochs", 2).code == 0
    assert not diverged.exists()


def test_a_divergence_before_the_first_checkpoint_says_so(fit, monkeypatch):
    _break_at(monkeypatch, epoch=0, position=1)
    result = fit()
    assert result.code == 1
    assert result.err.endswith(
        "; there is no checkpoint yet: start again with a lower learning rate or repaired data, without --ckpt_path\n"
    )


def test_samples_whose_own_joints_are_not_finite_are_named_alone(fit, monkeypatch, tiny_archive, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_archive, broken)
    archive = Archive.open(broken)
    row, dtype, start = int(archive.split("x-sub")[0][3]), archive.frames.dtype, archive.offsets
    frames = np.memmap(broken / FRAMES, dtype, "r+", offset=HEADER_BYTES)
    frames[int(start[row]) * archive.frames[0].size] = np.nan
    frames.flush()
    monkeypatch.setattr(Archive, "verify", lambda self: None)
    result = fit("--data.root", broken)
    assert result.code == 1
    name = archive.names[row]
    assert f": the joints of some of its samples are not finite either; repair {name}\n" in result.err
    assert "with repaired data, without --ckpt_path" in result.err
    found = _stored("run/checkpoints/diverged.pt")["diverged"]
    assert (found["broken_names"], len(found["names"])) == ([name], 8)


def _scaled(monkeypatch) -> None:
    """As if there were a loss scaler, which a CPU has not."""
    monkeypatch.setattr(logged.LoggedModule, "_patience", property(lambda self: 20))


def test_with_a_loss_scaler_an_epoch_without_a_finite_loss_stops(fit, monkeypatch):
    _scaled(monkeypatch)
    losses = ProSLModule.losses

    def broken(self, *views_and_index):
        metrics = losses(self, *views_and_index)
        return metrics | {"loss": metrics["loss"] * (float("nan") if self.current_epoch == 1 else 1)}

    def skip(self, *_):
        if self.current_epoch == 1:
            self.zero_grad()

    monkeypatch.setattr(ProSLModule, "losses", broken)
    monkeypatch.setattr(ProSLModule, "on_before_optimizer_step", skip)
    result = fit()
    assert result.code == 1
    assert "the loss is not finite in epoch 1 (step 4: loss)" in result.err
    assert _stored("run/checkpoints/last.ckpt")["epoch"] == 0


def test_a_bank_that_is_not_finite_does_not_reach_a_checkpoint(fit, monkeypatch):
    step = ProSLModule.training_step

    def broken(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        if self.current_epoch == 1:
            self.banks["instance"].features[0] = float("inf")
        return loss

    _scaled(monkeypatch)
    monkeypatch.setattr(ProSLModule, "training_step", broken)
    result = fit("--data.batch_size", 36, "--model.bank_size", 64)
    assert result.code == 1
    assert "the state is not finite in epoch 1 (step 1: banks.instance.features)" in result.err
    assert _stored("run/checkpoints/last.ckpt")["epoch"] == 0


def test_an_update_that_breaks_the_weights_is_blamed_on_its_own_batch(fit, monkeypatch):
    seen, step = [], ProSLModule.losses

    def watched(self, *views_and_index):
        seen.append(views_and_index[3].clone())
        return step(self, *views_and_index)

    def infinite(self, *_):
        if len(seen) == 3:
            next(self.query_encoder.parameters()).grad.fill_(float("inf"))

    monkeypatch.setattr(ProSLModule, "losses", watched)
    monkeypatch.setattr(ProSLModule, "on_before_optimizer_step", infinite)
    result = fit("--data.batch_size", 8)
    assert result.code == 1
    assert "not finite in epoch 0 (step 3: " in result.err
    assert "after an update that broke the weights" in result.err
    assert _stored("run/checkpoints/diverged.pt")["diverged"]["rows"].tolist() == seen[2].tolist()


def test_weights_broken_by_an_epochs_last_update_do_not_reach_a_checkpoint(fit, monkeypatch):
    def infinite(self, *_):
        if self.global_step == 7:  # the last of the second epoch
            next(self.query_encoder.parameters()).grad.fill_(float("inf"))

    monkeypatch.setattr(ProSLModule, "on_before_optimizer_step", infinite)
    result = fit("--data.batch_size", 8)
    assert result.code == 1
    assert "the weights are not finite in epoch 1 (step 7: weights)" in result.err
    assert _stored("run/checkpoints/last.ckpt")["epoch"] == 0
