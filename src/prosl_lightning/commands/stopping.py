"""How a run of `prosl fit` ends before its time: signals, exit codes, and what is said about going on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from prosl_lightning._lightning import pl, submodule
from prosl_lightning.errors import DataError, ProSLError
from prosl_lightning.prosl.checkpoint_io import AtomicCheckpointIO, how_to_go_on, is_full
from prosl_lightning.prosl.divergence import forget_passed

_SLURM: Any = submodule("plugins.environments").SLURMEnvironment
_CheckpointIO: Any = submodule("plugins.io").CheckpointIO
TERMINATED, INTERRUPTED = 128 + signal.SIGTERM, 128 + signal.SIGINT


class Terminated(SystemExit):
    """SIGTERM has been received; nothing has to be saved, as checkpoints are complete at every moment."""

    told = False

    def __init__(self) -> None:
        super().__init__(TERMINATED)


class StopCleanly(pl.Callback):
    """Stops at once on SIGTERM and says how to go on; brings the log to the disk with every checkpoint."""

    _received = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take SIGTERM over from Lightning, which waits for the batch's end and, with several processes, may hang."""
        _handle(self._terminate)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._received = True
        raise Terminated

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stop here where an exception raised by the signal was lost, as in a destructor."""
        if self._received:
            raise Terminated

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Write the log, as a run killed next goes on behind the checkpoint; a divergence before it is passed."""
        for logger in trainer.loggers:
            logger.save()
        forget_passed(trainer, trainer.global_step)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how to go on, in the process that got the signal; `EndTogether` ends the others."""
        advice = how_to_go_on(Path(trainer.default_root_dir))
        if isinstance(exception, OSError):
            exception.how_to_go_on = advice  # type: ignore[attr-defined]  # for `clean_exits`, which knows no folder
        if not isinstance(exception, Terminated | KeyboardInterrupt):
            return
        name = "Ctrl+C"
        if isinstance(exception, Terminated):
            name, exception.told = "SIGTERM", True
        if trainer.is_global_zero or isinstance(exception, Terminated):  # Ctrl+C reaches all
            process = "" if trainer.is_global_zero else f"process {trainer.global_rank} "
            told = f"prosl fit: {process}stopped by {name} in epoch {trainer.current_epoch}"
            print(f"\n{told}; {advice}", file=sys.stderr)


def plugins(given: Any) -> list[Any]:
    """Plugins of a trainer: the user's, checkpoints that are written atomically, and SLURM without requeueing.

    Lightning's requeueing saves in the middle of an epoch, from where a run cannot go on exactly.
    """
    kept = list(given) if isinstance(given, list | tuple) else [given] if given else []
    if not any(isinstance(plugin, _CheckpointIO) for plugin in kept):
        kept.append(AtomicCheckpointIO())
    if _SLURM.detect() and not any(isinstance(plugin, _SLURM) for plugin in kept):
        kept.append(_SLURM(auto_requeue=False))
    return kept


@contextmanager
def clean_exits() -> Iterator[None]:
    """Within the block, signals and a full disk end the process as a user expects.

    Raises:
        SystemExit: 143 after SIGTERM, 130 after SIGINT.
        DataError: The disk is full.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    _handle(terminate)
    try:
        yield
    except Terminated as stop:
        if not stop.told:
            print("prosl fit: stopped by SIGTERM, not while training", file=sys.stderr)
        raise
    except SystemExit as stop:  # Lightning's 1 after an interrupt
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise SystemExit(INTERRUPTED) from None
        raise
    except OSError as error:
        if not is_full(error):
            raise
        # Closing the log on a full disk fails, too, and hides what failed first.
        cause = error.__context__
        if isinstance(cause, ProSLError):
            raise cause from None
        advice = getattr(cause, "how_to_go_on", getattr(error, "how_to_go_on", "then start again"))
        raise DataError(
            f"cannot write {error.filename or 'the log'}: {error.strerror}\nfree some space there; {advice}"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _handle(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses, and the caller has its own
        signal.signal(signal.SIGTERM, handler)
