"""A preparation that is killed, at whatever moment, leaves nothing under the name, and is as if it had never been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.prepare import ntu60
from prosl_lightning.data.synthetic.raw import write_skeleton_files

_FILES = 160


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Raw NTU files enough for a second of reading: a few generated ones under many names."""
    folder = tmp_path_factory.mktemp("raw")
    files = write_skeleton_files(folder, num_samples=8, seed=1)
    for number in range(_FILES):
        name = (
            f"S{1 + number % 17:03}C{1 + number % 3:03}P{1 + number % 40:03}R{1 + number % 2:03}A{1 + number % 60:03}"
        )
        if not (folder / f"{name}.skeleton").exists():
            os.link(files[number % len(files)], folder / f"{name}.skeleton")
    return folder


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory) -> dict[str, bytes]:
    """Files of the archive that an uninterrupted run makes."""
    root = tmp_path_factory.mktemp("whole") / "set"
    ntu60(str(raw), out=str(root))
    assert len(Archive.open(root)) >= 100
    return _content(root)


def _content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def _prepare(raw: Path, root: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prosl_lightning", "prepare", "ntu60", str(raw), "--out", str(root), *options]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)


def _frames_written(folder: Path) -> int:
    return max((path.stat().st_size for path in folder.glob(".set.partial-*/frames.npy")), default=-1)


def _kill_when(process: subprocess.Popen[bytes], folder: Path, size: int) -> None:
    """Kill once the frames' file has the size."""
    end = time.monotonic() + 60
    while _frames_written(folder) < size:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_killed_at_random_moments_and_started_again(raw, whole, tmp_path):
    draw, root = random.Random(time.time_ns()), tmp_path / "set"
    for jobs in ("1", "2"):
        share = draw.uniform(0.0, 0.8)
        _kill_when(_prepare(raw, root, "--jobs", jobs), tmp_path, int(share * len(whole["frames.npy"])))
        assert not root.exists(), f"killed after {share:.0%} of the frames"
        assert len(list(tmp_path.iterdir())) == 1  # only the last one's leavings: earlier ones are cleared away
    assert _prepare(raw, root).wait() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert _content(root) == whole


_KILLED = """
import os, signal, sys
import numpy as np
from prosl_lightning.data import staging
from prosl_lightning.data.archive import ArchiveWriter
from prosl_lightning.skeleton import SkeletonLayout

module, name, call = {"write": (staging, "write_bytes", 1), "rewrite": (staging, "write_bytes", 2),
                      "sync": (staging, "sync_folder", 1), "rename": (staging.os, "rename", 1),
                      "second rename": (staging.os, "rename", 2), "remove": (staging.shutil, "rmtree", 1),
                      "never": (staging.os, "rename", 99)}[sys.argv[2]]
original, calls = getattr(module, name), 0

def deadly(*arguments, **options):
    global calls
    calls += 1
    if calls == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)

setattr(module, name, deadly)
with ArchiveWriter(sys.argv[1], layout=SkeletonLayout.of("sbu-15"), num_bodies=1, overwrite=True) as writer:
    writer.add("new", np.full((50, 15, 1, 3), 0.5))
"""


def _overwrite(root: Path, moment: str) -> int:
    return subprocess.run([sys.executable, "-c", _KILLED, str(root), moment], check=False).returncode


@pytest.mark.parametrize("moment", ["write", "rewrite", "sync", "rename", "second rename", "remove"])
def test_killed_while_it_completes_and_started_again(tmp_path, moment):
    root = tmp_path / "set"
    assert _overwrite(root, "never") == 0
    first = _content(root)
    (root / "mark").touch()  # tells this archive from the one that replaces it
    assert _overwrite(root, moment) == -signal.SIGKILL
    if moment not in ("second rename", "remove"):  # between the two renames the new one alone is complete, under its
        assert (root / "mark").exists()  # temporary name; after them it stands where it belongs
    if moment == "remove":
        assert _content(root) == first
    assert _overwrite(root, "never") == 0
    assert _content(root) == first
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
