"""`prosl linear`, `semi` and `transfer`: what they print, the rows and the files they leave."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning import SkeletonDataModule
from prosl_lightning.commands.classify import folder_name
from prosl_lightning.commands.evaluate import DataOptions
from prosl_lightning.commands.linear import linear
from prosl_lightning.errors import DataError
from prosl_lightning.evaluation.classifier import load_classifier
from prosl_lightning.evaluation.fingerprint import file_sha256
from prosl_lightning.evaluation.linear import LINEAR
from prosl_lightning.evaluation.semi import FINE_TUNING

FILES = {"classifier.pt", "confusion.csv", "confusion.png", "per-class.csv"}


def _rows(ckpt: Path) -> list[dict]:
    return json.loads((ckpt.parent / "results.json").read_text())


def test_linear_reports_the_last_epoch_and_names_the_best(prosl, ckpt, tiny_archive):
    result = prosl("linear", "--ckpt", ckpt, "--data.root", tiny_archive, "--epochs", 16, "--seeds", 2)
    assert result.code == 0, result.err
    (row,) = _rows(ckpt)
    numbers = row["numbers"]
    assert [run["top-1"] for run in row["runs"]] == [numbers["top-1 seed 0"], numbers["top-1 seed 1"]]
    assert {"best epoch on the test set", "calibration error"} <= row["runs"][1].keys()
    assert (row["evaluation"], row["seeds"], row["protocol"]["milestones"]) == ("linear", [0, 1], [10, 14])
    assert row["protocol"]["learning_rate"] == 2
    assert numbers["top-1"] == pytest.approx((numbers["top-1 seed 0"] + numbers["top-1 seed 1"]) / 2, abs=1e-3)
    spread = np.std([numbers["top-1 seed 0"], numbers["top-1 seed 1"]], ddof=1)
    assert numbers["top-1 deviation"] == pytest.approx(spread, abs=1e-3)
    assert numbers["best epoch on the test set"] >= numbers["top-1"]
    for text in ("top-1", "best epoch on the test set", "calibration error"):
        assert text in result.out
    folder = ckpt.parent / "last-linear-tiny-x-sub-epochs-16"
    assert row["files"] == str(folder)
    assert {file.name for file in folder.iterdir()} == FILES
    classifier = load_classifier(folder / "classifier.pt")
    assert classifier.class_names == ("a", "b", "c")
    assert len(classifier.gallery_names) == 36
    # The folder of a run is still known by its training checkpoints alone.
    assert [file.name for file in ckpt.parent.rglob("*.ckpt")] == ["last.ckpt"]


def test_several_checkpoints_are_reported_one_by_one_and_fused(prosl, fit, ckpt, tiny_archive):
    bone = ("--data.stream", "bone", "--trainer.default_root_dir", "bone", "--trainer.max_epochs", 1)
    assert fit(*bone).code == 0
    second = Path(shutil.copy("bone/checkpoints/last.ckpt", ckpt.parent / "second.ckpt"))
    both, arguments = f"[{ckpt}, {second}]", ("--data.root", tiny_archive, "--epochs", 4)
    result = prosl("linear", "--ckpt", both, "--weights", "[0.6,0.4]", *arguments)
    assert result.code == 0, result.err
    one, two, fused = _rows(ckpt)
    assert [len(row["checkpoints"]) for row in (one, two, fused)] == [1, 1, 2]
    assert [row["protocol"]["stream"] for row in (one, two, fused)] == ["joint", "bone", "joint+bone"]
    assert fused["protocol"]["weights"] == [0.6, 0.4]
    assert all(row["numbers"]["best epoch on the test set"] >= row["numbers"]["top-1"] for row in (one, two, fused))
    folders = {path.name: {file.name for file in path.iterdir()} for path in ckpt.parent.iterdir() if path.is_dir()}
    sums = "".join(file_sha256(path) for path in (ckpt, second))
    content = hashlib.sha256(sums.encode()).hexdigest()[:8]
    assert folders == {
        "last-linear-tiny-x-sub-epochs-4": FILES,
        "second-linear-tiny-x-sub-epochs-4": FILES,
        f"last+second-linear-tiny-x-sub-joint+bone-{content}-epochs-4-weights-0.6-0.4": FILES - {"classifier.pt"},
    }

    # Both classifiers, asked again, give what was fused.
    data = SkeletonDataModule(str(tiny_archive), "x-sub")
    data.setup()
    (batch,) = list(data.feature_dataloader("test"))
    logits = [
        load_classifier(ckpt.parent / f"{name}-linear-tiny-x-sub-epochs-4" / "classifier.pt").predict(batch)
        for name in ("last", "second")
    ]
    for weights, row in (((1, 0), one), ((0, 1), two), ((0.6, 0.4), fused)):
        mixed = weights[0] * logits[0] + weights[1] * logits[1]
        top1 = 100 * float((mixed.argmax(dim=1) == batch.label).double().mean())
        assert row["numbers"]["top-1"] == pytest.approx(top1, abs=1e-3)

    code, _, err = prosl("linear", "--ckpt", both, "--weights", "[1]", *arguments)
    assert (code, err) == (
        2, "prosl linear: error: weights are [1.0] for 2 checkpoints: one each, finite, none negative, not all zero\n",
    )  # fmt: skip
    assert "no checkpoint is given" in prosl("linear", "--ckpt", "[]", *arguments).err


def test_semi_fine_tunes_with_few_labels(prosl, ckpt, tiny_archive):
    result = prosl(
        "semi", "--ckpt", ckpt, "--data.root", tiny_archive, "--fraction", 0.1, "--seeds", 2, "--epochs", 3,
        "--test_every", 2,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "3 of 36 training sequences are labelled" in result.out
    few = "note: 3 optimiser steps (1 in each epoch) are few: the recipe was made for 560 or more, --epochs 560\n"
    assert result.out.count(few) == 1
    (row,) = _rows(ckpt)
    assert (row["evaluation"], row["seeds"]) == ("semi", [0, 1])
    told = {"fraction": 0.1, "sampling": "random", "labelled": 3, "train_crop": [0.5, 1.0], "learning_rate": 0.01}
    assert told.items() <= row["protocol"].items()
    folder = ckpt.parent / "last-semi-0.1-tiny-x-sub-epochs-3"
    assert {file.name for file in folder.iterdir()} == FILES
    assert len(load_classifier(folder / "classifier.pt").gallery_names) == 3

    result = prosl(
        "semi", "--ckpt", ckpt, "--data.root", tiny_archive, "--fraction", 0.1, "--sampling", "stratified",
        "--seeds", 1, "--epochs", 1,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "3 of 36 training sequences are labelled\n" in result.out  # one of each class, so none is missing
    for value in ("0", "2"):
        code, _, err = prosl("semi", "--ckpt", ckpt, "--data.root", tiny_archive, "--fraction", value)
        assert (code, f"fraction is {float(value)}; it must be above 0 and at most 1" in err) == (2, True)
    code, _, err = prosl("semi", "--ckpt", ckpt, "--data.root", tiny_archive, "--fraction", "0.01")
    assert (code, "0.01 of 36 labelled training sequences is none" in err) == (2, True)


@pytest.mark.parametrize("finetune", [False, True])
def test_transfer_to_another_body_model_says_what_it_did(prosl, ckpt, other_archive, finetune):
    switch = ("--finetune",) if finetune else ()
    result = prosl("transfer", "--ckpt", ckpt, "--data.root", other_archive, "--epochs", 2, *switch)
    assert result.code == 0, result.err
    (row,) = _rows(ckpt)
    assert row["protocol"]["finetune"] is finetune
    assert row["protocol"]["absent_joints"] == [
        "neck", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb",
    ]  # fmt: skip
    assert row["protocol"]["unused_joints"] == []
    for line in (
        "20 of the encoder's 25 joints are in the data, by name",
        "bodies: 1 in the data, 2 in the encoder; the others are zero",
    ):
        assert line in result.out
    folder = ckpt.parent / f"last-{'finetune' if finetune else 'transfer'}-other-x-sub-epochs-2"
    assert {file.name for file in folder.iterdir()} == FILES
    classifier = load_classifier(folder / "classifier.pt")
    assert (classifier.layout.name, classifier.num_bodies, classifier.class_names) == ("kinect-v1", 1, ("a", "b"))


def test_a_damaged_results_file_is_found_before_training(prosl, ckpt, tiny_archive, monkeypatch):
    def never(*_):
        raise AssertionError("it was trained")

    monkeypatch.setattr("prosl_lightning.commands.linear.train_heads", never)
    (ckpt.parent / "results.json").write_text("{")
    code, _, err = prosl("linear", "--ckpt", ckpt, "--data.root", tiny_archive)
    assert (code, "results.json is damaged" in err) == (1, True)


def test_the_classifier_is_there_before_the_row_and_the_row_before_the_screen(prosl, ckpt, tiny_archive, monkeypatch):
    folder = ckpt.parent / "last-linear-tiny-x-sub-epochs-2"

    def fails(*_):
        assert {file.name for file in folder.iterdir()} == FILES
        raise DataError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("prosl_lightning.commands.evaluate.append_result", fails)
        code, out, err = prosl("linear", "--ckpt", ckpt, "--data.root", tiny_archive, "--epochs", 2)
    assert (code, "no space left" in err, "best epoch on the test set" in out) == (1, True, True)

    def closed(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        linear(ckpt=str(ckpt), data=DataOptions(str(tiny_archive)), epochs=2)
    assert len(_rows(ckpt)) == 1


def test_no_two_evaluations_share_a_folder(tiny_archive, tmp_path):
    data = SkeletonDataModule(str(tiny_archive), "x-view")
    data.setup()
    usual = LINEAR.to_plain() | {"precision": "float32"}
    names = {
        folder_name("linear", ["a/last.ckpt"], data, usual): "last-linear-tiny-x-view",
        folder_name("linear", ["last.ckpt"], data, usual | {"precision": "bfloat16"}):
            "last-linear-tiny-x-view-precision-bfloat16",
        folder_name("linear", ["last.ckpt"], data, usual | {"epochs": 1000, "milestones": [625, 875]}):
            "last-linear-tiny-x-view-epochs-1000",
        folder_name("linear", ["last.ckpt"], data, usual | {"epochs": 1000}):
            "last-linear-tiny-x-view-epochs-1000-milestones-50-70",
        folder_name("semi", ["last.ckpt"], data, FINE_TUNING.to_plain() | {"fraction": 0.1, "sampling": "stratified"}):
            "last-semi-0.1-tiny-x-view-sampling-stratified",
        folder_name("transfer", ["last.ckpt"], data, FINE_TUNING.to_plain() | {"finetune": True}):
            "last-finetune-tiny-x-view",
    }  # fmt: skip
    assert list(names) == list(names.values())


def test_fusions_of_files_of_the_same_name_do_not_share_a_folder(tiny_archive, tmp_path):
    data = SkeletonDataModule(str(tiny_archive), "x-sub")
    data.setup()
    files = []
    for run in ("a", "b", "c"):
        (tmp_path / run).mkdir()
        files.append(str(tmp_path / run / "last.ckpt"))
        Path(files[-1]).write_text(run)
    protocol = LINEAR.to_plain() | {"stream": "joint"}
    pairs = [files[:2], [files[1], files[0]], files[1:], files[:2]]
    names = [folder_name("linear", pair, data, protocol) for pair in pairs]
    assert len(set(names)) == 3
    assert names[0] == names[3]
    assert all(re.fullmatch(r"last\+last-linear-tiny-x-sub-joint-[0-9a-f]{8}", name) for name in names)


def test_wrong_options_are_one_line(prosl, ckpt, tiny_archive):
    for verb, option, message in (
        ("linear", "--epochs=0", "epochs is 0; it must be at least 1"),
        ("linear", "--seeds=0", "seeds is 0; it must be at least 1"),
        ("transfer", "--data.protocol=x-nothing", "has no protocol 'x-nothing'; it has x-sub, x-view, all"),
        ("transfer", "--data.protocol=all", "protocol 'all' of"),
    ):
        code, _, err = prosl(verb, "--ckpt", ckpt, "--data.root", tiny_archive, option)
        assert code in (1, 2)
        assert message in err
        assert err.count("\n") == 1, err
