"""What is told and kept when training has diverged: the samples of the step, and the state it left."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.errors import DataError
from prosl_lightning.prosl.checkpoint_io import how_to_go_on, write_atomically
from prosl_lightning.prosl.training_log import Divergence

_MOST_NAMES = 10


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all of all tensors is finite; one answer is read back."""
    largest = [tensor.detach().abs().amax().float() for tensor in tensors if tensor.numel()]
    return bool(torch.stack(largest).isfinite().all()) if largest else True


def sample_names(datamodule: Any, rows: Tensor) -> list[str]:
    """Names of training rows (N,) in the data module's archive, or `row 17` where it has none."""
    archive, train_rows = getattr(datamodule, "archive", None), getattr(datamodule, "train_rows", None)
    if archive is None or train_rows is None:
        return [f"row {row}" for row in rows.tolist()]
    return [str(name) for name in archive.names[train_rows[rows.numpy()]]]


def rows_not_finite(datamodule: Any, rows: Tensor) -> Tensor:
    """Those of the training rows (N,) whose joints in the data module's archive are not all finite."""
    archive, train_rows = getattr(datamodule, "archive", None), getattr(datamodule, "train_rows", None)
    if archive is None or train_rows is None:
        return rows[:0]
    good = [bool(np.isfinite(archive.clip(int(row))).all()) for row in train_rows[rows.numpy()]]
    return rows[~torch.tensor(good, dtype=torch.bool)]


def divergence_error(module: pl.LightningModule, found: Divergence) -> DataError:
    """Save the state of a diverged run, and say what happened, where it is kept and what to do.

    The state is written beside the checkpoints under a name that `--ckpt_path last` does not take.

    Args:
        module: The module under its trainer.
        found: The first step whose loss was not finite.
    """
    datamodule = getattr(module.trainer, "datamodule", None)
    rows, broken_before = found.rows, False
    # Found in its own step, before any update: weights that are not finite by now were broken by the step before.
    if found.is_latest and module.automatic_optimization and found.rows_before is not None:
        broken_before = not is_finite(module.parameters())
        rows = found.rows_before if broken_before else rows
    names, broken = sample_names(datamodule, rows), sample_names(datamodule, rows_not_finite(datamodule, rows))
    what = "the loss is" if not found.of_state else "the weights are" if found.terms == ("weights",) else "the state is"
    cause = ", after an update that broke the weights" if broken_before else ""
    whose = "that update's samples" if broken_before else "its samples"
    look = (
        f"the joints of some of {whose} are not finite either; repair {_listed(broken)}"
        if broken
        else f"lower the learning rate, or look at {whose}: {_listed(names)}"
    )
    where = f"epoch {module.current_epoch} (step {found.step}: {', '.join(found.terms)})"
    # The same would meet the same: a run is deterministic.
    changed = "repaired data" if broken else "a lower learning rate or repaired data"
    advice = how_to_go_on(Path(module.trainer.default_root_dir), changed)
    content = {"step": found.step, "terms": list(found.terms), "rows": rows, "names": names, "broken_names": broken}
    return DataError(f"{what} not finite in {where}{cause}: {look}\n{_saved(module, found, content)}; {advice}")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def forget_passed(trainer: pl.Trainer, global_step: int) -> None:
    """Remove what an earlier divergence in the run's folder left, once the run has done its step.

    Args:
        trainer: The run's.
        global_step: Steps done.
    """
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    for path in Path(folder).glob("diverged*.pt") if folder and trainer.is_global_zero else ():
        if zipfile.is_zipfile(path):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("diverged")
            if found is not None and found["step"] < global_step:
                path.unlink()


def _saved(module: pl.LightningModule, found: Divergence, diverged: dict[str, Any]) -> str:
    trainer = module.trainer
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    if not folder:
        return "no state was saved: the run keeps no checkpoints"
    rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
    path = Path(folder) / f"diverged{rank}.pt"
    content: dict[str, Any] = {
        "pytorch-lightning_version": pl.__version__,
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "diverged": diverged,
    }
    module.on_save_checkpoint(content)
    try:
        write_atomically(content, path)
    except OSError as error:
        return f"its state could not be saved to {path}: {error.strerror or error}"
    late = "" if found.is_latest else " (of a later step: --trainer.log_every_n_steps 1 stops at the very one)"
    return f"state{late} and all names: {path}"
