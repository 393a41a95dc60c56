"""Finds out in which format a file or folder of skeletons is, names it, and opens it."""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosl_lightning.data.archive_writer import FRAMES, META
from prosl_lightning.data.formats import ctrgcn, files, nw_ucla, pyskl, ragged, sgn, split_folders
from prosl_lightning.data.formats.pickles import read_pickle
from prosl_lightning.data.ntu_source import open_ntu
from prosl_lightning.data.pku_sets import parse_clip_name, parse_video_name
from prosl_lightning.data.pku_source import open_pku
from prosl_lightning.data.raw_files import member_names, special_kind
from prosl_lightning.data.source import Source
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout


@dataclass(frozen=True)
class _Request:
    """What is to be opened, and what the user said about it."""

    path: Path
    layout: str | SkeletonLayout | None
    axes: str | None
    content: Any = None


def _split_folder(format: str) -> Callable[[_Request], Source]:
    return lambda r: split_folders.open_split_folders(r.path, format, r.layout)


# Name -> how it is opened, and what it is. Openers take the layout the user gave, if any, and raise as `open_source`.
_OPENERS: dict[str, tuple[Callable[[_Request], Source], str]] = {
    ragged.FORMAT: (lambda r: ragged.open_ragged(r.path, r.layout), "one npz file with joints and lengths"),
    "agcn": (_split_folder("agcn"), "{train,val}_data_joint.npy of 2s-AGCN, HiCo, ISC, CMD, UmURL"),
    "stgcn": (_split_folder("stgcn"), "{train,val}_data.npy of ST-GCN, input of CrosSCLR and AimCLR"),
    "frame50": (_split_folder("frame50"), "{train,val}_position.npy of CrosSCLR, AimCLR, HiCLR"),
    ctrgcn.FORMAT: (lambda r: ctrgcn.open_ctrgcn(r.path, r.layout), "npz with x_train, x_test of CTR-GCN, MAMP"),
    sgn.FORMAT: (lambda r: sgn.open_sgn(r.path, r.layout, r.content), "raw_skes_data, raw_denoised_joints of SGN"),
    pyskl.FORMAT: (lambda r: pyskl.open_pyskl(r.path, r.layout, r.content), "annotation pickle of PYSKL, mmaction2"),
    nw_ucla.FORMAT: (lambda r: nw_ucla.open_nw_ucla(r.path, r.layout), "folder of aXX_sXX_eXX_vXX.json"),
    files.ARRAY_FORMAT: (lambda r: files.open_array(r.path, r.layout, r.axes), "one npy array"),
    files.FOLDER_FORMAT: (lambda r: files.open_files(r.path, r.layout, r.axes), "folder of csv, txt, npy files"),
    "ntu": (lambda r: open_ntu(r.path), "raw .skeleton files of NTU RGB+D"),
    "pku": (lambda r: open_pku(r.path), "raw files of PKU-MMD"),
}
FORMATS: dict[str, str] = {name: text for name, (_, text) in _OPENERS.items()}


def open_source(
    path: str | Path,
    *,
    format: str | None = None,
    layout: str | SkeletonLayout | None = None,
) -> Source:
    """Open skeletons in any format the library reads.

    Args:
        path: File or folder.
        format: One of ``FORMATS``; found from names and contents unless given. For npy arrays whose sizes leave the
            order of axes open it may name that too: ``npy:NCTVM``, ``files:TVC``.
        layout: Body model: a packaged name, a YAML file, or a layout; needed where the format does not tell it.

    Returns:
        The opened set; its first note names the format.

    Raises:
        DataError: The path does not exist, its format is not known, or its content is damaged.
        UsageError: An option does not fit, or one must be given.
    """
    format, _, axes = (format or "").partition(":")
    request = _Request(Path(path), layout, axes or None)
    if not request.path.exists():
        raise DataError(f"{request.path}: there is no such file or folder")
    if not request.path.is_file() and not request.path.is_dir():  # opening a pipe would wait for ever
        raise DataError(f"{request.path}: neither a file nor a folder but {special_kind(request.path.stat().st_mode)}")
    if format and format not in _OPENERS:
        raise UsageError(f"unknown format '{format}': expected {', '.join(_OPENERS)}")
    if axes and format not in (files.ARRAY_FORMAT, files.FOLDER_FORMAT):
        raise UsageError(f"format '{format}:{axes}': an order of axes goes with npy and files only")
    try:
        if not format:
            format, request = _detect(request)
        opener, text = _OPENERS[format]
        source = opener(request)
    except OSError as error:  # a folder that cannot be listed
        raise DataError(f"{request.path}: cannot be read ({error.strerror or error})") from error
    if layout is not None and (asked := SkeletonLayout.of(layout)).joints != source.layout.joints:
        raise UsageError(
            f"layout '{asked.name}' does not fit {source.path}: format {source.format} has '{source.layout.name}'; "
            "leave it out"
        )
    source.notes.insert(0, f"format {format}: {text}")
    return source


def _detect(request: _Request) -> tuple[str, _Request]:
    path = request.path
    if path.is_dir():
        return _detect_folder(path), request
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _detect_npz(path), request
    if suffix == ".zip":
        return _detect_names(path, map(os.path.basename, member_names(path))), request
    if suffix in (".pkl", ".pickle"):
        content = read_pickle(path)
        return _detect_pickle(path, content), _Request(path, request.layout, request.axes, content)
    if suffix == ".npy":
        _refuse_derived(path, [path.name])
        return files.ARRAY_FORMAT, request
    if suffix in (".h5", ".hdf5"):
        raise DataError(
            f"{path}: HDF5 (SGN's format) is not read; give raw_denoised_joints.pkl, from which SGN made it,\n"
            "or save its arrays as x_train, y_train, x_test, y_test with numpy.savez"
        )
    hint = "; give the folder it lies in" if suffix in (".csv", ".txt", ".json", ".skeleton") else ""
    raise DataError(f"{path}: '{path.suffix}' files are not known{hint}\n{_looked_for()}")


def _detect_npz(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return ragged.FORMAT
    names = {name.removesuffix(".npy") for name in member_names(path)}
    if names & {"x_train", "x_test"}:
        return ctrgcn.FORMAT
    if names & {"joints", "lengths"}:
        return ragged.FORMAT
    raise DataError(
        f"{path}: holds {', '.join(sorted(names)[:12]) or 'nothing'}; "
        "expected joints and lengths, or x_train and x_test"
    )


def _detect_pickle(path: Path, content: Any) -> str:
    items = content.get("annotations") if isinstance(content, dict) else content
    first = items[0] if isinstance(items, list) and items else None
    if isinstance(content, dict) and "annotations" in content:
        return pyskl.FORMAT
    if isinstance(first, dict) and "keypoint" in first:
        return pyskl.FORMAT
    if first is not None and isinstance(content, list) and not isinstance(first, list):
        return sgn.FORMAT
    hint = "; this is a label file: give the folder it lies in" if isinstance(content, tuple | list) else ""
    raise DataError(
        f"{path}: holds {type(content).__name__}, expected PYSKL's annotations, or SGN's list of samples{hint}"
    )


def _detect_folder(root: Path) -> str:
    for format in split_folders.SUFFIXES:
        if split_folders.protocol_folders(root, format):
            return format
    if (root / META).is_file() and (root / FRAMES).is_file():
        raise DataError(f"{root}: this is an archive already; it needs no preparation")
    zips = (file for file in sorted(root.rglob("*.zip")) if file.is_file() and zipfile.is_zipfile(file))
    skeletons = (os.path.basename(name) for file in zips for name in member_names(file, (".skeleton",)))
    return _detect_names(root, itertools.chain(_walk(root), skeletons))  # nothing else is read from within zip files


def _detect_names(path: Path, names: Iterable[str]) -> str:
    """The format that the names of files tell, those of raw sets first."""
    found: dict[str, int] = {}
    kept: list[str] = []
    sequences = False
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix == ".skeleton":
            return "pku" if parse_clip_name(stem) else "ntu"
        if suffix == ".txt" and parse_video_name(stem):
            return "pku"
        if suffix == ".json" and nw_ucla.NAME.fullmatch(stem):
            return nw_ucla.FORMAT
        sequences = sequences or files.is_sequence_name(name)
        found[suffix] = found.get(suffix, 0) + 1
        if len(kept) < 100:
            kept.append(name)
    _refuse_derived(path, kept)
    if path.is_dir() and sequences:
        return files.FOLDER_FORMAT
    openable = [name for name in kept if name.endswith((".npz", ".pkl"))]
    hint = f"\nor give one of its files: {', '.join(sorted(openable)[:5])}" if openable and path.is_dir() else ""
    content = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(found.items())[:10])
    raise DataError(
        f"{path}: holds no skeletons in a known format; found {content or 'no files'}\n{_looked_for()}{hint}"
    )


def _refuse_derived(path: Path, names: list[str]) -> None:
    derived = [name for name in names if name.endswith(split_folders.DERIVED)]
    if derived and len(derived) == sum(name.endswith(".npy") for name in names):
        raise DataError(
            f"{path}: {derived[0]} holds bones or motion, which are made from the joints while training "
            "(--data.stream bone);\ngive the joints of the same run: *_data_joint.npy, *_position.npy or *_data.npy"
        )


def _looked_for() -> str:
    return "looked for: " + "; ".join(f"{name} ({text})" for name, text in FORMATS.items())


def _walk(root: Path) -> Iterator[str]:
    for _, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from sorted(name for name in names if not name.startswith("."))
