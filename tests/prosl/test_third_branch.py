"""The arms of table 5: what `third_branch` changes in views, losses and the codebook."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from prosl_lightning import CodebookCallback, ProSLModule, SkeletonDataModule
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import UsageError
from prosl_lightning.prosl.importance import mask_probability, masking_weights


def _fit(folder: Path, archive: Path, options: dict, epochs: int = 2, ckpt_path: Path | None = None) -> ProSLModule:
    pl.seed_everything(0, verbose=False)
    module = ProSLModule(**options)
    kept = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, callbacks=[kept],
        enable_model_summary=False, log_every_n_steps=2, logger=CSVLogger(folder, name="", version=""),
    )  # fmt: skip
    trainer.fit(module, SkeletonDataModule(str(archive), batch_size=8, eval_batch_size=16), ckpt_path=ckpt_path)
    return module


def _row(folder: Path) -> dict[str, float]:
    """What was logged of the last epoch."""
    rows = [row for row in csv.DictReader((folder / "metrics.csv").open()) if row["epoch/loss"]]
    return {name.removeprefix("epoch/"): float(v) for name, v in rows[-1].items() if name.startswith("epoch/") and v}


def _same_weights(one: Path, other: Path) -> None:
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in (one, other))
    for name, value in first.items():
        assert name.startswith("codebook.") or torch.equal(value, second[name]), name


def test_without_a_third_branch_there_is_clustering_alone(tmp_path, tiny_archive, tiny_options, monkeypatch):
    monkeypatch.setattr(CodebookCallback, "_importance", lambda *_: pytest.fail("importance was measured"))
    module = _fit(tmp_path, tiny_archive, tiny_options | {"third_branch": "none"})
    assert module.stage == "semantic"
    assert module.codebook.importance.numel() == 0
    found = _row(tmp_path)
    assert {"kl", "semantic_branch", "confident_share_branch"}.isdisjoint(found)
    assert found["loss"] == pytest.approx(found["contrast"] + found["semantic_query"], rel=1e-5)
    assert 0 < found["excluded_share"] < 1
    first = next(row for row in csv.DictReader((tmp_path / "metrics.csv").open()) if row["epoch/loss"])
    assert float(first["epoch/loss"]) == pytest.approx(float(first["epoch/contrast"]), rel=1e-6)
    # Until the semantic stage it is the baseline.
    _fit(tmp_path / "baseline", tiny_archive, tiny_options | {"semantic": False}, 1)
    _same_weights(tmp_path / "epoch=0.ckpt", tmp_path / "baseline" / "epoch=0.ckpt")


def test_the_normal_branch_has_all_losses_and_needs_no_importance(tmp_path, tiny_archive, tiny_options, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(CodebookCallback, "_importance", lambda *_: pytest.fail("importance was measured"))
        module = _fit(tmp_path, tiny_archive, tiny_options | {"third_branch": "normal"})
    assert module.codebook.importance.numel() == 0
    found = _row(tmp_path)
    parts = ("contrast", "kl", "semantic_query", "semantic_branch")
    assert found["loss"] == pytest.approx(sum(found[name] for name in parts), rel=1e-5)
    # Until the semantic stage the arms are one and the same: a warm-up can be shared.
    _fit(tmp_path / "semantic", tiny_archive, tiny_options)
    _same_weights(tmp_path / "epoch=0.ckpt", tmp_path / "semantic" / "epoch=0.ckpt")
    # An arm that goes on from the other's checkpoint forgets what was measured.
    resumed = _fit(
        tmp_path / "on",
        tiny_archive,
        tiny_options | {"third_branch": "normal"},
        3,
        tmp_path / "semantic" / "epoch=0.ckpt",
    )
    assert resumed.codebook.importance.numel() == 0


def _masked(module: ProSLModule, count: int = 400) -> torch.Tensor:
    """How often each joint is hidden in the third view, (V,)."""
    batch = SkeletonBatch(
        torch.randn(count, 3, 20, 25, 2), torch.full((count,), 20), torch.arange(count), torch.zeros(count).long()
    )
    view = module.draw_views(batch, torch.Generator().manual_seed(0))[2]
    assert view is not None
    return (view == 0).all(dim=(1, 2, 4)).double().mean(dim=0)


@pytest.mark.parametrize("third_branch", ["semantic", "normal"])
def test_joints_are_masked_by_importance_or_all_alike(tiny_options, third_branch):
    options = {"third_branch": third_branch, "semantic_start": 0, "spatial_flip": False, "masked_joints": 5}
    module = ProSLModule(**tiny_options | options)
    module.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    module.codebook.importance = torch.cat([torch.full((5,), 0.01), torch.full((20,), 1.0)])
    uniform = pytest.approx([0.2] * 25, abs=0.07)
    assert _masked(module).tolist() == uniform  # the codebook is not built yet: first stage
    module.codebook.update(torch.randn(4, 8), torch.zeros(400, dtype=torch.int64))
    assert module.stage == "semantic"
    shares = _masked(module)
    if third_branch == "normal":
        assert shares.tolist() == uniform
    else:
        assert float(shares[:5].min()) > 0.9
        assert float(shares[5:].max()) < 0.1


def test_without_importances_there_are_no_masking_probabilities():
    assert mask_probability(torch.zeros(0)).shape == (0,)
    assert masking_weights(torch.zeros(0), 4, torch.arange(3)).tolist() == [0.25] * 4
    table = torch.tensor([[1.0, 1.0], [1.0, 3.0]])
    torch.testing.assert_close(
        masking_weights(table, 2, torch.tensor([1, 0])), torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    )


def test_an_unknown_third_branch_is_named():
    with pytest.raises(UsageError, match="third_branch is 'mask'; it must be one of semantic, normal, none"):
        ProSLModule(third_branch="mask")
