"""Keep freed memory in the process: on the CPU, page faults cost a training step a third of its time or more."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt parameters


def keep_freed_memory() -> None:
    """Tell glibc not to hand large freed blocks back to the system after every step or file; elsewhere nothing.

    The setting holds for the whole process, so it is made when work begins, never by an import: training on the CPU
    and `prosl prepare` call it.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 2**25)
