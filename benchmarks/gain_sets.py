"""What `gain.py` trains on: the data sets with their settings, and the training side alone to choose settings on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prosl_lightning.data.datamodule import SkeletonDataModule

NEVER = 10**9  # an epoch that no run reaches
MODEL: dict[str, Any] = {
    "base": "hico-lstm", "base_args": {"hidden_size": 128}, "bank_size": 512, "momentum": 0.99, "min_crop_frames": 16,
    "learning_rate": 0.01, "confidence_threshold": "relative", "importance_samples": 64,
}  # fmt: skip
# protocol, classes, and what differs from MODEL
SETS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "nw-ucla": ("x-view", 10, {}),
    # The settings under which the public HiCo code was measured, on data whose shoulder line runs from right to left:
    # docs/results.md
    "nw-ucla-public": ("x-view", 10, {"learning_rate": 0.03, "bank_wrap": "reference"}),
    "utd-mhad": ("x-sub", 27, {}),
    "irds": ("x-sub", 9, {"spatial_flip": False}),
    "kinder-gator": ("x-sub", 58, {}),
    "synthetic": (
        "x-sub",
        16,
        {
            "base_args": {"hidden_size": 64, "num_layers": 1},
            "num_frames": 32,
            "crop_ratio": [0.4, 1.0],
            "min_crop_frames": 24,
            "learning_rate": 0.02,
        },
    ),
}


class TrainingSide(SkeletonDataModule):
    """The training part alone, split again by the protocol's own column: to choose settings without the test set."""

    def setup(self, stage: str | None = None) -> None:
        """Hold out the last quarter (at least one) of the values that train."""
        super().setup(stage)
        column = self.archive.columns[self.archive.meta["protocols"][self.protocol]["column"]]
        values = np.unique(column[self.train_rows])
        held_out = np.isin(column[self.train_rows], values[-math.ceil(len(values) / 4) :])
        self.train_rows, self.test_rows = self.train_rows[~held_out], self.train_rows[held_out]
