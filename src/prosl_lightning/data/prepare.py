"""`prosl prepare`: raw files or arrays to one archive; what cannot be used is named and passed over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.archive_writer import refuse_occupied
from prosl_lightning.data.conversion import prepare_source
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.formats.known_sets import parse_protocol
from prosl_lightning.data.ntu_sets import NTU60, NTU120
from prosl_lightning.data.ntu_source import open_ntu
from prosl_lightning.data.pku_source import MIN_FRAMES, open_pku
from prosl_lightning.data.prepare_report import PrepareReport
from prosl_lightning.data.source import Source, name_classes
from prosl_lightning.errors import DataError

__all__ = ["PrepareReport", "arrays", "ntu60", "ntu120", "pku1", "pku2", "prepare_source"]

Normalize = Literal["agcn", "crossclr", "upright", "none"]


def ntu60(raw: str, *, out: str, **options: Any) -> PrepareReport:
    """Make an archive from the raw recordings of NTU RGB+D 60; protocols x-sub and x-view.

    Args:
        raw: Folder with `.skeleton` files or the distributed zip files, at any depth; or one such file.
        out: Folder of the archive to make.
        options: Those of :func:`convert`.
    """
    return convert(partial(open_ntu, raw, NTU60), out, **options)


def ntu120(raw: str, *, out: str, **options: Any) -> PrepareReport:
    """Make an archive from the raw recordings of NTU RGB+D 120; protocols x-sub, x-set and one-shot.

    Args:
        raw: Folder with `.skeleton` files or the distributed zip files, at any depth; or one such file.
        out: Folder of the archive to make.
        options: Those of :func:`convert`.
    """
    return convert(partial(open_ntu, raw, NTU120), out, **options)


def pku1(raw: str, *, out: str, **options: Any) -> PrepareReport:
    """Make an archive of the labelled clips of PKU-MMD phase I; protocols x-sub and x-view.

    Args:
        raw: Folder with skeleton files, label files and, if there are any, split files, at any depth.
        out: Folder of the archive to make.
        options: Those of :func:`convert_pku`.
    """
    return convert_pku(raw, 1, out, **options)


def pku2(raw: str, *, out: str, **options: Any) -> PrepareReport:
    """Make an archive of the labelled clips of PKU-MMD phase II; protocols x-sub and x-view.

    Args:
        raw: Folder with skeleton files, label files and, if there are any, split files, at any depth.
        out: Folder of the archive to make.
        options: Those of :func:`convert_pku`.
    """
    return convert_pku(raw, 2, out, **options)


def convert_pku(
    raw: str, part: int, out: str, *, zero_based: bool = False, min_frames: int = MIN_FRAMES, **options: Any
) -> PrepareReport:
    """Make an archive of one phase of PKU-MMD.

    Args:
        raw: Folder of the files.
        part: Phase, 1 or 2.
        out: Folder of the archive to make.
        zero_based: Read label frames as start:end, from 0 and without the end, not from 1 and with it.
        min_frames: Clips with fewer frames are listed and left out.
        options: Those of :func:`convert`.
    """
    report = convert(partial(open_pku, raw, part, zero_based=zero_based, min_frames=min_frames), out, **options)
    archive = Archive.open(report.root)
    late = archive.names[archive.columns["cut"] > 0].tolist() if "cut" in archive.columns else []
    if late:
        print(f"end after their video and were shortened (column cut): {len(late)}: {', '.join(late[:10])}")
    return report


def convert(
    opened: Callable[[], Source],
    out: str,
    *,
    normalize: Normalize = "agcn",
    strict: bool = False,
    jobs: int = 1,
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> PrepareReport:
    """Make an archive from recordings, which are opened once it is known that the archive may be written.

    Args:
        opened: Opens the recordings.
        out: Folder of the archive to make.
        normalize: agcn (as 2s-AGCN, HiCo), crossclr (as CrosSCLR, AimCLR), upright (agcn, turned about the spine only),
            or none.
        strict: Stop at the first recording that cannot be used.
        jobs: Processes that read and normalise.
        dtype: Number format of the coordinates.
        overwrite: Replace an archive that exists.

    Returns:
        What was written and what was not.

    Raises:
        DataError: Nothing can be used, or the archive cannot be written.
    """
    refuse_occupied(Path(out).absolute(), overwrite)
    return prepare_source(
        opened(), out=out, normalize=normalize, strict=strict, jobs=jobs, dtype=dtype, overwrite=overwrite
    )


def arrays(
    file: str,
    *,
    out: str,
    format: str | None = None,
    layout: str | None = None,
    protocol: str = "",
    class_names: str | None = None,
    num_bodies: int | None = None,
    normalize: Normalize | None = None,
    strict: bool = False,
    jobs: int = 1,
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> PrepareReport:
    """Make an archive from arrays or files in one of the formats this field keeps skeletons in.

    Files named after a known data set (nw-ucla.npz, irds.npz, ...) bring their layout, classes and splits along.

    Args:
        file: File or folder; the format is detected and named.
        out: Folder of the archive to make.
        format: The format, where the detection is wrong; for npy arrays also the order of their axes: npy:NCTVM.
        layout: Body model: a packaged name or a YAML file; needed where the format does not tell it.
        protocol: Further splits, each NAME:COLUMN=1,2,3 with the values that train (all others test); blanks between.
        class_names: Text file with one class name a line, in label order; labels that are text are matched by name.
        num_bodies: Bodies to keep, the most moving first; default: as many as the file has, at most 2.
        normalize: agcn (as 2s-AGCN, HiCo), crossclr (as CrosSCLR, AimCLR), upright (agcn, turned about the spine only),
            or none. Default: what suits the format or the known data set.
        strict: Stop at the first sequence that cannot be used.
        jobs: Processes that read and normalise, where the format can be read by several.
        dtype: Number format of the coordinates.
        overwrite: Replace an archive that exists.

    Returns:
        What was written and what was not.

    Raises:
        DataError: The file cannot be used, or nothing in it can.
        UsageError: An option does not fit.
    """
    refuse_occupied(Path(out).absolute(), overwrite)
    source = open_source(file, format=format, layout=layout)
    if class_names is not None:
        name_classes(source, _class_names(class_names), class_names)
    source.protocols = dict(source.protocols) | dict(map(parse_protocol, protocol.split()))
    return prepare_source(
        source, out=out, normalize=normalize, num_bodies=num_bodies, strict=strict, jobs=jobs, dtype=dtype,
        overwrite=overwrite,
    )  # fmt: skip


def _class_names(file: str) -> tuple[str, ...]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: class names cannot be read ({error})") from error
    return tuple(line.strip() for line in lines if line.strip())
