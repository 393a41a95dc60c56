"""Checkpoints that are written completely or not at all: what stood there stays until the new one is on the disk."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from prosl_lightning._lightning import submodule
from prosl_lightning.data.staging import sync_folder
from prosl_lightning.errors import DataError

_TorchCheckpointIO: Any = submodule("plugins.io").TorchCheckpointIO
# No space, quota used up, file larger than allowed.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class AtomicCheckpointIO(_TorchCheckpointIO):
    """Writes a checkpoint beside its final place, waits for the disk, and renames it.

    Lightning's own collects the whole checkpoint in memory, writes it to the system's temporary folder and moves it;
    between two file systems that is a copy over the old checkpoint, which a kill or a full disk leaves cut off.
    Checkpoints on object stores go Lightning's way.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            DataError: It cannot be written, e.g. the disk is full; what stood there is kept.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            write_atomically(checkpoint, Path(path))
        except OSError as error:
            hint = "free some space there" if is_full(error) else "make the folder writable"
            raise DataError(
                f"cannot write the checkpoint {path}: {error.strerror or error}; earlier checkpoints are kept\n"
                f"{hint} and go on with --ckpt_path last"
            ) from error


def write_atomically(content: dict[str, Any], path: Path) -> None:
    """`torch.save` to a temporary name in the same folder, then rename.

    Raises:
        OSError: It could not be written; what stood at `path` is untouched, nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name, not one per process: what a kill left is written over, and no search for *.ckpt finds it.
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        # torch's writer reports a failed write as an error of its own, the cause behind it.
        cause = error.__context__
        if isinstance(error, RuntimeError) and isinstance(cause, OSError):
            raise cause from None
        raise
    sync_folder(path.parent)


def is_full(error: OSError) -> bool:
    """Whether the disk, a quota or a limit is what stopped a write."""
    return error.errno in _FULL
