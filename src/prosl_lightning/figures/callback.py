"""FigureLogger: figures of the codebook in every logger that takes images."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prosl_lightning._lightning import pl
from prosl_lightning.errors import UsageError
from prosl_lightning.figures.skeletons import joint_importance_figure
from prosl_lightning.figures.training import cluster_sizes_figure
from prosl_lightning.prosl.module import ProSLModule


class FigureLogger(pl.Callback):
    """Draws joint importance and cluster sizes at the end of semantic epochs.

    They go to every logger with a `log_image(key, images, step)` as Lightning's `WandbLogger` has it; without one
    nothing is drawn. `prosl fit` adds one by itself.

    Args:
        every_n_epochs: Draw in the first semantic epoch and every so many epochs from there.
    """

    def __init__(self, every_n_epochs: int = 5) -> None:
        if every_n_epochs < 1:
            raise UsageError(f"every_n_epochs is {every_n_epochs}; it must be at least 1")
        self.every_n_epochs = every_n_epochs
        self._pose: NDArray[np.float64] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the codebook, named by the epoch it was built for."""
        loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if not (trainer.is_global_zero and loggers and isinstance(pl_module, ProSLModule)):
            return
        since = trainer.current_epoch - pl_module.hparams["semantic_start"]
        if pl_module.stage != "semantic" or since % self.every_n_epochs:
            return
        for name, figure in self._figures(trainer, pl_module).items():
            for logger in loggers:
                logger.log_image(key=f"figures/{name}", images=[_pixels(figure)], step=trainer.global_step)

    def _figures(self, trainer: pl.Trainer, module: ProSLModule) -> dict[str, Figure]:
        if self._pose is None:
            self._pose = _first_pose(trainer)
        codebook, epoch = module.codebook, int(module.codebook.epoch)
        importance = codebook.importance.mean(dim=0) if codebook.importance.dim() == 2 else codebook.importance
        return {
            "joint_importance": joint_importance_figure(
                module.layout, importance.cpu().numpy(), self._pose, f"Semantic coefficients, epoch {epoch}"
            ),
            "cluster_sizes": cluster_sizes_figure(codebook.assignment.cpu().numpy(), module.hparams["num_clusters"]),
        }


def _first_pose(trainer: pl.Trainer) -> NDArray[np.float64]:
    """The first person of the first training sequence in the middle of its time, (V, 3)."""
    batch = next(iter(trainer.datamodule.feature_dataloader()))  # type: ignore[attr-defined]
    return batch.joints[0, :, int(batch.length[0]) // 2, :, 0].T.double().cpu().numpy()


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure as an image, (H, W, 4)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
