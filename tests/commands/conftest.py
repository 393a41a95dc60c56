"""The command line in this process, on tiny archives, in a folder of its own."""

from __future__ import annotations

import shutil
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from prosl_lightning.cli import main

# A model that trains in a second on `tiny_archive`, whatever the configuration says.
TINY = """
trainer: {accelerator: cpu, max_epochs: 3, log_every_n_steps: 2, default_root_dir: run, enable_progress_bar: false}
data: {batch_size: 8, eval_batch_size: 16}
model:
  base: hico-gru
  base_args: {hidden_size: 16, num_layers: 1, projection_size: 8}
  num_frames: 16
  min_crop_frames: 8
  bank_size: 32
  momentum: 0.9
  semantic_start: 1
  num_clusters: 4
  confidence_threshold: relative
  importance_samples: 8
  milestones: [3]
"""


class Result(NamedTuple):
    """What a command line gave back."""

    code: int
    out: str
    err: str


@pytest.fixture
def prosl(capfd, monkeypatch, tmp_path) -> Callable[..., Result]:
    """Run `prosl ARGUMENTS` in an empty folder and return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROSL_DEBUG", raising=False)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # `prosl fit` sets its own
    (tmp_path / "tiny.yaml").write_text(TINY)

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture
def fit(prosl, tiny_archive) -> Callable[..., Result]:
    """Run `prosl fit` with the tiny model on the tiny archive, and further arguments after these."""
    return lambda *arguments: prosl("fit", "--config", "tiny.yaml", "--data.root", tiny_archive, *arguments)


@pytest.fixture(scope="session")
def other_archive(tmp_path_factory) -> Path:
    """24 sequences of one body with 20 joints."""
    from prosl_lightning.data.archive import ArchiveWriter
    from prosl_lightning.skeleton import SkeletonLayout

    root, draw = tmp_path_factory.mktemp("data") / "other", np.random.default_rng(0)
    with ArchiveWriter(
        root, layout=SkeletonLayout.of("kinect-v1"), num_bodies=1, class_names=("a", "b"),
        protocols={"x-sub": {"column": "subject", "train": [0, 1]}},
    ) as writer:  # fmt: skip
        for i in range(24):
            writer.add(f"clip{i}", draw.normal(size=(20, 20, 1, 3)), label=i % 2, subject=i % 3)
    return root


@pytest.fixture
def ckpt(fit, tmp_path) -> Path:
    """A checkpoint of one epoch on `tiny_archive`, alone in a folder."""
    assert fit("--trainer.max_epochs", 1).code == 0
    path = tmp_path / "alone" / "last.ckpt"
    path.parent.mkdir()
    shutil.move(tmp_path / "run" / "checkpoints" / "last.ckpt", path)
    return path


@pytest.fixture
def raw(tmp_path) -> Path:
    """24 short recordings of one standing person, 25 joints, three classes that move different limbs."""
    draw = np.random.default_rng(0)
    rest, joints, lengths = draw.normal(size=(1, 25, 3)) * 0.4, [], []
    for i in range(24):
        frames = 20 + i
        clip = np.tile(rest + np.array([0, 0, 3]), (frames, 1, 1, 1))
        moving = slice(4 + 4 * (i % 3), 8 + 4 * (i % 3))
        clip[:, 0, moving, i % 3] += np.sin(np.linspace(0, 9, frames))[:, None]
        joints.append(clip + draw.normal(size=clip.shape) * 0.01)
        lengths.append(frames)
    np.savez(
        tmp_path / "raw.npz", joints=np.concatenate(joints).astype(np.float32), lengths=np.array(lengths),
        labels=np.arange(24) % 3, subject=np.arange(24) // 6,
    )  # fmt: skip
    return tmp_path / "raw.npz"


@pytest.fixture
def archive(prosl, raw) -> Path:
    Path("classes.txt").write_text("wave\nkick\nbow\n")
    found = prosl("prepare", "arrays", raw, "--layout", "kinect-v2", "--num_bodies", 2, "--class_names", "classes.txt",
                  "--protocol", "x-sub:subject=0,1,2", "--dtype", "float32", "--out", "archive")  # fmt: skip
    assert found.code == 0, found.err
    return Path("archive").absolute()


@pytest.fixture
def checkpoint(archive, tiny_options, tmp_path) -> Path:
    """As `prosl fit` writes it, untrained: what comes out matters here, not how good it is."""
    import torch

    from prosl_lightning import ProSLModule, SkeletonDataModule

    data = SkeletonDataModule(str(archive), "x-sub", batch_size=8)
    data.setup()
    torch.manual_seed(0)
    module = ProSLModule(**tiny_options)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "epoch": 3}
    torch.save(content | {"recipe": data.recipe, "pytorch-lightning_version": "2.6.6"}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


@pytest.fixture
def classifier(checkpoint, archive, tmp_path) -> Path:
    from prosl_lightning import ProSLModule, SkeletonDataModule
    from prosl_lightning.evaluation.classifier import save_classifier
    from prosl_lightning.evaluation.features import extract_tables
    from prosl_lightning.evaluation.linear import LinearEvaluation, linear_evaluation

    data = SkeletonDataModule(str(archive), "x-sub", batch_size=8)
    data.setup()
    module = ProSLModule.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    found = LinearEvaluation(module, data.archive.class_names, data=data.recipe)
    tables = extract_tables(module, data)
    linear_evaluation(tables, 3, epochs=200, milestones=(150,), classifier=found.head)
    found.keep_gallery(tables.train, data.archive.names[data.train_rows], tables.train_labels)
    return save_classifier(found, tmp_path / "classifier.pt")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """W&B without network, service left behind or the user's settings; gives a reader of finished runs."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))

    def finished(folder: Path, number: int = 0) -> list[Any]:
        """All records of one offline run in a folder, once its service has written the last."""
        wandb.finish()  # the end of the process does that for a user,
        wandb.teardown()  # and waits for the service that writes the file
        path = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))[number]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            records = _wandb_records(path)
            if any(record.WhichOneof("record_type") == "exit" for record in records):
                return records
            time.sleep(0.1)
        raise AssertionError(f"{path} has no last record")

    yield finished
    wandb.teardown()


def _wandb_records(path: Path) -> list[Any]:
    """Records of a run's file, in LevelDB's format: blocks of 32 KiB; checksum, length and kind before each piece."""
    from wandb.proto import wandb_internal_pb2

    content, at, part, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        part, at = part + content[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            found.append(record)
            part = b""
    return found


@pytest.fixture
def settings(tiny_archive) -> dict:
    """Settings as `prosl fit --print_config` tells them, of a run of 450 epochs on `tiny_archive`, 25 joints."""
    model = {
        "base": "hico-lstm", "base_args": None, "bank_wrap": "full", "temperature": 0.2, "semantic": True,
        "semantic_start": 400, "num_clusters": 65, "third_branch": "semantic", "semantic_temperature": 1.0,
        "confidence_threshold": 0.027, "filtered_terms": "all", "masked_joints": None,
        "kl_direction": "semantic-to-query", "importance": "dataset",
    }  # fmt: skip
    data = {"root": str(tiny_archive), "protocol": "x-sub", "stream": "joint", "eval_batch_size": 16}
    return {"model": model, "data": data, "trainer": {"max_epochs": 450, "accelerator": "cpu"}, "checkpoint_every": 50}
