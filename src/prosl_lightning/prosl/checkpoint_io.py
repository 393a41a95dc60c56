"""Checkpoints that are written completely or not at all: what stood there stays until the new one is on the disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from prosl_lightning._lightning import submodule
from prosl_lightning.data.staging import sync_folder
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import STREAMS

_TorchCheckpointIO: Any = submodule("plugins.io").TorchCheckpointIO
# No space, quota used up, file larger than allowed.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Folders of runs that were put aside, and of the models of `--streams` and `--seeds`.
_ASIDE, _MODEL = re.compile(r"checkpoints-\d+"), re.compile(rf"({'|'.join(STREAMS)})-\d+")


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
                f"cannot write the checkpoint {path}: {error.strerror or error}\n"
                f"{hint}; {how_to_go_on(Path(path).parent)}"
            ) from error


def write_atomically(content: dict[str, Any], path: Path) -> None:
    """`torch.save` to a temporary name in the same folder, then rename.

    Raises:
        OSError: It could not be written; what stood at `path` is untouched, nothing is left beside it.
    """
    try:
        with _atomic(path) as file:
            torch.save(content, file)
    except RuntimeError as error:
        # torch's writer reports a failed write as an error of its own, the cause behind it.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def copy_atomically(source: Path, path: Path) -> None:
    """Copy a file, of which `path` has all or nothing.

    Raises:
        OSError: As for :func:`write_atomically`.
    """
    with source.open("rb") as content, _atomic(path) as file:
        shutil.copyfileobj(content, file)


@contextmanager
def _atomic(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name, not one per process: what a kill left is written over, and no search for *.ckpt finds it.
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


def newest_checkpoint(run_folder: Path) -> Path:
    """The checkpoint of a run that was written last and is complete.

    Those of earlier runs, whose folder `prosl fit` has renamed, are not this run's.

    Raises:
        DataError: The folder holds none; Lightning would silently start afresh.
    """
    every = sorted(run_folder.rglob("*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True)
    files = [file for file in every if _is_of_this_run(file.relative_to(run_folder))]
    for file in files:
        if zipfile.is_zipfile(file):  # the table of contents stands at the end, so a cut-off file is none
            return file
    found = f"{len(files)} incomplete file(s)" if files else "nothing"
    told = f"--ckpt_path last: no complete checkpoint in {run_folder} (found {found})"
    models = sorted({part for file in every for part in file.relative_to(run_folder).parts if _MODEL.fullmatch(part)})
    if models:
        raise DataError(f"{told}\nits {', '.join(models)} are models of --streams or --seeds: give these options, too")
    aside = f"; an earlier run's can be named, e.g. {every[0]}" if len(every) > len(files) else ""
    raise DataError(f"{told}; start without --ckpt_path\na run writes its first when its first epoch is done{aside}")


def _is_of_this_run(file: Path) -> bool:
    """Not put aside, not of a model of `--streams`, not written by Lightning for SLURM in the middle of an epoch."""
    other = any(_ASIDE.fullmatch(folder) or _MODEL.fullmatch(folder) for folder in file.parts[:-1])
    return not other and not file.name.startswith("hpc_ckpt_")


def how_to_go_on(run_folder: Path, how: str = "the same command") -> str:
    """What to do after a run has stopped: to go on, or to start again where it has no checkpoint yet."""
    try:
        return f"{newest_checkpoint(run_folder)} is complete: go on with {how} and --ckpt_path last"
    except DataError:
        return f"there is no checkpoint yet: start again with {how}, without --ckpt_path"


def is_full(error: OSError) -> bool:
    """Whether the disk, a quota or a limit is what stopped a write."""
    return error.errno in _FULL
