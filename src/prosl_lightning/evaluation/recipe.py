"""How a linear layer on an encoder is trained and begun: what all protocols with a classifier state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from prosl_lightning.errors import DataError
from prosl_lightning.seeds import generator


@dataclass(frozen=True)
class TrainingRecipe:
    """How a classifier is trained; epochs and batch size are the Trainer's and the loader's business.

    Attributes:
        learning_rate: Of SGD.
        epochs: Passes over the labelled sequences.
        milestones: Epochs at whose start the learning rate is divided by ten.
        batch_size: Sequences per step; the last batch of an epoch may be smaller.
        train_crop: Smallest and largest share of a sequence in a random training crop; None is the fixed centre crop.
        sgd_momentum: Of SGD.
        weight_decay: Of SGD.
    """

    learning_rate: float
    epochs: int
    milestones: tuple[int, ...]
    batch_size: int
    train_crop: tuple[float, float] | None = None
    sgd_momentum: float = 0.9
    weight_decay: float = 0.0

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> TrainingRecipe:
        """The recipe :meth:`to_plain` described."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
        return cls(**values)

    def to_plain(self) -> dict[str, Any]:
        """Lists and numbers, for checkpoints and rows of results; without the crop where it is the fixed one."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v is not None}


def class_names_of(names: Sequence[str], labels: Any) -> tuple[str, ...]:
    """Class names of an archive; numbers where it has none, so that a class nobody trained or tested on still counts.

    Raises:
        DataError: There are fewer than two classes.
    """
    count = max(len(names), int(labels.max(initial=-1)) + 1)
    if count < 2:
        raise DataError(f"the data have {count} classes; a classifier needs labels of two or more")
    return tuple(str(names[i]) if i < len(names) else str(i) for i in range(count))


def new_head(feature_size: int, num_classes: int, seed: int) -> nn.Linear:
    """The protocol's linear layer: weights N(0, 0.01), bias 0 (HiCo, `action_classification.py`)."""
    head = nn.Linear(feature_size, num_classes)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator("cpu", seed)) * 0.01)
        head.bias.zero_()
    return head
