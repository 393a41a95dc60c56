"""Reads the pickles of SGN's and CTR-GCN's preparation: ``raw_skes_data.pkl`` and ``raw_denoised_joints.pkl``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.formats.labels import add_ntu_facts, as_numbers, named_samples, note_repeated, ntu_action
from prosl_lightning.data.formats.npy import check_sequence_size
from prosl_lightning.data.formats.pickles import read_pickle
from prosl_lightning.data.ntu_sets import ntu_set_of
from prosl_lightning.data.raw_files import read_text
from prosl_lightning.data.source import RawSequence, Source, choose_layout
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

FORMAT = "sgn-pkl"


def open_sgn(path: str | Path, layout: str | SkeletonLayout | None = None, content: Any = None) -> Source:
    """Open a pickled list of samples: dicts with bodies by their ID, or arrays (T, 75) and (T, 150).

    The arrays have no names of their own. They are taken, in order, from ``skes_available_name.txt`` beside the file or
    in a folder ``statistics`` near it, or from a ``raw_skes_data.pkl`` beside it, when the counts agree. The layout is
    Kinect v2 unless given. ``content`` is what was read of the file.
    """
    file = Path(path)
    content = read_pickle(file) if content is None else content
    if not isinstance(content, list) or not content:
        raise DataError(f"{file}: expected a list of samples, found {type(content).__name__}")
    body_model = choose_layout(layout, "kinect-v2", file)
    notes = []
    if all(isinstance(sample, dict) for sample in content):
        names = [_name(sample, row) for row, sample in enumerate(content)]
    elif all(isinstance(sample, np.ndarray) for sample in content):
        names, note = _names_near(file, len(content))
        notes.append(note)
    else:
        raise DataError(f"{file}: expected a list of dicts or of arrays (T, 75 or 150)")
    labelled = ntu_set_of(names) is not None
    samples = named_samples(
        (row, name.removesuffix(".skeleton"), ntu_action(name) - 1 if labelled else -1)
        for row, name in enumerate(names)
    )

    def stream() -> Iterator[RawSequence]:
        for sample in samples:
            where = f"{file.name}, sample {sample.place} ({sample.name})"
            yield sample.read(where, partial(_bodies, content[sample.place], body_model.num_joints))

    source = Source(file, FORMAT, body_model, num_bodies=2, items=samples, stream=stream, notes=notes)
    add_ntu_facts(source, samples)
    note_repeated(source, names)
    return source


def _bodies(sample: Any, num_joints: int) -> NDArray[Any]:
    """One sample as ``(T, B, V, C)``.

    Raises:
        DataError: Its arrays do not fit together.
    """
    if not isinstance(sample, dict):
        flat = _numbers(sample, "frames")
        if flat.ndim != 2 or flat.shape[1] not in (num_joints * 3, num_joints * 6):
            raise DataError(f"shape {flat.shape}, expected (T, {num_joints * 3} or {num_joints * 6})")
        if not len(flat):
            raise DataError("no frames")
        return flat.reshape(len(flat), -1, num_joints, 3)
    length, tracks = sample.get("num_frames"), sample.get("data")
    if (
        not isinstance(length, int)
        or isinstance(length, bool)
        or not 1 <= length < 1 << 40
        or not isinstance(tracks, dict)
    ):
        raise DataError("expected a possible num_frames and data (bodies by their ID)")
    shape = (length, max(len(tracks), 1), num_joints, 3)
    check_sequence_size(math.prod(shape) * 4, f"num_frames {length}")
    bodies = np.zeros(shape, dtype=np.float32)
    for position, track in enumerate(tracks.values()):
        if not isinstance(track, dict) or "joints" not in track or "interval" not in track:
            raise DataError("a body lacks joints or interval")
        frames = _numbers(track["interval"], "interval").reshape(-1)
        joints = _numbers(track["joints"], "joints")
        if frames.dtype.kind not in "iu" or joints.shape not in (
            (len(frames) * num_joints, 3),
            (len(frames), num_joints, 3),
        ):
            raise DataError(f"a body has joints {joints.shape} for {len(frames)} frames of {num_joints} joints")
        if len(frames) and (frames.min() < 0 or frames.max() >= length):
            raise DataError(f"a body's interval reaches beyond the {length} frames")
        bodies[frames.astype(np.int64), position] = joints.reshape(-1, num_joints, 3)
    return bodies


def _numbers(values: Any, what: str) -> NDArray[Any]:
    try:
        return as_numbers(values)
    except DataError as error:
        raise DataError(f"{what} are {error}") from error


def _name(sample: Mapping[str, Any], row: int) -> str:
    name = sample.get("name")
    return name if isinstance(name, str) else f"{row:06d}"


def _names_near(file: Path, number: int) -> tuple[list[str], str]:
    """Names of the samples and where they are from; numbers where none are found."""
    listed = "skes_available_name.txt"
    for folder in (file.parent, file.parent / "statistics", file.parent.parent / "statistics"):
        if (folder / listed).is_file():
            names = read_text(folder / listed).split()
            if len(names) == number:
                return names, f"names are those of {folder / listed}"
    pickled = file.with_name(file.name.replace("raw_denoised_joints", "raw_skes_data"))
    if pickled != file and pickled.is_file():
        samples = read_pickle(pickled)
        if isinstance(samples, list) and len(samples) == number and all(isinstance(s, dict) for s in samples):
            return [_name(sample, row) for row, sample in enumerate(samples)], f"names are from {pickled.name}"
    numbers = [f"{row:06d}" for row in range(number)]
    return numbers, f"no {listed} with {number} names near it: samples are numbered and have no labels"
