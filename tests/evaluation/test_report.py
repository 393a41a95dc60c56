"""Rows of results.json: what they say, that none is lost, and what is refused."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from pathlib import Path

import numpy
import pytest
import torch

from prosl_lightning.errors import DataError
from prosl_lightning.evaluation import report
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
        "split": "x-sub", "rule": rule, "train": 36, "test": 12, "test_crop": 0.95, "stream": "joint", "k": 1,
    }  # fmt: skip
    frames, index = ((tiny_archive / name).read_bytes() for name in ("frames.npy", "index.npy"))
    assert row["data"]["frames_sha256"] == hashlib.sha256(frames[128:]).hexdigest()
    assert row["data"]["index_sha256"] == hashlib.sha256(index).hexdigest()
    assert (row["data"]["name"], row["data"]["sequences"], row["data"]["classes"]) == ("tiny", 48, 3)
    assert row["data"]["frames"] == int(data.archive.lengths.sum())
    (found,) = row["checkpoints"]
    assert found["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (found["epochs"], found["base"], found["stream"], found["seed"]) == (4, "hico-gru", "joint", 0)
    assert found["trained_on"]["sequences"] == 36
    assert row["versions"]["torch"] == torch.__version__
    assert row["versions"]["numpy"] == numpy.__version__
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
