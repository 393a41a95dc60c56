"""All levels of a branch in one packed call, the way of a GPU, give what separate calls give."""

from __future__ import annotations

import pytest
import torch

from prosl_lightning.encoders import HiCoEncoder


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize(("num_frames", "granularity"), [(16, 4), (13, 3), (8, 1)])
def test_packed_levels_give_the_same_outputs_and_gradients(kind, num_frames, granularity):
    torch.manual_seed(0)
    encoder = HiCoEncoder(
        kind=kind, num_joints=7, num_bodies=2, num_frames=num_frames, granularity=granularity, hidden_size=8,
        projection_size=4,
    )  # fmt: skip
    branch, tokens = encoder.time_branch, torch.randn(3, num_frames, 42)
    assert not branch._packs(torch.device("cpu"))
    assert branch._packs(torch.device("cuda"))
    levels = [branch.embedding(tokens)]
    for _ in range(1, granularity):
        levels.append(branch.downsampling(levels[-1]))
    results = []
    for encode in (branch._encode_apart, branch._encode_packed):
        inputs = [level.detach().requires_grad_() for level in levels]
        outputs = encode(inputs)
        weights = torch.Generator().manual_seed(1)
        sum((output * torch.randn(output.shape, generator=weights)).sum() for output in outputs).backward()
        gradients = [*(level.grad for level in inputs), *(p.grad.clone() for p in branch.sequence.parameters())]
        branch.sequence.zero_grad()
        results.append([output.detach() for output in outputs] + gradients)
    apart, packed = results
    assert [tuple(output.shape) for output in packed[:granularity]] == [(len(level[0]), 3, 8) for level in levels]
    for one, other in zip(apart, packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_transformer_is_never_packed():
    encoder = HiCoEncoder(kind="transformer", num_joints=7, num_bodies=1, granularity=2, hidden_size=8, num_heads=2)
    assert not encoder.time_branch._packs(torch.device("cuda"))


def test_levels_are_separate_where_that_is_asked_for():
    sizes = {"num_joints": 7, "num_bodies": 1, "granularity": 2, "hidden_size": 8}
    encoder = HiCoEncoder(kind="lstm", **sizes, packed_levels=False)
    assert not encoder.time_branch._packs(torch.device("cuda"))
    torch.manual_seed(0)
    one = HiCoEncoder(kind="lstm", **sizes).state_dict()
    torch.manual_seed(0)
    other = HiCoEncoder(kind="lstm", **sizes, packed_levels=False).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
