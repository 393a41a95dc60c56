"""Small public HiCo encoders: weights, inputs and outputs (github.com/HuiGuanLab/HiCo at cf39a93, random weights)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "fixtures"


class Reference:
    """One reference file: public names -> arrays, the sizes it was built with and what it puts out."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.arrays = dict(np.load(FOLDER / f"hico_encoder_{kind}.npz"))
        self.weights = {
            name.removeprefix("param/"): value for name, value in self.arrays.items() if name.startswith("param/")
        }
        self.atol = 2e-5 if kind == "transformer" else 1e-5


@pytest.fixture(params=["lstm", "gru", "transformer"])
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


@pytest.fixture
def gru_weights() -> dict[str, np.ndarray]:
    return Reference("gru").weights


@pytest.fixture
def lstm_weights() -> dict[str, np.ndarray]:
    return Reference("lstm").weights
