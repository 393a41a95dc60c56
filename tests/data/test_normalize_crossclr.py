"""The CrosSCLR normalisation against its formula written out frame by frame, and its quirks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prosl_lightning import cli
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.normalize_crossclr import normalize_crossclr, resize_frames, turn_frontal
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts

KINECT = SkeletonLayout.of("kinect-v2")


def _slowly(bodies: np.ndarray) -> np.ndarray:
    """The steps one after another, frame by frame, for the Kinect's joint numbers; bodies (T, B, 25, 3)."""
    first = [[bodies[t, m] if m < bodies.shape[1] else np.zeros((25, 3)) for m in range(2)] for t in range(len(bodies))]
    length = sum(1 for frame in first if abs(frame[0][0]).sum() != 0)
    frames = [[body - body[20] for body in frame] for frame in first][:length]
    resized = []
    for i in range(50):
        place = (i + 0.5) * length / 50 - 0.5
        low = math.floor(place)
        share = place - low
        a, b = (min(max(low + k, 0), length - 1) for k in (0, 1))
        resized.append([(1 - share) * frames[a][m] + share * frames[b][m] for m in range(2)])
    done = np.zeros((50, 2, 25, 3))
    for m in range(2):
        sign = -1 if sum(frame[m][8][2] - frame[m][4][2] for frame in resized) >= 0 else 1
        for i, frame in enumerate(resized):
            across = frame[m][8] - frame[m][4]
            theta = sign * math.acos(across[0] / (math.sqrt(across[0] ** 2 + across[2] ** 2) + 1e-4))
            about_y = np.array(
                [[math.cos(theta), 0, -math.sin(theta)], [0, 1, 0], [math.sin(theta), 0, math.cos(theta)]]
            )
            done[i, m] = frame[m] @ about_y.T
    return done


def _walk(frames: int, bodies: int = 2, joints: int = 25, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(1, bodies, joints, 3)) + draw.normal(size=(frames, bodies, joints, 3)) * 0.1 + [0, 0, 3]


@pytest.mark.parametrize(("frames", "bodies"), [(1, 1), (2, 2), (31, 1), (50, 2), (51, 3), (113, 2), (300, 1)])
def test_it_follows_the_formula(frames, bodies):
    raw = _walk(frames, bodies, seed=frames)
    raw[frames // 2 :, 1:] = 0  # the second body leaves
    np.testing.assert_allclose(normalize_crossclr(raw, KINECT, 2), _slowly(raw), atol=1e-6)


def test_frames_without_the_first_body_shorten_from_the_end():
    raw = _walk(40)
    raw[[3, 20], 0] = 0
    done = normalize_crossclr(raw, KINECT, 2)
    np.testing.assert_allclose(done, _slowly(raw), atol=1e-6)
    raw[38:] = 7.0  # 38 frames count, so the last two are cut off, though somebody is there
    np.testing.assert_allclose(normalize_crossclr(raw, KINECT, 2), done, atol=1e-6)


def test_parity_of_the_resize_with_known_numbers():
    # OpenCV 4, INTER_LINEAR, a column of 4 numbers to 6, and of 4 to 2.
    np.testing.assert_allclose(resize_frames(np.array([0.0, 1, 2, 3]), 6), [0, 0.5, 7 / 6, 11 / 6, 2.5, 3], atol=1e-12)
    np.testing.assert_allclose(resize_frames(np.array([0.0, 1, 2, 3]), 2), [0.5, 2.5], atol=1e-12)


def test_shoulders_lose_their_depth_but_for_a_trace():
    done = normalize_crossclr(_walk(60, 1), KINECT, 1)[:, 0].astype(np.float64)
    across = done[:, 8] - done[:, 4]
    assert (across[:, 0] > 0).all()
    assert 0 < np.abs(across[:, 2]).max() < 0.002
    np.testing.assert_array_equal(done[:, 20], 0)
    frontal = np.zeros((2, 1, 25, 3))
    frontal[:, 0, 8] = [0.35, 0.2, 0]  # the cosine is 1e-4 / 0.35 too small, so the angle is sqrt(2e-4 / 0.35), not 0
    turned = turn_frontal(frontal, KINECT)[:, 0, 8]
    np.testing.assert_allclose(turned, [[0.35, 0.2, -math.sqrt(2e-4 * 0.35)]] * 2, atol=2e-4)


def test_a_frame_turned_the_other_way_is_turned_to_twice_its_angle():
    raw = np.zeros((3, 1, 25, 3))
    for frame, angle in enumerate((0.5, 0.5, -0.3)):
        raw[frame, 0, 8] = [math.cos(angle), 0, math.sin(angle)]
    done = turn_frontal(raw, KINECT)[:, 0, 8]
    np.testing.assert_allclose(np.arctan2(done[:, 2], done[:, 0]), [0, 0, -0.6], atol=1e-3)
    assert not turn_frontal(np.zeros((3, 1, 25, 3)), KINECT).any()  # nobody: a quarter turn of nothing


@pytest.mark.parametrize("name", packaged_layouts())
def test_every_layout_has_its_middle_of_the_shoulders_at_the_origin(name):
    layout = SkeletonLayout.of(name)
    done = normalize_crossclr(_walk(20, 2, layout.num_joints), layout, 2)
    assert done.shape == (50, 2, layout.num_joints, 3)
    if "shoulder_center" in layout.joints:
        middle = done[:, :, layout.joints.index("shoulder_center")]
    elif "spine_shoulder" in layout.joints:
        middle = done[:, :, layout.joints.index("spine_shoulder")]
    else:
        middle = sum(done[:, :, list(group)].mean(axis=2) for group in layout.shoulders) / 2
    np.testing.assert_allclose(middle, 0, atol=1e-6)


def test_nobody_in_the_first_place_is_an_error():
    raw = _walk(5)
    raw[:, 0] = 0
    with pytest.raises(DataError, match=r"joint 0 \(spine_base\) of the first body is never there"):
        normalize_crossclr(raw, KINECT, 2)


def test_an_archive_can_be_prepared_so_and_says_it(tmp_path, capsys):
    joints = np.concatenate([_walk(30, 2, seed=1), _walk(70, 2, seed=2)]).astype(np.float32)
    np.savez(tmp_path / "mine.npz", joints=joints, lengths=[30, 70], labels=[0, 1])
    options = ["--layout", "kinect-v2", "--normalize", "crossclr", "--dtype", "float32", "--out", str(tmp_path / "set")]
    assert cli.main(["prepare", "arrays", str(tmp_path / "mine.npz"), *options]) == 0
    archive = Archive.open(tmp_path / "set")
    assert archive.meta["recipe"]["normalize"] == "crossclr"
    assert archive.lengths.tolist() == [50, 50]
    np.testing.assert_allclose(
        archive.clip(1).transpose(0, 3, 2, 1), _slowly(joints[30:].astype(np.float64)), atol=1e-5
    )
