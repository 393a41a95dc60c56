"""`prosl knn` on the command line, and the online evaluation in a configuration of `prosl fit`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

ONLINE = """
trainer:
  callbacks:
    - class_path: prosl_lightning.evaluation.online.OnlineEvaluation
      init_args: {every_n_epochs: 2, held_out: 0.3}
"""


def test_one_and_several_checkpoints_are_judged(prosl, fit, tiny_archive, tmp_path):
    for stream in ("joint", "bone"):
        assert fit("--data.stream", stream, "--trainer.default_root_dir", stream, "--trainer.max_epochs", 1).code == 0
    files = [f"{stream}/checkpoints/last.ckpt" for stream in ("joint", "bone")]
    both = ("--ckpt", f"[{', '.join(files)}]", "--weights", "[2, 1]")
    found = prosl("knn", *both, "--data.root", tiny_archive, "--k", 3)
    assert found.code == 0, found.err
    rows = [json.loads((tmp_path / s / "checkpoints" / "results.json").read_text()) for s in ("joint", "bone")]
    assert [len(each) for each in rows] == [2, 1], "each alone, and the fused row beside the first"
    fused = rows[0][1]
    expected = {"fusion": "sum of cosines", "weights": [2, 1], "k": 3, "stream": "joint+bone"}
    assert {name: fused["protocol"][name] for name in expected} == expected
    assert [row["numbers"].keys() for row in (*rows[0], *rows[1])] == [{"top-1", "mAP", "R@1", "R@5", "R@10"}] * 3
    assert f"{fused['numbers']['mAP']:.2f}" in found.out

    found = prosl("knn", "--ckpt", files[0], "--data.root", tiny_archive, "--clusters", "classes")
    row = json.loads((tmp_path / files[0]).with_name("results.json").read_text())[-1]
    assert (found.code, row["protocol"]["clusters"], row["seeds"]) == (0, 3, [0])
    assert row["protocol"]["clustering"]["algorithm"] == "spherical k-means"
    assert (row["protocol"]["metric"], row["protocol"]["vote"]) == ("cosine", "majority, then the lowest label")
    assert row["protocol"]["ties"] == "the lowest index among cosines within 1e-06 of the largest"
    assert 100 / 3 <= row["numbers"]["clustering accuracy"] <= 100
    found = prosl("knn", "--ckpt", files[0], "--data.root", tiny_archive, "--clusters", 13)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "clusters is 13; 12 sequences make 1 to 12 clusters" in found.err
    found = prosl("knn", "--ckpt", files[0], "--data.root", tiny_archive, "--weights", "[1, 2]")
    assert found.code == 2
    assert "for 1 checkpoints" in found.err


def test_online_figures_are_logged_from_a_configuration(fit):
    Path("online.yaml").write_text(ONLINE)
    assert fit("--config", "online.yaml", "--trainer.max_epochs", 4).code == 0
    (log,) = Path("run/logs").glob("*/metrics.csv")
    with log.open() as stream:
        rows = list(csv.DictReader(stream))
    logged = {int(row["epoch"]): float(row["online/knn"]) for row in rows if row["online/knn"]}
    assert sorted(logged) == [1, 3]
    assert all(value == pytest.approx(100 * round(value * 11 / 100) / 11) for value in logged.values()), "11 of 36 ask"
    assert sum(bool(row["online/linear"]) for row in rows) == 2
