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
    for packed in (True, False):
        assert rows["agreement", f"recurrent layers, {packed=}"]["precision"] == "torch.bfloat16"
    for stage in ("baseline", "stage 1", "stage 2"):
        checked = rows["agreement", f"{stage}, cpu float64"]
        assert 0 < checked["worst_error"] < 1e-5, "float32 and float64 are close, but not the same"
        assert 0 < checked["gradient_error"] < 1e-5
        for form in ("eager, float32, packed", "graph, float32, packed", "reference, float32"):
            assert rows["variants", f"{stage}, {form}"]["worst_difference"] < 1e-5
        assert 0 < rows["variants", f"{stage}, graph, bf16, packed"]["worst_difference"] < 0.05
        assert rows["variants", f"{stage}, graph, bf16, packed"]["recurrent"] == "bfloat16"
        assert rows["variants", f"{stage}, reference, float32"]["recurrent"] == "float32"
        timed = rows["step", f"{stage}, graph, bf16, packed"]
        assert 0 < timed["views_alone"] < timed["milliseconds"]
        assert timed["samples_per_second"] == pytest.approx(8000 / timed["milliseconds"])
    for form in ("eager, float32, packed", "graph, bf16, packed"):
        assert rows["variants", f"stage 2, {form}"]["confident_share"] == 1, "the semantic loss has all samples"
    together = rows["side_by_side", "4 models, stage 2, graph, bf16"]
    assert together["worst_difference"] == 0
    assert together["milliseconds_per_model"] == pytest.approx(together["milliseconds"] / 4)
    ran = rows["run", "graph, bf16-mixed"]
    seconds = 400 * ran["contrast_epoch_seconds"] + 50 * ran["semantic_epoch_seconds"]
    seconds += ran["first_codebook_seconds"] + 49 * ran["later_codebook_seconds"]
    assert ran["checkpoint_seconds"] > 0
    assert ran["of_these_checkpoints_minutes"] == pytest.approx(450 * ran["checkpoint_seconds"] / 60)
    assert ran["minutes_of_450_epochs"] == pytest.approx(seconds / 60 + ran["of_these_checkpoints_minutes"])
    assert ran["timed_steps_of_each_stage"] == 3 * 5
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


class _Disturbing(StandIn):
    """As if models overwrote each other's random numbers: the second that is recorded computes something else."""

    count = 0

    def record(self, step, draw):
        type(self).count += 1
        factor = 1.01 if self.count == 3 else 1
        return lambda: {"loss": step()["loss"] * factor}


def test_models_that_disturb_each_other_are_an_error(script, tmp_path, monkeypatch):
    monkeypatch.setitem(cuda_graph.RECORDERS, "cpu", _Disturbing)
    monkeypatch.setattr(_Disturbing, "count", 0)
    out = tmp_path / "gpu.json"
    assert script.main(["--tiny", "--device", "cpu", "--parts", "side_by_side", "--out", str(out)]) == 1
    rows = _results(out)
    assert rows["side_by_side", "2 models, stage 2, graph, bf16"]["error"].startswith("losses are off by 1.0e-02")
    assert rows["side_by_side", "4 models, stage 2, graph, bf16"]["worst_difference"] == 0


def test_recurrent_layers_of_another_type_are_an_error(script, tmp_path, monkeypatch):
    monkeypatch.setattr("prosl_lightning.encoders.recurrent._WITHOUT_AUTOCAST", {"cpu"})
    monkeypatch.setattr(sys.modules["gpu_steps"], "STAGES", {"baseline": {"semantic": False}})
    out = tmp_path / "gpu.json"
    assert script.main(["--tiny", "--device", "cpu", "--parts", "agreement", "--out", str(out)]) == 2
    wrong = _results(out)["agreement", "recurrent layers, packed=True"]["error"]
    assert wrong == "under autocast they are in torch.float32, not torch.bfloat16"


WRONG = {
    "--data": (["--parts", "real"], "--parts real trains on an archive: name it with --data"),
    "archive": (["--data", "{folder}"], "is no archive"),
    "no config": (["--config", "ntu-6"], "there is no configuration ntu-6"),
    "other file": (["--config", "{folder}/other.yaml"], "it has not the sections trainer, model and data"),
    "--out": (["--out", "{folder}/other.yaml/gpu.json"], "cannot write --out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_end_before_any_work(script, tmp_path, capsys, case):
    (tmp_path / "other.yaml").write_text("a list: [1, 2]\n", encoding="utf-8")
    given, told = WRONG[case]
    with pytest.raises(SystemExit) as ended:
        script.main(["--tiny", "--device", "cpu", *(one.format(folder=tmp_path) for one in given)])
    assert ended.value.code == 2
    seen = capsys.readouterr()
    assert told in seen.err.splitlines()[-1]
    assert not seen.out


CHECKED = [
    {"part": "agreement", "what": "stage 1, cpu float32", "worst_error": 1e-6},
    {"part": "variants", "what": "stage 1, graph, bf16, packed", "worst_difference": 1e-3},
    {"part": "variants", "what": "stage 2, graph, bf16, packed", "worst_difference": 1e-3},
]


@pytest.mark.parametrize(
    ("more", "step", "run", "importance"),
    [
        ([], "target, unchecked", "goal, unchecked", "target, unchecked"),
        (CHECKED, "target", "goal", "target"),
        (CHECKED[:2], "target, unchecked", "goal, unchecked", "target"),
        ([*CHECKED, CHECKED[1] | {"error": "losses are off"}], "target", "failed its check", "target"),
        ([*CHECKED, CHECKED[2] | {"error": "losses are off"}], "failed its check", "failed its check", "target"),
        ([*CHECKED, {"part": "agreement", "what": "failed", "error": "no kernel"}], *["failed its check"] * 3),
        ([*CHECKED, {"part": "variants", "what": "failed", "error": "no kernel"}], *["failed its check"] * 2, "target"),
        ([*CHECKED[:2], CHECKED[2] | {"skipped": "out of time"}], "target, unchecked", "goal, unchecked", "target"),
    ],
)
def test_what_failed_its_check_meets_no_target(script, more, step, run, importance):
    rows = [
        {"part": "step", "what": "stage 2, graph, bf16, packed", "milliseconds": 6.0},
        {"part": "run", "what": "graph, bf16-mixed", "minutes_of_450_epochs": 24.0},
        {"part": "importance", "what": "bf16", "seconds_for_1024_sequences": 0.01},
        {"part": "importance", "what": "tf32", "seconds_for_1024_sequences": 0.2},
    ]
    assert [row["met"] for row in script.targets(rows + more)] == [step, run, importance]
    assert script.targets(rows + more)[2]["measured"] == 0.2, "the codebook is built without autocast"


def test_measured_and_targets_stand_side_by_side(script):
    rows = [
        *CHECKED,
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
