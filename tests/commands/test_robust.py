"""`prosl fit` when things go wrong: full disks, signals, kills at bad moments."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger

from prosl_lightning import CodebookCallback, ProSLModule
from prosl_lightning.commands import stopping
from prosl_lightning.prosl import checkpoint_io


def _stored(path: str | Path) -> dict:
    return torch.load(path, weights_only=True)


def test_a_full_disk_keeps_the_checkpoint_before(fit, monkeypatch):
    resource = pytest.importorskip("resource")
    assert fit("--trainer.max_epochs", 1).code == 0
    last = Path("run/checkpoints/last.ckpt").resolve()
    before = last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        result = fit("--ckpt_path", "last")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert result.code == 1
    assert result.err == (
        f"prosl fit: error: cannot write the checkpoint {last}: File too large\nfree some space there; {last} is "
        "complete: go on with the same command and --ckpt_path last\n"
    )
    assert Path("run/checkpoints/last.ckpt").read_bytes() == before
    assert [file.name for file in Path("run/checkpoints").iterdir()] == ["last.ckpt"]
    assert fit("--ckpt_path", "last").code == 0


@pytest.mark.slow
def test_a_full_file_system_gives_one_error(tmp_path):
    """In a namespace of its own, where a small file system can be mounted."""
    script = """
import pathlib, sys, torch
from prosl_lightning.prosl.checkpoint_io import AtomicCheckpointIO
folder = pathlib.Path(sys.argv[1])
AtomicCheckpointIO().save_checkpoint({"a": torch.ones(20_000)}, folder / "last.ckpt")
try:
    AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(60_000)}, folder / "last.ckpt")
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0])
print(torch.load(folder / "last.ckpt")["a"].sum().item(), len(list(folder.iterdir())))
"""
    (tmp_path / "script.py").write_text(script)
    (folder := tmp_path / "small").mkdir()
    command = 'mount -t tmpfs -o size=200k tmpfs "$1" && exec "$2" "$3" "$1"'
    arguments = (folder, sys.executable, tmp_path / "script.py")
    try:
        done = subprocess.run(
            ["unshare", "-Urm", "sh", "-c", command, "sh", *arguments], capture_output=True, text=True, timeout=120
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert done.stdout.splitlines() == [
        f"DataError cannot write the checkpoint {folder}/last.ckpt: No space left on device",
        "20000.0 1",
    ]


def test_a_write_that_is_cut_off_leaves_nothing_behind(tmp_path):
    class Unwritable:
        def __reduce__(self):
            raise KeyboardInterrupt

    path = tmp_path / "new" / "last.ckpt"
    checkpoint_io.write_atomically({"a": torch.ones(3)}, path)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_io.write_atomically({"a": torch.zeros(3), "b": Unwritable()}, path)
    assert torch.equal(_stored(path)["a"], torch.ones(3))
    assert list(path.parent.iterdir()) == [path]


def test_last_does_not_mean_an_earlier_run_nor_the_middle_of_an_epoch(fit, tmp_path):
    assert fit("--trainer.max_epochs", 1).code == 0
    stored = Path("run/checkpoints/last.ckpt").read_bytes()
    Path("run/checkpoints").rename("run/checkpoints-1")
    Path("run/hpc_ckpt_1.ckpt").write_bytes(stored)
    result = fit("--ckpt_path", "last")
    assert result.code == 1
    assert result.err.startswith("prosl fit: error: --ckpt_path last: no complete checkpoint in run (found nothing);")
    assert "an earlier run's can be named" in result.err
    assert fit("--ckpt_path", "run/checkpoints-1/last.ckpt", "--trainer.max_epochs", 2).code == 0


def test_a_checkpoint_to_be_kept_is_made_up_for(fit):
    options = ("--checkpoint_every", 2, "--trainer.max_epochs", 3)
    assert fit("--checkpoint_every", 2, "--trainer.max_epochs", 2).code == 0
    kept = Path("run/checkpoints/epoch-0001.ckpt")
    kept.unlink()  # as if killed between the two
    assert fit(*options, "--ckpt_path", "last").code == 0
    assert _stored(kept)["epoch"] == 1
    assert _stored("run/checkpoints/last.ckpt")["epoch"] == 2


@pytest.mark.slow
def test_sigterm_exits_with_143_and_the_restart_is_exact(fit, monkeypatch):
    assert fit("--trainer.default_root_dir", "whole").code == 0
    whole = _stored("whole/checkpoints/last.ckpt")["state_dict"]
    # In the second epoch: in a step, while its codebook's successor is found, while its checkpoint is written.
    for owner, name, number in ((ProSLModule, "training_step", 7), (CodebookCallback, "cluster", 2), (os, "fsync", 3)):
        with monkeypatch.context() as patch:
            _terminate_at(patch, owner, name, number)
            result = fit("--trainer.default_root_dir", name)
        assert result.code == 143
        assert result.err == (
            f"\nprosl fit: stopped by SIGTERM in epoch 1; {name}/checkpoints/last.ckpt is complete: go on with the "
            "same command and --ckpt_path last\n"
        )
        assert _stored(f"{name}/checkpoints/last.ckpt")["epoch"] == 0
        assert [file.name for file in Path(name, "checkpoints").iterdir()] == ["last.ckpt"]
        assert fit("--trainer.default_root_dir", name, "--ckpt_path", "last").code == 0
        resumed = _stored(f"{name}/checkpoints/last.ckpt")["state_dict"]
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def _terminate_at(patch, owner, name: str, number: int) -> None:
    """Send SIGTERM to this process when a function is called for the `number`-th time."""
    original, count = getattr(owner, name), itertools.count(1)

    def wrapped(*args, **kwargs):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    patch.setattr(owner, name, wrapped)


def test_an_interrupt_exits_with_130_and_says_what_there_is(fit, monkeypatch):
    step = ProSLModule.training_step

    def interrupted(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(ProSLModule, "training_step", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        result = fit()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.code == 130
    assert "stopped by Ctrl+C in epoch 0; there is no checkpoint yet: start again with the same command" in result.err


def test_slurm_does_not_requeue_in_the_middle_of_an_epoch(monkeypatch):
    given = stopping.plugins(None)
    assert [type(plugin).__name__ for plugin in given] == ["AtomicCheckpointIO"]
    own = checkpoint_io.AtomicCheckpointIO()
    assert stopping.plugins([own]) == [own]
    monkeypatch.setattr(stopping._SLURM, "detect", staticmethod(lambda: True))
    slurm = stopping.plugins(own)[1]
    assert (type(slurm).__name__, slurm.auto_requeue) == ("SLURMEnvironment", False)


def test_a_full_disk_under_the_log_gives_one_error_too(fit, monkeypatch):
    def full(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")

    def told(*arguments: object) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(CSVLogger, "save", full)
            result = fit(*arguments)
        assert result.code == 1
        return result.err

    error = "prosl fit: error: cannot write metrics.csv: No space left on device\nfree some space there; "
    assert told() == f"{error}there is no checkpoint yet: start again with the same command, without --ckpt_path\n"
    assert fit("--trainer.max_epochs", 1).code == 0
    last = "run/checkpoints/last.ckpt is complete: go on with the same command and --ckpt_path last"
    assert told("--ckpt_path", "last") == f"{error}{last}\n"
