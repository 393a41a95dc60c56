"""The page on figures tells the truth: its commands have these options, its Python code runs, its names exist."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
from pathlib import Path

import pytest
import pytorch_lightning as pl

import prosl_lightning.figures as figures
from prosl_lightning.cli import main

TEXT = (Path(__file__).parents[2] / "docs" / "figures.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
]


@functools.cache
def _help(*command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        main([*command, "--help"])
    return text.getvalue()


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_have_figures_and_options_that_exist(arguments):
    assert arguments[0] == "plot"
    assert {each for each in arguments if each.startswith("--")} <= set(re.findall(r"--[\w.]+", _help(*arguments[:2])))


def test_every_figure_of_the_command_line_is_described():
    described = re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE)
    assert sorted(described) == sorted(re.findall(r"^    (\w+) +[A-Z]", _help("plot"), flags=re.MULTILINE))
    assert sorted({arguments[1] for arguments in COMMANDS}) == sorted(described)


def test_names_of_functions_exist_and_pictures_are_small():
    section = TEXT.split("## In notebooks and loggers")[1]
    named = {
        name for name in re.findall(r"`(\w+)`", section) if name.endswith(("_figure", "_clips", "_clip", "Logger"))
    }
    assert len(named) >= 8
    assert named <= set(figures.__all__)
    pictures = re.findall(r"\]\((images/[\w.-]+)\)", TEXT)
    assert len(pictures) == 8
    for picture in pictures:
        assert (Path(__file__).parents[2] / "docs" / picture).stat().st_size < 150_000


def test_python_code_runs(tmp_path, monkeypatch, tiny_archive, tiny_module):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(tiny_archive)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(tiny_module)
    trainer.save_checkpoint("last.ckpt", weights_only=True)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names: dict = {}
    exec(code, names)  # the page is ours
    assert len(names["figure"].axes[0].collections) == 2
    assert names["figure"].axes[0].get_title().startswith("my encoder\nDBI ")
    assert names["animation"].num_frames == 16
