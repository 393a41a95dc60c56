"""What the parts of `gpu.py` share: sizes, model, data, and a codebook as in the middle of training."""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import Bench
from torch import Tensor

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.data.archive import ArchiveWriter
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.data.synthetic import write_archive
from prosl_lightning.prosl.cuda_graph import RECORDERS
from prosl_lightning.skeleton import SkeletonLayout

STAGES: dict[str, dict[str, Any]] = {
    "baseline": {"semantic": False},
    "stage 1": {"semantic_start": 10**6},
    "stage 2": {"semantic_start": 0},
}
TINY = {
    "base_args": {"hidden_size": 16, "num_layers": 1, "granularity": 2, "projection_size": 8}, "num_frames": 16,
    "min_crop_frames": 8, "bank_size": 32, "num_clusters": 5, "importance_samples": 8,
}  # fmt: skip
NTU_60 = 40_091  # training sequences of x-sub


class GpuBench(Bench):
    """Sizes, model and data of this script: NTU-60's, or tiny ones."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        cuda = torch.cuda.is_available() and options.device != "cpu"
        super().__init__(torch.device("cuda:0" if cuda else "cpu"), options.minutes, options.out)
        self.options, self.folder = options, folder
        self.batch_size, self.sequences = (8, 48) if options.tiny else (64, 2000)
        self.points, self.clusters = (500, 5) if options.tiny else (NTU_60, 65)
        self.effort = {"blocks": 1, "calls": 1, "warm_up": 1} if options.tiny else {}
        self.records = self.device.type in RECORDERS
        """Whether steps can be recorded as CUDA graphs here."""

    def model(self, **changes: Any) -> ProSLModule:
        """A module on the CPU, with the same weights at every call."""
        torch.manual_seed(0)
        return ProSLModule(**{**(TINY if self.options.tiny else {}), **changes})

    def archive(self) -> str:
        """A synthetic archive, made at the first call."""
        root = self.folder / "synthetic"
        if not root.exists():
            write_archive(root, num_samples=self.sequences)
        return str(root)

    def large_archive(self) -> str:
        """An archive with as many training sequences as NTU-60 and lengths like theirs, made at the first call."""
        root = self.folder / "large"
        if not root.exists():
            write_noise(root, 40 if self.options.tiny else NTU_60)
        return str(root)

    def batch(self) -> SkeletonBatch:
        """The same training batch at every call, on the device, in the archive's float16."""
        return SkeletonBatch(*(value.to(self.device) for value in self._batch))

    @cached_property
    def _batch(self) -> SkeletonBatch:
        data = SkeletonDataModule(self.archive(), batch_size=self.batch_size)
        data.setup()
        return next(iter(data.train_dataloader()))

    @cached_property
    def _mean_feature(self) -> Tensor:
        """Mean direction (1, P) of that batch's features before training, which all lie close to it."""
        module = self.model().eval()
        with torch.no_grad():
            return F.normalize(module.key_features(module.prepare(self._batch)).mean(dim=0, keepdim=True))

    def fill_codebook(self, module: ProSLModule) -> None:
        """A codebook that has all samples of that batch in one cluster, whatever view of them is drawn."""
        fill_codebook(module, self.sequences, self._mean_feature, self._batch.index)

    def precisions(self) -> tuple[str, ...]:
        """Precisions to time; TF32 is the GPU's."""
        return ("float32", "tf32", "bf16") if self.device.type == "cuda" else ("float32", "bf16")


def write_noise(root: Path, count: int) -> None:
    """Sequences cut from one random walk: 84 frames on average, 32 to 300, one in four with a second body."""
    draw = np.random.default_rng(0)
    walk = np.cumsum(draw.normal(size=(4000, 25, 2, 3)) * 0.01, axis=0).astype(np.float32)
    walk -= walk.mean(axis=(1, 2), keepdims=True)
    lengths = np.clip(draw.lognormal(np.log(78), 0.38, count + 8), 32, 300).astype(int)
    protocols = {"x-sub": {"column": "subject", "train": [1]}}
    names = tuple(f"class {number}" for number in range(60))
    layout = SkeletonLayout.of("kinect-v2")
    with ArchiveWriter(root, layout=layout, num_bodies=2, class_names=names, protocols=protocols) as writer:
        for number, length in enumerate(lengths):
            begin = int(draw.integers(0, len(walk) - length))
            joints = walk[begin : begin + length].copy()
            if number % 4:
                joints[:, :, 1] = 0
            writer.add(f"clip{number:06d}", joints, label=number % 60, subject=1 if number < count else 2)


def fill_codebook(module: ProSLModule, num_samples: int, features: Tensor, index: Tensor) -> None:
    """A built codebook and banks of known samples, as in the middle of the semantic stage.

    The samples of training rows `index` lie at centroids, their `features` or the one that they share, so that they
    enter the semantic loss and no rounding moves one to another centroid.
    """
    draw = torch.Generator().manual_seed(1)
    count, size = module.hparams["num_clusters"], module.query_encoder.projection_size
    centroids = F.normalize(torch.randn(count, size, generator=draw), dim=1)
    assignment = torch.randint(count, (num_samples,), generator=draw)
    centroids[: len(features)] = features[:count]
    assignment[index] = (features @ centroids.T).argmax(dim=1)
    module.codebook.update(centroids, assignment, torch.rand(module.layout.num_joints, generator=draw))
    for bank in module.banks.values():
        bank.index.copy_(torch.randint(num_samples, bank.index.shape, generator=draw))
