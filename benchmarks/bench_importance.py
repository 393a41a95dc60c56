"""The importance's rows of `make bench`: p_v of a subset, joints stacked, against a loop over joints and batches."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from bench_step import TINY
from bench_table import Disagreement, Row, Settings, interleaved, medians
from scipy.stats import spearmanr
from torch import Tensor

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning._lightning import pl
from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.data.synthetic import write_archive
from prosl_lightning.prosl.importance import joint_importance

PAPER_SEQUENCES = 40_091
# Compared in float64: the coefficients are of second order in small differences, float32 leaves them two digits.
TOLERANCE, RANK_CORRELATION, DRAWS = 1e-6, 0.99, 50
SUBSET = 256  # of the small set, as configs/nw-ucla.yaml takes
EPOCHS = 8  # of training: the importance of initial weights is noise
SMALL: dict[str, Any] = {
    "base_args": {"hidden_size": 64, "num_layers": 1}, "num_frames": 32, "bank_size": 512, "momentum": 0.99,
    "crop_ratio": (0.4, 1.0), "min_crop_frames": 24, "learning_rate": 0.02, "semantic_start": 10**6,
}  # fmt: skip  # the demo's
LIMIT = "- (no bound is known)"


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


def difference(module: ProSLModule, clips: Tensor) -> float:
    """Relative difference of the two sides' coefficients in float64; raises where it is more than rounding."""
    exact_module, clips = copy.deepcopy(module).double(), clips.double()
    exact = reference(exact_module, clips.split(64))
    differs = float((ours(exact_module, clips) - exact).norm() / exact.norm())
    if not differs <= TOLERANCE:
        raise Disagreement(f"stacked and looped coefficients differ by {differs:.1e}")
    return differs


def importance(settings: Settings) -> list[Row]:
    """NTU-60 at the default options, calculated from the rates of its encoder, and a small set with a trained one."""
    keep_freed_memory()
    return [paper_row(settings), small_row(settings)]


def paper_row(settings: Settings) -> Row:
    """The paper's encoder; no data of this size here, so what a subset is worth is not checked."""
    torch.manual_seed(0)
    module = ProSLModule(**(TINY if settings.tiny else {})).eval()
    few = torch.randn(4 if settings.tiny else 8, *module.query_encoder.clip_shape) * 0.4
    checks = {"coefficients_differ_by": difference(module, few[:4])}
    return _row(
        f"importance, NTU-60's {PAPER_SEQUENCES:,} sequences", _times(module, few, settings), len(few),
        PAPER_SEQUENCES, module.hparams["importance_samples"], checks,
        f"initial weights, calculated from the rates on {len(few)} sequences; the rank correlation at this size was "
        "not checked",
    )  # fmt: skip


def small_row(settings: Settings) -> Row:
    """A subset of a small set, good enough in the ranks of the joints, with a trained encoder."""
    count, subset = (24, 12) if settings.tiny else (1024, SUBSET)
    module, clips = trained_encoder_and_views(settings, count)
    checks = {"coefficients_differ_by": difference(module, clips[:16])}
    with_all, with_rest = rank_correlations(ours(module, clips).double(), subset)
    for name, correlation in (("all", with_all), ("the rest", with_rest)):
        if not correlation >= RANK_CORRELATION - 0.5 * settings.tiny:
            raise Disagreement(
                f"{subset} of {count} sequences have a rank correlation of {correlation:.4f} with {name}"
            )
        checks[f"rank_correlation_with_{name.replace(' ', '_')}"] = correlation
    some = clips[: max(subset // 4, 4)]
    return _row(
        f"importance, {subset} of {count} sequences", _times(module, some, settings), len(some), count, subset, checks,
        f"synthetic set, the demo's encoder after {EPOCHS} epochs; rank correlation {with_all:.3f} with all sequences "
        f"and {with_rest:.3f} with the rest (medians of {DRAWS} draws); scaled from {len(some)} sequences",
    )  # fmt: skip


def _times(module: ProSLModule, clips: Tensor, settings: Settings) -> dict[str, list[float]]:
    sides = {"reference": lambda: reference(module, clips.split(64)), "ours": lambda: ours(module, clips)}
    return interleaved(sides, settings.rounds)


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
    fewer, equal_work = sequences / samples, median["reference"] / median["ours"]
    told = f"ratio = {fewer:.1f} (ours measures {samples:,} of the sequences) x {equal_work:.2f} (equal work); {note}"
    return Row(
        what, f"{theirs:,.0f} s", f"{mine:,.1f} s", theirs / mine, 5, 10, limit=LIMIT, note=told, seconds=times,
        checks=checks | {"fewer_sequences": fewer, "equal_work": equal_work},
    )  # fmt: skip


def rank_correlations(coefficients: Tensor, subset: int) -> tuple[float, float]:
    """Median rank correlations of random subsets' means with the mean of all sequences, and of those left out.

    Args:
        coefficients: Of every sequence, (N, V).
        subset: Sequences in a subset.
    """
    draw = torch.Generator().manual_seed(0)
    found: list[list[float]] = [[], []]
    for _ in range(DRAWS):
        order = torch.randperm(len(coefficients), generator=draw)
        mean = coefficients[order[:subset]].mean(dim=0)
        for values, others in zip(found, (coefficients, coefficients[order[subset:]]), strict=True):
            values.append(float(spearmanr(mean, others.mean(dim=0)).statistic))
    return statistics.median(found[0]), statistics.median(found[1])


def trained_encoder_and_views(settings: Settings, count: int) -> tuple[ProSLModule, Tensor]:
    """A small encoder trained in the contrast stage for a few epochs, and the fixed views of the sequences."""
    root = settings.folder / "importance"
    if not root.exists():
        write_archive(root, num_samples=count)
    data = SkeletonDataModule(str(root), protocol="all", batch_size=8 if settings.tiny else 64)
    data.setup()
    torch.manual_seed(0)
    sizes = TINY | {"bank_size": 64, "num_clusters": 5, "semantic_start": 10**6} if settings.tiny else SMALL
    module = ProSLModule(**sizes, num_bodies=data.num_bodies, layout=data.layout.to_plain())
    silence_lightning()
    pl.Trainer(
        max_epochs=1 if settings.tiny else EPOCHS, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, datamodule=data)  # fmt: skip
    module.eval()
    with torch.no_grad():
        return module, torch.cat([module.prepare(batch) for batch in data.feature_dataloader()])
