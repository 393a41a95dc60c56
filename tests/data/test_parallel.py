"""Several processes: the order of the results, how many are held at once, and what happens when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prosl_lightning.data.parallel import map_in_order
from prosl_lightning.errors import DataError, UsageError


def _square(number: int) -> int:
    return number * number


def _note(item: tuple[str, int]) -> int:
    Path(item[0], str(item[1])).touch()
    return item[1]


def _die(number: int) -> int:
    if number == 20:
        os._exit(1)
    return number


def _complain(number: int) -> int:
    if number == 20:
        raise DataError("number 20")
    return number


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_results_are_in_order(jobs):
    assert list(map_in_order(_square, range(100), jobs)) == [number * number for number in range(100)]
    assert list(map_in_order(_square, [], jobs)) == []


@pytest.mark.parametrize(("jobs", "most"), [(1, 1), (2, 56)])
def test_little_is_done_ahead_of_what_was_taken(tmp_path, jobs, most):
    """Otherwise results of files that are read faster than written would pile up."""
    results = map_in_order(_note, [(str(tmp_path), number) for number in range(400)], jobs)
    assert next(results) == 0
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= most
    assert list(results) == list(range(1, 400))


def test_errors_of_a_worker_and_its_death():
    with pytest.raises(DataError, match="number 20"):
        list(map_in_order(_complain, range(100), 2))
    with pytest.raises(DataError, match="a reading process died .* fewer than --jobs 2"):
        list(map_in_order(_die, range(100), 2))
    with pytest.raises(UsageError, match="jobs is 0"):
        list(map_in_order(_square, range(3), 0))


_ENDLESS = """
import os, sys, time
from pathlib import Path
from prosl_lightning.data.parallel import map_in_order

def work(number):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(0.05)

if __name__ == "__main__":
    list(map_in_order(work, range(10_000), 2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "workers").mkdir()
    script = tmp_path / "endless.py"
    script.write_text(_ENDLESS)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path / "workers")])
    try:
        _wait(lambda: len(list((tmp_path / "workers").iterdir())) == 2)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    workers = [int(path.name) for path in (tmp_path / "workers").iterdir()]
    _wait(lambda: not any(_runs(worker) for worker in workers))


def _wait(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # nobody may be there to collect it
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
