"""What is said when a GPU's memory does not suffice: what takes how much of it, and what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.errors import UsageError


@contextmanager
def explained(module: pl.LightningModule, what: str = "a training step", option: str = "batch_size") -> Iterator[None]:
    """Turn torch's error into one that names the archive's and the step's needs.

    Args:
        module: The module under its trainer.
        what: What is being done.
        option: The data module's option that it grows with.

    Raises:
        UsageError: The device ran out of memory within the block.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise UsageError(_told(module, what, option)) from error


def _told(module: pl.LightningModule, what: str, option: str) -> str:
    data = getattr(module.trainer, "datamodule", None)
    archive, size = getattr(data, "resident_bytes", 0), getattr(data, option, None)
    own = _state_bytes(module)
    sequences = f" of {size} sequences" if size else ""
    text = f"out of memory on {module.device} in {what}{sequences}:"
    if module.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(module.device)
        step = max(0, torch.cuda.max_memory_allocated(module.device) - archive - own)
        text = f"{text} of {_gib(total)} {_gib(free)} are free; {what} needs more than {_gib(step)},"
    text = f"{text} the archive takes {_gib(archive)}, weights, banks and optimizer {_gib(own)}"
    advice = [f"lower data.{option}"]
    if str(module.trainer.precision) == "32-true":
        advice.append("set trainer.precision to bf16-mixed")
    if archive:
        advice.append("leave the archive on the host with data.resident false")
    return f"{text}\n{', or '.join(advice)}"


def _state_bytes(module: pl.LightningModule) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    for optimizer in module.trainer.optimizers:
        tensors += [
            value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
        ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
