"""How `prosl sweep` trains and judges one seed: the warm-up, then every arm from its checkpoint, each step once."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prosl_lightning.commands import fit
from prosl_lightning.commands.evaluate import DataOptions
from prosl_lightning.commands.knn import knn
from prosl_lightning.commands.linear import linear
from prosl_lightning.commands.sweep_plan import SETTINGS, Arm
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.fingerprint import epochs_done
from prosl_lightning.evaluation.naming import Row
from prosl_lightning.evaluation.report import RESULTS, read_results

try:
    import fcntl
except ImportError:  # not on Windows: nothing keeps two sweeps apart there
    fcntl = None  # type: ignore[assignment]

# Lightning warns that a run keeps its checkpoints elsewhere than the one it goes on from; here it is meant to.
_EXPECTED = (r"Be aware that when using `ckpt_path`", r"The dirpath has changed from")


@dataclass(frozen=True)
class SeedRuns:
    """The runs of one seed of a sweep.

    Attributes:
        folder: Of the sweep.
        settings: What all runs share, as `prosl fit` takes it.
        seed: Of every run.
        linear_epochs: Of the linear evaluation.
    """

    folder: Path
    settings: Mapping[str, Any]
    seed: int
    linear_epochs: int

    @property
    def root(self) -> Path:
        """Folder of this seed's runs."""
        return self.folder / f"seed-{self.seed}"

    @property
    def epochs(self) -> int:
        """Epochs of a complete run."""
        return int(self.settings["trainer"]["max_epochs"])

    # ------------------------------------------------------------------------------------------------ what is done

    def rows(self, arm: Arm) -> list[Row]:
        """Results of an arm after its last epoch, by the settings of this sweep."""
        if self.damage(arm):
            return []
        return [row for row in read_results(self._results(arm)) if self._wanted(row)]

    def _results(self, arm: Arm) -> Path:
        return _checkpoints(self.root / arm.name) / RESULTS

    def damage(self, arm: Arm) -> str:
        """What is wrong with an arm's file of results; empty where nothing is."""
        try:
            read_results(self._results(arm))
        except DataError as error:
            return str(error)
        return ""

    def _wanted(self, row: Row) -> bool:
        protocol = row["protocol"]
        usual = {"knn": ("k", 1), "linear": ("epochs", self.linear_epochs)}.get(row["evaluation"])
        at_end = row["checkpoints"][0]["epochs"] == self.epochs and len(row["checkpoints"]) == 1
        return usual is not None and at_end and protocol.get(usual[0]) == usual[1]

    def missing(self, arm: Arm) -> list[str]:
        """Evaluations that an arm still lacks."""
        present = {row["evaluation"] for row in self.rows(arm)}
        return [evaluation for evaluation in ("knn", "linear") if evaluation not in present]

    def state(self, arm: Arm) -> str:
        """What is done of an arm."""
        if self.damage(arm):
            return f"{RESULTS} is damaged"
        missing = self.missing(arm)
        if not missing:
            return "done"
        done = _newest(self.root / arm.name, self.epochs)[1]
        if done == self.epochs:
            return f"trained, lacks {' and '.join(missing)}"
        return f"{done - arm.start} of {self.epochs - arm.start} epochs" if done else "to do"

    def warm_up_state(self, arm: Arm) -> str:
        """What is done of an arm's warm-up."""
        done = self._on_the_way(arm)[1]
        return "done" if done == arm.start else f"{done} of {arm.start} epochs" if done else "to do"

    # ------------------------------------------------------------------------------------------------------ doing it

    def run(self, arm: Arm) -> None:
        """Train and judge an arm, and its warm-up before, as far as it is not done.

        An arm whose results are damaged is left as it is.

        Raises:
            ProSLError: Names the run.
        """
        missing = self.missing(arm)
        if not missing or self.damage(arm):
            return
        checkpoint = self._train(arm)
        data = self.settings["data"]
        options = DataOptions(data["root"], data["protocol"], data["eval_batch_size"])
        if "knn" in missing:
            knn(ckpt=str(checkpoint), data=options)
        if "linear" in missing:
            linear(ckpt=str(checkpoint), data=options, epochs=self.linear_epochs)

    def _train(self, arm: Arm) -> Path:
        """The arm's checkpoint after its last epoch."""
        trained, done = _newest(self.root / arm.name, self.epochs)
        if trained is not None and done == self.epochs:
            return trained
        start = None
        if trained is None and arm.start:
            start = self._warm_up(arm)
        print(f"\nseed {self.seed}, {arm.name}: epochs {max(done, arm.start)} to {self.epochs}", flush=True)
        # Kept checkpoints beside `last.ckpt` serve the warm-up only.
        return self._fit(arm.name, self.epochs, arm.changes, start or trained, keep_every=self.epochs + 1)

    def _on_the_way(self, arm: Arm) -> tuple[Path | None, int]:
        """The checkpoint nearest to an arm's start, of its own warm-up or of another one of the kind; epochs done."""
        kind = arm.warm_up_name.rpartition("-")[0]
        folders = [folder for folder in self.root.glob(f"{kind}-*") if folder.name.rpartition("-")[0] == kind]
        return max((_newest(folder, arm.start) for folder in folders), key=lambda each: each[1], default=(None, 0))

    def _warm_up(self, arm: Arm) -> Path:
        """Checkpoint of the base method alone after `arm.start` epochs."""
        source, done = self._on_the_way(arm)
        if source is not None and done == arm.start:
            return source
        name, changes = arm.warm_up_name, {"semantic": False} | dict(arm.warm_up)
        print(f"\nseed {self.seed}, {name}: epochs {done} to {arm.start}, the base method alone", flush=True)
        return self._fit(name, arm.start, changes, source, keep_every=int(self.settings["checkpoint_every"]))

    def _fit(self, name: str, epochs: int, changes: Mapping[str, Any], start: Path | None, keep_every: int) -> Path:
        """Run `prosl fit` in this process: nothing of a run outlives it but its folder."""
        folder = self.root / name
        options = {f"model.{option}": value for option, value in changes.items()} | {
            "seed_everything": self.seed, "checkpoint_every": keep_every, "trainer.default_root_dir": str(folder),
            "trainer.max_epochs": epochs, "trainer.devices": 1,
        }  # fmt: skip
        if start is not None:
            options["ckpt_path"] = str(start)
        given = [f"--{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in options.items()]
        try:
            with warnings.catch_warnings():
                for message in _EXPECTED:
                    warnings.filterwarnings("ignore", message=message)
                fit.main(["--config", str(self.folder / SETTINGS), *given])
        except (DataError, UsageError) as error:
            raise type(error)(f"seed {self.seed}, {name}: {error}") from error
        finally:
            _clean_up()
        trained, done = _newest(folder, epochs)
        if trained is None:
            raise DataError(
                f"seed {self.seed}, {name} left no checkpoint in {_checkpoints(folder)}; a sweep needs those of `prosl "
                "fit`: leave out a ModelCheckpoint among trainer.callbacks"
            )
        if done != epochs:
            raise DataError(f"seed {self.seed}, {name} ended after {done} of {epochs} epochs; give the command again")
        return trained


def _clean_up() -> None:
    """Free what a run held, and close its W&B run: a later logger of this process would go on writing into it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish()


def _checkpoints(run: Path) -> Path:
    return run / "checkpoints"


def _newest(run: Path, at_most: int) -> tuple[Path | None, int]:
    """The checkpoint of a run with the most epochs done, `at_most`, and how many they are; (None, 0) without one."""
    found = [(path, _epochs_done(path)) for path in sorted(_checkpoints(run).glob("*.ckpt"))]
    possible = [(path, epochs) for path, epochs in found if 0 < epochs <= at_most]
    return max(possible, key=lambda each: each[1], default=(None, 0))


def _epochs_done(checkpoint: Path) -> int:
    """0 where the file is incomplete."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return epochs_done(content) if "optimizer_states" in content else 0
    except Exception:
        return 0


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Keep other sweeps out of a seed's folder; a killed process holds nothing.

    Raises:
        UsageError: Another one is at work there.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"another sweep is at work in {root}: wait for it, or give other --seeds") from error
        yield


def warm_ups(arms: Iterable[Arm]) -> dict[str, Arm]:
    """Name of each warm-up -> an arm that goes on from it."""
    return {arm.warm_up_name: arm for arm in arms if arm.start}
