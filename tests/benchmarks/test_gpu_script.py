"""benchmarks/gpu.py at tiny sizes on the CPU: every part runs, disagreement and failures are reported."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from prosl_lightning.prosl import cuda_graph

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


SCRIPTS = ("gpu", "gpu_common", "gpu_semantic", "gpu_steps", "gpu_training", "harness", "reference_step")


@pytest.fixture
def script(monkeypatch):
    """The module `benchmarks/gpu.py`, with its own folder importable as when it is run as a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("gpu")
    for name in SCRIPTS:
        sys.modules.pop(name, None)


class StandIn:
    """In place of a CUDA graph: runs the step again."""

    def __init__(self, device):
        pass

    def run(self, step):
        return step()

    def record(self, step, draw):
        return step


def _results(file: Path) -> dict[tuple[str, str], dict]:
    return {(row["part"], row["what"]): row for row in json.loads(file.read_text(encoding="utf-8"))["results"]}


@pytest.mark.slow
def test_all_parts_run_and_are_written_down(script, tmp_path, tiny_archive, capsys, monkeypatch):
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", StandIn)
    out = tmp_path / "results" / "gpu.json"
    arguments = ["--tiny", "--device", "cpu", "--out", str(out), "--data", str(tiny_archive), "--config", "nw-ucla"]
    assert script.main([*arguments, "--protocol", "x-sub"]) == 0
    rows = _results(out)
    assert {part for part, _ in rows} == set(script.PARTS)
    for stage in ("baseline", "stage 1", "stage 2"):
        checked = rows["agreement", f"{stage}, cpu float64"]
        assert 0 < checked["worst_error"] < 1e-5, "float32 and float64 are close, but not the same"
        assert 0 < checked["gradient_error"] < 1e-5
        for form in ("eager, float32, packed", "graph, float32, packed", "reference, float32"):
            assert rows["variants", f"{stage}, {form}"]["worst_difference"] < 1e-5
        assert 0 < rows["variants", f"{stage}, graph, bf16, packed"]["worst_difference"] < 0.05
        timed = rows["step", f"{stage}, graph, bf16, packed"]
        assert 0 < timed["views_alone"] < timed["milliseconds"]
        assert timed["samples_per_second"] == pytest.approx(8000 / timed["milliseconds"])
    together = rows["side_by_side", "4 models, stage 2, graph, bf16"]
    assert together["milliseconds_per_model"] == pytest.approx(together["milliseconds"] / 4)
    ran = rows["run", "graph, bf16-mixed"]
    seconds = 400 * ran["contrast_epoch_seconds"] + 50 * ran["semantic_epoch_seconds"]
    seconds += ran["first_codebook_seconds"] + 49 * ran["later_codebook_seconds"]
    assert ran["minutes_of_450_epochs"] == pytest.approx(seconds / 60)
    assert ran["note"] == "too few steps to rest on"
    assert rows["lightning", "stage 2, 32-true, TF32"]["samples_per_second"] > 0
    trained = rows["real", "tiny, nw-ucla"]
    assert trained["epochs"] == 2
    assert all(0 <= percent <= 100 for percent in trained["knn_percent"])
    assert 0 < trained["codebook/nmi"][0] <= 1
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["device"].startswith("CPU")
    assert {"torch", "prosl-lightning", "python"} <= set(content["versions"])
    assert "stage 2, graph, bf16" in capsys.readouterr().out, "the table names every row"


def test_a_difference_between_the_devices_is_an_error(script, tmp_path, monkeypatch):
    steps = sys.modules["gpu_steps"]
    exact = steps.one_step

    def inexact(module, views, index):
        found = exact(module, views, index)
        if views[0].dtype == torch.float32:
            found["semantic_query"] = found.get("semantic_query", 1) * 1.001
        return found

    monkeypatch.setattr(steps, "one_step", inexact)
    out = tmp_path / "gpu.json"
    assert script.main(["--tiny", "--device", "cpu", "--parts", "agreement", "--out", str(out)]) == 1
    rows = _results(out)
    assert "semantic_query" in rows["agreement", "stage 2"]["error"]
    assert "error" not in rows["agreement", "stage 1, cpu float64"]


def test_a_form_that_computes_something_else_is_an_error(script, tmp_path, monkeypatch):
    steps = sys.modules["gpu_steps"]

    class Wrong(StandIn):
        def record(self, step, draw):
            return lambda: {"loss": step()["loss"] * 1.001}

    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", Wrong)
    monkeypatch.setattr(steps, "STAGES", {"stage 1": steps.STAGES["stage 1"]})
    monkeypatch.setattr(
        steps, "VARIANTS", (steps.Variant("float32"), steps.Variant("float32", form="graph"), steps.Variant("bf16"))
    )
    out = tmp_path / "gpu.json"
    assert script.main(["--tiny", "--device", "cpu", "--parts", "variants", "--out", str(out)]) == 1
    rows = _results(out)
    assert rows["variants", "stage 1, graph, float32, packed"]["error"] == "losses are off by 1.0e-03"
    assert "error" not in rows["variants", "stage 1, eager, bf16, packed"]


def test_measured_and_targets_stand_side_by_side(script):
    rows = [
        {"part": "step", "what": "stage 2, graph, bf16, packed", "milliseconds": 6.0},
        {"part": "run", "what": "graph, bf16-mixed", "minutes_of_450_epochs": 24.0, "semantic_extras_minutes": 1.5},
        {"part": "run", "what": "eager, bf16-mixed", "minutes_of_450_epochs": 90.0},
        {"part": "evaluation", "what": "linear, 80 epochs", "skipped": "out of time"},
    ]
    found = {row["what"]: (row["measured"], row["at_most"], row["met"]) for row in script.targets(rows)}
    assert found == {
        "a step of the semantic stage, ms": (6.0, 8, "target"),
        "450 epochs of NTU-60, min": (24.0, 40, "goal"),
        "codebooks and importance of these, min": (1.5, 1, "missed"),
    }


def test_a_failing_part_does_not_stop_the_others(script, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(sys.modules["gpu_semantic"], "joint_importance", broken)
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
