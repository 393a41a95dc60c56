"""Training under Lightning: the loop's speed, a whole run extrapolated from NTU-60-size epochs, a real set."""

from __future__ import annotations

import csv
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from gpu_common import STAGES, TINY, GpuBench
from gpu_steps import reported
from harness import EpochClock, quiet_trainer, tf32

from prosl_lightning import Archive, CodebookCallback, ProSLModule, SkeletonDataModule
from prosl_lightning._lightning import pl, submodule
from prosl_lightning.evaluation.features import extract_tables
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.prosl.checkpoint_io import AtomicCheckpointIO

EPOCHS, SEMANTIC_EPOCHS = 450, 50  # of the paper's run, and how many of them are semantic
TIMED = 3  # epochs of each stage, of which the median counts; one before them pays for libraries and recording
LEAST_STEPS = 500  # of each stage, on which an extrapolation may rest


class TimedCodebook(CodebookCallback):
    """Knows how long each codebook took, key features and joint importance included."""

    def __init__(self, bench: GpuBench) -> None:
        super().__init__()
        self.bench, self.seconds = bench, []  # type: ignore[var-annotated]

    def build(self, trainer: pl.Trainer, module: ProSLModule, epoch: int) -> None:
        """Build and time it."""
        self.seconds.append(self.bench.seconds(lambda: super(TimedCodebook, self).build(trainer, module, epoch)))


class WholeEpochs(pl.Callback):
    """Seconds of every epoch from its start to the next one's, without what `codebook` and the checkpoint took.

    Saves a checkpoint after every epoch, as `prosl fit` does, and times that, too.
    """

    def __init__(self, bench: GpuBench, codebook: TimedCodebook) -> None:
        self.bench, self.codebook = bench, codebook
        self.seconds, self.saves, self._began, self._built = [], [], 0.0, 0  # type: ignore[var-annotated]

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Close the epoch before and begin the next."""
        self.on_train_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save a checkpoint."""
        file = self.bench.folder / "last.ckpt"
        self.saves.append(self.bench.seconds(lambda: trainer.save_checkpoint(file)))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the last."""
        self.bench.synchronize()
        now, builds = time.perf_counter(), self.codebook.seconds[self._built :]
        if self._began:
            self.seconds.append(now - self._began - sum(builds) - self.saves[-1])
        self._began, self._built = now, len(self.codebook.seconds)


def run(bench: GpuBench) -> None:
    """The paper's run of 450 epochs on NTU-60, extrapolated from whole epochs of both stages."""
    precisions = ("bf16-mixed", "32-true")
    for graph in (True, False) if bench.records else (False,):
        for precision in precisions[: 1 if bench.options.tiny else 2]:
            what = f"{'graph' if graph else 'eager'}, {precision}"
            if bench.seconds_left <= 0:
                bench.record("run", what, skipped="out of time")
                continue
            with reported(bench, "run", what):
                extrapolate(bench, what, graph, precision)


def extrapolate(bench: GpuBench, what: str, graph: bool, precision: str) -> None:
    """Train a few epochs of each stage and add up what 450 would take."""
    stage = 1 + TIMED
    codebook = TimedCodebook(bench)
    epochs = WholeEpochs(bench, codebook)
    module = bench.model(semantic_start=stage, milestones=(), cuda_graph=graph)
    data = SkeletonDataModule(bench.large_archive(), batch_size=bench.batch_size)
    trainer = quiet_trainer(
        bench, 2 * stage, callbacks=[epochs, codebook], precision=precision, plugins=[AtomicCheckpointIO()],
        logger=submodule("loggers").CSVLogger(bench.folder, name="run"),
    )  # fmt: skip
    with tf32(True):
        trainer.fit(module, datamodule=data)
    steps = trainer.num_training_batches
    if trainer.global_step < 2 * stage * steps:
        bench.record("run", what, skipped="out of time")
        return
    contrast = statistics.median(epochs.seconds[1:stage])
    semantic = statistics.median(epochs.seconds[stage + 1 :])
    first, later = codebook.seconds[0], statistics.median(codebook.seconds[1:])
    builds = first + (SEMANTIC_EPOCHS - 1) * later
    saving = statistics.median(epochs.saves)
    whole = (EPOCHS - SEMANTIC_EPOCHS) * contrast + SEMANTIC_EPOCHS * semantic + builds + EPOCHS * saving
    bench.record(
        "run", what, minutes_of_450_epochs=whole / 60, of_these_checkpoints_minutes=EPOCHS * saving / 60,
        checkpoint_seconds=saving, semantic_extras_minutes=builds / 60,
        semantic_epochs_longer_minutes=SEMANTIC_EPOCHS * (semantic - contrast) / 60, contrast_epoch_seconds=contrast,
        semantic_epoch_seconds=semantic, first_codebook_seconds=first, later_codebook_seconds=later,
        milliseconds_a_step=[1e3 * contrast / steps, 1e3 * semantic / steps],
        timed_steps_of_each_stage=TIMED * int(steps),
        note=None if TIMED * steps >= LEAST_STEPS else "too few steps to rest on",
    )  # fmt: skip


def lightning(bench: GpuBench) -> None:
    """The whole training loop: samples per second, median of the epochs after the first."""
    variants = [(stage, "32-true") for stage in STAGES] + [("stage 2", "bf16-mixed")]
    for stage, kind in variants[2:] if bench.options.tiny else variants:
        clock, module = EpochClock(bench), bench.model(**STAGES[stage])
        data = SkeletonDataModule(bench.archive(), batch_size=bench.batch_size)
        trainer = quiet_trainer(
            bench, 2 if bench.options.tiny else 6, callbacks=[clock], precision=kind,
            logger=submodule("loggers").CSVLogger(bench.folder, name="lightning"),
        )  # fmt: skip
        begin = time.perf_counter()
        with tf32(True):
            trainer.fit(module, datamodule=data)
        rate = statistics.median(clock.rates[1:] or clock.rates or [math.nan])  # NaN: stopped within the first epoch
        seconds = time.perf_counter() - begin
        bench.record("lightning", f"{stage}, {kind}, TF32", samples_per_second=rate, seconds=seconds)


def real(bench: GpuBench) -> None:
    """Train on one real archive by a configuration: k-NN accuracy before and after, losses, codebook."""
    options = bench.options
    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    archive, epochs = Archive.open(options.data), config["trainer"]["max_epochs"]
    model = config["model"] | {"layout": archive.layout.to_plain(), "num_bodies": archive.num_bodies}
    given = config["data"] | {"root": options.data}
    if options.protocol:
        given["protocol"] = options.protocol
    if options.tiny:
        model, given, epochs = model | TINY | {"semantic_start": 1}, given | {"batch_size": bench.batch_size}, 2
    module, data = bench.model(**model), SkeletonDataModule(**given)
    data.setup()
    before = nearest_neighbour(bench, module, data)
    logger = submodule("loggers").CSVLogger(bench.folder, name="real")
    trainer = quiet_trainer(bench, epochs, logger=logger)
    with tf32(False):
        seconds = bench.seconds(lambda: trainer.fit(module, datamodule=data))
    with (Path(logger.log_dir) / "metrics.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    curves = {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}
    watched = ("epoch/loss", "codebook/nmi", "codebook/pair_precision", "codebook/mean_cosine")
    bench.record(
        "real", f"{Path(options.data).name}, {options.config.stem}", epochs=trainer.current_epoch, seconds=seconds,
        knn_percent=[before, nearest_neighbour(bench, module, data)],
        **{name: [curves[name][0], curves[name][-1]] for name in watched if curves.get(name)},
    )  # fmt: skip


def nearest_neighbour(bench: GpuBench, module: ProSLModule, data: SkeletonDataModule) -> float:
    """1-NN accuracy in percent of the module as it is."""
    with torch.no_grad(), tf32(False):
        tables = extract_tables(module.to(bench.device), data)
    module.train()
    return knn_accuracy(tables.train, tables.train_labels, tables.test, tables.test_labels)
