"""SkeletonDataModule: rows of an archive by index, as padded batches on the training device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from prosl_lightning._lightning import pl
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import UsageError

# The archive moves to the GPU when it takes at most this share of the memory that is free there.
_RESIDENT_SHARE = 0.5
# Positions of the training order that are Python numbers at a time.
_POSITIONS_AT_ONCE = 4096


class ArchiveRows(Dataset[SkeletonBatch]):
    """Some rows of an archive. Indexing with a list of positions gives one batch, gathered in one go.

    Args:
        archive: Where the frames are.
        rows: Archive rows, (n,) int64. A batch's `index` counts within them: 0 to n - 1.
        resident: The archive's frames on the training device, (F, C, V, M), or None to read the memory map.
    """

    def __init__(self, archive: Archive, rows: np.ndarray, resident: Tensor | None = None) -> None:
        self._archive, self._rows, self._resident = archive, rows, resident

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> SkeletonBatch:
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> SkeletonBatch:
        """Batch of the given positions, padded with zeros to its longest sequence."""
        index = np.asarray(positions, dtype=np.int64)
        rows = self._rows[index]
        lengths, offsets = self._archive.lengths[rows], self._archive.offsets[rows]
        joints = self._gather_mapped(offsets, lengths) if self._resident is None else self._gather(offsets, lengths)
        small = _send(np.stack([lengths, index, self._archive.labels[rows]]), joints.device)
        # Frames are stored (T, C, V, M); the public order is a view of it.
        return SkeletonBatch(joints.permute(0, 2, 1, 3, 4), small[0], small[1], small[2])

    def _gather_mapped(self, offsets: np.ndarray, lengths: np.ndarray) -> Tensor:
        stored = np.asarray(self._archive.frames)  # slices of a memmap object take ten times as long
        size = stored[0].size
        flat = stored.reshape(-1)  # one long axis is copied fastest
        joints = np.zeros((len(offsets), lengths.max() * size), stored.dtype)
        for target, offset, length in zip(joints, (offsets * size).tolist(), (lengths * size).tolist(), strict=True):
            target[:length] = flat[offset : offset + length]
        return torch.from_numpy(joints.reshape(len(offsets), -1, *stored.shape[1:]))

    def _gather(self, offsets: np.ndarray, lengths: np.ndarray) -> Tensor:
        assert self._resident is not None
        time = np.arange(lengths.max())
        inside = time < lengths[:, None]
        flat = np.where(inside, offsets[:, None] + time, 0)
        device = self._resident.device
        joints = self._resident[_send(flat, device)]
        return joints * _send(inside, device)[..., None, None, None]


def _send(values: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device; a GPU is not waited for, so that the steps before may still run."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class TrainingOrder(DistributedSampler[Any]):
    """One process's part of the training set in random order, anew in each epoch, no sequence twice.

    The order is cut into global batches and each of these into one part per process, the first for rank 0: together
    the processes see, batch by batch, what one process with the global batch size sees. What fills no global batch is
    left out. (A `DistributedSampler`, because Lightning would put one over any other kind.)

    Args:
        dataset: Whose length counts.
        batch_size: Sequences per step and process.
        world_size: Number of processes.
        rank: Number of this one.
        seed: Of the order, with the epoch.
    """

    def __init__(self, dataset: Dataset[SkeletonBatch], batch_size: int, world_size: int, rank: int, seed: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, seed=seed)
        self._count = len(dataset)  # type: ignore[arg-type]
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self._count, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        whole = order[: len(self) * self.num_replicas].view(-1, self.num_replicas, self._batch_size)
        for part in whole[:, self.rank].flatten().split(_POSITIONS_AT_ONCE):  # a list of all takes 36 bytes a sequence
            yield from part.tolist()

    def __len__(self) -> int:
        return self._count // (self._batch_size * self.num_replicas) * self._batch_size


def _as_is(batch: Any) -> Any:
    return batch


class SkeletonDataModule(pl.LightningDataModule):
    """Serves an archive made by `prosl prepare` to :class:`ProSLModule` and to the evaluations.

    The archive is resident on the GPU where it fits, memory-mapped otherwise; views are made from whole batches by the
    module, so no worker processes are needed.

    Args:
        root: Folder of the archive.
        protocol: Split rule stored in the archive, e.g. `x-sub`, `x-view`, `x-set`, or `all`.
        stream: What the encoder is to see: `joint`, `bone` or `motion`. The module derives it; here it is a check.
        batch_size: Training sequences per step and process.
        eval_batch_size: Sequences per batch when features are extracted.
        resident: Whether the archive lives on the GPU; `auto` decides by its size.
        seed: Of the order of the training sequences.

    Attributes:
        archive: The open archive (after `setup`).
        train_rows: Archive rows of the training set, (num_samples,).
        test_rows: Archive rows of the test set.
    """

    archive: Archive
    train_rows: np.ndarray
    test_rows: np.ndarray

    def __init__(
        self,
        root: str,
        protocol: str = "x-sub",
        stream: Literal["joint", "bone", "motion"] = "joint",
        batch_size: int = 64,
        eval_batch_size: int = 256,
        resident: bool | Literal["auto"] = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        self.root, self.protocol, self.stream = root, protocol, stream
        self.batch_size, self.eval_batch_size, self.resident, self.seed = batch_size, eval_batch_size, resident, seed
        self._frames: Tensor | None = None
        self._resident: dict[torch.device, Tensor] = {}

    @property
    def layout(self) -> Any:
        """Skeleton layout of the archive."""
        return self.archive.layout

    @property
    def num_bodies(self) -> int:
        """Persons per frame."""
        return self.archive.num_bodies

    @property
    def num_samples(self) -> int:
        """Number of training sequences."""
        return len(self.train_rows)

    @property
    def recipe(self) -> dict[str, Any]:
        """What a checkpoint keeps about its data, as plain data."""
        return {
            "archive": self.archive.root.resolve().name,
            "frames_sha256": self.archive.meta["frames"].get("sha256"),
            "data": self.archive.meta.get("source", ""),
            "normalisation": self.archive.meta.get("recipe", {}),
            "layout": self.layout.to_plain(),
            "num_bodies": self.num_bodies,
            "protocol": self.protocol,
            "stream": self.stream,
            "class_names": list(self.archive.class_names),
            "num_samples": self.num_samples,
        }

    def setup(self, stage: str | None = None) -> None:
        """Open the archive, apply the protocol, and move the frames to the GPU where they fit.

        Raises:
            DataError: The archive is missing or damaged.
            UsageError: It has no such protocol, or the training set is smaller than a batch.
        """
        if not hasattr(self, "archive"):
            self.archive = Archive.open(self.root)
        self.train_rows, self.test_rows = self.archive.split(self.protocol)
        world = self.trainer.world_size if self.trainer is not None else 1
        if stage == "fit" and self.num_samples < self.batch_size * world:
            raise UsageError(
                f"batch_size is {self.batch_size} on {world} process(es), but the training set of protocol "
                f"'{self.protocol}' in {self.root} has only {self.num_samples} sequences: lower batch_size"
            )
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        if device not in self._resident and self._fits(device):
            self._resident[device] = self._copy_to(device)
        self._frames = self._resident.get(device, self._frames)
        # Batches are gathered by index in well under a millisecond; workers would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")

    def share_archive(self, other: SkeletonDataModule) -> None:
        """Read the archive that `other` has open and its copy on the GPU, so that several models need them once.

        Raises:
            DataError: The archive cannot be opened.
            UsageError: The two read different folders.
        """
        if Path(self.root).resolve() != Path(other.root).resolve():
            raise UsageError(f"{self.root} and {other.root} are different archives: they cannot be shared")
        if not hasattr(other, "archive"):
            other.archive = Archive.open(other.root)
        self.archive, self._resident = other.archive, other._resident

    def _fits(self, device: torch.device) -> bool:
        if device.type != "cuda" or self.resident is False:
            return False
        free, _ = torch.cuda.mem_get_info(device)
        needed = self.archive.frames.nbytes
        if self.resident is True and needed > free:
            raise UsageError(
                f"data.resident is true, but the archive in {self.root} takes {needed / 2**30:.2f} GiB and {device} "
                f"has {free / 2**30:.2f} GiB free: set it to auto or false"
            )
        return self.resident is True or needed <= _RESIDENT_SHARE * free

    def _copy_to(self, device: torch.device) -> Tensor:
        try:
            return torch.from_numpy(np.array(self.archive.frames)).to(device)
        except torch.cuda.OutOfMemoryError as error:
            raise UsageError(
                f"out of memory on {device} in copying the archive in {self.root}, which takes "
                f"{self.archive.frames.nbytes / 2**30:.2f} GiB: leave it on the host with data.resident false"
            ) from error

    @property
    def resident_bytes(self) -> int:
        """Memory that the archive takes on the GPU; 0 where it is read from its file."""
        return 0 if self._frames is None else self._frames.nbytes

    def train_dataloader(self) -> DataLoader[SkeletonBatch]:
        """Shuffled training batches; the order follows from seed and epoch alone, incomplete batches are dropped."""
        dataset = ArchiveRows(self.archive, self.train_rows, self._frames)
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
        sampler = TrainingOrder(dataset, self.batch_size, world, rank, self.seed)
        return DataLoader(
            dataset, batch_size=self.batch_size, sampler=sampler, drop_last=True, collate_fn=_as_is, num_workers=0
        )

    def test_dataloader(self) -> DataLoader[SkeletonBatch]:
        """The test set once, in order: for `trainer.test` of an evaluation."""
        return self.feature_dataloader("test")

    def feature_dataloader(self, part: Literal["train", "test"] = "train") -> DataLoader[SkeletonBatch]:
        """Every sequence of the training (or test) set once, in order, not augmented."""
        rows = self.train_rows if part == "train" else self.test_rows
        dataset = ArchiveRows(self.archive, rows, self._frames)
        return DataLoader(dataset, batch_size=self.eval_batch_size, shuffle=False, collate_fn=_as_is, num_workers=0)
