"""Temporal crop-resize against the public code's numbers, and what its draws look like."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from prosl_lightning.views import centre_crop, centre_view, crop_resize, draw_crop
from prosl_lightning.views.crop import crop_length


def as_stored(x: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(N, C, T, V, M) as the data module yields it: a permuted view of contiguous (N, T, C, V, M)."""
    return x.permute(0, 2, 1, 3, 4).to(dtype).contiguous().permute(0, 2, 1, 3, 4)


def random_clips(n: int = 5, t: int = 90, v: int = 4, m: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, t, v, m, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", [as_stored, torch.Tensor.contiguous, lambda x: x.mT.contiguous().mT])
def test_random_crops_match_the_public_code(fixture_arrays, layout):
    arrays = fixture_arrays("temporal_crop")
    cases = range(int(arrays["crop_cases"]))

    def column(key):
        return torch.tensor([arrays[f"crop/{i}/{key}"].item() for i in cases])

    ratio = torch.tensor([arrays[f"crop/{i}/l_ratio"].tolist() for i in cases], dtype=torch.float64)
    scale = column("scale_draw").double() * (ratio[:, 1] - ratio[:, 0]) + ratio[:, 0]
    assert crop_length(column("num_frame"), scale).tolist() == column("length").tolist()

    clips = layout(torch.from_numpy(arrays["x"]).expand(len(cases), *arrays["x"].shape))
    expected = torch.stack([torch.from_numpy(arrays[f"crop/{i}/y"]) for i in cases])
    torch.testing.assert_close(crop_resize(clips, column("start"), column("length"), 64), expected, atol=2e-5, rtol=0)


def test_centre_crops_match_the_public_code(fixture_arrays):
    arrays = fixture_arrays("temporal_crop")
    length = torch.from_numpy(arrays["centre_lengths"])
    start, kept = centre_crop(length)
    assert start.tolist() == [int(arrays[f"centre/{n}/start"]) for n in length.tolist()]
    assert kept.tolist() == [n - 2 * s for n, s in zip(length.tolist(), start.tolist(), strict=True)]

    clips = as_stored(torch.from_numpy(arrays["x"]).expand(len(length), *arrays["x"].shape))
    expected = torch.stack([torch.from_numpy(arrays[f"centre/{n}/y"]) for n in length.tolist()])
    torch.testing.assert_close(centre_view(clips, length, 64), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("ratio", [0.95, 0.9, 0.5, 1.0])
def test_centre_crop_rounds_as_python_does(ratio):
    lengths = range(1, 301)
    start, kept = centre_crop(torch.arange(1, 301), ratio)
    assert start.tolist() == [int((1 - ratio) * n / 2) for n in lengths]
    assert kept.min() >= 1


def test_resizing_is_linear_interpolation_with_half_pixel_centres():
    clips = random_clips()
    start, kept = torch.tensor([0, 3, 50, 89, 20]), torch.tensor([90, 64, 2, 1, 33])
    views = crop_resize(as_stored(clips), start, kept, 20)
    for clip, view, s, k in zip(clips, views, start.tolist(), kept.tolist(), strict=True):
        lines = clip[:, s : s + k].permute(0, 2, 3, 1).flatten(0, 2)[None]
        expected = interpolate(lines, size=20, mode="linear", align_corners=False)[0].view(3, 4, 2, 20)
        torch.testing.assert_close(view, expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)


def test_half_precision_storage_gives_float32_views_without_a_second_rounding():
    stored = random_clips().half()
    start, kept = torch.tensor([0, 3, 50, 89, 20]), torch.tensor([90, 64, 2, 1, 33])
    view = crop_resize(as_stored(stored, torch.float16), start, kept, 64)
    assert view.dtype == torch.float32
    assert torch.equal(view, crop_resize(stored.float(), start, kept, 64))


def test_padding_is_never_read():
    clips, length = as_stored(random_clips(400, 30, 1, 1)), torch.arange(400) % 30 + 1
    for clip, frames in zip(clips, length.tolist(), strict=True):
        clip[:, frames:] = torch.nan
    start, kept = draw_crop(length, ratio=(0.1, 1.0), min_frames=3, generator=torch.Generator().manual_seed(0))
    assert crop_resize(clips, start, kept, 16).isfinite().all()
    assert centre_view(clips, length, 16).isfinite().all()


def test_crop_lengths_and_starts_are_distributed_as_in_the_public_code():
    length = torch.tensor([20, 64, 100, 300]).repeat_interleave(20_000)
    start, kept = (x.view(4, -1) for x in draw_crop(length, generator=torch.Generator().manual_seed(0)))
    assert (kept[:2] == torch.tensor([[20], [64]])).all()
    assert (start[:2] == 0).all()
    # P(floor(100 s) <= 64) = (0.65 - 0.1) / 0.9 and P(floor(300 s) <= 64) = (65 / 300 - 0.1) / 0.9: 61 and 13 %.
    assert (kept[2] == 64).double().mean().item() == pytest.approx(0.55 / 0.9, abs=0.015)
    assert (kept[3] == 64).double().mean().item() == pytest.approx((65 / 300 - 0.1) / 0.9, abs=0.01)
    assert kept.max(1).values.tolist() == [20, 64, 99, 299]
    assert (start >= 0).all()
    assert (start + kept <= torch.tensor([[20], [64], [100], [300]])).all()
    starts = start[2][kept[2] == 64].bincount(minlength=37)  # uniform over 0 ... 36
    assert starts.min() > 0.75 * starts.double().mean()
    assert starts.max() < 1.25 * starts.double().mean()


def test_large_batches_are_cut_without_changing_the_result():
    clips, length = random_clips(150, 12, 3, 1), torch.arange(150) % 12 + 1
    whole = centre_view(as_stored(clips), length, 8)
    for i in (0, 63, 64, 149):
        assert torch.equal(whole[i], centre_view(clips[i : i + 1], length[i : i + 1], 8)[0])
