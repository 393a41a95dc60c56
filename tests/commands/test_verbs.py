"""Every verb on its own, and what damaged archives, killed writers and stray files do to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.cli import VERBS, main
from prosl_lightning.commands import demo
from prosl_lightning.commands.parsing import run_function
from prosl_lightning.errors import DataError
from prosl_lightning.evaluation.report import append_result


def test_every_verb_answers_when_it_gets_no_arguments(monkeypatch, capsys):
    monkeypatch.setattr(demo, "demo", lambda *, out="demo", seed=0, tiny=False: None)
    for verb in VERBS:
        code = None
        try:
            code = main([verb])
        except SystemExit as stop:
            code = stop.code
        text = capsys.readouterr()
        assert "Traceback" not in text.err, verb
        assert (code in (0, None)) == (verb in ("demo", "configs")), (verb, code, text.err)


@pytest.mark.parametrize("arguments", [["--quick"], ["--quick", "true"], ["--quick=true"], ["--quick", "--name", "x"]])
def test_a_bare_switch_means_true(arguments):
    def verb(*, quick: bool = False, name: str = "x") -> tuple[bool, str]:
        return quick, name

    assert run_function(verb, arguments, "verb") == (True, "x")
    assert run_function(verb, [], "verb") == (False, "x")
    assert run_function(verb, ["--quick", "false"], "verb") == (False, "x")


def test_damaged_frames_stop_a_fit_before_it_begins(tiny_archive, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_archive, damaged)
    with (damaged / "frames.npy").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x01\x02")
    run = tmp_path / "run"
    assert (
        main(["fit", "--data.root", str(damaged), "--data.batch_size", "8", "--trainer.default_root_dir", str(run)])
        == 1
    )
    assert "wrong checksum, the frames are damaged" in capsys.readouterr().err
    assert not run.exists()


def test_a_terminated_prepare_leaves_nothing_and_a_killed_one_is_cleared_by_the_next(tmp_path):
    frames = 3_000_000  # enough to be met while it works
    np.savez(
        tmp_path / "mine.npz", joints=np.ones((frames, 1, 15, 3), np.float32) * np.arange(3, dtype=np.float32),
        lengths=np.full(frames // 10, 10, np.int32), labels=np.zeros(frames // 10, np.int32),
    )  # fmt: skip
    command = [sys.executable, "-m", "prosl_lightning", "prepare", "arrays", str(tmp_path / "mine.npz"), "--layout"]
    command += ["sbu-15", "--out", str(tmp_path / "out")]
    for stop in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not any(".partial-" in path.name and str(process.pid) in path.name for path in tmp_path.iterdir()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, stop)
        process.wait(timeout=60)
        left = [path.name for path in tmp_path.iterdir() if path.name != "mine.npz"]
        assert len(left) == (1 if stop == signal.SIGKILL else 0), left


@pytest.mark.parametrize("arguments", [[], ["inspect", "--json"], ["configs"], ["configs", "ntu60"]])
def test_a_reader_that_closes_the_pipe_is_no_error(tiny_archive, tmp_path, arguments):
    if arguments[:1] == ["inspect"]:
        arguments = [*arguments, str(tiny_archive)]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "prosl_lightning", *arguments], stdout=pipe, stderr=subprocess.PIPE, timeout=60
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("content", ["{bad", json.dumps({"not": "a list"})])
def test_a_damaged_results_file_is_named_and_kept(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=r"results\.json .*move it away"):
        append_result(tmp_path / "last.ckpt", {"a": 1})
    assert (tmp_path / "results.json").read_text() == content


def test_results_are_collected(tmp_path):
    for value in (1, 2):
        path = append_result(tmp_path / "last.ckpt", {"a": value})
    assert json.loads(path.read_text()) == [{"a": 1}, {"a": 2}]
    assert sorted(file.name for file in Path(tmp_path).iterdir()) == ["results.json"]
