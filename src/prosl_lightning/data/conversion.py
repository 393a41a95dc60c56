"""What all importers share: one sequence made ready, all of them written with progress, and a report of the outcome."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.data.archive_writer import UnwritableError
from prosl_lightning.data.normalize import FloatArray, normalize_agcn
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

NORMALIZATIONS = ("agcn", "upright", "none")


@dataclass(frozen=True)
class Prepared:
    """One sequence ready for the archive, or the reason why it cannot be used.

    Attributes:
        source: File (and row) it comes from, for messages.
        name: Its name in the archive.
        joints: ``(T, V, M, C)``, or None when it cannot be used.
        error: The reason, empty when it can be used.
        label: Its class, -1 where unknown.
        columns: Its integers in the index.
    """

    source: str
    name: str
    joints: NDArray[np.float32] | None = None
    error: str = ""
    label: int = -1
    columns: Mapping[str, int] = field(default_factory=dict)


@dataclass
class PrepareReport:
    """Outcome of a preparation.

    Attributes:
        root: The archive.
        num_sequences: Sequences in it.
        num_frames: Frames in it.
        splits: Training and test sequences by protocol.
        dropped: Names left out because a published list says so.
        foreign: Files of another data set, passed over.
        bad: Source and reason of everything that could not be used.
    """

    root: Path
    num_sequences: int = 0
    num_frames: int = 0
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    foreign: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)


def normalize_bodies(bodies: FloatArray, layout: SkeletonLayout, num_bodies: int, recipe: str) -> NDArray[np.float32]:
    """Bring one sequence into the archive's form.

    Args:
        bodies: Raw coordinates ``(T, B, V, C)``; absent bodies are zero.
        layout: The body model.
        num_bodies: Bodies to keep, M.
        recipe: ``agcn`` or ``upright`` (:func:`~prosl_lightning.data.normalize.normalize_agcn`), or ``none`` (the
            first M bodies as they are).

    Returns:
        ``(T, V, M, C)`` float32.

    Raises:
        DataError: No frame, a value that is not finite, or nobody in any frame.
        UsageError: The recipe is unknown.
    """
    if recipe not in NORMALIZATIONS:
        raise UsageError(f"normalize is '{recipe}'; expected {' or '.join(NORMALIZATIONS)}")
    if len(bodies) == 0:
        raise DataError("no frames")
    finite = np.isfinite(bodies).all(axis=(1, 2, 3))
    if not finite.all():
        raise DataError(
            f"NaN or infinity in {int((~finite).sum())} of {len(bodies)} frames, first in frame {finite.argmin()}"
        )
    if recipe != "none":
        chosen = normalize_agcn(bodies, layout, num_bodies, upright=recipe == "upright")
    else:
        chosen = np.zeros((len(bodies), num_bodies, *bodies.shape[2:]), dtype=np.float32)
        kept = min(num_bodies, bodies.shape[1])
        chosen[:, :kept] = bodies[:, :kept]
    if not chosen.any():
        raise DataError("nobody in any frame")
    return chosen.transpose(0, 2, 1, 3)


def write_all(
    writer: ArchiveWriter, sequences: Generator[Prepared, None, None], total: int, strict: bool
) -> PrepareReport:
    """Write every usable sequence, showing progress on stderr, and print the outcome.

    Args:
        writer: A new writer; it is entered and completed here.
        sequences: In the order of the archive.
        total: How many there will be, for the progress line.
        strict: Stop at the first one that cannot be used.

    Raises:
        DataError: Nothing is usable, something is not and ``strict`` is set, or the archive cannot be written.
    """
    report = PrepareReport(writer.root)
    with closing(sequences), writer:
        for item in _progress(sequences, total):
            reason = item.error
            if item.joints is not None:
                try:
                    writer.add(item.name, item.joints, label=item.label, **item.columns)
                except UnwritableError:
                    raise
                except DataError as error:
                    reason = str(error)
            if reason and strict:
                raise DataError(f"{item.source}: {reason}\nleave out --strict to go on without such files")
            if reason:
                report.bad.append((item.source, reason))
        if len(writer) == 0:
            first = f"; the first: {report.bad[0][0]}: {report.bad[0][1]}" if report.bad else ""
            raise DataError(f"nothing usable among {total} sequences{first}")
    archive = Archive.open(writer.root)
    report.num_sequences, report.num_frames = len(archive), len(archive.frames)
    for protocol in archive.protocols:
        train, test = archive.split(protocol)
        report.splits[protocol] = (len(train), len(test))
    return report


def print_report(report: PrepareReport, official: Mapping[str, tuple[int, int]] | None = None) -> None:
    """Print what was written, what was left out and why, and the size of each split beside the official one.

    Args:
        report: What :func:`write_all` returned.
        official: Published sizes (train, test) by protocol.
    """
    official = official or {}
    size = sum(path.stat().st_size for path in report.root.iterdir())
    print(f"{report.root}: {report.num_sequences} sequences, {report.num_frames} frames, {size / 1e6:.1f} MB")
    if official:
        print(
            f"on the published list of missing skeletons: {len(report.dropped)}; of other data sets: {report.foreign}"
        )
    print(f"could not be used: {len(report.bad)}")
    for source, reason in report.bad:
        print(f"  {source}: {reason}")
    rows = [("protocol", "train", "test", "official")] + [
        (name, str(train), str(test), "{} / {}".format(*official[name]) if name in official else "")
        for name, (train, test) in report.splits.items()
    ]
    print(_table(rows if official else [row[:3] for row in rows]))
    if any(report.splits[name] != sizes for name, sizes in official.items()):
        print("note: sizes differ from the official ones, so this is not the whole data set")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _progress(items: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass the items on and say once a second (once in ten into a file) how far it is."""
    terminal = sys.stderr.isatty()
    start = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= (1.0 if terminal else 10.0) or (done == total and shown > start):
            shown = now
            rate = done / (now - start)
            text = f"prepared {done} of {total}, {rate:.0f} a second, {(total - done) / rate:.0f} s left"
            print(f"\r{text:<79}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
    if terminal and shown > start:
        print(file=sys.stderr)
