"""`make bench` at tiny sizes: every part runs, the table is complete, and what computes otherwise is not timed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
# The table: what each part must show, and the targets.
EXPECTED = {
    "views": [("2 views", 5, 10), ("3 views", 5, 10)],
    "step": [("training step, float32", 1.05, 1.15), ("training step, bf16", 1.6, 1.8)],
    "logging": [("logging, 14 metrics, CSV every 50", 0.4, 0.2), ("logging, 14 metrics, CSV every 10", 0.4, 0.2)],
    "codebook": [("first codebook", 7, 15), ("later codebooks", 100, 150)],
    "importance": [("importance, NTU-60", 5, 10), ("importance, 12 of 24", 5, 10)],
    "share": [("semantic part of a run", 2, 0.5)],
    "memory": [("memory of a step", 1, 1), ("archive read by 3 processes", 1.05, 1.0005)],
}
ALSO = {"data": 3, "neighbours": 1, "linear": 2}


@pytest.fixture
def load(monkeypatch):
    """Imports a script of `benchmarks/` with its own folder importable, as when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture
def tiny(load, tmp_path):
    """Settings of a tiny run."""
    return load("bench_table").Settings(tiny=True, rounds=1, folder=tmp_path)


def _disagreement(load, part, settings):
    """What a part says that must refuse to time."""
    with pytest.raises(load("bench_table").Disagreement) as caught:
        part(settings)
    return str(caught.value)


SLOW = {"memory"}  # five processes of its own


@pytest.mark.parametrize(
    "part", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in [*EXPECTED, *ALSO]]
)
def test_a_part_fills_its_rows(load, tiny, part):
    bench = load("bench")
    rows = {**bench.PARTS, **{name: bench.other(name) for name in bench.OTHERS}}[part](tiny)
    assert all(row.value > 0 or row.unit != "x" for row in rows)
    assert not any(row.error for row in rows)
    if part in ALSO:
        assert len(rows) == ALSO[part]
        assert rows[0].at_least > 1
        return
    assert len(rows) == len(EXPECTED[part])
    for row, (what, at_least, goal) in zip(rows, EXPECTED[part], strict=True):
        assert row.what.startswith(what)
        assert (row.at_least, row.goal) == (at_least, goal)
        what, reference, ours, *_ = row.cells()
        assert what
        assert reference
        assert ours


def test_the_table_names_every_part_and_counts_errors(load, tmp_path, monkeypatch, capsys):
    bench = load("bench")
    assert set(bench.PARTS) == set(EXPECTED)
    row = load("bench_table").Row
    made = {name: lambda _, n=name: [row(n, "1 s", "0.5 s", 2.0, 1.5, 3.0)] for name in list(EXPECTED)[1:]}

    def broken(settings):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(bench, "PARTS", {"views": broken, **made})
    assert bench.main(["--results", str(tmp_path), "--parts", *EXPECTED]) == 1
    kept = json.loads(load("bench_table").newest(tmp_path).read_text(encoding="utf-8"))
    assert [one["part"] for one in kept["rows"]] == list(EXPECTED)
    assert kept["rows"][0]["error"] == "RuntimeError: no such kernel"
    assert kept["rows"][1]["met"] == "yes"
    assert {"torch", "scikit-learn", "python"} <= set(kept["versions"])
    assert kept["machine"]
    text = capsys.readouterr().out
    assert "not timed: RuntimeError" in text
    markdown = next(tmp_path.glob("*.md")).read_text(encoding="utf-8")
    assert "| step | 1 s | 0.5 s | 2x + | 1.5x | 3x |" in markdown


def test_targets_are_judged_in_their_direction(load):
    row = load("bench_table").Row
    assert [row("a", value=value, at_least=5, goal=10).met for value in (4.9, 5, 10)] == ["no", "yes", "goal"]
    less = [row("a", value=value, at_least=0.4, goal=0.2, better="less").met for value in (0.41, 0.4, 0.2)]
    assert less == ["no", "yes", "goal"]
    assert row("a", value=4.9, at_least=5, goal=10).cells()[3] == "4.9x MISSED"
    assert row("a", value=1.0).met == ""


def test_views_that_differ_are_not_timed(load, tiny, monkeypatch):
    views, bench_views = load("views"), load("bench_views")
    exact = views.reference_crop
    monkeypatch.setattr(views, "reference_crop", lambda clip, start, kept: exact(clip, start, kept) * 1.001)
    assert "the two sides differ" in _disagreement(load, bench_views.views, tiny)


@pytest.mark.parametrize("broken", ["losses", "gradient", "banks", "key_encoder"])
def test_a_step_that_differs_is_not_timed(load, tiny, monkeypatch, broken):
    from prosl_lightning import ProSLModule
    from prosl_lightning.prosl.memory_bank import MemoryBank

    exact, enqueue = ProSLModule.losses, MemoryBank.enqueue

    def changed(module, *arguments):
        metrics = exact(module, *arguments)
        if broken == "losses":
            metrics["instance"] = metrics["instance"] * 1.001
        elif broken == "gradient":
            metrics["loss"] = metrics["loss"] + 0.1 * metrics["instance"]
        elif broken == "key_encoder":
            next(module.key_encoder.parameters()).data.mul_(1.01)
        return metrics

    monkeypatch.setattr(ProSLModule, "losses", changed)
    if broken == "banks":
        monkeypatch.setattr(MemoryBank, "enqueue", lambda bank, rows, index: enqueue(bank, rows.flip(0), index))
    assert f"{broken} differ" in _disagreement(load, load("bench_step").step, tiny)


def test_a_metric_that_is_logged_wrongly_is_not_timed(load, tiny, monkeypatch):
    from prosl_lightning.prosl.training_log import TrainingLog

    exact = TrainingLog.add
    monkeypatch.setattr(
        TrainingLog, "add", lambda log, step, metrics, index: exact(log, step, metrics | {"kl": metrics["loss"]}, index)
    )
    assert "train/kl was logged as 1.0" in _disagreement(load, load("bench_logging").logging, tiny)


def test_metrics_that_are_not_logged_are_not_free(load, tiny, monkeypatch):
    from prosl_lightning.prosl.logged import LoggedModule

    monkeypatch.setattr(LoggedModule, "log_step", lambda *_: None)
    assert "0 steps" in _disagreement(load, load("bench_logging").logging, tiny)


def test_a_worse_codebook_is_not_timed(load, tiny, monkeypatch):
    bench = load("bench_codebook")
    exact = bench.kmeans

    def worse(*arguments, **options):
        found = exact(*arguments, **options)
        return found._replace(mean_cosine=found.mean_cosine - 0.01)

    monkeypatch.setattr(bench, "kmeans", worse)
    assert "below that of ten restarts" in _disagreement(load, bench.codebook, tiny)


def test_labels_that_do_not_stay_are_not_timed(load, tiny, monkeypatch):
    bench = load("bench_codebook")
    exact = bench.kmeans

    def renamed(features, clusters, *, seed, start):
        found = exact(features, clusters, seed=seed, start=start)
        return found if start is None else found._replace(assignment=(found.assignment + 1) % clusters)

    monkeypatch.setattr(bench, "kmeans", renamed)
    assert "of labels kept" in _disagreement(load, bench.codebook, tiny)


def test_importance_that_differs_is_not_timed(load, tiny, monkeypatch):
    bench = load("bench_importance")
    exact = bench.joint_importance
    monkeypatch.setattr(bench, "joint_importance", lambda embed, joints: exact(embed, joints).roll(1, dims=1))
    assert "coefficients differ" in _disagreement(load, bench.importance, tiny)


def test_a_subset_too_small_is_refused(load, tiny, monkeypatch):
    bench = load("bench_importance")
    monkeypatch.setattr(bench, "RANK_CORRELATION", 1.6)
    assert "rank correlation" in _disagreement(load, bench.importance, tiny)


def test_the_share_follows_its_formula(load, tiny, monkeypatch):
    bench = load("bench_share")
    seconds = {
        "step": 8.0, "features": 0.08, "losses": 0.3, "losses_without": 0.1, "first": 6.0, "later": 0.6,
        "importance": 0.001,
    }  # fmt: skip
    monkeypatch.setattr(bench, "interleaved", lambda sides, rounds: {name: [seconds[name]] for name in sides})
    monkeypatch.setattr(bench, "SEQUENCES", 600)
    monkeypatch.setattr(bench, "STEPS", 9)
    (row,) = bench.share(tiny)
    batches = 64 / 8  # tiny steps have 8 sequences
    semantic = 50 * 600 / 8 * 0.08 + 6 + 49 * 0.6 + 50 * 9 * 0.2 * batches
    assert row.value == pytest.approx(100 * semantic / (450 * 9 * 8 * batches + semantic))
    assert row.checks["codebooks"] == pytest.approx(row.value * (6 + 49 * 0.6) / semantic)


def test_readme_shows_the_newest_result(load):
    table = load("bench_table")
    results = list((BENCHMARKS / "results").glob("*-bench.json"))
    if not results:
        pytest.skip("no result is kept yet")
    begin, end = table.README_MARKERS
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split(begin)[1].split(end)[0]
    kept = json.loads(table.newest(BENCHMARKS / "results").read_text(encoding="utf-8"))
    assert shown.strip() == table.as_markdown(kept).strip()
    assert [row["part"] for row in kept["rows"] if not row["error"]]


def test_a_result_is_put_between_the_markers(load, tmp_path):
    table = load("bench_table")
    begin, end = table.README_MARKERS
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{begin}\nearlier table\n{end}\nafter\n", encoding="utf-8")
    found = [("views", table.Row("2 views", "1", "5", 5.0, 5, 10, note="told"))]
    table.put_into_readme(readme, table.write(table.content(found, 60.0, (1.0, 2.0), 5), tmp_path))
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{begin}\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "earlier" not in text
    assert "| 2 views | 1 | 5 | 5x + | 5x | 10x |" in text
    assert "* 2 views: told." in next(tmp_path.glob("*-bench.md")).read_text(encoding="utf-8")
    assert "load 1.0 and 2.0 before and after" in text
