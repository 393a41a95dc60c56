"""Data speed: raw text to arrays, random batches, opening; each beside the way public code does it, on one thread.

    python benchmarks/data.py --raw FOLDER --out data.json

`--raw` is a folder with real `.skeleton` files; generated ones are measured in any case. The two sides are timed only
after they agree, alternate, and are compared by medians of CPU time. `--scratch` needs room for the padded array, 0.18
MB a sequence; memory should hold it too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import reference_ntu
import torch
from harness import Bench
from torch.utils.data import default_collate

from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.data.conversion import prepare_source
from prosl_lightning.data.datamodule import ArchiveRows
from prosl_lightning.data.ntu import parse_skeleton, read_skeleton
from prosl_lightning.data.ntu_sets import NTU60
from prosl_lightning.data.ntu_source import open_ntu
from prosl_lightning.data.recipes import normalize_bodies
from prosl_lightning.data.synthetic.raw import write_skeleton_files
from prosl_lightning.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout.of("kinect-v2")
PROTOCOLS = 2  # public code reads and normalises everything once for each
BATCH, BLOCK = 64, 15
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}  # metres, for coordinates below 4 m


class Data:
    """The parts of the benchmark."""

    def __init__(self, bench: Bench, options: argparse.Namespace, scratch: Path) -> None:
        self.bench, self.options, self.scratch = bench, options, scratch
        self.parts: dict[str, Callable[[], None]] = {
            "batches": self.batches, "open": self.open, "text": self.text, "processes": self.processes
        }  # fmt: skip

    def text(self) -> None:
        """Raw text to normalised arrays."""
        keep_freed_memory()  # as `prosl prepare` does; both sides profit. It stays, so this part is not the first
        if self.options.raw:
            self._text("real files", sorted(Path(self.options.raw).rglob("*.skeleton")))
        self._text("generated files", write_skeleton_files(self.scratch / "text", num_samples=self.options.files))

    def _text(self, what: str, paths: Sequence[Path]) -> None:
        worst = max(_difference(path) for path in paths)
        if worst > TOLERANCE["float32"]:
            raise ValueError(f"the two readers differ by {worst:.1e} m: not timed")
        steps: dict[str, list[float]] = {}
        content = [path.read_bytes() for path in paths]
        bodies = [parse_skeleton(text) for text in content]
        padded = [reference_ntu.read_padded(path) for path in paths]
        joints = [normalize_bodies(body, LAYOUT, 2, "agcn") for body in bodies]
        for number in range(self.options.rounds):
            with ArchiveWriter(self.scratch / f"{what}-{number}", layout=LAYOUT, num_bodies=2) as writer:
                for name, work in {
                    "reference parse": lambda: [reference_ntu.read_padded(path) for path in paths],
                    "reference normalise": lambda: [reference_ntu.normalize(array.copy()) for array in padded],
                    "read": lambda: [path.read_bytes() for path in paths],
                    "parse": lambda: [parse_skeleton(text) for text in content],
                    "normalise": lambda: [normalize_bodies(body, LAYOUT, 2, "agcn") for body in bodies],
                    "together": lambda: [normalize_bodies(read_skeleton(p), LAYOUT, 2, "agcn") for p in paths],
                    "write": lambda w=writer: [w.add(f"{i}", one) for i, one in enumerate(joints)],
                }.items():  # fmt: skip
                    steps.setdefault(name, []).append(1e3 * _cpu_seconds(work) / len(paths))
        ms = {name: statistics.median(times) for name, times in steps.items()}
        once = ms["reference parse"] + ms["reference normalise"]
        self.bench.record(
            "text", what, files=len(paths), mean_kb=statistics.mean(map(len, content)) / 1e3, agreement_m=worst,
            target="30, goal 100", measured=PROTOCOLS * once / ms["together"],
            limit=PROTOCOLS * once / ms["read"], limit_is="reading the bytes", ms_per_file=ms,
        )  # fmt: skip

    def batches(self) -> None:
        """Random batches of sequences of different lengths, in memory as one array."""
        number = self.options.sequences
        archive, padded = _write_both(self.scratch, number)
        rows, order = ArchiveRows(archive, np.arange(number)), np.random.default_rng(1)
        _check_batch(padded, rows, order.permutation(number)[:BATCH])
        sides: dict[str, Callable[[np.ndarray], object]] = {
            "padded, item by item": lambda draw: default_collate([np.array(padded[i]) for i in draw]),
            "padded, indexed at once": lambda draw: torch.from_numpy(np.asarray(padded[draw])),
            "archive": rows.__getitems__,
            "copy of such a batch": lambda draw: batch.clone(),
        }
        batch = rows.__getitems__(order.permutation(number)[:BATCH]).joints
        times: dict[str, list[float]] = {name: [] for name in sides}
        for timed in (False, True):  # the first pass maps all pages and brings the files into memory
            draws = order.permutation(number)[: number - number % BATCH].reshape(-1, BATCH)
            for block in np.array_split(draws, max(1, len(draws) // BLOCK)):
                for name, work in sides.items():
                    seconds = [_cpu_seconds(lambda d=draw, w=work: w(d)) for draw in block]
                    times[name] += seconds if timed else []
        ms = {name: 1e3 * statistics.median(values) for name, values in times.items()}
        for name, target in (("padded, item by item", 8.0), ("padded, indexed at once", None)):
            self.bench.record(
                "batches", f"{BATCH} of {number} sequences against {name}", target=target,
                measured=ms[name] / ms["archive"], limit=ms[name] / ms["copy of such a batch"],
                limit_is="copying a batch", ms_per_batch=ms, sequences_per_second=1e3 * BATCH / ms["archive"],
            )  # fmt: skip
        size = sum(path.stat().st_size for path in archive.root.iterdir())
        self.bench.record(
            "batches", "size of padded array / archive", target=5.0, measured=padded.nbytes / size,
            padded_gb=padded.nbytes / 1e9, archive_gb=size / 1e9,
        )  # fmt: skip

    def open(self) -> None:
        """Opening a large archive. The frames are mapped and not read, so one a sequence serves."""
        number = self.options.open_sequences
        root = self.scratch / "large"
        with ArchiveWriter(root, layout=LAYOUT, num_bodies=2, protocols=NTU60.protocols) as writer:
            frame = np.ones((1, 25, 2, 3), np.float32)
            for i in range(number):
                writer.add(f"S{i % 32 + 1:03}C001P{i % 106 + 1:03}R{i:08}A001", frame, label=0, subject=i % 106,
                           camera=i % 3, setup=i % 32, replication=i % 2)  # fmt: skip
        index = root / "index.npy"
        opened, read = [], []
        for _ in range(10 * self.options.rounds):
            read.append(_cpu_seconds(lambda: hashlib.sha256(index.read_bytes()).digest()))
            opened.append(_cpu_seconds(lambda: Archive.open(root)))
        self.bench.record(
            "open", f"{number} sequences, milliseconds", target=50.0, measured=1e3 * statistics.median(opened),
            limit=1e3 * statistics.median(read), limit_is="reading and hashing the index",
        )  # fmt: skip

    def processes(self) -> None:
        """The whole of `prosl prepare` with one and with two processes; wall time, so a busy machine shows."""
        folder = self.scratch / "processes"
        folder.mkdir()
        made = write_skeleton_files(self.scratch / "once", num_samples=self.options.files, seed=1)
        number = self.options.copies * len(made)  # so many that starting a process does not count
        for i in range(number):
            name = f"S{1 + i % 17:03}C{1 + i // 17 % 3:03}P{1 + i // 51 % 40:03}R{1 + i // 2040:03}A001.skeleton"
            os.link(made[i % len(made)], folder / name)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(min(self.options.rounds, 3)):
            for jobs, times in seconds.items():
                out, begin = self.scratch / f"prepared-{turn}-{jobs}", time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):
                    prepare_source(open_ntu(folder, NTU60), out=out, jobs=jobs)
                times.append(time.perf_counter() - begin)
        one, two = (statistics.median(times) for times in seconds.values())
        self.bench.record(
            "processes", f"{number} files, 2 processes against 1", measured=one / two,
            limit=float(min(2, os.cpu_count() or 1)), limit_is="processors", load=os.getloadavg()[0],
            files_per_second=number / one,
        )  # fmt: skip


def _cpu_seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _difference(path: Path) -> float:
    """Greatest difference of the two sides on a file, in metres."""
    expected = reference_ntu.normalize(reference_ntu.read_padded(path))
    found = normalize_bodies(read_skeleton(path), LAYOUT, 2, "agcn").transpose(2, 0, 1, 3)[:, : reference_ntu.FRAMES]
    return float(np.abs(found - expected[:, : found.shape[1]]).max())


def _clips(number: int) -> Iterator[np.ndarray]:
    """Made-up sequences (T, V, M, C) of NTU-60's lengths: 84 frames in the mean, 24 % with two bodies."""
    draw = np.random.default_rng(0)
    pool = draw.normal(0, 0.5, (1000, 25, 2, 3)).astype(np.float32)
    for _ in range(number):
        frames, start = int(np.clip(draw.lognormal(np.log(78), 0.38), 20, 300)), int(draw.integers(700))
        clip = pool[start : start + frames].copy()
        clip[:, :, 1] *= draw.random() < 0.24
        yield clip


def _write_both(scratch: Path, number: int) -> tuple[Archive, np.ndarray]:
    shape = (number, 3, reference_ntu.FRAMES, 25, 2)
    padded = np.lib.format.open_memmap(scratch / "padded.npy", "w+", np.float32, shape)
    with ArchiveWriter(scratch / "archive", layout=LAYOUT, num_bodies=2) as writer:
        for row, clip in enumerate(_clips(number)):
            writer.add(f"{row}", clip)
            whole = np.zeros(shape[1:], np.float32)  # written in full: the file has no holes
            whole[:, : len(clip)] = clip.transpose(3, 0, 1, 2)
            padded[row] = whole
    padded.flush()
    return Archive.open(scratch / "archive"), np.load(scratch / "padded.npy", mmap_mode="r")


def _check_batch(padded: np.ndarray, rows: ArchiveRows, draw: np.ndarray) -> None:
    found = rows.__getitems__(draw).joints.numpy().astype(np.float32)
    worst = float(np.abs(padded[draw][:, :, : found.shape[2]] - found).max())
    if worst > TOLERANCE["float16"]:
        raise ValueError(f"the two batches differ by {worst:.1e} m: not timed")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", help="folder with real .skeleton files")
    parser.add_argument("--scratch", help="where files are made and removed again; default: the system's")
    parser.add_argument("--files", type=int, default=24, help="generated files")
    parser.add_argument("--copies", type=int, default=20, help="of them, for the processes")
    parser.add_argument("--sequences", type=int, default=12000, help="of the archive that batches are drawn from")
    parser.add_argument("--open-sequences", type=int, default=114_480)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--parts", nargs="+", choices=("batches", "open", "text", "processes"))
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bench = Bench(torch.device("cpu"), minutes=60, out=options.out)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        parts = Data(bench, options, Path(folder)).parts
        return bench.run({name: part for name, part in parts.items() if name in (options.parts or parts)})


if __name__ == "__main__":
    raise SystemExit(main())
