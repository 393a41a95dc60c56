"""SideBySide: several trainings in one process that take turns step by step, from one archive.

A step on a GPU is bound by latency, not by arithmetic, so the steps of several models fit beside each other. Each model
keeps its own Trainer in a thread of its own and, on a GPU, its own stream. Only one thread runs at a time: it queues
its step on the device and passes the turn on, and the device works on the steps of all. So a model ends exactly as it
would alone, unless it shares its codebook.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prosl_lightning._lightning import pl
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import UsageError


class Stopped(Exception):
    """Raised in a training at its next turn when the group is to end."""


class _Turns:
    """Lets one of several threads run at a time, in order, each with its own state of torch's global generator."""

    def __init__(self, random_states: list[Tensor]) -> None:
        self._states = random_states
        self._gates = [threading.Semaphore(0) for _ in random_states]
        self._running = [True] * len(random_states)
        self._stopped = False
        self._done = threading.Event()

    def run(self) -> None:
        """Give the first its turn, and wait until all have left. An exception of a signal's handler ends all first."""
        self._gates[0].release()
        try:
            self._wait_for_all()
        except BaseException:
            self._stopped = True
            self._wait_for_all()
            raise

    def _wait_for_all(self) -> None:
        # Not Thread.join, which takes a thread for ended when a signal's handler raises meanwhile. And a signal that
        # the system gives to another thread does not wake this one, so it looks from time to time.
        while not self._done.wait(timeout=0.1):
            pass

    def wait(self, own: int) -> None:
        """Wait for the turn of number `own`.

        Raises:
            Stopped: The group is to end.
        """
        self._gates[own].acquire()
        torch.set_rng_state(self._states[own])
        if self._stopped:
            raise Stopped

    def pass_on(self, own: int) -> None:
        """Let all others that still run have a turn each."""
        following = self._following(own)
        if following != own:
            self._states[own] = torch.get_rng_state()
            self._gates[following].release()
            self.wait(own)
        elif self._stopped:
            raise Stopped

    def others_run(self, own: int) -> bool:
        """Whether any other still runs, and is to."""
        return not self._stopped and any(running for n, running in enumerate(self._running) if n != own)

    def leave(self, own: int) -> None:
        """Take no further turn."""
        self._running[own] = False
        if any(self._running):
            self._gates[self._following(own)].release()
        else:
            self._done.set()

    def _following(self, own: int) -> int:
        count = len(self._running)
        return next(number % count for number in range(own + 1, own + 1 + count) if self._running[number % count])


class _TakeTurns(pl.Callback):
    """Passes the turn on after every step, and keeps a model's work on a CUDA stream of its own."""

    def __init__(self, turns: _Turns, own: int) -> None:
        self._turns, self._own = turns, own

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin the stream; a thread has its own current one, and the data are on the device by now."""
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the frames were copied on another stream
            torch.cuda.set_stream(torch.cuda.Stream(device))

    def on_train_start(self, *_: Any) -> None:
        """All have loaded their checkpoints before any begins its first epoch."""
        self._turns.pass_on(self._own)

    def on_train_batch_end(self, *_: Any) -> None:
        """The step is queued and nobody has waited for it: now the others queue theirs."""
        self._turns.pass_on(self._own)


@dataclass
class _Member:
    """One training: what it consists of, the state of torch's global generator it begins with, and how it ended."""

    name: str
    trainer: pl.Trainer
    model: pl.LightningModule
    datamodule: Any
    ckpt_path: str | None
    state: Tensor
    error: BaseException | None = field(default=None)


class SideBySide:
    """Trains several models at once in one process, on one device, from one archive.

    Every model has its own Trainer with its own callbacks, loggers and folder, and ends with the weights, banks and
    codebook it would have had alone, on the CPU bit by bit. Data modules that read the same folder share one archive,
    and one copy of it on the GPU.

    Example:
        ::

            group = SideBySide()
            for stream in ("joint", "bone", "motion"):
                pl.seed_everything(0)
                data = SkeletonDataModule("data/ntu60", stream=stream)
                trainer = pl.Trainer(max_epochs=450, default_root_dir=f"runs/{stream}")
                group.add(stream, trainer, ProSLModule(stream=stream), data)
            group.fit()
    """

    def __init__(self) -> None:
        self._members: list[_Member] = []

    def add(
        self,
        name: str,
        trainer: pl.Trainer,
        model: pl.LightningModule,
        datamodule: Any,
        ckpt_path: str | None = None,
    ) -> None:
        """Add what `trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)` would train.

        Its training begins with torch's global generator as it is now.

        Raises:
            UsageError: The trainer is for several devices, or the name is taken.
        """
        if trainer.world_size != 1:
            raise UsageError(
                f"models side by side share one device, the trainer has {trainer.world_size}: use devices=1, and one "
                "process for each further device"
            )
        if any(member.name == name for member in self._members):
            raise UsageError(f"there are two models of the name {name}")
        if isinstance(datamodule, SkeletonDataModule):
            others = [member.datamodule for member in self._members]
            alike = [o for o in others if isinstance(o, SkeletonDataModule) and o.root == datamodule.root]
            if alike:
                datamodule.share_archive(alike[0])
        self._members.append(_Member(name, trainer, model, datamodule, ckpt_path, torch.get_rng_state()))

    def fit(self) -> dict[str, BaseException]:
        """Train all. A model that fails leaves the others to go on.

        Returns:
            The errors by name; empty where every training came to its end.
        """
        if not self._members:
            return {}
        turns = _Turns([member.state for member in self._members])
        threads = [
            threading.Thread(
                target=self._fit_one, args=(turns, number, torch.get_num_threads()), name=member.name, daemon=True
            )
            for number, member in enumerate(self._members)
        ]
        before = torch.get_rng_state()
        for thread in threads:
            thread.start()
        try:
            turns.run()
        finally:
            for thread in threads:
                thread.join()
            torch.set_rng_state(before)
        return {member.name: member.error for member in self._members if member.error is not None}

    def _fit_one(self, turns: _Turns, number: int, num_threads: int) -> None:
        member = self._members[number]
        torch.set_num_threads(num_threads)  # OpenMP keeps it per thread
        take_turns = _TakeTurns(turns, number)
        member.trainer.callbacks.insert(0, take_turns)  # type: ignore[attr-defined]
        try:
            turns.wait(number)
            member.trainer.fit(member.model, datamodule=member.datamodule, ckpt_path=member.ckpt_path)
        except Stopped:
            pass
        except BaseException as error:  # `fit` returns it, in the caller's thread
            member.error = error
            if turns.others_run(number):
                epoch = member.trainer.current_epoch
                told = f"{member.name} has failed in epoch {epoch}, the other models go on; why is told at the end"
                warnings.warn(told, stacklevel=2)
        finally:
            member.trainer.callbacks.remove(take_turns)  # type: ignore[attr-defined]
            turns.leave(number)
