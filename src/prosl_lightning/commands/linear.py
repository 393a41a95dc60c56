"""`prosl linear`: linear evaluation of a trained encoder."""

from __future__ import annotations

from collections.abc import Sequence

from prosl_lightning.commands.evaluate import DataOptions, features_of, report
from prosl_lightning.commands.parsing import run_function
from prosl_lightning.evaluation.linear import linear_evaluation


def linear(*, ckpt: str, data: DataOptions, epochs: int = 80, milestones: tuple[int, int] = (50, 70)) -> None:
    """Linear evaluation: one layer on frozen features, SGD with learning rate 2 and batches of 1024, centre crop 0.95.

    Args:
        ckpt: Checkpoint of `prosl fit`.
        data: The data to evaluate on.
        epochs: Passes over the training set; small sets need more, e.g. 1000.
        milestones: Epochs at which the learning rate is divided by ten.
    """
    tables, archive_data, described = features_of(ckpt, data)
    num_classes = int(archive_data.archive.labels.max()) + 1
    result = linear_evaluation(tables, num_classes, epochs=epochs, milestones=milestones)
    report(
        ckpt,
        described | {"evaluation": "linear", "epochs": epochs, "milestones": list(milestones)},
        {"linear accuracy (last epoch)": result.accuracy, "best epoch on the test set": result.best_accuracy},
    )


def main(arguments: Sequence[str]) -> None:
    """Run `prosl linear`."""
    run_function(linear, arguments, "linear")
