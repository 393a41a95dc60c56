"""benchmarks/gain.py and gain_report.py: arms start from one warm-up, nothing runs twice, differences are paired."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from prosl_lightning.data.pool import pool
from prosl_lightning.data.synthetic import write_archive
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.prosl.diagnostics import pair_precision
from prosl_lightning.skeleton import STREAMS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("gain", "gain_report", "gain_codebooks", "gain_sets", "gain_study")
    yield tuple(importlib.import_module(name) for name in names)
    for name in names:
        sys.modules.pop(name, None)


def test_labels_are_corrupted_to_the_precision_asked_for(scripts):
    classes = torch.arange(10).repeat_interleave(100)
    assert torch.equal(scripts[2].corrupt(classes, 10, 1.0, seed=0), classes)
    for precision in (0.3, 0.6, 0.9):
        labels = scripts[2].corrupt(classes, 10, precision, seed=0)
        assert pair_precision(labels, classes) == pytest.approx(precision, abs=0.01)
    at_random = scripts[2].corrupt(classes, 10, 0.0, seed=0)
    assert pair_precision(at_random, classes) == pytest.approx(0.1, abs=0.02)


def test_arms_go_on_from_one_warm_up_and_nothing_runs_twice(scripts, tmp_path, capsys):
    gain, report, *_ = scripts
    write_archive(tmp_path / "data" / "synthetic", num_samples=192, seed=0)
    command = [
        "--data", str(tmp_path / "data"), "--set", "synthetic", "--runs", str(tmp_path / "runs"), "--seeds", "0-1",
        "--warm-epochs", "1", "--epochs", "1", "--drop", "1", "--precision", "32-true", "--clusters", "4",
        "--arms", "plain", "labels-0.6", "prosl:importance_samples=2",
        "--model", "base_args={hidden_size: 16, num_layers: 1}", "num_frames=8", "bank_size=64", "min_crop_frames=8",
    ]  # fmt: skip
    gain.main(command)
    file = tmp_path / "runs" / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["seed"], row["arm"]) for row in rows] == [
        (-1, "raw"),
        *((seed, arm) for seed in (0, 1) for arm in ("warm-0", "warm-1", *command[19:22])),
    ]
    assert rows[4]["log"]["codebook/pair_precision"][0] == pytest.approx(0.6, abs=0.05)
    assert all(0 <= row["knn"] <= 100 for row in rows)
    before = file.read_text()
    gain.main(command)
    assert file.read_text() == before
    capsys.readouterr()
    report.main([str(file)])
    printed = capsys.readouterr().out
    expected = [rows[number]["knn"] - rows[number - 1]["knn"] for number in (4, 9)]
    assert f"{np.mean(expected):+.1f} [" in next(line for line in printed.splitlines() if "labels-0.6" in line)


def test_streams_share_their_clusters_and_are_judged_together(scripts, tmp_path, capsys):
    gain, report, *_ = scripts
    write_archive(tmp_path / "data" / "synthetic", num_samples=192, seed=0)
    common = [
        "--data", str(tmp_path / "data"), "--set", "synthetic", "--seeds", "0", "--warm-epochs", "1", "--epochs", "1",
        "--drop", "1", "--precision", "32-true", "--keep",
        "--model", "base_args={hidden_size: 16, num_layers: 1}", "num_frames=8", "bank_size=64", "min_crop_frames=8",
    ]  # fmt: skip
    runs = ["--runs", str(tmp_path / "runs")]
    command = [*common, *runs, "--streams", "joint", "bone", "--arms", "plain", "shared-4"]
    gain.main(command)
    file = tmp_path / "runs" / "rows.jsonl"
    rows = {(row["arm"], report.stream_of(row)): row for row in map(json.loads, file.read_text().splitlines())}
    both = "joint+bone"
    assert {arm for arm, stream in rows if stream == both} == {"raw", "warm-0", "warm-1", "plain", "shared-4"}
    labels = {}
    for stream in ("joint", "bone"):
        state = torch.load(tmp_path / "runs" / f"synthetic-shared-4-{stream}-0.ckpt", weights_only=True)["state_dict"]
        labels[stream] = state["codebook.assignment"]
    assert torch.equal(labels["joint"], labels["bone"])
    before = file.read_text()
    gain.main(command)
    assert file.read_text() == before
    # Alone, a stream ends where it ends beside the others
    gain.main([*common, "--runs", str(tmp_path / "alone"), "--arms", "plain"])
    alone = [json.loads(line) for line in (tmp_path / "alone" / "rows.jsonl").read_text().splitlines()]
    own = next(row for row in alone if row["arm"] == "plain")
    assert {**own, "seconds": 0} == {**rows["plain", "joint"], "seconds": 0}
    # Other settings have a warm-up of their own in the same folder
    gain.main([*common, "scale_input=true", *runs, "--arms"])
    warm = [row for row in map(json.loads, file.read_text().splitlines()) if row["arm"] == "warm-1" and "knn" in row]
    cosines = [row["mean_cosine"] for row in warm if report.stream_of(row) == "joint"]
    assert len(cosines) == 2
    assert cosines[0] != cosines[1]
    file.write_text(before)
    capsys.readouterr()
    report.main([str(file), "--out", str(tmp_path / "figures")])
    assert (tmp_path / "figures" / "gain-synthetic-streams-0.png").stat().st_size > 10_000
    drawn = report.streams_figure(list(rows.values())).axes[0]
    assert [label.get_text() for label in drawn.get_xticklabels()] == [
        "joint",
        "bone",
        "mean of streams",
        "joint\n+bone",
    ]
    printed = capsys.readouterr().out
    gains = [rows["shared-4", stream]["knn"] - rows["plain", stream]["knn"] for stream in ("joint", "bone")]
    mean = next(line for line in printed.splitlines() if "| mean of streams |" in line)
    assert mean.split(" | ")[-3] == f"{np.mean(gains):+.1f}"
    # Labels shared with other partners are another arm
    assert mean.startswith("| shared-4 of joint+bone |")
    three = rows["shared-4", "joint"] | {"settings": rows["shared-4", "joint"]["settings"] | {"together": STREAMS}}
    arms = report.by_arm([*rows.values(), three])
    assert {arm for arm, _, stream in arms if stream == "joint"} == {"plain", "shared-4 of joint+bone", "shared-4"}


def test_a_pool_is_trained_on_once_for_all_sets_it_is_judged_on(scripts, tmp_path):
    for seed, name in enumerate(("synthetic", "utd-mhad")):
        write_archive(tmp_path / name, num_samples=160, seed=seed)
    pool([str(tmp_path / "synthetic"), str(tmp_path / "utd-mhad")], out=str(tmp_path / "both"))
    runs = tmp_path / "runs"
    command = [
        "--data", str(tmp_path), "--pool", str(tmp_path / "both"), "--runs", str(runs), "--seeds", "0",
        "--warm-epochs", "1", "--precision", "32-true", "--arms", "--model", "num_frames=8",
        "base_args={hidden_size: 16, num_layers: 1}", "bank_size=64", "min_crop_frames=8", "scale_input=true", "--set",
    ]  # fmt: skip
    scripts[0].main([*command, "synthetic"])
    checkpoint = next(runs.glob("both-joint-warm-0-*/epoch-1.ckpt"))
    written = checkpoint.stat().st_mtime_ns
    scripts[0].main([*command, "utd-mhad"])
    assert list(runs.glob("*/epoch-1.ckpt")) == [checkpoint]
    assert checkpoint.stat().st_mtime_ns == written
    rows = [json.loads(line) for line in (runs / "rows.jsonl").read_text().splitlines()]
    judged = {row["set"]: row for row in rows if row["arm"] == "warm-1"}
    assert set(judged) == {"synthetic", "utd-mhad"}
    assert judged["synthetic"]["settings"] == judged["utd-mhad"]["settings"]
    assert judged["synthetic"]["settings"]["num_clusters"] == 48  # 1.5 times the classes of both


def test_nearest_neighbours_are_sought_in_all_streams_side_by_side(scripts):
    """One stream is a little nearer to the wrong class, the other, ten times as long, much nearer to the right one."""
    labels, query = torch.tensor([0, 1]), torch.tensor([[1.0, 0.0]])
    little = FeatureTables(torch.tensor([[0.9, 0.5], [0.9, 0.4]]), labels, query, torch.tensor([0]))
    much = FeatureTables(10 * torch.tensor([[1.0, 0.1], [0.1, 1.0]]), labels, 10 * query, torch.tensor([0]))
    nearest = scripts[4].nearest
    assert [nearest([little]), nearest([much]), nearest([little, much])] == [0, 100, 100]


def test_the_interval_is_student_s(scripts):
    mean, half = scripts[1].interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert half == pytest.approx(3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-5)
