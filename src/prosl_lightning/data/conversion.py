"""What all importers share: a source read, normalised, written with progress, and a report of the outcome."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.data.archive_writer import RESERVED, UnwritableError
from prosl_lightning.data.parallel import map_in_order
from prosl_lightning.data.prepare_report import PrepareReport, print_report
from prosl_lightning.data.recipes import left_to_do, normalize_bodies
from prosl_lightning.data.source import RawSequence, Source
from prosl_lightning.data.units import body_size, size_warning
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted


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
    recipe, recorded = _recipe(source, normalize)
    writer = ArchiveWriter(
        out,
        layout=source.layout,
        num_bodies=bodies,
        class_names=source.class_names,
        protocols=source.protocols,
        recipe=recorded,
        source=Path(os.path.abspath(source.path)).name,
        dtype=dtype,
        overwrite=overwrite,
    )
    normalized = partial(_normalized, layout=source.layout, num_bodies=bodies, recipe=recipe)
    if source.read is not None:
        prepared = map_in_order(partial(_read_and_normalize, source.read, normalized), source.items, jobs)
    else:
        prepared = (normalized(sequence) for sequence in source)
    report = write_all(writer, prepared, len(source), strict, left_out=source.left_out, bad=source.bad)
    print_report(report, source.official)
    for note in source.notes:
        print(note)
    return report


def _recipe(source: Source, normalize: str | None) -> tuple[str, dict[str, Any]]:
    """The recipe to run, and what the archive says of its coordinates: what they are, not what was done last."""
    wanted = normalize or source.already or source.normalize
    if wanted == "none":
        wanted = source.already or wanted
    recipe = left_to_do(wanted, source.already)
    recorded: dict[str, Any] = {"importer": source.format, "normalize": wanted}
    if wanted == source.already:
        recorded["normalized_by"] = "the files"
        source.notes.append("coordinates are kept as they are: nothing is centred or turned twice")
    if source.column_names:
        recorded["column_names"] = {column: list(names) for column, names in source.column_names.items()}
    return recipe, recorded


def _read_and_normalize(
    read: Callable[[Any], RawSequence], normalized: Callable[[RawSequence], RawSequence], item: Any
) -> RawSequence:
    return normalized(read(item))


def _normalized(sequence: RawSequence, layout: SkeletonLayout, num_bodies: int, recipe: str) -> RawSequence:
    """Normalise what an importer read; damage becomes its error. See :func:`normalize_bodies`."""
    if sequence.bodies is None:
        return sequence
    try:
        joints = normalize_bodies(sequence.bodies, layout, num_bodies, recipe)
    except DataError as error:
        return replace(sequence, bodies=None, error=str(error))
    return replace(sequence, bodies=joints.transpose(0, 2, 1, 3))


def write_all(
    writer: ArchiveWriter,
    sequences: Generator[RawSequence, None, None],
    total: int,
    strict: bool,
    *,
    left_out: Mapping[str, list[str]] | None = None,
    bad: Sequence[tuple[str, str]] = (),
) -> PrepareReport:
    """Write every usable sequence, showing progress on stderr; the archive records how many were not.

    Args:
        writer: A new writer; it is entered and completed here.
        sequences: In the order of the archive, normalised.
        total: How many there will be, for the progress line.
        strict: Stop at the first one that cannot be used.
        left_out: What was passed over on purpose: reason -> names.
        bad: Source and reason of what could not be used already.

    Raises:
        DataError: Nothing is usable, something is not and ``strict`` is set, or the archive cannot be written.
    """
    sizes: list[float] = []
    report = PrepareReport(writer.root, left_out=dict(left_out or {}), bad=list(bad))
    with closing(sequences), writer:
        for item in show_progress(sequences, total, "prepared"):
            reason = item.error
            if taken := set(item.columns) & set(RESERVED):
                raise UsageError(f"'{min(taken)}' is a column of every archive; give that of the files another name")
            if item.bodies is not None:
                sizes.append(body_size(item.bodies))
                try:
                    writer.add(item.name, item.bodies.transpose(0, 2, 1, 3), label=item.label, **item.columns)
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
            raise DataError(f"nothing usable among {counted(total, 'sequence')}{first}")
        writer.counts = {"read": total} | {reason: len(names) for reason, names in report.left_out.items()}
        writer.counts["could not be used"] = len(report.bad)
    report.size_warning = size_warning(sizes, writer.layout)
    archive = Archive.open(writer.root)
    report.num_sequences, report.num_frames, report.columns = len(archive), len(archive.frames), tuple(archive.columns)
    for protocol in archive.protocols:
        train, test = archive.split(protocol)
        report.splits[protocol] = (len(train), len(test))
        report.neither[protocol] = len(archive) - len(np.union1d(train, test))
    return report


def show_progress(sequences: Iterable[RawSequence], total: int, done_to_them: str) -> Iterator[RawSequence]:
    """Pass the sequences on and say on stderr once a second (once in ten into a file) how far it is."""
    terminal = sys.stderr.isatty()
    start = shown = time.monotonic()
    for done, sequence in enumerate(sequences, start=1):
        yield sequence
        now = time.monotonic()
        if now - shown >= (1.0 if terminal else 10.0) or (done == total and shown > start):
            shown = now
            rate = done / (now - start)
            text = f"{done_to_them} {done} of {total}, {rate:.0f} a second, {(total - done) / rate:.0f} s left"
            print(f"\r{text:<79}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
    if terminal and shown > start:
        print(file=sys.stderr)
