"""HiCo encoder: parity with the public code, sizes, other layouts and lengths, wrong arguments."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prosl_lightning.encoders import ENCODERS, HiCoEncoder, build_encoder, load_hico_checkpoint
from prosl_lightning.encoders.hico import KINDS, space_major, time_major
from prosl_lightning.errors import UsageError

OUTPUTS = {"clip": "zc", "part": "zp", "temporal": "zt", "spatial": "zs", "instance": "zi"}


def small(kind: str = "lstm", **changes: Any) -> HiCoEncoder:
    sizes = {"num_joints": 5, "num_bodies": 2, "num_frames": 16, "hidden_size": 8, "projection_size": 6}
    return HiCoEncoder(kind=kind, **(sizes | changes))


@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])  # a transformer takes other kernels
def test_outputs_match_the_public_code(reference: Any, grad: bool) -> None:
    encoder = load_hico_checkpoint(reference.weights)
    x = torch.as_tensor(reference.arrays["x"])
    with torch.set_grad_enabled(grad):
        found = encoder.project(x) | {"feature": encoder(x)}
    assert found.keys() == {*OUTPUTS, "feature"}
    for name, value in found.items():
        expected = torch.as_tensor(reference.arrays[f"out/{OUTPUTS.get(name, name)}"])
        torch.testing.assert_close(value.detach(), expected, atol=reference.atol, rtol=0)


def test_token_orders_match_the_public_code(reference: Any) -> None:
    x = torch.as_tensor(reference.arrays["x"])
    assert torch.equal(time_major(x), torch.as_tensor(reference.arrays["xc"]))
    assert torch.equal(space_major(x), torch.as_tensor(reference.arrays["xp"]))
    assert time_major(x).is_contiguous()
    assert space_major(x).is_contiguous()


@pytest.mark.parametrize(
    ("kind", "total", "branches"),
    [("lstm", 12_068_992, 7_019_520), ("gru", 10_492_032, 5_442_560), ("transformer", 8_917_120, 3_867_648)],
)
def test_parameter_counts_of_the_paper_sizes(kind: str, total: int, branches: int) -> None:
    with torch.device("meta"):
        encoder = build_encoder(f"hico-{kind}", layout="kinect-v2", num_bodies=2, num_frames=64)
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == total
    assert total - sum(p.numel() for p in encoder.projectors.parameters()) == branches
    assert (encoder.feature_size, encoder.projection_size) == (4096, 128)


def plain_levels(branch: nn.Module, tokens: Tensor, granularity: int) -> Tensor:
    """The same levels by the textbook operations: one-dimensional convolution, ReLU, max-pooling, maximum."""
    level, pooled = branch.embedding(tokens), []
    for _ in range(granularity):
        encoded = branch.sequence(level)
        pooled.append((encoded[0] if isinstance(encoded, tuple) else encoded).max(dim=1).values)
        convolution = branch.downsampling.convolution
        kernel = convolution.weight.shape[-1]
        mixed = F.conv1d(level.mT, convolution.weight, convolution.bias, padding=kernel // 2, groups=len(level.mT[0]))
        level = F.max_pool1d(branch.downsampling.norm(mixed.mT).relu().mT, 2).mT if mixed.shape[2] > 1 else level
    return torch.stack(pooled, dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("joints", "bodies", "frames", "granularity", "kernel"),
    [(15, 2, 64, 4, 5), (20, 1, 50, 4, 3), (15, 1, 37, 4, 5), (7, 1, 13, 3, 1), (3, 1, 9, 1, 5)],
)
def test_other_layouts_lengths_and_granularities(
    kind: str, joints: int, bodies: int, frames: int, granularity: int, kernel: int
) -> None:
    torch.manual_seed(0)
    encoder = small(
        kind, num_joints=joints, num_bodies=bodies, num_frames=frames, granularity=granularity, kernel_size=kernel
    ).eval()
    x = torch.randn(3, 3, frames, joints, bodies)
    feature = encoder(x)
    time = plain_levels(encoder.time_branch, time_major(x), granularity)
    space = plain_levels(encoder.space_branch, space_major(x), granularity)
    torch.testing.assert_close(feature, torch.cat((time.flatten(1), space.flatten(1)), 1), atol=1e-6, rtol=1e-5)
    assert feature.shape == (3, encoder.feature_size)
    assert {name: tuple(z.shape) for name, z in encoder.project(x).items()} == {
        "clip": (3, granularity, 6),
        "part": (3, granularity, 6),
        "temporal": (3, 6),
        "spatial": (3, 6),
        "instance": (3, 6),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter_as_through_plain_operations(kind: str) -> None:
    torch.manual_seed(0)
    encoder = small(kind).eval()
    x = torch.randn(4, 3, 16, 5, 2)
    sum(z.square().mean() for z in encoder.project(x).values()).backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []

    encoder.zero_grad()
    encoder(x).square().sum().backward()
    fast = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    plain_levels(encoder.time_branch, time_major(x), 4).square().sum().backward()
    plain_levels(encoder.space_branch, space_major(x), 4).square().sum().backward()
    assert set(fast) == {name for name, _ in encoder.named_parameters() if not name.startswith("projectors")}
    for name, gradient in fast.items():
        torch.testing.assert_close(gradient, encoder.get_parameter(name).grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_start_xavier_uniform_and_the_rest_as_usual(kind: str) -> None:
    torch.manual_seed(3)
    encoder = small(kind, hidden_size=64)
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 2:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.9 * bound < parameter.abs().max() <= bound, name
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.15), name
        elif "norm" in name or ".embedding.1." in name:
            assert torch.all(parameter == (1 if name.endswith("weight") else 0)), name
    assert not torch.equal(encoder.time_branch.embedding[3].weight, encoder.space_branch.embedding[3].weight)
    torch.manual_seed(3)
    again = small(kind, hidden_size=64).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "dropout", "expected"),
    [("lstm", 0.1, False), ("gru", 0.1, False), ("transformer", 0.1, True), ("transformer", 0.0, False)],
)
def test_only_a_transformer_with_dropout_draws_random_numbers(kind: str, dropout: float, expected: bool) -> None:
    encoder, x = small(kind, dropout=dropout).train(), torch.randn(2, 3, 16, 5, 2)
    assert encoder.has_dropout is expected
    assert torch.equal(encoder(x), encoder(x)) is not expected
    assert torch.equal(encoder.eval()(x), encoder(x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_and_a_saved_file_give_the_same_features(kind: str, tmp_path: Any) -> None:
    encoder, x = small(kind).eval(), torch.randn(2, 3, 16, 5, 2)
    torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
    loaded = small(kind).eval()
    assert not torch.equal(loaded(x), encoder(x))
    loaded.load_state_dict(torch.load(tmp_path / "encoder.pt", weights_only=True))
    assert torch.equal(loaded(x), encoder(x))
    assert torch.equal(copy.deepcopy(encoder)(x), encoder(x))


@pytest.mark.parametrize(
    "shape", [(2, 3, 16, 5, 1), (2, 3, 15, 5, 2), (2, 3, 16, 4, 2), (2, 2, 16, 5, 2), (3, 16, 5, 2)]
)
@pytest.mark.parametrize("method", ["forward", "project"])
def test_a_clip_of_another_shape_is_refused_with_both_shapes(shape: tuple[int, ...], method: str) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(small(), method)(torch.zeros(shape))
    assert "(N, 3, 16, 5, 2)" in str(caught.value)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "rnn"}, ["'rnn'", "lstm, gru, transformer"]),
        ({"hidden_size": 7}, ["even", "7"]),
        ({"kind": "transformer", "hidden_size": 10}, ["10", "num_heads 4"]),
        ({"hidden_size": 0}, ["hidden_size", "0"]),
        ({"num_layers": 0}, ["num_layers", "0"]),
        ({"num_joints": "25"}, ["num_joints", "'25'"]),
        ({"kernel_size": 4}, ["kernel_size", "odd", "4"]),
        ({"dropout": 1.0}, ["dropout", "1.0"]),
        ({"num_frames": 7}, ["num_frames = 7", "granularity 4", "at least 8"]),
        ({"num_joints": 7, "num_bodies": 1}, ["num_joints * num_bodies = 7", "at least 8"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        small(**changes)
    assert all(word in str(caught.value) for word in words), caught.value


def test_build_encoder_takes_the_joints_from_the_layout() -> None:
    assert list(ENCODERS)[:3] == ["hico-lstm", "hico-gru", "hico-transformer"]
    encoder = build_encoder("hico-gru", layout="kinect-v1", num_bodies=1, num_frames=32, hidden_size=8)
    assert encoder.clip_shape == (3, 32, 20, 1)
    assert encoder(torch.zeros(2, 3, 32, 20, 1)).shape == (2, 64)


def test_build_encoder_names_what_it_does_not_know() -> None:
    sizes: dict[str, Any] = {"layout": "kinect-v2", "num_bodies": 2, "num_frames": 64}
    with pytest.raises(UsageError, match=r"'hico-lstmm'.*hico-lstm, hico-gru, hico-transformer"):
        build_encoder("hico-lstmm", **sizes)
    with pytest.raises(UsageError, match=r"'hico-gru' has no argument 'hidden'.*hidden_size"):
        build_encoder("hico-gru", **sizes, hidden=8)
    with pytest.raises(UsageError, match=r"no argument 'num_joints'"):
        build_encoder("hico-gru", **sizes, num_joints=25)
