"""What grows with the number of sequences: opening, the data path, a training step, the codebook, memory.

Run `python benchmarks/scale.py --folder FOLDER`; the archives, 2.4 kB a sequence, are removed one by one. One thread,
short sequences (12 to 20 frames of 25 joints, one body) tiled from 2,000 different ones, a tiny encoder (a
large one only hides what grows). Each size runs in a process of its own. Memory is read from the kernel: `own` is
anonymous memory, which no other process shares; `mapped` are pages of files, shared with the page cache and with every
process that maps the same archive, and given up when memory is short.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from prosl_lightning import CodebookCallback, ProSLModule, SkeletonDataModule
from prosl_lightning._lightning import pl
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.data.archive import ArchiveWriter
from prosl_lightning.data.archive_writer import FRAMES, HEADER_BYTES, INDEX, META, frames_header, meta_text
from prosl_lightning.prosl.kmeans import kmeans
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import table

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
DIFFERENT, BATCH, STEPS, CLUSTERS, WIDTH = 2000, 64, 60, 65, 128
ROUNDS, ROUND = 15, 50  # passes over the data, batches of each
KIBIBYTE = 1024 / 1e6  # the kernel's unit, in MB
PROTOCOLS = {"x-sub": {"column": "subject", "train": list(range(1, 100))}}
MODEL = {
    "base": "hico-gru", "base_args": {"hidden_size": 16, "num_layers": 1, "projection_size": WIDTH}, "num_bodies": 1,
    "num_frames": 16, "min_crop_frames": 8, "bank_size": 2048, "semantic_start": 0, "num_clusters": CLUSTERS,
    "confidence_threshold": "relative",
}  # fmt: skip


def write_tiled(root: Path, num_sequences: int) -> None:
    """An archive whose sequences repeat those of a small one, written block by block."""
    small, draw = root.with_name("small"), np.random.default_rng(0)
    layout = SkeletonLayout.of("kinect-v2")
    with ArchiveWriter(small, layout=layout, num_bodies=1, class_names=("a", "b"), protocols=PROTOCOLS) as writer:
        for i in range(DIFFERENT):
            joints = draw.normal(size=(int(draw.integers(12, 21)), 25, 1, 3)) * 0.3
            writer.add(f"S{i:011d}", joints, label=i % 2, subject=1 + i % 100, camera=i % 3)
    times = num_sequences // DIFFERENT
    meta, few = json.loads((small / META).read_text()), np.load(small / INDEX)
    index = np.tile(few, times)
    index["name"] = [b"S%011d" % i for i in range(len(index))]
    block = (small / FRAMES).read_bytes()[HEADER_BYTES:]
    frames, digest = meta["num_frames"] * times, hashlib.sha256()
    root.mkdir()
    with (root / FRAMES).open("wb") as file:
        file.write(frames_header(np.dtype(meta["dtype"]), (frames, 3, 25, 1)))
        for _ in range(times):
            file.write(block)
            digest.update(block)
    buffer = io.BytesIO()
    np.save(buffer, index)
    (root / INDEX).write_bytes(buffer.getvalue())
    meta |= {"num_sequences": len(index), "num_frames": frames}
    meta["frames"] = {"bytes": HEADER_BYTES + len(block) * times, "sha256": digest.hexdigest()}
    meta["index"] = {"bytes": buffer.tell(), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    (root / META).write_text(meta_text(meta))
    shutil.rmtree(small)


def memory() -> dict[str, float]:
    """Resident memory of this process in MB (10^6 bytes): its own, and pages of mapped files."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        found[name.rstrip(":")] = int(value) * KIBIBYTE
    return {"own": found["Anonymous"], "mapped": found["Rss"] - found["Anonymous"]}


def peak_reset() -> None:
    """Let the kernel measure the peak from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Largest resident memory since then, MB."""
    return next(
        int(line.split()[1]) * KIBIBYTE
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )


class _Given(CodebookCallback):
    """A codebook out of thin air: its building is timed apart."""

    def build(self, trainer: Any, module: Any, epoch: int) -> None:
        count, draw = trainer.datamodule.num_samples, torch.Generator().manual_seed(0)
        centroids = F.normalize(torch.randn(CLUSTERS, WIDTH, generator=draw), dim=1)
        assignment = torch.randint(CLUSTERS, (count,), generator=draw)
        module.codebook.update(centroids, assignment, torch.ones(25))
        module.codebook.epoch.fill_(epoch)


class _Clock(pl.Callback):
    """Time of the steps after the first ten."""

    began = ended = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 10:
            self.began = time.process_time()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ended = time.process_time()


def data_path(data: SkeletonDataModule, found: dict[str, float]) -> None:
    """Time of the epoch's order and of a sample, and memory after a pass over a part."""
    loader, orders, times = data.train_dataloader(), [], []
    for epoch in range(ROUNDS):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        began = time.process_time()
        batches = iter(loader)
        next(batches)
        first = time.process_time()
        for _ in range(ROUND):
            next(batches)
        orders.append(first - began)
        times.append((time.process_time() - first) / (ROUND * BATCH))
    found["order ms"], found["load us"] = 1e3 * statistics.median(orders), 1e6 * statistics.median(times)


def training(data: SkeletonDataModule, found: dict[str, float]) -> None:
    """Time of a sample in a step of the semantic stage, and memory during training."""
    pl.seed_everything(0, verbose=False)
    module, clock = ProSLModule(**MODEL), _Clock()
    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[_Given(), clock],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    found["step us"] = 1e6 * (clock.ended - clock.began) / ((STEPS - 10) * BATCH)
    found |= {f"training {name}": value for name, value in memory().items()}
    with torch.no_grad():
        began, seen = time.process_time(), 0
        for batch in islice(data.feature_dataloader(), 20):
            module.key_features(module.prepare(batch))
            seen += len(batch.index)
        found["feature us"] = 1e6 * (time.process_time() - began) / seen


def codebook(count: int, found: dict[str, float]) -> None:
    """Time and peak memory of clustering as many features, first and warm."""
    draw = torch.Generator().manual_seed(0)
    modes = torch.randn(CLUSTERS, WIDTH, generator=draw)
    features = torch.empty(count, WIDTH)
    for part in features.split(10_000):
        own = torch.randint(CLUSTERS, (len(part),), generator=draw)
        part.copy_(F.normalize(modes[own] + torch.randn(part.shape, generator=draw), dim=1))
    held = memory()["own"]
    found["features MB"] = features.nbytes / 1e6
    peak_reset()
    start = None
    for name in ("first s", "warm s"):
        began = time.process_time()
        start = kmeans(features, CLUSTERS, seed=0, start=start, backend="torch").centroids
        found[name] = time.process_time() - began
    found["k-means MB"] = peak() - held - memory()["mapped"]


def measure(root: Path) -> dict[str, float]:
    """All figures of one archive."""
    torch.set_num_threads(1)
    silence_lightning()
    before, began = memory()["own"], time.process_time()
    data = SkeletonDataModule(str(root), batch_size=BATCH)
    data.setup("fit")
    found = {"sequences": len(data.archive), "train": data.num_samples}
    found["open ms"] = 1e3 * (time.process_time() - began)
    found["index MB"] = memory()["own"] - before
    data_path(data, found)
    training(data, found)
    codebook(data.num_samples, found)
    return found


COLUMNS = {
    "sequences": "{:,.0f}", "open ms": "{:.0f}", "index MB": "{:.1f}", "order ms": "{:.1f}", "load us": "{:.2f}",
    "step us": "{:.0f}", "feature us": "{:.0f}", "training own": "{:.0f}", "training mapped": "{:.0f}",
    "features MB": "{:.0f}", "k-means MB": "{:.0f}", "first s": "{:.1f}", "warm s": "{:.2f}",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/scale"), help="where archives are made and removed")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of sequences, in thousands' steps")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows = []
    for size in options.sizes:
        folder = options.folder / "prosl-scale"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        root = folder / "archive"
        write_tiled(root, size)
        command = [sys.executable, __file__, "--one", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        shutil.rmtree(folder)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append([text.format(found[name]) for name, text in COLUMNS.items()])
        print(table(list(COLUMNS), rows), flush=True)


if __name__ == "__main__":
    main()
