"""The views' rows of `make bench`: batched against clip by clip, see `views.py`."""

from __future__ import annotations

import numpy as np
import torch
from bench_table import Disagreement, Row, Settings, interleaved, medians

from prosl_lightning.allocator import keep_freed_memory
from views import CONTRASTIVE, FRAMES, LAYOUT, SEMANTIC, batched, check, clips_of_real_lengths, reference_batch

BATCHES, BATCH = 4, 64
SHARED_NOISE = (
    "the normal noise of ours is cut from a shared pool of a quarter as many draws, that of the reference drawn anew "
    "for every clip"
)


def views(settings: Settings) -> list[Row]:
    """Two and three views of several batches, read from memory in the archive's float16, or padded float32."""
    keep_freed_memory()  # as training does; both sides profit
    batch = 8 if settings.tiny else BATCH
    batches = []
    for seed in range(1 if settings.tiny else BATCHES):
        stored, length = clips_of_real_lengths(batch, seed)
        clips = np.ascontiguousarray(stored.transpose(0, 2, 1, 3, 4), dtype=np.float32)
        batches.append((torch.from_numpy(stored).permute(0, 2, 1, 3, 4), torch.from_numpy(length), clips, length))
    drawn = check_draws(tiny=settings.tiny)
    try:
        worst = max(check(joints, clips, length) for joints, _, clips, length in batches)
    except SystemExit as error:
        raise Disagreement(str(error)) from error
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    rows = []
    for count, name in ((2, "2 views (query, key)"), (3, "3 views (and semantic)")):
        note = SHARED_NOISE if count == 3 else ""
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
                checks={"largest_difference": worst} | drawn, seconds=times, note=note,
            )
        )  # fmt: skip
    return rows


def check_draws(tiny: bool) -> dict[str, float]:
    """Shares of what the views draw at random; raises where one is not the reference's: less would be faster.

    Returns:
        Flips, noise, blur and axis masks, 1/2 each; shear 1/2; deviation of the noise 1.
    """
    count, generator = 400 if tiny else 2000, torch.Generator().manual_seed(0)
    length = torch.full((count,), 100)
    semantic = SEMANTIC.draw(length, (3, FRAMES, LAYOUT.num_joints, 2), generator)
    matrix = CONTRASTIVE.draw(length, LAYOUT.num_joints, generator).matrix
    kept = (matrix == torch.eye(3)[..., None]).flatten(1, 2).all(dim=1)  # joints that corruption leaves alone
    found = {
        "flipped": semantic.flipped, "noisy": semantic.noise_std > 0, "blurred": semantic.sigma > 0,
        "axis_dropped": (semantic.axes == 0).any(dim=1), "sheared": ~kept.any(dim=1),
    }  # fmt: skip
    shares = {name: float(values.double().mean()) for name, values in found.items()}
    shares["noise_deviation"] = float(semantic.noise.double().std())
    for name, share in shares.items():
        expected, tolerance = (1.0, 0.02) if name == "noise_deviation" else (0.5, 2.5 / count**0.5)
        if not abs(share - expected) <= tolerance:
            raise Disagreement(f"views drawn: {name} {share:.2f}, expected {expected}")
    return shares


def _only_memory(joints: torch.Tensor, views: int) -> list[torch.Tensor]:
    """Read as many frames as a view has and write them as float32: what cannot be done without."""
    return [joints.permute(0, 2, 1, 3, 4)[:, :64].float() for _ in range(views)]
