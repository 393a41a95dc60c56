"""The codebook's rows of `make bench`: our k-means, first and later, against scikit-learn's ten cold restarts."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import torch
import torch.nn.functional as F
from bench_table import Disagreement, Row, Settings, cpu_seconds, interleaved
from sklearn.cluster import KMeans
from torch import Tensor

from prosl_lightning.prosl.kmeans import Clustering, kmeans

QUALITY, KEPT_LABELS = 0.002, 0.85
CLASSES, MODES, WIDTH, INNER = 60, 3, 128, 12


class Epoch(NamedTuple):
    """Unit features of one set of sequences after two consecutive epochs, (N, 128) each."""

    before: Tensor
    after: Tensor


def drifting_features(count: int, seed: int, drift: float = 0.3) -> Epoch:
    """Features as an encoder makes them, and after a slow drift.

    Unbalanced classes in overlapping sub-modes, most of the variance in few directions: good clusters agree with the
    classes to an NMI of 0.6, and scikit-learn takes about a hundred iterations. One epoch later a feature's cosine to
    itself is 0.95.
    """
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, 1, INNER, generator=draw)
    modes = (centres + 0.7 * torch.randn(CLASSES, MODES, INNER, generator=draw)).flatten(0, 1)
    share = (torch.rand(CLASSES, 1, generator=draw) + 0.3).expand(CLASSES, MODES).flatten()
    which = torch.multinomial(share, count, replacement=True, generator=draw)
    inner = modes[which] + 0.8 * torch.randn(count, INNER, generator=draw)
    features = F.pad(inner, (0, WIDTH - INNER)) + 0.5 * torch.randn(count, WIDTH, generator=draw)
    own = drift * features.norm(dim=1).mean() * torch.randn(count, WIDTH, generator=draw) / WIDTH**0.5
    return Epoch(F.normalize(features, dim=1), F.normalize(features + own, dim=1))


def reference(features: Tensor, clusters: int, seed: int) -> float:
    """scikit-learn, ten restarts, cold: mean cosine of the features to their unit centroid."""
    found = KMeans(clusters, n_init=10, random_state=seed).fit(features.numpy())
    centroids = F.normalize(torch.from_numpy(found.cluster_centers_).float(), dim=1)
    return float((features @ centroids.T).amax(dim=1).mean())


def ours(features: Tensor, clusters: int, seed: int, start: Tensor | None = None) -> Clustering:
    """The library's k-means as training calls it."""
    return kmeans(features, clusters, seed=seed, start=start)


def codebook(settings: Settings) -> list[Row]:
    """First and later codebooks of NTU-60's training set, k = 65."""
    count, clusters, rounds = (600, 8, 1) if settings.tiny else (40_091, 65, 3)
    first, later = {"reference": [], "ours": []}, {"reference": [], "ours": []}  # type: ignore[var-annotated]
    short, kept = [], []
    ours(drifting_features(count, 99).before, clusters, 0)  # pays for what is loaded at the first call
    for seed in range(rounds):
        epoch, found = drifting_features(count, seed), {}
        for name, features, times in (("first", epoch.before, first), ("later", epoch.after, later)):
            start = found["first"].centroids if name == "later" else None
            found[name] = ours(features, clusters, seed, start)
            results: list[float] = []
            times["reference"].append(
                cpu_seconds(lambda f=features, s=seed, r=results: r.append(reference(f, clusters, s)))
            )
            sides = {"ours": lambda f=features, s=seed, c=start: ours(f, clusters, s, c)}
            times["ours"] += interleaved(sides, settings.rounds, warm_up=0)["ours"]
            short.append(results[0] - found[name].mean_cosine)
        kept.append(float((found["first"].assignment == found["later"].assignment).double().mean()))
    checks = {"mean_cosine_below_ten_restarts": statistics.median(short[::2])}
    if checks["mean_cosine_below_ten_restarts"] > QUALITY:
        raise Disagreement(f"mean cosine {checks['mean_cosine_below_ten_restarts']:.4f} below that of ten restarts")
    checks_later = {"labels_kept": min(kept), "mean_cosine_below_ten_restarts": statistics.median(short[1::2])}
    if checks_later["labels_kept"] < KEPT_LABELS:
        raise Disagreement(f"only {100 * min(kept):.0f} % of labels kept on slowly drifting features")
    size = f"{count:,} x {WIDTH}, k = {clusters}"
    note = f"{rounds} sets of features; scikit-learn once for each, as it takes so long, ours {settings.rounds} times"
    return [
        _row(f"first codebook, {size}", first, (7, 15), checks, note),
        _row("later codebooks, the same drifted", later, (100, 150), checks_later, note),
    ]


def _row(
    what: str, times: dict[str, list[float]], targets: tuple[float, float], checks: dict[str, float], note: str
) -> Row:
    reference_s, ours_s = (statistics.median(times[side]) for side in ("reference", "ours"))
    return Row(
        what, f"{reference_s:.2f} s", f"{ours_s:.3f} s", reference_s / ours_s, *targets, note=note, checks=checks,
        seconds=times,
    )  # fmt: skip
