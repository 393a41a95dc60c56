"""What the figures of `prosl plot` are drawn from: checkpoints, data, a file to write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prosl_lightning.commands.evaluate import DataOptions, device_name
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.features import check_fits, load_module, stored_recipe
from prosl_lightning.evaluation.fingerprint import describe_checkpoint, epochs_done, training_note
from prosl_lightning.evaluation.naming import method_name
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.tables import counted

FORMATS = (".png", ".pdf", ".svg")
_DPI = 150


@dataclass(frozen=True)
class DataIfAny:
    """The data, where a figure can do without.

    Attributes:
        root: Folder of the archive.
        protocol: Split rule; the checkpoint's own where it is not given.
        batch_size: Sequences per batch.
    """

    root: str | None = None
    protocol: str | None = None
    batch_size: int = 256

    @property
    def given(self) -> DataOptions | None:
        """As evaluations take it; None where no archive was given."""
        return None if self.root is None else DataOptions(self.root, self.protocol, self.batch_size)


NO_DATA = DataIfAny()


def check_out(out: str) -> Path:
    """The file to write, refused before any work where no figure can be written to it.

    Raises:
        UsageError: Its ending is unknown.
    """
    path = Path(out)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out}: a figure is written as {', '.join(FORMATS)}")
    return path


def write_figure(figure: Figure, path: Path, told: str) -> None:
    """Write a figure, and say what it shows.

    Raises:
        DataError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    print(f"{path}: {told}")


def load(ckpts: Sequence[str], options: DataOptions) -> tuple[list[ProSLModule], SkeletonDataModule]:
    """The checkpoints' modules, on the GPU where there is one, and the data, which fit all of them.

    The protocol is the checkpoints' own where it is not given. A checkpoint saved before any training names none.

    Raises:
        DataError: A checkpoint or the archive is missing or damaged, or they do not fit.
        UsageError: No checkpoint is given, or none or several protocols follow from them.
    """
    if not ckpts:
        raise UsageError("no checkpoint is given: --ckpt FILE, or several")
    modules = [load_module(ckpt) for ckpt in ckpts]
    recipes = [stored_recipe(ckpt) for ckpt in ckpts]
    named = list(dict.fromkeys(str(recipe["protocol"]) for recipe in recipes if recipe.get("protocol")))
    if options.protocol is None and len(named) != 1:
        found = f"the checkpoints were trained under {' and '.join(named)}" if named else "the checkpoint names none"
        raise UsageError(f"no protocol follows from the checkpoints ({found}): give --data.protocol")
    data = SkeletonDataModule(options.root, options.protocol or named[0], eval_batch_size=options.batch_size)
    data.setup()
    for ckpt, module, recipe in zip(ckpts, modules, recipes, strict=True):
        check_fits(module, data)
        if recipe and (note := training_note(recipe, data)):
            print(f"note: {ckpt} {note}", file=sys.stderr)
    return [module.to(device_name()) for module in modules], data


def check_codebook(module: ProSLModule, ckpt: str, data: SkeletonDataModule | None = None) -> None:
    """Refuse a checkpoint without a codebook, or data whose training part is not the one that it divides.

    Raises:
        DataError: Says which, and what there is.
    """
    codebook = module.codebook
    if not codebook.is_built:
        begins = f" (from epoch {module.hparams['semantic_start']})" if module.hparams["semantic"] else ""
        done = counted(trained_epochs(ckpt), "epoch")
        raise DataError(f"{ckpt} has no codebook after {done}: give one of the semantic stage{begins}")
    if data is not None and len(codebook.assignment) != data.num_samples:
        raise DataError(
            f"the codebook of {ckpt} divides {len(codebook.assignment)} sequences, protocol '{data.protocol}' of "
            f"{data.root} has {data.num_samples} for training: give the data that it was trained on"
        )


def trained_epochs(ckpt: str) -> int:
    """Whole epochs that a checkpoint was trained for, also where it was saved at the end of a fit."""
    return epochs_done(torch.load(ckpt, map_location="cpu", weights_only=True, mmap=True))


def method_of(ckpt: str) -> str:
    """Name of the method that a checkpoint was trained with, without its epochs."""
    return method_name({"checkpoints": [describe_checkpoint(ckpt)]}).rsplit(",", 1)[0]


def numbers_of(archive: Archive, wanted: int | Sequence[int | str]) -> int | list[int]:
    """Class numbers of names or numbers; a single number says how many and stays.

    Raises:
        UsageError: There is no class of this name.
    """
    if isinstance(wanted, int):
        if wanted < 1:
            raise UsageError(f"classes is {wanted}; it must be at least 1, or a list of classes")
        return wanted
    found = []
    for each in wanted:
        if isinstance(each, str) and each not in archive.class_names:
            raise UsageError(f"there is no class '{each}'; there are {', '.join(archive.class_names) or 'no names'}")
        found.append(archive.class_names.index(each) if isinstance(each, str) else int(each))
    return found


def rows_of(archive: Archive, wanted: Sequence[int | str]) -> NDArray[np.int64]:
    """Archive rows of sequences by name or number.

    Raises:
        UsageError: There is no such sequence.
    """
    rows = []
    for each in wanted:
        found = np.flatnonzero(archive.names == str(each))
        number = int(each) if str(each).isdigit() else -1
        if not len(found) and not 0 <= number < len(archive):
            told = f"a name ({', '.join(archive.names[:3])}, ...) or a number up to {len(archive) - 1}"
            raise UsageError(f"{archive.root} has no sequence '{each}'; give {told}")
        rows.append(int(found[0]) if len(found) else number)
    return np.array(rows, np.int64)


def as_list(value: Any) -> list[Any]:
    """One value or several as a list."""
    return list(value) if isinstance(value, list | tuple) else [value]
