"""What is said when a GPU's memory does not suffice: what takes how much of it, and what to lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.errors import UsageError


@contextmanager
def explained(
    device: torch.device,
    what: str,
    advice: Callable[[], Sequence[str]],
    takes: Callable[[], Mapping[str, int]] = dict,
) -> Iterator[None]:
    """Turn torch's error into one that says what was being done, what takes the memory and what helps.

    Args:
        device: That of the work.
        what: What is being done.
        advice: What to do about it, one thing of these; asked for only when needed.
        takes: Bytes by what takes them, likewise.

    Raises:
        UsageError: The device ran out of memory within the block.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        parts = [f"{name} {_gib(count)}" for name, count in takes().items()]
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            most = torch.cuda.max_memory_allocated(device)
            parts = [f"of {_gib(total)} {_gib(free)} are free", f"this process held {_gib(most)} at most", *parts]
        told = f"out of memory on {device} in {what}{': ' if parts else ''}{', '.join(parts)}"
        raise UsageError(f"{told}\n{', or '.join(advice())}") from error


def explained_in_training(
    module: pl.LightningModule,
    what: str = "a training step",
    option: str = "batch_size",
    *,
    data: Any = None,
    at_once: int | None = None,
) -> Any:
    """:func:`explained` for what goes over the data in batches.

    Args:
        module: Under its trainer, or alone in an evaluation.
        what: What is being done.
        option: The data module's option that it grows with.
        data: The data module, where the trainer has none.
        at_once: Sequences that are processed at once, where that is less than a batch.
    """
    trainer = module._trainer  # `trainer` raises where there is none
    data = data if trainer is None else getattr(trainer, "datamodule", data)
    size = getattr(data, option, None)
    archive = getattr(data, "resident_bytes", 0)
    limit = "" if size is None or at_once is None or size < at_once else f" below {at_once}"

    def takes() -> dict[str, int]:
        own = "weights, banks and optimizer"
        return {"the archive takes": archive, own: _state_bytes(module, getattr(trainer, "optimizers", ()))}

    def advice() -> list[str]:
        found = [f"lower data.{option}{limit}"]
        if option == "batch_size" and str(getattr(trainer, "precision", "")) == "32-true":
            found.append("set trainer.precision to bf16-mixed")
        return [*found, "leave the archive on the host with data.resident false"] if archive else found

    counts = [count for count in (size, at_once) if count is not None]
    sequences = f" of {min(counts)} sequences" if counts else ""
    return explained(module.device, what + sequences, advice, takes)


def _state_bytes(module: pl.LightningModule, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    for optimizer in optimizers:
        tensors += [
            value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
        ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
