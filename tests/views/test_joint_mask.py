"""The adaptive mask's draw: exact with given noise, and the right joints hidden the right share of the time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prosl_lightning.errors import UsageError
from prosl_lightning.views import choose_joints, draw_joints, mask_joints


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [2, 15])
def test_given_noise_chooses_the_stored_joints(fixture_arrays, count, dtype):
    arrays = fixture_arrays("prosl_equations")
    weights = torch.from_numpy(arrays["mask_plain/mask_probability"]).to(dtype)
    joints = choose_joints(weights, torch.from_numpy(arrays["mask_draw/gumbel"]).to(dtype), count)
    assert np.array_equal(joints.numpy(), arrays[f"mask_draw/joints_{count}"])


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("count", [2, 15])
def test_joints_are_drawn_as_often_as_eq_8_says(fixture_arrays, count, per_sample):
    arrays, draws = fixture_arrays("prosl_equations"), 40_000
    weights = torch.from_numpy(arrays["mask_plain/mask_probability"]).float()
    weights = weights.expand(draws, -1) if per_sample else weights
    joints = draw_joints(weights, count, draws, torch.Generator().manual_seed(0))
    assert joints.shape == (draws, count)
    assert (joints.diff(dim=1) > 0).all()  # all different, ascending
    expected = torch.from_numpy(arrays[f"mask_plain/inclusion_{count}"])
    deviation = joints.flatten().bincount(minlength=25) / draws - expected
    assert (deviation.abs() / (expected * (1 - expected) / draws).sqrt()).max() < 4.5


def test_all_and_no_joints_can_be_drawn_and_no_more():
    weights, generator = torch.ones(5), torch.Generator().manual_seed(0)
    assert draw_joints(weights, 5, 2, generator).tolist() == [[0, 1, 2, 3, 4]] * 2
    assert draw_joints(weights, 0, 2, generator).shape == (2, 0)
    with pytest.raises(UsageError, match="cannot mask 6 of 5 joints"):
        draw_joints(weights, 6, 2, generator)


@pytest.mark.parametrize("persons", [1, 2])
def test_masked_joints_are_zero_in_all_frames_and_persons_and_others_untouched(persons):
    x = torch.randn(2, 3, 6, 5, persons)
    y = mask_joints(x, torch.tensor([[0, 4], [1, 2]]))
    for sample, hidden in enumerate(([0, 4], [1, 2])):
        shown = [v for v in range(5) if v not in hidden]
        assert (y[sample, :, :, hidden] == 0).all()
        assert torch.equal(y[sample, :, :, shown], x[sample, :, :, shown])
