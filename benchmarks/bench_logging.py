"""The logging's row of `make bench`: what the library's logging adds to a step of Lightning's bare Trainer.

The step itself is next to nothing (one small parameter), so that it cannot hide the cost; all metrics of the semantic
stage are on, and what the end of an epoch costs is shared out over the steps of an epoch of NTU-60. What computing the
watched metrics costs at the paper's sizes is measured apart and added.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench_table import Disagreement, Row, Settings, interleaved, medians
from torch import Tensor, nn
from torch.utils.data import DataLoader

from prosl_lightning import ProSLModule, SkeletonBatch
from prosl_lightning._lightning import pl, submodule
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.prosl.codebook import SemanticCodebook
from prosl_lightning.prosl.losses import mean_cosine_of_sum
from prosl_lightning.prosl.objective import excluded_share

NAMES = (
    "loss", "clip", "part", "temporal", "spatial", "instance", "contrast", "kl", "semantic_query", "semantic_branch",
    "excluded_share", "confident_share_query", "confident_share_branch", "mean_cosine",
)  # fmt: skip
SEQUENCES, BANK, CLUSTERS, WIDTH = 40_091, 16_384, 65, 128
EPOCH_STEPS, BATCH, FRAMES, LIGHTNINGS_DEFAULT = 626, 8, 16, 50
TINY: dict[str, Any] = {
    "base": "hico-transformer", "base_args": {"hidden_size": 16, "projection_size": 8}, "num_frames": FRAMES,
    "min_crop_frames": 8, "bank_size": 128, "num_clusters": 8, "semantic_start": 10**6,
}  # fmt: skip


class LoggedStep(ProSLModule):
    """Takes the library's way through a step and its logs, but what is computed is only a line of scalars."""

    def __init__(self) -> None:
        super().__init__(**TINY)
        self.line = nn.Parameter(torch.linspace(1, 2, len(NAMES)))
        self.query_encoder.has_dropout = False

    def draw_views(self, batch: SkeletonBatch, draw: torch.Generator) -> tuple[Tensor, Tensor, None]:
        """No views."""
        return batch.joints, batch.joints, None

    def losses(self, *views: Any) -> dict[str, Tensor]:
        """As many scalars as the semantic stage has."""
        return dict(zip(NAMES, self.line.unbind(), strict=True))

    def configure_optimizers(self) -> Any:
        """The same schedule, of one parameter."""
        return torch.optim.SGD([self.line], lr=1e-9)


class BareStep(LoggedStep):
    """The same without any of the library's logging."""

    def log_step(self, metrics: dict[str, Tensor], index: Tensor) -> None:
        """Nothing."""

    def on_train_epoch_start(self) -> None:
        """Nothing."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Nothing."""

    def on_train_epoch_end(self) -> None:
        """Nothing."""


class Same(pl.LightningDataModule):
    """The same batch, in memory, for every step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self.num_samples, self.batch_size = steps, BATCH, BATCH

    def train_dataloader(self) -> DataLoader[Any]:
        """All batches."""
        length, label = torch.full((BATCH,), FRAMES), torch.zeros(BATCH, dtype=torch.int64)
        batch = SkeletonBatch(torch.zeros(BATCH, 3, FRAMES, 25, 2), length, torch.arange(BATCH), label)
        return DataLoader([batch] * self.steps, batch_size=None)  # type: ignore[arg-type]

    feature_dataloader = train_dataloader


class Clock(pl.Callback):
    """CPU time of every epoch after the first, with everything that happens at its end."""

    begin = end = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start it after the first epoch."""
        if trainer.current_epoch == 1:
            self.begin = time.process_time()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop it."""
        self.end = time.process_time()


def seconds_of_step(kind: type[LoggedStep], every: int, steps: int) -> tuple[float, list[dict[str, float]]]:
    """Mean CPU time of a step in one run, and the rows of its CSV log."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        logger = submodule("loggers").CSVLogger(folder) if kind is LoggedStep else False
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", devices=1, log_every_n_steps=every, callbacks=[clock], logger=logger,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(kind(), datamodule=Same(steps))
        if not logger:
            return (clock.end - clock.begin) / steps, []
        logger.save()
        file = Path(logger.log_dir) / "metrics.csv"
        if not file.exists():
            return (clock.end - clock.begin) / steps, []
        with file.open(encoding="utf-8") as stream:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]
    return (clock.end - clock.begin) / steps, rows


def check(rows: list[dict[str, float]], every: int, steps: int) -> None:
    """Every metric must have been logged as often as promised, with its value, and as a mean of the epoch."""
    expected = dict(zip(NAMES, torch.linspace(1, 2, len(NAMES)).tolist(), strict=True))
    in_steps, in_epochs = ([row for row in rows if f"{kind}/loss" in row] for kind in ("train", "epoch"))
    if len(in_steps) != 2 * steps // every or len(in_epochs) != 2:
        raise Disagreement(f"{len(in_steps)} steps and {len(in_epochs)} epochs were logged")
    for name, value in expected.items():
        for kind, row in (("train", in_steps[-1]), ("epoch", in_epochs[-1])):
            if abs(row.get(f"{kind}/{name}", float("nan")) - value) > 1e-3 or f"{kind}/{name}" not in row:
                raise Disagreement(f"{kind}/{name} was logged as {row.get(f'{kind}/{name}')}, it is {value:.3f}")


def watched_metrics(batch: int) -> tuple[Callable[[], list[Tensor]], float]:
    """What computes the metrics that are only watched, at the paper's sizes; and its difference from the definition."""
    draw = torch.Generator().manual_seed(0)
    codebook = SemanticCodebook()
    codebook.update(torch.randn(CLUSTERS, WIDTH, generator=draw), torch.randint(CLUSTERS, (SEQUENCES,), generator=draw))
    index, memory = (torch.randint(SEQUENCES, (size,), generator=draw) for size in (batch, BANK))
    own = F.normalize(torch.randn(batch, WIDTH, generator=draw), dim=1)
    confident = torch.rand(batch, generator=draw) > 0.5

    def compute() -> list[Tensor]:
        shares = [confident.float().mean() for _ in range(2)]
        return [excluded_share(codebook, index, memory), *shares, mean_cosine_of_sum(own.sum(dim=0), batch)]

    return compute, float((compute()[0] - codebook.excluded(index, memory).float().mean()).abs())


def logging(settings: Settings) -> list[Row]:
    """A run with a CSV log against a bare one, every 10 steps and every 50, Lightning's default."""
    silence_lightning()
    steps = 100 if settings.tiny else EPOCH_STEPS
    for every in (10, LIGHTNINGS_DEFAULT):
        check(seconds_of_step(LoggedStep, every, steps)[1], every, steps)
    sides: dict[str, tuple[type[LoggedStep], int]] = {
        "bare": (BareStep, LIGHTNINGS_DEFAULT), "every_10": (LoggedStep, 10),
        "every_50": (LoggedStep, LIGHTNINGS_DEFAULT),
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(settings.rounds):
        for name, (kind, every) in sides.items():
            times[name].append(seconds_of_step(kind, every, steps)[0])
    bare = medians(times)["bare"]
    compute, off = watched_metrics(BATCH if settings.tiny else 64)
    if off:
        raise Disagreement(f"the excluded share differs by {off:.1e} from the mean over all pairs")
    many = 10 if settings.tiny else 200
    block = interleaved({"watched": lambda: [compute() for _ in range(many)]}, settings.rounds)["watched"]
    times["watched_metrics"] = [seconds / many for seconds in block]
    watched = medians(times)["watched_metrics"]
    rows = []
    for every in (LIGHTNINGS_DEFAULT, 10):
        cost = statistics.median(b - a for a, b in zip(times["bare"], times[f"every_{every}"], strict=True))
        rows.append(
            Row(
                f"logging, {len(NAMES)} metrics, CSV every {every} steps", f"{1e3 * bare:.2f} ms (bare Trainer)",
                f"{1e3 * (bare + cost + watched):.2f} ms", 1e3 * (cost + watched), 0.4, 0.2, unit="ms", better="less",
                limit="0 ms",
                seconds={name: times[name] for name in ("bare", f"every_{every}", "watched_metrics")},
                checks={"logging_ms": 1e3 * cost, "watched_metrics_ms": 1e3 * watched},
                note=f"what a step costs more: {1e3 * cost:.2f} ms of logging, median of the differences of the pairs "
                f"of runs, and {1e3 * watched:.2f} ms of computing the metrics that are only watched, batch 64, bank "
                f"{BANK:,}",
            )
        )  # fmt: skip
    return rows
