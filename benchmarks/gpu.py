"""Check and time ProSL's training on a CUDA device (or, without one, on the CPU).

Run `PYTHONPATH=src python benchmarks/gpu.py`; with `--tiny` it takes seconds anywhere. Nothing is downloaded: the data
are synthetic, unless `--data ROOT --config NAME` names an archive to train on. A part that fails says why, and the
others still run.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from harness import Bench, EpochClock, bf16, quiet_trainer, tf32
from torch import Tensor

from prosl_lightning import Archive, ProSLModule, SkeletonDataModule
from prosl_lightning._lightning import NAMESPACE, submodule
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.data.synthetic import write_archive
from prosl_lightning.evaluation.features import extract_tables
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.prosl.importance import joint_importance
from prosl_lightning.prosl.kmeans import faiss_available, kmeans

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3  # relative, float32 without TF32
STAGES: dict[str, dict[str, Any]] = {
    "baseline": {"semantic": False},
    "stage 1": {"semantic_start": 10**6},
    "stage 2": {"semantic_start": 0},
}
TINY = {
    "base_args": {"hidden_size": 16, "num_layers": 1, "projection_size": 8}, "num_frames": 16, "min_crop_frames": 8,
    "bank_size": 32, "num_clusters": 5, "importance_samples": 8,
}  # fmt: skip


class GpuBench(Bench):
    """Sizes, model and data of this script: NTU-60's, or tiny ones."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        cuda = torch.cuda.is_available() and options.device != "cpu"
        super().__init__(torch.device("cuda:0" if cuda else "cpu"), options.minutes, options.out)
        self.options, self.folder = options, folder
        self.batch_size, self.sequences = (8, 48) if options.tiny else (64, 2000)
        self.points, self.clusters = (500, 5) if options.tiny else (40_091, 65)
        self.effort = {"blocks": 1, "calls": 1, "warm_up": 1} if options.tiny else {}

    def model(self, **changes: Any) -> ProSLModule:
        """A module on the CPU, with the same weights at every call."""
        torch.manual_seed(0)
        return ProSLModule(**{**(TINY if self.options.tiny else {}), **changes})

    def archive(self) -> str:
        """A synthetic archive, made at the first call."""
        root = self.folder / "synthetic"
        if not root.exists():
            write_archive(root, num_samples=self.sequences)
        return str(root)

    def batch(self) -> SkeletonBatch:
        """One training batch that lies on the device, in the archive's float16."""
        data = SkeletonDataModule(self.archive(), batch_size=self.batch_size)
        data.setup()
        return SkeletonBatch(*(value.to(self.device) for value in next(iter(data.train_dataloader()))))


def fill_codebook(module: ProSLModule, num_samples: int, features: Tensor | None = None) -> None:
    """A built codebook and banks of known samples, as in the middle of the semantic stage.

    Where `features` are given each sample is its own centroid, so that all of them enter the semantic loss.
    """
    draw = torch.Generator().manual_seed(1)
    count, size = module.hparams["num_clusters"], module.query_encoder.projection_size
    centroids = F.normalize(torch.randn(count, size, generator=draw), dim=1)
    assignment = torch.randint(count, (num_samples,), generator=draw)
    if features is not None:
        centroids[: len(features)] = features[:count]
        assignment[: len(features)] = (features @ centroids.T).argmax(dim=1)
    module.codebook.update(centroids, assignment)
    module.codebook.importance = torch.rand(module.layout.num_joints, generator=draw)
    for bank in module.banks.values():
        bank.index = torch.randint(num_samples, bank.index.shape, generator=draw)


def one_step(module: ProSLModule, views: list[Tensor], index: Tensor) -> dict[str, Tensor]:
    """What one training step computes from given views, on the CPU in float64."""
    semantic = views[2] if module.hparams["semantic"] else None
    found = module.losses(views[0], views[1], semantic, index)
    found["loss"].backward()
    found["gradient"] = torch.cat([p.grad.flatten() for p in module.query_encoder.parameters() if p.grad is not None])
    found["banks"] = torch.cat([bank.features.flatten() for bank in module.banks.values()])
    return {name: value.detach().cpu().double() for name, value in found.items()}


def agreement(bench: GpuBench) -> None:
    """Losses, gradient and banks of one step on fixed views: the device against the CPU."""
    # Without a CUDA device there is nothing to compare float32 with but float64.
    reference = torch.float32 if bench.device.type == "cuda" else torch.float64
    draw, index = torch.Generator().manual_seed(2), torch.arange(bench.batch_size)
    for stage, changes in STAGES.items():
        results = []
        for device, dtype in ((bench.device, torch.float32), (torch.device("cpu"), reference)):
            module = bench.model(**changes, confidence_threshold=0.0)
            if not results:
                shape = (3, bench.batch_size, 3, module.hparams["num_frames"], module.layout.num_joints, 2)
                views = torch.randn(shape, generator=draw) * 0.4
            if stage == "stage 2":
                with torch.no_grad():
                    features = F.normalize(module.query_encoder.project(views[0])[module.base.semantic], dim=1)
                fill_codebook(module, 8 * bench.batch_size, features)
            module.to(device, dtype)
            with tf32(False):
                results.append(one_step(module, list(views.to(device, dtype)), index.to(device)))
        errors = {n: float((results[0][n] - e).norm() / e.norm().clamp_min(1e-6)) for n, e in results[1].items()}
        gradient = errors.pop("gradient")
        worst = max(errors, key=lambda name: errors[name])
        bench.record(
            "agreement", f"{stage}, cpu {str(reference).removeprefix('torch.')}", loss=float(results[1]["loss"]),
            worst=worst, worst_error=errors[worst], gradient_error=gradient,
        )  # fmt: skip
        if errors[worst] > LOSS_TOLERANCE or gradient > GRADIENT_TOLERANCE:
            bench.record("agreement", stage, error=f"{worst} is off by {errors[worst]:.1e}, gradient {gradient:.1e}")


def step(bench: GpuBench) -> None:
    """Views, forward, backward and SGD of one batch on the device, without Lightning."""
    batch = bench.batch()
    for stage, changes in STAGES.items():
        for name in ("float32", "tf32", "bf16") if bench.device.type == "cuda" else ("float32", "bf16"):
            if bench.seconds_left <= 0:
                bench.record("step", f"{stage}, {name}", skipped="out of time")
                continue
            try:
                time_step(bench, stage, changes, name, batch)
            except Exception as error:  # a precision that the device or its libraries lack must not hide the others
                bench.record("step", f"{stage}, {name}", error=f"{type(error).__name__}: {error}"[:300])


def time_step(bench: GpuBench, stage: str, changes: dict[str, Any], name: str, batch: SkeletonBatch) -> None:
    """Time one stage in one precision."""
    module = bench.model(**changes)
    if stage == "stage 2":
        fill_codebook(module, bench.sequences)
    module.to(bench.device).train()
    optimizer = module.configure_optimizers()["optimizer"]
    draw = torch.Generator(bench.device).manual_seed(0)

    def train() -> None:
        optimizer.zero_grad()
        with bf16(bench.device, name == "bf16"):
            loss = module.losses(*module.draw_views(batch, draw), batch.index)["loss"]
        loss.backward()
        optimizer.step()

    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    with tf32(name == "tf32"):
        views = bench.milliseconds(lambda: module.draw_views(batch, draw), **bench.effort)
        whole = bench.milliseconds(train, **bench.effort)
    memory = torch.cuda.max_memory_allocated(bench.device) / 2**20 if bench.device.type == "cuda" else None
    bench.record(
        "step", f"{stage}, {name}", milliseconds=whole, of_these_views=views,
        samples_per_second=1e3 * bench.batch_size / whole, peak_mebibytes=memory,
    )  # fmt: skip


def codebook(bench: GpuBench) -> None:
    """First and warm build on a mixture of the size of NTU-60 x-sub."""
    draw = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(bench.clusters, 128, generator=draw), dim=1)
    which = torch.randint(bench.clusters, (bench.points,), generator=draw)
    noise = torch.randn(bench.points, 128, generator=draw) / 128**0.5
    points = F.normalize(centres[which] + 1.2 * noise, dim=1).to(bench.device)
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
    for name in ("float32", "tf32", "bf16"):
        with tf32(name == "tf32"), bf16(bench.device, name == "bf16"):
            features = bench.milliseconds(lambda: module.key_features(view), **bench.effort)
            left_out = bench.milliseconds(lambda: joint_importance(module.key_features, chunk), **bench.effort)
        bench.record(
            "importance", name, features_per_second=1e3 * len(view) / features,
            seconds_for_1024_sequences=left_out * 1024 / len(chunk) / 1e3,
        )  # fmt: skip


def lightning(bench: GpuBench) -> None:
    """The whole training loop: samples per second, median of the epochs after the first."""
    variants = [(stage, "32-true") for stage in STAGES] + [("stage 2", "bf16-mixed")]
    for stage, kind in variants[2:] if bench.options.tiny else variants:
        clock, module = EpochClock(bench), bench.model(**STAGES[stage])
        data = SkeletonDataModule(bench.archive(), batch_size=bench.batch_size)
        trainer = quiet_trainer(
            bench, 2 if bench.options.tiny else 6, callbacks=[clock], precision=kind,
            logger=submodule("loggers").CSVLogger(bench.folder, name="lightning"),
        )  # fmt: skip
        begin = time.perf_counter()
        with tf32(True):
            trainer.fit(module, datamodule=data)
        rate = statistics.median(clock.rates[1:] or clock.rates or [math.nan])  # NaN: stopped within the first epoch
        seconds = time.perf_counter() - begin
        bench.record("lightning", f"{stage}, {kind}, TF32", samples_per_second=rate, seconds=seconds)


def real(bench: GpuBench) -> None:
    """Train on one real archive by a configuration: k-NN accuracy before and after, losses, codebook."""
    options = bench.options
    file = Path(options.config)
    if not file.is_file():
        file = Path(__file__).parents[1] / "configs" / f"{file.stem}.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    archive, epochs = Archive.open(options.data), config["trainer"]["max_epochs"]
    model = config["model"] | {"layout": archive.layout.to_plain(), "num_bodies": archive.num_bodies}
    given = config["data"] | {"root": options.data}
    if options.protocol:
        given["protocol"] = options.protocol
    if options.tiny:
        model, given, epochs = model | TINY | {"semantic_start": 1}, given | {"batch_size": bench.batch_size}, 2
    module, data = bench.model(**model), SkeletonDataModule(**given)
    data.setup()
    before = nearest_neighbour(bench, module, data)
    logger = submodule("loggers").CSVLogger(bench.folder, name="real")
    trainer = quiet_trainer(bench, epochs, logger=logger)
    with tf32(False):
        seconds = bench.seconds(lambda: trainer.fit(module, datamodule=data))
    with (Path(logger.log_dir) / "metrics.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    curves = {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}
    watched = ("epoch/loss", "codebook/nmi", "codebook/pair_precision", "codebook/mean_cosine")
    bench.record(
        "real", f"{Path(options.data).name}, {file.stem}", epochs=trainer.current_epoch, seconds=seconds,
        knn_percent=[before, nearest_neighbour(bench, module, data)],
        **{name: [curves[name][0], curves[name][-1]] for name in watched if curves.get(name)},
    )  # fmt: skip


def nearest_neighbour(bench: GpuBench, module: ProSLModule, data: SkeletonDataModule) -> float:
    """1-NN accuracy in percent of the module as it is."""
    with torch.no_grad(), tf32(False):
        tables = extract_tables(module.to(bench.device), data)
    module.train()
    return knn_accuracy(tables.train, tables.train_labels, tables.test, tables.test_labels)


PARTS: dict[str, Callable[[GpuBench], None]] = {
    part.__name__: part for part in (agreement, step, codebook, importance, lightning, real)
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; the exit code is the number of errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that everything runs, times nothing")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: CUDA where there is one")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which parts to run")
    parser.add_argument("--minutes", type=float, default=20, help="begin nothing new after so long")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--data", help="archive of a real data set to train on")
    parser.add_argument("--config", default="nw-ucla", help="its configuration: a file, or a name in configs/")
    parser.add_argument("--protocol", help="its split rule, instead of the configuration's")
    options = parser.parse_args(arguments)
    logging.getLogger(NAMESPACE).setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        bench = GpuBench(options, Path(folder))
        chosen = [name for name in PARTS if name in options.parts and (name != "real" or options.data)]
        return bench.run({name: lambda part=PARTS[name]: part(bench) for name in chosen})  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main())
