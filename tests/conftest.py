"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]

# Two threads on a busy machine are slower than one, and results are compared bit by bit.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fixture_arrays():
    """Name -> arrays of `tests/fixtures/NAME.npz`, each read once."""
    cache: dict[str, dict[str, np.ndarray]] = {}

    def load(name: str) -> dict[str, np.ndarray]:
        if name not in cache:
            cache[name] = dict(np.load(ROOT / "tests" / "fixtures" / f"{name}.npz"))
        return cache[name]

    return load


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real data sets and fixtures that may not be redistributed; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("PROSL_TEST_DATA", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no folder with real data (PROSL_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_archive(tmp_path_factory) -> Path:
    """48 short sequences of three made-up motions, 25 joints, two bodies, protocols x-sub and x-view."""
    from prosl_lightning.data.archive import ArchiveWriter
    from prosl_lightning.skeleton import SkeletonLayout

    root = tmp_path_factory.mktemp("data") / "tiny"
    draw = np.random.default_rng(0)
    rest = draw.normal(size=(2, 25, 3)) * 0.3
    protocols = {"x-sub": {"column": "subject", "train": [1, 2, 3]}, "x-view": {"column": "camera", "train": [2]}}
    layout = SkeletonLayout.of("kinect-v2")
    with ArchiveWriter(root, layout=layout, num_bodies=2, class_names=("a", "b", "c"), protocols=protocols) as writer:
        for i in range(48):
            label, time = i % 3, np.linspace(0, 4 + draw.random(), int(draw.integers(20, 60)))
            joints = np.broadcast_to(rest, (len(time), 2, 25, 3)).copy()
            moving = slice(4 + 4 * label, 8 + 4 * label)
            joints[:, 0, moving, label] += np.sin(3 * time + draw.random())[:, None] * (0.3 + 0.2 * draw.random())
            joints[:, 1] *= label == 2
            joints += draw.normal(size=joints.shape) * 0.01 * (joints != 0)
            writer.add(f"clip{i:03d}", joints.transpose(0, 2, 1, 3), label=label, subject=1 + i % 4, camera=1 + i // 24)
    return root


@pytest.fixture
def tiny_options() -> dict:
    """Options of a ProSLModule that fits `tiny_archive` and trains in a second; semantic from epoch 1."""
    return {
        "base": "hico-gru",
        "base_args": {"hidden_size": 16, "num_layers": 1, "projection_size": 8},
        "num_frames": 16,
        "min_crop_frames": 8,
        "bank_size": 32,
        "momentum": 0.9,
        "semantic_start": 1,
        "num_clusters": 4,
        "confidence_threshold": "relative",
        "importance_samples": 8,
        "milestones": (3,),
    }
