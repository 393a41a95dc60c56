"""Real recordings end to end: raw files or arrays -> archive -> both stages of training -> checkpoint -> evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning import Archive, ProSLModule, SkeletonDataModule
from prosl_lightning.cli import main
from prosl_lightning.data import prepare


def _train(archive: Path, folder: Path, options: dict, protocol: str, batch_size: int = 8) -> Path:
    """Two epochs, the second in the semantic stage, of a few steps each."""
    found = Archive.open(archive)
    pl.seed_everything(0, verbose=False)
    layout = {"layout": found.layout.to_plain(), "num_bodies": found.num_bodies}
    module = ProSLModule(**options | layout)
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=2, limit_train_batches=3, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=SkeletonDataModule(str(archive), protocol, batch_size=batch_size))
    assert module.stage == "semantic"
    assert all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())
    path = folder / "trained.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_raw_ntu_files_to_a_trained_checkpoint(shared_folder, tmp_path, tiny_options, capsys):
    raw = shared_folder / "data" / "raw-samples" / "ntu-skeleton"
    prepare.ntu60(str(raw), out=str(tmp_path / "ntu"))
    archive = Archive.open(tmp_path / "ntu")
    assert len(archive) == 23
    assert archive.num_bodies == 2
    train, test = archive.split("x-view")
    assert len(train) + len(test) == 23
    assert set(archive.columns["camera"][train]) <= {2, 3}
    checkpoint = _train(tmp_path / "ntu", tmp_path, tiny_options, "x-sub", batch_size=4)
    capsys.readouterr()
    assert main(["knn", "--ckpt", str(checkpoint), "--data.root", str(tmp_path / "ntu")]) == 0
    assert "top-1" in capsys.readouterr().out
    row = json.loads((tmp_path / "results.json").read_text())[0]
    assert row["protocol"]["split"] == "x-sub"
    assert row["protocol"]["train"] + row["protocol"]["test"] == 23


@pytest.mark.parametrize(
    ("name", "protocol", "joints", "bodies", "sizes"),
    [
        ("nw-ucla", "x-view", 20, 1, (1020, 464)),
        ("utd-mhad", "x-sub", 20, 1, (431, 430)),
        ("irds", "x-sub", 25, 1, (1250, 625)),
        ("kinder-gator", "x-sub", 20, 1, (580, 579)),
        ("sbu", "fold-1", 15, 2, None),
    ],
)
def test_real_arrays_to_a_trained_checkpoint(
    shared_folder, tmp_path, tiny_options, name, protocol, joints, bodies, sizes
):
    file = shared_folder / "data" / name / f"{name}.npz"
    prepare.arrays(str(file), out=str(tmp_path / name))
    archive = Archive.open(tmp_path / name)
    assert (archive.layout.num_joints, archive.num_bodies) == (joints, bodies)
    train, test = archive.split(protocol)
    if sizes is not None:
        assert (len(train), len(test)) == sizes
    _train(tmp_path / name, tmp_path, tiny_options, protocol)
