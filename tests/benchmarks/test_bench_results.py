"""The result files of `make bench`, its options, and what its views, logging and threads must be like to be timed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def _disagreement(load, part, settings):
    """What a part says that must refuse to time."""
    with pytest.raises(load("bench_table").Disagreement) as caught:
        part(settings)
    return str(caught.value)


def test_readme_shows_the_newest_result(load):
    results = load("bench_results")
    if not list((BENCHMARKS / "results").glob("*-bench.json")):
        pytest.skip("no result is kept yet")
    begin, end = results.README_MARKERS
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split(begin)[1].split(end)[0]
    kept = json.loads(results.newest(BENCHMARKS / "results").read_text(encoding="utf-8"))
    assert shown.strip() == results.as_markdown(kept).strip()
    assert [row["part"] for row in kept["rows"] if not row["error"]]


def _kept(load, found, *, tiny=False, parts=("views",)):
    settings = load("bench_table").Settings(tiny=tiny, rounds=5)
    return load("bench_results").content(found, settings, parts, 60.0, (1.0, 2.0))


def test_a_result_is_put_between_the_markers(load, tmp_path):
    results, row = load("bench_results"), load("bench_table").Row
    begin, end = results.README_MARKERS
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{begin}\nearlier table\n{end}\nafter\n", encoding="utf-8")
    times = {"reference": [1.0], "ours": [1.0, 2.0, 3.0]}
    found = [("views", row("2 views", "1", "5", 5.0, 5, 10, note="calculated", seconds=times)), ("views", row("b"))]
    results.put_into_readme(readme, results.write(_kept(load, found), tmp_path), ["views"])
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{begin}\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "earlier" not in text
    assert "| 2 views (1) | 1 | 5 | 5x + | 5x | 10x |" in text
    assert "* (1) calculated; times repeated: reference 1, ours 3." in text
    assert "| b |" in text
    assert "load 1.0 and 2.0 before and after" in text


@pytest.mark.parametrize("lack", [{"tiny": True}, {"parts": ("step",)}])
def test_a_result_of_tiny_sizes_or_of_some_parts_does_not_go_into_the_readme(load, tmp_path, lack):
    from prosl_lightning.errors import UsageError

    results = load("bench_results")
    readme = tmp_path / "README.md"
    readme.write_text("untouched", encoding="utf-8")
    file = results.write(_kept(load, [("views", load("bench_table").Row("a"))], **lack), tmp_path)
    with pytest.raises(UsageError, match="only a full run"):
        results.put_into_readme(readme, file, ["views"])
    assert readme.read_text(encoding="utf-8") == "untouched"


def test_a_result_is_never_written_over(load, tmp_path):
    results = load("bench_results")
    kept = _kept(load, [("views", load("bench_table").Row("a"))])
    assert results.write(kept, tmp_path) != results.write(kept | {"rounds": 7}, tmp_path)
    assert sorted(json.loads(file.read_text())["rounds"] for file in tmp_path.glob("*.json")) == [5, 7]
    assert json.loads(results.newest(tmp_path).read_text())["rounds"] == 7
    assert {"tiny", "parts", "rounds", "time"} <= set(kept)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--rounds", "0"], "--rounds is 0"), (["--rounds", "-1"], "--rounds is -1"), (["--rounds", "2"], "3 or more"),
        (["--results", "FILE"], "--results names a file"),
        (["--readme", "--results", "EMPTY"], "no result of make bench"),
    ],
)  # fmt: skip
def test_wrong_options_are_told_before_the_work(load, tmp_path, monkeypatch, capsys, wrong, told):
    bench = load("bench")
    (tmp_path / "FILE").write_text("")
    (tmp_path / "EMPTY").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("it has begun to measure"))
    with pytest.raises(SystemExit) as caught:
        bench.main(wrong)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_one_thread_is_set_before_anything_is_imported():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import bench, bench_threads; print(bench_threads.in_use())"
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(BENCHMARKS)], env=environment, capture_output=True, text=True, check=True
    )
    found = ast.literal_eval(done.stdout)
    assert set(found.values()) == {1}
    assert {"torch", "openblas"} <= set(found)


def test_the_version_of_any_faiss_package_is_kept(load, monkeypatch):
    results = load("bench_results")
    one = type("Distribution", (), {"metadata": {"Name": "faiss-gpu-cu12"}})()
    monkeypatch.setattr(results, "distributions", lambda: [one])
    monkeypatch.setattr(results, "version", lambda name: "1.2.3")
    assert results.machine()["versions"]["faiss-gpu-cu12"] == "1.2.3"


@pytest.mark.parametrize("missing", ["flipped", "noisy", "blurred", "axis_dropped"])
def test_views_without_a_part_of_the_set_are_not_timed(load, tiny, monkeypatch, missing):
    from prosl_lightning.views import SemanticView

    bench, exact = load("bench_views"), SemanticView.draw

    def without(view, *arguments):
        draw = exact(view, *arguments)
        nothing = {
            "flipped": {"flipped": draw.flipped & False}, "noisy": {"noise_std": 0 * draw.noise_std},
            "blurred": {"sigma": 0 * draw.sigma}, "axis_dropped": {"axes": 0 * draw.axes + 1},
        }  # fmt: skip
        return draw._replace(**nothing[missing])

    monkeypatch.setattr(SemanticView, "draw", without)
    assert f"views drawn: {missing} 0.00" in _disagreement(load, bench.views, tiny)


def test_the_excluded_share_is_the_mean_over_all_pairs():
    from prosl_lightning.prosl.codebook import SemanticCodebook
    from prosl_lightning.prosl.objective import excluded_share

    draw, codebook = torch.Generator().manual_seed(0), SemanticCodebook()
    codebook.update(torch.randn(15, 8, generator=draw), torch.randint(15, (1020,), generator=draw))
    index, memory = torch.randint(1020, (13,), generator=draw), torch.randint(-1, 1020, (512,), generator=draw)
    memory[:100] = -1
    share = excluded_share(codebook, index, memory)
    assert torch.equal(share, codebook.excluded(index, memory).float().mean())
    assert share > 0


def test_watched_metrics_that_are_wrong_are_not_timed(load, tiny, monkeypatch):
    bench = load("bench_logging")
    monkeypatch.setattr(bench, "excluded_share", lambda *_: torch.tensor(0.5))
    monkeypatch.setattr(bench, "check", lambda *_: None)
    monkeypatch.setattr(bench, "seconds_of_step", lambda *_: (1.0, []))
    assert "excluded share differs" in _disagreement(load, bench.logging, tiny)
