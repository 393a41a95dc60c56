"""OnlineEvaluation: nearest neighbours and a linear probe during pre-training, to watch a run by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.prosl.extract import iterate
from prosl_lightning.prosl.out_of_memory import explained_in_training
from prosl_lightning.seeds import generator, seeded

_PROBE_EPOCHS = 100
_NO_LABELS = "OnlineEvaluation needs labels, and the training set has none: leave the callback out"


class OnlineEvaluation(pl.Callback):
    """Logs `online/knn` and `online/linear`, percent right, every few epochs of a pre-training.

    A part of the labelled training set, drawn once by `seed`, asks; another is the gallery and trains a linear layer
    (100 epochs, learning rate 2, as in the linear evaluation). The test set is never touched, so these figures may
    steer a run. They are no results: the encoder has been trained on all of these sequences, if without labels.
    They are higher than a cross-subject test would be, too: the sequences that ask are drawn one by one, so the same
    people are on both sides. Compare them between epochs and runs, not with test figures.
    Weights, random draws and modes of the training are left as they were.

    Args:
        every_n_epochs: How often.
        held_out: Share of the drawn sequences that asks.
        max_sequences: Most sequences that are drawn; each costs one forward pass.
        linear: False leaves the linear probe out.
        seed: Of the draw and the probe.

    Example:
        In the configuration of `prosl fit`::

            trainer:
              callbacks:
                - class_path: prosl_lightning.evaluation.online.OnlineEvaluation
                  init_args: {every_n_epochs: 10}
    """

    def __init__(
        self,
        every_n_epochs: int = 5,
        held_out: float = 0.2,
        max_sequences: int = 4096,
        linear: bool = True,
        seed: int = 0,
    ) -> None:
        if every_n_epochs < 1:
            raise UsageError(f"every_n_epochs is {every_n_epochs}; it must be at least 1")
        if not 0 < held_out < 1:
            raise UsageError(f"held_out is {held_out}; it must lie between 0 and 1")
        if max_sequences < 2:
            raise UsageError(f"max_sequences is {max_sequences}; it must be at least 2")
        self.every_n_epochs, self.held_out, self.max_sequences = every_n_epochs, held_out, max_sequences
        self.linear, self.seed = linear, seed

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse data that cannot be visited in order or have no labels, before anything is trained."""
        if stage != "fit":
            return
        datamodule: Any = getattr(trainer, "datamodule", None)
        if not hasattr(datamodule, "feature_dataloader"):
            raise UsageError(
                "OnlineEvaluation needs a data module with num_samples and feature_dataloader(): see SkeletonDataModule"
            )
        drawn, labelled = self._drawn(datamodule.num_samples), 0
        with seeded(pl_module.device, self.seed):  # a loader that starts draws a seed for its workers
            for batch in datamodule.feature_dataloader():
                labelled += int((drawn[batch.index.cpu()] & (batch.label >= 0).cpu()).sum())
                if labelled >= 2:
                    return
        raise UsageError(_NO_LABELS)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate and log where it is time."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        was_training = [module.training for module in pl_module.modules()]
        pl_module.eval()
        try:
            # Inside nothing draws from the global generators; if an encoder did, the training would not notice.
            memory = explained_in_training(pl_module, "the online evaluation", "eval_batch_size")
            with seeded(pl_module.device, self.seed), memory:
                measures = self.evaluate(pl_module, trainer.datamodule)  # type: ignore[attr-defined]
        finally:
            for module, mode in zip(pl_module.modules(), was_training, strict=True):
                module.training = mode
        named = {f"online/{name}": value for name, value in measures.items()}
        pl_module.log_dict(named, on_step=False, on_epoch=True, rank_zero_only=True)

    def evaluate(self, module: Any, datamodule: Any) -> dict[str, float]:
        """Figures in percent of the encoder as it is.

        Args:
            module: Has `embed(batch)`, as :class:`ProSLModule` has; in evaluation mode.
            datamodule: Has `num_samples` and `feature_dataloader()`.

        Raises:
            UsageError: Fewer than two of the drawn sequences have labels.
        """
        features, labels = self._embed(module, datamodule)
        count = round(self.held_out * len(labels))
        if len(labels) < 2:
            raise UsageError(_NO_LABELS)
        asks = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        asks[torch.randperm(len(labels), generator=generator("cpu", self.seed, 1))[: max(count, 1)]] = True
        tables = FeatureTables(features[~asks], labels[~asks], features[asks], labels[asks])
        measures = {"knn": knn_accuracy(*tables)}
        if self.linear:
            with torch.enable_grad(), torch.inference_mode(False):
                probe = linear_evaluation(
                    tables, int(labels.max()) + 1, epochs=_PROBE_EPOCHS, milestones=(60, 90), seed=self.seed
                )
            measures["linear"] = probe.accuracy
        return measures

    def _drawn(self, count: int) -> Tensor:
        """Which of the training sequences take part, (count,) bool."""
        wanted = torch.zeros(count, dtype=torch.bool)
        wanted[torch.randperm(count, generator=generator("cpu", self.seed, 0))[: self.max_sequences]] = True
        return wanted

    @torch.no_grad()
    def _embed(self, module: Any, datamodule: Any) -> tuple[Tensor, Tensor]:
        """Features and labels of the drawn sequences that have one."""
        wanted = self._drawn(datamodule.num_samples)
        features, labels = [], []
        for batch in iterate(module, datamodule.feature_dataloader()):
            rows = (wanted[batch.index.cpu()] & (batch.label >= 0).cpu()).nonzero().squeeze(1).to(module.device)
            if len(rows):
                features.append(module.embed(SkeletonBatch(*(field[rows] for field in batch))).float())
                labels.append(batch.label[rows])
        return (torch.cat(features), torch.cat(labels)) if labels else (torch.zeros(0, 1), torch.zeros(0))
