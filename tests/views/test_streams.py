"""Joint, bone and motion streams against the public code's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import STREAMS, SkeletonLayout
from prosl_lightning.views import to_stream

LAYOUT = SkeletonLayout.of("kinect-v2")


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_are_exactly_those_of_the_public_code(fixture_arrays, stream):
    arrays = fixture_arrays("streams")
    y = to_stream(torch.from_numpy(arrays["x"]), stream, LAYOUT.parents)
    assert np.array_equal(y.numpy(), arrays[f"{stream}/x"])


def test_streams_of_another_layout_with_one_person():
    layout = SkeletonLayout.of("kinect-v1")
    x = torch.randn(2, 3, 5, layout.num_joints, 1)
    bone, motion = (to_stream(x, stream, layout.parents) for stream in ("bone", "motion"))
    for child, parent in enumerate(layout.parents):
        assert torch.equal(bone[:, :, :, child], x[:, :, :, child] - x[:, :, :, parent])
    assert torch.equal(motion[:, :, :4], x.diff(dim=2))
    assert (motion[:, :, 4] == 0).all()


def test_streams_let_gradients_through_after_use_under_inference_mode():
    with torch.inference_mode():
        to_stream(torch.zeros(1, 3, 2, 3, 1), "bone", (0, 0, 1))
    x = torch.randn(1, 3, 2, 3, 1, requires_grad=True)
    to_stream(x, "bone", (0, 0, 1)).sum().backward()
    assert x.grad[0, 0, 0, :, 0].tolist() == [-1, 0, 1]


def test_unknown_stream_is_refused():
    with pytest.raises(UsageError, match="unknown stream 'velocity': choose one of joint, bone, motion"):
        to_stream(torch.zeros(1, 3, 2, 25, 1), "velocity", LAYOUT.parents)
