"""Training curves: what a log says, how logs are joined, and what is marked."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from prosl_lightning.errors import DataError
from prosl_lightning.figures.curves import Curves, curves_figure, find_logs, read_curves

STEPS = 4  # an epoch


def _log(folder, epochs, *, semantic=10, drop=8, offset=0.0):
    """A log as Lightning writes it: rows of steps without epoch, rows of epochs with what was logged in them."""
    rows = []
    for epoch in epochs:
        step = epoch * STEPS + 1
        rows.append({"step": step, "train/loss": 9.0, "train/learning_rate": 0.01 if epoch < drop else 0.001})
        row = {"step": (epoch + 1) * STEPS - 1, "epoch": epoch, "epoch/loss": 9 - epoch / 10 + offset, "stage": 1.0}
        row |= {"epoch/contrast": 8 - epoch / 10, "epoch/instance": 1 + epoch, "epoch/samples_per_second": 50}
        row |= {"epoch/mean_cosine": 0.5, "epoch/kl": 0.1}
        if epoch >= semantic:
            row |= {"stage": 2.0, "codebook/nmi": 0.5, "codebook/size_max": 40, "epoch/confident_share_query": 0.25}
            row |= {"codebook/mean_cosine": 0.2} | ({"codebook/churn": 0.1} if epoch > semantic else {})
        if epoch % 2:
            row |= {"online/knn": 40.0 + epoch, "online/linear": 50.0}
        rows.append(row)
    names = sorted({name for row in rows for name in row})
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _x(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_values_stand_at_the_epochs_after_which_they_were_known(tmp_path, legible):
    _log(tmp_path / "logs" / "version_0", range(14))
    curves = read_curves(tmp_path)
    epochs, values = curves.metrics["epoch/loss"]
    assert epochs.tolist() == list(range(1, 15))
    np.testing.assert_allclose(values, 9 - np.arange(14) / 10)
    assert curves.metrics["codebook/nmi"][0].tolist() == [10, 11, 12, 13]  # built before the epoch that it steers
    assert (curves.semantic_from, curves.rate_drops, curves.joined) == (10, {8: 0.001}, [])
    figure = curves_figure(curves, "runs/mine", "a note")
    titled = {axes.get_title(loc="left"): axes for axes in figure.axes[1:]}
    assert list(titled) == [
        "Total loss", "Contrast terms", "Semantic and KL terms", "Samples and negatives", "Accuracy during training",
        "Codebook", "Cluster sizes", "Mean cosine between features (near 1: collapse)",
    ]  # fmt: skip
    assert _x(titled["Contrast terms"], "instance") == (list(range(1, 15)), list(range(1, 15)))
    assert _x(titled["Samples and negatives"], "confident, query branch") == ([11, 12, 13, 14], [25] * 4)
    assert _x(titled["Codebook"], "churn")[1] == [10] * 3
    assert _x(titled["Accuracy during training"], "1-NN") == ([2, 4, 6, 8, 10, 12, 14], [41, 43, 45, 47, 49, 51, 53])
    assert [line.get_label() for line in titled["Total loss"].lines[:2]] == ["total", "sum of contrast terms"]
    for axes in titled.values():
        span = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert (span.x0, span.x1) == pytest.approx((10, 14))
        assert [line.get_xdata() for line in axes.lines if line.get_color() == "0.35"] == [[8, 8]]
        assert axes.get_xlim() == (0, 14)
    texts = legible(figure)
    assert {"semantic stage, from epoch 10", "learning rate to 0.001", "runs/mine", "a note", "epochs trained"} <= set(
        texts
    )


def test_the_axis_begins_where_the_log_does(tmp_path, legible):
    _log(tmp_path / "logs" / "version_0", range(80, 100), semantic=80, drop=90)
    curves = read_curves(tmp_path)
    figure = curves_figure(curves)
    assert {axes.get_xlim() for axes in figure.axes} == {(80, 100)}
    assert curves.metrics["codebook/nmi"][0][0] == 80
    assert "semantic stage, from epoch 80" in legible(figure)


def test_marks_and_lines_that_coincide_are_all_seen(tmp_path, legible):
    logs = tmp_path / "logs"
    _log(logs / "version_0", range(9), semantic=4)
    _log(logs / "version_1", range(8, 14), semantic=4)  # resumed where the learning rate drops
    figure = curves_figure(read_curves(tmp_path))
    for axes in figure.axes[1:]:
        resumed, drop = (next(line for line in axes.lines if line.get_color() == c) for c in ("#E69F00", "0.35"))
        assert resumed.get_xdata() == drop.get_xdata() == [8, 8]
        assert resumed.get_linewidth() > 3 * drop.get_linewidth()
        assert resumed.get_zorder() < drop.get_zorder()
        curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
        assert len({(line._dash_pattern[1] and tuple(line._dash_pattern[1])) for line in curves}) == len(curves)
        assert len({line.get_marker() for line in curves}) == len(curves)
    assert {"learning rate to 0.001", "run resumed"} < set(legible(figure))


def test_resumed_runs_are_joined_and_fresh_ones_replace(tmp_path):
    logs = tmp_path / "logs"
    _log(logs / "version_0", range(3), offset=100)  # replaced by the fresh run after it
    _log(logs / "version_1", range(6))
    _log(logs / "version_2", range(4, 8), offset=1)  # went on from epoch 4
    _log(logs / "version_10", range(7, 12), offset=2)
    curves = read_curves(tmp_path)
    assert [file.parent.name for file in curves.files] == ["version_1", "version_2", "version_10"]
    assert curves.joined == [4, 7]
    epochs, values = curves.metrics["epoch/loss"]
    assert epochs.tolist() == list(range(1, 13))
    expected = 9 - np.arange(12) / 10 + np.repeat([0, 1, 2], [4, 3, 5])
    np.testing.assert_allclose(values, expected)
    assert curves.rate_drops == {8: 0.001}
    again = read_curves(logs / "version_2" / "metrics.csv")
    assert again.metrics["epoch/loss"][0].tolist() == [5, 6, 7, 8]
    assert [path.parent.name for path in find_logs(logs)] == ["version_0", "version_1", "version_2", "version_10"]


def test_a_run_of_another_base_without_semantic_stage_has_no_empty_panel(legible):
    epochs = np.arange(1, 451)
    curves = Curves({"epoch/loss": (epochs, 1 / epochs), "epoch/infonce": (epochs, 2 / epochs)})
    figure = curves_figure(curves)
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == ["Total loss", "Contrast terms"]
    assert {"total", "infonce"} < set(legible(figure))
    assert figure.axes[1].lines[0].get_marker() == "None"  # 450 dots would hide the line


def test_what_is_no_log_is_named(tmp_path):
    with pytest.raises(DataError, match=r"does not exist; a run's folder holds a CSV log"):
        read_curves(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no CSV log \(logs/version_N/metrics.csv\), which `prosl fit` writes"):
        read_curves(tmp_path)
    bad = tmp_path / "metrics.csv"
    bad.write_text("epoch,step,epoch/loss\nthree,1,2\n")
    with pytest.raises(DataError, match=r"metrics\.csv: not a log of `prosl fit`"):
        read_curves(tmp_path)
    bad.write_text("step,train/loss\n9,2\n")
    with pytest.raises(DataError, match="no epoch was finished"):
        read_curves(tmp_path)
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a log"):
        read_curves(bad)
