"""Measures of a classifier against hand-made cases and scikit-learn, their files and picture, and late fusion."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import confusion_matrix, recall_score, top_k_accuracy_score

from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.fusion import fuse
from prosl_lightning.evaluation.metrics import classification_report, write_tables
from prosl_lightning.figures.confusion import confusion_figure

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def judged():
    """200 sequences of seven classes, none of them of the last."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (200,), generator=draw)
    logits = torch.randn(200, 7, generator=draw) + 2 * torch.nn.functional.one_hot(labels, 7)
    return logits, labels


def test_measures_are_those_of_scikit_learn(judged):
    logits, labels = judged
    report = classification_report(logits, labels, [str(i) for i in range(7)])
    predicted = logits.argmax(dim=1)
    np.testing.assert_array_equal(report.confusion, confusion_matrix(labels, predicted, labels=range(7)))
    assert report.numbers == pytest.approx({
        "top-1": 100 * float((predicted == labels).double().mean()),
        "top-5": 100 * top_k_accuracy_score(labels, logits, k=5, labels=range(7)),
        "mean of classes": 100 * recall_score(labels, predicted, labels=range(6), average="macro"),
        "calibration error": _calibration_error(logits, labels),
    }, abs=2e-4)  # fmt: skip
    assert np.isnan(report.per_class[6])
    assert not np.isnan(report.per_class[:6]).any()


def _calibration_error(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Guo et al. 2017: 15 equal bins of the largest probability, |accuracy - confidence| weighted by their share."""
    confidence, predicted = (part.numpy() for part in logits.double().softmax(dim=1).max(dim=1))
    right, place = predicted == labels.numpy(), np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(right[place == i].mean() - confidence[place == i].mean()) * (place == i).mean() for i in set(place)]
    return 100 * sum(gaps)


def test_logits_between_0_and_1_are_not_taken_for_probabilities():
    logits = torch.tensor([[0.9, 0.1], [0.2, 0.3]])
    report = classification_report(logits, torch.tensor([0, 1]), ("x", "y"))
    gaps = 1 - logits.softmax(dim=1).max(dim=1).values
    assert report.calibration_error == pytest.approx(100 * float(gaps.mean()), abs=1e-4)
    assert list(report.numbers) == ["top-1", "top-2", "mean of classes", "calibration error"]
    large = classification_report(1e6 * logits, torch.tensor([1, 1]), ("x", "y"))
    assert (large.top1, large.top5, large.calibration_error) == (50, 100, 50)


def test_diverged_training_is_told():
    with pytest.raises(DataError, match="not finite: its training diverged"):
        classification_report(torch.full((2, 4), torch.nan), torch.tensor([0, 1]), NAMES)


def test_tables_name_the_classes_and_leave_an_untested_one_empty(tmp_path):
    logits = torch.eye(4)[[0, 0, 1, 2]]
    write_tables(classification_report(logits, torch.tensor([0, 1, 1, 2]), NAMES), tmp_path / "new")
    rows = list(csv.reader((tmp_path / "new" / "confusion.csv").open(encoding="utf-8")))
    assert rows[0] == ["true class", "a", "b", "c", "d"]
    assert rows[2] == ["b", "1", "1", "0", "0"]
    rows = list(csv.reader((tmp_path / "new" / "per-class.csv").open(encoding="utf-8")))
    assert rows[2:] == [["b", "2", "1", "50.00"], ["c", "1", "1", "100.00"], ["d", "0", "0", ""]]


@pytest.mark.parametrize("count", [2, 10, 60, 120])
def test_every_name_and_number_of_the_picture_is_apart_from_its_neighbours(count):
    draw = np.random.default_rng(0)
    confusion = draw.poisson(0.1, (count, count)) + np.diag(draw.integers(100, 300, count))
    confusion[1] = 0
    names = [f"class number {i} with a name that is quite long" for i in range(count)]
    figure = confusion_figure(confusion, names, "linear")
    axes = figure.axes[0]
    numbers = {(text.get_position()[1], text.get_position()[0]): text for text in axes.texts}
    assert {place: int(text.get_text()) for place, text in numbers.items()} == {
        place: confusion[place] for place in zip(*np.nonzero(confusion), strict=True)
    }
    told = [label.get_text().endswith(" (not tested)") for label in axes.get_yticklabels()]
    assert told == [not total for total in confusion.sum(axis=1)]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    renderer = FigureCanvasAgg(figure).get_renderer()
    cell = axes.get_window_extent(renderer).width / count
    assert all(text.get_window_extent(renderer).width < cell for text in numbers.values())
    labels = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(labels))
    assert min(label.x0 for label in labels) >= 0
    assert min(label.get_window_extent(renderer).y0 for label in axes.get_xticklabels()) >= 0


def test_logits_are_added_not_probabilities():
    joint, bone = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    assert fuse([joint, bone]).tolist() == [[3, 2], [2, 1]]
    assert fuse([joint, bone], [1.0, 2.0]).tolist() == [[3, 4], [4, 1]]
    nan, inf = float("nan"), float("inf")
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, nan], [nan, 1.0], [1.0, inf]):
        with pytest.raises(UsageError, match="for 2 checkpoints: one each, finite, none negative, not all zero"):
            fuse([joint, bone], weights)
    with pytest.raises(UsageError, match=r"\[2.0\] for 1 checkpoints: they are for fusing two or more"):
        fuse([joint], [2.0])
    assert torch.equal(fuse([joint]), joint)
    with pytest.raises(UsageError, match="different sequences or classes"):
        fuse([joint, bone[:1]])
