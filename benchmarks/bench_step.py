"""The training step's rows of `make bench`: float32 and bfloat16, against `reference_step.py`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from bench_table import Disagreement, Row, Settings, interleaved, medians
from reference_step import OurStep, ReferenceStep, Views, disagreement
from torch import Tensor

from prosl_lightning import ProSLModule
from prosl_lightning.allocator import keep_freed_memory

TOLERANCE, BF16_TOLERANCE = 1e-4, 0.05
TINY = {"base_args": {"hidden_size": 16, "num_layers": 1, "projection_size": 8}, "num_frames": 16, "min_crop_frames": 8}
STAGES: dict[str, dict[str, Any]] = {
    "baseline": {"semantic": False}, "stage 1": {"semantic_start": 10**6}, "stage 2": {"semantic_start": 0},
}  # fmt: skip


def mid_training(stage: str, batch: int, tiny: bool) -> tuple[ProSLModule, Views, Tensor]:
    """A paper-sized module as in the middle of a stage, one batch of views, and its rows."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = TINY | {"bank_size": 64, "num_clusters": 5} if tiny else {}
    module = ProSLModule(**sizes, **STAGES[stage], confidence_threshold=0.0).train()
    shape = (3, batch, 3, module.hparams["num_frames"], module.layout.num_joints, 2)
    query, key, semantic = torch.randn(shape) * 0.4
    samples, clusters = 20 * batch, module.hparams["num_clusters"]
    if stage == "stage 2":
        with torch.no_grad():
            features = F.normalize(module.query_encoder.project(query)[module.base.semantic], dim=1)
        # The batch's own features are among the centroids, so that its samples are confident.
        centroids = F.normalize(torch.randn(clusters, features.shape[1]), dim=1)
        centroids[: len(features)] = features[:clusters]
        assignment = torch.randint(clusters, (samples,))
        assignment[:batch] = (features @ centroids.T).argmax(dim=1)
        module.codebook.update(centroids, assignment)
        module.codebook.importance = torch.rand(module.layout.num_joints)
    for bank in module.banks.values():
        bank.index = torch.randint(samples, bank.index.shape)
    return module, (query, key, None if stage == "baseline" else semantic), torch.arange(batch)


def check(tiny: bool, batch: int) -> dict[str, float]:
    """Largest relative difference between the two sides in each stage; raises where it is not rounding."""
    checks = {}
    for stage in STAGES:
        for name, difference in disagreement(*mid_training(stage, batch, tiny)).items():
            checks[f"{stage}, {name}"] = difference
            if not difference <= TOLERANCE:
                raise Disagreement(f"{stage}: {name} differ by {difference:.1e}")
    return checks


def step(settings: Settings) -> list[Row]:
    """A whole step of the semantic stage on given views, float32 and bfloat16."""
    keep_freed_memory()
    batch = 8 if settings.tiny else 64
    checks = check(settings.tiny, 8)
    module, views, index = mid_training("stage 2", batch, settings.tiny)
    reference, ours, ours_bf16 = ReferenceStep(module), OurStep(module), OurStep(module)
    exact, coarse = ours.train(views, index), ours_bf16.train(views, index, bf16=True)
    off = float((exact - coarse).abs() / exact)
    if not off <= BF16_TOLERANCE:
        raise Disagreement(f"the loss in bfloat16 differs by {100 * off:.1f} %")
    times = interleaved(
        {
            "reference": lambda: reference.train(views, index),
            "ours": lambda: ours.train(views, index),
            "ours_bf16": lambda: ours_bf16.train(views, index, bf16=True),
        },
        settings.rounds,
    )
    median = medians(times)
    rows = []
    coarse_note = (
        f"reference in float32; the first loss differs by {100 * off:.2f} %; the accuracy after a training in bf16 was "
        "not part of this check"
    )
    for name, side, targets, extra, note in (
        ("float32", "ours", (1.05, 1.15), {}, ""),
        ("bf16", "ours_bf16", (1.6, 1.8), {"loss_of_bf16_differs_by": off}, coarse_note),
    ):
        rows.append(
            Row(
                f"training step, {name}, batch {batch}", f"{1e3 * median['reference']:,.0f} ms",
                f"{1e3 * median[side]:,.0f} ms", median["reference"] / median[side], *targets,
                limit="- (no bound is known)", note=note, checks=checks | extra,
                seconds={k: times[k] for k in ("reference", side)},
            )
        )  # fmt: skip
    return rows
