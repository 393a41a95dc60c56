"""An encoder from its checkpoint alone: any form of joints, the training data's preparation, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prosl_lightning import Archive, ArchiveWriter, ProSLModule, SkeletonDataModule, load_encoder
from prosl_lightning.cli import main
from prosl_lightning.data.normalize import normalize_agcn
from prosl_lightning.data.prepare import arrays
from prosl_lightning.data.recipes import normalize_bodies
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation import encoder as encoder_file
from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.classifier import save_classifier
from prosl_lightning.evaluation.encoder import SkeletonEncoder, checkpoint_kind
from prosl_lightning.evaluation.features import extract_tables
from prosl_lightning.evaluation.linear import LinearEvaluation
from prosl_lightning.skeleton import SkeletonLayout

KINECT = SkeletonLayout.of("kinect-v2")


def _save(module, path: Path, recipe: dict) -> Path:
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "epoch": 3}
    torch.save(content | {"recipe": recipe, "pytorch-lightning_version": "2.6.6"}, path)
    return path


@pytest.fixture(scope="module")
def raw() -> list[np.ndarray]:
    """Twelve sequences (T, B, V, C) of one or two persons who stand about the room, metres."""
    draw = np.random.default_rng(1)
    rest = draw.normal(size=(25, 3)) * 0.4
    found = []
    for i in range(12):
        frames, bodies = 20 + 3 * i, 1 + i % 2
        moving = np.cumsum(draw.normal(size=(frames, bodies, 25, 3)) * 0.02, axis=0)
        found.append((rest + moving + draw.normal(size=(1, bodies, 1, 3)) + [0, 0, 3]).astype(np.float32))
    return found


@pytest.fixture
def archive(raw, tmp_path) -> Path:
    """The same sequences as `prosl prepare` would keep them, without rounding."""
    recipe, protocols = {"importer": "test", "normalize": "agcn"}, {"x-sub": {"column": "subject", "train": [0]}}
    with ArchiveWriter(
        tmp_path / "archive", layout=KINECT, num_bodies=2, class_names=("a", "b"), protocols=protocols, recipe=recipe,
        dtype="float32",
    ) as writer:  # fmt: skip
        for i, bodies in enumerate(raw):
            writer.add(f"clip{i}", normalize_bodies(bodies, KINECT, 2, "agcn"), label=i % 2, subject=i // 6)
    return tmp_path / "archive"


@pytest.fixture
def checkpoint(module, archive, tmp_path) -> Path:
    data = SkeletonDataModule(str(archive), "x-sub", batch_size=2)
    data.setup()
    return _save(module, tmp_path / "last.ckpt", data.recipe)


@pytest.fixture
def encoder(checkpoint) -> SkeletonEncoder:
    return load_encoder(checkpoint, device="cpu")


def test_features_are_those_of_every_evaluation(module, encoder, tiny_archive):
    data = SkeletonDataModule(str(tiny_archive), "x-sub", batch_size=8)
    data.setup()
    clips = [data.archive.clip(int(row)).transpose(0, 3, 2, 1) for row in data.test_rows]
    features = encoder.embed(clips, normalized=True)
    assert features.dtype == np.float32
    assert np.array_equal(features, extract_tables(module, data).test.numpy())


def test_raw_joints_give_the_features_of_the_prepared_archive(module, encoder, archive, raw):
    data = SkeletonDataModule(str(archive), "x-sub", batch_size=2)
    data.setup()
    tables = extract_tables(module, data)
    expected = torch.cat([tables.train, tables.test]).numpy()
    np.testing.assert_allclose(encoder.embed(raw), expected, atol=1e-5)
    assert encoder.normalization == "agcn"
    assert np.abs(encoder.embed(raw, normalized=True) - expected).max() > 1e-3


def test_raw_joints_give_the_features_of_an_archive_of_arrays_that_others_normalised(module, raw, tmp_path):
    """Arrays of 2s-AGCN, a checkpoint trained on them, and then raw recordings, or such arrays again."""
    (tmp_path / "xsub").mkdir()
    done = [normalize_agcn(bodies, KINECT, 2, total_frames=60) for bodies in raw]
    for part, some in (("train", done[:6]), ("val", done[6:])):
        np.save(tmp_path / "xsub" / f"{part}_data_joint.npy", np.stack(some).transpose(0, 4, 1, 3, 2))
        lengths = [len(bodies) for bodies in (raw[:6] if part == "train" else raw[6:])]
        np.save(tmp_path / "xsub" / f"{part}_num_frame.npy", np.array(lengths))
        np.save(tmp_path / "xsub" / f"{part}_label.npy", np.array([0, 1] * 3))
    arrays(str(tmp_path / "xsub"), out=str(tmp_path / "archive"), dtype="float32")
    data = SkeletonDataModule(str(tmp_path / "archive"), "x-sub", batch_size=2)
    data.setup()
    path = _save(module, tmp_path / "arrays.ckpt", data.recipe)
    encoder = load_encoder(path, device="cpu")
    tables = extract_tables(module, data)
    expected = torch.cat([tables.train, tables.test]).numpy()
    np.testing.assert_allclose(encoder.embed(raw), expected, atol=1e-5)
    assert encoder.normalization == "agcn"
    again = [encoder.prepare(bodies[: len(clip)], already="agcn") for bodies, clip in zip(done, raw, strict=True)]
    np.testing.assert_allclose(np.concatenate(list(encoder.embed_prepared(again))), expected, atol=1e-5)
    with pytest.raises(UsageError, match=r"normalised before \('crossclr'\), from which 'agcn' cannot be made"):
        encoder.prepare(done[0], already="crossclr")
    embedded = ["embed", "--ckpt", str(path), str(tmp_path / "xsub"), "--out", str(tmp_path / "features.npz")]
    assert main(embedded) == 0
    with np.load(tmp_path / "features.npz") as features:
        np.testing.assert_allclose(features["features"], expected, atol=1e-5)


def test_every_form_of_joints_gives_the_same(encoder, raw):
    expected = encoder.embed(raw)
    assert expected.shape == (12, 128)
    first = encoder.embed(raw[0])
    assert first.shape == (1, 128)
    for same in (raw[0][:, 0], torch.from_numpy(raw[0]), [raw[0][:, 0].astype(np.float64)], raw[0][:, 0].tolist):
        joints = np.array(same()) if callable(same) else same
        np.testing.assert_allclose(encoder.embed(joints), first, atol=1e-6)
    np.testing.assert_allclose(first, expected[:1], atol=1e-5)
    pair = np.stack([raw[1][:20], raw[3][:20]])  # (N, T, M, V, C)
    np.testing.assert_allclose(
        encoder.embed(torch.from_numpy(pair).permute(0, 4, 1, 3, 2)), encoder.embed(list(pair)), atol=1e-6
    )


def test_features_do_not_depend_on_what_shares_their_batch(encoder, raw, monkeypatch):
    expected = encoder.embed(raw)
    np.testing.assert_allclose(encoder.embed(raw, batch_size=1), expected, atol=1e-5)
    sizes: list[tuple[int, ...]] = []
    embed_batch = encoder.embed_batch

    def watched(batch):
        sizes.append((batch.joints.shape[0], batch.joints.shape[2]))
        return embed_batch(batch)

    monkeypatch.setattr(encoder, "embed_batch", watched)
    monkeypatch.setattr(encoder_file, "_FRAMES", 100)
    np.testing.assert_allclose(encoder.embed(raw), expected, atol=1e-5)
    assert sum(count for count, _ in sizes) == 12
    assert len(sizes) > 3
    assert all(count * frames <= 100 for count, frames in sizes)


def test_a_classifier_is_an_encoder_too(module, encoder, raw, checkpoint, tmp_path):
    head = LinearEvaluation(module, ("a", "b"), data={"normalisation": {"normalize": "agcn"}, "protocol": "x-sub"})
    path = save_classifier(head, tmp_path / "classifier.pt")
    assert (checkpoint_kind(path), checkpoint_kind(checkpoint)) == ("classifier", "encoder")
    np.testing.assert_array_equal(load_encoder(path, device="cpu").embed(raw), encoder.embed(raw))
    assert load_encoder(path).recipe["protocol"] == "x-sub"


def test_another_body_model_is_matched_by_the_names_of_its_joints(checkpoint, encoder, raw):
    order = np.random.default_rng(0).permutation(25)
    place = np.argsort(order)
    plain = KINECT.to_dict()
    renamed = plain | {
        "name": "shuffled",
        "joints": [KINECT.joints[i] for i in order],
        "center": [int(place[i]) for i in KINECT.center],
        "parents": [int(place[KINECT.parents[i]]) for i in order],
        "spine": [[int(place[i]) for i in group] for group in KINECT.spine],
        "shoulders": [[int(place[i]) for i in group] for group in KINECT.shoulders],
    }
    other = load_encoder(checkpoint, layout=renamed, device="cpu")
    shuffled = [bodies[:, :, order] for bodies in raw]
    np.testing.assert_allclose(other.embed(shuffled), encoder.embed(raw), atol=1e-4)
    assert np.abs(encoder.embed(shuffled) - encoder.embed(raw)).max() > 1e-2


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.zeros((10, 20, 3)), r"found shape \(10, 1, 20, 3\), expected .*\(frames, 25, 3\)(?s:.*)'kinect-v2'"),
        ([np.eye(25)[None, :, :3], np.ones((10, 25, 2))], r"sequence 2 of 2: found shape \(10, 1, 25, 2\)"),
        (np.ones((2, 2, 10, 25, 1)), r"found a batch of shape \(2, 2, 10, 25, 1\)"),
        (np.ones(25), r"found shape \(25,\)"),
        (np.zeros((10, 25, 3)), "nobody in any frame"),
        (np.full((10, 25, 3), np.nan), "NaN or infinity in 10 of 10 frames"),
        (np.zeros((0, 25, 3)), "no frames"),
        (np.array(["a"]), "expected numbers"),
    ],
)  # fmt: skip
def test_joints_that_do_not_fit_are_refused(encoder, joints, message):
    with pytest.raises(DataError, match=message):
        encoder.embed(joints)


def test_other_mistakes_are_told(module, encoder, raw, tmp_path):
    with pytest.raises(UsageError, match="joints is empty"):
        encoder.embed([])
    with pytest.raises(DataError, match="3 bodies; the encoder takes 2"):
        encoder.embed(np.ones((5, 3, 25, 3)), normalized=True)
    foreign = load_encoder(_save(module, tmp_path / "foreign.ckpt", {}), device="cpu")
    with pytest.raises(UsageError, match="does not say how its training data were normalised"):
        foreign.embed(raw)
    assert foreign.embed(raw, normalized=True).shape == (12, 128)
    with pytest.raises(DataError, match="there is no checkpoint"):
        load_encoder(tmp_path / "missing.ckpt")
    (tmp_path / "text.ckpt").write_text("text")
    assert checkpoint_kind(tmp_path / "text.ckpt") == "unknown"
    with pytest.raises(DataError, match=r"text\.ckpt is not a"):
        load_encoder(tmp_path / "text.ckpt")


def test_a_batch_that_looks_like_one_sequence_of_many_bodies_is_refused(encoder, raw):
    clips = [bodies[:20, 0] for bodies in raw]
    batch = np.stack(clips)  # (N, T, V, C)
    told = r"found shape \(12, 20, 25, 3\), i.e. one sequence of 12 frames with 20 bodies\n.*list\(joints\)"
    for joints in (batch, torch.from_numpy(batch)):
        with pytest.raises(DataError, match=told):
            encoder.embed(joints)
        np.testing.assert_array_equal(encoder.embed(list(joints)), encoder.embed(clips))
    with pytest.raises(DataError, match="12 frames with 7 bodies"):
        encoder.embed(batch[:, :7], normalized=True)
    crowd = batch.transpose(1, 0, 2, 3)  # who gives a list means it
    with pytest.warns(UserWarning, match="^1 sequence with up to 12 bodies: the encoder looks at 2, the others"):
        assert encoder.embed([crowd]).shape == (1, 128)


def test_further_bodies_are_not_passed_over_in_silence(module, encoder, raw, recwarn):
    encoder.embed(raw)
    empty = np.concatenate([raw[1], np.zeros_like(raw[1][:, :1])], axis=1)
    encoder.embed(empty)
    assert not [each for each in recwarn if each.category is UserWarning]
    both = np.concatenate([raw[1], raw[1][:, :1] + 1], axis=1)
    with pytest.warns(UserWarning, match="^1 sequence with up to 3 bodies: the encoder looks at 2") as told:
        encoder.embed([raw[0], both])
    assert told[0].filename == __file__, "the warning names the user's line"
    one = SkeletonEncoder(Backbone.of(ProSLModule(**module.hparams | {"num_bodies": 1})), encoder.recipe)
    with pytest.warns(UserWarning, match="^6 sequences with up to 2 bodies: the encoder looks at 1"):
        one.embed(raw)
    with pytest.raises(DataError, match="2 bodies; the encoder takes 1"):
        one.embed(raw[1], normalized=True)


def test_a_real_recording_gives_the_features_of_its_archive(shared_folder, module, tmp_path):
    from prosl_lightning.data.ntu import read_skeleton

    folder = shared_folder / "data" / "raw-samples" / "ntu-skeleton"
    assert main(["prepare", "ntu60", str(folder), "--out", str(tmp_path / "ntu"), "--dtype", "float32"]) == 0
    archive = Archive.open(tmp_path / "ntu")
    data = SkeletonDataModule(str(archive.root), "all", batch_size=4)
    data.setup()
    encoder = load_encoder(_save(module, tmp_path / "ntu.ckpt", data.recipe), device="cpu")
    raw = [read_skeleton(folder / f"{name}.skeleton") for name in archive.names]
    clips = [archive.clip(row).transpose(0, 3, 2, 1) for row in range(len(archive))]
    np.testing.assert_allclose(encoder.embed(raw), encoder.embed(clips, normalized=True), atol=1e-5)
