"""Each augmentation against the public code's numbers, with the stored draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.views.draws import draw_angles, draw_axis_mask, draw_noise, draw_subset
from prosl_lightning.views.spatial import (
    add_noise,
    blur,
    blur_kernel,
    corruption_matrix,
    flip,
    reorder_joints,
    rotation_matrix,
    transform,
)

MIRROR = SkeletonLayout.of("kinect-v2").mirror


@pytest.fixture
def arrays(fixture_arrays):
    return fixture_arrays("augmentations")


@pytest.fixture
def x(arrays):
    return torch.from_numpy(arrays["x"])[None]


def tensor(array: np.ndarray) -> torch.Tensor:
    """One sample's parameter with a batch dimension, in float32."""
    return torch.from_numpy(np.asarray(array)).float()[None]


def corrupted(joints: np.ndarray, num_joints: int = 25) -> torch.Tensor:
    return torch.zeros(1, num_joints, dtype=torch.bool).index_fill_(1, torch.from_numpy(joints), True)


def close(y: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(y[0], torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_shear(arrays, x):
    close(transform(x, tensor(arrays["shear/matrix"])), arrays["shear/y"])


def test_joint_mask_is_exact(arrays, x):
    matrix = corruption_matrix(corrupted(arrays["mask/joints"]), torch.zeros(1, 3, 3))
    assert np.array_equal(transform(x, matrix)[0].numpy(), arrays["mask/y"])


def test_jitter_multiplies_row_vectors(arrays, x):
    matrix = corruption_matrix(corrupted(arrays["jitter/joints"]), tensor(arrays["jitter/matrix"]))
    close(transform(x, matrix), arrays["jitter/y"])


def test_flip_is_exact_and_takes_its_pairs_from_the_layout(arrays, x):
    assert arrays["flip/joint_order"].tolist() == list(MIRROR)
    both = flip(x.expand(2, -1, -1, -1, -1), MIRROR, torch.tensor([True, False]))
    assert np.array_equal(both[0].numpy(), arrays["flip/y"])
    assert torch.equal(both[1], x[0])


@pytest.mark.parametrize("case", range(3))
def test_rotation(arrays, x, case):
    matrix = rotation_matrix(tensor(arrays[f"rotate/{case}/angles_deg"]).deg2rad())
    close(matrix, arrays[f"rotate/{case}/matrix"].astype(np.float32))
    close(transform(x, matrix), arrays[f"rotate/{case}/y"])


def test_noise(arrays, x):
    noise = tensor(arrays["noise/noise"])  # its standard deviation is 0.01 already
    close(add_noise(x, noise, torch.ones(1)), arrays["noise/y"])
    assert torch.equal(add_noise(x, noise, torch.zeros(1)), x)


@pytest.mark.parametrize("case", range(3))
def test_blur(arrays, x, case):
    kernel = blur_kernel(tensor(arrays[f"blur/{case}/sigma"]))
    close(kernel, arrays[f"blur/{case}/kernel"][7:].astype(np.float32))
    close(blur(x, kernel), arrays[f"blur/{case}/y"])


def test_no_blur_leaves_a_sample_exactly_as_it_is(x):
    y = blur(x.expand(2, -1, -1, -1, -1), blur_kernel(torch.tensor([0.0, 1.0])))
    assert torch.equal(y[0], x[0])
    assert not torch.equal(y[1], x[0])


def test_blur_of_clips_shorter_than_the_kernel(x):
    y = blur(x[:, :, :3], blur_kernel(torch.ones(1)))
    taps = torch.exp(-torch.arange(3.0).square() / 2)
    expected = sum(taps[abs(1 - t)] * x[:, :, t] for t in range(3))
    torch.testing.assert_close(y[:, :, 1], expected)


def test_axis_mask_is_exact(arrays, x):
    kept = torch.ones(1, 3).index_fill_(1, torch.tensor(int(arrays["axis_mask/axis"])), 0)
    assert np.array_equal(transform(x, torch.diag_embed(kept))[0].numpy(), arrays["axis_mask/y"])


def test_transform_takes_any_memory_order_and_any_number_of_joints_and_persons():
    x, matrix = torch.randn(2, 3, 5, 7, 1), torch.randn(2, 3, 3, 7)
    expected = torch.einsum("ndcv,ncfvm->ndfvm", matrix, x)
    torch.testing.assert_close(transform(x, matrix), expected)
    stored = x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(transform(stored, matrix), expected)


def test_joint_order_of_another_layout_is_refused():
    with pytest.raises(UsageError, match="20 joints, the clips have 25"):
        reorder_joints(torch.zeros(1, 3, 4, 25, 2), SkeletonLayout.of("kinect-v1").mirror)


def test_drawn_angles_are_large_about_one_axis_only():
    angles = draw_angles(30_000, torch.Generator().manual_seed(0)).rad2deg()
    assert angles.min() >= 0
    assert angles.max() == pytest.approx(30, abs=0.05)
    assert ((angles > 1).sum(1) <= 1).all()
    # The main axis exceeds one degree in 29 of 30 draws, each axis being the main one in a third of them.
    assert (angles > 1).double().mean(0).tolist() == pytest.approx([29 / 90] * 3, abs=0.015)


def test_axis_mask_drops_each_axis_equally_often():
    kept = draw_axis_mask(30_000, 0.5, torch.Generator().manual_seed(0))
    assert ((kept == 0).sum(1) <= 1).all()
    assert (kept == 0).double().mean(0).tolist() == pytest.approx([1 / 6] * 3, abs=0.012)


def test_drawn_subsets_have_the_wanted_size_and_favour_no_joint():
    drawn = draw_subset(20_000, 20, 12, torch.Generator().manual_seed(0))
    assert (drawn.sum(1) == 12).all()
    assert drawn.double().mean(0).tolist() == pytest.approx([0.6] * 20, abs=0.02)
    with pytest.raises(UsageError, match="cannot corrupt 15 of 12 joints"):
        draw_subset(2, 12, 15, torch.Generator())


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_noise_is_standard_normal_and_differs_between_samples(batch_size):
    noise = draw_noise(batch_size, (3, 64, 25, 2), torch.Generator().manual_seed(0))
    assert noise.shape == (batch_size, 3, 64, 25, 2)
    assert noise.mean((1, 2, 3, 4)).abs().max() < 0.05
    assert noise.std((1, 2, 3, 4)).tolist() == pytest.approx([1.0] * batch_size, abs=0.04)
    correlation = torch.corrcoef(noise.flatten(1)).view(batch_size, batch_size) - torch.eye(batch_size)
    assert correlation.abs().max() < 0.06
