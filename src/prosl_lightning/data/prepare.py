"""`prosl prepare`: raw files or arrays to one archive; what cannot be used is named and passed over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.data.archive import ArchiveWriter
from prosl_lightning.data.archive_writer import refuse_occupied
from prosl_lightning.data.arrays import KnownSet, RaggedFile, known_sets, parse_protocol
from prosl_lightning.data.conversion import (
    Prepared,
    PrepareReport,
    normalize_bodies,
    print_report,
    write_all,
)
from prosl_lightning.data.ntu import read_skeleton
from prosl_lightning.data.ntu_sets import NTU60, NTU120, NtuSet, parse_name
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts


def ntu60(
    raw_dir: str,
    *,
    out: str,
    strict: bool = False,
    jobs: int = 1,
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> PrepareReport:
    """Make an archive from the raw `.skeleton` files of NTU RGB+D 60; protocols x-sub and x-view.

    Args:
        raw_dir: Folder with the files, searched with all folders below it.
        out: Folder of the archive to make.
        strict: Stop at the first file that cannot be used.
        jobs: Processes that read and normalise.
        dtype: Number format of the coordinates.
        overwrite: Replace an archive that exists.

    Returns:
        What was written and what was not.

    Raises:
        DataError: No file can be used, or the archive cannot be written.
    """
    return _ntu(NTU60, raw_dir, out, strict, jobs, dtype, overwrite)


def ntu120(
    raw_dir: str,
    *,
    out: str,
    strict: bool = False,
    jobs: int = 1,
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> PrepareReport:
    """Make an archive from the raw `.skeleton` files of NTU RGB+D 120; protocols x-sub and x-set.

    Args:
        raw_dir: Folder with the files, searched with all folders below it.
        out: Folder of the archive to make.
        strict: Stop at the first file that cannot be used.
        jobs: Processes that read and normalise.
        dtype: Number format of the coordinates.
        overwrite: Replace an archive that exists.

    Returns:
        What was written and what was not.

    Raises:
        DataError: No file can be used, or the archive cannot be written.
    """
    return _ntu(NTU120, raw_dir, out, strict, jobs, dtype, overwrite)


def arrays(
    file: str,
    *,
    out: str,
    layout: str | None = None,
    protocol: str = "",
    class_names: str | None = None,
    num_bodies: int | None = None,
    normalize: Literal["agcn", "upright", "none"] | None = None,
    strict: bool = False,
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> PrepareReport:
    """Make an archive from one npz file in the ragged format (``joints``, ``lengths``, ``labels``, ...).

    Files named after a known data set (nw-ucla.npz, irds.npz, ...) bring their layout, classes and splits along.

    Args:
        file: The npz file: joints float (F, bodies, joints, 3), lengths int (N), further int (N) arrays, names str (N).
        out: Folder of the archive to make.
        layout: Body model: a packaged name or a YAML file; needed unless the file is a known data set.
        protocol: Further splits, each NAME:COLUMN=1,2,3 with the values that train (all others test); blanks between.
        class_names: Text file with one class name a line, in label order.
        num_bodies: Bodies to keep, the most moving first; default: as many as the file has, at most 2.
        normalize: agcn centres every frame and turns spine and shoulders to the axes; upright does so about the spine
            only (for people who face any direction); none keeps the coordinates. Default: agcn unless the file is a
            known data set that needs upright.
        strict: Stop at the first sequence that cannot be used.
        dtype: Number format of the coordinates.
        overwrite: Replace an archive that exists.

    Returns:
        What was written and what was not.

    Raises:
        DataError: The file cannot be used, or nothing in it can.
        UsageError: An option does not fit.
    """
    refuse_occupied(Path(out).absolute(), overwrite)
    ragged = RaggedFile(file)
    known = known_sets().get(ragged.path.stem)
    body_model = _layout(layout, known, ragged)
    if known and body_model.joints != (own := SkeletonLayout.of(known.layout)).joints:
        print(f"warning: {ragged.path.stem} has layout {own.name}, not {body_model.name}", file=sys.stderr)
    bodies = min(ragged.num_bodies, 2) if num_bodies is None else num_bodies
    recipe = normalize or (known.normalize if known else "agcn")
    writer = ArchiveWriter(
        out,
        layout=body_model,
        num_bodies=bodies,
        class_names=_class_names(class_names, known),
        protocols=dict(known.protocols if known else {}) | dict(map(parse_protocol, protocol.split())),
        recipe={"importer": "arrays", "normalize": recipe},
        source=ragged.path.name,
        dtype=dtype,
        overwrite=overwrite,
    )
    sequences = _from_arrays(ragged, body_model, bodies, recipe)
    report = write_all(writer, sequences, len(ragged), strict)
    print_report(report)
    if list(report.splits) == ["all"]:
        columns = ", ".join(column for column in ragged.columns) or "none"
        print(f"no split is known: give one as --protocol NAME:COLUMN=1,2,3; integer columns are {columns}")
    if ragged.ignored:
        print(f"not used, because not integers (N,): {', '.join(ragged.ignored)}")
    return report


def _layout(name: str | None, known: KnownSet | None, ragged: RaggedFile) -> SkeletonLayout:
    if name is None and known is None:
        raise UsageError(
            f"{ragged.path.name} is not a known data set ({', '.join(known_sets())}): give its body model with\n"
            f"--layout NAME or FILE.yaml; packaged are {', '.join(packaged_layouts())}"
        )
    layout = SkeletonLayout.of(name or known.layout)  # type: ignore[union-attr]
    if layout.num_joints != ragged.num_joints:
        raise DataError(
            f"{ragged.path}: {ragged.num_joints} joints, but layout '{layout.name}' has {layout.num_joints}; "
            "choose another with --layout"
        )
    return layout


def _class_names(file: str | None, known: KnownSet | None) -> tuple[str, ...]:
    if file is None:
        return known.class_names if known else ()
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: class names cannot be read ({error})") from error
    return tuple(line.strip() for line in lines if line.strip())


def _from_arrays(
    ragged: RaggedFile, layout: SkeletonLayout, num_bodies: int, normalize: str
) -> Generator[Prepared, None, None]:
    for row, (name, bodies) in enumerate(zip(ragged.names, ragged, strict=True)):
        source = f"{ragged.path.name}, sequence {row} ({name})"
        columns = {column: int(values[row]) for column, values in ragged.columns.items()}
        try:
            joints = normalize_bodies(bodies, layout, num_bodies, normalize)
        except DataError as error:
            yield Prepared(source, name, error=str(error))
        else:
            yield Prepared(source, name, joints, label=int(ragged.labels[row]), columns=columns)


def _ntu(ntu: NtuSet, raw_dir: str, out: str, strict: bool, jobs: int, dtype: str, overwrite: bool) -> PrepareReport:
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; expected at least 1")
    refuse_occupied(Path(out).absolute(), overwrite)
    root = Path(raw_dir)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder")
    found = sorted(root.rglob("*.skeleton"), key=lambda path: (path.stem, str(path)))
    if not found:
        raise DataError(f"{root}: no .skeleton files in it or below it")
    chosen = _select(ntu, found)
    if strict and chosen.repeated:
        raise DataError(": ".join(chosen.repeated[0]))
    layout = SkeletonLayout.of("kinect-v2")
    writer = ArchiveWriter(
        out,
        layout=layout,
        num_bodies=2,
        class_names=ntu.class_names,
        protocols=ntu.protocols,
        recipe={"importer": ntu.name, "normalize": "agcn"},
        source=f"{ntu.name} .skeleton files",
        dtype=dtype,
        overwrite=overwrite,
    )
    prepared = _map(partial(_prepare_file, layout=layout), chosen.files, jobs)
    report = write_all(writer, prepared, len(chosen.files), strict)
    report.dropped, report.foreign = chosen.dropped, chosen.foreign
    report.bad.extend(chosen.repeated)
    print_report(report, ntu.official)
    return report


@dataclass
class _Selection:
    """Files to read (wrongly named ones among them), names on the published list, files of other sets, doubles."""

    files: list[Path] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    foreign: int = 0
    repeated: list[tuple[str, str]] = field(default_factory=list)


def _select(ntu: NtuSet, found: Sequence[Path]) -> _Selection:
    """Sort out what to read; ``found`` is sorted by stem."""
    selection, missing = _Selection(), ntu.missing
    for path in found:
        try:
            ours = ntu.contains(parse_name(path.stem))
        except DataError:
            ours = True
        if path.stem in missing:
            selection.dropped.append(path.stem)
        elif not ours:
            selection.foreign += 1
        elif selection.files and selection.files[-1].stem == path.stem:
            selection.repeated.append((str(path), f"the same name as {selection.files[-1]}"))
        else:
            selection.files.append(path)
    return selection


def _prepare_file(path: Path, layout: SkeletonLayout) -> Prepared:
    try:
        fields = parse_name(path.stem)
        joints = normalize_bodies(read_skeleton(path), layout, 2, "agcn")
    except DataError as error:
        return Prepared(str(path), path.stem, error=str(error).removeprefix(f"{path}: "))
    return Prepared(str(path), path.stem, joints, label=fields.pop("action") - 1, columns=fields)


def _map(function: Callable[[Path], Prepared], files: Sequence[Path], jobs: int) -> Generator[Prepared, None, None]:
    """The results in the order of the files, from this process or from several."""
    keep_freed_memory()
    if jobs == 1:
        yield from map(function, files)
        return
    pool = ProcessPoolExecutor(jobs, initializer=keep_freed_memory)
    try:
        yield from pool.map(function, files, chunksize=16)
    except BrokenProcessPool as error:
        raise DataError(f"a reading process died (out of memory?); try fewer than --jobs {jobs}") from error
    finally:
        pool.shutdown(cancel_futures=True)
