"""`prosl knn`: nearest neighbours, retrieval and clusters of one or several trained encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from prosl_lightning.commands.evaluate import DataOptions, at_least_one, load_inputs, report, warn_if_equal
from prosl_lightning.commands.parsing import gather_lists, run_function
from prosl_lightning.evaluation.clusters import CLUSTERING, cluster_measures
from prosl_lightning.evaluation.features import FeatureTables, Precision, extract_tables, fuse_tables
from prosl_lightning.evaluation.fusion import fusion_weights
from prosl_lightning.evaluation.knn import RULES, knn_measures


def knn(
    *,
    ckpt: str | list[str],
    data: DataOptions,
    k: int = 1,
    weights: list[float] | None = None,
    clusters: int | Literal["classes"] | None = None,
    precision: Precision = "float32",
) -> None:
    """Nearest neighbours by cosine over the encoder's features, centre crop 0.95. Nothing is trained.

    The training part of the protocol is the gallery, the test part asks: top-1 accuracy, and retrieval, mAP over the
    whole gallery and R@1, R@5, R@10. Several checkpoints, e.g. of joint, bone and motion stream, are judged one by one
    and fused: the sum of their cosines.

    Args:
        ckpt: Checkpoint of `prosl fit`, or several: --ckpt joint.ckpt bone.ckpt, or '[joint.ckpt, bone.ckpt]'.
        data: The data to evaluate on.
        k: Neighbours that vote; among classes with as many votes the lowest label wins, as in scikit-learn.
        weights: Of the checkpoints in the fusion; equal where they are not given.
        clusters: Divide the test part into so many clusters (`classes`: as many as it has classes) by k-means, and
            report how well they match the classes.
        precision: Of the encoder: `float32` or `bfloat16`.
    """
    ckpts = [ckpt] if isinstance(ckpt, str) else ckpt
    shares = fusion_weights(weights, len(ckpts))
    at_least_one(k=k)
    inputs = load_inputs(ckpts, data)
    source = inputs[0][1]
    protocol: dict[str, Any] = {"k": k, "precision": precision} | RULES

    def judge(paths: Sequence[str], tables: FeatureTables, more: dict[str, Any]) -> None:
        numbers, settings, seeds = knn_measures(tables, k), protocol | more, []
        if clusters is not None:
            settings["clusters"] = len(tables.test_labels.unique()) if clusters == "classes" else clusters
            settings["clustering"] = CLUSTERING
            numbers |= cluster_measures(tables.test, tables.test_labels, settings["clusters"])
            seeds = [0]
        report("knn", paths, source, numbers, settings, seeds)

    streams = []
    for path, (module, _) in zip(ckpts, inputs, strict=True):
        streams.append(extract_tables(module, source, precision))
        warn_if_equal(path, streams[-1])
        judge([path], streams[-1], {})
    if len(ckpts) > 1:
        judge(ckpts, fuse_tables(streams, shares), {"fusion": "sum of cosines", "weights": shares})


def main(arguments: Sequence[str]) -> None:
    """Run `prosl knn`."""
    run_function(knn, list(gather_lists(arguments, {"--ckpt"})), "knn")
