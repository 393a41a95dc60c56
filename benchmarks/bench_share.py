"""The semantic share's row of `make bench`: what the codebook costs a whole run of the paper, calculated from rates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from bench_codebook import drifting_features, ours
from bench_importance import ours as measure_importance
from bench_step import mid_training
from bench_table import Row, Settings, interleaved, medians
from reference_step import OurStep
from torch import Tensor

from prosl_lightning import ProSLModule
from prosl_lightning.allocator import keep_freed_memory

EPOCHS, SEMANTIC_EPOCHS, SEQUENCES, BATCH, CLUSTERS = 450, 50, 40_091, 64, 65
STEPS = SEQUENCES // BATCH
# 51 min of 8 h 51 min: extraction 21, clustering 18, importance 12; the second leaves the importance out.
PAPER_PERCENT, PAPER_PERCENT_ALONE = 9.6, 7.5
FORMULA = (
    "100 (P + C1 + 49 C + 50 x 626 L) / (450 x 626 T + P + C1 + 49 C + 50 x 626 L), P = 50 x 40,091 / R: T a step of "
    "64 without codebook, R key features a second, C1 and C first and later codebook, L the codebook's terms of a "
    "loss and its gradient"
)


def share(settings: Settings) -> list[Row]:
    """450 epochs of 40,091 sequences, the last 50 semantic; the third branch counts as training."""
    keep_freed_memory()
    batch = 8 if settings.tiny else BATCH
    module, views, index = mid_training("stage 2", batch, settings.tiny)
    plain, first_views, _ = mid_training("stage 1", batch, settings.tiny)
    one, evaluated = OurStep(plain), OurStep(module).module.eval()
    count = 600 if settings.tiny else SEQUENCES
    epoch = drifting_features(count, 0)
    centroids = ours(epoch.before, CLUSTERS, 0).centroids
    few = views[0][: 4 if settings.tiny else 16]

    @torch.no_grad()
    def features() -> Tensor:
        return evaluated.key_features(views[0])

    times = interleaved(
        {
            "step": lambda: one.train(first_views, index),
            "features": features,
            "losses": lambda: losses(module, index, True),
            "losses_without": lambda: losses(module, index, False),
            "first": lambda: ours(epoch.before, CLUSTERS, 0),
            "later": lambda: ours(epoch.after, CLUSTERS, 0, centroids),
            "importance": lambda: measure_importance(evaluated, few),
        },
        settings.rounds,
    )
    t = medians(times)
    scale = SEQUENCES / count
    parts = {
        "training": EPOCHS * STEPS * t["step"] * BATCH / batch,
        "feature passes": SEMANTIC_EPOCHS * SEQUENCES / batch * t["features"],
        "codebooks": scale * (t["first"] + (SEMANTIC_EPOCHS - 1) * t["later"]),
        "losses": SEMANTIC_EPOCHS * STEPS * max(0.0, t["losses"] - t["losses_without"]) * BATCH / batch,
    }
    importance = SEMANTIC_EPOCHS * module.hparams["importance_samples"] / len(few) * t["importance"]
    semantic = sum(parts.values()) - parts["training"]
    percent = 100 * semantic / sum(parts.values())
    apart = 100 * (semantic + importance) / (sum(parts.values()) + importance) - percent
    shares = {name: 100 * seconds / sum(parts.values()) for name, seconds in parts.items() if name != "training"}
    told = ", ".join(f"{name} {value:.2f} %" for name, value in shares.items())
    return [
        Row(
            f"semantic part of a run, {EPOCHS} epochs", f"{PAPER_PERCENT_ALONE} % (paper)", f"{percent:.2f} %", percent,
            2, 0.5, unit="%", better="less", limit="0 %", checks=shares | {"importance_percent": apart}, seconds=times,
            note=f"calculated from measured rates, float32: {FORMULA}. {told}. Neither share holds the importance: "
            f"with it the paper's is {PAPER_PERCENT} %; ours, {module.hparams['importance_samples']:,} sequences "
            f"measured anew for each codebook, would be {percent + apart:.2f} %",
        )
    ]  # fmt: skip


def losses(module: ProSLModule, index: Tensor, semantic: bool) -> None:
    """Losses of given projections with their gradient, with or without the codebook's terms."""
    draw = torch.Generator().manual_seed(0)
    shapes: dict[str, Any] = {}
    for name, bank in module.banks.items():
        levels = len(bank.features) // module.hparams["bank_size"]
        shapes[name] = (len(index), *([levels] if levels > 1 else []), bank.features.shape[1])

    def projections() -> dict[str, Tensor]:
        unit = {name: F.normalize(torch.randn(shape, generator=draw), dim=-1) for name, shape in shapes.items()}
        return {name: value.requires_grad_() for name, value in unit.items()}

    query, branch, key = projections(), projections(), projections()
    key = {name: value.detach() for name, value in key.items()}
    codebook = module.codebook if semantic else None
    terms = module.objective.contrast(query, key, module.banks, codebook, index)
    extra, _ = module.objective.semantic(query, branch, module.banks, codebook, index)
    torch.stack(list((terms | extra).values())).sum().backward()
