from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.ntu import read_skeleton
from prosl_lightning.data.synthetic import (
    CLASS_NAMES,
    NUM_PERFORMERS,
    PROTOCOLS,
    SyntheticClip,
    generate,
    performer,
    skeleton_text,
    write_archive,
    write_skeleton_files,
)
from prosl_lightning.data.synthetic.actions import ACTIONS
from prosl_lightning.data.synthetic.body import CHANNELS, INDEX, Body, pose
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout.of("kinect-v2")
PAIRS = {"push", "shake hands", "hug"}
HANDS, FEET, HEAD = [6, 7, 10, 11], [14, 15, 18, 19], [3]


@pytest.fixture(scope="module")
def truth() -> list[SyntheticClip]:
    """Five recordings of every class by three cameras, without sensor errors."""
    return list(generate(5 * 3 * len(CLASS_NAMES), seed=3, noise=False))


@pytest.fixture(scope="module")
def sensed() -> list[SyntheticClip]:
    """The same recordings with sensor errors."""
    return list(generate(5 * 3 * len(CLASS_NAMES), seed=3))


def bone_lengths(joints: np.ndarray) -> np.ndarray:
    """(T, V, 3) -> (T, bones)"""
    child, parent = np.array(LAYOUT.bones).T
    return np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1)


def residual_after_rigid_motion(points: np.ndarray, other: np.ndarray) -> float:
    """Greatest distance left after the best rotation (no mirror image) and shift of (P, 3) onto (P, 3)."""
    a, b = points - points.mean(0), other - other.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return float(np.linalg.norm(a @ turn - b, axis=1).max())


def travel(clip: SyntheticClip, joints: list[int], body: int = 0) -> float:
    """Mean path length of joints against the pelvis, metres."""
    path = clip.joints[:, joints, body] - clip.joints[:, :1, body]
    return float(np.linalg.norm(np.diff(path, axis=0), axis=-1).sum(0).mean())


def mean_travel(clips: list[SyntheticClip], name: str, joints: list[int]) -> float:
    return float(np.mean([travel(clip, joints) for clip in clips if CLASS_NAMES[clip.label] == name]))


# ------------------------------------------------------------------------------------------------------------ the body


def test_a_standing_body_is_a_standing_person() -> None:
    track = np.zeros((1, len(CHANNELS)))
    for side in ("main", "other"):
        track[0, INDEX[f"{side}_elevation"]], track[0, INDEX[f"{side}_reach"]] = -85.0, 0.98
    joints = dict(zip(LAYOUT.joints, pose(Body(), track)[0], strict=True))
    assert 1.55 < joints["head"][1] < 1.75
    assert joints["left_foot"][1] == pytest.approx(0.0, abs=0.05)
    assert joints["left_hand"][1] < joints["left_hip"][1] < joints["spine_mid"][1] < joints["neck"][1]
    for part in ("shoulder", "elbow", "hand", "hip", "knee", "foot"):
        left, right = joints[f"left_{part}"], joints[f"right_{part}"]
        np.testing.assert_allclose(left * [-1, 1, 1], right, atol=1e-9)
        assert right[0] > 0.05
    assert joints["right_foot"][2] < joints["right_ankle"][2] - 0.05, "feet point forward, to -z"
    assert joints["right_knee"][2] < joints["right_hip"][2], "knees bend forward"
    assert joints["right_elbow"][2] > joints["right_shoulder"][2], "elbows bend backward"


def test_bones_keep_their_length_whatever_the_channels() -> None:
    rng = np.random.default_rng(0)
    body = Body(1.1, 0.95, 1.05, 0.97, 1.02)
    lengths = bone_lengths(pose(body, rng.normal(0.0, 1.0, (200, len(CHANNELS))) * 60.0))
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-9)


def test_all_lengths_grow_with_the_body() -> None:
    track = np.random.default_rng(1).normal(0.0, 0.3, (50, len(CHANNELS)))
    np.testing.assert_allclose(pose(Body(1.2), track), 1.5 * pose(Body(0.8), track), atol=1e-9)


def test_a_left_handed_performer_is_the_mirror_image() -> None:
    track = np.random.default_rng(2).normal(0.0, 20.0, (20, len(CHANNELS)))
    mirrored = track.copy()
    mirrored[:, INDEX["heading"]] *= -1.0
    right = pose(Body(), track, right_handed=True)
    left = pose(Body(), mirrored, right_handed=False)
    np.testing.assert_allclose(left[:, list(LAYOUT.mirror)] * [-1, 1, 1], right, atol=1e-9)


def test_signs_of_the_turns() -> None:
    track = np.zeros((4, len(CHANNELS)))
    for frame, name in enumerate(("hips_pitch", "hips_roll", "heading"), start=1):
        track[frame, INDEX[name]] = 30.0
    still, bent, tilted, turned = pose(Body(), track)
    assert bent[3, 2] < still[3, 2] - 0.2, "a positive pitch bends forward, to -z"
    assert tilted[3, 0] < still[3, 0] - 0.2, "a positive roll tilts to the left, to -x"
    assert turned[8, 2] < still[8, 2] - 0.05, "turning left brings the right shoulder forward"


# ---------------------------------------------------------------------------------------------------------- the motions


def test_bones_keep_their_length_within_a_clip(truth: list[SyntheticClip]) -> None:
    for clip in truth[::3]:
        for body in range(clip.joints.shape[2]):
            lengths = bone_lengths(clip.joints[:, :, body])
            assert np.ptp(lengths, axis=0).max() < 1e-5


def test_bone_lengths_are_the_performers(truth: list[SyntheticClip]) -> None:
    base = bone_lengths(pose(Body(), np.zeros((1, len(CHANNELS)))))[0]
    ratios = {}
    for clip in truth:
        lengths = bone_lengths(clip.joints[:1, :, 0])[0]
        size = performer(clip.subject, seed=3).body.size
        np.testing.assert_allclose(lengths / base, size, rtol=0.09)
        ratios.setdefault(clip.subject, lengths)
        np.testing.assert_allclose(ratios[clip.subject], lengths, atol=1e-5)
    sizes = [performer(number).body.size for number in range(1, NUM_PERFORMERS + 1)]
    assert min(sizes) < 0.86
    assert max(sizes) > 1.14


def test_motion_is_smooth(truth: list[SyntheticClip]) -> None:
    speed = max(np.linalg.norm(np.diff(clip.joints, axis=0), axis=-1).max() for clip in truth) * 30.0
    assert 4.0 < speed < 20.0, "metres a second: a throwing hand, nothing faster"


def test_lengths(sensed: list[SyntheticClip]) -> None:
    lengths = np.array([len(clip.joints) for clip in sensed])
    assert lengths.min() >= 20
    assert lengths.max() <= 300
    assert np.percentile(lengths, 90) > 2.0 * np.percentile(lengths, 10)


def test_two_person_classes_have_two_persons(truth: list[SyntheticClip]) -> None:
    assert {action.name for action in ACTIONS if action.people == 2} == PAIRS
    for clip in truth:
        assert clip.joints.shape[2] == (2 if CLASS_NAMES[clip.label] in PAIRS else 1)


def test_pairs_face_each_other_and_come_close(truth: list[SyntheticClip]) -> None:
    for clip in truth:
        if CLASS_NAMES[clip.label] in PAIRS:
            first, second = clip.joints[..., 0, :], clip.joints[..., 1, :]
            distance = np.linalg.norm(first[:, 1] - second[:, 1], axis=-1)
            assert 0.15 < distance.min() < 1.4
            apart = np.linalg.norm(first[:, HANDS, None] - second[:, None, [1, 2, 6, 7, 10, 11, 20]], axis=-1)
            assert apart.min() < 0.45, f"{clip.name}: hands reach the other person"


@pytest.mark.parametrize(
    ("name", "joints", "calmer"),
    [
        ("kick", FEET, "clap"),
        ("march in place", FEET, "wave"),
        ("squat", FEET, "bow"),
        ("jump", FEET, "raise arms"),
        ("clap", HANDS, "kick"),
        ("raise arms", HANDS, "squat"),
        ("nod", HEAD, "clap"),
        ("bow", HEAD, "wave"),
    ],
)
def test_classes_differ_in_what_moves(truth: list[SyntheticClip], name: str, joints: list[int], calmer: str) -> None:
    assert mean_travel(truth, name, joints) > 1.3 * mean_travel(truth, calmer, joints)


def test_one_arm_is_the_preferred_one(truth: list[SyntheticClip]) -> None:
    for clip in truth:
        if CLASS_NAMES[clip.label] in {"wave", "drink"}:
            right = performer(clip.subject, seed=3).right_handed
            highest = clip.joints[:, [7, 11], 0, 1].max(0)
            assert (highest[1] > highest[0]) == right


# ----------------------------------------------------------------------------------------------- cameras and recordings


def test_three_cameras_see_one_motion(truth: list[SyntheticClip]) -> None:
    for first, *others in (truth[i : i + 3] for i in range(0, len(truth), 3)):
        for number, clip in enumerate(others, start=2):
            assert clip.name == first.name.replace("C001", f"C00{number}")
            assert residual_after_rigid_motion(first.joints.reshape(-1, 3), clip.joints.reshape(-1, 3)) < 1e-4
            assert np.abs(first.joints - clip.joints).max() > 0.3


def test_people_stand_in_front_of_the_camera(truth: list[SyntheticClip]) -> None:
    for clip in truth:
        assert clip.joints[..., 2].min() > 1.0
        assert clip.joints[..., 2].max() < 6.5
        assert clip.joints[:, 3, :, 1].mean() > clip.joints[:, 0, :, 1].mean() + 0.2, "y is up"
    front = [clip for clip in truth if clip.camera == 2 and clip.joints.shape[2] == 1]
    faces = [clip.joints[-1, 8, 0, 0] > clip.joints[-1, 4, 0, 0] for clip in front]
    assert np.mean(faces) > 0.8, "most end up facing camera 2, the right shoulder at greater x, as a Kinect reports it"


def test_the_tracker_errs_a_little(truth: list[SyntheticClip], sensed: list[SyntheticClip]) -> None:
    errors, starts = [], set()
    for clean, noisy in zip(truth, sensed, strict=True):
        assert clean.name == noisy.name
        frames = len(noisy.joints)
        assert len(clean.joints) - 30 <= frames <= len(clean.joints)
        found = []
        for start in range(len(clean.joints) - frames + 1):
            error = np.linalg.norm(clean.joints[start : start + frames] - noisy.joints, axis=-1)
            found.append(np.median(error[noisy.tracking > 0]))
        starts.add(int(np.argmin(found)))
        errors.append(min(found))
        np.testing.assert_array_equal(noisy.present, noisy.joints.any(axis=(1, 3)))
        np.testing.assert_array_equal(
            noisy.tracking == 0, np.broadcast_to(~noisy.present[:, None], noisy.tracking.shape)
        )
    assert max(errors) < 0.06
    assert 0.004 < np.mean(errors) < 0.03
    assert len(starts) > 10, "cameras start at different moments"
    assert any(not clip.present.all() for clip in sensed)
    assert all(clip.present.all() for clip in truth)
    assert any((clip.tracking == 1).any() for clip in sensed)


def test_seed_decides_everything(sensed: list[SyntheticClip]) -> None:
    again, other = list(generate(30, seed=3)), list(generate(30, seed=4))
    for first, second in zip(sensed, again, strict=False):
        assert first.name == second.name
        np.testing.assert_array_equal(first.joints, second.joints)
    assert len(again) == 30
    assert not any(np.array_equal(a.joints, b.joints) for a, b in zip(again, other, strict=True))


def test_clips_are_named_and_balanced() -> None:
    names = [clip.name for clip in generate(3 * 2 * len(CLASS_NAMES) + 1, seed=0, noise=False)]
    assert len(set(names)) == len(names) == 97
    assert names[0][:8] == "S001C001"
    counts = np.bincount([int(name[17:]) - 1 for name in names[:96]])
    assert counts.tolist() == [6] * 16
    with pytest.raises(UsageError, match="negative"):
        next(generate(-1))


# -------------------------------------------------------------------------------------------------- what it writes


def test_archive_has_disjoint_splits_and_normalised_clips(tmp_path: Path) -> None:
    write_archive(tmp_path / "made", num_samples=240, seed=5)
    archive = Archive.open(tmp_path / "made")
    assert (len(archive), archive.num_bodies, archive.class_names) == (240, 2, CLASS_NAMES)
    for protocol, rule in PROTOCOLS.items():
        train, test = archive.split(protocol)
        column = archive.columns[rule["column"]]
        assert len(train) + len(test) == 240
        assert len(test) >= 40
        assert set(column[train]).isdisjoint(column[test])
        assert set(archive.labels[test]) == set(archive.labels[train]) == set(range(16))
    for row in range(0, 240, 7):
        clip = np.asarray(archive.clip(row), dtype=np.float32)  # (T, C, V, M)
        np.testing.assert_array_equal(clip[:, :, 1, 0], 0.0)
        across = clip[0, :, 8, 0] - clip[0, :, 4, 0]
        assert across[0] > 0.999 * np.linalg.norm(across), "the shoulders of frame 0 lie along x"


def test_archive_is_the_same_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_archive(tmp_path / name, num_samples=9, seed=1, dtype="float32")
    first, second = Archive.open(tmp_path / "a"), Archive.open(tmp_path / "b")
    np.testing.assert_array_equal(first.frames, second.frames)
    with pytest.raises(DataError, match="exists"):
        write_archive(tmp_path / "a", num_samples=9)


@pytest.mark.parametrize("crlf", [False, True])
def test_raw_text_is_read_back(tmp_path: Path, crlf: bool) -> None:
    clips = list(generate(60, seed=1))
    paths = write_skeleton_files(tmp_path / "raw", num_samples=60, seed=1, crlf=crlf)
    assert [path.stem for path in paths] == [clip.name for clip in clips]
    assert sorted(tmp_path.joinpath("raw").iterdir()) == sorted(paths)
    for clip, path in zip(clips, paths, strict=True):
        assert (b"\r\n" in path.read_bytes()) == crlf
        bodies, listed = read_skeleton(path), clip.listed()
        assert len(bodies) == len(listed)
        np.testing.assert_allclose(bodies, listed[:, : bodies.shape[1]], atol=1e-6)
        assert not listed[:, bodies.shape[1] :].any()


def test_raw_text_has_the_columns_of_the_data_set() -> None:
    clip = next(clip for clip in generate(600, seed=0) if clip.present.shape[1] == 2 and not clip.present[:, 1].all())
    lines = skeleton_text(clip).splitlines()
    assert int(lines[0]) == len(clip.joints)
    line, ids = 1, []
    for frame in range(len(clip.joints)):
        assert int(lines[line]) == clip.present[frame].sum()
        for _ in range(int(lines[line])):
            head, count, joint = lines[line + 1].split(), lines[line + 2], lines[line + 3].split()
            assert (len(head), count, len(joint)) == (10, "25", 12)
            assert np.linalg.norm([float(number) for number in joint[7:11]]) == pytest.approx(1.0, abs=1e-3)
            assert joint[11] in "12"
            ids.append(int(head[0]))
            line += 27
        line += 1
    assert line == len(lines)
    assert min(ids) > 2**53
    assert len(set(ids)) >= 2
    assert len({float(number) for number in set(ids)}) <= len(set(ids))


def test_raw_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_skeleton_files(tmp_path / "file", num_samples=1)
