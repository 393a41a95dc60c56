"""The importance's rows of `make bench`: p_v of a subset, joints stacked, against a loop over joints and batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from bench_step import TINY
from bench_table import Disagreement, Row, Settings, interleaved, medians
from scipy.stats import spearmanr
from torch import Tensor

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.data.synthetic import write_archive
from prosl_lightning.prosl.importance import joint_importance

PAPER_SEQUENCES = 40_091
# The coefficients are of second order in small differences: float32 leaves them two or three digits.
TOLERANCE, RANK_CORRELATION, DRAWS = 1e-2, 0.99, 50
SUBSET = 128  # of the small set, as configs/nw-ucla.yaml takes


@torch.no_grad()
def reference(module: ProSLModule, batches: Sequence[Tensor]) -> Tensor:
    """Every sequence, a forward pass for each joint and batch: coefficients (N, V)."""
    rows = []
    for clips in batches:
        full, columns = _distribution(module, clips), []
        for joint in range(clips.shape[3]):
            without = clips.clone()
            without[:, :, :, joint] = 0
            columns.append((full * (full / _distribution(module, without)).log()).sum(dim=1))
        rows.append(torch.stack(columns, dim=1))
    return torch.cat(rows)


def _distribution(module: ProSLModule, clips: Tensor) -> Tensor:
    return F.softmax(F.normalize(module.key_features(clips), dim=1).double(), dim=1)


def ours(module: ProSLModule, clips: Tensor) -> Tensor:
    """The library's coefficients (N, V) as `CodebookCallback` measures them."""
    return torch.cat([joint_importance(module.key_features, some) for some in clips.split(32)])


def importance(settings: Settings) -> list[Row]:
    """A small set measured directly, NTU-60 at the default options calculated from the rates of its encoder."""
    keep_freed_memory()
    count, subset, sizes = (24, 12, TINY) if settings.tiny else (1024, SUBSET, {})
    small_one, clips = encoder_and_views(settings, count)
    exact = reference(small_one, clips.split(64))
    stacked = ours(small_one, clips)
    differs = float((stacked - exact).norm() / exact.norm())
    if not differs <= TOLERANCE:
        raise Disagreement(f"stacked and looped coefficients differ by {differs:.1e}")
    correlation = rank_correlation(stacked, exact.mean(dim=0), subset)
    if correlation < RANK_CORRELATION - 0.5 * settings.tiny:
        raise Disagreement(f"{subset} of {count} sequences have a rank correlation of {correlation:.4f} with all")
    checks = {"coefficients_differ_by": differs, "rank_correlation": correlation}
    some = clips[: max(subset // 3, 4)]
    small = interleaved(
        {"reference": lambda: reference(small_one, some.split(64)), "ours": lambda: ours(small_one, some)},
        settings.rounds,
    )
    torch.manual_seed(0)
    paper = ProSLModule(**sizes).eval()
    few = clips[:4] if settings.tiny else torch.randn(16, *paper.query_encoder.clip_shape) * 0.4
    large = interleaved(
        {"reference": lambda: reference(paper, [few]), "ours": lambda: ours(paper, few)}, settings.rounds
    )
    samples = ProSLModule(**TINY).hparams["importance_samples"]
    return [
        _row(
            f"importance, NTU-60's {PAPER_SEQUENCES:,} sequences", large, len(few), PAPER_SEQUENCES, samples, checks,
            f"calculated from the rates on {len(few)} sequences; ours measures {samples} of them, the default",
        ),
        _row(
            f"importance, {subset} of {count} sequences", small, len(some), count, subset, checks,
            f"synthetic, hidden size 128, initial weights; rank correlation {correlation:.3f} with all "
            f"(median of {DRAWS} draws); scaled from {len(some)} sequences",
        ),
    ]  # fmt: skip


def _row(
    what: str,
    times: dict[str, list[float]],
    timed: int,
    sequences: int,
    samples: int,
    checks: dict[str, float],
    note: str,
) -> Row:
    median = medians(times)
    theirs, mine = median["reference"] * sequences / timed, median["ours"] * samples / timed
    return Row(
        what, f"{theirs:,.0f} s", f"{mine:,.1f} s", theirs / mine, 5, 10, checks=checks, seconds=times, note=note,
        limit=f"{sequences / samples:.0f}x (no faster forward pass)",
    )  # fmt: skip


def rank_correlation(coefficients: Tensor, exact: Tensor, subset: int) -> float:
    """Median rank correlation of the means of random subsets with the exact importance (V,)."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(DRAWS):
        mean = coefficients[torch.randperm(len(coefficients), generator=draw)[:subset]].mean(dim=0)
        found.append(float(spearmanr(mean, exact).statistic))
    return sorted(found)[DRAWS // 2]


def encoder_and_views(settings: Settings, count: int) -> tuple[ProSLModule, Tensor]:
    """A small encoder and the fixed views of synthetic sequences."""
    root = settings.folder / "importance"
    if not root.exists():
        write_archive(root, num_samples=count)
    data = SkeletonDataModule(str(root), protocol="all")
    data.setup()
    torch.manual_seed(0)
    module = ProSLModule(
        **(TINY if settings.tiny else {"base_args": {"hidden_size": 128}}), num_bodies=data.num_bodies,
        layout=data.layout.to_plain(),
    ).eval()  # fmt: skip
    with torch.no_grad():
        return module, torch.cat([module.prepare(batch) for batch in data.feature_dataloader()])
