"""`prosl fit`: what a run writes and shows, resuming, and feeding its configuration back."""

from __future__ import annotations

import csv
import inspect
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from prosl_lightning import ProSLModule


def _state(path: str | Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def _assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_run_writes_its_log_configuration_and_checkpoints(fit, prosl, tiny_archive, tmp_path):
    result = fit("--trainer.max_epochs", 2, "--checkpoint_every", 1)
    assert result.code == 0, result.err
    files = {str(file.relative_to("run")) for file in Path("run").rglob("*") if file.is_file()}
    kept = {f"checkpoints/{name}.ckpt" for name in ("epoch-0000", "epoch-0001", "last")}
    assert files == kept | {f"logs/version_0/{name}" for name in ("metrics.csv", "hparams.yaml", "config.yaml")}
    rows = list(csv.DictReader(Path("run/logs/version_0/metrics.csv").read_text().splitlines()))
    assert sum(bool(row["train/loss"]) for row in rows) == 4
    assert sum(bool(row["epoch/loss"]) for row in rows) == 2

    # Its configuration, given again in the same folder, is the same run; a changed one is another
    first = _state("run/checkpoints/last.ckpt")
    options = torch.load("run/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    assert set(options) == set(inspect.signature(ProSLModule).parameters)
    saved = yaml.safe_load(Path("run/logs/version_0/config.yaml").read_text())
    assert saved["model"]["layout"] == "kinect-v2"
    assert saved["data"]["root"] == str(tiny_archive)
    assert prosl("fit", "--config", "run/logs/version_0/config.yaml").code == 0
    assert (tmp_path / "run/logs/version_1/config.yaml").is_file()
    _assert_same(first, _state("run/checkpoints/last.ckpt"))
    assert prosl("fit", "--config", "run/logs/version_0/config.yaml", "--seed_everything", 1).code == 0
    # Neither destroyed what the one before had left.
    _assert_same(first, _state("run/checkpoints-1/last.ckpt"))
    _assert_same(first, _state("run/checkpoints-2/last.ckpt"))
    changed = _state("run/checkpoints/last.ckpt")
    assert not torch.equal(first["banks.instance.features"], changed["banks.instance.features"])

    result = prosl("knn", "--ckpt", "run/checkpoints/last.ckpt", "--data.root", tiny_archive)
    assert result.code == 0, result.err
    assert "top-1" in result.out


def test_last_is_the_newest_complete_checkpoint_and_resuming_is_exact(fit, tmp_path):
    options = ("--trainer.max_epochs", 4, "--checkpoint_every", 1)
    assert fit(*options).code == 0
    whole = _state("run/checkpoints/last.ckpt")
    # As if the run had been killed in its third epoch, while it wrote a checkpoint
    shutil.copytree("run", "killed")
    (tmp_path / "killed/checkpoints/epoch-0003.ckpt").unlink()
    for name in ("epoch-0002", "last"):
        file = tmp_path / f"killed/checkpoints/{name}.ckpt"
        file.write_bytes(file.read_bytes()[:10000])
    result = fit(*options, "--trainer.default_root_dir", "killed", "--ckpt_path", "last")
    assert result.code == 0, result.err
    assert "going on from killed/checkpoints/epoch-0001.ckpt, 2 epochs done" in result.out
    assert result.err == ""
    _assert_same(whole, _state("killed/checkpoints/last.ckpt"))
    resumed = yaml.safe_load((tmp_path / "killed/logs/version_1/config.yaml").read_text())
    assert resumed.get("ckpt_path") is None

    result = fit(*options, "--ckpt_path", "last", "--model.temperature", 0.3)
    assert result.code == 0
    assert re.fullmatch(r"prosl fit: model.temperature was 0.2, is now 0.3 \((last|epoch-0003).ckpt\)\n", result.err)


def test_last_without_a_complete_checkpoint_is_an_error(fit, tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.ckpt").write_bytes(b"PK\x03\x04 cut off")
    result = fit("--ckpt_path", "last")
    assert result.code == 1
    assert "no complete checkpoint in run (found 1 incomplete file(s)); start without --ckpt_path" in result.err


def test_the_screen_shows_the_stage_and_nothing_useless(fit):
    result = fit("--trainer.enable_progress_bar", "true", "--trainer.max_epochs", 2)
    assert result.code == 0
    assert result.err == ""
    shown = result.out.replace("\r", "\n")
    assert "data   " in shown
    assert "36 sequences for training, 25 joints (kinect-v2), 2 bodies" in shown
    assert "run    run: max_epochs 2, semantic from epoch 1" in shown
    assert any("Epoch 0: 100%" in line and "stage=contrast" in line for line in shown.splitlines())
    assert any("Epoch 1: 100%" in line and "stage=semantic" in line for line in shown.splitlines())
    assert "v_num" not in shown
    assert (
        "run/checkpoints/last.ckpt: 2 of 2 epochs done; judge it:\n  prosl knn --ckpt run/checkpoints/last.ckpt"
        in shown
    )


def test_warnings_are_shown_without_the_code_they_come_from(fit):
    with pytest.warns(UserWarning, match="no sample passed the confidence threshold 0.9900 in epoch 1"):
        assert fit("--trainer.max_epochs", 2, "--model.confidence_threshold", 0.99).code == 0
    assert warnings.formatwarning("a hint", UserWarning, "file.py", 3) == "warning: a hint\n"


@pytest.mark.parametrize("stream", ["bone", "motion"])
def test_the_stream_of_the_data_is_that_of_the_model(fit, stream):
    assert fit("--data.stream", stream, "--trainer.max_epochs", 1).code == 0
    stored = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert stored["hyper_parameters"]["stream"] == stored["recipe"]["stream"] == stream


def test_callbacks_of_the_user_are_kept(fit):
    result = fit(
        "--trainer.max_epochs", 2, "--trainer.callbacks+=prosl_lightning.CodebookCallback",
        "--trainer.callbacks.backend", "torch", "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.dirpath", "mine", "--trainer.callbacks.filename", "own",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert [file.name for file in Path("mine").iterdir()] == ["own.ckpt"]
    assert not Path("run/checkpoints").exists()
    assert len(_state("mine/own.ckpt")["codebook.centroids"]) == 4
