"""ST-GCN against SkeletonCLR's public code: graph, outputs, parameters; and other body models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prosl_lightning.encoders import STGCN, build_encoder
from prosl_lightning.encoders.stgcn import spatial_graph
from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout.of("kinect-v2")


def _own_name(public: str) -> str:
    kind, _, rest = public.partition(".")
    if kind == "edge_importance":
        return f"blocks.{rest}.edge_importance"
    if kind != "st_gcn_networks":
        return public.replace("data_bn.", "data_norm.").replace("fc.", "head.")
    return f"blocks.{rest}".replace("gcn.conv", "spatial").replace("tcn.", "temporal.")


@pytest.fixture
def reference(fixture_arrays):
    return fixture_arrays("stgcn_encoder")


@pytest.fixture
def encoder(reference):
    made = build_encoder(
        "st-gcn", layout=LAYOUT, num_bodies=2, num_frames=50,
        hidden_channels=int(reference["size/hidden_channels"]), feature_size=int(reference["size/hidden_dim"]),
        projection_size=int(reference["size/feature_dim"]),
    )  # fmt: skip
    found = {name.removeprefix("param/"): v for name, v in reference.items() if name.startswith("param/")}
    np.testing.assert_array_equal(found.pop("A"), reference["A"])
    made.load_state_dict({_own_name(name): torch.tensor(value) for name, value in found.items()})
    return made.eval()


def test_graph_is_the_public_codes(reference):
    np.testing.assert_allclose(spatial_graph(LAYOUT), reference["A"], atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", ["kinect-v1", "coco-17", "sbu-15"])
def test_graph_of_any_layout_splits_the_neighbours(name):
    layout = SkeletonLayout.of(name)
    graph = spatial_graph(layout)
    edges = {pair for bone in layout.bones for pair in (bone, bone[::-1])}
    together = graph.sum(dim=0)
    assert {(v, w) for v, w in together.nonzero().tolist() if v != w} == edges
    torch.testing.assert_close(together.sum(dim=0), torch.ones(layout.num_joints))
    assert int((graph > 0).sum(dim=0).max()) == 1  # every edge is in one partition
    root = next(i for i, parent in enumerate(layout.parents) if i == parent)
    assert bool((graph[2, root] > 0).any())  # its neighbours see the root as nearer to the centre
    assert not bool((graph[2, :, root] > 0).any())


def test_outputs_match_the_public_code(reference, encoder):
    x = torch.tensor(reference["x"])
    seen = {}
    encoder.data_norm.register_forward_hook(lambda *call: seen.update(norm=call[-1]))
    encoder.blocks[0].register_forward_hook(lambda *call: seen.update(block=call[-1]))
    with torch.no_grad():
        feature, z = encoder(x), encoder.project(x)["instance"]
    norm = seen["norm"][:2].view(2, 25, 3, 50).mean(dim=3).permute(0, 2, 1)
    np.testing.assert_allclose(norm, reference["out/input_bn_clip0_mean_t"], atol=1e-5, rtol=0)
    first = seen["block"][:2].mean(dim=2)
    np.testing.assert_allclose(first, reference["out/block1_clip0_mean_t"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(feature, reference["out/feature"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(z, reference["out/z"], atol=1e-5, rtol=0)
    unit = torch.nn.functional.normalize(z, dim=-1)
    np.testing.assert_allclose(unit, reference["out/z_norm"], atol=1e-5, rtol=0)


def test_size_and_initial_weights_are_skeletonclrs():
    torch.manual_seed(0)
    encoder = STGCN(layout=LAYOUT, num_bodies=2, num_frames=50)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 920_068
    weights = torch.cat([block.spatial.weight.flatten() for block in encoder.blocks])
    assert float(weights.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(encoder.blocks[9].temporal[3].weight.detach().mean()) == pytest.approx(1, abs=0.005)
    assert not encoder.head[0].bias.detach().any()
    assert torch.equal(encoder.blocks[3].edge_importance, torch.ones(3, 25, 25))
    assert encoder.blocks[0].residual is None
    assert encoder.blocks[0].temporal[4].p == 0
    assert encoder.blocks[1].temporal[4].p == 0.5


def test_length_and_number_of_persons_are_free_and_the_body_model_is_not():
    encoder = STGCN(layout=LAYOUT, num_bodies=1, num_frames=8, hidden_channels=2, feature_size=4).eval()
    one = torch.randn(2, 3, 33, 25, 1)
    assert encoder(one).shape == (2, 4)
    torch.testing.assert_close(encoder(one.expand(-1, -1, -1, -1, 3)), encoder(one), atol=1e-6, rtol=1e-5)
    with pytest.raises(UsageError, match=r"\(N, 3, T, 25, M\).*found \(2, 3, 33, 20, 1\)"):
        encoder(torch.zeros(2, 3, 33, 20, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_channels": 0}, "hidden_channels must be a positive whole number, found 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"hidden": 3}, "encoder 'st-gcn' has no argument 'hidden': known are dropout, feature_size, hidden_channels"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(UsageError, match=message):
        build_encoder("st-gcn", layout=LAYOUT, num_bodies=1, num_frames=8, **change)


def test_initial_weights_are_skeletonclr_s_or_torch_s():
    def deviation(**args):
        torch.manual_seed(0)
        made = build_encoder("st-gcn", layout=LAYOUT, num_bodies=1, num_frames=50, **args)
        return made.blocks[3].spatial.weight.std().item()

    assert deviation() == pytest.approx(0.02, rel=0.1)
    assert deviation(weight_std=None) == pytest.approx(1 / np.sqrt(3 * 16), rel=0.1)  # uniform within 1 / sqrt(inputs)
