"""The command line in this process, on tiny archives, in a folder of its own."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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
