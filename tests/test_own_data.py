"""The page on one's own data tells the truth: its files and commands are run as they stand, on generated recordings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from prosl_lightning.cli import main
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.formats import FORMATS
from prosl_lightning.data.formats.index_table import read_index
from prosl_lightning.skeleton import SkeletonLayout

PAGE = (Path(__file__).parents[1] / "docs" / "own-data.md").read_text(encoding="utf-8")
# What makes the page's training take seconds
TINY = """
trainer: {accelerator: cpu, max_epochs: 2, enable_progress_bar: false, log_every_n_steps: 1}
model:
  base: hico-gru
  base_args: {hidden_size: 8, num_layers: 1, projection_size: 8}
  num_frames: 16
  min_crop_frames: 8
  bank_size: 8
  semantic_start: 1
  importance_samples: 2
  milestones: [2]
"""


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)


def _commands() -> list[list[str]]:
    lines = "".join(_blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture
def recordings(tmp_path, monkeypatch) -> Path:
    """The folder that the page describes: its two files, and a generated recording for each row of the table."""
    monkeypatch.chdir(tmp_path)
    Path("recordings").mkdir()
    Path("tiny.yaml").write_text(TINY)
    Path("body.yaml").write_text(_blocks("yaml")[0])
    Path("recordings/index.csv").write_text(_blocks("csv")[0])
    draw = np.random.default_rng(0)
    rest = draw.normal(size=(15, 3)) * 0.5
    for name in read_index(Path("recordings/index.csv")).names:
        frames = rest + 0.05 * draw.normal(size=(int(draw.integers(20, 40)), 15, 3)).cumsum(axis=0)
        np.savetxt(f"recordings/{name}.csv", frames.reshape(len(frames), -1), delimiter=",", fmt="%.4f")
    return tmp_path / "recordings"


def test_the_pages_commands_run(recordings, capsys):
    prepare, fit, knn, by_subject = _commands()
    main(prepare)
    assert "format files: folder of csv, txt, npy files" in capsys.readouterr().out
    archive = Archive.open("data/mine")
    assert archive.names.tolist() == ["anna_01", "anna_02", "ben_01", "ben_02", "carl_01", "carl_02"]
    assert archive.class_names == ("bow", "wave")
    assert archive.layout.mirror[3:9] == (6, 7, 8, 3, 4, 5)
    assert [len(part) for part in archive.split("split")] == [4, 2]
    main([*fit, "--config", "tiny.yaml"])
    assert Path("runs/mine/checkpoints/last.ckpt").is_file()
    main(knn)
    assert Path("runs/mine/checkpoints/results.json").is_file()
    main(by_subject)
    assert [rows.tolist() for rows in Archive.open("data/mine-by-subject").split("x-sub")] == [[0, 1, 2, 3], [4, 5]]


def test_neither_labels_nor_a_split_are_needed(recordings, capsys):
    (recordings / "index.csv").unlink()
    prepare, fit, *_ = _commands()
    main(prepare)
    assert Archive.open("data/mine").labels.tolist() == [-1] * 6
    assert "--data.protocol all" in PAGE
    everything = [{"split": "all"}.get(argument, argument) for argument in fit]
    main([*everything, "--config", "tiny.yaml", "--trainer.max_epochs", "1"])
    assert Path("runs/mine/checkpoints/last.ckpt").is_file()


def test_the_table_lists_every_format():
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", PAGE.split("## Formats")[1], flags=re.MULTILINE)
    assert set(re.findall(r"[\w-]+", " ".join(rows))) == set(FORMATS)


def test_the_keys_of_a_body_model_are_those_that_are_read():
    described = set(
        re.findall(r"^\| `(\w+)` \|", PAGE.split("## The body model")[1].split("## ")[0], flags=re.MULTILINE)
    )
    example = SkeletonLayout.of(yaml.safe_load(_blocks("yaml")[0]))
    assert described == set(example.to_dict()) - {"name"}
