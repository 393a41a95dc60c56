"""Linear evaluation: one fully connected layer on frozen features.

The protocol's crop is fixed, so features are extracted once and the layer is trained on the table; that is the same
protocol as encoding every clip again in each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.classifier import ClassifierEvaluation
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.evaluation.recipe import TrainingRecipe, new_head
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.seeds import generator

LINEAR = TrainingRecipe(learning_rate=2.0, epochs=80, milestones=(50, 70), batch_size=1024)
"""HiCo's linear protocol (`run_action_classification.sh`, `feeder_downstream.py`)."""


class LinearEvaluation(ClassifierEvaluation):
    """Linear evaluation as a LightningModule: a linear layer is trained on a frozen encoder's features.

    Takes sequences (:class:`SkeletonBatch`), which it encodes under the fixed centre crop, or features extracted once:
    pairs (features, labels), e.g. of a `TensorDataset`. Both train the same layer.

    Args:
        encoder: A trained module (copied, never changed), or a :class:`Backbone`.
        class_names: Names of the classes in label order.
        recipe: Optimisation; a small set needs more epochs.
        seed: Of the layer's initial weights.
        data: What is known of the data (`SkeletonDataModule.recipe`): kept in the checkpoint.

    Example::

        model = LinearEvaluation(encoder, data.archive.class_names)
        tables = extract_tables(encoder, data)
        loader = DataLoader(TensorDataset(tables.train, tables.train_labels), batch_size=1024, shuffle=True)
        pl.Trainer(max_epochs=80).fit(model, loader)
    """

    def __init__(
        self,
        encoder: ProSLModule | Backbone,
        class_names: Sequence[str],
        *,
        recipe: TrainingRecipe = LINEAR,
        seed: int = 0,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(encoder, class_names, recipe=recipe, frozen=True, seed=seed, data=data)


class LinearResult(NamedTuple):
    """Accuracies in percent on the test set.

    Attributes:
        accuracy: After the last epoch: the figure to report.
        best_accuracy: Of the best epoch, chosen on the test set as many peers do.
        classifier: The trained layer.
        losses: Training loss of each step.
    """

    accuracy: float
    best_accuracy: float
    classifier: nn.Linear
    losses: list[float]


def linear_evaluation(
    tables: FeatureTables,
    num_classes: int,
    *,
    epochs: int = 80,
    milestones: Sequence[int] = (50, 70),
    learning_rate: float = 2.0,
    batch_size: int = 1024,
    seed: int = 0,
    classifier: nn.Linear | None = None,
    order: Callable[[int], Tensor] | None = None,
) -> LinearResult:
    """Train a linear classifier by HiCo's protocol (SGD, momentum 0.9, no weight decay, no normalisation).

    Args:
        tables: Features and classes of both parts.
        num_classes: Number of classes.
        epochs: Passes over the training set.
        milestones: Epochs (0-based) at whose start the learning rate is divided by ten.
        learning_rate: Of SGD.
        batch_size: Features per step; the last batch of an epoch may be smaller.
        seed: Of the initial weights, N(0, 0.01), and of the order.
        classifier: A layer to train instead of a fresh one.
        order: Epoch -> permutation of the training rows, instead of the seed's.
    """
    if classifier is None:
        classifier = new_head(tables.train.shape[1], num_classes, seed).to(tables.train.device)
    recipe = TrainingRecipe(learning_rate, epochs, tuple(milestones), batch_size)
    losses: list[Tensor] = []
    found = linear_epochs(tables, classifier, recipe, seed=seed, order=order, losses=losses)
    accuracies = [top1(logits, tables.test_labels) for logits in found]
    return LinearResult(accuracies[-1], max(accuracies), classifier, torch.stack(losses).tolist())


def linear_epochs(
    tables: FeatureTables,
    classifier: nn.Linear,
    recipe: TrainingRecipe,
    *,
    seed: int = 0,
    order: Callable[[int], Tensor] | None = None,
    losses: list[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Train a linear layer epoch by epoch, as :func:`linear_evaluation` does, and give the test set's logits (Q, K).

    So several layers can be trained side by side and their fusion be judged after each epoch.

    Args:
        tables: Features and classes of both parts.
        classifier: The layer, on the features' device; it is trained in place.
        recipe: Optimisation.
        seed: Of the order.
        order: Epoch -> permutation of the training rows, instead of the seed's.
        losses: Takes the training loss of each step.
    """
    optimizer = torch.optim.SGD(
        classifier.parameters(), recipe.learning_rate, recipe.sgd_momentum, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.milestones), gamma=0.1)
    for epoch in range(recipe.epochs):
        rows = order(epoch) if order else torch.randperm(len(tables.train), generator=generator("cpu", seed, epoch))
        for batch in rows.to(tables.train.device).split(recipe.batch_size):
            loss = F.cross_entropy(classifier(tables.train[batch]), tables.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if losses is not None:
                losses.append(loss.detach())
        schedule.step()
        with torch.no_grad():
            logits = classifier(tables.test)
        yield logits


def top1(logits: Tensor, labels: Tensor) -> float:
    """Percent of the rows of logits (Q, K) whose largest is the label's, (Q,) int64."""
    return 100 * float((logits.argmax(dim=1) == labels).double().mean())
