"""The 2s-AGCN normalisation against HiCo's numbers, and its behaviour where the original is undefined."""

from __future__ import annotations

import numpy as np
import pytest

from prosl_lightning.data.normalize import body_scores, choose_bodies, fill_gaps, normalize_agcn
from prosl_lightning.data.ntu import parse_skeleton, read_skeleton
from prosl_lightning.skeleton import SkeletonLayout

KINECT = SkeletonLayout.of("kinect-v2")


def _compare(arrays: dict[str, np.ndarray], case: str, bodies: np.ndarray) -> None:
    frames, tail = int(arrays[f"{case}/num_frame"]), int(arrays["tail"])
    assert len(bodies) == frames
    scores = np.zeros(4)
    scores[: bodies.shape[1]] = body_scores(bodies)
    np.testing.assert_allclose(np.sort(scores)[::-1], arrays[f"{case}/energy_sorted"], atol=5e-5, rtol=0)
    first = np.zeros((3, 25, 2))
    chosen = choose_bodies(bodies, 2)
    first[..., : chosen.shape[1]] = chosen[0].transpose(2, 1, 0)
    np.testing.assert_allclose(first, arrays[f"{case}/raw_first_frame"], atol=5e-5, rtol=0)
    full = normalize_agcn(bodies, KINECT, 2, total_frames=300).transpose(3, 0, 2, 1)
    assert full.shape == (3, 300, 25, 2)
    np.testing.assert_allclose(full[:, : frames + tail], arrays[f"{case}/data"], atol=5e-5, rtol=0)
    sums = [full.sum(dtype=np.float64), np.abs(full).sum(dtype=np.float64)]
    np.testing.assert_allclose(sums, arrays[f"{case}/checksum_300"], atol=0.05, rtol=0)
    stored = normalize_agcn(bodies, KINECT, 2)
    np.testing.assert_array_equal(stored.transpose(3, 0, 2, 1), full[:, :frames])


def test_parity_on_made_up_motion(fixture_arrays):
    arrays = fixture_arrays("agcn_normalise_synthetic")
    for name in arrays["edited_names"]:
        _compare(arrays, f"edited/{name}", parse_skeleton(arrays[f"edited/{name}/text"].tobytes()))


def test_parity_on_edited_real_motion(shared_folder):
    arrays = dict(np.load(shared_folder / "fixtures" / "agcn_normalise_edited.npz"))
    for name in arrays["edited_names"]:
        _compare(arrays, f"edited/{name}", parse_skeleton(arrays[f"edited/{name}/text"].tobytes()))


def test_parity_on_real_files(shared_folder):
    arrays = dict(np.load(shared_folder / "fixtures" / "agcn_normalise.npz"))
    for name in arrays["real_names"]:
        path = shared_folder / "data" / "raw-samples" / "ntu-skeleton" / f"{name}.skeleton"
        _compare(arrays, f"real/{name}", read_skeleton(path))


def _motion(frames: int, bodies: int = 1, joints: int = 25) -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.normal(size=(1, bodies, joints, 3)) + draw.normal(size=(frames, bodies, joints, 3)) * 0.1


@pytest.mark.parametrize(
    "name", ["kinect-v1", "utd-mhad", "sbu-15", "ui-prmd", "bandai-namco", "sfinge3d", "florence3d"]
)
def test_every_layout_is_centred_and_turned(name):
    layout = SkeletonLayout.of(name)
    bodies = normalize_agcn(_motion(9, 2, layout.num_joints), layout, 2)
    np.testing.assert_allclose(bodies[:, 0, list(layout.center)].mean(axis=1), 0, atol=1e-6)
    left, right = (bodies[0, 0, list(group)].mean(axis=0) for group in layout.shoulders)
    np.testing.assert_allclose((right - left)[1:], 0, atol=1e-6)
    assert (right - left)[0] > 0


def test_distances_are_kept():
    raw = _motion(5, 2)
    done = normalize_agcn(raw, KINECT, 2)
    order = np.argsort(-body_scores(raw))

    def gaps(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x.reshape(5, 50, 1, 3) - x.reshape(5, 1, 50, 3), axis=3)

    np.testing.assert_allclose(gaps(done), gaps(raw[:, order]), atol=1e-5)


def test_bodies_are_chosen_by_motion_and_padded():
    raw = _motion(20, 3)
    raw[:, 1] *= 0.5  # the smallest spread: the lowest score
    raw[:, 2] *= 2
    np.testing.assert_array_equal(choose_bodies(raw, 2), raw[:, [2, 0]])
    np.testing.assert_array_equal(choose_bodies(raw, 4), raw[:, [2, 0, 1]])
    np.testing.assert_array_equal(normalize_agcn(raw, KINECT, 4)[:, 3], 0)
    point = np.zeros((4, 2, 25, 3))
    point[:, 1] = 1.0  # there, but without any spread: still before an absent body
    np.testing.assert_array_equal(choose_bodies(point, 1)[:, 0], point[:, 1])


def test_gaps_are_filled_as_in_the_original():
    track = np.arange(1.0, 7.0)[:, None, None, None] * np.ones((1, 1, 2, 3))
    late, early, inner = track.copy(), track.copy(), track.copy()
    late[[0, 3]] = 0  # absent at first: moved to the front, the inner gap closes, then replayed
    early[[4, 5]] = 0  # lost at the end: replayed from the start
    inner[2] = 0  # lost for a moment: stays lost
    filled = fill_gaps(np.concatenate([late, early, inner], axis=1), total_frames=8)[..., 0, 0]
    np.testing.assert_array_equal(filled[:, 0], [2, 3, 5, 6, 2, 3, 5, 6])
    np.testing.assert_array_equal(filled[:, 1], [1, 2, 3, 4, 1, 2, 3, 4])
    np.testing.assert_array_equal(filled[:, 2], [1, 2, 0, 4, 5, 6, 1, 2])


def test_long_sequences_keep_all_frames():
    assert normalize_agcn(_motion(450), KINECT, 2, total_frames=300).shape == (450, 2, 25, 3)


def test_a_joint_whose_coordinates_sum_to_zero_is_there():
    raw = _motion(3)
    raw[:, 0, 7] = [0.5, 0.25, -0.75]
    done = normalize_agcn(raw, KINECT, 1)
    assert np.linalg.norm(done[0, 0, 7]) == pytest.approx(np.linalg.norm(raw[0, 0, 7] - raw[0, 0, 1]), rel=1e-5)


def _spine_and_shoulders(spine: list[float], shoulders: list[float]) -> np.ndarray:
    raw = np.ones((2, 1, 25, 3)) * np.arange(1, 26)[:, None]
    raw[:, 0, 0] = raw[:, 0, 1] - spine
    raw[:, 0, 8] = raw[:, 0, 4] + shoulders
    return raw


@pytest.mark.parametrize(
    ("spine", "shoulders", "expected"),
    [
        ([0, 0, 0], [1, 0, 0], [1, 0, 0]),  # no spine: only the shoulders turn
        ([0, 0, 1], [0, 0, 0], [0, 0, 0]),  # no shoulders
        ([0, 0, -1], [1, 0, 0], [1, 0, 0]),  # upside down
        ([0, 0, 1], [-1, 0, 0], [1, 0, 0]),  # facing away
        ([0, 0, -1], [-1, 0, 0], [1, 0, 0]),
    ],
)
def test_degenerate_directions_are_defined(spine, shoulders, expected):
    done = normalize_agcn(_spine_and_shoulders(spine, shoulders), KINECT, 1)
    assert np.isfinite(done).all()
    np.testing.assert_allclose(done[0, 0, 8] - done[0, 0, 4], expected, atol=1e-6)
    np.testing.assert_allclose(done[0, 0, 1] - done[0, 0, 0], np.abs(spine), atol=1e-6)


@pytest.mark.parametrize("heading", [0.1, 1.5, 3.0, 4.0])
def test_upright_keeps_the_spine_whatever_the_heading(heading):
    """The shortest turn of 2s-AGCN tips somebody who faces away; about the spine nobody falls."""
    raw = _motion(4)
    raw[:, 0, 1] = raw[:, 0, 0] + [0.02, 1.0, 0.05]  # y up, as sensors have it
    raw[:, 0, 8] = raw[:, 0, 4] + [np.cos(heading), 0.1, np.sin(heading)]
    done = normalize_agcn(raw, KINECT, 1, upright=True)
    spine, shoulders = done[0, 0, 1] - done[0, 0, 0], done[0, 0, 8] - done[0, 0, 4]
    np.testing.assert_allclose(spine[:2], 0, atol=1e-6)
    assert spine[2] > 0.9
    assert shoulders[0] > 0.9
    assert abs(shoulders[1]) < 1e-6


def test_nobody_stays_nobody():
    assert not normalize_agcn(np.zeros((4, 3, 25, 3)), KINECT, 2).any()
