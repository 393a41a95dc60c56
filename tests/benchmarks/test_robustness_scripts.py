"""benchmarks/kills.py and benchmarks/scale.py at small sizes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from prosl_lightning.data.archive import Archive

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_killed_runs_end_like_the_run_left_alone():
    """Killed while a checkpoint is written, while the codebook is built, and in the middle of an epoch."""
    command = [sys.executable, BENCHMARKS / "kills.py", "--times", "3", "--epochs", "2", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if "different: nothing" in line]
    assert len(rows) == 3
    for row, kind in zip(rows, ("checkpoint write", "codebook build", "warm-up step"), strict=True):
        assert kind in row


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_tiled_archive_is_measured(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    scale = importlib.import_module("scale")
    for name, value in (("DIFFERENT", 200), ("STEPS", 12), ("CLUSTERS", 5), ("BATCH", 8)):
        monkeypatch.setattr(scale, name, value)
    monkeypatch.setitem(scale.MODEL, "num_clusters", 5)
    scale.write_tiled(tmp_path / "archive", 600)
    archive = Archive.open(tmp_path / "archive")
    archive.verify()
    assert len(archive) == 600
    assert (archive.clip(17) == archive.clip(417)).all()
    found = scale.measure(tmp_path / "archive")
    assert found["train"] == 594  # all but subject 100
    assert set(scale.COLUMNS) <= set(found)
    assert found["step us"] > found["load us"] > 0
    assert found["features MB"] == pytest.approx(594 * 128 * 4 / 1e6)  # a MB is 10^6 bytes
