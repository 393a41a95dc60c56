"""`benchmarks/fuzz.py`: a short run of every format, and that it finds what it is there to find."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watches memory through /proc")


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("fuzz")
    for name in ("fuzz", "fuzz_bases", "mutations"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("format", ["ntu", "pku", "arrays"])
def test_damage_gives_our_own_errors_only(fuzz, tmp_path, format):
    outcomes = fuzz.run(format, 150, seed=1, findings=tmp_path / "findings")
    assert not (tmp_path / "findings").exists(), outcomes
    assert sum(outcomes.values()) == 150
    assert sum(times for outcome, times in outcomes.items() if "refused" in outcome or "partly" in outcome) > 30
    assert outcomes["read"] > 0, "some damage does not matter"


def _allocate(path, layout):
    return "read" if b"x" * 150_000_000 else ""


PLANTED = {
    "IndexError": lambda path, layout: [][1],
    "Executed": lambda path, layout: f"{os.system('true')}",
    "Executed: open": lambda path, layout: path.parent.joinpath("written").write_text("x"),
    "Executed: compile": lambda path, layout: exec("pass"),
    "MemoryError": _allocate,
    "hangs": lambda path, layout: time.sleep(30),
    "the process died": lambda path, layout: os._exit(1),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_must_not_happen_is_found_and_kept(fuzz, tmp_path, monkeypatch, what):
    whole = fuzz.read
    monkeypatch.setattr(
        fuzz, "read", lambda path, layout: (PLANTED[what] if "case-2" in str(path) else whole)(path, layout)
    )
    if what == "hangs":
        monkeypatch.setattr(fuzz, "SECONDS", 1.0)  # a busy machine may take as long for what does not hang
    monkeypatch.setattr(fuzz, "MEGABYTES", 100)
    outcomes = fuzz.run("ntu", 4, seed=1, findings=tmp_path)
    found = [outcome for outcome in outcomes if outcome.startswith("FINDING")]
    assert len(found) == 1
    assert what in found[0]
    assert sum(outcomes.values()) == 4, "the cases after it are read all the same"
    kept = tmp_path / "ntu" / "1-2"
    assert what.split(":")[0] in (kept / "traceback").read_text()
    assert any(path.suffix in (".skeleton", ".zip") for path in kept.iterdir())


def test_a_case_follows_from_seed_and_number(fuzz, tmp_path):
    bases = fuzz.MAKERS["ntu"](tmp_path / "whole")

    def content(seed: int, number: int) -> list[bytes]:
        with fuzz.damaged(bases[0], seed, number, tmp_path) as (folder, _):
            return [path.read_bytes() for path in sorted(folder.iterdir())]

    assert content(1, 7) == content(1, 7) != content(2, 7)
