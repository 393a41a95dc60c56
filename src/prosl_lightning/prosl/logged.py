"""The logging half of ProSLModule: what a step's scalars become, and what is said when an epoch ends."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.prosl.checks import check_finite, empty_confident_set_cause
from prosl_lightning.prosl.training_log import TrainingLog


class LoggedModule(pl.LightningModule):
    """Logs `train/` every `log_every_n_steps` steps and means under `epoch/`, and stops a run that has diverged."""

    def __init__(self) -> None:
        super().__init__()
        self._training_log = TrainingLog()
        self._epoch_means: dict[str, float] = {}
        self._warned, self._logged_step = False, -1

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock and metrics."""
        self._training_log.start()

    def log_step(self, metrics: dict[str, Tensor], num_samples: int) -> None:
        """Add a step's scalars to the epoch's means, and log them where it is time.

        Args:
            metrics: Scalars by name, `loss` among them; all steps of an epoch bring the same names.
            num_samples: Training sequences of the step.
        """
        values = self._training_log.add(metrics, num_samples)
        step, every = self.global_step, getattr(self.trainer, "log_every_n_steps", 0)
        # With accumulated gradients several batches share a step; the first of them is logged.
        if not every or (step + 1) % every or step == self._logged_step:
            return
        self._logged_step = step
        named = dict(zip((f"train/{name}" for name in metrics), values.tolist(), strict=True))
        self.log("loss", named["train/loss"], prog_bar=True, logger=False)
        named["train/learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics(named, step=step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close the epoch's metrics after its last batch: callbacks at the epoch's end would count as its time."""
        if self.trainer.is_last_batch:  # not met where max_steps ends an epoch early
            self._epoch_means = self._training_log.finish()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, its stage and speed; warn when no sample was confident."""
        means, self._epoch_means = self._epoch_means or self._training_log.finish(), {}
        if not means:
            return
        check_finite(means, self.current_epoch)
        if means.get("confident_share_query") == 0 and not self._warned:
            self._warned = True
            warnings.warn(empty_confident_set_cause(self), stacklevel=2)  # type: ignore[arg-type]
        self.log("stage", 2.0 if self.stage == "semantic" else 1.0, prog_bar=True, rank_zero_only=True)
        rate = means.pop("samples_per_second") * self.trainer.world_size
        self.log("epoch/samples_per_second", rate, rank_zero_only=True)
        self.log_dict({f"epoch/{name}": value for name, value in means.items()}, sync_dist=True)
