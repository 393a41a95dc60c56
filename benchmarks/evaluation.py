"""Speed of the evaluations on one CPU thread, against scikit-learn and against encoding again in every epoch.

Run `python benchmarks/evaluation.py`; about ten minutes. `--tiny` takes seconds and times nothing. Sizes are NTU-60's
(x-sub: 40,091 sequences to train, 16,487 to test, 4,096 features), data are synthetic. CPU time of one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench_table import peak_memory, reset_peak_memory
from harness import Bench
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.data.synthetic import write_archive
from prosl_lightning.evaluation.features import FeatureTables, embedding
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.evaluation.neighbours import search
from prosl_lightning.evaluation.recipe import new_head
from prosl_lightning.evaluation.retrieval import mean_average_precision
from prosl_lightning.seeds import generator

CLASSES, EPOCHS = 60, 80
TINY: dict[str, Any] = {"base_args": {"hidden_size": 16, "num_layers": 1, "projection_size": 8}, "num_frames": 16}


def cpu_seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of one call, and what it returns."""
    begin = time.process_time()
    found = function()
    return time.process_time() - begin, found


def features_of_classes(count: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features like an encoder's: positive mean, classes in sub-modes, most of the variance in 128 directions."""
    shared, draw = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    modes = torch.randn(3 * CLASSES, 64, generator=shared)
    directions = torch.randn(128, width, generator=shared) / 8
    which = torch.randint(len(modes), (count,), generator=draw)
    features = torch.empty(count, width)
    for rows in torch.arange(count).split(1024):
        inner = modes[which[rows]] + 1.2 * torch.randn(len(rows), 64, generator=draw)
        outer = torch.cat([inner, 0.3 * torch.randn(len(rows), 64, generator=draw)], dim=1)
        fine = 0.05 * torch.randn(len(rows), width, generator=draw)
        features[rows] = torch.tanh(outer @ directions + 0.5) + fine + 0.3
    return features, which % CLASSES


def neighbours(bench: Bench, tiny: bool) -> None:
    """One nearest neighbour and mAP of all queries; scikit-learn on 512 of them, scaled."""
    train, test, width, asked = (400, 160, 64, 32) if tiny else (40_091, 16_487, 4096, 512)
    tables = FeatureTables(*features_of_classes(train, width, 1), *features_of_classes(test, width, 2))
    search(tables.train[:100], tables.test[:100])  # pays for what is loaded at the first call
    before = reset_peak_memory()
    ours, found = cpu_seconds(lambda: search(tables.train, tables.test))
    memory = peak_memory() - before if before == before else None
    peer = KNeighborsClassifier(1, metric="cosine").fit(tables.train.numpy(), tables.train_labels.numpy())
    some = tables.test[:asked].numpy()
    seconds, predicted = zip(*(cpu_seconds(lambda: peer.predict(some)) for _ in range(3)), strict=True)
    theirs = sorted(seconds)[1] * test / asked
    same = tables.train_labels[found.index[:asked, 0]] == torch.from_numpy(predicted[0])
    bench.record(
        "neighbours", f"1-NN, {test} queries, {train} x {width}", target="3, goal 5, below 0.6 GB",
        ratio=theirs / ours, seconds=ours, scikit_learn_seconds_scaled=theirs, scikit_learn_queries=asked,
        same_predictions_percent=100 * float(same.double().mean()), gigabytes_beyond_the_data=memory,
        accuracy=100 * float((tables.train_labels[found.index[:, 0]] == tables.test_labels).double().mean()),
    )  # fmt: skip
    if not bool(same.all()):
        bench.record("neighbours", "predictions", error=f"{int((~same).sum())} of {asked} differ from scikit-learn's")
    seconds_of_map, value = cpu_seconds(lambda: mean_average_precision(*tables))
    bench.record("neighbours", "mAP of the same, no target", seconds=seconds_of_map, percent=100 * value)


def linear(bench: Bench, tiny: bool) -> None:
    """Linear evaluation from features extracted once, against the encoder running in each of the 80 epochs."""
    count, live_epochs = (64, 2) if tiny else (2000, 2)
    torch.manual_seed(0)
    module = ProSLModule(**(TINY if tiny else {})).eval()
    with tempfile.TemporaryDirectory() as folder:
        write_archive(Path(folder) / "data", num_samples=count)
        data = SkeletonDataModule(str(Path(folder) / "data"), protocol="all", eval_batch_size=16 if tiny else 256)
        data.setup()
        batches = list(data.feature_dataloader())
    # As many test sequences for each training sequence as NTU-60 x-sub has.
    cut = round(count * 40_091 / 56_578)
    embeds = {name: embedding(module, name) for name in ("float32", "bfloat16")}
    module.embed(batches[0])

    def extracted(embed: Callable[[SkeletonBatch], Tensor]) -> FeatureTables:
        with torch.no_grad():
            features, labels = torch.cat([embed(batch) for batch in batches]), torch.cat([b.label for b in batches])
        return FeatureTables(features[:cut], labels[:cut], features[cut:], labels[cut:])

    def train(tables: FeatureTables, epochs: int) -> Tensor:
        return linear_evaluation(tables, CLASSES, epochs=epochs, learning_rate=0.1).classifier.weight.detach()

    times = {name: cpu_seconds(lambda embed=embed: extracted(embed)) for name, embed in embeds.items()}  # type: ignore[misc]
    (once, tables), (once_bf16, coarse) = times["float32"], times["bfloat16"]
    width = tables.train.shape[1]
    encode = embeds["float32"]
    live, weights = cpu_seconds(lambda: live_training(lambda: extracted(encode), width, live_epochs))
    difference = float((weights - train(tables, live_epochs)).norm() / weights.norm())
    training, _ = cpu_seconds(lambda: train(tables, EPOCHS))
    all_live = live / live_epochs * EPOCHS
    shared = {
        "seconds_live_scaled": all_live, "seconds_of_training": training, "live_epochs": live_epochs,
        "weights_differ_by": difference,
    }  # fmt: skip
    what = f"{EPOCHS} epochs, {cut} + {count - cut} sequences"
    bench.record("linear", what, target="70", ratio=all_live / (once + training), seconds_once=once, **shared)
    bench.record(
        "linear", f"{what}, bfloat16 features", target="none", ratio=all_live / (once_bf16 + training),
        seconds_once=once_bf16, features_differ_by=float((coarse.test - tables.test).norm() / tables.test.norm()),
        knn_percent=[knn_accuracy(*tables), knn_accuracy(*coarse)],
    )  # fmt: skip
    if difference > 1e-4:
        bench.record("linear", "agreement", error=f"live and cached training differ by {difference:.1e}")


def live_training(encode: Callable[[], FeatureTables], width: int, epochs: int) -> Tensor:
    """The reference's shape: the frozen encoder runs over all sequences in every epoch."""
    layer = new_head(width, CLASSES, 0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(epochs):
        tables = encode()
        for rows in torch.randperm(len(tables.train), generator=generator("cpu", 0, epoch)).split(1024):
            optimizer.zero_grad()
            F.cross_entropy(layer(tables.train[rows]), tables.train_labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            layer(tables.test).argmax(dim=1)
    return layer.weight.detach()


def main(arguments: list[str] | None = None) -> int:
    """Run both parts; the exit code is the number of errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that everything runs, times nothing")
    parser.add_argument("--minutes", type=float, default=30, help="begin nothing new after so long")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    bench = Bench(torch.device("cpu"), options.minutes, options.out)
    parts = {part.__name__: lambda part=part: part(bench, options.tiny) for part in (neighbours, linear)}
    return bench.run(parts)


if __name__ == "__main__":
    sys.exit(main())
