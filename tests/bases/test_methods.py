"""Every base method under ProSL: any layout, any number of bodies, both stages; and what is particular to some."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from prosl_lightning import ProSLModule
from prosl_lightning.bases import BASES, ViewOptions, build_base
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.classifier import ClassifierEvaluation, load_classifier, save_classifier
from prosl_lightning.evaluation.linear import LINEAR
from prosl_lightning.prosl.losses import chained_loss, contrastive_loss
from prosl_lightning.skeleton import SkeletonLayout

ARGS = {
    "hico-lstm": {"hidden_size": 8, "num_layers": 1, "projection_size": 4},
    "hico-gru": {"hidden_size": 8, "num_layers": 1, "projection_size": 4},
    "hico-transformer": {"hidden_size": 8, "num_heads": 2, "projection_size": 4},
    "skeletonclr": {"hidden_channels": 2, "feature_size": 6, "projection_size": 4},
    "isc": {"hidden_size": 4, "num_layers": 1, "projection_size": 4},
    "hiclr": {"hidden_channels": 2, "feature_size": 6, "projection_size": 4},
}
TERMS = ("clip", "part", "temporal", "spatial", "instance")


def _module(base: str, layout: str = "kinect-v1", bodies: int = 1, **options) -> ProSLModule:
    torch.manual_seed(0)
    module = ProSLModule(
        base=base, base_args=ARGS[base], layout=layout, num_bodies=bodies, num_frames=8, min_crop_frames=4,
        bank_size=16, momentum=0.5, num_clusters=4, confidence_threshold="relative", semantic_start=0, **options,
    )  # fmt: skip
    module.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    return module


def _batch(layout: str = "kinect-v1", bodies: int = 1, count: int = 4) -> SkeletonBatch:
    draw = torch.Generator().manual_seed(1)
    joints = torch.randn(count, 3, 30, SkeletonLayout.of(layout).num_joints, bodies, generator=draw)
    length = torch.tensor([30, 3, 17, 8]).repeat(count)[:count]
    return SkeletonBatch(joints, length, torch.arange(count), torch.zeros(count, dtype=torch.int64))


def _build_codebook(module: ProSLModule, count: int = 4) -> None:
    draw = torch.Generator().manual_seed(2)
    module.codebook.update(torch.randn(4, 4, generator=draw), torch.arange(count) % 4)
    module.codebook.importance = torch.rand(module.layout.num_joints, generator=draw)


def test_every_base_is_tried_here():
    assert list(ARGS) == list(BASES)


@pytest.mark.parametrize("bodies", [1, 2, 3])
@pytest.mark.parametrize("layout", ["kinect-v2", "kinect-v1", "sbu-15", "coco-17"])
@pytest.mark.parametrize("base", list(BASES))
def test_a_step_in_both_stages_on_any_body_model(base, layout, bodies):
    module, batch = _module(base, layout, bodies), _batch(layout, bodies)
    optimizer = module.configure_optimizers()["optimizer"]
    for stage in ("contrast", "semantic"):
        if stage == "semantic":
            _build_codebook(module)
        assert module.stage == stage
        before = {name: p.detach().clone() for name, p in module.query_encoder.named_parameters()}
        draw = torch.Generator().manual_seed(3)
        views, stronger = module.draw_views(batch, draw), module.draw_stronger_views(batch, draw)
        metrics = module.losses(*views, batch.index, stronger)
        optimizer.zero_grad()
        metrics["loss"].backward()
        optimizer.step()
        assert torch.isfinite(metrics["loss"])
        assert ("semantic_query" in metrics) == ("excluded_share" in metrics) == (stage == "semantic")
        moved = [name for name, p in module.query_encoder.named_parameters() if not torch.equal(p, before[name])]
        assert len(moved) >= 0.9 * len(before), set(before) - set(moved)
    found = module.eval().embed(batch)
    assert found.shape == (4, module.query_encoder.feature_size)


@pytest.mark.parametrize("base", list(BASES))
def test_a_classifier_of_any_base_is_rebuilt_from_its_file(tmp_path, base):
    module, batch = _module(base).eval(), _batch()
    classifier = ClassifierEvaluation(module, ("a", "b"), recipe=LINEAR, frozen=True, seed=3)
    path = save_classifier(classifier, tmp_path / "classifier.pt")
    loaded = load_classifier(path)
    assert torch.equal(loaded.predict(batch), classifier.predict(batch))
    torch.testing.assert_close(loaded.embed(batch), module.embed(batch))


def test_classifiers_of_version_0_1_are_still_rebuilt():
    options = Backbone.of(_module("hico-gru")).options
    options["build"] = {"name": "hico-gru", **ARGS["hico-gru"]}
    assert Backbone.rebuild(options).network.feature_size == 2 * 4 * 8


@pytest.mark.parametrize("base", ["hiclr", "isc"])
def test_losses_are_float32_in_mixed_precision(base):
    module, batch = _module(base), _batch()
    _build_codebook(module)
    draw = torch.Generator().manual_seed(0)
    views, stronger = module.draw_views(batch, draw), module.draw_stronger_views(batch, draw)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        metrics = module.losses(*views, batch.index, stronger)
    assert {value.dtype for value in metrics.values()} == {torch.float32}
    assert all(bool(value.isfinite()) for value in metrics.values())


def test_skeletonclrs_loss_and_gradients_match_the_reference(fixture_arrays):
    data = {
        name: torch.as_tensor(value) for name, value in fixture_arrays("skeletonclr_loss").items() if name != "about"
    }
    memory, temperature = data["queue"].T, float(data["temperature"])

    def loss(q):
        return contrastive_loss(q, data["k"].unsqueeze(1), memory, temperature)

    unit = data["q"].clone().requires_grad_()
    per_sample = loss(unit)
    per_sample.mean().backward()
    np.testing.assert_allclose(per_sample.detach(), data["loss_per_sample"], atol=1e-5, rtol=0)
    assert float(per_sample.mean().detach()) == pytest.approx(float(data["loss"]), abs=1e-5)
    np.testing.assert_allclose(unit.grad, data["grad_q"], atol=1e-5, rtol=0)
    raw = (data["q"] * data["q_length"]).requires_grad_()
    loss(F.normalize(raw, dim=-1)).mean().backward()
    np.testing.assert_allclose(raw.grad, data["grad_q_unnormalised"], atol=1e-5, rtol=0)


def test_with_batch_normalisation_every_branch_has_its_own_statistics():
    module, batch = _module("skeletonclr"), _batch()
    seen, inner = [], module.query_encoder.project
    module.query_encoder.project = lambda view: seen.append(len(view)) or inner(view)
    query, key, semantic = module.draw_views(batch, torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    module.losses(query, key, semantic, batch.index)
    assert seen == [4, 4]
    # What the third branch shows does not change what comes out of the query branch.
    losses = []
    for third in (semantic, semantic * 100):
        again = _module("skeletonclr")
        torch.manual_seed(5)
        losses.append(float(again.losses(query, key, third, batch.index)["instance"].detach()))
    assert losses[0] == losses[1]

    together, sizes = _module("isc"), []
    project = together.query_encoder.project
    together.query_encoder.project = lambda view: sizes.append(len(view)) or project(view)
    together.losses(query, key, semantic, batch.index)
    assert sizes == [8]


def test_the_key_encoder_starts_as_the_query_and_keeps_its_own_statistics():
    module, batch = _module("skeletonclr"), _batch()
    for name, value in module.query_encoder.state_dict().items():
        assert torch.equal(value, module.key_encoder.state_dict()[name]), name
    query, key, _ = module.draw_views(batch, torch.Generator().manual_seed(0))
    module.losses(query, key * 3 + 1, None, batch.index)
    for encoder, view in ((module.query_encoder, query), (module.key_encoder, key * 3 + 1)):
        points = view.permute(0, 4, 3, 1, 2).flatten(2, 3).flatten(0, 1)
        expected = 0.1 * points.mean(dim=(0, 2))  # running mean after one step with momentum 0.1
        torch.testing.assert_close(encoder.data_norm.running_mean, expected, atol=1e-6, rtol=1e-4)


def test_views_of_skeletonclr_do_not_follow_hicos_crop_options():
    layout, length = SkeletonLayout.of("kinect-v2"), torch.tensor([70, 20])
    method = build_base("skeletonclr", layout=layout, num_bodies=2, num_frames=10, args={"hidden_channels": 2})
    clips = torch.randn(2, 3, 70, 25, 2)
    for view in (method.contrastive_view, method.semantic_view):
        one, other = (
            view(ViewOptions(ratio, frames, 3))(clips, length, torch.Generator().manual_seed(4))
            for ratio, frames in (((0.1, 1.0), 64), ((0.5, 0.5), 8))
        )
        assert one.shape == (2, 3, 10, 25, 2)
        assert torch.equal(one, other)


def test_hiclr_adds_a_chain_of_stronger_views_each_taught_by_the_one_before():
    module, batch = _module("hiclr", semantic=False), _batch()
    draw = torch.Generator().manual_seed(0)
    views, stronger = module.draw_views(batch, draw), module.draw_stronger_views(batch, draw)
    assert [view.shape for view in stronger] == [(4, 3, 8, 20, 1)] * 2
    hidden = (stronger[1] == 0).all(dim=1).squeeze(-1)  # (N, F, V)
    assert hidden.sum(dim=-1).min() >= 2
    assert not (stronger[0] == 0).all(dim=1).any()

    module.query_encoder.eval(), module.key_encoder.eval()  # without dropout and batch statistics it can be repeated
    memory = module.banks["instance"].features.clone()
    with torch.no_grad():
        query, first, second = (
            F.normalize(module.query_encoder.project(view)["instance"], dim=-1) for view in (views[0], *stronger)
        )
        key = F.normalize(module.query_encoder.project(views[1])["instance"], dim=-1)  # both begin equal

    def logits(z):
        return torch.cat([(z * key).sum(1, keepdim=True), z @ memory.T], dim=1) / 0.2

    expected = F.cross_entropy(logits(query), torch.zeros(4, dtype=torch.int64))
    links = [F.cross_entropy(logits(b), logits(a).softmax(1)) for a, b in ((query, first), (first, second))]
    metrics = module.losses(*views, batch.index, stronger)
    assert float(metrics["instance"].detach()) == pytest.approx(float(expected), abs=1e-5)
    assert float(metrics["stronger_1"].detach()) == pytest.approx(float(links[0]) / 2, abs=1e-5)
    assert float(metrics["stronger_2"].detach()) == pytest.approx(float(links[1]) / 2, abs=1e-5)
    assert float(metrics["loss"].detach()) == pytest.approx(float(expected + sum(links) / 2), abs=1e-5)
    assert module.draw_views(batch, draw)[2] is None


def test_the_teacher_of_a_chain_gets_no_gradient():
    teacher, student, key, memory = (torch.randn(n, 6) for n in (3, 3, 3, 9))
    teacher.requires_grad_(), student.requires_grad_()
    chained_loss(teacher, student, key, memory, 0.1).sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_other_bases_have_no_stronger_views():
    module = _module("skeletonclr")
    assert module.stronger_views == ()
    assert module.draw_stronger_views(_batch(), torch.Generator()) == []
