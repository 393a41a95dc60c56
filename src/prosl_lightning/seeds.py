"""Every random draw comes from a generator seeded by what it is for, so nothing has to be saved to resume exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """A 63-bit seed that depends on all parts, e.g. ``derive_seed(seed, epoch, step, rank)``.

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def generator(device: torch.device | str, *parts: int) -> torch.Generator:
    """A generator on `device` seeded by :func:`derive_seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


@contextmanager
def seeded(device: torch.device, *parts: int) -> Iterator[None]:
    """Seed torch's global generators within the block (for dropout), and restore them afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*parts))
        yield
