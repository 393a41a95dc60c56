"""What the evaluation verbs say of checkpoints and data: notes beside the numbers, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from prosl_lightning import Archive, ArchiveWriter, SkeletonLayout
from prosl_lightning.evaluation.classifier import load_classifier


def _rows(ckpt: Path) -> list[dict]:
    return json.loads((ckpt.parent / "results.json").read_text())


def test_what_the_encoder_was_trained_on_is_told_and_kept(prosl, ckpt, tiny_archive, other_archive):
    assert "note:" not in prosl("knn", "--ckpt", ckpt, "--data.root", tiny_archive).out
    result = prosl("knn", "--ckpt", ckpt, "--data.root", tiny_archive, "--data.protocol", "x-view")
    assert f"note: {ckpt} was trained on another split: x-sub with 36 sequences; 18 of the 24 test" in result.out
    content = torch.load(ckpt, weights_only=True)
    content["recipe"] |= {"frames_sha256": "of another", "archive": "mine"}
    torch.save(content, ckpt.with_name("other.ckpt"))
    result = prosl("knn", "--ckpt", f"[{ckpt.with_name('other.ckpt')}, {ckpt}]", "--data.root", tiny_archive)
    assert "other.ckpt was trained on another data set: mine, x-sub\n" in result.out
    assert "note: the checkpoints were trained on different data\n" in result.out
    rows = _rows(ckpt)
    assert [[each["trained_on"]["same_data"] for each in row["checkpoints"]] for row in rows[2:]] == [
        [False], [True], [False, True],
    ]  # fmt: skip
    ckpt.with_name("results.json").write_text(json.dumps(rows[:2]))
    result = prosl("transfer", "--ckpt", ckpt, "--data.root", other_archive, "--epochs", 2)
    assert f"note: {ckpt} was trained on another data set: tiny, x-sub\n" in result.out
    keys = ("same_data", "same_split", "test_sequences_seen")
    assert [[row["checkpoints"][0]["trained_on"][key] for key in keys] for row in _rows(ckpt)] == [
        [True, True, 0], [True, False, 18], [False, False, None],
    ]  # fmt: skip


def test_training_sequences_without_label_are_left_out(prosl, ckpt, tiny_archive, tmp_path):
    unlabelled = 5
    archive = Archive.open(tiny_archive)
    train, _ = archive.split("x-sub")
    with ArchiveWriter(
        tmp_path / "part", layout=archive.layout, num_bodies=2, class_names=archive.class_names,
        protocols=archive.meta["protocols"],
    ) as writer:  # fmt: skip
        for row, name in enumerate(archive.names):
            label = -1 if row in train[:unlabelled] else int(archive.labels[row])
            columns = {column: int(values[row]) for column, values in archive.columns.items()}
            writer.add(str(name), np.asarray(archive.clip(row)).transpose(0, 2, 3, 1), label=label, **columns)
    for verb, *options in (("linear", "--epochs", 2), ("knn",), ("transfer", "--epochs", 2)):
        result = prosl(verb, "--ckpt", ckpt, "--data.root", "part", *options)
        assert result.code == 0, result.err
        assert f"note: {unlabelled} of the 36 training sequences have no label and are left out" in result.out
        assert _rows(ckpt)[-1]["protocol"]["unlabelled"] == unlabelled
    (folder,) = ckpt.parent.glob("last-linear*")
    found = load_classifier(folder / "classifier.pt")
    assert found.gallery_names == archive.names[train[unlabelled:]].tolist()
    assert found.gallery_labels.tolist() == archive.labels[train[unlabelled:]].tolist()


def test_units_that_differ_are_told(prosl, ckpt, tmp_path):
    layout = {**SkeletonLayout.of("kinect-v2").to_dict(), "name": "other", "unit": "normalised"}
    layout["joints"][0] = "hip_center"
    with ArchiveWriter(
        tmp_path / "normalised", layout=SkeletonLayout.of(layout), num_bodies=2, class_names=("a", "b"),
        protocols={"x-sub": {"column": "subject", "train": [0]}},
    ) as writer:  # fmt: skip
        for i in range(8):
            joints = np.random.default_rng(i).normal(size=(20, 25, 2, 3))
            writer.add(f"clip{i}", joints, label=i % 2, subject=i // 4)
    result = prosl("transfer", "--ckpt", ckpt, "--data.root", "normalised", "--epochs", 2)
    assert result.code == 0, result.err
    assert "unit differs: the encoder's data 'metre', the target 'normalised'" in result.out
    assert "the same place under another name: spine_base is hip_center in the data\n" in result.out
    (row,) = _rows(ckpt)
    assert row["protocol"]["units"] == {"encoder": "metre", "data": "normalised"}
    assert row["protocol"]["renamed_joints"] == {"spine_base": "hip_center"}


def test_wrong_options_are_told_before_anything_is_loaded(prosl):
    for verb, option, message in (
        ("linear", "--milestones=[70,50]", "milestones are [70, 50] of 80 epochs: they must ascend and lie between 1"),
        ("linear", "--milestones=[-5,2]", "milestones are [-5, 2] of 80 epochs"),
        ("transfer", "--milestones=[50,80]", "milestones are [50, 80] of 80 epochs: they must ascend and lie between"),
        ("semi", "--test_every=0", "test_every is 0; it must be at least 1"),
        ("transfer", "--test_every=0", "test_every is 0; it must be at least 1"),
        ("knn", "--k=-1", "k is -1; it must be at least 1"),
        ("knn", "--data.batch_size=0", "data.batch_size is 0; it must be at least 1"),
        ("knn", "--weights=[.nan]", "weights are [nan] for 1 checkpoints: they are for fusing two or more"),
    ):
        more = ("--fraction", 0.1) if verb == "semi" else ()
        code, _, err = prosl(verb, "--ckpt", "gone.ckpt", "--data.root", "gone", option, *more)
        assert (code, message in err, err.count("\n")) == (2, True, 1), err


def test_what_is_no_checkpoint_is_named(prosl, ckpt, tiny_archive, other_archive, tmp_path):
    (tmp_path / "text.ckpt").write_text("nothing of the kind")
    torch.save({"weights": 1}, "foreign.ckpt")
    torch.save({"classifier": {}, "state_dict": {}}, "classifier.pt")

    def said(given: object, archive: object = tiny_archive, verb: str = "knn", *more: object) -> str:
        code, _, err = prosl(verb, "--ckpt", given, "--data.root", archive, *more)
        assert code in (1, 2)
        assert "weights_only" not in err
        return err

    wrong = "is not a complete checkpoint of `prosl fit`"
    assert f"text.ckpt {wrong}: it is cut off, or a file of another kind\n" in said("text.ckpt")
    assert f"foreign.ckpt {wrong}: it holds no module of this library\n" in said("foreign.ckpt")
    assert "classifier.pt is a classifier, for `prosl predict`; give the checkpoint" in said("classifier.pt")
    assert "is a folder; a checkpoint is a file, e.g. last.ckpt" in said(ckpt.parent)
    assert "`prosl transfer` judges it on another body model" in said(ckpt, other_archive)
    two = said(f"[{ckpt}, {ckpt}]", tiny_archive, "semi", "--fraction", 0.1)
    assert two.endswith("this evaluation takes one checkpoint\n")


def _split_by_fold(archive: Path, root: Path, label: int | None = None) -> Path:
    """The sequences of an archive under protocols of other names, all of one class where it is given."""
    found = Archive.open(archive)
    subjects = sorted(set(found.columns["subject"].tolist()))
    rules = {f"fold-{i + 1}": {"column": "subject", "train": [subjects[i]]} for i in range(2)}
    with ArchiveWriter(
        root, layout=found.layout, num_bodies=2, class_names=found.class_names, protocols=rules
    ) as writer:  # fmt: skip
        for row, name in enumerate(found.names):
            joints = np.asarray(found.clip(row)).transpose(0, 2, 3, 1)
            columns = {column: int(values[row]) for column, values in found.columns.items()}
            writer.add(str(name), joints, label=int(found.labels[row]) if label is None else label, **columns)
    return root


def test_a_protocol_that_follows_from_the_checkpoint_but_not_from_the_data(prosl, ckpt, tiny_archive, tmp_path):
    root = _split_by_fold(tiny_archive, tmp_path / "folds")
    remedy = "which the checkpoint was trained under: give --data.protocol fold-1 or fold-2\n"
    for verb in ("knn", "transfer"):
        code, _, err = prosl(verb, "--ckpt", ckpt, "--data.root", root)
        assert (code, err) == (2, f"prosl {verb}: error: {root} has no protocol 'x-sub', {remedy}")
    content = torch.load(ckpt, weights_only=True)
    content["recipe"]["protocol"] = "all"
    torch.save(content, ckpt)
    code, _, err = prosl("knn", "--ckpt", ckpt, "--data.root", root)
    assert (code, err) == (2, f"prosl knn: error: {root} has no test set under protocol 'all', {remedy}")
    result = prosl("knn", "--ckpt", ckpt, "--data.root", root, "--data.protocol", "fold-1")
    assert result.code == 0, result.err


def test_data_without_labels_are_one_error(prosl, ckpt, tiny_archive, tmp_path):
    root = _split_by_fold(tiny_archive, tmp_path / "bare", label=-1)
    code, out, err = prosl("knn", "--ckpt", ckpt, "--data.root", root, "--data.protocol", "fold-1")
    assert (code, out, err.count("\n")) == (1, "", 2)
    assert "test sequences have no label" in err


def test_features_that_are_all_the_same_are_warned_of(prosl, ckpt, tiny_archive):
    content = torch.load(ckpt, weights_only=True)
    for name, weight in content["state_dict"].items():
        if name.startswith("query_encoder"):
            weight.zero_()
    collapsed = ckpt.with_name("collapsed.ckpt")
    torch.save(content, collapsed)
    warning = f"warning: {collapsed} gives most sequences the same feature (their cosines differ by less than 1e-06): "
    for verb, *options in (("knn",), ("linear", "--epochs", 2), ("transfer", "--epochs", 2)):
        result = prosl(verb, "--ckpt", collapsed, "--data.root", tiny_archive, *options)
        assert result.code == 0, result.err
        assert result.err.count(warning) == 1
        assert "warning:" not in prosl(verb, "--ckpt", ckpt, "--data.root", tiny_archive, *options).err
