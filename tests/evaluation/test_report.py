"""Rows of results.json: what they say, that none is lost, and what is refused."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import time
from importlib import metadata
from pathlib import Path

import numpy
import pytest
import torch

from prosl_lightning.errors import DataError
from prosl_lightning.evaluation import report
from prosl_lightning.evaluation.fingerprint import training_note, training_relation
from prosl_lightning.evaluation.report import append_result, read_results, result_row


@pytest.fixture
def checkpoint(module, data, tmp_path) -> Path:
    path = tmp_path / "epoch-0003.ckpt"
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "epoch": 3}
    torch.save(content | {"recipe": data.recipe}, path)
    return path


@pytest.fixture
def row(checkpoint, data) -> dict:
    numbers = {"top-1": 81.23456789, "silhouette": float("nan")}
    return result_row("knn", [checkpoint], data, numbers, {"k": 1}, seeds=[0, 1], device="cpu")


def test_a_row_holds_everything_a_number_depends_on(row, checkpoint, data, tiny_archive):
    assert row["numbers"] == {"top-1": 81.2346, "silhouette": None}
    rule = {"column": "subject", "train": [1, 2, 3]}
    assert row["protocol"] == {
        "split": "x-sub", "rule": rule, "train": 36, "test": 12, "train_crop": 0.95, "test_crop": 0.95,
        "stream": "joint", "k": 1,
    }  # fmt: skip
    frames, index = ((tiny_archive / name).read_bytes() for name in ("frames.npy", "index.npy"))
    assert row["data"]["frames_sha256"] == hashlib.sha256(frames[128:]).hexdigest()
    assert row["data"]["index_sha256"] == hashlib.sha256(index).hexdigest()
    assert (row["data"]["name"], row["data"]["sequences"], row["data"]["classes"]) == ("tiny", 48, 3)
    assert row["data"]["frames"] == int(data.archive.lengths.sum())
    (found,) = row["checkpoints"]
    assert found["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (found["epochs"], found["base"], found["stream"], found["seed"]) == (4, "hico-gru", "joint", 0)
    assert found["trained_on"] == {
        "name": "tiny", "data": "", "recipe": {}, "protocol": "x-sub", "sequences": 36,
        "frames_sha256": row["data"]["frames_sha256"], "same_data": True, "same_split": True, "test_sequences_seen": 0,
    }  # fmt: skip
    assert found["options"]["base_args"] == {"hidden_size": 16, "num_layers": 1, "projection_size": 8}
    assert (found["options"]["num_frames"], found["options"]["layout"]) == (16, "kinect-v2")
    assert (row["data"]["unit"], row["runs"], row["files"]) == ("metre", [], None)
    assert row["versions"]["torch"] == torch.__version__
    assert row["versions"]["numpy"] == numpy.__version__
    installed = {distribution.name: distribution.version for distribution in metadata.distributions()}
    for name in ("torchmetrics", "scipy", "scikit-learn", "faiss-cpu", "faiss-gpu"):
        assert row["versions"].get(name) == installed.get(name), name
    assert "torchmetrics" in row["versions"]
    assert row["seeds"] == [0, 1]
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_settings_of_the_evaluation_win_over_the_common_ones(checkpoint, data):
    row = result_row("semi", [checkpoint, checkpoint], data, {}, {"test_crop": None, "fraction": 0.1})
    assert row["protocol"]["test_crop"] is None
    assert row["protocol"]["stream"] == "joint"
    assert len(row["checkpoints"]) == 2


@pytest.mark.parametrize(
    ("options", "epoch", "stage"),
    [
        ({"semantic": False, "semantic_start": 1}, 9, "off"),
        ({"semantic": True, "semantic_start": 4}, 3, "warm-up"),
        ({"semantic": True, "semantic_start": 4}, 4, "on"),
    ],
)
def test_it_says_whether_the_codebook_took_part(tmp_path, options, epoch, stage):
    torch.save({"hyper_parameters": options, "epoch": epoch}, tmp_path / "a.ckpt")
    assert report.describe_checkpoint(tmp_path / "a.ckpt")["semantic"] == stage


def test_rows_come_back_as_they_were_written(row, checkpoint, tmp_path):
    assert read_results(tmp_path / "results.json") == []
    for _ in range(2):
        path = append_result(checkpoint, row)
    assert path == tmp_path / "results.json"
    assert read_results(path) == [row, row]


def _write_twenty(checkpoint: Path, name: str) -> None:
    for i in range(20):
        append_result(checkpoint, {"writer": name, "i": i})


def test_processes_that_write_at_once_lose_nothing(tmp_path, monkeypatch):
    read = report._read_list

    def slowly(path: Path) -> list:
        rows = read(path)
        time.sleep(0.005)  # long enough for the other to come between reading and writing, if it may
        return rows

    monkeypatch.setattr(report, "_read_list", slowly)
    processes = multiprocessing.get_context("fork")
    writers = [processes.Process(target=_write_twenty, args=(tmp_path / "last.ckpt", name)) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    rows = json.loads((tmp_path / "results.json").read_text())
    assert sorted((row["writer"], row["i"]) for row in rows) == [(w, i) for w in ("one", "two") for i in range(20)]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_the_lock_of_a_killed_writer_is_taken_over(tmp_path, monkeypatch):
    (tmp_path / "results.json.lock").touch()
    monkeypatch.setattr(report, "_LOCK_SECONDS", 0.1)
    append_result(tmp_path / "last.ckpt", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataError, match="results.json cannot be written"):
        append_result(tmp_path / "missing" / "last.ckpt", {})


def test_rows_of_another_kind_are_refused(row, checkpoint, tmp_path):
    path = append_result(checkpoint, row)
    append_result(checkpoint, {name: value for name, value in row.items() if name != "data"})
    with pytest.raises(DataError, match="row 2 lacks data; it was not written by an evaluation of this version"):
        read_results(path)
    path.write_text(json.dumps(["text"]))
    with pytest.raises(DataError, match="row 1 lacks"):
        read_results(path)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"protocol": None}, "protocol"),
        ({"protocol": {"split": "x-sub", "test": 1}}, "protocol.train"),
        ({"checkpoints": []}, "checkpoints"),
        (
            {"checkpoints": [{"sha256": "a", "epochs": 1, "semantic": "on", "stream": "joint"}]},
            "checkpoints.trained_on",
        ),
        ({"data": {}}, "data.frames_sha256, data.index_sha256, data.recipe"),
        ({"numbers": {"top-1": "high"}}, "numbers.top-1"),
        ({"date": None}, "date"),
    ],
)
def test_rows_that_are_damaged_inside_are_refused(row, checkpoint, change, missing):
    path = append_result(checkpoint, row | change)
    with pytest.raises(DataError, match=f"row 1 lacks {re.escape(missing)}; it was not written by"):
        read_results(path)


def test_a_place_where_no_result_can_be_kept_is_found_before_the_work(tmp_path):
    report.check_results(tmp_path / "last.ckpt")
    (tmp_path / "results.json").write_text("[{")
    with pytest.raises(DataError, match=r"results\.json is damaged"):
        report.check_results(tmp_path / "last.ckpt")


def _relation(data, **changes) -> tuple:
    return tuple(training_relation({**data.recipe, **changes}, data))


def test_training_on_another_set_or_split_is_told(data):
    assert _relation(data) == (True, True, 0)
    assert training_note(data.recipe, data) is None
    trained, test = data.archive.split("x-view")[0], data.test_rows
    seen = len(set(trained.tolist()) & set(test.tolist()))
    assert 0 < seen < 12
    assert _relation(data, protocol="x-view", num_samples=24) == (True, False, seen)
    note = training_note({**data.recipe, "protocol": "x-view", "num_samples": 24}, data)
    assert (
        note
        == f"was trained on another split: x-view with 24 sequences; {seen} of the 12 test sequences were among them"
    )
    assert _relation(data, protocol="all", num_samples=48) == (True, False, 12)
    assert _relation(data, protocol="gone") == (True, False, None)
    other = {"frames_sha256": "x", "archive": "mine"}
    assert _relation(data, **other) == (False, False, None)
    assert training_note({**data.recipe, **other}, data) == "was trained on another data set: mine, x-sub"
    assert training_note({}, data) == "does not say what it was trained on"


def test_older_checkpoints_are_compared_by_source_and_normalisation(data):
    older = {name: value for name, value in data.recipe.items() if name not in ("archive", "frames_sha256")}
    assert tuple(training_relation(older, data)) == (True, True, 0)
    assert tuple(training_relation(older | {"data": "ntu60.npz"}, data)) == (False, False, None)
    assert training_note(older | {"data": "ntu60.npz"}, data) == "was trained on another data set: ntu60.npz, x-sub"
