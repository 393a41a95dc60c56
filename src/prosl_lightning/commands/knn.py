"""`prosl knn`: nearest-neighbour accuracy of a trained encoder."""

from __future__ import annotations

from collections.abc import Sequence

from prosl_lightning.commands.evaluate import DataOptions, features_of, report
from prosl_lightning.commands.parsing import run_function
from prosl_lightning.evaluation.knn import knn_accuracy


def knn(*, ckpt: str, data: DataOptions, k: int = 1) -> None:
    """Nearest-neighbour evaluation by cosine over the encoder's features, centre crop 0.95.

    The training part of the protocol is the gallery, the test part asks. Nothing is trained.

    Args:
        ckpt: Checkpoint of `prosl fit`.
        data: The data to evaluate on.
        k: Neighbours that vote.
    """
    tables, _, described = features_of(ckpt, data)
    accuracy = knn_accuracy(tables.train, tables.train_labels, tables.test, tables.test_labels, k)
    report(ckpt, described | {"evaluation": "knn", "k": k}, {f"{k}-NN accuracy": accuracy})


def main(arguments: Sequence[str]) -> None:
    """Run `prosl knn`."""
    run_function(knn, arguments, "knn")
