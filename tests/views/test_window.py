"""SkeletonCLR's window and shear, views one after another, and the joint mask of single frames."""

from __future__ import annotations

import pytest
import torch

from prosl_lightning.views import ChainedView, SemanticView, WindowView, crop_resize, mask_frames
from prosl_lightning.views.window import mirrored_window


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_window_is_the_public_codes(fixture_arrays):
    arrays = fixture_arrays("augmentations")
    x = torch.from_numpy(arrays["x"])[None]
    for i, start in enumerate(arrays["hiclr_crop/frame_start"]):
        y = mirrored_window(x, torch.tensor([int(start)]))
        assert torch.equal(y[0], torch.from_numpy(arrays[f"hiclr_crop/{i}/y"])), start


def test_shear_is_the_public_codes(fixture_arrays):
    arrays = fixture_arrays("augmentations")
    x = torch.from_numpy(arrays["x"])[None]
    frames = x.shape[2]
    matrix = torch.from_numpy(arrays["hiclr_shear/matrix"]).float()[None]
    still = torch.tensor([frames // 6])  # the window that is the clip itself
    y = WindowView(frames).apply(x, torch.tensor([frames]), still, matrix)
    torch.testing.assert_close(y[0], torch.from_numpy(arrays["hiclr_shear/y"]), atol=1e-5, rtol=0)


def test_draws_cover_their_ranges():
    start, matrix = WindowView(50, 0.5).draw(20_000, seeded())
    assert torch.equal(start.unique(), torch.arange(17))
    assert start.double().mean().item() == pytest.approx(8, abs=0.15)
    assert (matrix.diagonal(dim1=1, dim2=2) == 1).all()
    entries = matrix[:, ~torch.eye(3, dtype=torch.bool)]
    assert entries.abs().max().item() == pytest.approx(0.5, abs=1e-3)
    assert entries.var().item() == pytest.approx(1 / 12, rel=0.02)


def test_clips_of_any_length_come_to_the_frame_count_and_padding_is_never_read():
    length = torch.tensor([1, 2, 40, 64, 150]).repeat(20)
    clips = torch.randn(100, 3, 150, 20, 3, generator=seeded()).half()
    for clip, frames in zip(clips, length.tolist(), strict=True):
        clip[:, frames:] = torch.nan
    y = WindowView(20)(clips, length, seeded(3))
    assert y.shape == (100, 3, 20, 20, 3)
    assert y.dtype == torch.float32
    assert y.isfinite().all()
    assert torch.equal(y, WindowView(20)(clips, length, seeded(3)))
    assert not torch.equal(y, WindowView(20)(clips, length, seeded(4)))


def test_a_chained_semantic_view_is_the_normal_set_on_the_window():
    length = torch.tensor([80, 30, 90])
    clips = torch.randn(3, 3, 90, 4, 2, generator=seeded())
    normal = SemanticView((0, 1, 3, 2), 12, (1.0, 1.0))
    y = ChainedView(WindowView(12, shear=0), normal)(clips, length, seeded(5))
    draws = seeded(5)
    start, _ = WindowView(12, shear=0).draw(3, draws)
    window = mirrored_window(crop_resize(clips, torch.zeros_like(length), length, 12), start)
    expected = normal.apply(window, normal.draw(torch.full((3,), 12), (3, 12, 4, 2), draws))
    assert torch.equal(y, expected)
    whole = normal.draw(torch.full((3,), 12), (3, 12, 4, 2), seeded())
    assert whole.start.tolist() == [0, 0, 0]
    assert whole.kept.tolist() == [12, 12, 12]


def test_joints_are_hidden_in_each_frame_alone():
    x = torch.ones(400, 3, 8, 10, 2)
    hidden = mask_frames(x, 2, seeded()) == 0
    assert torch.equal(hidden, hidden[:, :1, ..., :1].expand_as(hidden))  # all coordinates, all persons
    frames = hidden[:, 0, :, :, 0]
    assert (frames.sum(dim=-1) == 2).all()
    assert frames.double().mean((0, 1)).tolist() == pytest.approx([0.2] * 10, abs=0.03)
    assert not torch.equal(frames[:, 0], frames[:, 1])
    draws, state = seeded(), seeded().get_state()
    assert mask_frames(x, 0, draws) is x
    assert torch.equal(draws.get_state(), state)
