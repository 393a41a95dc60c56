"""An archive is whole or it is not there: damage of any byte, copies, disks that are full, folders that refuse."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning import cli
from prosl_lightning.data import staging
from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.data.synthetic.raw import write_skeleton_files
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout.of("sbu-15")


def _write(
    root: Path, rows: int = 40, class_names: tuple[str, ...] = (), overwrite: bool = False, seed: int = 0
) -> Path:
    """About 90 bytes of frames and 300 of index for a row."""
    draw = np.random.default_rng(seed)
    writer = ArchiveWriter(root, layout=LAYOUT, num_bodies=1, class_names=class_names, overwrite=overwrite)
    with writer:
        for row in range(rows):
            writer.add(f"{row:0300}", draw.normal(size=(1, 15, 1, 3)), subject=row)
        writer.counts = {"read": rows + 2, "could not be used": np.int64(2)}
    return root


def _content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


@pytest.mark.parametrize("file", ["frames.npy", "index.npy", "meta.json"])
def test_every_damaged_byte_is_found(tmp_path, file):
    path = _write(tmp_path / "set", rows=5) / file
    good = path.read_bytes()
    Archive.open(tmp_path / "set").verify()
    places = sorted({*range(0, 128, 3), *random.Random(0).sample(range(len(good)), 100), len(good) - 1})
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"frames\.npy|index\.npy|meta\.json"):
            Archive.open(tmp_path / "set").verify()
    for bad in (good[:-1], good + b"\0"):
        path.write_bytes(bad)
        with pytest.raises(DataError):
            Archive.open(tmp_path / "set").verify()


def test_what_was_read_and_left_out_is_recorded(tmp_path):
    archive = Archive.open(_write(tmp_path / "set"))
    assert archive.meta["counts"] == {"read": 42, "could not be used": 2}
    writer = ArchiveWriter(tmp_path / "other", layout=LAYOUT, num_bodies=1)
    writer.__enter__()
    writer.add("a", np.ones((1, 15, 1, 3)))
    writer.counts = {"bad": "none"}
    with pytest.raises(TypeError):
        writer.__exit__(None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_archive_from_before_the_counts_is_read_and_verified(tmp_path):
    path = _write(tmp_path / "set") / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(
        json.dumps({key: value for key, value in meta.items() if key not in ("counts", "sha256")}, indent=1)
    )
    Archive.open(tmp_path / "set").verify()
    path.write_text(json.dumps({key: value for key, value in meta.items() if key != "sha256"}, indent=1))
    with pytest.raises(DataError, match=r"meta.json: changed since it was written"):
        Archive.open(tmp_path / "set").verify()


def test_a_copy_is_as_good_and_is_only_read(tmp_path):
    root = _write(tmp_path / "set")
    copy = Path(shutil.copytree(root, tmp_path / "elsewhere" / "copy"))
    shutil.rmtree(root)
    for path in (*copy.iterdir(), copy):
        path.chmod(0o555)
    before = {path.name: path.stat().st_mtime_ns for path in (*copy.iterdir(), copy)}
    archive = Archive.open(copy)
    archive.verify()
    assert archive.clip(39).shape == (1, 3, 15, 1)
    assert {path.name: path.stat().st_mtime_ns for path in (*copy.iterdir(), copy)} == before
    copy.chmod(0o755)


@contextmanager
def _largest_file(size: int):
    """The system refuses to let any file grow beyond a size: what a full disk does, at a chosen byte."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.mark.parametrize(
    ("size", "file", "class_names"),
    [(0, "frames", ()), (2000, "frames", ()), (6000, "index", ()), (20_000, "meta", ("long" * 6000,))],
)
def test_a_disk_that_is_full_in_any_file(tmp_path, size, file, class_names):
    wanted = _content(_write(tmp_path / "wanted", class_names=class_names))
    order = ["frames", "index", "meta"]
    assert [len(wanted[f"{name}.{kind}"]) <= size for name, kind in zip(order, ("npy", "npy", "json"), strict=True)][
        : order.index(file) + 1
    ] == [True] * order.index(file) + [False]
    root = _write(tmp_path / "deep" / "set", seed=1)
    old = _content(root)
    with _largest_file(size), pytest.raises(DataError, match=r"cannot write the archive .*set: .*; free some space"):
        _write(root, class_names=class_names, overwrite=True)
    assert _content(root) == old
    assert [path.name for path in root.parent.iterdir()] == ["set"]
    with _largest_file(size), pytest.raises(DataError, match="cannot write the archive"):
        _write(tmp_path / "new" / "set", class_names=class_names)
    assert not (tmp_path / "new").exists()
    assert _content(_write(root, class_names=class_names, overwrite=True)) == wanted


@pytest.mark.parametrize("call", ["mkdir", "fsync", "rename"])
@pytest.mark.parametrize("code", [28, 30])  # no space, read-only file system
def test_a_system_that_refuses_a_call(tmp_path, monkeypatch, call, code):
    old = _content(_write(tmp_path / "set", seed=1))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        for root in (tmp_path / "set", tmp_path / "new"):
            with pytest.raises(DataError, match=f"cannot write the archive {root}: {os.strerror(code)}"):
                _write(root, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert _content(tmp_path / "set") == old


def test_a_place_that_takes_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    told = f"set: Not a directory; {tmp_path}/file takes no new folder or choose another folder"
    with pytest.raises(DataError, match=told):
        _write(tmp_path / "file" / "a" / "set")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_file_system_that_takes_no_folder():
    with pytest.raises(DataError, match="cannot write the archive /proc/set: .*; /proc takes no new folder"):
        _write(Path("/proc/set"))


def test_the_old_archive_returns_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    old = _content(_write(tmp_path / "set", seed=1))
    rename, calls = os.rename, []

    def refuse_second(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, os.strerror(28))
        rename(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse_second)
        with pytest.raises(DataError, match="No space left on device"):
            _write(tmp_path / "set", overwrite=True)
    assert len(calls) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert _content(tmp_path / "set") == old


def test_what_could_not_be_removed_does_not_stop_the_next_time(tmp_path, monkeypatch):
    root = _write(tmp_path / "set", seed=1)
    monkeypatch.setattr(staging.shutil, "rmtree", lambda *_, **__: None)
    for seed in (2, 3):
        _write(root, seed=seed, overwrite=True)
    assert _content(root) == _content(_write(tmp_path / "other", seed=3))


def test_prepare_on_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, capsys):
    write_skeleton_files(tmp_path / "raw", num_samples=3)
    with _largest_file(2000):
        code = cli.main(["prepare", "ntu60", str(tmp_path / "raw"), "--out", str(tmp_path / "new" / "set")])
    error = capsys.readouterr().err
    assert code == 1
    assert error.startswith(
        f"prosl prepare: error: cannot write the archive {tmp_path / 'new' / 'set'}: File too large;"
    )
    assert len(error.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
