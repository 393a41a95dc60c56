"""Another body model or number of bodies: joints by name, absent ones zero, bones only where both ends are."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning import ArchiveWriter, ProSLModule, SkeletonBatch, SkeletonDataModule, SkeletonLayout
from prosl_lightning.errors import DataError
from prosl_lightning.evaluation.backbone import Backbone, JointMapping
from prosl_lightning.evaluation.classifier import load_classifier, save_classifier
from prosl_lightning.evaluation.features import extract_tables
from prosl_lightning.evaluation.linear import LINEAR
from prosl_lightning.evaluation.semi import FINE_TUNING, labelled_loader
from prosl_lightning.evaluation.transfer import TransferEvaluation, classifier_tables

# A chain of four joints, and the same person as another sensor sees it: other order, one joint less, one more.
CHAIN = {
    "name": "chain", "joints": ["hip", "chest", "head", "hand"], "parents": [0, 0, 1, 1],
    "center": ["hip"], "spine": ["hip", "chest"], "shoulders": ["hand", "head"],
}  # fmt: skip
OTHER = {
    "name": "other", "joints": ["head", "toe", "hand", "hip"], "parents": [3, 3, 3, 3],
    "center": ["hip"], "spine": ["hip", "head"], "shoulders": ["hand", "head"],
}  # fmt: skip


def _module(stream: str = "joint", bodies: int = 1, layout="kinect-v1") -> ProSLModule:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_layers": 1, "projection_size": 4, "granularity": 2}
    return ProSLModule(
        "hico-gru", sizes, layout=layout, num_bodies=bodies, num_frames=16, stream=stream, corrupted_joints=1,
        masked_joints=1, bank_size=8,
    ).eval()  # fmt: skip


def _batch(joints: torch.Tensor) -> SkeletonBatch:
    n, _, frames = joints.shape[:3]
    return SkeletonBatch(joints, torch.full((n,), frames), torch.arange(n), torch.arange(n) % 2)


def test_joints_are_found_by_name_and_the_rest_is_told():
    mapping = JointMapping(SkeletonLayout.of(OTHER), 2, SkeletonLayout.of(CHAIN), 3)
    assert (mapping.found, mapping.absent, mapping.dropped) == (("hip", "head", "hand"), ("chest",), ("toe",))
    clips = torch.arange(1.0, 1 + 2 * 3 * 5 * 4 * 2).view(2, 3, 5, 4, 2)
    mapped = mapping(clips)
    assert mapped.shape == (2, 3, 5, 4, 3)
    assert torch.equal(mapped[:, :, :, [0, 2, 3], :2], clips[:, :, :, [3, 0, 2]])
    assert not mapped[:, :, :, 1].any()
    assert not mapped[..., 2].any()
    assert mapping.describe("bone") == [
        "3 of the encoder's 4 joints are in the data, by name",
        "absent in the data, zero for the encoder: chest",
        "unknown to the encoder, not used: toe",
        "bones that are zero because their other end is absent: head, hand",
        "bodies: 2 in the data, 3 in the encoder; the others are zero",
    ]
    fewer = JointMapping(SkeletonLayout.of(OTHER), 2, SkeletonLayout.of(CHAIN), 1)
    assert torch.equal(fewer(clips), mapped[..., :1])
    assert fewer.describe("joint")[-1] == "bodies: 2 in the data, 1 in the encoder; further ones are not used"
    hand = {**CHAIN, "joints": ["palm", "thumb", "index", "ring"], "center": ["palm"], "spine": ["palm", "index"],
            "shoulders": ["thumb", "ring"]}  # fmt: skip
    with pytest.raises(DataError, match=r"share no joint name \(palm, thumb, index, ring, \.\.\. and hip, chest"):
        JointMapping(SkeletonLayout.of(hand), 1, SkeletonLayout.of(CHAIN), 1)


def test_joints_of_another_name_are_told():
    mapping = JointMapping(SkeletonLayout.of("kinect-v1"), 1, SkeletonLayout.of("kinect-v2"), 1)
    assert mapping.renamed["spine_base"] == "hip_center"
    assert mapping.renamed["spine_mid"] == "spine"
    assert "left_hand" not in mapping.renamed
    line = mapping.describe("joint")[1]
    assert line.startswith("the same place under another name: spine_base is hip_center in the data, ")
    assert JointMapping(SkeletonLayout.of(OTHER), 1, SkeletonLayout.of(CHAIN), 1).renamed == {}


@pytest.mark.parametrize("stream", ["joint", "bone", "motion"])
def test_the_same_joints_in_another_order_give_the_same_features(stream):
    module, ours, theirs = _module(stream), SkeletonLayout.of("kinect-v1"), SkeletonLayout.of("utd-mhad")
    joints = torch.randn(3, 3, 30, 20, 1)
    reordered = joints[:, :, :, [ours.joints.index(name) for name in theirs.joints]]
    backbone = Backbone.of(module, data_layout=theirs)
    assert backbone.mapping is not None
    torch.testing.assert_close(backbone.prepare(_batch(reordered)), module.prepare(_batch(joints)))
    torch.testing.assert_close(backbone(backbone.prepare(_batch(reordered))), module.embed(_batch(joints)))
    assert Backbone.of(module, data_layout=ours, data_bodies=1).mapping is None


def test_a_bone_without_its_other_end_is_zero():
    module = _module("bone", layout=CHAIN)
    backbone = Backbone.of(module, data_layout=OTHER)
    other = torch.randn(2, 3, 20, 4, 1)
    assert not backbone.prepare(_batch(other)).any()  # every bone of the chain has the absent chest at an end
    full = {**OTHER, "joints": ["head", "chest", "hand", "hip"]}
    view = Backbone.of(module, data_layout=full).prepare(_batch(other))
    joints = Backbone.of(_module("joint", layout=CHAIN), data_layout=full).prepare(_batch(other))
    torch.testing.assert_close(view[:, :, :, 2], joints[:, :, :, 2] - joints[:, :, :, 1])  # head minus chest
    assert not view[:, :, :, 0].any()
    # A motion of an absent joint is zero by itself.
    motion = Backbone.of(_module("motion", layout=CHAIN), data_layout=OTHER).prepare(_batch(other))
    assert not motion[:, :, :, 1].any()
    assert motion[:, :, :-1, 2].abs().min() > 0


@pytest.fixture
def target(tmp_path) -> SkeletonDataModule:
    """60 sequences of 15 joints and two bodies whose classes are the height of the left wrist; class 3 never occurs."""
    draw, layout = np.random.default_rng(0), SkeletonLayout.of("florence3d")
    wrist = layout.joints.index("left_wrist")
    with ArchiveWriter(
        tmp_path / "target", layout=layout, num_bodies=2, class_names=("low", "middle", "high", "never"),
        protocols={"x-sub": {"column": "subject", "train": [0, 1]}},
    ) as writer:  # fmt: skip
        for i in range(60):
            joints = draw.normal(size=(20, 15, 2, 3)) * 0.05
            joints[:, wrist, 0, 2] += i % 3 - 1
            writer.add(f"clip{i:02d}", joints, label=i % 3, subject=i // 20)
    data = SkeletonDataModule(str(tmp_path / "target"), "x-sub", eval_batch_size=16)
    data.setup()
    return data


def test_an_encoder_of_another_body_model_is_judged_and_kept(target, tmp_path):
    module = _module()
    with pytest.raises(DataError, match="layout 'florence3d' with 15 joints and 2 bodies"):
        extract_tables(module, target)
    names = target.archive.class_names
    classifier = TransferEvaluation(
        module, names, layout=target.layout, num_bodies=2, seed=1, data=target.recipe
    )  # fmt: skip
    assert classifier.recipe == LINEAR
    lines = classifier.describe_mapping()
    assert lines[0] == "15 of the encoder's 20 joints are in the data, by name"
    assert lines[-1] == "bodies: 2 in the data, 1 in the encoder; further ones are not used"
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=80, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(classifier, labelled_loader(target, None, 1024))
    (found,) = trainer.test(classifier, target.feature_dataloader("test"), verbose=False)
    assert found["test/top-1"] > 90
    assert found["test/top-5"] == 100
    again = load_classifier(save_classifier(classifier, tmp_path / "classifier.pt"))
    assert (again.layout, again.num_bodies) == (target.layout, 2)
    (first, *_) = list(target.feature_dataloader("test"))
    assert torch.equal(again.predict(first), classifier.predict(first))
    tables = classifier_tables(classifier, target)
    assert tables.train.shape == (40, module.query_encoder.feature_size)
    assert tables.test_labels.tolist() == target.archive.labels[target.test_rows].tolist()
    tuned = TransferEvaluation(module, names, layout=target.layout, num_bodies=2, finetune=True)
    assert (tuned.recipe, tuned.frozen) == (FINE_TUNING, False)
