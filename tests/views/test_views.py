"""The contrastive and the semantic view: what they are made of, how often, and that only their generator decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.views import ContrastiveView, SemanticView, crop_resize
from prosl_lightning.views.semantic import SemanticDraw
from prosl_lightning.views.spatial import add_noise, blur, blur_kernel, flip, rotation_matrix, transform

LAYOUT = SkeletonLayout.of("kinect-v2")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def both_views(num_joints: int = 25, **options) -> list[ContrastiveView | SemanticView]:
    swap = (1, 0, *range(2, num_joints))
    corrupted = round(0.6 * num_joints)
    return [ContrastiveView(corrupted_joints=corrupted, **options), SemanticView(mirror=swap, **options)]


def padded_clips(length: torch.Tensor, v: int, m: int, dtype: torch.dtype, padding: float) -> torch.Tensor:
    clips = torch.randn(len(length), int(length.max()), 3, v, m, generator=seeded()).to(dtype)
    for clip, frames in zip(clips, length.tolist(), strict=True):
        clip[frames:] = padding
    return clips.permute(0, 2, 1, 3, 4)


@pytest.mark.parametrize(("v", "m", "dtype"), [(25, 2, torch.float16), (20, 1, torch.float32), (15, 2, torch.float16)])
def test_any_layout_any_storage_and_no_padding_in_the_view(v, m, dtype):
    length = torch.tensor([1, 2, 40, 64, 65, 150]).repeat(20)
    clips = padded_clips(length, v, m, dtype, torch.nan)
    for view in both_views(v, num_frames=32, min_crop_frames=16):
        y = view(clips, length, seeded())
        assert y.shape == (120, 3, 32, v, m)
        assert y.dtype == torch.float32
        assert y.isfinite().all()


def test_the_generator_alone_decides():
    length = torch.full((70,), 80)
    clips = padded_clips(length, 25, 2, torch.float16, 0)
    for view in both_views():
        torch.manual_seed(1)
        first, state = view(clips, length, seeded(3)), torch.get_rng_state()
        torch.manual_seed(2)
        again = view(clips, length, seeded(3))
        assert torch.equal(first, again)
        assert not torch.equal(first, view(clips, length, seeded(4)))
        torch.manual_seed(1)
        assert torch.equal(state, torch.get_rng_state())  # the global generator was not touched


def test_samples_of_one_batch_are_drawn_independently():
    length = torch.full((16,), 100)
    clips = padded_clips(length[:1], 25, 2, torch.float32, 0).expand(16, -1, -1, -1, -1)
    for view in both_views():
        y = view(clips, length, seeded()).flatten(1)
        assert torch.pdist(y).min() > 0.1


def test_kinds_of_the_contrastive_view_and_their_shares():
    n = 20_000
    matrix = ContrastiveView().draw(torch.full((n,), 64), 25, seeded()).matrix
    identity = torch.eye(3)[..., None]
    touched = (matrix != identity).flatten(1, 2).any(1)  # (N, V)
    zero = (matrix == 0).flatten(1, 2).all(1)
    sheared = touched.all(1)
    masked = zero.any(1)
    jittered = ~sheared & ~masked
    shares = [kind.double().mean().item() for kind in (masked, jittered, sheared)]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.015)
    assert (touched[masked | jittered].sum(1) == 15).all()
    assert torch.equal(zero[masked], touched[masked])
    assert touched[~sheared].double().mean(0).tolist() == pytest.approx([0.6] * 25, abs=0.025)

    assert (matrix[sheared].diagonal(dim1=1, dim2=2) == 1).all()
    assert (matrix[sheared] == matrix[sheared][..., :1]).all()
    entries = matrix[jittered].flatten(1, 2)[:, :, None, :].transpose(1, 3)[touched[jittered]]
    assert entries.abs().max() < 1
    assert entries.mean().abs() < 0.02
    assert entries.var().item() == pytest.approx(1 / 3, abs=0.01)


def test_contrastive_view_applies_its_draws():
    length = torch.tensor([70, 90, 30])
    clips = padded_clips(length, 25, 2, torch.float32, 0)
    view = ContrastiveView()
    draw = view.draw(length, 25, seeded())
    cropped = crop_resize(clips, draw.start, draw.kept, 64)
    expected = torch.einsum("ndcv,ncfvm->ndfvm", draw.matrix, cropped)
    torch.testing.assert_close(view.apply(clips, draw), expected, atol=1e-5, rtol=0)


def test_more_corrupted_joints_than_joints_is_refused():
    with pytest.raises(UsageError, match="cannot corrupt 15 of 12 joints"):
        ContrastiveView()(torch.zeros(1, 3, 64, 12, 1), torch.tensor([64]), seeded())


def test_semantic_pipeline_matches_the_public_code(fixture_arrays):
    arrays = fixture_arrays("augmentations")
    x = torch.from_numpy(arrays["x"])[None]
    frames = x.shape[2]
    axes = torch.ones(1, 3)
    axes[0, int(arrays["pipeline/axis"])] = 0
    draw = SemanticDraw(
        start=torch.tensor([0]),
        kept=torch.tensor([frames]),
        flipped=torch.tensor([True]),
        angles=torch.from_numpy(arrays["pipeline/angles_deg"]).float()[None].deg2rad(),
        noise_std=torch.ones(1),
        noise=torch.from_numpy(arrays["noise/noise"])[None],
        sigma=torch.from_numpy(np.asarray(arrays["pipeline/sigma"])).float()[None],
        axes=axes,
    )
    y = SemanticView(mirror=LAYOUT.mirror, num_frames=frames).apply(x, draw)
    torch.testing.assert_close(y[0], torch.from_numpy(arrays["pipeline/y"]), atol=1e-5, rtol=0)


def test_semantic_view_is_its_operations_one_after_another():
    length = torch.full((12,), 90)
    clips = padded_clips(length, 25, 2, torch.float32, 0)
    view = SemanticView(mirror=LAYOUT.mirror)
    draw = view.draw(length, (3, 64, 25, 2), seeded())
    x = crop_resize(clips, draw.start, draw.kept, 64)
    x = transform(flip(x, LAYOUT.mirror, draw.flipped), rotation_matrix(draw.angles))
    x = blur(add_noise(x, draw.noise, draw.noise_std), blur_kernel(draw.sigma))
    x = transform(x, torch.diag_embed(draw.axes))
    torch.testing.assert_close(view.apply(clips, draw), x, atol=1e-5, rtol=0)


def test_semantic_draws_have_the_published_rates_and_ranges():
    n = 20_000
    draw = SemanticView(mirror=(0,)).draw(torch.full((n,), 64), (1, 1, 1, 1), seeded())
    blurred = draw.sigma[draw.sigma > 0]
    shares = [len(blurred) / n, *(x.double().mean().item() for x in (draw.flipped, draw.noise_std > 0))]
    shares.append((draw.axes == 0).any(1).double().mean().item())
    assert shares == pytest.approx([0.5] * 4, abs=0.015)
    assert draw.noise_std.unique().tolist() == pytest.approx([0, 0.01])
    assert [blurred.min().item(), blurred.mean().item(), blurred.max().item()] == pytest.approx(
        [0.1, 1.05, 2.0], abs=0.02
    )


def test_spatial_flip_can_be_switched_off():
    length = torch.full((200,), 64)
    marks = torch.arange(4.0).view(1, 1, 1, 4, 1).expand(200, 3, 64, 4, 1)
    ranks = {}
    for on in (True, False):
        view = SemanticView(mirror=(0, 1, 3, 2), spatial_flip=on)
        draw = view.draw(length, (3, 64, 4, 1), seeded())._replace(angles=torch.zeros(200, 3))
        y = view.apply(marks, draw._replace(noise_std=torch.zeros(200), axes=torch.ones(200, 3)))
        ranks[on] = (y[:, 0, 30, 2, 0] > y[:, 0, 30, 3, 0]).double().mean().item()
    assert ranks[True] == pytest.approx(0.5, abs=0.12)
    assert ranks[False] == 0


def test_autocast_does_not_round_coordinates():
    length = torch.full((8,), 70)
    clips = padded_clips(length, 25, 2, torch.float32, 0)
    for view in both_views():
        plain = view(clips, length, seeded())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(view(clips, length, seeded()), plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_gives_the_same_views_without_waiting_for_the_host():
    length = torch.tensor([1, 40, 64, 150]).repeat(40)
    clips = padded_clips(length, 25, 2, torch.float16, torch.nan)
    on_gpu, gpu_length, generator = clips.cuda(), length.cuda(), torch.Generator("cuda").manual_seed(0)
    contrastive, semantic = both_views()
    for view, shape in ((contrastive, 25), (semantic, (3, 64, 25, 2))):
        view(on_gpu, gpu_length, generator)  # the first call puts constants on the device
        torch.cuda.set_sync_debug_mode("error")
        try:
            draw = view.draw(gpu_length, shape, generator)
            y = view.apply(on_gpu, draw)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected = view.apply(clips, type(draw)(*(parameter.cpu() for parameter in draw)))
        torch.testing.assert_close(y.cpu(), expected, atol=1e-4, rtol=0)
