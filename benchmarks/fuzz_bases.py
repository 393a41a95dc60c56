"""Small valid files that `fuzz.py` damages; most are those the tests of the readers start from."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

TESTS = Path(__file__).parents[1] / "tests" / "data"


@dataclass(frozen=True)
class Base:
    """A valid set of files.

    Attributes:
        folder: Where its files are.
        path: What is opened, within that folder.
        layout: The body model, where the format does not tell it.
    """

    folder: Path
    path: str = ""
    layout: str | None = None


def _tests(name: str) -> ModuleType:
    """A file of fixtures of the tests."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), TESTS / name / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_ntu(root: Path) -> list[Base]:
    """A folder with both line ends, one file, and a zip file."""
    text: Callable[..., bytes] = _tests("")._text
    draw = np.random.default_rng(0)
    joints = np.round(draw.normal(size=(5, 2, 25, 3)).cumsum(axis=0) * 0.1 + 2, 7)
    folder = root / "folder"
    folder.mkdir(parents=True)
    for number, counts in enumerate([(1, 1, 1, 1, 1), (2, 2, 2, 2, 2), (0, 1, 2, 1, 0)], start=1):
        frames = [list(frame[:count]) for frame, count in zip(joints, counts, strict=True)]
        path = folder / f"S001C001P00{number}R001A00{number}.skeleton"
        path.write_bytes(text(frames, ("\n", "\r\n", "\n")[number - 1]))
    (root / "zip").mkdir()
    shutil.make_archive(str(root / "zip" / "all"), "zip", folder)
    shutil.copytree(folder, root / "one", ignore=shutil.ignore_patterns("*A002*", "*A003*"))
    return [Base(folder), Base(root / "zip", "all.zip"), Base(root / "one", "S001C001P001R001A001.skeleton")]


def make_pku(root: Path) -> list[Base]:
    """Videos with labels and a split file, and clips that were cut out."""
    draw = np.random.default_rng(0)
    frames = np.round(draw.normal(size=(20, 150)).cumsum(axis=0) * 0.02 + 2, 6)
    frames[:8, 75:] = 0
    whole, cut = root / "whole", root / "cut"
    for folder in (whole / "skeleton", whole / "label", whole / "split", cut):
        folder.mkdir(parents=True)
    for name in ("0002-L", "0003-M"):
        lines = [" ".join(f"{value:.6f}" for value in frame) for frame in frames]
        (whole / "skeleton" / f"{name}.txt").write_text("\n ".join(lines) + "\n")
        (whole / "label" / f"{name}.txt").write_text("42,1,10,2\n7,11,17,1\n51,12,20,2\n")
    (whole / "split" / "cross-subject.txt").write_text("Training videos:\n0002-L\n\nValidataion videos:\n0003-M\n")
    joints = "\n".join(" ".join(map(str, point)) for point in frames[0, :75].reshape(25, 3))
    about = "1 0 1 1 1 1 0 0.02 -0.05 2"
    text = "6\n" + f"2\n{about}\n25\n{joints}\n{joints}\n" * 2 + f"1\n{about}\n25\n{joints}\n" * 4
    for name in ("F001V002C042L001", "F001V003C007L002"):
        (cut / f"{name}.skeleton").write_text(text)
    return [Base(whole), Base(cut)]


def make_arrays(root: Path) -> list[Base]:
    """All the formats of `tests/data/formats`."""
    bases = []
    for name, maker in _tests("formats").MAKERS.items():
        folder = root / name
        folder.mkdir(parents=True)
        made = maker(folder)
        bases.append(Base(folder, str(made.path.relative_to(folder)), made.layout))
    return bases


MAKERS = {"ntu": make_ntu, "pku": make_pku, "arrays": make_arrays}
