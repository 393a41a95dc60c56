"""benchmarks/gpu.py at tiny sizes on the CPU: every part runs, disagreement and failures are reported."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The module `benchmarks/gpu.py`, with its own folder importable as when it is run as a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("gpu")
    for name in ("gpu", "harness"):
        sys.modules.pop(name, None)


def _results(file: Path) -> dict[tuple[str, str], dict]:
    return {(row["part"], row["what"]): row for row in json.loads(file.read_text(encoding="utf-8"))["results"]}


def test_all_parts_run_and_are_written_down(script, tmp_path, tiny_archive, capsys):
    out = tmp_path / "results" / "gpu.json"
    arguments = ["--tiny", "--device", "cpu", "--out", str(out), "--data", str(tiny_archive), "--config", "nw-ucla"]
    assert script.main([*arguments, "--protocol", "x-sub"]) == 0
    rows = _results(out)
    assert {part for part, _ in rows} == set(script.PARTS)
    for stage in script.STAGES:
        checked = rows["agreement", f"{stage}, cpu float64"]
        assert 0 < checked["worst_error"] < 1e-5, "float32 and float64 are close, but not the same"
        assert 0 < checked["gradient_error"] < 1e-5
        timed = rows["step", f"{stage}, float32"]
        assert 0 < timed["of_these_views"] < timed["milliseconds"]
        assert timed["samples_per_second"] == pytest.approx(8000 / timed["milliseconds"])
    assert rows["lightning", "stage 2, 32-true, TF32"]["samples_per_second"] > 0
    trained = rows["real", "tiny, nw-ucla"]
    assert trained["epochs"] == 2
    assert all(0 <= percent <= 100 for percent in trained["knn_percent"])
    assert 0 < trained["codebook/nmi"][0] <= 1
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["device"].startswith("CPU")
    assert {"torch", "prosl-lightning", "python"} <= set(content["versions"])
    assert "stage 2, bf16" in capsys.readouterr().out, "the table names every row"


def test_a_difference_between_the_devices_is_an_error(script, tmp_path, monkeypatch):
    exact = script.one_step

    def inexact(module, views, index):
        found = exact(module, views, index)
        if views[0].dtype == script.torch.float32:
            found["semantic_query"] = found.get("semantic_query", 1) * 1.001
        return found

    monkeypatch.setattr(script, "one_step", inexact)
    out = tmp_path / "gpu.json"
    assert script.main(["--tiny", "--device", "cpu", "--parts", "agreement", "--out", str(out)]) == 1
    rows = _results(out)
    assert "semantic_query" in rows["agreement", "stage 2"]["error"]
    assert "error" not in rows["agreement", "stage 1, cpu float64"]


def test_a_failing_part_does_not_stop_the_others(script, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(script, "joint_importance", broken)
    out = tmp_path / "gpu.json"
    assert script.main(["--tiny", "--device", "cpu", "--parts", "codebook", "importance", "--out", str(out)]) == 1
    rows = _results(out)
    assert rows["importance", "failed"]["error"] == "RuntimeError: no such kernel"
    assert rows["codebook", "500 x 128, k = 5, torch"]["first_seconds"] > 0
    assert "no such kernel" in capsys.readouterr().err


def test_when_the_time_is_up_nothing_new_begins(script, tmp_path):
    out = tmp_path / "gpu.json"
    assert script.main(["--tiny", "--device", "cpu", "--minutes", "0", "--out", str(out)]) == 0
    assert all(row["skipped"] == "out of time" for row in _results(out).values())
