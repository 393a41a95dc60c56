"""The documents tell the truth: names, links, commands and code in them exist and work."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning import ArchiveWriter, ProSLModule, SkeletonLayout
from prosl_lightning.cli import VERBS, main
from prosl_lightning.commands.parsing import packaged_configs
from prosl_lightning.encoders import build_encoder, hico_state_dict

ROOT = Path(__file__).parents[1]
PAPER = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])

FUNCTIONS = sorted(set(re.findall(r"`((?:data|views|encoders|bases|prosl|evaluation|figures)\.\w[\w.]*)`", PAPER)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAPER)))

# Built or fetched, not ours to check; and folders that begin with a dot, except .ci
_PRUNED = {"build", "dist", "runs", "wandb", "demo", "data", "lightning_logs", "htmlcov"}
_BINARY = {".npz", ".npy", ".png", ".gif", ".pyc", ".ckpt"}
# Put together, so that this file does not hold what it looks for.
_FOREIGN = [
    re.compile(r"(?<![\w.~])/(?:" + "|".join(("work", "tmp", "home", "root", "Users", "mnt")) + r")/\w"),
    re.compile("|".join(("pypi" + r"\.org", "python" + "hosted", "index" + "-url"))),
]


def test_every_equation_of_the_paper_has_a_function_and_a_test():
    rows = [line.split("|")[1:-1] for line in PAPER.splitlines() if re.match(r"\| \d+ \|", line)]
    assert {int(row[0]) for row in rows} == set(range(1, 13))
    assert all(re.search(r"`[\w.]+`", row[2]) and "::test_" in row[3] for row in rows)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_named_functions_exist(name):
    parts, found = name.split("."), None
    for count in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module("prosl_lightning." + ".".join(parts[:count]))
            break
    assert callable(functools.reduce(getattr, parts[count:], found)), name


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_named_tests_exist(file, name):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_options_have_the_stated_defaults():
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAPER, flags=re.MULTILINE)
    parameters = inspect.signature(ProSLModule).parameters
    assert len(rows) >= 9
    assert {name: str(parameters[name].default) for name, _ in rows} == dict(rows)


def _links(text: str) -> list[str]:
    without_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", without_code) if not link.startswith(("http", "mailto:"))]


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for link in _links(document.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        assert target.exists(), f"{document.name}: {link}"
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), f"{document.name}: {link}"


def _texts() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        inside = Path(folder).relative_to(ROOT)
        top = inside == Path(".")
        folders[:] = [
            name
            for name in folders
            if (not name.startswith(".") or name == ".ci")
            and not name.endswith((".egg-info", "__pycache__"))
            and not (top and name in _PRUNED)
        ]
        yield from (Path(folder) / name for name in files if Path(name).suffix not in _BINARY)


def test_no_file_names_a_machine_or_a_package_registry():
    found, looked = [], 0
    for file in _texts():
        looked += 1
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            found += [f"{file.relative_to(ROOT)}:{number}: {line.strip()}" for p in _FOREIGN if p.search(line)]
    assert looked > 80
    assert not found, "\n".join(found)


def _commands(text: str) -> list[list[str]]:
    """Arguments of every `prosl ...` line in the shell blocks of a document, comments left out."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("prosl ")]


COMMANDS = [arguments for document in DOCUMENTS for arguments in _commands(document.read_text(encoding="utf-8"))]


@functools.cache
def _help(*command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        main([*command, "--help"])
    return text.getvalue()


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_of_the_documents_use_verbs_configurations_and_options_that_exist(arguments):
    verb = arguments[0]
    assert verb in VERBS
    command = arguments[:2] if verb in ("prepare", "plot") else arguments[:1]
    known = set(re.findall(r"--[\w.]+", _help(*command)))
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option == "--config":
            assert value in packaged_configs()
        elif option.startswith("--"):
            # `--trainer.logger.project` belongs to whatever class `--trainer.logger` names
            possible = {option, option.rsplit(".", 1)[0]} if option.count(".") == 2 else {option}
            assert possible & known, f"{option} is no option of prosl {' '.join(command)}"


def test_every_verb_is_in_the_readme():
    assert {f"`prosl {verb}`" for verb in VERBS} <= set(re.findall(r"`prosl \w+`", README))


@pytest.fixture
def small_real_set(tmp_path) -> Path:
    """An archive in `data/nw-ucla` of the body model and size that the README's example expects."""
    draw, root = np.random.default_rng(0), tmp_path / "data" / "nw-ucla"
    protocols = {"x-view": {"column": "view", "train": [1, 2], "test": [3]}}
    layout = SkeletonLayout.of("kinect-v1")
    recipe = {"normalize": "agcn"}
    with ArchiveWriter(
        root, layout=layout, num_bodies=1, class_names=("a", "b"), protocols=protocols, recipe=recipe
    ) as writer:
        for i in range(99):
            writer.add(f"clip{i}", draw.normal(size=(20 + i % 9, 20, 1, 3)), label=i % 2, view=1 + i % 3)
    return root


def test_python_code_of_the_readme_runs(tmp_path, small_real_set, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = functools.partial(pl.Trainer, fast_dev_run=1, accelerator="cpu", enable_progress_bar=False)
    monkeypatch.setattr(pl, "Trainer", quick)
    public = build_encoder("hico-gru", layout="kinect-v2", num_bodies=2, num_frames=64, hidden_size=16)
    torch.save(hico_state_dict(public), "checkpoint_0450.pth.tar")
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict = {}
    exec(blocks[0], names)  # the README is ours
    trained = names["model"]
    names["trainer"].save_checkpoint("runs/nw-ucla/checkpoints/last.ckpt")
    exec(blocks[1], names)
    assert names["features"].shape == (33, 2 * 4 * 128)
    for name, weight in names["model"].state_dict().items():
        assert torch.equal(weight, trained.state_dict()[name]), name
    exec(blocks[2], names)
    assert names["features"].shape == (4, 2 * 4 * 16)
    exec(blocks[3], names)
    assert names["features"].shape == (2, 2 * 4 * 128)


ROOMS = [
    *("skeleton", "layouts", "data", "views", "encoders", "bases"),
    *("prosl", "evaluation", "figures", "commands", "cli"),
]


def test_rooms_import_only_from_those_before_them():
    package = ROOT / "src" / "prosl_lightning"
    upward, seen = [], set()
    for file in sorted(package.rglob("*.py")):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        if room not in ROOMS:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = node.module if isinstance(node, ast.ImportFrom) and node.module else ""
            other = name.split(".")[1] if name.startswith("prosl_lightning.") else ""
            if other in ROOMS:
                seen.add((room, other))
                if ROOMS.index(other) > ROOMS.index(room):
                    upward.append(f"{file.relative_to(package)} imports {name}")
    assert {("data", "skeleton"), ("prosl", "views"), ("commands", "evaluation")} <= seen
    assert not upward


def test_no_placeholder_is_left():
    for path in DOCUMENTS:
        assert "TODO" not in path.read_text(encoding="utf-8"), path
