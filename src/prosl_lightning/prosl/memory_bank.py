"""A queue of key features and of the samples they came from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prosl_lightning.errors import UsageError

BankWrap = Literal["full", "reference"]


class BankRows(NamedTuple):
    """What a memory bank holds at one moment.

    Attributes:
        features: (rows, D), unit length.
        index: Training row each came from, (rows,) int64; -1 for the initial noise.
    """

    features: Tensor
    index: Tensor  # type: ignore[assignment]


class MemoryBank(nn.Module):
    """First-in, first-out store of unit features; all its state is persistent, so checkpoints carry it.

    Features start as random unit vectors. `index` names the training sample of each row, -1 for the initial noise:
    semantic labels are looked up when they are used and so are always those of the current codebook. All three buffers
    are written in place and keep their addresses, as CUDA graphs want it.

    Args:
        size: Number of samples the bank remembers, K.
        feature_size: Length D of a feature.
        levels: Features per sample; the bank has `size * levels` rows.
        wrap: Where the write position wraps: ``full`` uses every row; ``reference`` repeats the public HiCo code, whose
            position wraps at `size`, so that rows beyond what one pass from there writes stay noise for ever.

    Attributes:
        features: (size * levels, D), unit length.
        index: (size * levels,) int64.
        pointer: Next row to write, scalar int64.
    """

    features: Tensor
    index: Tensor
    pointer: Tensor

    def __init__(self, size: int, feature_size: int, levels: int = 1, wrap: BankWrap = "full") -> None:
        super().__init__()
        rows = size * levels
        self._wrap = rows if wrap == "full" else size
        self.register_buffer("features", F.normalize(torch.randn(rows, feature_size), dim=1))
        self.register_buffer("index", torch.full((rows,), -1, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def forget_samples(self) -> None:
        """Keep the features as noise that belongs to no sample: they are of another run's training set."""
        self.index.fill_(-1)

    @torch.no_grad()
    def snapshot(self) -> BankRows:
        """A copy of what is stored now: the losses of a step need it for their gradient after the step's enqueue."""
        return BankRows(self.features.clone(), self.index.clone())

    @torch.no_grad()
    def enqueue(self, features: Tensor, index: Tensor) -> None:
        """Write a batch over the oldest rows: sample after sample, the levels of a sample side by side.

        In float16 autocast a row that is not finite leaves the row it would replace as it is: one overflow would make
        every loss NaN until it has left the bank, longer than a run waits for a finite loss.

        Args:
            features: (N, D) or (N, levels, D), unit length.
            index: Training row of each sample, (N,) int64.

        Raises:
            UsageError: The batch does not fit into the bank.
        """
        rows = features.reshape(-1, features.shape[-1])
        if len(rows) > len(self.features):
            raise UsageError(
                f"a batch of {len(index)} samples writes {len(rows)} rows, the memory bank has {len(self.features)}: "
                "lower the batch size or raise bank_size"
            )
        where = (self.pointer + torch.arange(len(rows), device=rows.device)) % len(self.features)
        index = index.repeat_interleave(len(rows) // len(index))
        rows = rows.to(self.features.dtype)
        if _may_overflow(rows.device.type):
            good = rows.isfinite().all(dim=1)
            rows = torch.where(good.unsqueeze(1), rows, self.features[where])
            index = torch.where(good, index, self.index[where])
        self.features.index_copy_(0, where, rows)
        self.index.index_copy_(0, where, index)
        self.pointer.add_(len(rows)).remainder_(self._wrap)


def _may_overflow(device_type: str) -> bool:
    if not torch.amp.is_autocast_available(device_type):
        return False
    return torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == torch.float16


def build_banks(
    encoder: nn.Module, input_shape: tuple[int, ...], names: Iterable[str], size: int, wrap: BankWrap
) -> nn.ModuleDict:
    """One memory bank per named projection of an encoder, with as many levels as that projection has.

    Args:
        encoder: Offers `project`, see :func:`prosl_lightning.encoders.build_encoder`.
        input_shape: Shape (C, T, V, M) of one encoder input.
        names: Projections that need a bank.
        size: Samples each bank remembers.
        wrap: See :class:`MemoryBank`.

    Raises:
        UsageError: The encoder has no projection of such a name.
    """
    was_training = encoder.training
    with torch.no_grad():  # one look at the projections tells how many levels each has
        projections = encoder.eval().project(torch.zeros(1, *input_shape))  # type: ignore[operator]
    encoder.train(was_training)
    banks = {}
    for name in names:
        if name not in projections:
            raise UsageError(
                f"{type(encoder).__name__}.project gives {', '.join(projections) or 'nothing'}; a contrast term of the "
                f"base method needs '{name}'"
            )
        width = projections[name].shape[-1]
        banks[name] = MemoryBank(size, width, projections[name].numel() // width, wrap)
    return nn.ModuleDict(banks)
