"""Loggers of `prosl fit`: CSV always, Weights & Biases offline with every number and figure, none when asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

TERMS = ("clip", "part", "temporal", "spatial", "instance", "kl", "semantic_query", "semantic_branch", "loss")
CODEBOOK = ("size_min", "size_max", "empty", "nmi", "ari", "pair_precision", "mean_cosine")


def _history(records: list[Any]) -> dict[str, list[Any]]:
    """All values logged under each name."""
    values: dict[str, list[Any]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                values.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    return values


def test_wandb_offline_gets_every_number_and_the_figures(fit, offline, tmp_path):
    result = fit(
        "--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true", "--trainer.logger.save_dir", "run"
    )
    assert result.code == 0, result.err
    assert (tmp_path / "run/logs/version_0/metrics.csv").is_file()
    assert (tmp_path / "run/logs/version_0/config.yaml").is_file()
    found = _history(offline(tmp_path / "run"))
    for name in TERMS:
        assert len(found[f"epoch/{name}"]) == (2 if name.startswith("semantic") else 3)
        assert f"train/{name}" in found
    assert sum(found[f"epoch/{name}"][-1] for name in TERMS[:-1]) == pytest.approx(found["epoch/loss"][-1], rel=1e-5)
    assert found["train/learning_rate"] == [0.01] * 6
    assert found["stage"] == [1, 2, 2]
    assert min(found["epoch/samples_per_second"]) > 0
    assert all(len(found[f"codebook/{name}"]) == 2 for name in CODEBOOK)
    assert len(found["codebook/churn"]) == 1
    for name, height in (("joint_importance", 540), ("cluster_sizes", 380)):
        assert found[f"figures/{name}/_type"] == ["images/separated"]
        assert found[f"figures/{name}/height"] == [height]
    images = [file.name for file in (tmp_path / "run/wandb").rglob("*.png") if "latest-run" not in file.parts]
    assert sorted(name.rsplit("_", 2)[0] for name in images) == ["cluster_sizes", "features", "joint_importance"]


def test_wandb_by_a_configuration_file_beside_a_csv_logger_of_the_users_own(fit, offline, tmp_path):
    (tmp_path / "loggers.yaml").write_text(
        "trainer:\n  max_epochs: 1\n  logger:\n"
        "  - {class_path: WandbLogger, init_args: {offline: true, save_dir: here, name: mine}}\n"
        "  - {class_path: CSVLogger, init_args: {save_dir: there, name: numbers}}\n"
    )
    result = fit("--config", "loggers.yaml")
    assert result.code == 0, result.err
    assert "epoch/loss" in _history(offline(tmp_path / "here"))
    assert (tmp_path / "there/numbers/version_0/metrics.csv").is_file()
    assert (tmp_path / "there/numbers/version_0/config.yaml").is_file()
    assert not (tmp_path / "run/logs").exists()


def test_no_logger_at_all(fit, tmp_path):
    assert fit("--trainer.logger", "false", "--trainer.max_epochs", 1).code == 0
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["checkpoints", "config.yaml"]


def test_wandb_that_is_not_installed_gives_the_line_that_installs_it(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, _, err = fit("--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true")
    assert (code, err) == (1, "prosl fit: error: wandb is not installed: pip install 'prosl-lightning[wandb]'\n")
    assert not Path("run").exists()


def test_what_another_logger_lacks_is_one_line(fit, monkeypatch):
    from pytorch_lightning.loggers import tensorboard

    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(sys.modules[tensorboard.TensorBoardLogger.__mro__[2].__module__], name, False)
    code, _, err = fit("--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "run")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "Neither `tensorboard` nor `tensorboardX` is available" in err
