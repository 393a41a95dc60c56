"""What is usual in the data counts nothing, whatever is planted beyond it comes first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prosl_lightning.data.faults import DRIFT, Faults
from prosl_lightning.data.severity import drifting, severity
from prosl_lightning.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout.of("sbu-15")
LENGTHS = np.full(20, 50)


def _noisy() -> Faults:
    """Twenty sequences of a bad sensor: some jumps and bones that drift by 0.4 to 0.6 in every one of them."""
    draw = np.random.default_rng(0)
    faults = Faults.none(20, 1, LAYOUT)
    faults.jumps[:, 3] = draw.integers(2, 6, 20)
    drift = draw.uniform(0.4, 0.6, faults.drift.shape).astype(np.float32)
    return replace(faults, drift=drift)


def test_faults_that_all_have_are_usual():
    faults = _noisy()
    assert (faults.drift > DRIFT).all()
    assert not drifting(faults).any()
    found = severity(faults, LENGTHS)
    assert found.scores.max() < 8
    assert found.usual[found.kinds.index("jumps")] == pytest.approx(np.median(faults.jumps[:, 3]) / 50)


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        ("nonfinite values", lambda faults: faults.nonfinite.__setitem__(7, 30)),
        ("frames without anybody", lambda faults: faults.empty.__setitem__(7, 25)),
        ("repeated frames", lambda faults: faults.repeated.__setitem__(7, 25)),
        ("missing joints", lambda faults: faults.missing.__setitem__((7, 2), 25)),
        ("stuck joints", lambda faults: faults.stuck.__setitem__((7, 2), 10)),
        ("jumps", lambda faults: faults.jumps.__setitem__((7, 1), 60)),
        ("drifting bones", lambda faults: faults.drift.__setitem__((7, 4), 2.0)),
    ],
)
def test_what_is_planted_among_noise_comes_first_and_is_named(kind, plant):
    faults = _noisy()
    plant(faults)
    found = severity(faults, LENGTHS)
    assert found.scores.argmax() == 7
    assert found.scores[7] > 1.5 * np.delete(found.scores, 7).max()
    assert found.kinds[found.deviations[7].argmax()] == kind


def test_a_bone_drifts_where_it_goes_beyond_its_own_usual():
    faults = _noisy()
    faults.drift[7, 4] = 1.5
    faults.drift[:, 5] = 0.01
    faults.drift[3, 5] = 0.3
    faults.drift[4, 5] = 0.2  # beyond the usual, but small
    assert np.argwhere(drifting(faults)).tolist() == [[3, 5], [7, 4]]


def test_few_sequences_do_not_tell_what_is_usual():
    faults = Faults.join([_noisy()])
    few = Faults(*(values[:3] for values in vars(faults).values()))
    assert drifting(few).all()
    few.drift[:] = np.nan
    assert not drifting(few).any()
    assert np.isfinite(severity(few, LENGTHS[:3]).scores).all()


def test_longer_sequences_may_have_more_faults():
    faults = Faults.none(20, 1, LAYOUT)
    lengths = np.arange(100, 2100, 100)
    faults.jumps[:, 0] = lengths // 20
    assert severity(faults, lengths).scores.max() == pytest.approx(0)
