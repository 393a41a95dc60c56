"""Small generated files in every format; the motion is invented."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from prosl_lightning.data.normalize import normalize_agcn
from prosl_lightning.skeleton import SkeletonLayout

# x-sub: performers 1, 2 train, 3 tests; x-view: cameras 2, 3 train, 1 tests
NAMES = ["S001C003P002R001A003", "S001C001P001R001A001", "S002C002P003R002A002", "S001C001P003R001A003"]
LABELS = [2, 0, 1, 2]
LENGTHS = [12, 7, 9, 5]


class Made(NamedTuple):
    """A written data set: where it is and how it is opened."""

    path: Path
    layout: str | None = None
    format: str | None = None


def motion(length: int, joints: int = 25, bodies: int = 2, seed: int = 0) -> np.ndarray:
    """Invented coordinates ``(T, B, V, C)`` float32; the second body is there in the first half only."""
    draw = np.random.default_rng(seed)
    clip = draw.normal(size=(1, bodies, joints, 3)) + 0.1 * draw.normal(size=(length, bodies, joints, 3)).cumsum(axis=0)
    clip[length // 2 :, 1:] = 0
    return clip.astype(np.float32)


def raw_clips(**options: Any) -> list[np.ndarray]:
    return [motion(length, seed=seed, **options) for seed, length in enumerate(LENGTHS)]


def padded(clips: list[np.ndarray], frames: int) -> np.ndarray:
    """Clips ``(T, B, V, C)`` as one array (N, C, T, V, M), zeros at the end."""
    array = np.zeros((len(clips), 3, frames, *clips[0].shape[2:0:-1]), np.float32)
    for row, clip in enumerate(clips):
        array[row, :, : len(clip)] = clip.transpose(3, 0, 2, 1)
    return array


def dump(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def agcn_clips(frames: int | None = 300) -> list[np.ndarray]:
    """The raw clips, normalised by 2s-AGCN's recipe, replayed up to 300 frames."""
    return [normalize_agcn(clip, SkeletonLayout.of("kinect-v2"), 2, total_frames=frames) for clip in raw_clips()]


def write_parts(
    folder: Path, suffix: str, clips: list[np.ndarray], frames: int, train: list[int], **extra: Any
) -> Path:
    """One protocol folder; ``extra`` may switch off names (``names=False``) or add ``num_frame=True``."""
    folder.mkdir(parents=True)
    for part, rows in (("train", train), ("val", [row for row in range(len(clips)) if row not in train])):
        np.save(folder / f"{part}_{suffix}.npy", padded([clips[row] for row in rows], frames))
        if extra.get("names", True):
            names, labels = [f"{NAMES[row]}.skeleton" for row in rows], [LABELS[row] for row in rows]
            dump(folder / f"{part}_label.pkl", (names, labels), extra.get("protocol", 4))
        if extra.get("num_frame"):
            np.save(folder / f"{part}_num_frame.npy", np.array([LENGTHS[row] for row in rows]))
    return folder


def make_ragged(folder: Path) -> Made:
    clips = raw_clips()
    np.savez(folder / "own.npz", joints=np.concatenate(clips), lengths=np.array(LENGTHS), labels=np.array(LABELS),
             names=np.array(NAMES), subjects=np.array([2, 1, 3, 3]))  # fmt: skip
    return Made(folder / "own.npz", "kinect-v2")


def make_agcn(folder: Path) -> Made:
    return Made(write_parts(folder / "xsub", "data_joint", agcn_clips(), 300, [0, 1], num_frame=True))


def make_stgcn(folder: Path) -> Made:
    return Made(write_parts(folder / "xview", "data", raw_clips(), 20, [0, 2]))


def make_frame50(folder: Path) -> Made:
    return Made(write_parts(folder / "xsub", "position", [clip[:5] for clip in raw_clips()], 5, [0, 1], names=False))


def make_ctrgcn(folder: Path) -> Made:
    flat = padded(raw_clips(), 15).transpose(0, 2, 4, 3, 1).reshape(4, 15, 150)
    one_hot = np.eye(60)[LABELS]
    np.savez(folder / "NTU60_CS.npz", x_train=flat[:2], y_train=one_hot[:2], x_test=flat[2:], y_test=one_hot[2:])
    return Made(folder / "NTU60_CS.npz")


def tracks(clip: np.ndarray) -> dict[str, Any]:
    """One sample of raw_skes_data."""
    data = {}
    for body in range(clip.shape[1]):
        frames = np.flatnonzero(clip[:, body].any(axis=(1, 2)))
        data[str(72057594037937917 + body)] = {
            "joints": clip[frames, body].reshape(-1, 3), "interval": frames.tolist(), "motion": np.float32(0.2),
        }  # fmt: skip
    return {"data": data, "num_frames": len(clip)}


def make_sgn(folder: Path) -> Made:
    samples = [{"name": name, **tracks(clip)} for name, clip in zip(NAMES, raw_clips(), strict=True)]
    return Made(dump(folder / "raw_skes_data.pkl", samples))


def make_denoised(folder: Path) -> Made:
    (folder / "skes_available_name.txt").write_text("\n".join(NAMES))
    return Made(dump(folder / "raw_denoised_joints.pkl", [clip.reshape(len(clip), 150) for clip in raw_clips()]))


def make_pyskl(folder: Path) -> Made:
    annotations = [
        {"frame_dir": name, "label": label, "total_frames": len(clip), "keypoint": clip.transpose(1, 0, 2, 3)}
        for name, label, clip in zip(NAMES, LABELS, raw_clips(), strict=True)
    ]
    split = {"xsub_train": NAMES[:2], "xsub_val": NAMES[2:], "xview_train": NAMES[::2], "xview_val": NAMES[1::2]}
    return Made(dump(folder / "ntu60_3danno.pkl", {"split": split, "annotations": annotations}))


def make_pyskl_2d(folder: Path) -> Made:
    draw = np.random.default_rng(0)
    annotations = [
        {
            "frame_dir": f"clip{row}", "label": row % 2, "total_frames": 6, "img_shape": (1080, 1920),
            "original_shape": (1080, 1920), "keypoint": draw.uniform(0, 1080, (1, 6, 17, 2)).astype(np.float16),
            "keypoint_score": draw.uniform(0.1, 1, (1, 6, 17)).astype(np.float16),
        }
        for row in range(4)
    ]  # fmt: skip
    split = {"train": ["clip0", "clip1"], "val": ["clip2", "clip3"]}
    return Made(dump(folder / "hrnet.pkl", {"split": split, "annotations": annotations}))


def make_nw_ucla(folder: Path) -> Made:
    root = folder / "all_sqe"
    root.mkdir()
    for row, stem in enumerate(["a01_s01_e00_v01", "a08_s02_e03_v03", "a12_s10_e01_v02"]):
        frames = motion(LENGTHS[row], 20, 1, row)[:, 0].tolist()
        (root / f"{stem}.json").write_text(json.dumps({"file_name": stem, "skeletons": frames}))
    return Made(root)


def make_array(folder: Path) -> Made:
    np.save(folder / "mine.npy", padded(raw_clips(), 12))
    return Made(folder / "mine.npy")


def make_files(folder: Path) -> Made:
    root = folder / "recordings"
    root.mkdir()
    for row, clip in enumerate(raw_clips(joints=15, bodies=1)):
        np.savetxt(root / f"clip{row}.csv", clip.reshape(len(clip), -1), delimiter=",", fmt="%.5f")
    np.save(root / "clip9.npy", motion(8, 15, 1, 9)[:, 0])
    rows = ["name,label,subject,split,room", "clip0,walk,1,train,kitchen", "clip1.csv,sit,1,train,office",
            "clip2,walk,2,test,office", "clip9,,2,test,", "clip3,sit,3,val,kitchen"]  # fmt: skip
    (root / "index.csv").write_text("\n".join(rows))
    return Made(root, "florence3d")


MAKERS: dict[str, Callable[[Path], Made]] = {
    "ragged-npz": make_ragged,
    "agcn": make_agcn,
    "stgcn": make_stgcn,
    "frame50": make_frame50,
    "ctrgcn-npz": make_ctrgcn,
    "sgn-pkl": make_sgn,
    "sgn-pkl-denoised": make_denoised,
    "pyskl": make_pyskl,
    "pyskl-2d": make_pyskl_2d,
    "nw-ucla-json": make_nw_ucla,
    "npy": make_array,
    "files": make_files,
}


@pytest.fixture
def make() -> Callable[[str, Path], Made]:
    """Write a small set of a format into a folder: ``make("agcn", tmp_path)``."""

    def write(format: str, folder: Path) -> Made:
        folder.mkdir(parents=True, exist_ok=True)
        return MAKERS[format](folder)

    return write
