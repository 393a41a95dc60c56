"""What is not a training step: the codebook, joint importance, nearest neighbours and linear evaluation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from gpu_common import GpuBench
from harness import bf16, tf32
from torch import Tensor

from prosl_lightning.evaluation.features import FeatureTables
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.prosl.importance import joint_importance
from prosl_lightning.prosl.kmeans import faiss_available, kmeans

CLASSES = 60


def mixture(bench: GpuBench, count: int, width: int, groups: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit features (count, width) of a mixture on the device, and the group of each."""
    centres = F.normalize(torch.randn(groups, width, generator=torch.Generator().manual_seed(0)), dim=1)
    draw = torch.Generator().manual_seed(seed)
    which = torch.randint(groups, (count,), generator=draw)
    noise = torch.randn(count, width, generator=draw) / width**0.5
    return F.normalize(centres[which] + 1.2 * noise, dim=1).to(bench.device), which.to(bench.device)


def codebook(bench: GpuBench) -> None:
    """First and warm build on a mixture of the size of NTU-60 x-sub."""
    points, _ = mixture(bench, bench.points, 128, bench.clusters)
    for backend in ("torch", "faiss") if faiss_available() else ("torch",):
        options: dict[str, Any] = {"seed": 0, "backend": backend}
        found = kmeans(points, bench.clusters, **options)  # this one pays for loading the libraries
        first = bench.seconds(lambda options=options: kmeans(points, bench.clusters, **options))  # type: ignore[misc]
        options["start"] = found.centroids
        warm = bench.seconds(lambda options=options: kmeans(points, bench.clusters, **options))  # type: ignore[misc]
        bench.record(
            "codebook", f"{bench.points} x 128, k = {bench.clusters}, {backend}", first_seconds=first,
            warm_seconds=warm, mean_cosine=found.mean_cosine,
        )  # fmt: skip


@torch.no_grad()
def importance(bench: GpuBench) -> None:
    """Key features of a batch, and the joint importance of 1,024 sequences: V + 1 forward passes each."""
    module = bench.model().to(bench.device).eval()
    view = module.prepare(bench.batch())
    chunk = view[:32]
    for name in bench.precisions():
        with tf32(name == "tf32"), bf16(bench.device, name == "bf16"):
            features = bench.milliseconds(lambda: module.key_features(view), **bench.effort)
            left_out = bench.milliseconds(lambda: joint_importance(module.key_features, chunk), **bench.effort)
        bench.record(
            "importance", name, features_per_second=1e3 * len(view) / features,
            seconds_for_1024_sequences=left_out * 1024 / len(chunk) / 1e3,
        )  # fmt: skip


def evaluation(bench: GpuBench) -> None:
    """Nearest neighbours and linear evaluation from features of NTU-60's size that were extracted before."""
    train, test, width = (400, 160, 64) if bench.options.tiny else (40_091, 16_487, 4096)
    groups = 3 * CLASSES
    (gallery, of_gallery), (queries, of_queries) = (
        mixture(bench, train, width, groups, 1), mixture(bench, test, width, groups, 2)
    )  # fmt: skip
    tables = FeatureTables(gallery, of_gallery % CLASSES, queries, of_queries % CLASSES)
    accuracy = knn_accuracy(tables.train, tables.train_labels, tables.test, tables.test_labels)
    seconds = bench.seconds(lambda: knn_accuracy(tables.train, tables.train_labels, tables.test, tables.test_labels))
    bench.record("evaluation", f"1-NN, {test} queries, {train} x {width}", seconds=seconds, percent=accuracy)
    epochs = 2 if bench.options.tiny else 80
    seconds = bench.seconds(lambda: linear_evaluation(tables, CLASSES, epochs=epochs))
    bench.record("evaluation", f"linear, {epochs} epochs, {train} x {width}", seconds=seconds)
