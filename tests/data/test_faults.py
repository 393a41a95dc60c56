"""Planted faults are counted exactly, and clean motion has none."""

from __future__ import annotations

import numpy as np
import pytest

from prosl_lightning.data.faults import DRIFT, Faults, measure
from prosl_lightning.data.normalize import normalize_agcn
from prosl_lightning.data.synthetic.generator import generate
from prosl_lightning.skeleton import SkeletonLayout

KINECT = SkeletonLayout.of("kinect-v2")
WRIST, HAND, HEAD, NECK = 10, 11, 3, 2


def _swing(frames: int = 80, bodies: int = 1, seed: int = 0) -> np.ndarray:
    """Rigid bodies that turn to and fro and walk about, (T, C, V, M): every joint moves, no bone changes."""
    draw = np.random.default_rng(seed)
    rest = draw.normal(size=(3, 25, bodies)) * 0.3
    time = np.arange(frames) / 10
    cosine, sine = np.cos(np.sin(time)), np.sin(np.sin(time))
    zero, one = np.zeros(frames), np.ones(frames)
    turn = np.array([[cosine, zero, -sine], [zero, one, zero], [sine, zero, cosine]])
    path = np.stack([0.3 * np.sin(time / 2), 0.05 * np.cos(time), 3 + 0.2 * np.cos(time / 3)])
    return np.einsum("ijt,jvm->tivm", turn, rest) + path.T[:, :, None, None]


def _measure(*clips: np.ndarray, layout: SkeletonLayout = KINECT) -> Faults:
    return measure(np.concatenate(clips), np.array([len(clip) for clip in clips]), layout)


def _counts(faults: Faults) -> dict[str, int]:
    """What is not zero."""
    found = {
        "nonfinite": faults.nonfinite.sum(),
        "empty": faults.empty.sum(),
        "absent": faults.absent.sum(),
        "repeated": faults.repeated.sum(),
        "missing": faults.missing.sum(),
        "stuck": faults.stuck.sum(),
        "jumps": faults.jumps.sum(),
        "drift": (faults.drift > DRIFT).sum(),
    }
    return {name: int(number) for name, number in found.items() if number}


def test_clean_motion_has_no_faults():
    assert _counts(_measure(_swing(), _swing(31, seed=1), _swing(1, seed=2))) == {}
    clips = [clip.joints.transpose(0, 3, 1, 2) for clip in generate(21, noise=False)]
    faults = _measure(*clips)
    assert _counts(faults) == {}
    assert np.nanmax(faults.drift) < 1e-4


def test_a_stuck_joint():
    clip = _swing()
    clip[10:, :, HAND] = clip[10, :, HAND]  # to the end: it does not jump back
    faults = _measure(_swing(), clip)
    assert faults.stuck.sum() == faults.stuck[1, HAND] == 1
    assert faults.jumps.sum() == 0
    clip = _swing(300)
    for start in (10, 100, 200):
        clip[start : start + 30, :, HAND] = clip[start, :, HAND]
    assert _measure(clip).stuck[0].nonzero()[0].tolist() == [HAND]
    assert _measure(clip).stuck.sum() == 3


def test_a_short_rest_and_a_rest_of_all_are_no_stuck_joint():
    clip = _swing()
    clip[10:30, :, HAND] = clip[10, :, HAND]  # 19 steps
    assert _measure(clip).stuck.sum() == 0
    clip[10:31, :, HAND] = clip[10, :, HAND]
    assert _measure(clip).stuck.sum() == 1
    still = np.repeat(_swing(1), 60, axis=0)
    assert _counts(_measure(still)) == {"repeated": 59}


def test_jumps():
    away = _swing()
    away[30:, 0, WRIST] += 0.3
    assert _measure(away).jumps.sum() == _measure(away).jumps[0, WRIST] == 1
    back = _swing()
    back[30, 1, WRIST] += 0.3
    assert _measure(back).jumps[0, WRIST] == 2
    first, last = _swing(), _swing()
    first[0, 2, HEAD] -= 0.3
    last[-1, 2, HEAD] -= 0.3
    faults = _measure(first, _swing(), last)
    assert faults.jumps[:, HEAD].tolist() == [1, 0, 1]
    assert faults.jumps.sum() == 2
    everybody = _swing(bodies=2)
    everybody[40:, 0, :, 1] += 0.5
    assert _measure(everybody).jumps[0].tolist() == [1] * 25


def test_a_fast_motion_is_no_jump():
    clip, time = _swing(), np.arange(80)
    clip[:, 0, HAND, 0] += 0.4 * np.cos(time * np.pi / 4)  # 0.3 m a frame, a turn in eight frames
    clip[:, 1, HAND, 0] += 0.4 * np.sin(time * np.pi / 4)
    assert _measure(clip).jumps.sum() == 0


def test_a_joint_that_always_jerks_does_so_as_usual():
    clip = _swing()
    clip[::2, 0, HAND] += 0.5
    assert _measure(clip).jumps.sum() == 0


def test_a_growing_bone():
    clip = _swing()
    clip[:, :, HEAD] = clip[:, :, NECK] + (clip[:, :, HEAD] - clip[:, :, NECK]) * np.linspace(1, 2.5, 80)[:, None, None]
    faults = _measure(clip, _swing(seed=1))
    bone = KINECT.bones.index((HEAD, NECK))
    assert np.argwhere(faults.drift > DRIFT).tolist() == [[0, bone]]
    # lengths 1 to 2.5 times: the middle 90 % span 1.35, half of it by the median of 1.75
    assert faults.drift[0, bone] == pytest.approx(1.35 / 2 / 1.75, abs=0.01)
    assert _counts(faults) == {"drift": 1}


def test_absent_bodies_and_empty_frames():
    clip = _swing(bodies=2)
    clip[5:15, ..., 1] = 0
    clip[70:, ..., 0] = 0
    faults = _measure(clip, _swing(bodies=2))
    assert faults.absent.tolist() == [[10, 10], [0, 0]]
    assert _counts(faults) == {"absent": 20}
    clip[75:] = 0
    assert _measure(clip).empty.tolist() == [5]
    nobody = _measure(np.zeros_like(clip))
    assert _counts(nobody) == {"empty": 80, "absent": 160}
    assert np.isnan(nobody.drift).all()


def test_values_that_are_no_numbers():
    clip = _swing(bodies=2)
    clip[4, :, HAND, 0] = np.nan
    clip[9, 0, HEAD, 1] = -np.inf
    faults = _measure(_swing(bodies=2), clip)
    assert faults.nonfinite.tolist() == [0, 4]
    assert faults.absent.tolist() == [[0, 0], [1, 1]]
    assert _counts(faults) == {"nonfinite": 4, "absent": 2}
    clip = _swing()
    clip[3, 0, HAND] = 1e30
    assert _counts(_measure(clip)) == {"nonfinite": 1, "absent": 1, "empty": 1}


def test_missing_joints_and_repeated_frames():
    clip = _swing()
    clip[20:24, :, HAND] = 0
    clip[50:53] = clip[50]
    assert _counts(_measure(clip)) == {"missing": 4, "repeated": 2}
    assert _measure(clip).missing[0, HAND] == 4
    never = _swing()
    never[:, :, HAND] = 0  # never seen, and the body is far from the origin
    assert _counts(_measure(never)) == {"missing": 80}


@pytest.mark.parametrize("name", ["kinect-v2", "sfinge3d", "kinect-v1"])
def test_the_centre_of_centred_data_is_neither_missing_nor_stuck(name):
    layout = SkeletonLayout.of(name)
    raw = _swing()[:, :, : layout.num_joints].transpose(0, 3, 2, 1)
    centred = normalize_agcn(raw, layout, 1).transpose(0, 3, 2, 1)
    assert not centred[:, :, layout.center].any()
    assert _counts(_measure(centred, layout=layout)) == {}


def test_it_is_the_same_in_any_unit_and_in_any_company():
    clips = [_swing(seed=seed, bodies=2) for seed in range(4)]
    clips[1][30:, 0, WRIST, 0] += 0.3
    clips[2][20:70, :, HAND, 1] = clips[2][20, :, HAND, 1]
    clips[3][10:14, ..., 0] = 0
    together = _measure(*clips)
    assert _counts(together)["jumps"] >= 1
    for name, values in vars(Faults.join([_measure(clip) for clip in clips])).items():
        np.testing.assert_array_equal(getattr(together, name), values)
    pixels = _measure(*(clip * 1024 for clip in clips))
    for name, values in vars(pixels).items():
        np.testing.assert_allclose(getattr(together, name), values, atol=1e-5)


def test_half_precision_changes_nothing():
    clip = _swing()
    clip[30:, 0, WRIST] += 0.3
    assert _counts(_measure((clip - np.array([0.0, 0.0, 3.0])[:, None, None]).astype(np.float16))) == _counts(
        _measure(clip)
    )
