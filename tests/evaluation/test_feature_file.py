"""Feature tables written piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.errors import DataError
from prosl_lightning.evaluation.feature_file import FeatureFile


def test_pieces_become_one_table(tmp_path):
    table = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    with FeatureFile(tmp_path / "f.npz") as file:
        for part in (table[:4], table[4:]):
            file.add(part)
        file.finish(names=np.array([f"clip é{i}" for i in range(7)]))
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert np.array_equal(found["features"], table)
        assert found["features"].dtype == np.float32
        assert found["names"][6] == "clip é6"
        assert set(found) == {"features", "names"}
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def _fail(path: Path) -> None:
    with FeatureFile(path) as file:
        file.add(np.zeros((2, 3), np.float32))
        raise RuntimeError("midway")


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "f.npz"
    path.write_text("of an earlier run")
    with pytest.raises(RuntimeError, match="midway"):
        _fail(path)
    assert path.read_text() == "of an earlier run"
    assert list(Path(tmp_path).iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"gone/f\.npz cannot be written: No such file"):
        FeatureFile(tmp_path / "gone" / "f.npz")
