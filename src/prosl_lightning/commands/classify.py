"""What the verbs that train classifiers share: their files beside the checkpoint, and figures over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from prosl_lightning.commands.evaluate import report
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.classifier import ClassifierEvaluation, save_classifier
from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.evaluation.metrics import ClassificationReport, classification_report, write_tables
from prosl_lightning.evaluation.recipe import class_names_of
from prosl_lightning.figures.confusion import confusion_figure

BEST = "best epoch on the test set"


class Outcome(NamedTuple):
    """One trained classifier on the test set.

    Attributes:
        logits: After the last epoch, (Q, K).
        labels: (Q,) int64.
        best: Percent right of the best epoch on the test set; None where epochs were not compared (a fusion).
    """

    logits: Tensor
    labels: Tensor
    best: float | None


def seeds_of(count: int) -> range:
    """Seeds 0, 1, ... of several runs.

    Raises:
        UsageError: None are wanted.
    """
    if count < 1:
        raise UsageError(f"seeds is {count}; it must be at least 1")
    return range(count)


def default_milestones(epochs: int, milestones: tuple[int, ...] | None) -> tuple[int, ...]:
    """Where the learning rate drops: at 5/8 and 7/8 of the epochs (50 and 70 of 80) unless told otherwise.

    Raises:
        UsageError: There is less than one epoch.
    """
    if epochs < 1:
        raise UsageError(f"epochs is {epochs}; it must be at least 1")
    return (max(1, epochs * 5 // 8), max(1, epochs * 7 // 8)) if milestones is None else milestones


def summarise(outcomes: Sequence[Outcome], class_names: Sequence[str]) -> tuple[dict[str, float], ClassificationReport]:
    """Figures for a row of results, means over the seeds where there are several, and the first seed's report.

    Args:
        outcomes: One for each seed.
        class_names: The classes.

    Returns:
        The figures; with several seeds also the deviation (n - 1) of top-1 and each seed's own.
    """
    reports = [classification_report(outcome.logits, outcome.labels, class_names) for outcome in outcomes]
    names = reports[0].numbers
    numbers = {name: float(np.mean([report.numbers[name] for report in reports])) for name in names}
    best = [outcome.best for outcome in outcomes if outcome.best is not None]
    if best:
        numbers[BEST] = float(np.mean(best))
    if len(reports) > 1:
        numbers["top-1 deviation"] = float(np.std([report.top1 for report in reports], ddof=1))
        numbers |= {f"top-1 seed {seed}": report.top1 for seed, report in enumerate(reports)}
    return numbers, reports[0]


def train_head(classifier: ClassifierEvaluation, tables: FeatureTables) -> Outcome:
    """Train a classifier's layer on features extracted once, by its recipe and seed, and test it."""
    recipe = classifier.recipe
    head = classifier.head.to(tables.train.device)
    result = linear_evaluation(
        tables, len(classifier.class_names), epochs=recipe.epochs, milestones=recipe.milestones,
        learning_rate=recipe.learning_rate, batch_size=recipe.batch_size, seed=classifier.seed, classifier=head,
    )  # fmt: skip
    return Outcome(head(tables.test).detach(), tables.test_labels, result.best_accuracy)


def finish(
    verb: str,
    folder: str,
    ckpts: Sequence[str],
    data: SkeletonDataModule,
    outcomes: Sequence[Outcome],
    protocol: dict[str, Any],
    classifier: ClassifierEvaluation | None = None,
    tables: FeatureTables | None = None,
) -> None:
    """Print, append the row and write the files of one evaluation; the files are the first seed's.

    Args:
        verb: The evaluation.
        folder: See :func:`write_files`.
        ckpts: The judged checkpoints.
        data: What they were judged on.
        outcomes: One for each seed.
        protocol: Settings for the row.
        classifier: The first seed's.
        tables: Features for its gallery, where it has none yet.
    """
    names = class_names_of(data.archive.class_names, data.archive.labels)
    numbers, first = summarise(outcomes, names)
    report(verb, ckpts, data, numbers, protocol, seeds_of(len(outcomes)))
    if classifier is not None and tables is not None:
        classifier.keep_gallery(tables.train, data.archive.names[data.train_rows], tables.train_labels)
    write_files(ckpts[0], folder, first, classifier)


def write_files(
    ckpt: str, name: str, report: ClassificationReport, classifier: ClassifierEvaluation | None = None
) -> Path:
    """Write confusion matrix (PNG, CSV), accuracy per class and the classifier into a folder beside the checkpoint.

    Args:
        ckpt: The judged checkpoint.
        name: Of the evaluation; the folder is `CHECKPOINT-NAME`.
        report: What is drawn and tabulated.
        classifier: Written as `classifier.pt`. Not `.ckpt`: `prosl fit --ckpt_path last` takes the newest of those.

    Returns:
        The folder.
    """
    folder = Path(ckpt).parent / f"{Path(ckpt).stem}-{name}"
    write_tables(report, folder)
    title = f"{name}: top-1 {report.top1:.1f} % of {int(report.confusion.sum())} sequences"
    confusion_figure(report.confusion, report.class_names, title).savefig(
        folder / "confusion.png", dpi=150, bbox_inches="tight"
    )
    files = "confusion.png, confusion.csv, per-class.csv"
    if classifier is not None:
        save_classifier(classifier, folder / "classifier.pt")
        files += ", classifier.pt"
    print(f"{folder}: {files}")
    return folder
