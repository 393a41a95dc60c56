"""Augmentation speed: batched views against per-sample NumPy code of the public repositories' shape.

Run `python benchmarks/views.py`. One thread, both sides on the same padded clips, interleaved, CPU time, medians.
Before anything is timed the two sides must agree on the same drawn parameters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.views import ContrastiveView, SemanticView
from prosl_lightning.views.contrastive import ContrastiveDraw
from prosl_lightning.views.semantic import SemanticDraw
from prosl_lightning.views.spatial import corruption_matrix

FRAMES = 64
LAYOUT = SkeletonLayout.of("kinect-v2")
CONTRASTIVE = ContrastiveView()
SEMANTIC = SemanticView(mirror=LAYOUT.mirror)


# The reference's shape: one clip at a time, (3, T, V, M) float32 arrays, a dictionary of draws per clip.


def reference_crop_draw(rng: np.random.Generator, frames: int) -> dict:
    kept = min(max(int(np.floor(frames * rng.uniform(0.1, 1.0))), FRAMES), frames)
    return {"start": int(rng.integers(0, frames - kept + 1)), "kept": kept}


def reference_crop(clip: np.ndarray, start: int, kept: int) -> np.ndarray:
    c, _, v, m = clip.shape
    part = torch.tensor(clip[:, start : start + kept])
    part = part.permute(0, 2, 3, 1).contiguous().view(1, c * v * m, kept)
    part = F.interpolate(part[..., None], size=(FRAMES, 1), mode="bilinear", align_corners=False)
    return part.reshape(c, v, m, FRAMES).permute(0, 3, 1, 2).contiguous().numpy()


def reference_matrix(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    y = np.dot(x.copy().transpose(1, 2, 3, 0), matrix.T)
    return y.transpose(3, 0, 1, 2)


def reference_contrastive_draw(rng: np.random.Generator, frames: int) -> dict:
    draw = reference_crop_draw(rng, frames)
    draw["kind"] = rng.choice(["zero", "jitter", "shear"], p=[0.25, 0.25, 0.5])
    draw["matrix"] = rng.uniform(-1, 1, (3, 3))
    if draw["kind"] == "shear":
        np.fill_diagonal(draw["matrix"], 1)
    else:
        draw["joints"] = rng.choice(LAYOUT.num_joints, 15, replace=False)
    return draw


def reference_contrastive(clip: np.ndarray, draw: dict) -> np.ndarray:
    x = reference_crop(clip, draw["start"], draw["kept"])
    if draw["kind"] == "shear":
        return reference_matrix(x, draw["matrix"]).astype(np.float32)
    x = x.copy()
    if draw["kind"] == "zero":
        x[:, :, draw["joints"]] = 0
    else:
        x[:, :, draw["joints"]] = reference_matrix(x[:, :, draw["joints"]], draw["matrix"].T)
    return x


def reference_semantic_draw(rng: np.random.Generator, frames: int) -> dict:
    draw = reference_crop_draw(rng, frames)
    draw["angles"] = np.radians(rng.uniform(0, 1, 3))
    draw["angles"][rng.integers(3)] = np.radians(rng.uniform(0, 30))
    shape = (3, FRAMES, LAYOUT.num_joints, 2)
    draw["flip"] = rng.random() < 0.5
    draw["noise"] = rng.normal(0, 1, shape) if rng.random() < 0.5 else None
    draw["sigma"] = rng.uniform(0.1, 2.0) if rng.random() < 0.5 else None
    draw["axis"] = rng.integers(3) if rng.random() < 0.5 else None
    return draw


def reference_rotation(angles: np.ndarray) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def reference_blur(x: np.ndarray, sigma: float) -> np.ndarray:
    taps = torch.exp(-torch.arange(-7, 8).float().square() / (2 * sigma**2))
    lines = torch.from_numpy(x.astype(np.float32)).permute(3, 2, 0, 1)  # person, joint | coordinate, frame
    lines = F.conv2d(F.pad(lines, (7, 7)).permute(0, 2, 1, 3), taps.repeat(3, 1, 1, 1), groups=3)
    return lines.permute(1, 3, 2, 0).numpy()


def reference_semantic(clip: np.ndarray, draw: dict) -> np.ndarray:
    x = reference_crop(clip, draw["start"], draw["kept"])
    if draw["flip"]:
        x = x[:, :, list(LAYOUT.mirror)]
    x = reference_matrix(x, reference_rotation(draw["angles"]))
    if draw["noise"] is not None:
        x = x + 0.01 * draw["noise"]
    if draw["sigma"] is not None:
        x = reference_blur(x, draw["sigma"])
    if draw["axis"] is not None:
        x = x.copy()
        x[draw["axis"]] = 0
    return np.ascontiguousarray(x, dtype=np.float32)


def reference_batch(clips: np.ndarray, length: np.ndarray, rng: np.random.Generator, views: int) -> list[torch.Tensor]:
    out: list[list[np.ndarray]] = [[] for _ in range(views)]
    for stored, frames in zip(clips, length, strict=True):
        clip = np.array(stored)  # a data set's item: a copy of the whole padded clip
        for i in range(2):
            out[i].append(reference_contrastive(clip, reference_contrastive_draw(rng, int(frames))))
        if views == 3:
            out[2].append(reference_semantic(clip, reference_semantic_draw(rng, int(frames))))
    return [torch.from_numpy(np.stack(view)) for view in out]


# Ours.


def batched(joints: torch.Tensor, length: torch.Tensor, generator: torch.Generator, views: int) -> list[torch.Tensor]:
    out = [CONTRASTIVE(joints, length, generator), CONTRASTIVE(joints, length, generator)]
    return [*out, SEMANTIC(joints, length, generator)] if views == 3 else out


def as_contrastive_draw(draws: list[dict]) -> ContrastiveDraw:
    matrices = []
    for draw in draws:
        matrix = torch.tensor(draw["matrix"], dtype=torch.float32)[None]
        if draw["kind"] == "shear":
            matrices.append(matrix[..., None].expand(1, 3, 3, LAYOUT.num_joints))
        else:
            corrupted = torch.zeros(1, LAYOUT.num_joints, dtype=torch.bool)
            corrupted[0, draw["joints"]] = True
            matrices.append(corruption_matrix(corrupted, matrix * (draw["kind"] == "jitter")))
    start, kept = (torch.tensor([draw[key] for draw in draws]) for key in ("start", "kept"))
    return ContrastiveDraw(start, kept, torch.cat(matrices))


def as_semantic_draw(draws: list[dict]) -> SemanticDraw:
    empty = np.zeros((3, FRAMES, LAYOUT.num_joints, 2))
    axes = torch.ones(len(draws), 3)
    for row, draw in zip(axes, draws, strict=True):
        if draw["axis"] is not None:
            row[draw["axis"]] = 0
    return SemanticDraw(
        start=torch.tensor([draw["start"] for draw in draws]),
        kept=torch.tensor([draw["kept"] for draw in draws]),
        flipped=torch.tensor([draw["flip"] for draw in draws]),
        angles=torch.tensor(np.stack([draw["angles"] for draw in draws]), dtype=torch.float32),
        noise_std=torch.tensor([0.01 * (draw["noise"] is not None) for draw in draws]),
        noise=torch.tensor(np.stack([empty if draw["noise"] is None else draw["noise"] for draw in draws])).float(),
        sigma=torch.tensor([draw["sigma"] or 0.0 for draw in draws]),
        axes=axes,
    )


def check(joints: torch.Tensor, clips: np.ndarray, length: np.ndarray) -> float:
    """Greatest difference between the two sides, in the unit of the clips, on the same drawn parameters."""
    rng = np.random.default_rng(1)
    worst = 0.0
    for draw_one, one, as_draw, view in (
        (reference_contrastive_draw, reference_contrastive, as_contrastive_draw, CONTRASTIVE),
        (reference_semantic_draw, reference_semantic, as_semantic_draw, SEMANTIC),
    ):
        draws = [draw_one(rng, int(frames)) for frames in length]
        expected = np.stack([one(clip, draw) for clip, draw in zip(clips, draws, strict=True)])
        worst = max(worst, float(np.abs(view.apply(joints, as_draw(draws)).numpy() - expected).max()))
    if worst > 2e-5:
        raise SystemExit(f"the two sides differ by {worst:.1e}: not timed")
    return worst


def clips_of_real_lengths(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random float16 clips, frame-major (N, T, C, V, M), padded to the longest; mean length about 80 frames."""
    rng = np.random.default_rng(seed)
    length = np.clip(rng.lognormal(np.log(75), 0.4, count), 20, 300).astype(np.int64)
    joints = np.zeros((count, length.max(), 3, LAYOUT.num_joints, 2), np.float16)
    for row, frames in zip(joints, length, strict=True):
        row[:frames] = rng.normal(0, 0.4, (frames, 3, LAYOUT.num_joints, 2))
    return joints, length


def cpu_ms(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return (time.process_time() - begin) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)

    batches = []
    for seed in range(4):
        stored, length = clips_of_real_lengths(options.batch_size, seed)
        clips = np.ascontiguousarray(stored.transpose(0, 2, 1, 3, 4), dtype=np.float32)
        batches.append((torch.from_numpy(stored).permute(0, 2, 1, 3, 4), torch.from_numpy(length), clips, length))
    worst = max(check(joints, clips, length) for joints, _, clips, length in batches)

    mean = float(np.mean([length.mean() for *_, length in batches]))
    print(f"batch {options.batch_size}, mean {mean:.0f} frames, one thread, CPU time, medians")
    print(f"both sides agree to {worst:.1e} on the same draws\n")
    print(f"{'views':<26}{'reference':>12}{'batched':>12}   samples/s{'ratio':>9}")
    for views, name in ((2, "query, key"), (3, "query, key, semantic")):
        slow, fast = [], []
        for i in range(-2, options.rounds):
            joints, length, clips, frames = batches[i % len(batches)]
            pair = (
                cpu_ms(lambda c=clips, f=frames, v=views: reference_batch(c, f, rng, v)),
                cpu_ms(lambda j=joints, n=length, v=views: batched(j, n, generator, v)),
            )
            if i >= 0:
                slow.append(pair[0])
                fast.append(pair[1])
        rates = [1e3 * options.batch_size / statistics.median(times) for times in (slow, fast)]
        print(f"{views}: {name:<23}{rates[0]:>12,.0f}{rates[1]:>12,.0f}{'':12}{rates[1] / rates[0]:>8.1f}x")


if __name__ == "__main__":
    main()
