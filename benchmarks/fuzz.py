"""Damaged files by the thousand: only our own errors may come out, soon, in little memory, with nothing executed.

    python benchmarks/fuzz.py --format ntu --count 20000 --seed 0

Small valid files are damaged and read as a user would have them read. A child process does the reading, so that a hang
or a crash ends only that case. Every case follows from the seed and its number alone; what is found is kept with both
under `--findings`, and `--only NUMBER` repeats one case. Needs the test extra, whose made-up files it starts from.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_bases import MAKERS, Base
from mutations import mutate

from prosl_lightning.data.formats import open_source
from prosl_lightning.data.ntu import read_skeleton
from prosl_lightning.data.recipes import normalize_bodies
from prosl_lightning.errors import ProSLError

SECONDS, MEGABYTES = 10.0, 1000
_RUNNING = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess", "pty", "ctypes")
_HEADROOM = 2 << 30  # address space beyond what the process has: what asks for more gets a MemoryError, a finding


def read(path: Path, layout: str | None) -> str:
    """Read and normalise everything; returns what came of it: read, refused, or partly."""
    read, refused = 0, 0
    try:
        source = open_source(path, layout=layout)
        for sequence in source:
            if sequence.bodies is None:
                assert sequence.error, "neither coordinates nor an error"
                refused += 1
                continue
            try:
                done = normalize_bodies(sequence.bodies, source.layout, source.num_bodies, source.normalize)
            except ProSLError:
                refused += 1
            else:
                assert done.shape[1:] == (source.layout.num_joints, source.num_bodies, 3)
                read += 1
        if path.suffix == ".skeleton":
            read_skeleton(path)
    except ProSLError:
        return "refused"
    return "read" if refused == 0 else "partly"


class Executed(Exception):
    """Something was executed, or written, while a file was read."""


class _Guard:
    """Watches, by Python's audit events, that reading neither runs nor writes anything. Cannot be taken off again."""

    def __init__(self) -> None:
        self.armed, self.seen = False, ""
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        runs = event == "exec" or event.startswith(_RUNNING)
        compiles = event == "compile" and arguments[1] != "<unknown>"  # that is how NumPy reads a header's literals
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if self.armed and not self.seen and (runs or compiles or writes):
            self.seen = f"{event} {str(arguments)[:200]}"

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Arm it within the block.

        Raises:
            Executed: Something was seen.
        """
        self.armed, self.seen = True, ""
        try:
            yield
        finally:
            self.armed = False
        if self.seen:
            raise Executed(self.seen)


@contextlib.contextmanager
def damaged(base: Base, seed: int, number: int, scratch: Path) -> Iterator[tuple[Path, Path]]:
    """A copy of a set with one file damaged: its folder, and what is to be opened."""
    random = np.random.default_rng([seed, number])
    folder = scratch / f"case-{number}"
    shutil.rmtree(folder, ignore_errors=True)  # of a child that was ended
    shutil.copytree(base.folder, folder, copy_function=os.link)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    try:
        victim = files[random.integers(len(files))]
        content = mutate(victim.read_bytes(), victim.name, random)
        victim.unlink()
        victim.write_bytes(content)
        yield folder, folder / base.path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _one_case(base: Base, seed: int, number: int, scratch: Path, findings: Path, guard: _Guard) -> str:
    """What came of one case; a finding is kept as a folder with the files and the traceback."""
    with warnings.catch_warnings(record=True) as warned, damaged(base, seed, number, scratch) as (folder, path):
        warnings.simplefilter("always")
        warned.clear()
        before = _forget_peak()
        try:
            with guard.watch():
                outcome = read(path, base.layout)
            taken = _peak_megabytes() - before
            if taken > MEGABYTES:
                raise MemoryError(f"{taken:.0f} MB were taken")
        except Exception:
            outcome = f"FINDING {traceback.format_exc().strip().splitlines()[-1][:200]}"
            _keep(folder, findings / f"{seed}-{number}", traceback.format_exc())
        if warned and not outcome.startswith("FINDING"):
            outcome += f", warned: {warned[0].category.__name__}: {str(warned[0].message)[:60]}"
    return outcome


def _keep(folder: Path, target: Path, text: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    (target / "traceback").write_text(text)


def _forget_peak() -> float:
    """Begin to watch the memory; returns what is taken already."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_megabytes()


def _peak_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def _child(
    pipe: Connection, bases: list[Base], seed: int, numbers: range, scratch: Path, findings: Path
) -> None:  # pragma: no cover
    for base in bases:  # modules that are imported on the way, and the pages the process has
        read(base.folder / base.path, base.layout)
    # Python's own pickle and json modules import these when a file's first bytes ask for them
    for codec in ("raw-unicode-escape", "utf-8-sig", "utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"):
        codecs.lookup(codec)
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + _HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    guard = _Guard()
    for number in numbers:
        pipe.send((number, None))
        pipe.send((number, _one_case(bases[number % len(bases)], seed, number, scratch, findings, guard)))


def run(format: str, count: int, seed: int, findings: Path, first: int = 0) -> Counter[str]:
    """Read ``count`` damaged files of a format.

    Returns:
        How often each outcome came; those that begin with ``FINDING`` must not come.
    """
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        bases = MAKERS[format](Path(folder) / "whole")
        scratch = Path(folder) / "damaged"
        scratch.mkdir()
        numbers = range(first, first + count)
        while numbers:
            ours, theirs = multiprocessing.Pipe(duplex=False)
            target = (theirs, bases, seed, numbers, scratch, findings / format)
            process = multiprocessing.get_context("fork").Process(target=_child, args=target)
            process.start()
            theirs.close()
            number, failure = _follow(ours, numbers, outcomes)
            process.kill()
            process.join()
            ours.close()
            if failure:
                outcomes[f"FINDING {failure}"] += 1
                with damaged(bases[number % len(bases)], seed, number, scratch) as (broken, _):
                    _keep(broken, findings / format / f"{seed}-{number}", failure)
            numbers = range(number + 1, numbers.stop)
    return outcomes


def _follow(pipe: Connection, numbers: range, outcomes: Counter[str]) -> tuple[int, str]:
    """Count outcomes until the child is through, hangs or dies: the last number and what was wrong."""
    number, outcome = numbers.start, None
    try:
        while pipe.poll(SECONDS if outcome is None and number > numbers.start else 6 * SECONDS):
            number, outcome = pipe.recv()
            if outcome is not None:
                outcomes[outcome] += 1
                if number == numbers[-1]:
                    return number, ""
        return number, f"hangs for {SECONDS:.0f} s"
    except EOFError:
        return number, "the process died"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=tuple(MAKERS), required=True)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case, by its number")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args(arguments)
    first, count = (0, options.count) if options.only is None else (options.only, 1)
    begin = time.perf_counter()
    outcomes = run(options.format, count, options.seed, options.findings, first)
    for outcome, times in outcomes.most_common():
        print(f"{times:>8}  {outcome}")
    found = sum(times for outcome, times in outcomes.items() if outcome.startswith("FINDING"))
    print(f"{options.format}: {count} damaged files, seed {options.seed}: {found} findings, "
          f"{time.perf_counter() - begin:.0f} s")  # fmt: skip
    return min(found, 1)


if __name__ == "__main__":
    raise SystemExit(main())
