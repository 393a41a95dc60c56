"""Semi-supervised evaluation: encoder and linear layer are fine-tuned on a labelled fraction of the training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, Subset

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.classifier import ClassifierEvaluation
from prosl_lightning.evaluation.features import check_labels, labelled_positions
from prosl_lightning.evaluation.recipe import TrainingRecipe
from prosl_lightning.prosl.extract import extract, iterate
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.seeds import generator

FINE_TUNING = TrainingRecipe(learning_rate=0.01, epochs=80, milestones=(50, 70), batch_size=64, train_crop=(0.5, 1.0))
"""CMD's recipe (`action_classification_cmd_semi.py`), of the same lineage as HiCo, which ships none."""

USUAL_STEPS = 560
"""Steps of the recipe's smallest published run: 1 % of NTU-60 is 400 sequences, 7 batches in each of 80 epochs."""

Sampling = Literal["random", "stratified"]


class SemiSupervisedEvaluation(ClassifierEvaluation):
    """Fine-tuning as a LightningModule: encoder and linear layer train on sequences, randomly cropped.

    Which sequences carry labels is the loader's business, see :func:`labelled_subset` and :func:`labelled_loader`.

    Args:
        encoder: A trained module (copied, never changed), or a :class:`Backbone`.
        class_names: Names of the classes in label order.
        recipe: Optimisation and crop.
        seed: Of the layer's initial weights and the crops.
        data: What is known of the data (`SkeletonDataModule.recipe`): kept in the checkpoint.

    Example::

        model = SemiSupervisedEvaluation(encoder, data.archive.class_names)
        chosen = labelled_subset(data.archive.labels[data.train_rows], 0.1)
        pl.Trainer(max_epochs=80).fit(model, labelled_loader(data, chosen, 64), data.feature_dataloader("test"))
    """

    def __init__(
        self,
        encoder: ProSLModule | Backbone,
        class_names: Sequence[str],
        *,
        recipe: TrainingRecipe = FINE_TUNING,
        seed: int = 0,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(encoder, class_names, recipe=recipe, frozen=False, seed=seed, data=data)


def labelled_subset(
    labels: NDArray[np.int64], fraction: float, sampling: Sampling = "random", seed: int = 0
) -> NDArray[np.int64]:
    """Positions of the sequences whose labels are used.

    Args:
        labels: Classes of the training set, (N,), -1 where unknown: never chosen.
        fraction: Share of the N training sequences that have a label, in (0, 1].
        sampling: `random` takes int(N * fraction) of them (CMD); `stratified` the rounded share of every class, at
            least one sequence (AimCLR, HiCLR).
        seed: Of the choice.

    Returns:
        Ascending positions, (n,) int64.

    Raises:
        UsageError: The fraction is not in (0, 1], or so small that nothing is left.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction is {fraction}; it must be above 0 and at most 1")
    known = np.flatnonzero(labels >= 0)
    order = known[torch.randperm(len(known), generator=generator("cpu", seed)).numpy()]
    if sampling == "random":
        chosen = order[: int(len(known) * fraction)]
    else:
        counts = {label: max(1, int(fraction * (labels == label).sum() + 0.5)) for label in np.unique(labels[known])}
        chosen = np.concatenate([order[labels[order] == label][:count] for label, count in counts.items()])
    if len(chosen) == 0:
        raise UsageError(f"fraction {fraction} of {len(known)} labelled training sequences is none: give a larger one")
    return np.sort(chosen).astype(np.int64)


def few_steps(recipe: TrainingRecipe, labelled: int) -> str | None:
    """One line where fine-tuning takes fewer optimiser steps than the recipe was made for, with the epochs to give.

    Args:
        recipe: Optimisation.
        labelled: Sequences that carry labels.

    Example:
        >>> few_steps(FINE_TUNING, 43)
        'note: 80 optimiser steps (1 in each epoch) are few: the recipe was made for 560 or more, --epochs 560'
        >>> few_steps(FINE_TUNING, 400)
    """
    each = -(-labelled // recipe.batch_size)
    if each * recipe.epochs >= USUAL_STEPS:
        return None
    return (
        f"note: {each * recipe.epochs} optimiser steps ({each} in each epoch) are few: the recipe was made for "
        f"{USUAL_STEPS} or more, --epochs {-(-USUAL_STEPS // each)}"
    )


class EpochOrder(Sampler[int]):
    """A permutation that follows from seed and epoch alone; Lightning tells it the epoch."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed, self._epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Go on to another permutation."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self._size, generator=generator("cpu", self._seed, self._epoch)).tolist())


def _as_is(batch: Any) -> Any:
    return batch


def labelled_loader(
    data: SkeletonDataModule, positions: Sequence[int] | NDArray[np.int64] | None, batch_size: int, seed: int = 0
) -> DataLoader[SkeletonBatch]:
    """Shuffled batches of some training sequences; unlike pre-training's, the incomplete last one counts.

    Args:
        data: After `setup`.
        positions: Which sequences of the training set; None: all that have a label.
        batch_size: Sequences per batch.
        seed: Of the order.
    """
    positions = labelled_positions(data) if positions is None else positions
    chosen = Subset(data.feature_dataloader("train").dataset, [int(position) for position in positions])
    return DataLoader(chosen, batch_size=batch_size, sampler=EpochOrder(len(chosen), seed), collate_fn=_as_is)


class FineTuned(NamedTuple):
    """Outcome of a fine-tuning on the test set.

    Attributes:
        logits: After the last epoch, (Q, K).
        labels: (Q,) int64.
        best_accuracy: Percent of the best epoch among those that were tested, the last included.
    """

    logits: Tensor
    labels: Tensor
    best_accuracy: float


def fine_tune(
    classifier: ClassifierEvaluation,
    data: SkeletonDataModule,
    positions: NDArray[np.int64],
    *,
    test_every: int = 5,
    progress_bar: bool = False,
) -> FineTuned:
    """Train a classifier on some training sequences and test it; no logs or checkpoints are written.

    Args:
        classifier: What is trained, by its own recipe.
        data: After `setup`.
        positions: The labelled sequences, see :func:`labelled_subset`.
        test_every: Epochs between tests (CMD: 5); they only serve the best epoch, which is not the reported one.
        progress_bar: Whether to show Lightning's.

    Raises:
        DataError: There is no test set, or a test sequence has no label.
        UsageError: `test_every` is less than 1.
    """
    if test_every < 1:
        raise UsageError(f"test_every is {test_every}; it must be at least 1")
    check_labels(data)
    recipe = classifier.recipe
    trainer = pl.Trainer(
        accelerator="auto", devices=1, max_epochs=recipe.epochs, check_val_every_n_epoch=test_every, logger=False,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=progress_bar,
        num_sanity_val_steps=0,
    )  # fmt: skip
    loader = labelled_loader(data, positions, recipe.batch_size, classifier.seed)
    trainer.fit(classifier, loader, data.feature_dataloader("test"))
    classifier.to(trainer.strategy.root_device).eval()
    logits, labels = extract(classifier, data.feature_dataloader("test"), classifier.predict, len(data.test_rows))
    accuracy = 100 * float((logits.argmax(dim=1) == labels).double().mean())
    return FineTuned(logits, labels, max([*classifier.history, accuracy]))


def keep_labelled_gallery(
    classifier: ClassifierEvaluation, data: SkeletonDataModule, positions: NDArray[np.int64]
) -> None:
    """Store the labelled sequences' features in the classifier, where they are small enough."""
    rows = Subset(data.feature_dataloader("train").dataset, positions.tolist())
    loader = DataLoader(rows, batch_size=data.eval_batch_size, collate_fn=_as_is)
    with torch.no_grad():
        found = [(classifier.embed(batch), batch.label) for batch in iterate(classifier, loader)]
    features, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    classifier.keep_gallery(features, data.archive.names[data.train_rows[positions]], labels)
