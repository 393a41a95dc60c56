"""What logging costs a training step: a run with a CSV log every 10 steps against one without any log.

Run `python benchmarks/logging_cost.py`. One thread, a tiny model (a large one only hides the cost), the two kinds of
run take turns, CPU time, medians; no codebook is built, for that is not part of a step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
from torch.utils.data import DataLoader

from prosl_lightning import ProSLModule, SkeletonBatch
from prosl_lightning._lightning import pl, submodule
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.tables import table

STEPS, EPOCHS, BATCH, FRAMES = 30, 4, 8, 16
TINY = {
    "base": "hico-transformer", "base_args": {"hidden_size": 16, "projection_size": 8}, "num_frames": FRAMES,
    "min_crop_frames": 8, "bank_size": 128, "num_clusters": 8, "semantic_start": EPOCHS + 1,
}  # fmt: skip


class Noise(pl.LightningDataModule):
    """The same few batches of noise, in memory."""

    num_samples, batch_size = STEPS * BATCH, BATCH

    def train_dataloader(self) -> DataLoader[Any]:
        """All batches."""
        draw = torch.Generator().manual_seed(0)
        length, label = torch.full((BATCH,), FRAMES), torch.zeros(BATCH, dtype=torch.int64)
        joints = [torch.randn(BATCH, 3, FRAMES, 25, 2, generator=draw) for _ in range(STEPS)]
        index = torch.arange(STEPS * BATCH).split(BATCH)
        batches = [SkeletonBatch(one, length, rows, label) for one, rows in zip(joints, index, strict=True)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    feature_dataloader = train_dataloader


class Clock(pl.Callback):
    """CPU time of all epochs but the first, with everything that happens at their ends."""

    begin = end = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start it after the first epoch."""
        if trainer.current_epoch == 1:
            self.begin = time.process_time()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop it."""
        self.end = time.process_time()


def step_milliseconds(log: bool) -> float:
    """Mean CPU time of a step in one run."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", devices=1, log_every_n_steps=10, callbacks=[clock],
            logger=submodule("loggers").CSVLogger(folder) if log else False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(ProSLModule(**TINY), datamodule=Noise())
        if log:
            trainer.logger.save()
    return 1e3 * (clock.end - clock.begin) / (STEPS * (EPOCHS - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    silence_lightning()
    step_milliseconds(True)
    times = [(step_milliseconds(False), step_milliseconds(True)) for _ in range(rounds)]
    without, logged = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    rows = [
        ["no log", f"{without:.2f}", ""],
        ["CSV log every 10 steps", f"{logged:.2f}", f"{100 * (ratio - 1):+.1f} %"],
    ]
    print(table(["run", "ms per step", "cost"], rows))


if __name__ == "__main__":
    main()
