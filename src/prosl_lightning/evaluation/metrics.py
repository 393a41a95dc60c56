"""Measures of a classifier on a test set, from its logits: top-1, top-5, per class, confusions, calibration."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassConfusionMatrix

from prosl_lightning.errors import DataError

_CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassificationReport:
    """What a classifier got right and wrong.

    Attributes:
        class_names: Names in label order.
        confusion: Sequences by true (row) and predicted (column) class, (K, K).
        top1: Percent right.
        top5: Percent with the true class among the five best (all, where there are fewer).
        calibration_error: Expected calibration error in percent, 15 equal bins of the largest probability.
    """

    class_names: tuple[str, ...]
    confusion: NDArray[np.int64]
    top1: float
    top5: float
    calibration_error: float

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Percent right of each class, (K,); not a number for a class that the test set lacks."""
        total = self.confusion.sum(axis=1)
        right = np.diag(self.confusion)
        return np.divide(100.0 * right, total, out=np.full(len(total), np.nan), where=total > 0)

    @property
    def numbers(self) -> dict[str, float]:
        """The figures for a row of results, in percent. The class mean is over the classes that were tested."""
        return {
            "top-1": self.top1,
            f"top-{min(5, len(self.class_names))}": self.top5,
            "mean of classes": float(np.nanmean(self.per_class)),
            "calibration error": self.calibration_error,
        }


class _LogitCalibrationError(MulticlassCalibrationError):
    """Of logits: torchmetrics would take those that happen to lie between 0 and 1 for probabilities."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.double().softmax(dim=1), target)


def classification_metrics(num_classes: int) -> MetricCollection:
    """Top-1, top-5, confusion matrix and calibration error, to be updated with logits (N, K) and labels (N,)."""
    return MetricCollection(
        {
            "top-1": MulticlassAccuracy(num_classes, average="micro"),
            "top-5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
            "confusion": MulticlassConfusionMatrix(num_classes),
            "calibration": _LogitCalibrationError(num_classes, n_bins=_CALIBRATION_BINS),
        },
        compute_groups=False,
    )


def classification_report(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> ClassificationReport:
    """Judge logits.

    Args:
        logits: (N, K).
        labels: True classes, (N,) int64.
        class_names: The K classes; a test set may lack some of them.

    Raises:
        DataError: The logits are not finite: training diverged.
    """
    if not bool(torch.isfinite(logits).all()):
        raise DataError("the classifier's logits are not finite: its training diverged; the features may be degenerate")
    metrics = classification_metrics(len(class_names)).to(logits.device)
    metrics.update(logits, labels)
    found = {name: value.cpu() for name, value in metrics.compute().items()}
    return ClassificationReport(
        class_names=tuple(class_names),
        confusion=found["confusion"].numpy().astype(np.int64),
        top1=100 * float(found["top-1"]),
        top5=100 * float(found["top-5"]),
        calibration_error=100 * float(found["calibration"]),
    )


def write_tables(report: ClassificationReport, folder: Path) -> None:
    """Write `confusion.csv` (a row for each true, a column for each predicted class) and `per-class.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["true class", *report.class_names])
        writer.writerows([name, *row] for name, row in zip(report.class_names, report.confusion.tolist(), strict=True))
    with (folder / "per-class.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "sequences", "right", "percent"])
        total, right = report.confusion.sum(axis=1), np.diag(report.confusion)
        for name, count, hits, percent in zip(report.class_names, total, right, report.per_class, strict=True):
            writer.writerow([name, count, hits, "" if np.isnan(percent) else f"{percent:.2f}"])
