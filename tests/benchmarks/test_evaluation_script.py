"""benchmarks/evaluation.py at tiny sizes: both parts run, and a wrong prediction is an error."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The module `benchmarks/evaluation.py`, with its own folder importable as when it is run as a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("evaluation")
    for name in ("evaluation", "harness"):
        sys.modules.pop(name, None)


def _rows(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf-8"))["results"]


def test_both_parts_run_and_agree_with_their_references(script, tmp_path, capsys):
    out = tmp_path / "evaluation.json"
    assert script.main(["--tiny", "--out", str(out)]) == 0
    nearest, precision, live, coarse = _rows(out)
    assert nearest["same_predictions_percent"] == 100
    assert nearest["ratio"] == pytest.approx(nearest["scikit_learn_seconds_scaled"] / nearest["seconds"])
    assert 100 / 60 < precision["percent"] < 100
    assert live["weights_differ_by"] < 1e-5
    assert live["ratio"] == pytest.approx(
        live["seconds_live_scaled"] / (live["seconds_once"] + live["seconds_of_training"])
    )
    assert 0 < coarse["features_differ_by"] < 0.02
    assert "goal 5" in capsys.readouterr().out


def test_another_prediction_than_scikit_learns_is_an_error(script, tmp_path, monkeypatch):
    exact = script.search

    def wrong(*arguments):
        found = exact(*arguments)
        return found._replace(index=found.index.roll(1, dims=0))

    monkeypatch.setattr(script, "search", wrong)
    out = tmp_path / "evaluation.json"
    assert script.main(["--tiny", "--out", str(out)]) == 1
    assert "differ from scikit-learn's" in next(row["error"] for row in _rows(out) if "error" in row)
