"""The views' rows of `make bench`: batched against clip by clip, see `views.py`."""

from __future__ import annotations

import numpy as np
import torch
from bench_table import Disagreement, Row, Settings, interleaved, medians

from prosl_lightning.allocator import keep_freed_memory
from views import batched, check, clips_of_real_lengths, reference_batch

BATCHES, BATCH = 4, 64


def views(settings: Settings) -> list[Row]:
    """Two and three views of several batches, read from memory in the archive's float16, or padded float32."""
    keep_freed_memory()  # as training does; both sides profit
    batch = 8 if settings.tiny else BATCH
    batches = []
    for seed in range(1 if settings.tiny else BATCHES):
        stored, length = clips_of_real_lengths(batch, seed)
        clips = np.ascontiguousarray(stored.transpose(0, 2, 1, 3, 4), dtype=np.float32)
        batches.append((torch.from_numpy(stored).permute(0, 2, 1, 3, 4), torch.from_numpy(length), clips, length))
    try:
        worst = max(check(joints, clips, length) for joints, _, clips, length in batches)
    except SystemExit as error:
        raise Disagreement(str(error)) from error
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    rows = []
    for count, name in ((2, "2 views (query, key)"), (3, "3 views (and semantic)")):
        times = interleaved(
            {
                "reference": lambda n=count: [reference_batch(c, f, rng, n) for _, _, c, f in batches],
                "ours": lambda n=count: [batched(j, f, generator, n) for j, f, _, _ in batches],
                "limit": lambda n=count: [_only_memory(j, n) for j, *_ in batches],
            },
            settings.rounds,
        )
        median, samples = medians(times), batch * len(batches)
        rows.append(
            Row(
                f"{name}, batch {batch}", f"{samples / median['reference']:,.0f} samples/s",
                f"{samples / median['ours']:,.0f} samples/s", median["reference"] / median["ours"], 5, 10,
                limit=f"{median['reference'] / median['limit']:.0f}x (read once, write once)",
                checks={"largest_difference": worst}, seconds=times,
            )
        )  # fmt: skip
    return rows


def _only_memory(joints: torch.Tensor, views: int) -> list[torch.Tensor]:
    """Read as many frames as a view has and write them as float32: what cannot be done without."""
    return [joints.permute(0, 2, 1, 3, 4)[:, :64].float() for _ in range(views)]
