"""One training step of ProSLModule: the views of a batch, and what becomes of them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.prosl.branches import Projections
from prosl_lightning.prosl.checks import check_batch
from prosl_lightning.prosl.codebook import SemanticCodebook
from prosl_lightning.prosl.cuda_graph import (
    CapturedStep,
    check_hooks,
    check_optimizers,
    check_trainer,
    longest_sequence,
)
from prosl_lightning.prosl.importance import masking_weights
from prosl_lightning.prosl.logged import LoggedModule
from prosl_lightning.prosl.out_of_memory import explained_in_training
from prosl_lightning.seeds import generator, seeded
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.views import View, draw_joints, mask_frames, mask_joints, to_stream


class SteppedModule(LoggedModule):
    """The step of ProSLModule; what it needs of it is declared here.

    Nothing in a step waits for the device: no value is read back, no shape depends on one.
    """

    layout: SkeletonLayout
    masked_joints: int
    contrastive_view: View
    semantic_view: View
    stronger_views: Any
    query_encoder: Any
    codebook: SemanticCodebook
    input_scale: Tensor

    _captured_step: CapturedStep | None = None

    if TYPE_CHECKING:

        def losses(self, *views: Any) -> Projections:
            """See :class:`ProSLModule`."""

    @property
    def stage(self) -> Literal["contrast", "semantic"]:
        """Stage of the current epoch: `contrast` (Eq. 11) or `semantic` (Eq. 12)."""
        return "semantic" if self.is_semantic_epoch(self.current_epoch) and self.codebook.is_built else "contrast"

    def is_semantic_epoch(self, epoch: int) -> bool:
        """Whether epoch number `epoch` (0-based) is steered by the codebook."""
        return bool(self.hparams["semantic"]) and epoch >= self.hparams["semantic_start"]

    def setup(self, stage: str) -> None:
        """Choose Lightning's automatic optimisation, or manual optimisation where steps are recorded."""
        if stage == "fit" and self.hparams["cuda_graph"]:
            check_trainer(self.trainer)
            check_hooks(self.trainer, self)
        self.automatic_optimization = not self.hparams["cuda_graph"]
        self._captured_step = None  # of a training that ended in an error

    def on_train_start(self) -> None:
        """Make ready to record."""
        if not self.automatic_optimization:
            check_optimizers(self.trainer)
            longest = longest_sequence(getattr(self.trainer, "datamodule", None))
            self._captured_step = CapturedStep(self, self.trainer.optimizers[0], longest)

    def on_train_end(self) -> None:
        """Free what was recorded."""
        self._captured_step = None

    def training_step(self, batch: SkeletonBatch, batch_idx: int) -> Tensor:
        """Views, three branches, loss and enqueue of one batch; with `cuda_graph` backward pass and update, too.

        Returns:
            The total loss, Eq. 11 or Eq. 12.

        Raises:
            DataError: The batch is not a :class:`SkeletonBatch`.
        """
        check_batch(batch)
        seeds = (self.hparams["seed"], self.current_epoch, batch_idx, self.global_rank)
        if self._captured_step is not None:
            return self._whole_step(self._captured_step, batch, batch_idx, seeds)
        has_dropout = getattr(self.query_encoder, "has_dropout", True)
        with seeded(self.device, *seeds) if has_dropout else nullcontext():
            metrics = self.step(batch, generator(batch.joints.device, *seeds))
        self.log_step(metrics, batch.index)
        return metrics["loss"]

    def _whole_step(
        self, captured: CapturedStep, batch: SkeletonBatch, batch_idx: int, seeds: tuple[int, ...]
    ) -> Tensor:
        """The step of manual optimisation, in which update and schedule are the module's own affair."""

        def closure() -> Tensor:
            metrics = captured(batch, *seeds)
            self.log_step(metrics, batch.index)  # within the step, as with automatic optimisation: the same numbers
            return metrics["loss"].clone()

        with explained_in_training(self):
            loss = self.optimizers().step(closure)  # type: ignore[union-attr]
        if batch_idx + 1 == self.trainer.num_training_batches or self.trainer.is_last_batch:
            for config in self.trainer.lr_scheduler_configs:
                if (self.current_epoch + 1) % config.frequency == 0:
                    self.lr_scheduler_step(config.scheduler, None)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's step, which calls :meth:`training_step`.

        Raises:
            UsageError: The device ran out of memory; says what takes how much of it.
        """
        with explained_in_training(self):
            super().optimizer_step(*args, **kwargs)

    @property
    def scale(self) -> float:
        """What the encoder's input is multiplied by."""
        return float(self.input_scale) if self.hparams["scale_input"] else 1.0

    def step(self, batch: SkeletonBatch, draw: torch.Generator) -> Projections:
        """Draw the views of a batch and compute its losses, see :meth:`ProSLModule.losses`."""
        views, stronger = self.draw_views(batch, draw), self.draw_stronger_views(batch, draw)
        return self.losses(*views, batch.index, stronger)

    def draw_views(self, batch: SkeletonBatch, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Independent query, key and (where there is a third branch) semantic views, (N, C, F, V, M) each."""
        query, key = (self._stream(self.contrastive_view(batch.joints, batch.length, draw)) for _ in range(2))
        if not self.hparams["semantic"] or self.hparams["third_branch"] == "none":
            return query, key, None
        semantic = self._stream(self.semantic_view(batch.joints, batch.length, draw))
        by_importance = self.stage == "semantic" and self.hparams["third_branch"] == "semantic"
        importance = self.codebook.importance if by_importance else None
        weights = masking_weights(importance, self.layout.num_joints, batch.index)
        joints = draw_joints(weights, self.masked_joints, len(batch.index), draw)
        return query, key, mask_joints(semantic, joints)

    def draw_stronger_views(self, batch: SkeletonBatch, draw: torch.Generator) -> list[Tensor]:
        """The base method's chain of stronger views, (N, C, F, V, M) each; most methods have none."""
        return [
            mask_frames(self._stream(view(batch.joints, batch.length, draw)), masked_joints, draw)
            for view, masked_joints in self.stronger_views
        ]

    def _stream(self, view: Tensor) -> Tensor:
        seen = to_stream(view, self.hparams["stream"], self.layout.parents)
        return seen * self.input_scale if self.hparams["scale_input"] else seen
