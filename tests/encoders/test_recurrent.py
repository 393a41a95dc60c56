"""Recurrent networks within mixed precision: float32 where autocast would make float16 of them, as on a GPU."""

from __future__ import annotations

import pytest
import torch

from prosl_lightning.encoders import HiCoEncoder, build_encoder, recurrent

SIZES = {"num_joints": 7, "num_bodies": 2, "num_frames": 16, "granularity": 3, "hidden_size": 8, "projection_size": 4}


def _types(encoder, encode) -> list[torch.dtype]:
    """Types of what the recurrent networks take and give in one call under autocast."""
    seen = []
    for module in encoder.modules():
        if isinstance(module, torch.nn.RNNBase):
            module.register_forward_hook(
                lambda _, given, found: seen.extend([given[0].data.dtype, found[0].data.dtype])
            )
    with torch.autocast("cpu", torch.bfloat16):
        encode()
    return seen


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_levels_are_float32_where_the_device_has_no_safe_half(monkeypatch, kind, packed):
    monkeypatch.setattr(recurrent, "_WITHOUT_AUTOCAST", {"cpu"})
    torch.manual_seed(0)
    encoder = HiCoEncoder(kind=kind, **SIZES)
    for branch in (encoder.time_branch, encoder.space_branch):
        monkeypatch.setattr(branch, "_packs", lambda _: packed)
    clips = torch.randn(2, 3, 16, 7, 2)
    exact = encoder(clips)
    types = _types(encoder, lambda: encoder.project(clips)["instance"].sum().backward())
    assert types == [torch.float32] * 2 * 2 * (1 if packed else 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encoder(clips)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0, atol=0.02)
    assert not torch.equal(mixed, exact), "the embedding is in bfloat16"


def test_the_gru_of_isc_is_float32_too(monkeypatch):
    monkeypatch.setattr(recurrent, "_WITHOUT_AUTOCAST", {"cpu"})
    encoder = build_encoder("bigru", layout="kinect-v2", num_bodies=1, num_frames=8, hidden_size=4, num_layers=1)
    clips = torch.randn(2, 3, 8, 25, 1)
    assert _types(encoder, lambda: encoder(clips)) == [torch.float32] * 2
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encoder(clips)
    assert torch.equal(mixed, encoder(clips)), "nothing before the GRU is in half precision"


def test_the_cpu_keeps_autocasts_own_type():
    encoder = HiCoEncoder(kind="lstm", **SIZES)
    clips = torch.randn(2, 3, 16, 7, 2)
    assert torch.bfloat16 in _types(encoder, lambda: encoder(clips))
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(clips).dtype == torch.bfloat16
