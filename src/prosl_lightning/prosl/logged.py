"""The logging half of ProSLModule: what a step's scalars become, and what is said when an epoch ends."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.errors import DataError
from prosl_lightning.prosl.checks import empty_confident_set_cause
from prosl_lightning.prosl.distributed import gather_numbers
from prosl_lightning.prosl.divergence import divergence_error, is_finite
from prosl_lightning.prosl.training_log import MOST_PENDING, Divergence, TrainingLog

# With a loss scaler a step that overflows is left out by design; so many in a row are no accident.
_PATIENCE_SCALED = 20
_NEVER = sys.maxsize


class LoggedModule(pl.LightningModule):
    """Logs `train/` every `log_every_n_steps` steps and means under `epoch/`, and stops a run that has diverged.

    Attributes:
        epoch_metrics: What others want logged beside the epoch's means, by full name; emptied when it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch_metrics: dict[str, float] = {}
        self._training_log = TrainingLog()
        self._epoch_means: dict[str, float] = {}
        self._warned, self._logged_step = False, -1

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock and metrics."""
        self._training_log.start()

    def log_step(self, metrics: dict[str, Tensor], index: Tensor) -> None:
        """Add a step's scalars to the epoch's means, and log them where it is time.

        Whether the loss is finite is checked in every step on the CPU, and on a GPU where values are read back anyway:
        in logged steps and at the epoch's end.

        Args:
            metrics: Scalars by name, `loss` among them; all steps of an epoch bring the same names.
            index: Training rows of the batch, (N,).

        Raises:
            DataError: The loss was not finite; names the samples and where the state was saved, or of several
                processes the one that has said so on stderr.
        """
        log, trainer = self._training_log, self.trainer
        step, every = self.global_step, getattr(trainer, "log_every_n_steps", 0)
        log.add(step, metrics, index)
        # With accumulated gradients several batches share a step; the first of them is logged.
        due = bool(every) and not (step + 1) % every and step != self._logged_step
        free = index.device.type == "cpu" and trainer.world_size == 1
        if due or free or len(log) >= MOST_PENDING:
            self._read_log()
        if not due:
            return
        self._logged_step = step
        named = {f"train/{name}": value for name, value in self._mean_of_all(log.latest).items()}
        self.log("loss", named["train/loss"], prog_bar=True, logger=False)
        named["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics(named, step=step)

    @property
    def latest_loss(self) -> float:
        """The loss that was read back last; asking for it never waits for the device."""
        return self._training_log.latest.get("loss", 0.0)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close the epoch's metrics after its last batch: callbacks at the epoch's end would count as its time."""
        if self.trainer.is_last_batch:  # not met where max_steps ends an epoch early
            self._close_epoch()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, its stage and speed; warn when no sample was confident."""
        if not self._epoch_means:
            self._close_epoch()
        means, self._epoch_means = self._epoch_means, {}
        if not means:
            return
        if means.get("confident_share_query") == 0 and not self._warned:
            self._warned = True
            warnings.warn(empty_confident_set_cause(self), stacklevel=2)  # type: ignore[arg-type]
        means["samples_per_second"] *= self.trainer.world_size  # the same on average, so the mean is the sum
        named = {f"epoch/{name}": value for name, value in self._mean_of_all(means).items()}
        stage = 2.0 if self.stage == "semantic" else 1.0
        self.log("stage", stage, prog_bar=True, logger=False, rank_zero_only=True)
        self.log_dict(named, logger=False, rank_zero_only=True)  # for callbacks that watch a metric
        # Lightning logs an epoch after its checkpoint is written; a run killed in between would lose the epoch's line.
        row, self.epoch_metrics = named | self.epoch_metrics | {"stage": stage, "epoch": self.current_epoch}, {}
        for logger in self.loggers:
            logger.log_metrics(row, step=self.global_step - 1)

    def _mean_of_all(self, means: dict[str, float]) -> dict[str, float]:
        """Means over all processes; every process must ask, with the same names."""
        if self.trainer.world_size == 1:
            return means
        values = torch.tensor(list(means.values()), device=self.device)
        return dict(zip(means, self.trainer.strategy.reduce(values, reduce_op="mean").tolist(), strict=True))

    def _close_epoch(self) -> None:
        self._read_log()
        log, broken = self._training_log, self._broken()
        # Steps that the loss scaler leaves out make no progress where they are all of an epoch.
        self._stop_where(log.without_finite_loss() or (log.last_batch(broken) if broken else None))
        self._epoch_means = self._training_log.finish()

    def _broken(self) -> str:
        """What of the state is not finite and must not reach the checkpoint: an update may follow a finite loss."""
        if not is_finite(self.parameters()):
            return "weights"
        buffers = [(name, buffer) for name, buffer in self.named_buffers() if buffer.is_floating_point()]
        if is_finite(buffer for _, buffer in buffers):
            return ""
        return next(name for name, buffer in buffers if not is_finite([buffer]))

    def _read_log(self) -> None:
        self._stop_where(self._training_log.read(self._patience))

    @property
    def _patience(self) -> int:
        """Losses in a row that must not be finite to stop the run."""
        return 1 if getattr(self.trainer.precision_plugin, "scaler", None) is None else _PATIENCE_SCALED

    def _stop_where(self, found: Divergence | None) -> None:
        """Stop every process where one has found a loss that is not finite; all ask at the same steps.

        Who met it first saves and speaks while the others wait: the first process to end ends all.
        """
        if self.trainer.world_size == 1:
            if found is not None:
                raise divergence_error(self, found)
            return
        steps = gather_numbers(_NEVER if found is None else found.step, self.device)
        if min(steps) == _NEVER:
            return
        first = steps.index(min(steps))
        if found is not None and self.global_rank == first:
            print(f"process {first}: {divergence_error(self, found)}", file=sys.stderr, flush=True)
        gather_numbers(0, self.device)
        raise DataError(f"process {first} has diverged in epoch {self.current_epoch}; its message says more")
