"""The losses against the public HiCo code and against slow float64 recomputations of the paper's equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prosl_lightning.prosl.losses import branch_kl_loss, contrastive_loss, mean_cosine, semantic_loss

# (term, query, key, bank): temporal and spatial are crossed
TERMS = [
    ("clip", "qc", "kc", "c_queue"),
    ("part", "qp", "kp", "p_queue"),
    ("temporal", "qt", "ks", "s_queue"),
    ("spatial", "qs", "kt", "t_queue"),
    ("instance", "qi", "ki", "i_queue"),
]


def _hico_terms(data, filtered: bool):
    queries = {name: torch.tensor(data[name]).requires_grad_() for name in ("qc", "qp", "qt", "qs", "qi")}
    label = torch.tensor(data["label"])
    losses = {}
    for term, query, key, queue in TERMS:
        anchor = queries[query][:, 0] if queries[query].dim() == 3 else queries[query]
        positives = torch.tensor(data[key])
        positives = positives if positives.dim() == 3 else positives.unsqueeze(1)
        column = torch.tensor(data[f"{queue}_label"])
        excluded = (label[:, None] == column) & (column >= 0) if filtered else None
        memory = torch.tensor(data[queue]).T
        losses[term] = contrastive_loss(anchor, positives, memory, float(data["temperature"]), excluded)
    return queries, losses


@pytest.mark.parametrize("kind", ["plain", "filtered"])
def test_hico_terms_and_gradients_match_the_reference(fixture_arrays, kind):
    data = fixture_arrays("hico_losses")
    queries, losses = _hico_terms(data, kind == "filtered")
    for term, loss in losses.items():
        np.testing.assert_allclose(loss.detach(), data[f"{kind}/{term}_per_sample"], atol=1e-5, rtol=0)
        assert float(loss.mean()) == pytest.approx(float(data[f"{kind}/{term}"]), abs=1e-5)
    total = torch.stack([loss.mean() for loss in losses.values()]).sum()
    assert float(total) == pytest.approx(float(data[f"{kind}/total"]), abs=2e-5)
    total.backward()
    for name, query in queries.items():
        np.testing.assert_allclose(query.grad, data[f"{kind}/grad_{name}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", ["opt", "opt_all_removed", "opt_only_noise_left"])
def test_optimised_contrast_matches_equations_4_and_5(fixture_arrays, case, dtype, atol):
    data = fixture_arrays("prosl_equations")
    z = torch.tensor(data["opt/z"], dtype=dtype, requires_grad=True)
    key, memory = (torch.tensor(data[f"opt/{name}"], dtype=dtype) for name in ("z_key", "memory"))
    label, column = torch.tensor(data[f"{case}/label"]), torch.tensor(data[f"{case}/memory_label"])
    excluded = (label[:, None] == column) & (column >= 0)
    assert (~excluded).sum(dim=1).tolist() == data[f"{case}/kept"].tolist()
    loss = contrastive_loss(z, key.unsqueeze(1), memory.T, float(data["opt/temperature"]), excluded)
    np.testing.assert_allclose(loss.detach(), data[f"{case}/per_sample"], atol=atol, rtol=0)
    loss.mean().backward()
    np.testing.assert_allclose(z.grad, data[f"{case}/grad_z"], atol=atol, rtol=0)
    if case == "opt_all_removed":
        assert torch.count_nonzero(loss) == 0
    if case == "opt":
        plain = contrastive_loss(z, key.unsqueeze(1), memory.T, float(data["opt/temperature"]))
        assert float(plain.mean()) == pytest.approx(float(data["opt/loss_without_removal"]), abs=atol)


def _semantic_cases(data) -> list[str]:
    return sorted({key.split("/")[1] for key in data if key.startswith("sem/")})


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_semantic_loss_matches_equations_2_3_and_9(fixture_arrays, dtype, atol):
    data = fixture_arrays("prosl_equations")
    cases = _semantic_cases(data)
    assert {"empty", "k65", "k130_relative", "sharp", "some"} <= set(cases)
    for case in cases:
        part = {
            key.removeprefix(f"sem/{case}/"): value for key, value in data.items() if key.startswith(f"sem/{case}/")
        }
        z = torch.tensor(part["z"], dtype=dtype, requires_grad=True)
        result = semantic_loss(
            z, torch.tensor(part["centroids"], dtype=dtype), torch.tensor(part["label"]),
            float(part["temperature"]), float(part["xi"]),
        )  # fmt: skip
        assert result.confident.tolist() == part["member"].tolist(), case
        np.testing.assert_allclose(result.per_sample.detach(), part["per_sample"], atol=atol, rtol=0, err_msg=case)
        assert float(result.loss) == pytest.approx(float(part["loss_mean"]), abs=atol), case
        result.loss.backward()
        np.testing.assert_allclose(z.grad, part["grad_z_of_loss_mean"], atol=atol, rtol=0, err_msg=case)


@pytest.mark.parametrize("with_positive", [False, True])
@pytest.mark.parametrize("direction", ["semantic-to-query", "query-to-semantic"])
def test_branch_kl_matches_equation_10(fixture_arrays, direction, with_positive):
    data = fixture_arrays("prosl_equations")
    name = direction.replace("-", "_")
    suffix = "_with_positive" if with_positive else ""
    semantic = torch.tensor(data["kl/z_semantic"], requires_grad=True)
    query, memory = torch.tensor(data["kl/z"], requires_grad=True), torch.tensor(data["kl/memory"]).T
    temperature = float(data["kl/temperature"])
    if with_positive:  # a bank of one's own per sample, its key first
        key = torch.tensor(data["kl/z_key"])
        loss = torch.cat(
            [
                branch_kl_loss(
                    semantic[i : i + 1], query[i : i + 1], torch.cat([key[i : i + 1], memory]), temperature, direction
                )
                for i in range(len(key))
            ]
        )
    else:
        loss = branch_kl_loss(semantic, query, memory, temperature, direction)
    np.testing.assert_allclose(loss.detach(), data[f"kl/{name}_per_sample{suffix}"], atol=1e-9, rtol=0)
    loss.mean().backward()
    np.testing.assert_allclose(semantic.grad, data[f"kl/{name}_grad_z_semantic{suffix}"], atol=1e-9, rtol=0)
    assert query.grad is None  # the query branch is the teacher


def test_mean_cosine_equals_the_mean_over_pairs():
    features = F.normalize(torch.randn(7, 5, dtype=torch.float64), dim=1)
    cosine = features @ features.T
    expected = (cosine.sum() - cosine.diagonal().sum()) / (7 * 6)
    assert float(mean_cosine(features)) == pytest.approx(float(expected), abs=1e-12)
