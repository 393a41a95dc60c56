"""What benchmarks share: timing that waits for the device, results in rows, a table and a JSON file."""

from __future__ import annotations

import json
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.tables import table
from prosl_lightning.version import __version__

_PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "numpy", "faiss-cpu", "faiss-gpu")


class Bench:
    """Options, clock and results of one call of a benchmark script.

    Args:
        device: Where the work runs.
        minutes: After so long no further measurement is begun.
        out: JSON file, written after every part; None for none.
    """

    def __init__(self, device: torch.device, minutes: float, out: Path | None) -> None:
        self.device, self.out, self.rows = device, out, []  # type: ignore[var-annotated]
        self._deadline = time.monotonic() + 60 * minutes

    @property
    def seconds_left(self) -> float:
        """Time until no further measurement is begun; not positive when it is over."""
        return self._deadline - time.monotonic()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, function: Callable[[], Any]) -> float:
        """Time of one call."""
        self.synchronize()
        begin = time.perf_counter()
        function()
        self.synchronize()
        return time.perf_counter() - begin

    def milliseconds(
        self, function: Callable[[], Any], *, blocks: int = 10, calls: int = 10, warm_up: int = 5
    ) -> float:
        """Time of a call: the median over blocks of calls.

        The device is waited for at the ends of a block only: waiting after every call would stop the host from running
        ahead.
        """
        for _ in range(warm_up):
            function()

        def block() -> None:
            for _ in range(calls):
                function()

        times = [self.seconds(block)]
        while len(times) < blocks and self.seconds_left > 0:
            times.append(self.seconds(block))
        return 1e3 * statistics.median(times) / calls

    def record(self, part: str, what: str, **values: Any) -> None:
        """Keep one row of results."""
        self.rows.append({"part": part, "what": what, **values})

    def run(self, parts: Mapping[str, Callable[[], None]]) -> int:
        """Run the parts one after another; one that fails is recorded with its reason and the others still run.

        Returns:
            Number of rows that report an error: the exit code of the script.
        """
        for name, part in parts.items():
            print(f"{name} ...", flush=True)
            begin = time.perf_counter()
            if self.seconds_left <= 0:
                self.record(name, "not run", skipped="out of time")
            else:
                try:
                    part()
                except Exception as error:
                    traceback.print_exc()
                    self.record(name, "failed", error=f"{type(error).__name__}: {error}"[:500])
            print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
            self.write()
        print()
        print(table(["part", "what", "result"], [[row["part"], row["what"], _brief(row)] for row in self.rows]))
        return sum("error" in row for row in self.rows)

    def write(self) -> None:
        """Write what there is so far, with date, device and versions."""
        if self.out is None:
            return
        self.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **_machine(self.device)}
        self.out.write_text(json.dumps({**content, "results": self.rows}, indent=2) + "\n", encoding="utf-8")


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Whether matrix products and recurrent layers may use TF32 within the block; nothing else reads these switches."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def bf16(device: torch.device, enabled: bool) -> torch.autocast:
    """Autocast to bfloat16 within the block."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


class EpochClock(pl.Callback):
    """Training sequences per second of each epoch, from its first batch to its last: no codebook building."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.rates, self.begin = bench, [], 0.0  # type: ignore[var-annotated]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: SkeletonBatch, batch_idx: int) -> None:
        """Start the clock."""
        if batch_idx == 0:
            self.bench.synchronize()
            self.begin = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: SkeletonBatch, batch_idx: int
    ) -> None:
        """Stop it at the last batch."""
        if batch_idx + 1 == trainer.num_training_batches:
            self.bench.synchronize()
            self.rates.append((batch_idx + 1) * len(batch.index) / (time.perf_counter() - self.begin))


def quiet_trainer(bench: Bench, epochs: int, **options: Any) -> pl.Trainer:
    """A trainer that prints nothing, keeps no checkpoint and stops when the time is up."""
    return pl.Trainer(
        max_epochs=epochs, max_time=timedelta(seconds=max(bench.seconds_left, 1)), accelerator=bench.device.type,
        devices=1, log_every_n_steps=10, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def _machine(device: torch.device) -> dict[str, Any]:
    versions = {"prosl-lightning": __version__, "python": platform.python_version(), "cuda": torch.version.cuda}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return {"device": name, "versions": versions}


def _brief(row: Mapping[str, Any]) -> str:
    values = {name: value for name, value in row.items() if name not in ("part", "what") and value is not None}
    return ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in values.items())


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_number(one)}" for name, one in value.items())
    if isinstance(value, list):
        return " -> ".join(map(_number, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
