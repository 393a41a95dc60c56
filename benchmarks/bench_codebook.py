"""The codebook's rows of `make bench`: our k-means, first and later, against scikit-learn's ten cold restarts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from bench_table import Disagreement, Row, Settings, cpu_seconds, interleaved
from sklearn.cluster import KMeans
from torch import Tensor

from prosl_lightning.prosl.kmeans import Backend, Clustering, faiss_available, kmeans

QUALITY, KEPT_LABELS, BEYOND_NO_UPDATE, ROUNDING = 0.002, 0.85, 0.004, 1e-4
LIMIT = "- (no bound is known: fewer steps would do)"
CLASSES, MODES, WIDTH, INNER = 60, 3, 128, 12
TITLES: dict[Backend, str] = {"torch": "torch", "faiss": "FAISS"}


class Epoch(NamedTuple):
    """Unit features of one set of sequences after two consecutive epochs, (N, 128) each."""

    before: Tensor
    after: Tensor


def drifting_features(count: int, seed: int, drift: float = 0.2, moved: float = 0.2) -> Epoch:
    """Features as an encoder makes them, and after a slow drift.

    Unbalanced classes in overlapping sub-modes, most of the variance in few directions: good clusters agree with the
    classes to an NMI of 0.6, and scikit-learn takes about a hundred iterations. One epoch later the sub-modes have
    moved, and every feature beside them: its cosine to itself is 0.96, and the centroids of before, if nobody moves
    them, are 0.01 short of the best mean cosine.
    """
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, 1, INNER, generator=draw)
    modes = (centres + 0.7 * torch.randn(CLASSES, MODES, INNER, generator=draw)).flatten(0, 1)
    share = (torch.rand(CLASSES, 1, generator=draw) + 0.3).expand(CLASSES, MODES).flatten()
    which = torch.multinomial(share, count, replacement=True, generator=draw)
    inner = modes[which] + 0.8 * torch.randn(count, INNER, generator=draw)
    features = F.pad(inner, (0, WIDTH - INNER)) + 0.5 * torch.randn(count, WIDTH, generator=draw)
    size = features.norm(dim=1).mean() / WIDTH**0.5
    own = drift * size * torch.randn(count, WIDTH, generator=draw)
    common = moved * size * torch.randn(len(modes), WIDTH, generator=draw)[which]
    return Epoch(F.normalize(features, dim=1), F.normalize(features + own + common, dim=1))


def reference(features: Tensor, clusters: int, seed: int) -> float:
    """scikit-learn, ten restarts, cold: mean cosine of the features to their unit centroid."""
    found = KMeans(clusters, n_init=10, random_state=seed).fit(features.numpy())
    centroids = F.normalize(torch.from_numpy(found.cluster_centers_).float(), dim=1)
    return float((features @ centroids.T).amax(dim=1).mean())


def ours(
    features: Tensor, clusters: int, seed: int, start: Tensor | None = None, backend: Backend = "auto"
) -> Clustering:
    """The library's k-means as training calls it."""
    return kmeans(features, clusters, seed=seed, start=start, backend=backend)


def mean_cosine(features: Tensor, centroids: Tensor) -> float:
    """Mean cosine of features to the nearest of these centroids, whatever their length."""
    return float((features @ F.normalize(centroids, dim=1).T).amax(dim=1).mean())


def checked(features: Tensor, found: Clustering, clusters: int) -> float:
    """The mean cosine that the returned centroids really have; raises where the rest of the result is not theirs."""
    if found.centroids.shape != (clusters, features.shape[1]) or found.assignment.shape != features.shape[:1]:
        raise Disagreement(f"{tuple(found.centroids.shape)} centroids and {len(found.assignment)} labels came back")
    cosine = features @ F.normalize(found.centroids, dim=1).T
    best = cosine.amax(dim=1)
    lost = best - cosine.gather(1, found.assignment.unsqueeze(1)).squeeze(1)
    if float(lost.max()) > ROUNDING:  # ties may go either way
        raise Disagreement(f"{int((lost > ROUNDING).sum())} labels do not name the nearest of the returned centroids")
    if abs(float(best.mean()) - found.mean_cosine) > ROUNDING:
        raise Disagreement(f"mean cosine {found.mean_cosine:.4f} returned, {float(best.mean()):.4f} measured")
    return float(best.mean())


@dataclass
class Build:
    """What one backend's first or later codebooks were like, one entry for each repetition on each set of features.

    Attributes:
        seconds: CPU time.
        short: Mean cosine below that of scikit-learn's ten restarts.
        kept: Share of labels that a later codebook kept.
        beyond: Mean cosine of a later codebook beyond that of the centroids of before.
    """

    seconds: list[float] = field(default_factory=list)
    short: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)


def codebook(settings: Settings) -> list[Row]:
    """First and later codebooks of NTU-60's training set, k = 65, by torch and, where it is installed, by FAISS."""
    count, clusters, sets = (600, 8, 1) if settings.tiny else (40_091, 65, 3)
    backends = [backend for backend in TITLES if backend != "faiss" or faiss_available()]
    reference_seconds: dict[str, list[float]] = {"first": [], "later": []}
    builds = {(name, backend): Build() for backend in backends for name in reference_seconds}
    for backend in backends:  # pays for what is loaded at the first call
        ours(drifting_features(count, 99).before, clusters, 0, backend=backend)
    for seed in range(sets):
        first: dict[Backend, Clustering] = {}
        for name, features in zip(reference_seconds, drifting_features(count, seed), strict=True):
            results: list[float] = []
            seconds = cpu_seconds(lambda f=features, s=seed, r=results: r.append(reference(f, clusters, s)))
            reference_seconds[name].append(seconds)
            built: dict[Backend, list[Clustering]] = {backend: [] for backend in backends}
            sides = {}
            for backend in backends:
                start = first[backend].centroids if backend in first else None
                sides[backend] = lambda f=features, s=seed, c=start, b=backend, k=built: k[b].append(
                    ours(f, clusters, s, c, b)
                )
            for backend, values in interleaved(sides, settings.rounds, warm_up=0).items():
                builds[name, backend].seconds += values
                for found in built[backend]:
                    _judge(builds[name, backend], features, found, clusters, results[0], first.get(backend))
            first = first or {backend: found[0] for backend, found in built.items()}
    size = f"{count:,} x {WIDTH}, k = {clusters}"
    note = f"{sets} sets of features, the checks hold for each; scikit-learn only once for each, as it takes so long"
    return [
        _row(name, backend, size, reference_seconds[name], build, note) for (name, backend), build in builds.items()
    ]


def _judge(
    build: Build, features: Tensor, found: Clustering, clusters: int, best: float, before: Clustering | None
) -> None:
    """Add to a build's figures those of one timed result."""
    cosine = checked(features, found, clusters)
    build.short.append(best - cosine)
    if before is not None:
        build.kept.append(float((before.assignment == found.assignment).double().mean()))
        build.beyond.append(cosine - mean_cosine(features, before.centroids))


def _row(name: str, backend: Backend, size: str, reference_seconds: list[float], build: Build, note: str) -> Row:
    """One row, refused where the worst of the codebooks is worse than the reference's or does not keep its labels."""
    title, short = TITLES[backend], max(build.short)
    checks = {"mean_cosine_below_ten_restarts": short}
    if not short <= QUALITY:
        raise Disagreement(f"{title}: mean cosine {short:.4f} below that of ten restarts")
    what, targets = f"first codebook, {title}, {size}", (7, 15)
    if name == "later":
        what, targets = f"later codebooks, {title}, the same drifted", (100, 150)
        kept, beyond = min(build.kept), min(build.beyond)
        checks |= {"labels_kept": kept, "mean_cosine_beyond_no_update": beyond}
        if not kept >= KEPT_LABELS:
            raise Disagreement(f"{title}: only {100 * kept:.0f} % of labels kept on slowly drifting features")
        if not beyond >= BEYOND_NO_UPDATE:
            raise Disagreement(f"{title}: mean cosine {beyond:.4f} beyond that of the centroids of before: no update")
    reference_s, ours_s = statistics.median(reference_seconds), statistics.median(build.seconds)
    return Row(
        what, f"{reference_s:.2f} s", f"{ours_s:.3f} s", reference_s / ours_s, *targets, limit=LIMIT, note=note,
        checks=checks, seconds={"reference": reference_seconds, "ours": build.seconds},
    )  # fmt: skip
