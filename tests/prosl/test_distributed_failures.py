"""A fault in one process ends all of them, and `prosl fit` trains on several.

Run as a script this file is a training on two processes, `python test_distributed_failures.py TASK FOLDER`, or
`prosl fit` with the fault that the environment variable FAULT names, `python test_distributed_failures.py fit OPTIONS`.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning import CodebookCallback, ProSLModule, SkeletonDataModule
from prosl_lightning.cli import main
from prosl_lightning.data.archive import Archive
from prosl_lightning.prosl import divergence

OPTIONS = {
    "base": "hico-gru",
    "base_args": {"hidden_size": 16, "num_layers": 1, "projection_size": 8},
    "num_frames": 16,
    "min_crop_frames": 8,
    "bank_size": 32,
    "semantic_start": 1,
    "num_clusters": 4,
    "confidence_threshold": "relative",
    "importance_samples": 8,
}
FOR_EVER = 1000


def fail_or_sleep(module: pl.LightningModule, failing: int) -> None:
    """Raise in one process; in the others sleep, which like a GPU's collective hears nothing of it."""
    if module.global_rank == failing:
        raise ZeroDivisionError("made up")
    time.sleep(FOR_EVER)


class FailingStep(ProSLModule):
    """Fails in the second step of rank 1."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """The step before is a real one."""
        if batch_idx == 1:
            fail_or_sleep(self, 1)
        return super().training_step(batch, batch_idx)


class FailingBuild(CodebookCallback):
    """Fails in rank 0 when the first codebook is built."""

    def build(self, trainer: pl.Trainer, module: Any, epoch: int) -> None:
        """Never gets to building."""
        fail_or_sleep(module, 0)


def train(task: str, folder: Path) -> None:
    """Two processes, which Lightning starts where nobody else has."""
    module = (FailingStep if task == "step" else ProSLModule)(**OPTIONS)
    data = SkeletonDataModule(str(torch.load(folder / "arguments.pt")["archive"]), batch_size=6)
    pl.Trainer(
        default_root_dir=folder, max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[FailingBuild() if task == "build" else CodebookCallback()],
    ).fit(module, datamodule=data)  # fmt: skip


def break_second_epoch(fault: str) -> None:
    """Rank 1 meets a loss that is not finite, and its disk is slow; or it alone gets SIGTERM."""
    losses, write = ProSLModule.losses, divergence.write_atomically

    def broken(module: ProSLModule, *arguments: Any) -> Any:
        metrics = losses(module, *arguments)
        if module.global_rank == 1 and module.current_epoch == 1:
            if fault == "sigterm":
                os.kill(os.getpid(), signal.SIGTERM)
            metrics["loss"] = metrics["loss"] * float("nan")
        return metrics

    def slowly(*arguments: Any) -> None:
        time.sleep(2)
        write(*arguments)

    ProSLModule.losses = broken  # type: ignore[method-assign]
    divergence.write_atomically = slowly


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """A command whose processes all end within the time given: one that lives on keeps the pipe open."""
    return subprocess.run(
        [sys.executable, *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize(("task", "launcher"), [("step", "lightning"), ("build", "lightning"), ("build", "torchrun")])
def test_a_fault_in_one_process_ends_all(tmp_path, tiny_archive, task, launcher):
    torch.save({"archive": str(tiny_archive)}, tmp_path / "arguments.pt")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = _run(*(torchrun if launcher == "torchrun" else []), __file__, task, str(tmp_path))
    assert ended.returncode != 0
    assert "ZeroDivisionError: made up" in ended.stdout


@pytest.fixture
def options(tmp_path, tiny_archive) -> list[str]:
    """`prosl fit` of a tiny model on two processes."""
    small = ["--model.base=hico-gru", "--model.base_args={hidden_size: 16, num_layers: 1, projection_size: 8}"]
    small += [f"--model.{name}={value}" for name, value in OPTIONS.items() if not name.startswith("base")]
    small += [f"--data.root={tiny_archive}", "--data.batch_size=6", f"--trainer.default_root_dir={tmp_path}"]
    return ["fit", *small, "--trainer.accelerator=cpu", "--trainer.devices=2"]


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_who_diverges_first_names_its_samples_and_saves(monkeypatch, tmp_path, options, tiny_archive, launcher):
    monkeypatch.setenv("FAULT", "diverged")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = _run(*(torchrun if launcher == "torchrun" else []), __file__, *options, "--trainer.log_every_n_steps=1")
    assert ended.returncode == 1, ended.stdout
    path = tmp_path / "checkpoints" / "diverged-rank1.pt"
    kept = torch.load(path, weights_only=True)["diverged"]
    assert len(kept["names"]) == 6
    assert set(kept["names"]) <= set(Archive.open(tiny_archive).names)
    assert f"process 1: the loss is not finite in epoch 1 (step {kept['step']}: loss)" in ended.stdout
    assert f"look at its samples: {', '.join(kept['names'])}\nstate and all names: {path}" in ended.stdout
    assert ended.stdout.count("not finite") == 1
    assert "error: process 1 has diverged in epoch 1; its message says more" in ended.stdout
    assert {file.name for file in path.parent.iterdir()} == {"last.ckpt", path.name}


@pytest.mark.ddp
@pytest.mark.slow
def test_the_process_that_is_terminated_says_so(monkeypatch, tmp_path, options):
    monkeypatch.setenv("FAULT", "sigterm")
    ended = _run(__file__, *options)
    assert ended.returncode != 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert (
        f"prosl fit: process 1 stopped by SIGTERM in epoch 1; {last} is complete: go on with the same command and "
        "--ckpt_path last\n"
    ) in ended.stdout


@pytest.mark.ddp
@pytest.mark.slow
def test_prosl_fit_counts_the_batches_of_all_processes_before_it_writes(tmp_path, options):
    earlier = tmp_path / "checkpoints" / "last.ckpt"
    earlier.parent.mkdir()
    earlier.touch()
    ended = _run("-m", "prosl_lightning", *options, "--data.batch_size=17")
    assert ended.returncode == 2, ended.stdout
    assert ended.stdout.count("batch_size is 17 on 2 processes, more than bank_size 32") == 1
    assert list(tmp_path.rglob("*.*")) == [earlier]


@pytest.mark.ddp
@pytest.mark.slow
def test_prosl_fit_trains_and_goes_on_with_two_processes(tmp_path, options):
    command = ["-m", "prosl_lightning", *options]
    first = _run(*command, "--trainer.max_epochs=2")
    assert first.returncode == 0, first.stdout
    assert first.stdout.count("for training") == 1  # only rank 0 speaks
    assert "sync_dist" not in first.stdout  # what is logged is averaged already
    second = _run(*command, "--trainer.max_epochs=3", "--ckpt_path=last")
    assert second.returncode == 0, second.stdout
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 2
    assert checkpoint["global_step"] == 9  # 36 sequences, 12 in each step of both processes
    assert int(checkpoint["state_dict"]["codebook.epoch"]) == 2
    banks = {name: value for name, value in checkpoint["state_dict"].items() if name.endswith(".index")}
    assert banks
    assert all(int((index >= 0).sum()) == len(index) for index in banks.values())  # 108 keys went into 32 places
    epochs = []
    for file in sorted((tmp_path / "logs").glob("*/metrics.csv")):
        with file.open() as rows:
            epochs += [row["epoch"] for row in csv.DictReader(rows) if row.get("epoch/loss")]
    assert epochs == ["0", "1", "2"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "fit":
        break_second_epoch(os.environ["FAULT"])
        sys.exit(main())
    train(sys.argv[1], Path(sys.argv[2]))
