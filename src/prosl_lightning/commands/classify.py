"""What the verbs that train classifiers share: their files beside the checkpoint, and figures over seeds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from prosl_lightning.commands.evaluate import at_least_one, report
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.evaluation.classifier import ClassifierEvaluation, save_classifier
from prosl_lightning.evaluation.features import FeatureTables, labelled_positions
from prosl_lightning.evaluation.fingerprint import file_sha256
from prosl_lightning.evaluation.fusion import fuse
from prosl_lightning.evaluation.linear import linear_epochs, top1
from prosl_lightning.evaluation.metrics import ClassificationReport, classification_report, write_tables
from prosl_lightning.evaluation.recipe import class_names_of
from prosl_lightning.evaluation.settings import unusual
from prosl_lightning.figures.confusion import confusion_figure

BEST = "best epoch on the test set"


class Outcome(NamedTuple):
    """One trained classifier on the test set.

    Attributes:
        logits: After the last epoch, (Q, K).
        labels: (Q,) int64.
        best: Percent right of the best epoch on the test set.
    """

    logits: Tensor
    labels: Tensor
    best: float


def milestones_of(epochs: int, milestones: tuple[int, ...] | None) -> tuple[int, ...]:
    """Where the learning rate drops: at 5/8 and 7/8 of the epochs (50 and 70 of 80) unless told otherwise.

    Of one or two epochs there are none or one: what is given and what is not obey the same rule.

    Raises:
        UsageError: There is less than one epoch, or milestones that do not ascend or that no epoch reaches.
    """
    at_least_one(epochs=epochs)
    if milestones is None:
        return tuple(dict.fromkeys(at for at in (max(1, epochs * 5 // 8), max(1, epochs * 7 // 8)) if at < epochs))
    if list(milestones) != sorted(set(milestones)) or not all(0 < milestone < epochs for milestone in milestones):
        raise UsageError(
            f"milestones are {list(milestones)} of {epochs} epochs: they must ascend and lie between 1 and {epochs - 1}"
        )
    return milestones


def summarise(
    outcomes: Sequence[Outcome], class_names: Sequence[str]
) -> tuple[dict[str, float], list[dict[str, float]], ClassificationReport]:
    """Figures for a row of results.

    Args:
        outcomes: One for each seed.
        class_names: The classes.

    Returns:
        The figures: with several seeds their means, the deviation (n - 1) of top-1 and each seed's own; all figures of
        each seed; the first seed's report.
    """
    reports = [classification_report(outcome.logits, outcome.labels, class_names) for outcome in outcomes]
    runs = [report.numbers | {BEST: outcome.best} for report, outcome in zip(reports, outcomes, strict=True)]
    numbers = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    if len(reports) > 1:
        numbers["top-1 deviation"] = float(np.std([report.top1 for report in reports], ddof=1))
        numbers |= {f"top-1 seed {seed}": report.top1 for seed, report in enumerate(reports)}
    return numbers, runs, reports[0]


def train_heads(
    classifiers: Sequence[ClassifierEvaluation], streams: Sequence[FeatureTables], shares: Sequence[float] | None = None
) -> list[Outcome]:
    """Train the layers of several streams side by side on features extracted once, and test them and their fusion.

    Args:
        classifiers: One a stream; each is trained by its own recipe and seed, as if it were alone.
        streams: Their features, of the same sequences.
        shares: Weights of the streams in the fusion; equal where they are not given.

    Returns:
        One for each stream and, of two or more, the fusion's.
    """
    labels = streams[0].test_labels
    trainings = [
        linear_epochs(tables, one.head.to(tables.train.device), one.recipe, seed=one.seed)
        for one, tables in zip(classifiers, streams, strict=True)
    ]
    best = [0.0] * (len(streams) + (len(streams) > 1))
    for logits in zip(*trainings, strict=True):
        judged = [*logits, fuse(logits, shares)] if len(logits) > 1 else list(logits)
        best = [max(before, top1(now, labels)) for before, now in zip(best, judged, strict=True)]
    return [Outcome(last, labels, most) for last, most in zip(judged, best, strict=True)]


def finish(
    verb: str,
    ckpts: Sequence[str],
    data: SkeletonDataModule,
    outcomes: Sequence[Outcome],
    protocol: dict[str, Any],
    classifier: ClassifierEvaluation | None = None,
    tables: FeatureTables | None = None,
) -> None:
    """Write the files, keep the row and print it; the files are the first seed's.

    Args:
        verb: The evaluation.
        ckpts: The judged checkpoints.
        data: What they were judged on.
        outcomes: One for each seed.
        protocol: Settings for the row.
        classifier: The first seed's.
        tables: Features for its gallery, where it has none yet.
    """
    names = class_names_of(data.archive.class_names, data.archive.labels)
    numbers, runs, first = summarise(outcomes, names)
    if classifier is not None and tables is not None:
        rows = data.train_rows[labelled_positions(data)]
        classifier.keep_gallery(tables.train, data.archive.names[rows], tables.train_labels)
    folder = Path(ckpts[0]).parent / folder_name(verb, ckpts, data, protocol)
    told = write_files(folder, verb, first, classifier)
    report(verb, ckpts, data, numbers, protocol, range(len(outcomes)), runs=runs, files=folder)
    print(told)


def folder_name(verb: str, ckpts: Sequence[str], data: SkeletonDataModule, protocol: Mapping[str, Any]) -> str:
    """CHECKPOINTS-VERB-DATA-SPLIT and what else is not as usual, so that no two evaluations share their files.

    Checkpoints that are fused lie in several folders and often have the same name, so what they hold is in it, too.

    Args:
        verb: The evaluation.
        ckpts: The judged checkpoints.
        data: What they were judged on.
        protocol: Its settings; with `stream` where several are fused.
    """
    settings = unusual(verb, protocol)
    tuned = bool(settings.pop("finetune", False))
    settings.pop("fusion", None)
    settings.pop("milestones", None)
    if list(protocol["milestones"]) != list(milestones_of(protocol["epochs"], None)):
        settings["milestones"] = protocol["milestones"]
    parts = [
        "+".join(Path(ckpt).stem for ckpt in ckpts),
        "finetune" if tuned else verb,
        *([f"{protocol['fraction']:g}"] if "fraction" in protocol else []),
        data.archive.root.resolve().name,
        data.protocol,
        *([str(protocol["stream"]), _checksum(ckpts)] if len(ckpts) > 1 else []),
    ]
    for name, value in settings.items():
        parts += [name, *(map(str, value) if isinstance(value, list | tuple) else [str(value)])]
    return re.sub(r"[^\w.+-]+", "-", "-".join(parts))


def _checksum(ckpts: Sequence[str]) -> str:
    """Eight digits that stand for the content of several checkpoints in their order."""
    return hashlib.sha256("".join(map(file_sha256, ckpts)).encode()).hexdigest()[:8]


def write_files(
    folder: Path, name: str, report: ClassificationReport, classifier: ClassifierEvaluation | None = None
) -> str:
    """Write confusion matrix (PNG, CSV), accuracy per class and the classifier into a folder.

    Args:
        folder: It is made where it is not there; files of the same evaluation, done before, are replaced.
        name: Of the evaluation, for the title.
        report: What is drawn and tabulated.
        classifier: Written as `classifier.pt`. Not `.ckpt`: `prosl fit --ckpt_path last` takes the newest of those.

    Returns:
        What was written, for the screen.
    """
    replaced = folder.exists()
    write_tables(report, folder)
    title = f"{name}: top-1 {report.top1:.1f} % of {int(report.confusion.sum())} sequences"
    confusion_figure(report.confusion, report.class_names, title).savefig(
        folder / "confusion.png", dpi=150, bbox_inches="tight"
    )
    files = "confusion.png, confusion.csv, per-class.csv"
    if classifier is not None:
        save_classifier(classifier, folder / "classifier.pt")
        files += ", classifier.pt"
    return f"{folder}: {files}" + (", in place of an earlier evaluation's" if replaced else "")
