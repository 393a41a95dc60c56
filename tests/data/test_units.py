"""Millimetres that are taken for metres are told."""

from __future__ import annotations

import re

import numpy as np
import pytest

from prosl_lightning.data.prepare import arrays
from prosl_lightning.data.units import body_size, size_warning
from prosl_lightning.skeleton import SkeletonLayout

KINECT = SkeletonLayout.of("kinect-v2")


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ([1700.0, 1800.0, 3.0], "a body measures 1700, .* millimetres: divide them by 1000"),
        ([160.0], "centimetres: divide them by 100"),
        ([0.017], "multiply them by 100"),
        ([0.0017], "multiply them by 1000"),
        ([0.09], ""),  # a hand
        ([1.7], ""),
        ([0.0], ""),
        ([], ""),
    ],
)
def test_sizes_far_from_metres(sizes, told):
    warning = size_warning(sizes, KINECT)
    assert bool(warning) == bool(told)
    assert re.search(told, warning)
    assert size_warning(sizes, SkeletonLayout.of("coco-17")) == ""  # has no unit


def test_size_of_a_body():
    clip = np.zeros((5, 2, 4, 3), np.float32)
    clip[2:, 0, 1] = [1, 2, 3]
    clip[2:, 0, 2] = [1.5, 2.1, 4.5]
    clip[:, 1] = 90  # somebody else
    assert body_size(clip) == 1.5
    assert body_size(clip * 0) == 0


def test_prepare_warns(tmp_path, capsys):
    body = np.random.default_rng(0).normal(size=(25, 3)) * 0.4
    for factor, warned in ((1000, True), (1, False)):
        np.save(tmp_path / f"{factor}.npy", np.tile(body * factor, (10, 1, 1)))
        arrays(str(tmp_path / f"{factor}.npy"), out=str(tmp_path / f"o{factor}"), layout="kinect-v2")
        error = capsys.readouterr().err
        assert ("warning: a body measures" in error) == warned
        assert ("divide them by 1000" in error) == warned
