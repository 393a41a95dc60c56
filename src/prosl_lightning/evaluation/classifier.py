"""An encoder with a linear head: trained on frozen features or fine-tuned, stored with all it needs, asked again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.metrics import classification_metrics
from prosl_lightning.evaluation.recipe import TrainingRecipe, new_head
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.prosl.optimisation import sgd_with_milestones
from prosl_lightning.seeds import generator, seeded

_KEY = "classifier"
_GALLERY = ("gallery_features", "gallery_names", "gallery_labels")
_GALLERY_BYTES = 100 * 2**20


class ClassifierEvaluation(pl.LightningModule):
    """A linear layer on a pre-trained encoder: what linear, semi-supervised and transfer evaluation share.

    Batches are :class:`SkeletonBatch`, or pairs of features (N, D) and labels (N,) where the encoder is frozen: its
    crop is fixed, so features extracted once train the same layer as encoding every sequence again in each epoch.

    Args:
        encoder: A trained :class:`ProSLModule` of any base method (copied, never changed), or a :class:`Backbone`.
        class_names: Names of the classes in label order.
        recipe: Optimisation and crop.
        frozen: Whether only the layer trains.
        seed: Of the layer's initial weights and the random crops.
        data: What is known of the data (`SkeletonDataModule.recipe`): kept in the checkpoint.

    Attributes:
        history: Test accuracy in percent after each validated epoch.
        gallery_features: Training features (G, D) float16 for showing neighbours, or None; with `gallery_names` and
            `gallery_labels` (G,).
    """

    def __init__(
        self,
        encoder: ProSLModule | Backbone,
        class_names: Sequence[str],
        *,
        recipe: TrainingRecipe,
        frozen: bool,
        seed: int = 0,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = Backbone.of(encoder)
        self.class_names = tuple(class_names)
        self.recipe, self.frozen, self.seed = recipe, frozen, seed
        self.data_recipe = dict(data or {})
        if frozen:
            self.backbone.requires_grad_(False)
        if len(self.class_names) < 2:
            raise UsageError(f"a classifier needs two classes or more, found {len(self.class_names)}")
        self.head = new_head(self.backbone.network.feature_size, len(self.class_names), seed)
        self.measures = classification_metrics(len(self.class_names))
        self.history: list[float] = []
        self.gallery_features: Tensor | None = None
        self.gallery_names: list[str] | None = None
        self.gallery_labels: Tensor | None = None
        self.train(self.training)

    # ---------------------------------------------------------------------------------------------- using it

    @property
    def layout(self) -> Any:
        """Body model of the sequences it takes."""
        return self.backbone.layout

    @property
    def num_bodies(self) -> int:
        """Bodies of the sequences it takes."""
        return self.backbone.num_bodies

    def embed(self, batch: SkeletonBatch) -> Tensor:
        """Features (N, D) of a batch under the fixed centre crop."""
        return self.backbone(self.backbone.prepare(batch)).float()

    def forward(self, batch: SkeletonBatch) -> Tensor:
        """Logits (N, K) of a batch under the fixed centre crop."""
        return self.head(self.embed(batch))

    @torch.no_grad()
    def predict(self, batch: SkeletonBatch) -> Tensor:
        """Logits (N, K) of a batch under the fixed centre crop, in evaluation mode."""
        was_training, _ = self.training, self.eval()
        try:
            return self(batch)
        finally:
            self.train(was_training)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Logits of a batch."""
        return self._logits(batch)[0]

    def _logits(self, batch: Any) -> tuple[Tensor, Tensor]:
        if isinstance(batch, SkeletonBatch):
            return self(batch), batch.label
        features, labels = batch
        if not self.frozen:
            raise UsageError("a fine-tuned encoder trains on sequences (SkeletonBatch), not on features")
        return self.head(features.float()), labels

    # ---------------------------------------------------------------------------------------------- Lightning

    def train(self, mode: bool = True) -> ClassifierEvaluation:
        """Training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross entropy of one batch."""
        if self.frozen:
            logits, labels = self._logits(batch)
        else:
            logits, labels = self._augmented_logits(batch, batch_idx)
        loss = F.cross_entropy(logits, labels)
        self.log("loss", loss, prog_bar=True, batch_size=len(labels))
        return loss

    def _augmented_logits(self, batch: SkeletonBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, SkeletonBatch):
            return self._logits(batch)
        seeds = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        view = self.backbone.prepare(batch, self.recipe.train_crop, generator(batch.joints.device, *seeds))
        has_dropout = getattr(self.backbone.network, "has_dropout", False)
        with seeded(self.device, *seeds) if has_dropout else nullcontext():
            return self.head(self.backbone(view).float()), batch.label

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count one batch."""
        self.measures.update(*self._logits(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count one batch."""
        self.measures.update(*self._logits(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the test figures of this epoch."""
        self._log_measures("validation")
        if not self.trainer.sanity_checking:
            self.history.append(float(self.trainer.callback_metrics["validation/top-1"]))

    def on_test_epoch_end(self) -> None:
        """Log the test figures."""
        self._log_measures("test")

    def _log_measures(self, stage: str) -> None:
        found = self.measures.compute()
        self.measures.reset()
        self.log_dict({f"{stage}/{name}": 100 * found[name].float() for name in ("top-1", "top-5", "calibration")})

    def configure_optimizers(self) -> Any:
        """SGD on what is trained; the learning rate is divided by ten at each milestone."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return sgd_with_milestones(trained, asdict(self.recipe))

    # ---------------------------------------------------------------------------------------------- keeping it

    def keep_gallery(self, features: Tensor, names: Sequence[str], labels: Tensor) -> bool:
        """Store training features for showing neighbours, in float16, unless they take more than 100 MB.

        Args:
            features: (G, D).
            names: G names of the sequences.
            labels: (G,) int64.

        Returns:
            Whether they were small enough.
        """
        small = 2 * features.numel() <= _GALLERY_BYTES
        if small:
            self.gallery_features, self.gallery_labels = features.half().cpu(), labels.cpu()
            self.gallery_names = [str(name) for name in names]
        return small

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put beside the weights what :func:`load_classifier` needs, as plain data."""
        checkpoint[_KEY] = {
            "backbone": self.backbone.options,
            "class_names": list(self.class_names),
            "recipe": self.recipe.to_plain(),
            "frozen": self.frozen,
            "seed": self.seed,
            "data": self.data_recipe,
        }
        checkpoint |= {name: getattr(self, name) for name in _GALLERY if getattr(self, name) is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the gallery back."""
        for name in _GALLERY:
            setattr(self, name, checkpoint.get(name))


def save_classifier(classifier: ClassifierEvaluation, path: str | Path) -> Path:
    """Write a classifier to one file that needs nothing else: encoder, layer, class names, recipe, gallery."""
    checkpoint: dict[str, Any] = {"state_dict": {name: w.cpu() for name, w in classifier.state_dict().items()}}
    classifier.on_save_checkpoint(checkpoint)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    torch.save(checkpoint, temporary)
    os.replace(temporary, path)
    return path


def load_classifier(path: str | Path) -> ClassifierEvaluation:
    """A classifier from the file :func:`save_classifier` or Lightning's Trainer wrote, in evaluation mode, on the CPU.

    Returns:
        Among others: `predict(batch)` -> logits (N, K), `embed(batch)` -> features (N, D), `class_names`, `layout` and
        `num_bodies` of the sequences it takes, `data_recipe` (how its data were normalised), `gallery_features`.

    Raises:
        DataError: There is no such file, or it is not a classifier.
    """
    if not Path(path).is_file():
        there = f"{path} is a folder, not a classifier" if Path(path).is_dir() else f"there is no classifier {path}"
        raise DataError(there)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path} is not a complete checkpoint") from error
    if not isinstance(content, dict) or _KEY not in content or "state_dict" not in content:
        raise DataError(
            f"{path} is not a classifier; `prosl linear`, `semi` and `transfer` write one from a checkpoint"
        )
    stored = content[_KEY]
    try:
        recipe = TrainingRecipe.of(stored["recipe"])
        classifier = ClassifierEvaluation(
            Backbone.rebuild(stored["backbone"]), stored["class_names"], recipe=recipe, frozen=stored["frozen"],
            seed=stored["seed"], data=stored["data"],
        )  # fmt: skip
        classifier.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} is an incomplete classifier: {str(error).splitlines()[0]}") from error
    classifier.on_load_checkpoint(content)
    return classifier.eval()
