"""The memory rows of `make bench`: the peak of a training step, and the archive read by several processes at once.

As a script it is one of the measured processes: it takes steps or reads an archive, and prints megabytes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from bench_table import Disagreement, Row, Settings, peak_memory, reset_peak_memory

from prosl_lightning.data.archive import Archive

PROCESSES, PADDED_FRAMES = 3, 300


def memory(settings: Settings) -> list[Row]:
    """Both rows; on other systems than Linux one that says why not."""
    if not sys.platform.startswith("linux"):
        return [Row("memory", note="skipped: peaks and shares of pages are read from /proc, on Linux only")]
    return [step_memory(settings), archive_memory(settings)]


def step_memory(settings: Settings) -> Row:
    """Largest resident memory of a process that takes steps of the semantic stage."""
    batch, repeats = (4, 1) if settings.tiny else (64, 3)
    peaks: dict[str, list[float]] = {"reference": [], "ours": []}
    for _ in range(repeats):
        for side, values in peaks.items():
            values.append(_megabytes(["step", side, str(batch), *(["--tiny"] if settings.tiny else [])]))
    reference, ours = (statistics.median(values) for values in peaks.values())
    return Row(
        f"memory of a step, batch {batch}", f"{reference:,.0f} MB", f"{ours:,.0f} MB", reference / ours, 1, 1,
        note=f"median of {repeats} processes of its own each: largest resident memory (VmHWM) within two steps; both "
        "keep freed memory, as training does; Linux only",
        checks={f"{side}_megabytes_{i}": one for side, values in peaks.items() for i, one in enumerate(values, 1)},
    )  # fmt: skip


def archive_memory(settings: Settings) -> Row:
    """How often an archive lies in memory when several processes read all of it at once: their shares of its pages."""
    from prosl_lightning.data.synthetic import write_archive

    root, count = settings.folder / "memory", 40 if settings.tiny else 2000
    if not root.exists():
        write_archive(root, num_samples=count)
    archive = Archive.open(root)
    frames = archive.frames
    padded = float(len(archive) * PADDED_FRAMES * frames[0].size * 4)
    file = Path(frames.filename)  # type: ignore[attr-defined]
    readers = [
        subprocess.Popen([sys.executable, __file__, "read", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            if reader.stdout.readline().strip() != b"read":
                raise Disagreement("a process could not read the archive")
        shared = sum(_share_of_pages(reader.pid, file) for reader in readers)
    finally:
        for reader in readers:
            reader.communicate(b"\n")
    copies = shared / file.stat().st_size
    return Row(
        f"archive read by {PROCESSES} processes", f"{padded / 1e6:,.0f} MB (padded float32)", f"{shared / 1e6:,.0f} MB",
        copies, 1.05, 1.0005, unit="copies", better="less", limit="1 copy",
        note="the processes' shares (Pss) of the pages of the memory-mapped file, read once; worker processes are "
        "not needed; Linux only",
        checks={"file_megabytes": file.stat().st_size / 1e6, "padded_float32_over_ours": padded / shared},
    )  # fmt: skip


def _share_of_pages(process: int, file: Path) -> float:
    """Bytes of a mapped file in one process, pages that several have counted in parts (Linux)."""
    total, inside = 0, False
    for line in Path(f"/proc/{process}/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(file.name)
        elif inside and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return float(total)


def _megabytes(arguments: list[str]) -> float:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def take_steps(side: str, batch: int, tiny: bool) -> float:
    """Peak memory of this process within two steps, in MB."""
    import torch
    from bench_step import mid_training
    from reference_step import OurStep, ReferenceStep

    from prosl_lightning.allocator import keep_freed_memory

    torch.set_num_threads(1)
    module, views, index = mid_training("stage 2", batch, tiny)
    keep_freed_memory()  # as training does; for both sides, so that only their steps differ
    one = OurStep(module) if side == "ours" else ReferenceStep(module)
    del module
    one.train(views, index)
    reset_peak_memory()
    for _ in range(2):
        one.train(views, index)
    return 1e3 * peak_memory()


def read_all(root: str) -> None:
    """Read every frame, say so, and hold on until told to end."""
    archive = Archive.open(root)
    total = 0.0
    for start in range(0, len(archive.frames), 4096):
        total += float(np.asarray(archive.frames[start : start + 4096]).astype(np.float32).sum())
    assert np.isfinite(total)
    print("read", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("step", "read"))
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.what == "read":
        read_all(options.arguments[0])
    else:
        print(take_steps(options.arguments[0], int(options.arguments[1]), options.tiny))
