"""What all importers share: a source read, normalised, written with progress, and a report of the outcome."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.data.archive_writer import UnwritableError
from prosl_lightning.data.normalize import FloatArray, normalize_agcn
from prosl_lightning.data.normalize_crossclr import normalize_crossclr
from prosl_lightning.data.parallel import map_in_order
from prosl_lightning.data.source import RawSequence, Source
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import table

NORMALIZATIONS = ("agcn", "upright", "crossclr", "none")


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
        columns: Integer columns of its index.
        splits: Training and test sequences by protocol.
        left_out: What was passed over on purpose: reason -> names.
        bad: Source and reason of everything that could not be used.
    """

    root: Path
    num_sequences: int = 0
    num_frames: int = 0
    columns: tuple[str, ...] = ()
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)


def prepare_source(
    source: Source,
    *,
    out: str | Path,
    normalize: str | None = None,
    num_bodies: int | None = None,
    strict: bool = False,
    jobs: int = 1,
    dtype: str = "float16",
    overwrite: bool = False,
) -> PrepareReport:
    """Normalise all sequences of an opened source, write them to an archive, and print the outcome.

    Memory does not grow with the number of sequences.

    Args:
        source: What to read.
        out: Folder of the archive to make.
        normalize: The recipe, see :func:`normalize_bodies`; None: the source's own.
        num_bodies: Bodies to keep, M; None: as the source says.
        strict: Stop at the first sequence that cannot be used.
        jobs: Processes that read and normalise, where the source can be read by several.
        dtype: Number format of the coordinates, ``float16`` or ``float32``.
        overwrite: Replace an archive that exists.

    Raises:
        DataError: Nothing can be used, or the archive cannot be written.
        UsageError: An option does not fit.
    """
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; expected at least 1")
    if strict and source.bad:
        raise DataError(f"{': '.join(source.bad[0])}\nleave out --strict to go on without such files")
    bodies = source.num_bodies if num_bodies is None else num_bodies
    recipe = normalize or source.normalize
    writer = ArchiveWriter(
        out,
        layout=source.layout,
        num_bodies=bodies,
        class_names=source.class_names,
        protocols=source.protocols,
        recipe={"importer": source.format, "normalize": recipe},
        source=source.path.name,
        dtype=dtype,
        overwrite=overwrite,
    )
    normalized = partial(normalize_sequence, layout=source.layout, num_bodies=bodies, recipe=recipe)
    if source.read is not None:
        prepared = map_in_order(partial(_read_and_normalize, source.read, normalized), source.items, jobs)
    else:
        prepared = (normalized(sequence) for sequence in source)
    report = write_all(writer, prepared, len(source), strict, left_out=source.left_out, bad=source.bad)
    print_report(report, source.official)
    for note in source.notes:
        print(note)
    return report


def _read_and_normalize(
    read: Callable[[Any], RawSequence], normalized: Callable[[RawSequence], Prepared], item: Any
) -> Prepared:
    return normalized(read(item))


def normalize_bodies(bodies: FloatArray, layout: SkeletonLayout, num_bodies: int, recipe: str) -> NDArray[np.float32]:
    """Bring one sequence into the archive's form.

    Args:
        bodies: Raw coordinates ``(T, B, V, C)``; absent bodies are zero.
        layout: The body model.
        num_bodies: Bodies to keep, M.
        recipe: ``agcn`` or ``upright`` (:func:`~prosl_lightning.data.normalize.normalize_agcn`), ``crossclr``
            (:func:`~prosl_lightning.data.normalize_crossclr.normalize_crossclr`; T is 50 then), or ``none`` (the first
            M bodies as they are).

    Returns:
        ``(T, V, M, C)`` float32.

    Raises:
        DataError: No frame, a value that is not finite or too large, or nobody in any frame.
        UsageError: The recipe is unknown.
    """
    if recipe not in NORMALIZATIONS:
        raise UsageError(f"normalize is '{recipe}'; expected {' or '.join(NORMALIZATIONS)}")
    if len(bodies) == 0:
        raise DataError("no frames")
    if not np.isfinite(bodies).all():
        finite = np.isfinite(bodies).all(axis=(1, 2, 3))
        raise DataError(
            f"NaN or infinity in {int((~finite).sum())} of {len(bodies)} frames, first in frame {finite.argmin()}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # absurd values end as infinity, which is refused below
        chosen = _by_recipe(bodies, layout, num_bodies, recipe)
    if not np.isfinite(chosen).all():
        raise DataError(f"coordinates up to {np.abs(bodies).max():.3g} are too large to be normalised")
    if not chosen.any():
        raise DataError("nobody in any frame")
    return chosen.transpose(0, 2, 1, 3)


def _by_recipe(bodies: FloatArray, layout: SkeletonLayout, num_bodies: int, recipe: str) -> NDArray[np.float32]:
    if recipe == "crossclr":
        return normalize_crossclr(bodies, layout, num_bodies)
    if recipe != "none":
        return normalize_agcn(bodies, layout, num_bodies, upright=recipe == "upright")
    chosen = np.zeros((len(bodies), num_bodies, *bodies.shape[2:]), dtype=np.float32)
    chosen[:, : bodies.shape[1]] = bodies[:, :num_bodies]
    return chosen


def normalize_sequence(sequence: RawSequence, layout: SkeletonLayout, num_bodies: int, recipe: str) -> Prepared:
    """Normalise what an importer read; damage becomes ``Prepared.error``. See :func:`normalize_bodies`."""
    prepared = Prepared(sequence.source, sequence.name, None, sequence.error, sequence.label, sequence.columns)
    if sequence.bodies is None:
        return prepared
    try:
        return replace(prepared, joints=normalize_bodies(sequence.bodies, layout, num_bodies, recipe))
    except DataError as error:
        return replace(prepared, error=str(error))


def write_all(
    writer: ArchiveWriter,
    sequences: Generator[Prepared, None, None],
    total: int,
    strict: bool,
    *,
    left_out: Mapping[str, list[str]] | None = None,
    bad: Sequence[tuple[str, str]] = (),
) -> PrepareReport:
    """Write every usable sequence, showing progress on stderr; the archive records how many were not.

    Args:
        writer: A new writer; it is entered and completed here.
        sequences: In the order of the archive.
        total: How many there will be, for the progress line.
        strict: Stop at the first one that cannot be used.
        left_out: What was passed over on purpose: reason -> names.
        bad: Source and reason of what could not be used already.

    Raises:
        DataError: Nothing is usable, something is not and ``strict`` is set, or the archive cannot be written.
    """
    report = PrepareReport(writer.root, left_out=dict(left_out or {}), bad=list(bad))
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
        writer.counts = {"read": total} | {reason: len(names) for reason, names in report.left_out.items()}
        writer.counts["could not be used"] = len(report.bad)
    archive = Archive.open(writer.root)
    report.num_sequences, report.num_frames, report.columns = len(archive), len(archive.frames), tuple(archive.columns)
    for protocol in archive.protocols:
        train, test = archive.split(protocol)
        report.splits[protocol] = (len(train), len(test))
    return report


def print_report(report: PrepareReport, official: Mapping[str, tuple[int, int]] | None = None) -> None:
    """Print what was written, what was left out and why, and the size of each split beside the official one.

    Where a split has another size than the official one, a warning on stderr says by how much.

    Args:
        report: What :func:`write_all` returned.
        official: Published sizes (train, test) by protocol.
    """
    official = official or {}
    size = sum(path.stat().st_size for path in report.root.iterdir())
    print(f"{report.root}: {report.num_sequences} sequences, {report.num_frames} frames, {size / 1e6:.1f} MB")
    for reason, names in report.left_out.items():
        print(f"{reason}: {len(names)}")
    print(f"could not be used: {len(report.bad)}")
    for source, reason in report.bad:
        print(f"  {source}: {reason}")
    rows = [
        [name, *sizes, "{:,} / {:,}".format(*official[name]) if name in official else ""]
        for name, sizes in report.splits.items()
    ]
    header = ["protocol", "train", "test", "official"]
    print(table(header, rows) if official else table(header[:3], [row[:3] for row in rows]))
    if list(report.splits) == ["all"]:
        columns = ", ".join(report.columns) or "none"
        print(f"no split is known: give one as --protocol NAME:COLUMN=1,2,3; integer columns are {columns}")
    differences = [_difference(name, report.splits[name], sizes) for name, sizes in official.items()]
    for line in filter(None, differences):
        print(f"warning: {line}", file=sys.stderr)


def _difference(protocol: str, found: tuple[int, int], official: tuple[int, int]) -> str:
    """What one split lacks or has too much; empty when its sizes are the official ones."""
    parts = []
    for side, here, wanted in zip(("train", "test"), found, official, strict=True):
        if here != wanted:
            what = "missing" if here < wanted else "more than expected"
            parts.append(f"{here:,} of {wanted:,} {side}, {abs(here - wanted):,} {what}")
    return f"{protocol}: {'; '.join(parts)}" if parts else ""


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
