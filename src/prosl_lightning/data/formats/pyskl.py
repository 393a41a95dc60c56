"""Reads the annotation pickles of PYSKL and mmaction2: 3D joints, and 2D COCO key points with scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.formats.labels import (
    TEST,
    TRAIN,
    UNKNOWN,
    add_ntu_facts,
    integer_labels,
    named_samples,
    note_repeated,
    protocol_name,
    split_rule,
    text_names,
)
from prosl_lightning.data.formats.npy import check_sequence_size
from prosl_lightning.data.formats.pickles import read_pickle
from prosl_lightning.data.source import RawSequence, Source, check_joints, choose_layout
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

FORMAT = "pyskl"
_USUAL = {(25, 3): "kinect-v2", (17, 2): "coco-17"}  # 17 in 3D: Human3.6M's joints, or x, y and a score


def open_pyskl(path: str | Path, layout: str | SkeletonLayout | None = None, content: Any = None) -> Source:
    """Open a pickle with ``annotations`` and ``split``.

    2D key points become coordinates as :func:`image_to_space` says; their usual normalisation is ``upright``. Unless
    given, the layout is Kinect v2 for 25 joints in 3D, COCO for 17 in 2D. ``content`` is what was read of the file.
    """
    file = Path(path)
    content = read_pickle(file) if content is None else content
    annotations = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(annotations, list) or not annotations or not all(isinstance(a, dict) for a in annotations):
        raise DataError(f"{file}: expected a dict with 'annotations', a list of dicts")
    shapes = [a["keypoint"].shape for a in annotations if isinstance(a.get("keypoint"), np.ndarray)]
    num_joints, num_coordinates = next(((s[2], s[3]) for s in shapes if len(s) == 4), (0, 0))
    if num_coordinates not in (2, 3):
        raise DataError(f"{file}: no annotation has a keypoint array (M, T, V, 2 or 3)")
    body_model = choose_layout(layout, _USUAL.get((num_joints, num_coordinates)), file)
    check_joints(body_model, num_joints, file)
    names = text_names([a.get("frame_dir", a.get("filename")) for a in annotations], file)
    labels = integer_labels([a.get("label", -1) for a in annotations], file)
    splits = _splits(content.get("split", {}) if isinstance(content, dict) else {}, file)
    renamed = "split-all"
    while renamed in splits:
        renamed = f"split-{renamed}"
    notes = [f"split 'all' is called '{renamed}' here: 'all' is every sequence"] if "all" in splits else []
    splits = {renamed if name == "all" else name: members for name, members in splits.items()}
    samples = named_samples(zip(range(len(names)), names, labels, strict=True), splits)

    def stream() -> Iterator[RawSequence]:
        for sample in samples:
            where = f"{file.name}, annotation {sample.place} ({sample.name})"
            yield sample.read(where, partial(_bodies, annotations[sample.place], (num_joints, num_coordinates)))

    source = Source(
        file,
        FORMAT,
        body_model,
        num_bodies=min(max(shape[0] for shape in shapes if len(shape) == 4) or 1, 2),
        items=samples,
        stream=stream,
        protocols={name: split_rule(name) for name in splits},
        normalize="agcn" if num_coordinates == 3 else "upright",
        notes=notes,
    )
    if num_coordinates == 2:
        source.notes.append(
            "2D key points: x, y in image heights from the image's middle, y up, z = 0; scores not kept"
        )
    add_ntu_facts(source, samples)
    note_repeated(source, names)
    return source


def image_to_space(points: NDArray[Any], scores: NDArray[Any] | None, image: tuple[int, int]) -> NDArray[np.float32]:
    """Turn pixels into the axes that the library's 3D data have: a camera's, y up, z = 0.

    A pixel (x, y) becomes ((width / 2 - x) / height, (height / 2 - y) / height, 0). x changes its sign because a person
    who faces the camera then has the left at the smaller x, as with depth cameras. A joint of score 0 is absent.

    Args:
        points: Pixels ``(..., 2)``, y down.
        scores: Confidence ``(...)``, or None.
        image: Height and width in pixels.

    Returns:
        ``(..., 3)`` in image heights.
    """
    height, width = image
    space = np.zeros((*points.shape[:-1], 3), dtype=np.float32)
    with np.errstate(all="ignore"):  # what is not finite is found when the sequence is prepared
        space[..., 0] = (width / 2 - points[..., 0]) / height
        space[..., 1] = (height / 2 - points[..., 1]) / height
    space[(points == 0).all(axis=-1) if scores is None else scores <= 0] = 0
    return space


def _splits(split: Any, file: Path) -> dict[str, dict[str, int]]:
    """Protocol -> name -> side, from ``xsub_train``, ``xsub_val``, ``train``, ``test1``, ..."""
    if not isinstance(split, dict):
        raise DataError(f"{file}: split is {type(split).__name__}, expected a dict of name lists")
    splits: dict[str, dict[str, int]] = {}
    for key, names in split.items():
        match = re.fullmatch(r"(?:(.+)_)?(train|val|test)(\d*)", str(key))
        if match is None:
            continue
        given, side, number = match.groups()
        protocol = protocol_name(given) if given else UNKNOWN + number
        protocol = given if given and protocol == UNKNOWN else protocol
        code = TRAIN if side == "train" else TEST
        splits.setdefault(protocol, {}).update(dict.fromkeys(text_names(names, file), code))
    return splits


def _bodies(annotation: Mapping[str, Any], expected: tuple[int, int]) -> NDArray[Any]:
    """One annotation as ``(T, B, V, C)``.

    Raises:
        DataError: Its arrays do not fit together.
    """
    points, scores = annotation.get("keypoint"), annotation.get("keypoint_score")
    if not isinstance(points, np.ndarray) or points.dtype.kind not in "fiu" or points.ndim != 4:
        raise DataError("keypoint is no array of numbers (M, T, V, C)")
    if points.shape[2:] != expected:
        raise DataError(f"keypoint has shape {points.shape}, expected (M, T, {expected[0]}, {expected[1]})")
    if len(points) == 0:
        raise DataError("nobody in any frame")
    check_sequence_size(points.nbytes, "keypoint")
    if scores is not None and (not isinstance(scores, np.ndarray) or scores.shape != points.shape[:3]):
        raise DataError("keypoint_score does not fit keypoint")
    if scores is not None and scores.dtype.kind not in "fiub":
        raise DataError(f"keypoint_score is {scores.dtype}, expected numbers")
    if expected[1] == 2:
        image = annotation.get("img_shape") or annotation.get("original_shape")
        sizes = image if isinstance(image, tuple | list) and len(image) == 2 else (0, 0)
        if not all(isinstance(size, int) and 0 < size < 1 << 20 for size in sizes):
            raise DataError("img_shape (height, width) is missing or wrong")
        points = image_to_space(points.astype(np.float64), scores, (sizes[0], sizes[1]))
    return points.transpose(1, 0, 2, 3)
