"""`make bench` at tiny sizes: every part runs, the table is complete, and what computes otherwise is not timed."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

# The table: what each part must show, and the targets.
EXPECTED = {
    "views": [("2 views", 5, 10), ("3 views", 5, 10)],
    "step": [("training step, float32", 1.05, 1.15), ("training step, bf16", 1.6, 1.8)],
    "logging": [("logging, 14 metrics, CSV every 50", 0.4, 0.2), ("logging, 14 metrics, CSV every 10", 0.4, 0.2)],
    "codebook": [
        row
        for backend in ("torch", "FAISS")[: 2 if find_spec("faiss") else 1]
        for row in ((f"first codebook, {backend}", 7, 15), (f"later codebooks, {backend}", 100, 150))
    ],
    "importance": [("importance, NTU-60", 5, 10), ("importance, 12 of 24", 5, 10)],
    "share": [("semantic part of a run", 2, 0.5)],
    "memory": [("memory of a step", 1, 1), ("archive read by 3 processes", 1.05, 1.0005)],
}
ALSO = {"data": 3, "neighbours": 1, "linear": 2}


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
    kept = json.loads(load("bench_results").newest(tmp_path).read_text(encoding="utf-8"))
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


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("worse", "below that of ten restarts"),
        ("lying", "returned, "),
        ("labels", "600 labels do not name the nearest of the returned centroids"),
        ("renamed", "% of labels kept on slowly drifting features"),
        ("not updated", "beyond that of the centroids of before"),
        ("fewer", "(7, 128) centroids and 600 labels came back"),
    ],
)
def test_a_worse_codebook_is_not_timed(load, tiny, monkeypatch, fault, message):
    bench = load("bench_codebook")
    exact = bench.kmeans

    def of(features, centroids):
        cosine, assignment = (features @ centroids.T).max(dim=1)
        return bench.Clustering(centroids, assignment, float(cosine.mean()))

    def broken(features, clusters, *, start, **options):
        found = exact(features, clusters, start=start, **options)
        if fault == "lying":
            return found._replace(mean_cosine=found.mean_cosine + 0.01)
        if fault == "labels":
            return found._replace(assignment=(found.assignment + 1) % clusters)
        if fault == "renamed" and start is not None:
            return of(features, found.centroids.roll(1, dims=0))
        if fault == "not updated" and start is not None:
            return of(features, start)
        wrong = {"worse": features[:clusters], "fewer": found.centroids[:-1]}
        return of(features, wrong.get(fault, found.centroids))

    monkeypatch.setattr(bench, "kmeans", broken)
    if fault == "not updated":  # so few features drift further than the benchmark's
        monkeypatch.setattr(bench, "QUALITY", 1.0)
    assert message in _disagreement(load, bench.codebook, tiny)


def test_each_codebook_is_of_the_backend_that_its_row_names(load, tiny, monkeypatch):
    bench = load("bench_codebook")
    exact, used = bench.kmeans, []

    def watched(*arguments, backend, **options):
        used.append(backend)
        return exact(*arguments, backend="torch", **options)

    monkeypatch.setattr(bench, "kmeans", watched)
    for installed, expected in ((False, ["torch"]), (True, ["torch", "faiss"])):
        used.clear()
        monkeypatch.setattr(bench, "faiss_available", lambda found=installed: found)
        rows = bench.codebook(tiny)
        assert [row.what.split(", ")[1] for row in rows[::2]] == [bench.TITLES[name] for name in expected]
        assert set(used) == set(expected)


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
