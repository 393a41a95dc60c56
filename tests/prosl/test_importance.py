"""Joint importance and masking probabilities against Eq. 6 to 8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prosl_lightning.prosl import importance
from prosl_lightning.prosl.importance import joint_importance, mask_probability, semantic_coefficients


def test_coefficients_match_equation_7(fixture_arrays):
    data = fixture_arrays("prosl_equations")
    per_sample = semantic_coefficients(torch.tensor(data["coef/z_key"]), torch.tensor(data["coef/z_key_without"]))
    np.testing.assert_allclose(per_sample, data["coef/p_per_sample"], atol=1e-9, rtol=0)
    np.testing.assert_allclose(per_sample.mean(dim=0), data["coef/p"], atol=1e-9, rtol=0)
    assert float(per_sample[:, 1].abs().max()) == 0.0  # this joint's removal changes nothing
    np.testing.assert_allclose(
        mask_probability(per_sample), data["coef/mask_probability_per_sample"], atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("case", ["coef", "mask_plain", "mask_all_zero"])
def test_mask_probability_matches_equation_8(fixture_arrays, case):
    data = fixture_arrays("prosl_equations")
    assert float(data["coef/clamp"]) == importance.SMALLEST_SHARE
    found = mask_probability(torch.tensor(data[f"{case}/p"]))
    np.testing.assert_allclose(found, data[f"{case}/mask_probability"], atol=1e-9, rtol=0)


def test_leaving_out_joints_as_one_batch_equals_a_loop():
    torch.manual_seed(0)
    weight = torch.randn(3 * 4 * 5 * 2, 6)
    clips = torch.randn(3, 3, 4, 5, 2)

    def embed(x):
        return F.normalize(x.flatten(1) @ weight, dim=1)

    found = joint_importance(embed, clips)
    for joint in range(5):
        without = clips.clone()
        without[:, :, :, joint] = 0
        expected = semantic_coefficients(embed(clips), embed(without).unsqueeze(1))
        torch.testing.assert_close(found[:, joint : joint + 1], expected)
    assert (found > 0).all()
