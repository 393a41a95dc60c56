"""FigureLogger: maps of the features, and figures of the codebook, in every logger that takes images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import UsageError
from prosl_lightning.figures.codebook import cluster_sizes_figure
from prosl_lightning.figures.importance import joint_importance_figure
from prosl_lightning.figures.maps import feature_map, map_figure
from prosl_lightning.figures.samples import choose_part
from prosl_lightning.figures.skeletons import can_stand
from prosl_lightning.figures.style import pixels
from prosl_lightning.prosl.extract import iterate
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.seeds import seeded
from prosl_lightning.tables import counted

_CLASSES = 10


class FigureLogger(pl.Callback):
    """Draws a t-SNE of the features every few epochs, and in the semantic stage joint importance and cluster sizes.

    They go to every logger with a `log_image(key, images, step)` as Lightning's `WandbLogger` has it; without one
    nothing is drawn. `prosl fit` adds one by itself. The map shows the same training sequences every time, with the
    Davies-Bouldin index of their classes; labels, where there are any, are only looked at. Weights, random draws and
    modes of the training are left as they were.

    Args:
        every_n_epochs: Draw in the first semantic epoch and every so many epochs before and after it.
        map_sequences: Sequences on the map, of ten classes; 0 draws none.
    """

    def __init__(self, every_n_epochs: int = 5, map_sequences: int = 300) -> None:
        if every_n_epochs < 1:
            raise UsageError(f"every_n_epochs is {every_n_epochs}; it must be at least 1")
        if map_sequences < 0 or 0 < map_sequences < _CLASSES:
            raise UsageError(f"map_sequences is {map_sequences}; it must be 0 or at least {_CLASSES}")
        self.every_n_epochs, self.map_sequences = every_n_epochs, map_sequences
        self._pose: NDArray[np.float64] | None = None
        self._labels: NDArray[np.int64] | None = None
        self._shown: tuple[Tensor, NDArray[np.int64], str] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, where it is time."""
        loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if not (trainer.is_global_zero and loggers and isinstance(pl_module, ProSLModule)):
            return
        since = trainer.current_epoch - pl_module.hparams["semantic_start"]
        if since % self.every_n_epochs:
            return
        modes = [module.training for module in pl_module.modules()]
        pl_module.eval()
        try:
            # Iterating over a loader and an encoder's dropout draw from the global generator.
            with seeded(pl_module.device, 0), torch.no_grad():
                figures = self._figures(trainer, pl_module)
        finally:
            for module, mode in zip(pl_module.modules(), modes, strict=True):
                module.training = mode
        for name, figure in figures.items():
            for logger in loggers:
                logger.log_image(key=f"figures/{name}", images=[pixels(figure)], step=trainer.global_step)

    def _figures(self, trainer: pl.Trainer, module: ProSLModule) -> dict[str, Figure]:
        figures = {}
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self._labels is None:
            self._look(module, data)
        if self.map_sequences:
            figures["features"] = self._map(module, trainer.current_epoch + 1, _class_names(data))
        if module.stage == "semantic":
            codebook, epoch = module.codebook, int(module.codebook.epoch)
            if codebook.importance.numel():  # only the semantic branch needs it measured
                importance = codebook.importance.view(-1, module.layout.num_joints).mean(dim=0).cpu().numpy()
                title = f"Semantic coefficients, epoch {epoch}"
                pose = None if can_stand(module.layout) else self._pose
                figures["joint_importance"] = joint_importance_figure(module.layout, importance, pose, title)
            figures["cluster_sizes"] = cluster_sizes_figure(
                codebook.assignment.cpu().numpy(), len(codebook.centroids), classes=self._labels
            )
        return figures

    def _look(self, module: ProSLModule, data: Any) -> None:
        """Read the training set once: labels, a pose, and the encoder's input of the sequences that are mapped."""
        labels = np.full(data.num_samples, -1)
        for batch in data.feature_dataloader():
            labels[batch.index.cpu().numpy()] = batch.label.cpu().numpy()
            if self._pose is None:
                self._pose = batch.joints[0, :, int(batch.length[0]) // 2, :, 0].T.double().cpu().numpy()
        self._labels = labels
        if not self.map_sequences:
            return
        part = choose_part(labels, np.arange(len(labels)), classes=_CLASSES, per_class=self.map_sequences // _CLASSES)
        wanted, kept, order = set(part.rows.tolist()), [], []
        for batch in iterate(module, data.feature_dataloader()):
            places = [place for place, index in enumerate(batch.index.tolist()) if index in wanted]
            if places:
                order += batch.index[places].tolist()
                kept.append(module.prepare(SkeletonBatch(*(field[places] for field in batch))).cpu())
        self._shown = torch.cat(kept)[np.argsort(order)], part.labels, part.note

    def _map(self, module: ProSLModule, epochs: int, class_names: tuple[str, ...]) -> Figure:
        assert self._shown is not None
        inputs, labels, note = self._shown
        features = torch.cat([module(part.to(module.device)).float().cpu() for part in inputs.split(128)])
        drawn = feature_map(features, labels, counted(epochs, "epoch"))
        return map_figure([("", [drawn])], labels, class_names, note=note)


def _class_names(data: Any) -> tuple[str, ...]:
    return tuple(getattr(getattr(data, "archive", None), "class_names", ()))
