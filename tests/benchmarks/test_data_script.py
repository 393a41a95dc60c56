"""benchmarks/data.py at tiny sizes: both sides agree, every part runs, a difference stops the timing."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("data")
    for name in ("data", "harness", "reference_ntu"):
        sys.modules.pop(name, None)


def _run(script, tmp_path, *arguments: str) -> tuple[int, dict[tuple[str, str], dict]]:
    sizes = ["--files", "2", "--copies", "3", "--sequences", "130", "--open-sequences", "300", "--rounds", "1"]
    out = tmp_path / "data.json"
    errors = script.main([*sizes, "--scratch", str(tmp_path), "--out", str(out), *arguments])
    return errors, {(row["part"], row["what"]): row for row in json.loads(out.read_text())["results"]}


def test_all_parts_run_and_are_written_down(script, tmp_path, capsys):
    errors, rows = _run(script, tmp_path)
    assert errors == 0
    text = rows["text", "generated files"]
    assert text["agreement_m"] < 1e-5
    assert text["measured"] > 5, "public code's way is slower by far more"
    assert text["measured"] < text["limit"]
    assert 3 < rows["batches", "size of padded array / archive"]["measured"] < 9
    assert rows["batches", "64 of 130 sequences against padded, item by item"]["measured"] > 0
    assert 0 < rows["open", "300 sequences, milliseconds"]["measured"] < 1000
    assert rows["processes", "6 files, 2 processes against 1"]["measured"] > 0
    assert "target 30, goal 100" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"], "scratch files are removed"


def test_sides_that_differ_are_not_timed(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "normalize_bodies", lambda bodies, *_: bodies.transpose(0, 2, 1, 3) * 1.001)
    errors, rows = _run(script, tmp_path, "--parts", "text")
    assert errors == 1
    assert "differ by" in rows["text", "failed"]["error"]
