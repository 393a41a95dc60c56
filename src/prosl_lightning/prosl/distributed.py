"""What several processes of one training say to each other; in one process every function gives back what it was given.

A process is named by its rank. Concatenated means in the order of ranks: the samples of rank 0 come first. All
processes must call the same functions in the same order.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from prosl_lightning._lightning import pl, submodule
from prosl_lightning.errors import UsageError

_DDPStrategy: type = submodule("strategies").DDPStrategy


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(tensor: Tensor) -> Tensor:
    """The tensors (N, ...) of all processes, concatenated to (world_size * N, ...), without gradient.

    Args:
        tensor: Of the same shape in every process.
    """
    world = world_size()
    if world == 1:
        return tensor
    tensor = tensor.detach().contiguous()
    together = tensor.new_empty(world, *tensor.shape)
    dist.all_gather(list(together), tensor)
    return together.flatten(0, 1)


def gather_samples(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """:func:`gather` of several tensors (N, ...) of one dtype by a single message."""
    if world_size() == 1:
        return dict(tensors)
    flat = [tensor.flatten(1) for tensor in tensors.values()]
    parts = gather(torch.cat(flat, dim=1)).split([part.shape[1] for part in flat], dim=1)
    return {
        name: part.reshape(-1, *tensor.shape[1:]) for (name, tensor), part in zip(tensors.items(), parts, strict=True)
    }


def gather_numbers(number: int, device: torch.device) -> list[int]:
    """The whole numbers of all processes; none of them goes on before all have called."""
    numbers: list[int] = gather(torch.tensor([number], device=device)).tolist()
    return numbers


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes, without gradient; the argument stays as it is."""
    if world_size() == 1:
        return tensor
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def broadcast(tensor: Tensor, source: int = 0) -> Tensor:
    """The tensor of process `source`, written over the argument, which has the same shape in every process."""
    if world_size() > 1 and tensor.numel():
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, source)
        tensor.detach().copy_(whole)
    return tensor


def collect_rows(rows: Tensor, values: Tensor, count: int) -> Tensor:
    """A table of which every process holds some rows.

    Args:
        rows: Which these are, (n,) int64; no row is held twice.
        values: What they hold, (n, ...).
        count: Rows of the table.

    Returns:
        (count, ...), the same in every process; 0 where nobody holds a row.
    """
    table = values.new_zeros(count, *values.shape[1:])
    table[rows] = values
    return all_reduce_sum(table)


@torch.no_grad()
def make_identical(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if world_size() > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            broadcast(tensor)


def leave_to_module(module: nn.Module, *names: str) -> None:
    """Keep the buffers of some submodules out of DDP's own synchronisation, which overwrites them in every forward.

    They are the same in every process by construction, and DDP would hold on to buffers that have been replaced.
    """
    prefixes = tuple(f"{name}." for name in names)
    ignored = [name for name, _ in module.named_buffers() if name.startswith(prefixes)]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, ignored)


def prepare(trainer: pl.Trainer) -> None:
    """Refuse ways of using several processes in which they do not all hold the whole model.

    Raises:
        UsageError: Names the strategy.
    """
    if trainer.world_size == 1:
        return
    if not isinstance(trainer.strategy, _DDPStrategy):
        raise UsageError(
            f"the strategy is {type(trainer.strategy).__name__}; on several processes ProSLModule trains with 'ddp'"
        )
    # What is logged under these names has been averaged, or is the same in every process.
    warnings.filterwarnings(
        "ignore", message=r"It is recommended to use .self\.log\('(epoch|codebook|online|stage|loss)"
    )


class EndTogether(pl.Callback):
    """Ends the processes that Lightning started beside this one when it fails: they would wait for it."""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Kill them, as Lightning does where one of them fails: a process in a collective hears nothing else."""
        launcher: Any = trainer.strategy.launcher
        for process in getattr(launcher, "procs", ()):
            if hasattr(process, "send_signal"):
                process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
